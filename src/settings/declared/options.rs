//! Every option of streams and consumers that nats-server 2.10 to 2.15 know: what it takes, what a
//! server takes for one that is absent, since when it is there, and whether it changes in place. All
//! of it was measured on 2.10.26, 2.11.11, 2.12.8, 2.14.6 and 2.15.1.

use std::time::Duration;

use serde_json::Value;

use crate::domain::{OLDEST_SERVER, ServerVersion, format_span};

/// One field of a configuration in JetStream's JSON.
#[derive(Debug)]
pub struct Field {
    /// JetStream's own name.
    pub name: &'static str,
    /// Other spellings in files.
    pub aliases: &'static [&'static str],
    pub kind: Kind,
    /// What an absent field means.
    pub absent: Absent,
    /// The first server that knows it; older ones refuse or ignore it.
    pub since: ServerVersion,
    pub changes: Changes,
    /// What becomes of it when it is no longer declared.
    pub omitted: Omitted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omitted {
    /// It is as if it had never been declared, where the server can do that and no message goes.
    Reset,
    Stays,
}

/// What a field holds, and how it is written in a file.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Bool,
    /// Text without control characters, at most 4 KiB.
    Text,
    StreamName,
    Subject,
    Subjects,
    /// One of these.
    Word(&'static [&'static str]),
    /// A whole number of at least 0.
    Count,
    /// A whole number of at least 1 up to this; −1 and 0 mean no limit.
    Limit(i64),
    /// Bytes up to this; −1 and 0 mean no limit.
    Size(i64),
    /// A span of time, nanoseconds in JSON; −1 and 0 mean none.
    Span,
    Spans,
    /// 1, 3 or 5.
    Replicas,
    /// RFC 3339.
    Time,
    /// Percent, with or without the sign.
    Percent,
    Texts,
    /// Text by text.
    Labels,
    Object(&'static [Field]),
    Objects(&'static [Field]),
}

/// What a server takes for a field that is not there.
#[derive(Clone, Copy, Debug)]
pub enum Absent {
    /// Nothing: false, 0, no text, an empty list.
    Nothing,
    Number(i64),
    Word(&'static str),
}

/// Whether a server changes a field of something that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    Freely,
    Never,
    /// It takes effect when the object is made, and is not looked at afterwards.
    AtCreation,
    /// Servers from that version on do.
    Since(ServerVersion),
    /// Servers before that version do.
    Until(ServerVersion),
    /// It can be switched on, never off.
    On,
    /// Not to the value or from it.
    NotWith(&'static str),
    /// A server from that version on can drop it; none changes or adds it.
    DroppedSince(ServerVersion),
}

const NO_LIMIT: Absent = Absent::Number(-1);

const fn field(name: &'static str, kind: Kind, absent: Absent) -> Field {
    Field { name, aliases: &[], kind, absent, since: OLDEST_SERVER, changes: Changes::Freely, omitted: Omitted::Reset }
}

pub(super) const fn plain(name: &'static str, kind: Kind) -> Field {
    field(name, kind, Absent::Nothing)
}

impl Field {
    const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    pub(super) const fn since(mut self, major: u32, minor: u32) -> Self {
        self.since = (major, minor);
        self
    }

    const fn changes(mut self, changes: Changes) -> Self {
        self.changes = changes;
        self
    }

    const fn stays_when_omitted(mut self) -> Self {
        self.omitted = Omitted::Stays;
        self
    }

    pub fn is_called(&self, key: &str) -> bool {
        self.name == key || self.aliases.contains(&key)
    }

    /// Whether a server of `version` changes it in place.
    pub fn can_change(&self, now: &Value, wanted: &Value, version: ServerVersion) -> bool {
        match self.changes {
            Changes::Freely => true,
            Changes::Never | Changes::AtCreation => false,
            Changes::Since(first) => version >= first,
            Changes::Until(first) => version < first,
            Changes::On => wanted == &Value::Bool(true),
            Changes::NotWith(word) => now != word && wanted != word,
            Changes::DroppedSince(first) => wanted.is_null() && version >= first,
        }
    }

    /// The newest of the fields in a canonical value, with the first server that knows it.
    pub fn needs(&self, canonical: &Value) -> Option<(&'static str, ServerVersion)> {
        let within = |fields: &'static [Self], object: &Value| {
            let of = |field: &'static Self| object.get(field.name).and_then(|value| field.needs(value));
            fields.iter().filter_map(of).max_by_key(|(_, since)| *since)
        };
        let inner = match (self.kind, canonical) {
            (_, Value::Null) => return None,
            (Kind::Object(fields), object) => within(fields, object),
            (Kind::Objects(fields), Value::Array(objects)) => {
                objects.iter().filter_map(|object| within(fields, object)).max_by_key(|(_, since)| *since)
            }
            _ => None,
        };
        inner.into_iter().chain([(self.name, self.since)]).max_by_key(|(_, since)| *since)
    }

    /// The value in the one form that says what it means: nothing for what a server takes for an
    /// absent field, limits that are none, what is empty; lists of subjects in order.
    pub fn canonical(&self, value: &Value) -> Value {
        let value = match (self.kind, value) {
            (Kind::Span, Value::Number(number)) if number.as_i64().is_some_and(|n| n <= 0) => Value::Null,
            (Kind::Limit(_) | Kind::Size(_), Value::Number(number)) if number.as_i64().is_some_and(|n| n <= 0) => {
                match self.absent {
                    Absent::Nothing => Value::Null,
                    _ => (-1).into(),
                }
            }
            (Kind::Percent, Value::String(text)) => text.trim_end_matches('%').into(),
            (Kind::Object(fields), Value::Object(object)) => Value::Object(canonical_object(fields, object)),
            (Kind::Objects(fields), Value::Array(objects)) => objects
                .iter()
                .map(|object| object.as_object().map_or(object.clone(), |o| canonical_object(fields, o).into()))
                .collect(),
            (Kind::Subjects, Value::Array(subjects)) => {
                let mut subjects: Vec<_> = subjects.iter().filter_map(Value::as_str).collect();
                subjects.sort_unstable();
                subjects.dedup();
                subjects.into()
            }
            (Kind::Labels, Value::Object(labels)) => labels
                .iter()
                .filter(|(name, _)| !name.starts_with("_nats."))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect(),
            _ => value.clone(),
        };
        let is_absent = match self.absent {
            _ if value.is_null() => true,
            Absent::Nothing => is_nothing(&value),
            Absent::Number(number) => value == number,
            Absent::Word(word) => value == word || value == "",
        };
        if is_absent { Value::Null } else { value }
    }

    /// What null stands for, as JetStream would show it.
    pub fn with_default(&self, canonical: &Value) -> Value {
        match (canonical, self.absent, self.kind) {
            (Value::Null, Absent::Number(number), _) => number.into(),
            (Value::Null, Absent::Word(word), _) => word.into(),
            (Value::Null, _, Kind::Bool) => false.into(),
            (Value::Null, _, Kind::Count | Kind::Span) => 0.into(),
            (Value::Null, _, Kind::Limit(_) | Kind::Size(_)) => (-1).into(),
            _ => canonical.clone(),
        }
    }

    /// The rule, as a phrase that follows "must be".
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Bool => "true or false".into(),
            Kind::Text => "text of at most 4 KiB without control characters".into(),
            Kind::StreamName => "the name of a stream: letters, digits, - and _".into(),
            Kind::Subject => "a subject such as trade.>".into(),
            Kind::Subjects => "a list of subjects such as [\"trade.>\", \"orderbook.>\"]".into(),
            Kind::Word(words) => format!("one of {}", words.join(", ")),
            Kind::Count => "a whole number of at least 0".into(),
            Kind::Limit(most) if most == i64::MAX => "a whole number of at least 1, or -1 for no limit".into(),
            Kind::Limit(most) => format!("a whole number from 1 to {most}, or -1 for no limit"),
            Kind::Size(most) if most == i64::MAX => "a size such as 512MB, or -1 for no limit".into(),
            Kind::Size(_) => "a size below 2GB, or -1 for no limit".into(),
            Kind::Span => "a duration such as 30s or 2h, or seconds".into(),
            Kind::Spans => "a list of durations such as [1s, 5s, 30s]".into(),
            Kind::Replicas => "1, 3 or 5".into(),
            Kind::Time => "a time such as 2026-01-31T12:00:00Z".into(),
            Kind::Percent => "a whole number from 0 to 100, with or without %".into(),
            Kind::Texts => "a list of texts".into(),
            Kind::Labels => "a map from text to text".into(),
            Kind::Object(_) => "a map".into(),
            Kind::Objects(_) => "a list of maps".into(),
        }
    }
}

