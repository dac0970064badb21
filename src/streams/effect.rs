use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::nats::StreamState;

/// What a change of a stream's field does to its messages, as a phrase that follows "it"; values are
/// canonical, so that null is no limit. `at` is now, in seconds since 1970.
pub fn effect(field: &str, now: &Value, wanted: &Value, state: &StreamState, at: i64) -> Option<String> {
    let limit = wanted.as_u64();
    let narrower = || limit.is_some_and(|limit| now.as_u64().is_none_or(|now| limit < now)) && state.messages > 0;
    match field {
        "max_msgs" => {
            let surplus = state.messages.saturating_sub(limit?);
            (surplus > 0).then(|| format!("drops {} messages", grouped(surplus)))
        }
        "max_bytes" => {
            let surplus = state.bytes.saturating_sub(limit?);
            let share = state.messages as f64 * surplus as f64 / state.bytes.max(1) as f64;
            (surplus > 0).then(|| format!("drops ≈ {} messages", grouped(share as u64)))
        }
        "max_age" => narrower().then(|| match older(state, limit.unwrap_or_default(), at) {
            Some(messages) => format!("drops ≈ {} messages that are older", grouped(messages)),
            None => "drops messages that are older".to_owned(),
        }),
        "max_msgs_per_subject" => narrower().then(|| "drops the older messages of a subject".to_owned()),
        "retention" => {
            (state.messages > 0 && wanted == "interest").then(|| "drops messages that no consumer awaits".to_owned())
        }
        _ => None,
    }
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
        let narrowed = |to: f64| effect("max_age", &Value::Null, &hours(to), &state, at);
        assert_eq!(narrowed(0.75).unwrap(), "drops ≈ 250 messages that are older");
        assert_eq!(narrowed(2.0).unwrap(), "drops ≈ 0 messages that are older");
        assert_eq!(effect("max_age", &hours(1.0), &hours(2.0), &state, at), None);
        assert_eq!(effect("max_age", &Value::Null, &hours(0.5), &StreamState::default(), at), None);
    }
}
