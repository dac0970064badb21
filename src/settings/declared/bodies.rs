//! Streams and consumers as clients of ours describe them in JSON, with the options of files and their
//! units: durations are seconds or text such as `2h`, sizes bytes. The way back is here, too.

use serde_json::{Map, Value};

use super::contradictions::{Servers, contradictions};
use super::options::{CONSUMER, Field, Kind, STREAM};
use super::{Declarations, DeclaredConsumer, DeclaredStream, check};
use crate::settings::document::{Document, Fields, join, passed_over};
use crate::settings::problem::{Problem, Problems, quote};
use crate::yaml::{self, Entry, Node, Place};

/// Who says it, where a file would have its name.
pub const BODY: &str = "body";

/// In JSON nothing has a line.
const NOWHERE: Place = Place { line: 0, column: 0 };

/// Options that have no use for consumers that are asked for messages.
const OF_PUSH: [&str; 4] = ["deliver_subject", "deliver_group", "flow_control", "idle_heartbeat"];

/// What is wrong with a body.
#[derive(Debug, Default)]
pub struct Faults {
    /// Fields that there are none of.
    pub unknown: Vec<String>,
    /// Those that there are.
    pub known: Vec<&'static str>,
    pub problems: Vec<Problem>,
}

/// The options that a stream may be given, but for its name.
pub fn stream_options() -> impl Iterator<Item = &'static Field> {
    STREAM.iter()
}

/// The options that a consumer may be given, but for its name.
pub fn consumer_options() -> impl Iterator<Item = &'static Field> {
    CONSUMER.iter().filter(|field| !OF_PUSH.contains(&field.name))
}

/// Reads a stream of that name.
pub fn stream(name: &str, options: &Map<String, Value>) -> Result<DeclaredStream, Faults> {
    let mut problems = Problems::default();
    let mut document = Document { name: BODY, problems: &mut problems, exported: false };
    let (fields, mut faults) = fields(&mut document, options, stream_options());
    let mut declarations = Declarations { strict_subjects: true, ..Declarations::default() };
    if faults.unknown.is_empty() && document.problems.is_empty() {
        let entry = named(name);
        check(&mut document, &entry, "", name, &fields, &[]);
        declarations.add(&mut document, &entry, "name", name, fields, true, vec![]);
    }
    match declarations.streams.pop().filter(|_| problems.is_empty()) {
        Some(stream) if !stream.says_what_it_captures() => {
            problems.add("subjects", "nothing", "must name at least one subject", "add some, a mirror or sources");
        }
        Some(stream) => return Ok(stream),
        None => {}
    }
    faults.problems = problems.list;
    Err(faults)
}

/// Reads a durable consumer of that name; `of` is the stream that it belongs to, with its configuration.
pub fn consumer(
    name: &str,
    options: &Map<String, Value>,
    of: (&str, &Map<String, Value>),
) -> Result<DeclaredConsumer, Faults> {
    let mut problems = Problems::default();
    let mut document = Document { name: BODY, problems: &mut problems, exported: false };
    let (Fields { mut config, lines }, mut faults) = fields(&mut document, options, consumer_options());
    config.insert("durable_name".into(), name.into());
    let name = match name.parse() {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            let rule = format!("must be a name of letters, digits, - and _, at most 255 (it {error})");
            document.problem(NOWHERE, "name", &quote(name), &rule, "give it another name");
            None
        }
    };
    if let Some(name) = name.filter(|_| faults.unknown.is_empty() && document.problems.is_empty()) {
        let consumer = DeclaredConsumer { name, config, lines, line: 0 };
        let (stream, around) = of;
        for found in contradictions(stream, around, &[(consumer.name.as_str(), &consumer.config)]) {
            // The stream is there, so that nothing is wrong with it.
            if found.servers == Servers::All && found.consumer.is_some() {
                document.problem(NOWHERE, found.field, &found.found, &found.rule, &found.remedy);
            }
        }
        if problems.is_empty() {
            return Ok(consumer);
        }
    }
    faults.problems = problems.list;
    Err(faults)
}

fn named(name: &str) -> Entry {
    Entry { key: name.to_owned(), at: NOWHERE, value: Node { at: NOWHERE, value: yaml::Value::Null } }
}

