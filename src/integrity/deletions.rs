//! What clients delete: nats-server publishes an advisory about each request to its API (2.10 to 2.15),
//! with the request and the answer. One that is killed may have done what nobody has heard of yet.

use std::time::Duration;

use async_nats::{Client, SubscribeError, Subscriber};
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::ranges::{Ranges, union, without};
use crate::nats::API_ADVISORIES;

/// An advisory follows what it is about that closely.
const PATIENCE: Duration = Duration::from_millis(500);

/// Messages of one stream that clients have deleted since [`Deletions::of`].
pub struct Deletions {
    advisories: Subscriber,
    stream: String,
    heard: Heard,
}

/// What was deleted on request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heard {
    pub messages: Ranges,
    /// Many messages may have gone, from anywhere.
    pub purged: bool,
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

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    success: bool,
}

/// What it names beside is the client's: nats-server takes anything.
#[derive(Deserialize)]
struct Request {
    seq: u64,
}

impl Deletions {
    /// Listens from now on; a request that is sent next over the same client finds it listening.
    pub async fn of(client: &Client, stream: &str) -> Result<Self, SubscribeError> {
        Ok(Self {
            advisories: client.subscribe(API_ADVISORIES).await?,
            stream: stream.to_owned(),
            heard: Heard::default(),
        })
    }

    /// Takes in what has been heard, so that it does not pile up.
    pub fn take_in(&mut self) {
        while let Some(Some(message)) = self.advisories.next().now_or_never() {
            self.hear(&message.payload);
        }
    }

    fn hear(&mut self, advisory: &[u8]) {
        if let Some((_, heard)) = heard_in(advisory).filter(|(stream, _)| *stream == self.stream) {
            self.heard.add(&heard);
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
                self.hear(&message.payload);
            }
        };
        let _ = timeout(PATIENCE, explained).await;
        self.heard.unexplained(&missing)
    }
}

/// Stream and messages that an advisory tells to be deleted.
pub(super) fn heard_in(advisory: &[u8]) -> Option<(String, Heard)> {
    let audit = serde_json::from_slice::<Audit>(advisory).ok()?;
    let request = audit.subject.strip_prefix("$JS.API.STREAM.")?;
    if !serde_json::from_str::<Answer>(&audit.response).ok()?.success {
        return None;
    }
    if let Some(stream) = request.strip_prefix("PURGE.") {
        return Some((stream.to_owned(), Heard { purged: true, ..Heard::default() }));
    }
    let stream = request.strip_prefix("MSG.DELETE.")?;
    let Request { seq } = serde_json::from_str(&audit.request).ok()?;
    Some((stream.to_owned(), Heard { messages: vec![(seq, seq)], purged: false }))
}

impl Heard {
    /// Takes in what was heard besides.
    pub fn add(&mut self, other: &Self) {
        self.messages = union(&self.messages, &other.messages);
        self.purged |= other.purged;
    }

    fn unexplained(&self, missing: &[(u64, u64)]) -> Option<Ranges> {
        let rest = without(missing, &self.messages);
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
        let of_a = advisories.iter().filter_map(|advisory| heard_in(advisory)).filter(|(stream, _)| stream == "A");
        of_a.for_each(|(_, other)| heard.add(&other));
        heard
    }

    const DONE: &str = r#"{"type":"io.nats.jetstream.api.v1.stream_msg_delete_response","success":true}"#;
    const REFUSED: &str = r#"{"error":{"code":400,"err_code":10043,"description":"sequence 5 not found"}}"#;

    #[test]
    fn what_was_deleted_on_request_is_explained() {
        let deletes =
            [4, 5, 9].map(|seq| advisory("$JS.API.STREAM.MSG.DELETE.A", &format!(r#"{{"seq": {seq}}}"#), DONE));
        let heard = heard(&deletes);
        assert_eq!(heard.unexplained(&[(3, 6), (9, 9)]), Some(vec![(3, 3), (6, 6)]));
        assert_eq!(heard.unexplained(&[(4, 5)]), Some(vec![]));
    }

    /// nats-server ignores fields that it does not know, whatever they hold.
    #[test]
    fn what_else_a_request_says_does_not_matter() {
        let requests = [r#"{"x":{"$serde_json::private::RawValue":null},"seq":5}"#, r#"{"x":1e999,"seq":5}"#];
        for request in requests {
            let heard = heard(&[advisory("$JS.API.STREAM.MSG.DELETE.A", request, DONE)]);
            assert_eq!(heard.messages, [(5, 5)], "{request}");
        }
    }

    #[test]
    fn other_streams_refusals_and_nonsense_explain_nothing() {
        let heard = heard(&[
            advisory("$JS.API.STREAM.MSG.DELETE.B", r#"{"seq": 5}"#, DONE),
            advisory("$JS.API.STREAM.MSG.DELETE.A", r#"{"seq": 5}"#, REFUSED),
            advisory("$JS.API.STREAM.MSG.DELETE.A", "seq 5", DONE),
            advisory("$JS.API.STREAM.MSG.DELETE.A", r#"{"seq": -5}"#, DONE),
            advisory("$JS.API.STREAM.PURGE.B", "", DONE),
            advisory("$JS.API.STREAM.PURGE.A", "", REFUSED),
            b"nonsense".to_vec(),
        ]);
        assert_eq!(heard, Heard::default());
    }

    #[test]
    fn after_a_purge_nothing_can_be_said() {
        let heard = heard(&[advisory("$JS.API.STREAM.PURGE.A", r#"{"filter":"a.b"}"#, DONE)]);
        assert_eq!(heard.unexplained(&[(3, 6)]), None);
        assert_eq!(heard.unexplained(&[]), Some(vec![]), "unless nothing is missing");
    }
}
