//! Reading YAML files: nodes → values, by tables. What is wrong is noted with its place, and reading
//! goes on.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::declared::options::{Field, Kind};
use super::problem::{Problems, quote};
use super::redaction::redact;
use super::values::{number_in, parse_bool};
use crate::domain::{ByteSize, StreamName, Subject, parse_span};
use crate::yaml::{self, Entry, Node, Place};

/// One file that is being read.
pub struct Document<'a> {
    /// As shown to people.
    pub name: &'a str,
    pub problems: &'a mut Problems,
    /// What is read now was written by a server or a tool: durations are nanoseconds, and what is not
    /// set stands there, too.
    pub exported: bool,
}

/// Fields that were declared, with the lines that declare them.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    pub config: Map<String, Value>,
    pub lines: BTreeMap<&'static str, usize>,
}

/// Problems told at a time.
const MOST_PROBLEMS: usize = 200;
/// The longest text that a field may hold.
const LONGEST_TEXT: usize = 4096;

impl Document<'_> {
    pub fn problem(&mut self, at: Place, path: &str, found: &str, rule: &str, remedy: &str) {
        // More of them are the same one again.
        if self.problems.list.len() >= MOST_PROBLEMS {
            return;
        }
        let place = match at.line {
            // What has no lines is known by its fields alone.
            0 => path.to_owned(),
            _ => format!("{}:{at}: {path}", self.name),
        };
        self.problems.add(place, found, rule, remedy);
    }

    /// Notes that a key is none of those that may stand here.
    pub fn unknown_key<'k>(&mut self, entry: &Entry, path: &str, known: impl Iterator<Item = &'k str>) {
        let known: Vec<_> = known.collect();
        let near = known
            .iter()
            .map(|name| (strsim::damerau_levenshtein(&entry.key, name), *name))
            .filter(|(distance, name)| *distance <= 2.max(name.len() / 3))
            .min();
        let remedy = match near {
            Some((_, name)) => format!("did you mean {name}?"),
            None => format!("use one of {}", known.join(", ")),
        };
        // Behind a `=` stands a value, which may be a secret.
        let key = match entry.key.split_once('=') {
            Some((name, _)) => format!("{name}=…"),
            None => redact(&entry.key),
        };
        let path = join(path, &key);
        self.problem(entry.at, &path, &quote(&key), "is not a key that may stand here", &remedy);
    }

    /// The entries of a map; nothing counts as an empty one.
    pub fn entries<'n>(&mut self, node: &'n Node, path: &str) -> &'n [Entry] {
        match &node.value {
            yaml::Value::Map(entries) => entries,
            yaml::Value::Null => &[],
            _ => {
                let remedy = match path {
                    "" => "write `key: value` lines; a file of NAME=value lines is for the environment",
                    _ => "write `key: value` lines below it",
                };
                // What is no map may be a secret: a line of a .env file, a password that belongs elsewhere.
                self.problem(node.at, path, kind(node), "must be a map", remedy);
                &[]
            }
        }
    }

    /// A yes or no.
    pub fn bool(&mut self, node: &Node, path: &str) -> Option<bool> {
        let read = scalar(node).and_then(parse_bool);
        if read.is_err() {
            self.problem(node.at, path, &found(node), "must be true or false", "correct it, or leave it out");
        }
        read.ok()
    }

    /// Whether an entry is one that exports have and that is no option.
    pub fn pass_over(&mut self, entry: &Entry, path: &str) -> bool {
        let Some(passed) = passed_over(entry) else { return false };
        if let Err(found) = passed {
            let rule = "is nothing that can be declared";
            self.problem(entry.at, &join(path, &entry.key), &found, rule, "leave it out");
        }
        true
    }

    /// Takes one entry by the table; false when the table does not know its key.
    pub fn take(&mut self, entry: &Entry, fields: &'static [Field], path: &str, into: &mut Fields) -> bool {
        let Some(field) = fields.iter().find(|field| field.is_called(&entry.key)) else { return false };
        let path = join(path, &entry.key);
        let unset = matches!((field.kind, scalar(&entry.value)), (Kind::Replicas, Ok("0")));
        if self.exported && (says_nothing(&entry.value) || unset) {
            return true;
        }
        if let Some(line) = into.lines.get(field.name) {
            let rule = format!("is {} under another name, which stands in line {line} already", field.name);
            self.problem(entry.at, &path, &quote(&entry.key), &rule, "keep one of the two");
        } else if entry.value.value != yaml::Value::Null {
            into.lines.insert(field.name, entry.at.line);
            into.config.extend(self.value(&entry.value, field, &path).map(|value| (field.name.to_owned(), value)));
        }
        true
    }

    fn fields(&mut self, node: &Node, fields: &'static [Field], path: &str) -> Map<String, Value> {
        let mut read = Fields::default();
        for entry in self.entries(node, path) {
            if !self.take(entry, fields, path, &mut read) {
                self.unknown_key(entry, path, fields.iter().map(|field| field.name));
            }
        }
        read.config
    }

    fn value(&mut self, node: &Node, field: &Field, path: &str) -> Option<Value> {
        let exported = self.exported;
        let read_one = |kind: Kind, text: &str| match kind {
            Kind::Span | Kind::Spans if exported => nanoseconds(text).unwrap_or_else(|| read_one(kind, text)),
            _ => read_one(kind, text),
        };
        match field.kind {
            Kind::Object(fields) => return Some(self.fields(node, fields, path).into()),
            Kind::Objects(fields) => {
                let nodes = self.list(node, field, path)?;
                let object = |(i, node)| Value::Object(self.fields(node, fields, &format!("{path}[{i}]")));
                return Some(nodes.iter().enumerate().map(object).collect());
            }
            Kind::Labels => return Some(self.labels(node, path)),
            _ => {}
        }
        let read = match (field.kind, &node.value) {
            (Kind::Subjects | Kind::Spans | Kind::Texts, yaml::Value::List(nodes)) => {
                let mut values = Vec::with_capacity(nodes.len());
                for (i, node) in nodes.iter().enumerate() {
                    match scalar(node).and_then(|text| read_one(field.kind, text)) {
                        Ok(value) => values.push(value),
                        Err(reason) => self.refuse(node, field, &format!("{path}[{i}]"), &reason),
                    }
                }
                if values.len() < nodes.len() {
                    return None;
                }
                Ok(values.into())
            }
            // One that stands alone is a list of one.
            (Kind::Subjects | Kind::Texts, yaml::Value::Scalar { text, .. }) => {
                read_one(field.kind, text).map(|value| vec![value].into())
            }
            _ => scalar(node).and_then(|text| read_one(field.kind, text)),
        };
        match read {
            Ok(value) => Some(value),
            Err(reason) => {
                self.refuse(node, field, path, &reason);
                None
            }
        }
    }

    fn list<'n>(&mut self, node: &'n Node, field: &Field, path: &str) -> Option<&'n [Node]> {
        if let yaml::Value::List(nodes) = &node.value {
            return Some(nodes);
        }
        self.refuse(node, field, path, "");
        None
    }

    fn labels(&mut self, node: &Node, path: &str) -> Value {
        let mut labels = Map::new();
        for entry in self.entries(node, path) {
            if self.exported && entry.key.starts_with("_nats.") {
                // The server's own.
                continue;
            }
            match scalar(&entry.value).and_then(|text| read_one(Kind::Text, text)) {
                Ok(value) => _ = labels.insert(entry.key.clone(), value),
                Err(_) => {
                    let path = join(path, &entry.key);
                    self.problem(entry.value.at, &path, kind(&entry.value), "must be text", "put it in quotes");
                }
            }
        }
        labels.into()
    }

    fn refuse(&mut self, node: &Node, field: &Field, path: &str, reason: &str) {
        let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        let rule = format!("must be {}{reason}", field.allowed());
        let found = match field.kind {
            Kind::Object(_) | Kind::Objects(_) | Kind::Labels => kind(node).to_owned(),
            _ => found(node),
        };
        self.problem(node.at, path, &found, &rule, "correct it, or leave it out");
    }
}

pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// What stands there, as shown to people: the text of an option, of which its rule says what it may be.
pub fn found(node: &Node) -> String {
    match &node.value {
        yaml::Value::Scalar { text, .. } => quote(&redact(text)),
        _ => kind(node).into(),
    }
}

/// The same of what may hold a secret: nothing of a text is shown.
pub fn kind(node: &Node) -> &'static str {
    match &node.value {
        yaml::Value::Null => "nothing",
        yaml::Value::Scalar { .. } => "a text",
        yaml::Value::List(_) => "a list",
        yaml::Value::Map(_) => "a map",
    }
}

pub fn scalar(node: &Node) -> Result<&str, String> {
    match &node.value {
        yaml::Value::Scalar { text, .. } => Ok(text),
        _ => Err(String::new()),
    }
}

/// Errors are reasons, as phrases that follow "it"; empty where the rule says it all.
fn read_one(kind: Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Bool => parse_bool(text).map(Value::from),
        Kind::Text | Kind::Texts => {
            let bad = text.len() > LONGEST_TEXT || text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
            if bad { Err(String::new()) } else { Ok(text.into()) }
        }
        Kind::StreamName => text.parse::<StreamName>().map(|name| name.as_str().into()).map_err(|e| format!("it {e}")),
        Kind::Subject | Kind::Subjects => {
            text.parse::<Subject>().map(|subject| subject.as_str().into()).map_err(|e| format!("it {e}"))
        }
        Kind::Word(words) => {
            let word = words.iter().find(|word| word.eq_ignore_ascii_case(text));
            word.map(|word| Value::from(*word)).ok_or_else(String::new)
        }
        Kind::Count => whole(text, 0..=i64::MAX).map(Value::from),
        Kind::Limit(most) => whole(text, -1..=most).map(unlimited),
        Kind::Size(_) if text == "-1" => Ok((-1).into()),
        Kind::Size(most) => {
            let bytes = text.parse::<ByteSize>()?.bytes() as i64;
            if bytes > most { Err("it is too large".into()) } else { Ok(unlimited(bytes)) }
        }
        Kind::Span | Kind::Spans if text == "-1" => Ok(0.into()),
        Kind::Span | Kind::Spans if text.starts_with('-') => Err("it is negative".into()),
        Kind::Span | Kind::Spans => Ok((parse_span(text)?.as_nanos() as i64).into()),
        Kind::Replicas => match whole(text, 1..=5)? {
            number @ (1 | 3 | 5) => Ok(number.into()),
            _ => Err("an even number of copies cannot outvote a lost one".into()),
        },
        Kind::Time => {
            let rfc3339 = time::format_description::well_known::Rfc3339;
            let time = time::OffsetDateTime::parse(text, &rfc3339).map_err(|_| String::new())?;
            // Servers write it like that, so that it compares as text.
            time.to_offset(time::UtcOffset::UTC).format(&rfc3339).map(Value::from).map_err(|_| String::new())
        }
        Kind::Percent => {
            whole(text.strip_suffix('%').unwrap_or(text), 0..=100).map(|percent| percent.to_string().into())
        }
        Kind::Labels | Kind::Object(_) | Kind::Objects(_) => Err(String::new()),
    }
}