fn fields(
    document: &mut Document<'_>,
    options: &Map<String, Value>,
    known: impl Iterator<Item = &'static Field>,
) -> (Fields, Faults) {
    let known: Vec<_> = known.collect();
    let (mut read, mut faults) = (Fields::default(), Faults::default());
    for (key, value) in options {
        let Some(field) = known.iter().find(|field| field.is_called(key)) else {
            let entry = Entry { key: key.clone(), at: NOWHERE, value: untyped(value) };
            match passed_over(&entry) {
                Some(_) => _ = document.pass_over(&entry, ""),
                None => faults.unknown.push(key.clone()),
            }
            continue;
        };
        match typed(value, field.kind, &field.allowed(), key) {
            Ok(value) => {
                let entry = Entry { key: key.clone(), at: NOWHERE, value };
                document.take(&entry, std::slice::from_ref(*field), "", &mut read);
            }
            Err(WrongType { path, found, rule }) => {
                document.problem(NOWHERE, &path, &found, &rule, "correct it, or leave it out");
            }
        }
    }
    if !faults.unknown.is_empty() {
        faults.known = known.iter().map(|field| field.name).collect();
    }
    (read, faults)
}

fn node(value: yaml::Value) -> Node {
    Node { at: NOWHERE, value }
}

fn text(text: impl Into<String>) -> Node {
    node(yaml::Value::Scalar { text: text.into(), quoted: false })
}

/// What stands there, whatever it is to be.
fn untyped(value: &Value) -> Node {
    match value {
        Value::Null => node(yaml::Value::Null),
        Value::String(words) => text(words),
        Value::Bool(_) | Value::Number(_) => text(value.to_string()),
        Value::Array(values) => node(yaml::Value::List(values.iter().map(untyped).collect())),
        Value::Object(map) => {
            let entry =
                |(key, value): (&String, &Value)| Entry { key: key.clone(), at: NOWHERE, value: untyped(value) };
            node(yaml::Value::Map(map.iter().map(entry).collect()))
        }
    }
}

/// A value that has another type in JSON than it should.
struct WrongType {
    path: String,
    found: String,
    rule: String,
}

/// The value as its kind is read from files.
fn typed(value: &Value, kind: Kind, allowed: &str, path: &str) -> Result<Node, WrongType> {
    let wrong = |found: String| Err(WrongType { path: path.to_owned(), found, rule: format!("must be {allowed}") });
    match (kind, value) {
        (_, Value::Null) => Ok(node(yaml::Value::Null)),
        (Kind::Bool, Value::Bool(_))
        | (Kind::Count | Kind::Limit(_) | Kind::Size(_) | Kind::Replicas | Kind::Percent, Value::Number(_)) => {
            Ok(untyped(value))
        }
        (Kind::Span | Kind::Spans, Value::Number(number)) => match seconds(number) {
            Some(span) => Ok(text(span)),
            None => wrong(value.to_string()),
        },
        (
            Kind::Text
            | Kind::StreamName
            | Kind::Subject
            | Kind::Subjects
            | Kind::Word(_)
            | Kind::Size(_)
            | Kind::Span
            | Kind::Spans
            | Kind::Time
            | Kind::Percent
            | Kind::Texts,
            Value::String(_),
        ) => Ok(untyped(value)),
        (Kind::Subjects | Kind::Spans | Kind::Texts, Value::Array(values)) => {
            // A list in a list is no text.
            let is_one = |value: &Value| matches!(value, Value::String(_) | Value::Number(_));
            if let Some((i, other)) = values.iter().enumerate().find(|(_, value)| !is_one(value)) {
                return wrong(format!("{} at position {i}", json_kind(other)));
            }
            let nodes = values.iter().map(|value| typed(value, kind, allowed, path)).collect::<Result<_, _>>()?;
            Ok(node(yaml::Value::List(nodes)))
        }
        (Kind::Labels, Value::Object(labels)) => match labels.iter().find(|(_, value)| !value.is_string()) {
            Some((name, other)) => wrong(format!("{} for {}", json_kind(other), quote(name))),
            None => Ok(untyped(value)),
        },
        (Kind::Object(fields), Value::Object(map)) => object(map, fields, path),
        (Kind::Objects(fields), Value::Array(values)) => {
            let one = |(i, value): (usize, &Value)| {
                let path = format!("{path}[{i}]");
                match value {
                    Value::Object(map) => object(map, fields, &path),
                    other => Err(WrongType { path, found: json_kind(other).into(), rule: "must be a map".into() }),
                }
            };
            let nodes = values.iter().enumerate().map(one).collect::<Result<_, _>>()?;
            Ok(node(yaml::Value::List(nodes)))
        }
        (_, Value::String(words)) => wrong(quote(words)),
        (_, Value::Array(_) | Value::Object(_)) => wrong(json_kind(value).to_owned()),
        (_, other) => wrong(other.to_string()),
    }
}