/// The value of a field of a stream or a consumer as people read it: `2h` for nanoseconds.
pub fn readable(name: &str, value: &Value) -> String {
    let field = STREAM.iter().chain(CONSUMER).find(|field| field.name == name);
    let spans = field.is_some_and(|field| matches!(field.kind, Kind::Span | Kind::Spans));
    let span = |value: &Value| match value.as_u64().filter(|_| spans) {
        Some(nanoseconds) if nanoseconds > 0 && nanoseconds.is_multiple_of(1_000_000) => {
            format_span(Duration::from_nanos(nanoseconds))
        }
        _ => value.to_string(),
    };
    match value {
        Value::Null => "what the server fills in".into(),
        Value::Array(values) if spans => format!("[{}]", values.iter().map(span).collect::<Vec<_>>().join(", ")),
        value => span(value),
    }
}

fn canonical_object(fields: &[Field], object: &serde_json::Map<String, Value>) -> serde_json::Map<String, Value> {
    let canonical = |(name, value): (&String, &Value)| {
        let field = fields.iter().find(|field| field.name == name);
        (name.clone(), field.map_or_else(|| value.clone(), |field| field.canonical(value)))
    };
    let mut object: serde_json::Map<_, _> =
        object.iter().map(canonical).filter(|(_, value)| !value.is_null()).collect();
    object.sort_keys();
    object
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) => false,
    }
}

