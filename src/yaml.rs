//! YAML text → nodes that know where they stand. Scalars stay text: what they mean is for the reader
//! to say. Anchors and merge keys (`<<`) are resolved; tags are refused; a key stands once.

mod concatenated;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

/// The longest text, in bytes.
pub const LONGEST: usize = 4 * 1024 * 1024;
/// What nodes may weigh together, with those that aliases repeat: ten thousand streams take a tenth
/// of it.
const MOST_WEIGHT: usize = 1_000_000;
/// Bytes of text that weigh as much as a node.
const TEXT_WEIGHT: usize = 64;
/// Lists and maps within each other.
const DEEPEST: usize = 32;
/// More faults than that are the same one again.
const MOST_FAULTS: usize = 100;

/// Counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub at: Place,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    /// `quoted` is text for certain, whatever it looks like.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    /// In the order of the text.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub at: Place,
    pub value: Node,
}

/// What is wrong with the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlError {
    pub at: Place,
    pub what: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Place {
    fn of(marker: &Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

/// Reads the documents that hold something: templates leave empty ones before and behind them. All
/// faults come back at once, but for those that make the rest unreadable.
pub fn parse(text: &str) -> Result<Vec<Node>, Vec<YamlError>> {
    let (mut documents, mut faults) = (vec![], vec![]);
    for part in concatenated::parts(text) {
        match parse_part(part.text) {
            Ok(nodes) => documents.extend(nodes.into_iter().map(|node| part.node(node))),
            Err(of_part) => faults.extend(of_part.into_iter().map(|fault| part.fault(fault))),
        }
        if faults.len() >= MOST_FAULTS {
            break;
        }
    }
    if faults.is_empty() { Ok(documents) } else { Err(faults) }
}

fn parse_part(text: &str) -> Result<Vec<Node>, Vec<YamlError>> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text).keep_tags(true) {
        let taken = match event {
            Ok((event, span)) => builder.take(event, Place::of(&span.start)),
            Err(error) => Err(YamlError { at: Place::of(error.marker()), what: error.info().to_owned() }),
        };
        if let Err(fault) = taken {
            builder.faults.push(fault);
            break;
        }
    }
    if builder.faults.is_empty() { Ok(builder.documents) } else { Err(builder.faults) }
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    /// By number; only what is whole can be referred to.
    anchors: HashMap<usize, Node>,
    weight: usize,
    faults: Vec<YamlError>,
}