fn object(map: &Map<String, Value>, fields: &[Field], path: &str) -> Result<Node, WrongType> {
    let mut entries = Vec::with_capacity(map.len());
    for (key, value) in map {
        let value = match fields.iter().find(|field| field.is_called(key)) {
            Some(field) => typed(value, field.kind, &field.allowed(), &join(path, key))?,
            // It is told by who reads the map.
            None => untyped(value),
        };
        entries.push(Entry { key: key.clone(), at: NOWHERE, value });
    }
    Ok(node(yaml::Value::Map(entries)))
}

fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// Seconds as files have them, with milliseconds at most.
fn seconds(number: &serde_json::Number) -> Option<String> {
    if let Some(whole) = number.as_i64() {
        return Some(whole.to_string());
    }
    let millis = number.as_f64().map(|seconds| seconds * 1e3).filter(|millis| (0.0..1e11).contains(millis))?;
    let whole = millis.round() as u64;
    // 0 means without a limit: less than what can be said must not become that.
    (whole > 0 || millis == 0.0).then(|| format!("{whole}ms"))
}

/// A configuration of JetStream as a body would have it.
pub fn described(table: &[Field], config: &Map<String, Value>) -> Map<String, Value> {
    let describe = |(name, value): (&String, &Value)| {
        let field = table.iter().find(|field| field.name == name);
        (name.clone(), field.map_or_else(|| value.clone(), |field| described_value(field, value)))
    };
    config.iter().map(describe).collect()
}

/// One value of a configuration as a body would have it.
pub fn described_value(field: &Field, value: &Value) -> Value {
    match (field.kind, value) {
        (Kind::Span, Value::Number(_)) => in_seconds(value),
        (Kind::Spans, Value::Array(spans)) => spans.iter().map(in_seconds).collect(),
        (Kind::Object(fields), Value::Object(object)) => described(fields, object).into(),
        (Kind::Objects(fields), Value::Array(objects)) => {
            let describe = |object: &Value| object.as_object().map_or(object.clone(), |o| described(fields, o).into());
            objects.iter().map(describe).collect()
        }
        _ => value.clone(),
    }
}

