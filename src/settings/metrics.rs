//! Metrics for Prometheus.

use std::num::{NonZeroU16, NonZeroUsize};

use super::host::Host;
use super::reader::Reader;
use super::values::listed;
use super::variables::*;

#[derive(Clone, Debug)]
pub struct MetricsSettings {
    /// A port of their own, beside `/metrics` on the API port.
    pub enabled: bool,
    pub host: Host,
    pub port: NonZeroU16,
    /// Instead of `gnatsd` and `jetstream`.
    pub prefix: Option<String>,
    pub server_id: ServerIdLabel,
    /// Series of each metric that names the subjects with most messages; [`None`]: no such metrics.
    pub top_subjects: Option<NonZeroUsize>,
    /// Fields of a payload, the first one that is there counting, that say when an exchange sent it.
    pub timestamp_fields: Vec<String>,
}

/// What the label `server_id` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerIdLabel {
    /// The address of the monitoring port.
    Url,
    /// What the server calls itself since its last start.
    Id,
    Name,
}

impl MetricsSettings {
    pub fn read(reader: &mut Reader) -> Self {
        Self {
            enabled: reader.bool(&PROMETHEUS_ENABLED),
            host: reader.host(&PROMETHEUS_HOST, None),
            port: reader.port(&PROMETHEUS_PORT),
            prefix: reader.optional(&PROMETHEUS_PREFIX, parse_prefix),
            server_id: reader.choice(
                &PROMETHEUS_SERVER_ID,
                &[("url", ServerIdLabel::Url), ("id", ServerIdLabel::Id), ("name", ServerIdLabel::Name)],
            ),
            top_subjects: NonZeroUsize::new(reader.number(&PROMETHEUS_TOP_SUBJECTS) as usize),
            timestamp_fields: reader.optional(&INGEST_TIMESTAMP_FIELDS, parse_fields).unwrap_or_default(),
        }
    }
}

fn parse_prefix(text: &str) -> Result<String, String> {
    let word = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if word && !text.starts_with(|c: char| c.is_ascii_digit()) { Ok(text.to_owned()) } else { Err(String::new()) }
}

fn parse_fields(text: &str) -> Result<Vec<String>, String> {
    const MOST: usize = 16;
    let fields = listed(text, |field| match field {
        "" => Err("a name is missing beside a comma".into()),
        _ if field.len() > 128 => Err("a name is longer than 128 bytes".into()),
        _ if field.chars().any(char::is_control) => Err("a name holds a control character".into()),
        _ => Ok(field.to_owned()),
    })?;
    if fields.len() > MOST { Err(format!("there are more than {MOST}")) } else { Ok(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::load;

    #[test]
    fn defaults_are_those_of_the_exporter_that_dashboards_know() {
        let metrics = load(&[]).unwrap().settings.metrics;
        assert!(!metrics.enabled && metrics.prefix.is_none() && metrics.timestamp_fields.is_empty());
        assert_eq!((metrics.port.get(), metrics.server_id), (7777, ServerIdLabel::Url));
        assert_eq!(metrics.top_subjects.map(NonZeroUsize::get), Some(20));
    }

    #[test]
    fn what_is_set_is_there() {
        let pairs = [
            ("PROMETHEUS_ENABLED", "true"),
            ("PROMETHEUS_HOST", "127.0.0.1"),
            ("PROMETHEUS_PREFIX", "nats"),
            ("PROMETHEUS_SERVER_ID", "name"),
            ("PROMETHEUS_TOP_SUBJECTS", "0"),
            ("INGEST_TIMESTAMP_FIELDS", "timestamp, ts,E"),
        ];
        let metrics = load(&pairs).unwrap().settings.metrics;
        assert!(metrics.enabled && metrics.host.is_loopback());
        assert_eq!((metrics.prefix.as_deref(), metrics.server_id), (Some("nats"), ServerIdLabel::Name));
        assert_eq!(metrics.top_subjects, None);
        assert_eq!(metrics.timestamp_fields, ["timestamp", "ts", "E"]);
    }
}
