//! Streams, consumers and buckets as files declare them: YAML → JetStream's own fields and units.

pub mod bodies;
mod buckets;
pub mod contradictions;
pub mod derived;
pub mod exports;
pub mod options;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use self::contradictions::{Contradiction, Servers, contradictions};
use self::options::{CONSUMER, STREAM};
use super::document::{Document, Fields, join, says_nothing, scalar};
use super::problem::quote;
use crate::domain::{StreamName, Subject};
use crate::yaml::{Entry, Node, Place};

/// A stream as a file declares it; buckets are streams.
#[derive(Clone, Debug)]
pub struct DeclaredStream {
    pub name: StreamName,
    /// What is declared, and no more.
    pub config: Map<String, Value>,
    /// The lines that declare it, by field.
    pub lines: BTreeMap<&'static str, usize>,
    /// Subjects that are not declared are taken away.
    pub strict_subjects: bool,
    pub consumers: Vec<DeclaredConsumer>,
    pub file: Arc<str>,
    pub line: usize,
}

#[derive(Clone, Debug)]
pub struct DeclaredConsumer {
    pub name: StreamName,
    pub config: Map<String, Value>,
    pub lines: BTreeMap<&'static str, usize>,
    pub line: usize,
}

impl DeclaredStream {
    /// Where that line stands; what has no lines has its name alone.
    pub fn place(&self, line: usize) -> String {
        match line {
            0 => self.file.to_string(),
            line => format!("{}:{line}", self.file),
        }
    }

    /// Whether nothing is said about the stream itself.
    pub fn is_for_its_consumers_alone(&self) -> bool {
        self.config.is_empty() && self.lines.is_empty() && !self.consumers.is_empty()
    }

    /// Whether it has subjects, or another stream that its messages come from. The stream of the eight
    /// families needs none.
    pub fn says_what_it_captures(&self) -> bool {
        let asked = ["subjects", "mirror", "sources"];
        asked.iter().any(|field| self.config.contains_key(*field) || self.lines.contains_key(field))
    }
}

/// Streams at most in one file; nats-server takes about a millisecond for each.
const MOST_STREAMS: usize = 10_000;
/// Subjects at most of one stream, or filters of one consumer.
const MOST_SUBJECTS: usize = 1_000;

/// The streams of a file while it is read.
#[derive(Default)]
pub(super) struct Declarations {
    pub streams: Vec<DeclaredStream>,
    /// For every stream that does not say otherwise.
    pub strict_subjects: bool,
}

impl Declarations {
    pub fn read_streams(&mut self, document: &mut Document<'_>, section: &Entry, path: &str) {
        self.read_each(document, section, path, Self::read_stream);
    }

    pub fn read_key_values(&mut self, document: &mut Document<'_>, section: &Entry, path: &str) {
        self.read_each(document, section, path, Self::read_key_value);
    }

    pub fn read_object_stores(&mut self, document: &mut Document<'_>, section: &Entry, path: &str) {
        self.read_each(document, section, path, Self::read_object_store);
    }

