//! Restores of streams from snapshots, over the JetStream API: nats-server tells when one begins and
//! when it has ended, well or not (2.10 to 2.15). What a snapshot does not hold is no loss.

use serde::{Deserialize, Serialize};

use crate::nats::SeenStream;

/// An advisory about the restore of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    pub stream: String,
    pub known: Known,
}

/// What is known about the last restore of a stream, until a look has shown what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// When it began, RFC 3339.
    pub began: String,
    pub has_ended: bool,
}

impl Restore {
    pub fn heard_in(advisory: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Advisory {
            #[serde(rename = "type")]
            kind: String,
            stream: String,
            timestamp: String,
            start: Option<String>,
        }
        let Advisory { kind, stream, timestamp, start } = serde_json::from_slice(advisory).ok()?;
        let known = match kind.strip_prefix("io.nats.jetstream.advisory.v1.")? {
            "restore_create" => Known { began: timestamp, has_ended: false },
            "restore_complete" => Known { began: start.unwrap_or(timestamp), has_ended: true },
            _ => return None,
        };
        Some(Self { stream, known })
    }
}

impl Known {
    /// Whether that is the stream that came out of the snapshot: it holds what is older than the restore, and
    /// up to 2.14 it keeps the time at which it was created as well. One that somebody has created meanwhile,
    /// so that the restore failed, is younger.
    pub fn has_made(&self, info: &SeenStream) -> bool {
        let Ok(began) = humantime::parse_rfc3339(&self.began) else { return true };
        let is_older = |time: &str| humantime::parse_rfc3339(time).is_ok_and(|time| time < began);
        is_older(&info.created) || (info.state.messages > 0 && is_older(&info.state.first_ts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advisory(kind: &str) -> Vec<u8> {
        let advisory = serde_json::json!({
            "type": format!("io.nats.jetstream.advisory.v1.{kind}"), "id": "x", "timestamp": "2026-11-26T11:40:47.5Z",
            "stream": "A", "start": "2026-11-26T11:40:46Z", "end": "2026-11-26T11:40:47.5Z", "bytes": 7,
        });
        advisory.to_string().into_bytes()
    }

    #[test]
    fn its_begin_and_its_end_are_heard_and_nothing_else() {
        let ended = Known { began: "2026-11-26T11:40:46Z".into(), has_ended: true };
        let heard = |kind: &str| Restore::heard_in(&advisory(kind));
        assert_eq!(heard("restore_complete"), Some(Restore { stream: "A".into(), known: ended }));
        assert!(!heard("restore_create").unwrap().known.has_ended);
        assert_eq!(heard("snapshot_complete"), None);
        assert_eq!(Restore::heard_in(b"nonsense"), None);
    }

    #[test]
    fn a_stream_that_was_created_meanwhile_did_not_come_out_of_it() {
        let ended = Known { began: "2026-11-26T11:40:46Z".into(), has_ended: true };
        let made = |created: &str, messages: u64, first_ts: &str| {
            let state = serde_json::json!({ "messages": messages, "first_ts": first_ts });
            let info = serde_json::json!({ "config": { "name": "A" }, "created": created, "state": state });
            ended.has_made(&serde_json::from_value(info).unwrap())
        };
        let (earlier, later) = ("2026-11-26T11:40:45.999Z", "2026-11-26T11:40:46.001Z");
        assert!(made(earlier, 0, "0001-01-01T00:00:00Z"));
        assert!(made(later, 5, earlier), "2.15");
        assert!(!made(later, 0, "0001-01-01T00:00:00Z"));
        assert!(!made(later, 5, later));
    }
}
