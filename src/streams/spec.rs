//! Streams and consumers as they should be.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::domain::{DataType, Subject, SubjectStyle};
use crate::settings::declared::options::{CONSUMER, Field, STREAM};
use crate::settings::declared::{DeclaredConsumer, DeclaredStream};
use crate::settings::variables::*;
use crate::settings::{Capacity, MarketDataSettings, ReadFile, Settings, StreamsSettings};

/// Everything that should be.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    pub streams: Vec<DesiredStream>,
    /// Streams that bear our mark and are not declared are deleted.
    pub prune: bool,
    /// Streams at most; the server itself cannot limit an account that has no name.
    pub max_streams: Option<u64>,
    pub max_consumers: Option<u64>,
    /// What a server of our own can hold; of one that others run only that server knows.
    pub capacity: Option<Capacity>,
    /// The files that say so.
    pub files: Vec<ReadFile>,
}

/// A stream as it should be.
#[derive(Clone, Debug)]
pub struct DesiredStream {
    pub name: String,
    /// The fields that are looked after, but for the subjects; all others stay as they are.
    pub fields: Vec<Wanted>,
    /// Subjects that must be captured.
    pub subjects: Vec<Subject>,
    /// Who asks for them.
    pub subjects_by: SpecOrigin,
    /// Subjects of ours that are not wanted any more. Other subjects that a stream has are left alone.
    pub retired_subjects: Vec<Subject>,
    /// No other subjects are left.
    pub strict_subjects: bool,
    pub consumers: Vec<DesiredConsumer>,
    /// It is made by us, and gets our mark. What clients ask for is theirs.
    pub is_ours: bool,
}

/// A consumer as it should be.
#[derive(Clone, Debug)]
pub struct DesiredConsumer {
    pub name: String,
    pub durable: bool,
    pub fields: Vec<Wanted>,
}

/// One field and its value in JetStream's units; null is what a server takes for an absent field.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub field: &'static Field,
    pub value: Value,
    pub by: SpecOrigin,
}