    fn read_each(
        &mut self,
        document: &mut Document<'_>,
        section: &Entry,
        path: &str,
        read: fn(&mut Self, &mut Document<'_>, &Entry, &str),
    ) {
        let entries = document.entries(&section.value, path);
        if self.streams.len() + entries.len() > MOST_STREAMS {
            let rule = format!("must not be more than {MOST_STREAMS} streams and buckets in one file");
            let found = format!("{} entries", entries.len());
            document.problem(section.at, path, &found, &rule, "declare fewer, or several subjects in one stream");
            return;
        }
        for entry in entries {
            read(self, document, entry, &join(path, &entry.key));
        }
    }

    fn read_stream(&mut self, document: &mut Document<'_>, entry: &Entry, path: &str) {
        let mut fields = Fields::default();
        let mut consumers = vec![];
        let mut strict_subjects = self.strict_subjects;
        let node = exports::unwrapped(&entry.value);
        document.exported = exports::is_stream(&node);
        for inner in document.entries(&node, path) {
            match inner.key.as_str() {
                "consumers" => {
                    consumers = read_consumers(document, &inner.value, &entry.key, &join(path, "consumers"));
                }
                "strict_subjects" => {
                    let strict = document.bool(&inner.value, &join(path, "strict_subjects"));
                    strict_subjects = strict.unwrap_or(strict_subjects);
                }
                // What `streams` holds by name, exports of it hold inside.
                "name" if scalar(&inner.value) == Ok(&entry.key) => {}
                _ if document.pass_over(inner, path) => {}
                _ if document.take(inner, STREAM, path, &mut fields) => {}
                _ => {
                    let known = STREAM.iter().map(|field| field.name).chain(["consumers", "strict_subjects"]);
                    document.unknown_key(inner, path, known);
                }
            }
        }
        document.exported = false;
        check(document, entry, path, &entry.key, &fields, &consumers);
        let consumers = consumers.into_iter().map(|read| read.consumer).collect();
        self.add(document, entry, path, &entry.key, fields, strict_subjects, consumers);
    }

    #[allow(clippy::too_many_arguments, reason = "each of them is a part of the stream")]
    fn add(
        &mut self,
        document: &mut Document<'_>,
        entry: &Entry,
        path: &str,
        name: &str,
        fields: Fields,
        strict_subjects: bool,
        consumers: Vec<DeclaredConsumer>,
    ) {
        let name = match name.parse::<StreamName>() {
            Ok(name) => name,
            Err(error) => {
                let rule = format!("must be a name of letters, digits, - and _, at most 255 (it {error})");
                return document.problem(entry.at, path, &quote(&entry.key), &rule, "give it another name");
            }
        };
        if let Some(other) = self.streams.iter().find(|other| other.name == name) {
            let rule = format!("is declared in line {} already: buckets are streams, too", other.line);
            return document.problem(entry.at, path, name.as_str(), &rule, "give one of them another name");
        }
        let Fields { config, lines } = fields;
        let file = document.name.into();
        self.streams.push(DeclaredStream {
            name,
            config,
            lines,
            strict_subjects,
            consumers,
            file,
            line: entry.at.line,
        });
    }
}

/// A consumer with where it was read.
struct Read {
    consumer: DeclaredConsumer,
    at: Place,
    path: String,
}

fn read_consumers(document: &mut Document<'_>, node: &Node, stream: &str, path: &str) -> Vec<Read> {
    let exported = document.exported;
    let mut consumers: Vec<Read> = vec![];
    // Tools list them, each with its name inside.
    let listed = exports::by_name(node);
    let entries = match &listed {
        Some(entries) => entries,
        None => document.entries(node, path),
    };
    let mut seen = BTreeMap::new();
    for entry in entries {
        let path = join(path, &entry.key);
        if let Some(other) = exports::stream_of(&entry.value).filter(|other| *other != stream) {
            let rule = format!("must belong to stream {stream}, below which it stands");
            document.problem(
                entry.at,
                &path,
                &format!("a consumer of stream {}", quote(other)),
                &rule,
                "put it below its own",
            );
            continue;
        }
        if let Some(first) = seen.insert(entry.key.as_str(), entry.at.line) {
            let rule = format!("stands in line {first} already");
            document.problem(entry.at, &path, &quote(&entry.key), &rule, "keep one of the two");
            continue;
        }
        let node = exports::unwrapped(&entry.value);
        // Somebody may have written it below a stream that is an export.
        document.exported = exports::is_consumer(&node);
        let mut fields = Fields::default();
        let mut durable = !document.exported;
        for inner in document.entries(&node, &path) {
            match inner.key.as_str() {
                "durable" => durable = document.bool(&inner.value, &join(&path, "durable")).unwrap_or(true),
                "durable_name" if document.exported && says_nothing(&inner.value) => {}
                "name" if scalar(&inner.value) == Ok(&entry.key) => {}
                "durable_name" if scalar(&inner.value) == Ok(&entry.key) => durable = true,
                _ if document.pass_over(inner, &path) => {}
                _ if document.take(inner, CONSUMER, &path, &mut fields) => {}
                _ => {
                    let known = CONSUMER.iter().map(|field| field.name).chain(["durable"]);
                    document.unknown_key(inner, &path, known);
                }
            }
        }
        document.exported = exported;
        let Ok(name) = entry.key.parse::<StreamName>() else {
            let rule = "must be a name of letters, digits, - and _";
            document.problem(entry.at, &path, &quote(&entry.key), rule, "give it another name");
            continue;
        };
        if !durable && !fields.lines.contains_key("inactive_threshold") {
            let rule = "needs inactive_threshold, without which nats-server deletes it after five seconds";
            document.problem(entry.at, &join(&path, "durable"), "false", rule, "add it, or leave durable out");
        }
        let filters = parsed(&fields.config, "filter_subjects").len();
        if filters > MOST_SUBJECTS {
            let (rule, found) = (format!("must not be more than {MOST_SUBJECTS}"), format!("{filters} filters"));
            document.problem(entry.at, &join(&path, "filter_subjects"), &found, &rule, "use wildcards");
            continue;
        }
        let Fields { mut config, lines } = fields;
        if durable {
            config.insert("durable_name".into(), name.as_str().into());
        }
        let consumer = DeclaredConsumer { name, config, lines, line: entry.at.line };
        consumers.push(Read { consumer, at: entry.at, path });
    }
    consumers
}

/// What is wrong with one stream and its consumers by themselves.
fn check(document: &mut Document<'_>, entry: &Entry, path: &str, name: &str, fields: &Fields, consumers: &[Read]) {
    let at = |line: Option<&usize>, object: Place| Place { line: *line.unwrap_or(&object.line), column: object.column };
    for (field, wanted) in [("mirror", false), ("sources", true)] {
        let sources = fields.config.get(field).into_iter().flat_map(|value| match (wanted, value) {
            (true, Value::Array(sources)) => sources.iter().collect(),
            _ => vec![value],
        });
        if sources.into_iter().any(|source| source.get("name").is_none()) {
            let rule = "must name the stream that messages come from";
            let place = at(fields.lines.get(field), entry.at);
            document.problem(place, &join(path, field), "no name", rule, "add name: STREAM");
        }
    }
    let subjects = fields.config.get("subjects").and_then(Value::as_array).map(Vec::len);
    let place = at(fields.lines.get("subjects"), entry.at);
    match subjects {
        // nats-server would take the stream's name for its subject, which nobody means.
        Some(0) => {
            let (rule, remedy) = ("must name at least one subject", "add one, or leave it out for a mirror");
            document.problem(place, &join(path, "subjects"), "nothing", rule, remedy);
        }
        Some(many @ MOST_SUBJECTS..) if many > MOST_SUBJECTS => {
            let rule = format!("must not be more than {MOST_SUBJECTS}");
            let found = format!("{many} subjects");
            return document.problem(place, &join(path, "subjects"), &found, &rule, "use wildcards");
        }
        _ => {}
    }
    let of_consumers: Vec<_> =
        consumers.iter().map(|read| (read.consumer.name.as_str(), &read.consumer.config)).collect();
    for Contradiction { consumer, field, found, rule, remedy, servers } in
        contradictions(name, &fields.config, &of_consumers)
    {
        if servers != Servers::All {
            // The plan knows which server it is for.
            continue;
        }
        let (place, path) = match consumers.iter().find(|read| Some(read.consumer.name.as_str()) == consumer.as_deref())
        {
            Some(read) => (at(read.consumer.lines.get(field), read.at), &read.path),
            None => (at(fields.lines.get(field), entry.at), &path.to_owned()),
        };
        document.problem(place, &join(path, field), &found, &rule, &remedy);
    }
}

/// The subjects that a configuration captures.
pub fn subjects_of(config: &Map<String, Value>) -> Vec<Subject> {
    parsed(config, "subjects")
}

/// A list of subjects.
pub fn filters_of(list: &Value) -> Vec<Subject> {
    list.as_array().into_iter().flatten().filter_map(|subject| subject.as_str()?.parse().ok()).collect()
}

fn parsed(config: &Map<String, Value>, field: &str) -> Vec<Subject> {
    config.get(field).map(filters_of).unwrap_or_default()
}

#[cfg(test)]
mod tests;
