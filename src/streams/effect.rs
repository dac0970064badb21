use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::spec::Wanted;
use crate::nats::StreamState;

/// What a change meets.
pub struct Circumstances<'a> {
    pub state: &'a StreamState,
    /// Seconds since 1970.
    pub now: i64,
    /// The configuration with the changes that were made so far, `discard` among the first.
    pub config: &'a Map<String, Value>,
    pub wanted: &'a [Wanted],
}

/// What a change of a stream's field does to its messages, as a phrase that follows "it"; values are
/// canonical, so that null is no limit.
pub fn effect(field: &str, now: &Value, wanted: &Value, circumstances: &Circumstances) -> Option<String> {
    let Circumstances { state, config, .. } = circumstances;
    let limit = wanted.as_u64();
    let narrower = || limit.is_some_and(|limit| now.as_u64().is_none_or(|now| limit < now)) && state.messages > 0;
    // A full stream that refuses new messages keeps those it has.
    let gives_way = config.get("discard").is_none_or(|discard| discard != "new");
    match field {
        "max_msgs" if gives_way => surplus_messages(state, limit?),
        "max_bytes" if gives_way => surplus_bytes(state, limit?),
        "max_age" => narrower().then(|| match older(state, limit.unwrap_or_default(), circumstances.now) {
            Some(messages) => format!("drops ≈ {} messages that are older", grouped(messages)),
            None => "drops messages that are older".to_owned(),
        }),
        "max_msgs_per_subject" => narrower().then(|| "drops the older messages of a subject".to_owned()),
        "retention" => {
            (state.messages > 0 && wanted == "interest").then(|| "drops messages that no consumer awaits".to_owned())
        }
        "discard" if wanted.is_null() => {
            let messages = circumstances.limit("max_msgs").and_then(|limit| surplus_messages(state, limit));
            messages.or_else(|| surplus_bytes(state, circumstances.limit("max_bytes")?))
        }
        _ => None,
    }
}

impl Circumstances<'_> {
    /// A limit as it will be.
    fn limit(&self, field: &str) -> Option<u64> {
        let wanted = self.wanted.iter().find(|wanted| wanted.field.name == field);
        let value = wanted.map(|wanted| &wanted.value).filter(|value| !value.is_null()).or(self.config.get(field))?;
        value.as_u64().filter(|limit| *limit > 0)
    }
}

fn surplus_messages(state: &StreamState, limit: u64) -> Option<String> {
    let surplus = state.messages.saturating_sub(limit);
    (surplus > 0).then(|| format!("drops {} messages", grouped(surplus)))
}

fn surplus_bytes(state: &StreamState, limit: u64) -> Option<String> {
    let surplus = state.bytes.saturating_sub(limit);
    let share = state.messages as f64 * surplus as f64 / state.bytes.max(1) as f64;
    (surplus > 0).then(|| format!("drops ≈ {} messages", grouped(share as u64)))
}

/// Messages that are older than so many nanoseconds, if they came evenly.
fn older(state: &StreamState, nanoseconds: u64, at: i64) -> Option<u64> {
    let seconds = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp);
    let (first, last) = (seconds(&state.first_ts)?, seconds(&state.last_ts)?);
    let cutoff = at.saturating_sub(i64::try_from(nanoseconds / 1_000_000_000).ok()?);
    let share = cutoff.saturating_sub(first) as f64 / (last.saturating_sub(first)).max(1) as f64;
    Some((state.messages as f64 * share.clamp(0.0, 1.0)) as u64)
}

/// `120,340`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (120_340, "120,340"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn older_messages_are_estimated_from_first_and_last() {
        let state = StreamState {
            messages: 1_000,
            first_ts: "2026-01-01T00:00:00Z".into(),
            last_ts: "2026-01-01T01:00:00Z".into(),
            ..StreamState::default()
        };
        let at = 1_767_229_200; // 2026-01-01T01:00:00Z
        let hours = |hours: f64| Value::from((hours * 3600e9) as u64);
        let config = Map::new();
        let circumstances = |state| Circumstances { state, now: at, config: &config, wanted: &[] };
        let narrowed = |to: f64| effect("max_age", &Value::Null, &hours(to), &circumstances(&state));
        assert_eq!(narrowed(0.75).unwrap(), "drops ≈ 250 messages that are older");
        assert_eq!(narrowed(2.0).unwrap(), "drops ≈ 0 messages that are older");
        assert_eq!(effect("max_age", &hours(1.0), &hours(2.0), &circumstances(&state)), None);
        assert_eq!(effect("max_age", &Value::Null, &hours(0.5), &circumstances(&StreamState::default())), None);
    }
}
