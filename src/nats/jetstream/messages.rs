//! Messages as streams hold them.

use async_nats::{HeaderMap, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{ApiError, JetStream};

/// Which message of a stream.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum MessageRequest {
    Numbered {
        seq: u64,
    },
    /// The last one that matches.
    Last {
        #[serde(rename = "last_by_subj")]
        subject: String,
    },
    /// The first one from that sequence on that matches.
    Next {
        seq: u64,
        #[serde(rename = "next_by_subj")]
        subject: String,
    },
}

/// A message as a stream holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    pub stream: String,
    pub subject: String,
    pub sequence: u64,
    /// RFC 3339, with nanoseconds.
    pub time: String,
    pub headers: Vec<(String, String)>,
    pub payload: Bytes,
}

/// The last message of each of many subjects.
#[derive(Debug)]
pub enum LastOfEach {
    /// With the number of those that there was no room for.
    Messages(Vec<StoredMessage>, u64),
    /// More subjects than the server gives at a time.
    TooMany,
    /// The stream does not allow it, or nobody answers.
    NotOffered,
}

/// Headers that a direct get adds, in lower case.
const OF_DIRECT_GET: [&str; 7] = [
    "nats-stream",
    "nats-subject",
    "nats-sequence",
    "nats-time-stamp",
    "nats-num-pending",
    "nats-last-sequence",
    "nats-upto-sequence",
];

impl JetStream {
    /// [`None`] when there is no such message.
    pub async fn get_message(&self, stream: &str, request: &MessageRequest) -> Result<Option<StoredMessage>, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            message: Encoded,
        }
        #[derive(Deserialize)]
        struct Encoded {
            subject: String,
            seq: u64,
            #[serde(default)]
            data: String,
            #[serde(default)]
            hdrs: String,
            time: String,
        }
        let subject = format!("$JS.API.STREAM.MSG.GET.{stream}");
        let message = match self.ask::<Answer>(subject.clone(), request).await {
            Ok(Answer { message }) => message,
            Err(error) if error.is(ApiError::NO_MESSAGE) => return Ok(None),
            Err(error) => return Err(error),
        };
        let decoded = |text: &str| {
            let unreadable = |error: base64::DecodeError| ApiError::Unreadable {
                subject: subject.clone(),
                reason: error.to_string(),
            };
            BASE64_STANDARD.decode(text).map_err(unreadable)
        };
        Ok(Some(StoredMessage {
            stream: stream.to_owned(),
            subject: message.subject,
            sequence: message.seq,
            time: message.time,
            headers: parse_headers(&decoded(&message.hdrs)?),
            payload: decoded(&message.data)?.into(),
        }))
    }

    /// The last message of each subject that one of the filters matches, up to so many bytes and one
    /// message more; for servers from 2.11 on and streams that allow direct gets.
    pub async fn last_of_each(
        &self,
        stream: &str,
        filters: &[String],
        most_bytes: usize,
    ) -> Result<LastOfEach, ApiError> {
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let request = serde_json::json!({ "multi_last": filters, "max_bytes": most_bytes });
        let failed = |reason: String| ApiError::Transport { subject: subject.clone(), reason };
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|error| failed(error.to_string()))?;
        let sent = self.client.publish_with_reply(subject.clone(), inbox, request.to_string().into()).await;
        sent.map_err(|error| failed(error.to_string()))?;
        let mut messages = vec![];
        let collect = async {
            while let Some(answer) = answers.next().await {
                let header = |name: &str| answer.headers.as_ref()?.get(name).map(|value| value.as_str().to_owned());
                match answer.status.as_ref().map_or(200, StatusCode::as_u16) {
                    // Its mirrors answer as well: one may lag, lack what it filters out, or call subjects
                    // otherwise (measured on 2.11 to 2.15).
                    200 if header("Nats-Stream").as_deref() != Some(stream) => return Ok(LastOfEach::NotOffered),
                    200 => {}
                    204 => {
                        let left = header("Nats-Num-Pending").and_then(|left| left.parse().ok()).unwrap_or_default();
                        return Ok(LastOfEach::Messages(std::mem::take(&mut messages), left));
                    }
                    // Nobody says who it is that has none.
                    404 => return Ok(LastOfEach::NotOffered),
                    413 => return Ok(LastOfEach::TooMany),
                    503 => return Ok(LastOfEach::NotOffered),
                    status => {
                        let words = answer.description.clone().unwrap_or_default();
                        return Err(failed(format!("{status} {words}")));
                    }
                }
                messages.push(StoredMessage {
                    stream: stream.to_owned(),
                    subject: header("Nats-Subject").unwrap_or_default(),
                    sequence: header("Nats-Sequence").and_then(|sequence| sequence.parse().ok()).unwrap_or_default(),
                    time: header("Nats-Time-Stamp").unwrap_or_default(),
                    headers: answer.headers.as_ref().map(headers_of).unwrap_or_default(),
                    payload: answer.payload,
                });
            }
            Err(failed("the connection has ended".to_owned()))
        };
        match timeout(self.deadline, collect).await {
            Ok(collected) => collected,
            Err(_) => Err(ApiError::Timeout { subject, deadline: self.deadline }),
        }
    }
}

/// The headers of a message without those that say where it stands.
pub fn headers_of(headers: &HeaderMap) -> Vec<(String, String)> {
    let is_own = |name: &str| !OF_DIRECT_GET.contains(&name.to_ascii_lowercase().as_str());
    headers
        .iter()
        .filter(|(name, _)| is_own(name.as_ref()))
        .flat_map(|(name, values)| {
            let name: &str = name.as_ref();
            values.iter().map(move |value| (name.to_owned(), value.as_str().to_owned()))
        })
        .collect()
}

/// A block of headers as it is stored: a line `NATS/1.0`, and one for each header. What cannot be read
/// as text is replaced, and lines that are no headers are left out. Public for the fuzz target `rest`.
pub fn parse_headers(block: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(block);
    let headers = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    headers
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_stored() {
        let read = |text: &str| parse_headers(text.as_bytes());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let block = "NATS/1.0\r\nA: 1\r\nA:2\r\nTime: 12:00\r\nnonsense\r\n: x\r\nEmpty:\r\n\r\n";
        assert_eq!(read(block), [pair("A", "1"), pair("A", "2"), pair("Time", "12:00"), pair("Empty", "")]);
        for nothing in ["", "NATS/1.0\r\n\r\n", "A: 1"] {
            assert_eq!(read(nothing), []);
        }
        assert_eq!(parse_headers(b"NATS/1.0\r\nA: \xff\r\n"), [pair("A", "\u{fffd}")]);
    }

    #[test]
    fn requests_are_as_the_server_reads_them() {
        let json = |request: MessageRequest| serde_json::to_value(request).unwrap();
        assert_eq!(json(MessageRequest::Numbered { seq: 5 }), serde_json::json!({ "seq": 5 }));
        let last = MessageRequest::Last { subject: "a.*".into() };
        assert_eq!(json(last), serde_json::json!({ "last_by_subj": "a.*" }));
        let next = MessageRequest::Next { seq: 1, subject: ">".into() };
        assert_eq!(json(next), serde_json::json!({ "seq": 1, "next_by_subj": ">" }));
    }
}
