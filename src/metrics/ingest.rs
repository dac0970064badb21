//! How long messages took from the exchange to the store, by the times that some of them bear. Pure.

use serde_json::Value;
use time::OffsetDateTime;

use super::exporter::parse_time;
use super::exposition::{Distribution, Families, Kind, Labels};
use crate::domain::DataType;
use crate::json::object_of;

/// Upper bounds in seconds.
const BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// A message that is longer is not read.
const LONGEST: usize = 256 << 10;

#[derive(Clone, Debug, Default)]
pub struct IngestDelays([Delays; DataType::ALL.len()]);

#[derive(Clone, Debug, Default)]
struct Delays {
    within: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl IngestDelays {
    /// Takes a message that was stored at that time. One without a time, or with one that lies in the future,
    /// is none of the sample; clocks that differ a little make a delay of 0.
    pub fn sample(&mut self, family: DataType, payload: &[u8], fields: &[String], stored: OffsetDateTime) {
        let Some(sent) = sent_at(payload, fields) else { return };
        let seconds = stored.unix_timestamp_nanos() as f64 / 1e9 - sent;
        if !(-5.0..=86_400.0 * 30.0).contains(&seconds) {
            return;
        }
        let seconds = seconds.max(0.0);
        let Some(at) = DataType::ALL.into_iter().position(|other| other == family) else { return };
        let delays = &mut self.0[at];
        if let Some(bound) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            delays.within[bound] += 1;
        }
        delays.count += 1;
        delays.sum += seconds;
    }

    pub fn add(&self, families: &mut Families) {
        let help = "Time from an exchange to the store, by the time that sampled messages bear";
        let mut metric = families.metric("unified_nats_ingest_delay_seconds", Kind::Histogram, help);
        for (family, delays) in DataType::ALL.into_iter().zip(&self.0) {
            let mut sum = 0;
            let cumulative = BOUNDS.iter().zip(delays.within).map(|(bound, count)| {
                sum += count;
                (*bound, sum)
            });
            let distribution = Distribution { cumulative: cumulative.collect(), count: delays.count, sum: delays.sum };
            metric.add_distribution(&Labels::none().with("data_type", family.name()), distribution);
        }
    }
}

/// When the message says that it was sent, in seconds since 1970: the first of the fields that is there, at
/// the top or one level down.
fn sent_at(payload: &[u8], fields: &[String]) -> Option<f64> {
    if payload.len() > LONGEST {
        return None;
    }
    // Whoever publishes names the keys.
    let top = &object_of(payload).ok()?;
    let found = |field: &String| {
        let inner = || top.values().filter_map(Value::as_object).find_map(|inner| inner.get(field));
        top.get(field).or_else(inner)
    };
    parse(fields.iter().find_map(found)?)
}