/// Who asks for a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpecOrigin {
    /// A variable that is set.
    Variable(&'static str),
    /// The default of a variable.
    DefaultOf(&'static str),
    /// A line of a file, `streams.yml:12`, or the body of a request.
    Line(String),
    /// Nobody: what JetStream itself has for something that says nothing about it.
    Nobody,
}

impl SpecOrigin {
    /// Whether somebody wrote it down. What only a default asks for must not cost messages.
    pub const fn is_declared(&self) -> bool {
        matches!(self, Self::Variable(_) | Self::Line(_))
    }
}

/// What we put into a stream's metadata.
pub const MANAGED_BY: (&str, &str) = ("managed-by", "unified-nats");
/// Beside it, the name of the stream: one that somebody makes with the configuration of ours is not ours.
pub const MARKED_STREAM: &str = "managed-stream";

impl Desired {
    pub fn of(settings: &Settings) -> Self {
        let StreamsSettings { market_data, declared, prune, max_streams, max_consumers, files, capacity, .. } =
            &settings.streams;
        let mut streams = vec![];
        if *market_data {
            let mut stream = DesiredStream::market_data(&settings.market_data);
            if capacity.is_none() {
                stream.leave_window_to_server();
            }
            let more = declared.iter().find(|more| more.name == settings.market_data.name);
            streams.push(match more {
                Some(more) => stream.refined(more),
                None => stream,
            });
        }
        let others = declared.iter().filter(|stream| !(*market_data && stream.name == settings.market_data.name));
        streams.extend(others.map(DesiredStream::declared));
        Self {
            streams,
            prune: *prune,
            max_streams: *max_streams,
            max_consumers: *max_consumers,
            capacity: *capacity,
            files: files.clone(),
        }
    }

    pub fn stream(&self, name: &str) -> Option<&DesiredStream> {
        self.streams.iter().find(|stream| stream.name == name)
    }
}

impl DesiredStream {
    /// The stream of the eight families.
    pub fn market_data(settings: &MarketDataSettings) -> Self {
        let limit = |limit: Option<i64>| Value::from(limit.unwrap_or(-1));
        let variables: [(&'static Variable, Value); 12] = [
            (&RETENTION_POLICY, settings.retention.word().into()),
            (&STREAM_MAX_CONSUMERS, limit(settings.max_consumers)),
            (&STREAM_MAX_MSGS, limit(settings.max_msgs)),
            (&STREAM_MAX_BYTES, limit(settings.max_bytes)),
            (&STREAM_MAX_AGE, settings.max_age.map_or(0, nanoseconds).into()),
            (&STREAM_MAX_MSGS_PER_SUBJECT, limit(settings.max_msgs_per_subject)),
            (&STREAM_MAX_MSG_SIZE, limit(settings.max_msg_size.map(i64::from))),
            (&DISCARD_POLICY, settings.discard.word().into()),
            (&STORAGE_TYPE, settings.storage.word().into()),
            (&STREAM_DUPLICATE_WINDOW, nanoseconds(settings.duplicate_window).into()),
            (&STREAM_COMPRESSION, settings.compression.word().into()),
            (&STREAM_REPLICAS, settings.replicas.map_or(Value::Null, Value::from)),
        ];
        let declared = |variable: &Variable| settings.declared.contains(&variable.name);
        let fields = STREAM.iter().filter_map(|field| {
            let variable = variable_of(field.name)?;
            let value = variables.iter().find(|(v, _)| v.name == variable).map(|(_, value)| value.clone())?;
            let set = settings.declared.contains(&variable);
            let by = if set { SpecOrigin::Variable(variable) } else { SpecOrigin::DefaultOf(variable) };
            Some(Wanted { field, value, by })
        });
        let subjects = family_subjects(settings.style);
        // Publishers may still use the other style: only who chose one gives the other up.
        let chosen = declared(&STREAM_SUBJECT_STYLE);
        let mut retired_subjects = if chosen { family_subjects(SubjectStyle::Both) } else { vec![] };
        retired_subjects.retain(|subject| !subjects.contains(subject));
        let style = STREAM_SUBJECT_STYLE.name;
        Self {
            name: settings.name.to_string(),
            fields: fields.collect(),
            subjects,
            subjects_by: if chosen { SpecOrigin::Variable(style) } else { SpecOrigin::DefaultOf(style) },
            retired_subjects,
            strict_subjects: false,
            consumers: vec![],
            is_ours: true,
        }
    }

    /// A stream of a file.
    pub fn declared(stream: &DeclaredStream) -> Self {
        let line = |line: usize| SpecOrigin::Line(stream.place(line));
        // What a bucket has because it is one, nobody wrote down.
        let of_field = |field: &str| stream.lines.get(field).map_or(SpecOrigin::Nobody, |at| line(*at));
        let mut fields = wanted(STREAM, &stream.config, of_field);
        fields.retain(|wanted| wanted.field.name != "subjects");
        Self {
            name: stream.name.to_string(),
            fields,
            subjects: crate::settings::declared::subjects_of(&stream.config),
            subjects_by: line(stream.lines.get("subjects").copied().unwrap_or(stream.line)),
            retired_subjects: vec![],
            strict_subjects: stream.strict_subjects,
            consumers: stream.consumers.iter().map(|consumer| DesiredConsumer::of(consumer, stream)).collect(),
            is_ours: true,
        }
    }

    /// A stream that a client asks for. Our mark would have it deleted where nobody declares it.
    pub fn of_client(stream: &DeclaredStream) -> Self {
        let mut stream = Self::declared(stream);
        stream.is_ours = false;
        for wanted in stream.fields.iter_mut().filter(|wanted| wanted.field.name == "metadata") {
            if let Some(labels) = wanted.value.as_object_mut() {
                labels.retain(|name, _| name != MANAGED_BY.0 && name != MARKED_STREAM);
            }
        }
        stream
    }

    /// The same stream where a file says more about it: lines count where no variable is set.
    pub fn refined(mut self, stream: &DeclaredStream) -> Self {
        let file = Self::declared(stream);
        for wanted in file.fields.into_iter().filter(|wanted| wanted.by.is_declared()) {
            match self.fields.iter_mut().find(|ours| ours.field.name == wanted.field.name) {
                Some(ours) if matches!(ours.by, SpecOrigin::Variable(_)) => {}
                Some(ours) => *ours = wanted,
                None => self.fields.push(wanted),
            }
        }
        if file.strict_subjects && !file.subjects.is_empty() {
            self.subjects = file.subjects;
            self.subjects_by = file.subjects_by;
            self.strict_subjects = true;
        } else {
            for subject in file.subjects {
                self.subjects_by = file.subjects_by.clone();
                // The wider one stands for both.
                self.subjects.retain(|ours| !subject.covers(ours));
                if !self.subjects.iter().any(|ours| ours.covers(&subject)) {
                    self.subjects.push(subject);
                }
            }
        }
        self.shorten_default_window();
        self.consumers = file.consumers;
        self
    }

    /// A server that others run may limit the window below our default, and does not tell.
    fn leave_window_to_server(&mut self) {
        let window = self.fields.iter_mut().find(|wanted| wanted.field.name == "duplicate_window");
        if let Some(window) = window.filter(|window| !window.by.is_declared()) {
            window.value = Value::Null;
        }
    }

    /// nats-server refuses a window that is longer than messages live; one that nobody asked for gives way.
    fn shorten_default_window(&mut self) {
        let value = |name: &str| self.fields.iter().find(|wanted| wanted.field.name == name)?.value.as_i64();
        let Some(age) = value("max_age").filter(|age| *age > 0) else { return };
        let window = self.fields.iter_mut().find(|wanted| wanted.field.name == "duplicate_window");
        if let Some(window) = window.filter(|window| !window.by.is_declared())
            && window.value.as_i64().is_some_and(|span| span > age)
        {
            window.value = age.into();
        }
    }

    /// For a stream whose messages are there and whose own configuration is lost: nothing that it
    /// may hold is given up before somebody has looked.
    pub fn without_limits(&self) -> Map<String, Value> {
        let mut config = self.creation();
        for name in ["max_msgs", "max_bytes", "max_msgs_per_subject", "max_msg_size", "max_consumers"] {
            config.insert(name.into(), (-1).into());
        }
        config.insert("max_age".into(), 0.into());
        config.insert("retention".into(), "limits".into());
        config
    }

    /// The configuration to create it with.
    pub fn creation(&self) -> Map<String, Value> {
        let mut config = Map::new();
        config.insert("name".into(), self.name.as_str().into());
        if !self.subjects.is_empty() {
            config.insert("subjects".into(), self.subjects.iter().map(Subject::as_str).collect());
        }
        config.extend(given(&self.fields));
        if self.is_ours {
            mark(&mut config);
        }
        config
    }

    /// Whether a stream with that configuration captures all that it should.
    pub fn is_served_by(&self, config: &Map<String, Value>) -> bool {
        let captured = crate::settings::declared::subjects_of(config);
        self.subjects.iter().all(|wanted| captured.iter().any(|subject| subject.covers(wanted)))
    }
}

impl DesiredConsumer {
    fn of(consumer: &DeclaredConsumer, stream: &DeclaredStream) -> Self {
        let limits = stream.config.get("consumer_limits");
        let line = |field: &str| {
            let line = consumer.lines.get(field).copied().unwrap_or(consumer.line);
            SpecOrigin::Line(stream.place(line))
        };
        let mut fields = wanted(CONSUMER, &consumer.config, line);
        let backoff = consumer.config.get("backoff").and_then(|spans| spans.get(0)).cloned();
        for wanted in &mut fields {
            match wanted.field.name {
                // Whoever writes a consumer down wants to know what became of its messages.
                "ack_policy" if wanted.value.is_null() => wanted.value = "explicit".into(),
                // nats-server takes the first of these spans for it, whatever is asked for.
                "ack_wait" if backoff.is_some() => wanted.value = backoff.clone().unwrap_or_default(),
                // The stream's limits are what its consumers have unless they say otherwise.
                name @ ("max_ack_pending" | "inactive_threshold")
                    if wanted.field.canonical(&wanted.value).is_null() =>
                {
                    wanted.value = limits.and_then(|limits| limits.get(name)).cloned().unwrap_or_default();
                }
                _ => {}
            }
        }
        let durable = consumer.config.contains_key("durable_name");
        Self { name: consumer.name.to_string(), durable, fields }
    }

    /// The configuration to create it with.
    pub fn creation(&self) -> Map<String, Value> {
        let mut config = Map::new();
        config.insert("name".into(), self.name.as_str().into());
        if self.durable {
            config.insert("durable_name".into(), self.name.as_str().into());
        }
        config.extend(given(&self.fields));
        config
    }
}

/// All fields of a table: what is declared, and what nobody asks for.
fn wanted(table: &'static [Field], config: &Map<String, Value>, line: impl Fn(&str) -> SpecOrigin) -> Vec<Wanted> {
    let one = |field: &'static Field| match config.get(field.name) {
        Some(value) => Wanted { field, value: value.clone(), by: line(field.name) },
        None => Wanted { field, value: Value::Null, by: SpecOrigin::Nobody },
    };
    table.iter().map(one).collect()
}

/// The fields that something is created with.
fn given(fields: &[Wanted]) -> impl Iterator<Item = (String, Value)> {
    // What is off is as if it were not there, and older servers refuse the name of it.
    let given = fields.iter().filter(|wanted| !wanted.value.is_null() && wanted.value != false);
    given.map(|wanted| (wanted.field.name.to_owned(), wanted.value.clone()))
}

/// Sets our mark.
pub fn mark(config: &mut Map<String, Value>) {
    let name = config.get("name").cloned().unwrap_or_default();
    let metadata = config.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata[MANAGED_BY.0] = MANAGED_BY.1.into();
    metadata[MARKED_STREAM] = name;
}

/// Marks of earlier versions name no stream.
pub fn is_marked(config: &Map<String, Value>) -> bool {
    let label = |name: &str| config.get("metadata")?.get(name);
    let is_its_own = || label(MARKED_STREAM).is_none_or(|marked| Some(marked) == config.get("name"));
    label(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1) && is_its_own()
}

/// The variable that stands behind a field of the stream of the eight families.
fn variable_of(field: &str) -> Option<&'static str> {
    let variable = match field {
        "retention" => &RETENTION_POLICY,
        "discard" => &DISCARD_POLICY,
        "storage" => &STORAGE_TYPE,
        "max_consumers" => &STREAM_MAX_CONSUMERS,
        "max_msgs" => &STREAM_MAX_MSGS,
        "max_bytes" => &STREAM_MAX_BYTES,
        "max_age" => &STREAM_MAX_AGE,
        "max_msgs_per_subject" => &STREAM_MAX_MSGS_PER_SUBJECT,
        "max_msg_size" => &STREAM_MAX_MSG_SIZE,
        "duplicate_window" => &STREAM_DUPLICATE_WINDOW,
        "compression" => &STREAM_COMPRESSION,
        "num_replicas" => &STREAM_REPLICAS,
        _ => return None,
    };
    Some(variable.name)
}

fn nanoseconds(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

fn family_subjects(style: SubjectStyle) -> Vec<Subject> {
    // They are subjects by construction.
    DataType::ALL.iter().flat_map(|family| family.subjects(style)).filter_map(|text| text.parse().ok()).collect()
}
