//! The stream of the eight families as it should be.

use serde_json::{Map, Value, json};

use crate::domain::{DataType, SubjectStyle};
use crate::settings::MarketDataSettings;
use crate::settings::variables::*;

/// A stream as it should be.
#[derive(Clone, Debug)]
pub struct Desired {
    pub name: String,
    /// JetStream's own field names and units (nanoseconds, bytes, −1 = no limit).
    pub config: Map<String, Value>,
    /// Subjects that must be captured.
    pub subjects: Vec<String>,
    /// Subjects of ours in the styles that are not wanted: captured no longer. Other subjects
    /// that a stream has are left alone.
    pub retired_subjects: Vec<String>,
    /// [`None`]: an existing stream keeps the replicas it has.
    pub replicas: Option<i64>,
    /// The variables that somebody set. What only a default asks for must not cost messages.
    pub declared: Vec<&'static str>,
}

/// The variable that stands behind a field of a stream's configuration.
pub fn variable_of(field: &str) -> &'static str {
    let variable = match field {
        "retention" => &RETENTION_POLICY,
        "discard" => &DISCARD_POLICY,
        "storage" => &STORAGE_TYPE,
        "subjects" => &STREAM_SUBJECT_STYLE,
        "max_consumers" => &STREAM_MAX_CONSUMERS,
        "max_msgs" => &STREAM_MAX_MSGS,
        "max_bytes" => &STREAM_MAX_BYTES,
        "max_age" => &STREAM_MAX_AGE,
        "max_msgs_per_subject" => &STREAM_MAX_MSGS_PER_SUBJECT,
        "max_msg_size" => &STREAM_MAX_MSG_SIZE,
        "duplicate_window" => &STREAM_DUPLICATE_WINDOW,
        "compression" => &STREAM_COMPRESSION,
        "num_replicas" => &STREAM_REPLICAS,
        _ => &STREAM_NAME,
    };
    variable.name
}

/// What we put into a stream's metadata.
pub const MANAGED_BY: (&str, &str) = ("managed-by", "unified-nats");

impl Desired {
    pub fn market_data(settings: &MarketDataSettings) -> Self {
        let limit = |limit: Option<i64>| limit.unwrap_or(-1);
        let config = json!({
            "name": settings.name.as_str(),
            "retention": settings.retention.word(),
            "max_consumers": limit(settings.max_consumers),
            "max_msgs": limit(settings.max_msgs),
            "max_bytes": limit(settings.max_bytes),
            "max_age": settings.max_age.map_or(0, nanoseconds),
            "max_msgs_per_subject": limit(settings.max_msgs_per_subject),
            "max_msg_size": settings.max_msg_size.unwrap_or(-1),
            "discard": settings.discard.word(),
            "storage": settings.storage.word(),
            "duplicate_window": nanoseconds(settings.duplicate_window),
            "compression": settings.compression.word(),
        });
        let Value::Object(config) = config else { unreachable!("it is written as an object") };
        let subjects = family_subjects(settings.style);
        // Publishers may still use the other style: only who chose one gives the other up.
        let chosen = settings.declared.contains(&STREAM_SUBJECT_STYLE.name);
        let mut retired_subjects = if chosen { family_subjects(SubjectStyle::Both) } else { vec![] };
        retired_subjects.retain(|subject| !subjects.contains(subject));
        Self {
            name: settings.name.to_string(),
            config,
            subjects,
            retired_subjects,
            replicas: settings.replicas,
            declared: settings.declared.clone(),
        }
    }
}

impl Desired {
    /// For a stream whose messages are there and whose own configuration is lost: nothing that it
    /// may hold is given up before somebody has looked.
    pub fn without_limits(&self) -> Map<String, Value> {
        let mut config = self.config.clone();
        for name in ["max_msgs", "max_bytes", "max_msgs_per_subject", "max_msg_size", "max_consumers"] {
            config.insert(name.into(), (-1).into());
        }
        config.insert("max_age".into(), 0.into());
        config.insert("retention".into(), "limits".into());
        config.insert("subjects".into(), self.subjects.clone().into());
        config
    }
}

fn nanoseconds(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

fn family_subjects(style: SubjectStyle) -> Vec<String> {
    DataType::ALL.iter().flat_map(|family| family.subjects(style)).collect()
}

/// Whether `filter` (`token.>`) captures everything that the subject or filter `other` does.
pub fn covers(filter: &str, other: &str) -> bool {
    filter.strip_suffix('>').is_some_and(|prefix| other.len() > prefix.len() && other.starts_with(prefix))
}

/// Whether one of the filters `subjects` captures everything that `filter` (`token.>`) does.
pub fn captures(subjects: &[String], filter: &str) -> bool {
    subjects.iter().any(|subject| subject == filter || subject == ">")
}