/// Nanoseconds as seconds.
pub fn in_seconds(nanoseconds: &Value) -> Value {
    const SECOND: i64 = 1_000_000_000;
    match nanoseconds.as_i64() {
        Some(whole) if whole % SECOND == 0 => (whole / SECOND).into(),
        Some(rest) => (rest as f64 / SECOND as f64).into(),
        None => nanoseconds.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    fn faults(options: Value) -> Faults {
        stream("S", &map(options)).unwrap_err()
    }

    fn told(options: Value) -> String {
        faults(options).problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn seconds_and_bytes_become_what_jetstream_has() {
        let read = stream(
            "market_data",
            &map(json!({
                "subjects": ["market.>", "trades.>"], "retention": "limits", "max_msgs": 1000000,
                "max_bytes": 1073741824, "max_age": 86400, "duplicate_window": 0.5, "discard": null,
                "sources": [{ "name": "other", "opt_start_seq": 5 }], "metadata": { "of": "us" }, "sealed": false
            })),
        );
        let read = read.unwrap();
        assert_eq!(read.config["max_age"], 86_400_000_000_000i64);
        assert_eq!(read.config["duplicate_window"], 500_000_000);
        assert_eq!(read.config["max_bytes"], 1_073_741_824);
        assert_eq!(read.config["sources"], json!([{ "name": "other", "opt_start_seq": 5 }]));
        assert!(read.strict_subjects && !read.config.contains_key("discard"));
        assert_eq!(read.place(0), "body");
        let described = described(STREAM, &read.config);
        assert_eq!((&described["max_age"], &described["duplicate_window"]), (&json!(86400), &json!(0.5)));
    }

    #[test]
    fn a_span_too_short_to_be_said_is_not_without_a_limit() {
        let with = |age: Value| stream("S", &map(json!({ "subjects": ["a"], "max_age": age })));
        assert!(with(json!(0.00001)).is_err() && with(json!(1e-9)).is_err());
        assert_eq!(with(json!(0.1)).unwrap().config["max_age"], 100_000_000);
        assert!(with(json!(0.0)).is_ok());
    }

    #[test]
    fn whole_configurations_of_jetstream_are_read_in_seconds_as_well() {
        let whole = json!({
            "subjects": ["a"], "retention": "limits", "storage": "file", "max_consumers": -1, "max_msgs": -1,
            "max_bytes": -1, "max_age": 3600, "num_replicas": 1,
        });
        assert_eq!(stream("S", &map(whole)).unwrap().config["max_age"], 3_600_000_000_000i64);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_field() {
        for (options, told_as) in [
            (json!({"subjects": ["a"], "max_msgs": "5"}), "max_msgs: cannot use \"5\": must be a whole number"),
            (json!({"subjects": ["a"], "max_msgs": true}), "max_msgs: cannot use true: must be a whole number"),
            (json!({"subjects": ["a"], "max_msgs": 1.5}), "max_msgs: cannot use \"1.5\": must be a whole number"),
            (json!({"subjects": ["a"], "max_age": -1.5}), "max_age: cannot use -1.5: must be a duration"),
            (json!({"subjects": ["a"], "max_age": 7200000000000i64}), "max_age: cannot use \"7200000000000\""),
            (json!({"subjects": ["a b"]}), "subjects[0]: cannot use \"a b\": must be a list of subjects"),
            (json!({"subjects": [["a"]]}), "subjects: cannot use a list at position 0"),
            (json!({"subjects": {"a": 1}}), "subjects: cannot use a map"),
            (json!({"subjects": []}), "subjects: cannot use nothing: must name at least one subject"),
            (json!({}), "subjects: cannot use nothing"),
            (json!({"subjects": ["a"], "retention": "forever"}), "retention: cannot use \"forever\": must be one of"),
            (json!({"subjects": ["a"], "deny_delete": "yes"}), "deny_delete: cannot use \"yes\": must be true or"),
            (json!({"subjects": ["a"], "metadata": {"a": 1}}), "metadata: cannot use a number for \"a\""),
            (json!({"subjects": ["a"], "placement": {"tag": "x"}}), "placement.tag"),
            (json!({"subjects": ["a"], "sources": ["x"]}), "sources[0]: cannot use a text: must be a map"),
            (json!({"subjects": ["a"], "sealed": true}), "sealed: cannot use"),
            (json!({"subjects": ["a"], "max_age": "1s", "duplicate_window": "1h"}), "duplicate_window"),
        ] {
            let words = told(options.clone());
            assert!(words.starts_with(told_as), "{options}: {words}");
        }
        let unknown = faults(json!({"subjects": ["a"], "max_mgs": 1, "consumers": {}, "strict_subjects": true}));
        assert_eq!(unknown.unknown, ["max_mgs", "consumers", "strict_subjects"]);
        assert!(unknown.known.contains(&"max_msgs"));
        let named = stream("a/b", &map(json!({"subjects": ["a"]}))).unwrap_err();
        assert!(named.problems[0].to_string().starts_with("name: cannot use \"a/b\""), "{named:?}");
    }

    #[test]
    fn consumers_are_asked_for_messages() {
        let around = map(json!({"subjects": ["a.>"], "retention": "workqueue"}));
        let read = |options: Value| consumer("c", &map(options), ("S", &around));
        let good =
            read(json!({"ack_wait": 5, "filter_subject": "a.b", "max_deliver": 3, "backoff": [1, 2.5]})).unwrap();
        assert_eq!(good.config["ack_wait"], 5_000_000_000i64);
        assert_eq!(good.config["backoff"], json!([1_000_000_000i64, 2_500_000_000i64]));
        assert_eq!(good.config["filter_subjects"], json!(["a.b"]));
        assert_eq!(good.config["durable_name"], "c");
        for push in OF_PUSH {
            assert_eq!(read(json!({ push: "x" })).unwrap_err().unknown, [push]);
        }
        let refused = read(json!({"ack_policy": "none"})).unwrap_err();
        assert_eq!(refused.problems[0].variable, "ack_policy");
        assert!(consumer("a.b", &Map::new(), ("S", &around)).is_err());
    }
}
