//! Streams, consumers and buckets as files declare them: YAML → JetStream's own fields and units.

mod buckets;
pub mod options;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use self::options::{CONSUMER, STREAM};
use super::document::{Document, Fields, join, scalar};
use super::problem::shown;
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
        for inner in document.entries(&entry.value, path) {
            match inner.key.as_str() {
                "consumers" => consumers = read_consumers(document, &inner.value, &join(path, "consumers")),
                "strict_subjects" => {
                    let strict = document.bool(&inner.value, &join(path, "strict_subjects"));
                    strict_subjects = strict.unwrap_or(strict_subjects);
                }
                // What `streams` holds by name, exports of it hold inside.
                "name" if scalar(&inner.value) == Ok(&entry.key) => {}
                _ if document.take(inner, STREAM, path, &mut fields) => {}
                _ => {
                    let known = STREAM.iter().map(|field| field.name).chain(["consumers", "strict_subjects"]);
                    document.unknown_key(inner, path, known);
                }
            }
        }
        check_stream(document, entry.at, path, &fields);
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
                return document.problem(entry.at, path, &shown(&entry.key), &rule, "give it another name");
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

fn read_consumers(document: &mut Document<'_>, node: &Node, path: &str) -> Vec<DeclaredConsumer> {
    let mut consumers = vec![];
    for entry in document.entries(node, path) {
        let path = join(path, &entry.key);
        let mut fields = Fields::default();
        let mut durable = true;
        for inner in document.entries(&entry.value, &path) {
            match inner.key.as_str() {
                "durable" => durable = document.bool(&inner.value, &join(&path, "durable")).unwrap_or(true),
                "name" | "durable_name" if scalar(&inner.value) == Ok(&entry.key) => {}
                _ if document.take(inner, CONSUMER, &path, &mut fields) => {}
                _ => {
                    let known = CONSUMER.iter().map(|field| field.name).chain(["durable"]);
                    document.unknown_key(inner, &path, known);
                }
            }
        }
        let Ok(name) = entry.key.parse::<StreamName>() else {
            let rule = "must be a name of letters, digits, - and _";
            document.problem(entry.at, &path, &shown(&entry.key), rule, "give it another name");
            continue;
        };
        if !durable && !fields.lines.contains_key("inactive_threshold") {
            let rule = "needs inactive_threshold, without which nats-server deletes it after five seconds";
            document.problem(entry.at, &join(&path, "durable"), "false", rule, "add it, or leave durable out");
        }
        check_consumer(document, entry.at, &path, &fields);
        let Fields { mut config, lines } = fields;
        if durable {
            config.insert("durable_name".into(), name.as_str().into());
        }
        consumers.push(DeclaredConsumer { name, config, lines, line: entry.at.line });
    }
    consumers
}

/// What nats-server would refuse, whatever it holds already.
fn check_stream(document: &mut Document<'_>, at: Place, path: &str, fields: &Fields) {
    let number = |name: &str| fields.config.get(name).and_then(Value::as_i64);
    let is = |name: &str| fields.config.get(name) == Some(&Value::Bool(true));
    let has = |name: &str| fields.config.contains_key(name);
    /// nats-server refuses shorter ages and windows (server/stream.go, checkStreamCfg).
    const SHORTEST: i64 = 100_000_000;
    let mut refuse = |field: &str, found: &str, rule: &str, remedy: &str| {
        let line = fields.lines.get(field).copied().unwrap_or(at.line);
        document.problem(Place { line, column: at.column }, &join(path, field), found, rule, remedy);
    };
    for field in ["max_age", "duplicate_window"] {
        if number(field).is_some_and(|span| (1..SHORTEST).contains(&span)) {
            refuse(field, "a span below 100ms", "must be at least 100ms", "make it longer");
        }
    }
    if let (Some(age @ 1..), Some(window)) = (number("max_age"), number("duplicate_window"))
        && window > age
    {
        refuse("duplicate_window", "a window above max_age", "must not be above max_age", "shorten it");
    }
    if is("discard_new_per_subject") {
        let new = fields.config.get("discard").is_some_and(|discard| discard == "new");
        if !new || number("max_msgs_per_subject").is_none_or(|limit| limit <= 0) {
            let rule = "needs discard: new and max_msgs_per_subject";
            refuse("discard_new_per_subject", "true", rule, "add them, or leave it out");
        }
    }
    if has("mirror") && (has("subjects") || has("sources")) {
        let rule = "takes its messages from the other stream alone: no subjects and no sources beside it";
        refuse("mirror", "a mirror with subjects or sources", rule, "leave one of them out");
    }
    for (field, wanted) in [("mirror", false), ("sources", true)] {
        let sources = fields.config.get(field).into_iter().flat_map(|value| match (wanted, value) {
            (true, Value::Array(sources)) => sources.iter().collect(),
            _ => vec![value],
        });
        if sources.into_iter().any(|source| source.get("name").is_none()) {
            refuse(field, "no name", "must name the stream that messages come from", "add name: STREAM");
        }
    }
    let subjects = subjects_of(&fields.config);
    if has("subjects") && subjects.is_empty() {
        // nats-server would take the stream's name for its subject, which nobody means.
        refuse("subjects", "nothing", "must name at least one subject", "add one, or leave it out for a mirror");
    }
    if subjects.len() > MOST_SUBJECTS {
        let rule = format!("must not be more than {MOST_SUBJECTS}");
        return refuse("subjects", &format!("{} subjects", subjects.len()), &rule, "use wildcards");
    }
    for (i, subject) in subjects.iter().enumerate() {
        if let Some(other) = subjects[..i].iter().find(|other| other.overlaps(subject)) {
            let found = format!("{other} and {subject}");
            refuse(
                "subjects",
                &found,
                "overlap each other, so that a message would belong to both",
                "keep the wider one",
            );
        }
    }
}