/// A list or a map that is not closed yet.
struct Open {
    at: Place,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Place)>, merged: Vec<Node> },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Place) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag, at);
                let node = Node { at, value: scalar(text, style) };
                self.put(node, anchor)?;
            }
            Event::Alias(anchor) => {
                let Some(repeated) = self.anchors.get(&anchor).map(weight) else {
                    return Err(YamlError { at, what: "an alias for something that contains it".into() });
                };
                self.count(repeated, at)?;
                if let Some(node) = self.anchors.get(&anchor).cloned() {
                    self.put(Node { at, ..node }, 0)?;
                }
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag, at);
                self.enter(Open { at, anchor, inside: Inside::List(vec![]) })?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag, at);
                self.enter(Open { at, anchor, inside: Inside::Map { entries: vec![], key: None, merged: vec![] } })?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { at, anchor, inside }) = self.open.pop() {
                    let value = match inside {
                        Inside::List(nodes) => Value::List(nodes),
                        Inside::Map { entries, merged, .. } => Value::Map(self.merge(entries, merged)),
                    };
                    self.put(Node { at, value }, anchor)?;
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn enter(&mut self, open: Open) -> Result<(), YamlError> {
        if let Some(Open { inside: Inside::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(YamlError { at: open.at, what: "a list or a map as a key".into() });
        }
        if self.open.len() == DEEPEST {
            return Err(YamlError {
                at: open.at,
                what: format!("more than {DEEPEST} lists and maps within each other"),
            });
        }
        self.open.push(open);
        Ok(())
    }

    /// Puts a node that is whole where it belongs.
    fn put(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        self.count(own_weight(&node), node.at)?;
        if anchor > 0 {
            self.count(weight(&node), node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.inside) {
            None if says_nothing(&node) => {}
            None => self.documents.push(node),
            Some(Inside::List(nodes)) => nodes.push(node),
            Some(Inside::Map { entries, key, merged }) => match key.take() {
                Some((name, at)) if name == "<<" => {
                    merged.push(Node { at, ..node });
                }
                Some((name, at)) => entries.push(Entry { key: name, at, value: node }),
                None => *key = Some((key_of(&node)?, node.at)),
            },
        }
        Ok(())
    }

    /// The entries of a map, with those of merge keys that it does not have itself; keys that stand
    /// twice are faults.
    fn merge(&mut self, entries: Vec<Entry>, merged: Vec<Node>) -> Vec<Entry> {
        let mut seen: HashMap<String, Place> = HashMap::new();
        let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
        for entry in entries {
            if let Some(first) = seen.get(&entry.key) {
                let what = format!("the key {:?} stands in line {} already", entry.key, first.line);
                self.fault(entry.at, what);
                continue;
            }
            seen.insert(entry.key.clone(), entry.at);
            kept.push(entry);
        }
        for node in merged {
            let maps = match node.value {
                Value::List(nodes) => nodes,
                value => vec![Node { at: node.at, value }],
            };
            for map in maps {
                let Value::Map(entries) = map.value else {
                    self.fault(map.at, "<< takes a map or a list of maps".into());
                    continue;
                };
                for entry in entries {
                    if !seen.contains_key(&entry.key) {
                        seen.insert(entry.key.clone(), entry.at);
                        kept.push(entry);
                    }
                }
            }
        }
        kept
    }

    fn count(&mut self, weight: usize, at: Place) -> Result<(), YamlError> {
        self.weight += weight;
        if self.weight > MOST_WEIGHT {
            return Err(YamlError { at, what: "more values than can be held, with those that aliases repeat".into() });
        }
        Ok(())
    }

    fn refuse_tag(&mut self, tag: Option<Cow<'_, saphyr_parser::Tag>>, at: Place) {
        if let Some(tag) = tag {
            // Any other may be a password that begins with an exclamation mark.
            let standard = ["str", "int", "float", "bool", "null", "map", "seq", "binary", "timestamp", "set", "omap"];
            let name = tag.suffix.as_str();
            let found = match tag.is_yaml_core_schema() && standard.contains(&name) {
                true => format!("the tag !!{name}"),
                false => "a tag".to_owned(),
            };
            self.fault(at, format!("{found}; tags are not supported, and a text that begins with ! stands in quotes"));
        }
    }

    fn fault(&mut self, at: Place, what: String) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(YamlError { at, what });
        }
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    let quoted = style != ScalarStyle::Plain;
    if !quoted && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar { text: text.into_owned(), quoted }
}

/// Whether a document is as good as none.
fn says_nothing(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Scalar { text, .. } => text.is_empty(),
        Value::List(nodes) => nodes.is_empty(),
        Value::Map(entries) => entries.is_empty(),
    }
}

fn key_of(node: &Node) -> Result<String, YamlError> {
    match &node.value {
        Value::Scalar { text, .. } => Ok(text.clone()),
        Value::Null => Err(YamlError { at: node.at, what: "an empty key".into() }),
        Value::List(_) | Value::Map(_) => Err(YamlError { at: node.at, what: "a list or a map as a key".into() }),
    }
}

fn weight(node: &Node) -> usize {
    own_weight(node)
        + match &node.value {
            Value::Null | Value::Scalar { .. } => 0,
            Value::List(nodes) => nodes.iter().map(weight).sum(),
            Value::Map(entries) => {
                entries.iter().map(|entry| 1 + entry.key.len() / TEXT_WEIGHT + weight(&entry.value)).sum()
            }
        }
}

/// Without what is inside.
fn own_weight(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { text, .. } => 1 + text.len() / TEXT_WEIGHT,
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
