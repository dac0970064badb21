//! What a stream remembers of a message that was sent and of which nothing was heard: whether it would
//! recognise another attempt as the same message.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::time::Instant;

use super::point::Nanos;
use super::{Broker, Message, Session};
use crate::nats::{ApiError, StreamInfo};

/// The header that says how long a message is kept.
pub const TIME_TO_LIVE: &str = "Nats-TTL";

/// An attempt to store a message of which nothing was heard.
pub(super) struct Earlier {
    /// When it was about to be sent, so that it was stored later than that if it was.
    pub began: Instant,
    pub session: Session,
}

/// Whether the stream recognises another attempt, if the earlier one was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    Lasts,
    MayBeGone,
    /// The server cannot say just now.
    Unknown,
}

impl Broker {
    /// Asks the stream that captures the message.
    pub(super) async fn memory(
        &self,
        session: &Session,
        message: &Message,
        earlier: &Earlier,
        deadline: Instant,
    ) -> Memory {
        let jetstream = session.jetstream(deadline.saturating_duration_since(Instant::now()));
        let ask = async {
            let names = jetstream.streams_with_subject(message.subject.as_str()).await?;
            match names.as_slice() {
                [name] => jetstream.stream_info(name).await,
                _ => Ok(None),
            }
        };
        let info: Result<Option<StreamInfo>, ApiError> = tokio::select! {
            info = ask => info,
            () = session.gone() => return Memory::Unknown,
        };
        match info {
            Ok(Some(info)) => {
                let (since, is_gone) = (earlier.began.elapsed(), earlier.session.is_gone());
                let expires = message.headers.get(TIME_TO_LIVE).is_some();
                match recognises(&info, since, is_gone.then(|| SystemTime::now() - since)) {
                    true if !(is_gone && expires) => Memory::Lasts,
                    _ => Memory::MayBeGone,
                }
            }
            // A server that is just starting does not know its streams yet.
            Ok(None) if !self.is_ready() => Memory::Unknown,
            Err(error) if error.is_transient() => Memory::Unknown,
            Ok(None) | Err(_) => Memory::MayBeGone,
        }
    }
}

/// Whether the stream is sure to recognise a message of which an attempt began so long ago.
///
/// A server that was started since then (where `restarted` says when the attempt began) has made its memory
/// anew, of the messages that the stream holds: one that a consumer has taken from a queue, that was
/// superseded, or that a limit has removed is not among them.
fn recognises(info: &StreamInfo, since: Duration, restarted: Option<SystemTime>) -> bool {
    let number = |field: &str| info.config.get(field).and_then(Value::as_i64);
    let window = number("duplicate_window").and_then(|window| u64::try_from(window).ok()).map(Duration::from_nanos);
    // As long again is left for the next attempt to reach the stream.
    if window.is_none_or(|window| since * 2 > window) {
        return false;
    }
    let Some(began) = restarted else { return true };
    let keeps_all = info.config.get("retention").and_then(Value::as_str) == Some("limits")
        && number("max_msgs_per_subject").is_none_or(|most| most <= 0);
    let holds_older = || {
        let first = Nanos::of_rfc3339(&info.state.first_ts).ok().filter(|_| info.state.messages > 0);
        let began = began.duration_since(UNIX_EPOCH).map_or(0, |began| began.as_nanos());
        first.is_some_and(|first| (first.0 as u128) < began)
    };
    keeps_all && (info.state.first_seq <= 1 || holds_older())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::StreamState;
    use serde_json::json;

    const MINUTE: Duration = Duration::from_secs(60);

    fn stream(changes: Value, first_seq: u64, first_ts: &str) -> StreamInfo {
        let mut config = json!({
            "name": "S", "retention": "limits", "max_msgs_per_subject": -1, "duplicate_window": 120_000_000_000_i64,
        });
        for (field, value) in changes.as_object().unwrap() {
            config[field] = value.clone();
        }
        let state = StreamState { messages: 5, first_seq, first_ts: first_ts.into(), ..StreamState::default() };
        serde_json::from_value::<StreamInfo>(json!({ "config": config, "state": {} }))
            .map(|info| StreamInfo { state, ..info })
            .unwrap()
    }

    #[test]
    fn a_stream_recognises_a_message_within_its_window() {
        let recognises = |window: Value, since| {
            let info = stream(json!({ "duplicate_window": window }), 1, "");
            super::recognises(&info, since, None)
        };
        let minutes = |minutes: i64| json!(minutes * 60_000_000_000);
        assert!(recognises(minutes(2), MINUTE));
        assert!(!recognises(minutes(2), MINUTE + Duration::from_nanos(1)), "as long again may pass on the way");
        assert!(recognises(minutes(2), Duration::ZERO));
        assert!(!recognises(json!(100_000_000), MINUTE));
        for none in [json!(0), json!(-1), json!(null), json!("2m")] {
            assert!(!recognises(none, Duration::from_millis(1)));
        }
    }

    #[test]
    fn a_server_that_was_started_anew_remembers_what_its_stream_holds() {
        let began = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let (before, after) = ("2023-11-14T22:13:19.9Z", "2023-11-14T22:13:20.1Z");
        let recognises = |changes: Value, first_seq, first_ts| {
            let info = stream(changes, first_seq, first_ts);
            assert!(super::recognises(&info, Duration::from_secs(1), None), "the same server remembers it");
            super::recognises(&info, Duration::from_secs(1), Some(began))
        };
        assert!(recognises(json!({}), 1, after), "nothing was removed from it");
        assert!(recognises(json!({}), 0, "0001-01-01T00:00:00Z"), "it never held anything");
        assert!(recognises(json!({}), 7, before), "what came later is still there");
        assert!(!recognises(json!({}), 7, after), "a limit may have removed it");
        assert!(!recognises(json!({}), 7, "0001-01-01T00:00:00Z"));
        assert!(!recognises(json!({ "retention": "workqueue" }), 1, before), "a consumer may have taken it");
        assert!(!recognises(json!({ "retention": "interest" }), 1, before));
        assert!(!recognises(json!({ "max_msgs_per_subject": 1 }), 1, before), "another may have superseded it");
    }
}
