//! JSON documents one after another, as tools print them that are run in a loop. YAML wants `---`
//! between documents, JSON wants nothing.

use serde::de::IgnoredAny;

use super::{Entry, Node, Place, Value, YamlError};

/// A document, and what stands before it in its text.
pub(super) struct Part<'a> {
    pub text: &'a str,
    /// Lines before, and characters before in its first line.
    before: (usize, usize),
}

/// The documents of a text that is nothing else; of any other text the text itself.
pub(super) fn parts(text: &str) -> Vec<Part<'_>> {
    let whole = || vec![Part { text, before: (0, 0) }];
    if !text.trim_start().starts_with(['{', '[']) {
        return whole();
    }
    let mut documents = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut parts: Vec<Part> = vec![];
    let (mut start, mut before) = (0, (0, 0));
    while let Some(document) = documents.next() {
        if document.is_err() {
            return whole();
        }
        let part = &text[start..documents.byte_offset()];
        parts.push(Part { text: part, before });
        start += part.len();
        before = match part.rsplit_once('\n') {
            Some((_, line)) => (before.0 + part.matches('\n').count(), line.chars().count()),
            None => (before.0, before.1 + part.chars().count()),
        };
    }
    if parts.len() > 1 { parts } else { whole() }
}

impl Part<'_> {
    /// Where something stands in the whole text.
    fn place(&self, at: Place) -> Place {
        let column = if at.line == 1 { at.column + self.before.1 } else { at.column };
        Place { line: at.line + self.before.0, column }
    }

    pub fn fault(&self, fault: YamlError) -> YamlError {
        YamlError { at: self.place(fault.at), ..fault }
    }

    pub fn node(&self, node: Node) -> Node {
        if self.before == (0, 0) {
            return node;
        }
        let value = match node.value {
            Value::List(nodes) => Value::List(nodes.into_iter().map(|node| self.node(node)).collect()),
            Value::Map(entries) => Value::Map(entries.into_iter().map(|entry| self.entry(entry)).collect()),
            value => value,
        };
        Node { at: self.place(node.at), value }
    }

    fn entry(&self, entry: Entry) -> Entry {
        Entry { at: self.place(entry.at), value: self.node(entry.value), ..entry }
    }
}