/// RFC 3339, or a number of seconds, milliseconds, microseconds or nanoseconds: which one its size says.
fn parse(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => match text.parse::<f64>() {
            Ok(number) => number,
            Err(_) => return Some(parse_time(text)?.unix_timestamp_nanos() as f64 / 1e9),
        },
        _ => return None,
    };
    let unit = match number {
        // Seconds up to the year 5138, which are milliseconds of 1973.
        number if (1e8..1e11).contains(&number) => 1.0,
        number if (1e11..1e14).contains(&number) => 1e3,
        number if (1e14..1e17).contains(&number) => 1e6,
        number if (1e17..1e20).contains(&number) => 1e9,
        _ => return None,
    };
    Some(number / unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::exposition::Format;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_in_every_unit_and_place() {
        let fields = ["ts".to_owned(), "E".to_owned()];
        for payload in [
            r#"{"ts": 1700000000}"#,
            r#"{"E": 1700000000000}"#,
            r#"{"E": 1, "ts": 1700000000000000}"#,
            r#"{"ts": "1700000000000000000"}"#,
            r#"{"ts": "2023-11-14T22:13:20Z"}"#,
            r#"{"data": {"E": 1700000000.0}, "x": [1]}"#,
        ] {
            assert_eq!(sent_at(payload.as_bytes(), &fields), Some(1.7e9), "{payload}");
        }
        for payload in
            ["", "7", "[]", "{}", r#"{"ts": true}"#, r#"{"ts": 12}"#, r#"{"ts": "soon"}"#, r#"{"ts": -1e300}"#]
        {
            assert_eq!(sent_at(payload.as_bytes(), &fields), None, "{payload}");
        }
        // The first that is there counts, also where it says nothing.
        for payload in [
            r#"{"ts": null, "E": 1700000000}"#,
            r#"{"ts": [1700000000]}"#,
            r#"{"ts": {"E": "x"}}"#,
            r#"{"a": {"b": {"ts": 1700000000}}}"#,
            r#"{"ts": 1e400}"#,
            r#"{"ts": 1e25}"#,
            r#"{"ts": "1700000000 "}"#,
            r#"{"ts": "0001-01-01T00:00:00Z"}"#,
            r#"{"ts": 0}"#,
            "\u{feff}{\"ts\": 1700000000}",
        ] {
            assert_eq!(sent_at(payload.as_bytes(), &fields), None, "{payload}");
        }
        let trap = r#"{"$serde_json::private::RawValue": "7", "ts": 1700000000}"#;
        assert_eq!(sent_at(trap.as_bytes(), &fields), Some(1.7e9));
        let long = |spaces: usize| format!("{{\"ts\": 1700000000{}}}", " ".repeat(spaces));
        assert_eq!(sent_at(long(LONGEST / 2).as_bytes(), &fields), Some(1.7e9));
        assert_eq!(sent_at(long(LONGEST).as_bytes(), &fields), None, "longer than is read");
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(sent_at(format!("{{\"x\": {deep}, \"ts\": 1700000000}}").as_bytes(), &fields), None);
    }

    #[test]
    fn a_time_in_the_future_or_of_long_ago_is_none_and_a_clock_that_is_a_little_ahead_is_no_delay() {
        let stored = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        let sampled = |sent: i64| {
            let mut delays = IngestDelays::default();
            delays.sample(DataType::Trade, format!("{{\"ts\":{sent}}}").as_bytes(), &["ts".to_owned()], stored);
            let at = DataType::ALL.iter().position(|family| *family == DataType::Trade).unwrap();
            (delays.0[at].count, delays.0[at].sum)
        };
        for (sent, expected) in [
            (1_700_000_005, (1, 0.0)),
            (1_700_000_006, (0, 0.0)),
            (4_000_000_000, (0, 0.0)),
            (1_699_999_990, (1, 10.0)),
            (1_700_000_000 - 31 * 86_400, (0, 0.0)),
        ] {
            assert_eq!(sampled(sent), expected, "{sent}");
        }
    }

    #[test]
    fn delays_are_told_by_family() {
        let mut delays = IngestDelays::default();
        let stored = OffsetDateTime::from_unix_timestamp(1_700_000_001).unwrap();
        for sent in ["1700000000.7", "1700000003", "1700000060", "1600000000"] {
            delays.sample(DataType::Trade, format!("{{\"ts\":{sent}}}").as_bytes(), &["ts".to_owned()], stored);
        }
        let mut families = Families::default();
        delays.add(&mut families);
        let text = families.write(Format::Text);
        for line in [
            "_bucket{data_type=\"trade\",le=\"0.25\"} 1\n",
            "_bucket{data_type=\"trade\",le=\"0.5\"} 2\n",
            "_count{data_type=\"trade\"} 2\n",
            "_count{data_type=\"orderbook\"} 0\n",
        ] {
            assert!(text.contains(&format!("unified_nats_ingest_delay_seconds{line}")), "{line}\n{text}");
        }
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_not(payload in any::<Vec<u8>>(), text: String) {
            sent_at(&payload, &["ts".to_owned()]);
            sent_at(serde_json::json!({ "ts": text }).to_string().as_bytes(), &["ts".to_owned()]);
        }
    }
}
