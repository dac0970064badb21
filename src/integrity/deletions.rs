//! What clients delete while a stream is read through: nats-server publishes an advisory about each
//! request to its API (2.10 to 2.15), with the request and the answer.

use std::time::Duration;

use async_nats::{Client, SubscribeError, Subscriber};
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::ranges::{Ranges, union, without};
use crate::nats::API_ADVISORIES;

/// An advisory follows what it is about that closely.
const PATIENCE: Duration = Duration::from_millis(500);

/// Messages of one stream that clients have deleted since [`Deletions::of`].
pub struct Deletions {
    advisories: Subscriber,
    delete: String,
    purge: String,
    heard: Heard,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    deleted: Ranges,
    /// Many messages may have gone, from anywhere.
    purged: bool,
}

/// What has become of a request to the API.
#[derive(Deserialize)]
struct Audit {
    subject: String,
    #[serde(default)]
    request: String,
    #[serde(default)]
    response: String,
}

impl Deletions {
    /// Listens from now on; a request that is sent next over the same client finds it listening.
    pub async fn of(client: &Client, stream: &str) -> Result<Self, SubscribeError> {
        Ok(Self {
            advisories: client.subscribe(API_ADVISORIES).await?,
            delete: format!("$JS.API.STREAM.MSG.DELETE.{stream}"),
            purge: format!("$JS.API.STREAM.PURGE.{stream}"),
            heard: Heard::default(),
        })
    }

    /// Takes in what has been heard, so that it does not pile up.
    pub fn take_in(&mut self) {
        while let Some(Some(message)) = self.advisories.next().now_or_never() {
            self.heard.hear(&self.delete, &self.purge, &message.payload);
        }
    }

    /// What of `missing` nobody has asked to be deleted; nothing where that cannot be said.
    pub async fn not_among(&mut self, missing: Ranges) -> Option<Ranges> {
        let explained = async {
            loop {
                self.take_in();
                if self.heard.unexplained(&missing).is_none_or(|rest| rest.is_empty()) {
                    break;
                }
                let Some(message) = self.advisories.next().await else { break };
                self.heard.hear(&self.delete, &self.purge, &message.payload);
            }
        };
        let _ = timeout(PATIENCE, explained).await;
        self.heard.unexplained(&missing)
    }
}

impl Heard {
    fn hear(&mut self, delete: &str, purge: &str, advisory: &[u8]) {
        let Ok(audit) = serde_json::from_slice::<Audit>(advisory) else { return };
        let answer: Value = serde_json::from_str(&audit.response).unwrap_or_default();
        if answer["success"] != true {
            return;
        }
        self.purged |= audit.subject == purge;
        let request: Value = serde_json::from_str(&audit.request).unwrap_or_default();
        if audit.subject == delete
            && let Some(seq) = request["seq"].as_u64()
        {
            self.deleted = union(&self.deleted, &[(seq, seq)]);
        }
    }

    fn unexplained(&self, missing: &[(u64, u64)]) -> Option<Ranges> {
        let rest = without(missing, &self.deleted);
        (rest.is_empty() || !self.purged).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advisory(subject: &str, request: &str, response: &str) -> Vec<u8> {
        let advisory = serde_json::json!({
            "type": "io.nats.jetstream.advisory.v1.api_audit", "server": "s", "client": { "id": 6 },
            "subject": subject, "request": request, "response": response,
        });
        advisory.to_string().into_bytes()
    }

    fn heard(advisories: &[Vec<u8>]) -> Heard {
        let mut heard = Heard::default();
        advisories.iter().for_each(|advisory| heard.hear("DELETE.A", "PURGE.A", advisory));
        heard
    }

    const DONE: &str = r#"{"type":"io.nats.jetstream.api.v1.stream_msg_delete_response","success":true}"#;
    const REFUSED: &str = r#"{"error":{"code":400,"err_code":10043,"description":"sequence 5 not found"}}"#;

    #[test]
    fn what_was_deleted_on_request_is_explained() {
        let deletes = [4, 5, 9].map(|seq| advisory("DELETE.A", &format!(r#"{{"seq": {seq}}}"#), DONE));
        let heard = heard(&deletes);
        assert_eq!(heard.unexplained(&[(3, 6), (9, 9)]), Some(vec![(3, 3), (6, 6)]));
        assert_eq!(heard.unexplained(&[(4, 5)]), Some(vec![]));
    }

    #[test]
    fn other_streams_refusals_and_nonsense_explain_nothing() {
        let heard = heard(&[
            advisory("DELETE.B", r#"{"seq": 5}"#, DONE),
            advisory("DELETE.A", r#"{"seq": 5}"#, REFUSED),
            advisory("DELETE.A", "seq 5", DONE),
            advisory("DELETE.A", r#"{"seq": -5}"#, DONE),
            advisory("PURGE.B", "", DONE),
            advisory("PURGE.A", "", REFUSED),
            b"nonsense".to_vec(),
        ]);
        assert_eq!(heard, Heard::default());
    }

    #[test]
    fn after_a_purge_nothing_can_be_said() {
        let heard = heard(&[advisory("PURGE.A", r#"{"filter":"a.b"}"#, DONE)]);
        assert_eq!(heard.unexplained(&[(3, 6)]), None);
        assert_eq!(heard.unexplained(&[]), Some(vec![]), "unless nothing is missing");
    }
}