const ANY: i64 = i64::MAX;
const SMALL: i64 = i32::MAX as i64;

static TRANSFORM: &[Field] = &[plain("src", Kind::Subject), plain("dest", Kind::Text)];

static EXTERNAL: &[Field] = &[plain("api", Kind::Text), plain("deliver", Kind::Text)];

static SOURCE_CONSUMER: &[Field] = &[plain("name", Kind::Text), plain("deliver_subject", Kind::Text)];

/// Where messages come from that another stream has.
static SOURCE: &[Field] = &[
    plain("name", Kind::StreamName).alias(&["stream"]),
    plain("opt_start_seq", Kind::Count),
    plain("opt_start_time", Kind::Time),
    plain("filter_subject", Kind::Subject),
    plain("subject_transforms", Kind::Objects(TRANSFORM)),
    plain("external", Kind::Object(EXTERNAL)),
    plain("consumer", Kind::Object(SOURCE_CONSUMER)).since(2, 14),
];

static PLACEMENT: &[Field] =
    &[plain("cluster", Kind::Text), plain("tags", Kind::Texts), plain("preferred", Kind::Text)];

static REPUBLISH: &[Field] =
    &[field("src", Kind::Subject, Absent::Word(">")), plain("dest", Kind::Text), plain("headers_only", Kind::Bool)];

static CONSUMER_LIMITS: &[Field] =
    &[plain("inactive_threshold", Kind::Span), plain("max_ack_pending", Kind::Limit(SMALL))];

