//! The stream of the eight families as it should be.

use serde_json::{Map, Value, json};

use crate::domain::{DataType, SubjectStyle};
use crate::settings::MarketDataSettings;

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
        let mut retired_subjects = family_subjects(SubjectStyle::Both);
        retired_subjects.retain(|subject| !subjects.contains(subject));
        Self { name: settings.name.to_string(), config, subjects, retired_subjects, replicas: settings.replicas }
    }
}

fn nanoseconds(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

fn family_subjects(style: SubjectStyle) -> Vec<String> {
    DataType::ALL.iter().flat_map(|family| family.subjects(style)).collect()
}

/// Whether one of the filters `subjects` captures everything that `filter` (`token.>`) does.
pub fn captures(subjects: &[String], filter: &str) -> bool {
    subjects.iter().any(|subject| subject == filter || subject == ">")
}