fn check_consumer(document: &mut Document<'_>, at: Place, path: &str, fields: &Fields) {
    let has = |name: &str| fields.config.contains_key(name);
    let mut refuse = |field: &str, found: &str, rule: &str, remedy: &str| {
        let line = fields.lines.get(field).copied().unwrap_or(at.line);
        document.problem(Place { line, column: at.column }, &join(path, field), found, rule, remedy);
    };
    if !has("deliver_subject") {
        for field in ["deliver_group", "flow_control", "idle_heartbeat", "rate_limit_bps"] {
            if has(field) {
                refuse(
                    field,
                    "set for a pull consumer",
                    "is for push consumers",
                    "add deliver_subject, or leave it out",
                );
            }
        }
    } else {
        for field in ["max_waiting", "max_batch", "max_expires", "max_bytes"] {
            if has(field) {
                refuse(field, "set for a push consumer", "is for pull consumers", "leave it or deliver_subject out");
            }
        }
    }
    let policy = fields.config.get("deliver_policy").and_then(Value::as_str);
    for (field, needed) in [("opt_start_seq", "by_start_sequence"), ("opt_start_time", "by_start_time")] {
        if has(field) != (policy == Some(needed)) {
            let rule = format!("goes with deliver_policy: {needed}, and the other way round");
            refuse(field, if has(field) { "it alone" } else { "nothing" }, &rule, "set both or none");
        }
    }
    if policy == Some("last_per_subject") && !has("filter_subjects") {
        let rule = "needs filter_subjects with deliver_policy: last_per_subject";
        refuse("filter_subjects", "nothing", rule, "name the subjects whose last messages are meant");
    }
    let ungrouped = fields.config.get("priority_policy").is_none_or(|policy| policy == "none");
    if has("priority_groups") && ungrouped {
        refuse("priority_groups", "groups alone", "needs a priority_policy", "add one, or leave it out");
    }
    let retries = fields.config.get("backoff").and_then(Value::as_array).map_or(0, Vec::len) as i64;
    if let Some(most @ 1..) = fields.config.get("max_deliver").and_then(Value::as_i64)
        && retries > most
    {
        refuse("backoff", &format!("{retries} spans"), "must not be longer than max_deliver", "raise max_deliver");
    }
    let subjects = parsed(&fields.config, "filter_subjects");
    if subjects.len() > MOST_SUBJECTS {
        let rule = format!("must not be more than {MOST_SUBJECTS}");
        return refuse("filter_subjects", &format!("{} filters", subjects.len()), &rule, "use wildcards");
    }
    for (i, subject) in subjects.iter().enumerate() {
        if let Some(other) = subjects[..i].iter().find(|other| other.overlaps(subject)) {
            refuse("filter_subjects", &format!("{other} and {subject}"), "overlap each other", "keep the wider one");
        }
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