/// The options of a stream, but for its name.
pub static STREAM: &[Field] = &[
    plain("description", Kind::Text),
    plain("subjects", Kind::Subjects),
    field("retention", Kind::Word(&["limits", "interest", "workqueue"]), Absent::Word("limits"))
        .changes(Changes::NotWith("workqueue")),
    field("discard", Kind::Word(&["old", "new"]), Absent::Word("old")),
    field("storage", Kind::Word(&["file", "memory"]), Absent::Word("file")).changes(Changes::Never),
    field("max_consumers", Kind::Limit(SMALL), NO_LIMIT).changes(Changes::Since((2, 12))),
    field("max_msgs", Kind::Limit(ANY), NO_LIMIT).alias(&["max_messages"]),
    field("max_bytes", Kind::Size(ANY), NO_LIMIT),
    plain("max_age", Kind::Span),
    field("max_msgs_per_subject", Kind::Limit(ANY), NO_LIMIT),
    field("max_msg_size", Kind::Size(SMALL), NO_LIMIT),
    field("num_replicas", Kind::Replicas, Absent::Number(1)).alias(&["replicas"]).stays_when_omitted(),
    plain("duplicate_window", Kind::Span),
    field("compression", Kind::Word(&["none", "s2"]), Absent::Word("none")),
    plain("no_ack", Kind::Bool),
    plain("deny_delete", Kind::Bool).changes(Changes::On),
    plain("deny_purge", Kind::Bool).changes(Changes::On),
    plain("allow_direct", Kind::Bool),
    plain("mirror_direct", Kind::Bool),
    plain("allow_rollup_hdrs", Kind::Bool).alias(&["allow_rollup"]),
    plain("discard_new_per_subject", Kind::Bool),
    plain("allow_msg_ttl", Kind::Bool).since(2, 11).changes(Changes::On),
    plain("subject_delete_marker_ttl", Kind::Span).since(2, 11),
    plain("allow_msg_counter", Kind::Bool).since(2, 12).changes(Changes::Never),
    plain("allow_atomic", Kind::Bool).since(2, 12),
    plain("allow_msg_schedules", Kind::Bool).since(2, 12).changes(Changes::On),
    plain("allow_batched", Kind::Bool).since(2, 14),
    field("persist_mode", Kind::Word(&["default", "async"]), Absent::Word("default"))
        .since(2, 12)
        .changes(Changes::Never),
    plain("first_seq", Kind::Count).changes(Changes::AtCreation),
    plain("subject_transform", Kind::Object(TRANSFORM)),
    plain("republish", Kind::Object(REPUBLISH)),
    plain("mirror", Kind::Object(SOURCE)).changes(Changes::DroppedSince((2, 12))),
    plain("sources", Kind::Objects(SOURCE)),
    plain("placement", Kind::Object(PLACEMENT)).stays_when_omitted(),
    plain("consumer_limits", Kind::Object(CONSUMER_LIMITS)),
    plain("metadata", Kind::Labels).stays_when_omitted(),
];

/// The options of a consumer, but for its name.
pub static CONSUMER: &[Field] = &[
    plain("description", Kind::Text),
    field(
        "deliver_policy",
        Kind::Word(&["all", "last", "new", "by_start_sequence", "by_start_time", "last_per_subject"]),
        Absent::Word("all"),
    )
    .changes(Changes::Never),
    plain("opt_start_seq", Kind::Count).changes(Changes::Never),
    plain("opt_start_time", Kind::Time).changes(Changes::Never),
    field("ack_policy", Kind::Word(&["none", "all", "explicit", "flow_control"]), Absent::Word("none"))
        .changes(Changes::Never),
    field("ack_wait", Kind::Span, Absent::Number(30_000_000_000)),
    field("max_deliver", Kind::Limit(SMALL), NO_LIMIT),
    plain("backoff", Kind::Spans),
    plain("filter_subjects", Kind::Subjects).alias(&["filter_subject"]),
    field("replay_policy", Kind::Word(&["instant", "original"]), Absent::Word("instant")).changes(Changes::Never),
    plain("rate_limit_bps", Kind::Count),
    plain("sample_freq", Kind::Percent),
    plain("max_waiting", Kind::Count).changes(Changes::Never),
    field("max_ack_pending", Kind::Limit(SMALL), Absent::Number(1000)),
    plain("headers_only", Kind::Bool),
    plain("max_batch", Kind::Count),
    plain("max_expires", Kind::Span),
    plain("max_bytes", Kind::Size(SMALL)),
    plain("deliver_subject", Kind::Subject),
    plain("deliver_group", Kind::Text),
    plain("flow_control", Kind::Bool).changes(Changes::Never),
    plain("idle_heartbeat", Kind::Span).changes(Changes::Never),
    plain("inactive_threshold", Kind::Span),
    plain("num_replicas", Kind::Replicas).alias(&["replicas"]),
    plain("mem_storage", Kind::Bool).changes(Changes::Until((2, 14))),
    plain("pause_until", Kind::Time).since(2, 11).changes(Changes::AtCreation),
    plain("priority_groups", Kind::Texts).since(2, 11),
    field("priority_policy", Kind::Word(&["none", "overflow", "pinned_client", "prioritized"]), Absent::Word("none"))
        .since(2, 11),
    plain("priority_timeout", Kind::Span).since(2, 11),
    plain("metadata", Kind::Labels).stays_when_omitted(),
];