/// Whether an export says nothing there: what Go writes for a field that is not set.
pub fn says_nothing(node: &Node) -> bool {
    match &node.value {
        yaml::Value::Null => true,
        yaml::Value::Scalar { text, .. } => matches!(text.as_str(), "" | "false" | "0001-01-01T00:00:00Z"),
        yaml::Value::List(items) => items.is_empty(),
        yaml::Value::Map(entries) => entries.is_empty(),
    }
}

/// Keys of exports that are no options: what they may hold all the same, or why not, and as what it is
/// shown.
pub fn passed_over(entry: &Entry) -> Option<Result<(), String>> {
    match entry.key.as_str() {
        "sealed" | "template_owner" | "direct" | "sourcing" => {
            let nothing = says_nothing(&entry.value);
            Some(if nothing { Ok(()) } else { Err(found(&entry.value)) })
        }
        _ => None,
    }
}

/// A span of an export; [`None`] for one with units, which somebody put there.
fn nanoseconds(text: &str) -> Option<Result<Value, String>> {
    const SHORTEST: i64 = 1_000_000;
    let number: i64 = text.parse().ok()?;
    Some(match number {
        ..=0 => Ok(0.into()),
        1..SHORTEST => Err("in an export it is nanoseconds, and that many are less than a millisecond".into()),
        _ => Ok(number.into()),
    })
}

fn whole(text: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, String> {
    number_in(text, &range)
}

fn unlimited(number: i64) -> Value {
    if number <= 0 { (-1).into() } else { number.into() }
}
