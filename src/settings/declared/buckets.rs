//! Key-value and object buckets: streams with the name, the subjects and the options that clients of
//! buckets expect (the NATS architecture decisions ADR-8 and ADR-20).

use serde_json::{Map, Value, json};

use super::options::{Field, Kind, STREAM, plain};
use super::{Declarations, Entry, check};
use crate::settings::document::{Document, Fields, join};

/// Options of a stream that every bucket takes.
const SHARED: [&str; 8] =
    ["description", "max_age", "max_bytes", "storage", "num_replicas", "compression", "placement", "metadata"];
/// Options of a stream that a key-value bucket takes besides.
const OF_KEY_VALUE: [&str; 3] = ["republish", "mirror", "sources"];

/// Options that a bucket calls by another name than its stream.
static RENAMED: &[Field] = &[
    plain("history", Kind::Limit(64)),
    plain("ttl", Kind::Span),
    plain("max_value_size", Kind::Size(i32::MAX as i64)),
    plain("limit_marker_ttl", Kind::Span).since(2, 11),
];

fn name_in_stream(renamed: &str) -> &'static str {
    match renamed {
        "history" => "max_msgs_per_subject",
        "ttl" => "max_age",
        "max_value_size" => "max_msg_size",
        _ => "subject_delete_marker_ttl",
    }
}

impl Declarations {
    pub(super) fn read_key_value(&mut self, document: &mut Document<'_>, entry: &Entry, path: &str) {
        let shared: Vec<_> = SHARED.into_iter().chain(OF_KEY_VALUE).collect();
        let mut fields = read(document, entry, path, &shared, RENAMED);
        let bucket = &entry.key;
        let config = &mut fields.config;
        for field in ["mirror", "sources"] {
            for source in config.get_mut(field).into_iter().flat_map(each) {
                name_bucket(source, bucket, field == "mirror");
            }
        }
        let mirrors = config.contains_key("mirror");
        let fixed =
            if mirrors { json!({ "mirror_direct": true }) } else { json!({ "subjects": [format!("$KV.{bucket}.>")] }) };
        if config.contains_key("subject_delete_marker_ttl") {
            config.insert("allow_msg_ttl".into(), true.into());
        }
        config.entry("max_msgs_per_subject").or_insert_with(|| 1.into());
        add(config, json!({ "discard": "new", "allow_direct": true, "allow_rollup_hdrs": true, "deny_delete": true }));
        add(config, fixed);
        let name = format!("KV_{bucket}");
        check(document, entry, path, &name, &fields, &[]);
        self.add(document, entry, path, &name, fields, true, vec![]);
    }

    pub(super) fn read_object_store(&mut self, document: &mut Document<'_>, entry: &Entry, path: &str) {
        let mut fields = read(document, entry, path, &SHARED, &RENAMED[1..2]);
        let bucket = &entry.key;
        add(
            &mut fields.config,
            json!({
                "subjects": [format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
                "discard": "new", "allow_direct": true, "allow_rollup_hdrs": true,
            }),
        );
        let name = format!("OBJ_{bucket}");
        check(document, entry, path, &name, &fields, &[]);
        self.add(document, entry, path, &name, fields, true, vec![]);
    }
}

fn read(document: &mut Document<'_>, entry: &Entry, path: &str, shared: &[&str], renamed: &'static [Field]) -> Fields {
    let mut fields = Fields::default();
    let mut own = Fields::default();
    for inner in document.entries(&entry.value, path) {
        let of_stream = STREAM.iter().any(|field| field.is_called(&inner.key) && shared.contains(&field.name));
        let taken = match of_stream {
            true => document.take(inner, STREAM, path, &mut fields),
            false => document.take(inner, renamed, path, &mut own),
        };
        if !taken {
            let known = shared.iter().copied().chain(renamed.iter().map(|field| field.name));
            document.unknown_key(inner, path, known);
        }
    }
    for (name, value) in own.config {
        let field = name_in_stream(&name);
        let line = own.lines.get(name.as_str()).copied().unwrap_or(entry.at.line);
        if fields.config.insert(field.into(), value).is_some() {
            let rule = format!("is {field} under another name, which is set, too");
            document.problem(entry.at, &join(path, &name), &name, &rule, "keep one of the two");
        }
        fields.lines.insert(field, line);
    }
    fields
}

fn add(config: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        config.extend(more);
    }
}

/// The sources in a `mirror` or in `sources`.
fn each(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Array(sources) => sources.iter_mut().collect(),
        one => vec![one],
    }
}

/// Buckets are named without the prefix that their streams have; keys of another bucket become keys of
/// this one.
fn name_bucket(source: &mut Value, bucket: &str, mirrored: bool) {
    let Some(name) = source.get("name").and_then(Value::as_str).map(str::to_owned) else { return };
    let other = name.strip_prefix("KV_").unwrap_or(&name).to_owned();
    source["name"] = format!("KV_{other}").into();
    let elsewhere = source.get("external").is_some();
    // Clients look for the keys of a mirror of another account where they are there.
    let as_they_are = other == bucket || (mirrored && elsewhere);
    if as_they_are || source.get("subject_transforms").is_some() {
        return;
    }
    // Of a filter the keys are what counts; they may have come to that bucket from another one.
    let filter = source.get("filter_subject").and_then(Value::as_str).unwrap_or(">").to_owned();
    let (from, keys) = match filter.strip_prefix("$KV.").and_then(|rest| rest.split_once('.')) {
        Some((from, keys)) => (from, keys),
        None => (other.as_str(), filter.as_str()),
    };
    let transform =
        json!({ "src": format!("$KV.{from}.{keys}"), "dest": format!("$KV.{bucket}.{}", numbered_wildcards(keys)) });
    source["subject_transforms"] = json!([transform]);
    // A transform is a filter, too; nats-server refuses both.
    if let Some(source) = source.as_object_mut() {
        source.remove("filter_subject");
    }
}

/// The destination that keeps what each `*` stands for.
fn numbered_wildcards(subject: &str) -> String {
    let mut number = 0;
    let mut token = |token: &str| match token {
        "*" => {
            number += 1;
            format!("{{{{wildcard({number})}}}}")
        }
        token => token.to_owned(),
    };
    subject.split('.').map(&mut token).collect::<Vec<_>>().join(".")
}
