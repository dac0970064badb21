//! What is said on a WebSocket, each as a JSON object in a frame of its own.

use axum::extract::ws::Utf8Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::broker::{End, Event};
use crate::http::body;
use crate::http::envelope::{Code, Problem};

/// The longest name of a subscription.
const LONGEST_ID: usize = 64;

/// What clients say.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Frame {
    Subscribe(Subscribe),
    Credits(Credits),
    Unsubscribe(Unsubscribe),
    Ack(Ack),
}

/// Messages of a subject from now on, or messages of a consumer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// The client's name for it, on this connection.
    pub id: String,
    /// To follow a subject, or a filter with wildcards.
    pub subject: Option<String>,
    /// Where several streams capture the subject; the stream of the consumer.
    pub stream: Option<String>,
    /// To work on the messages of a consumer, each of which is to be acknowledged.
    pub consumer: Option<String>,
    /// A sequence, or a time of RFC 3339.
    #[schema(value_type = Option<String>)]
    pub from: Option<Value>,
    /// `last`: the last message of each matching subject first.
    pub snapshot: Option<String>,
    /// The position of the last message that was seen.
    pub resume: Option<String>,
    /// Messages that may be sent; without it as many as come.
    pub credits: Option<u32>,
}

/// So many more may be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credits {
    pub id: String,
    pub n: u32,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    pub id: String,
}

/// What becomes of a message of a consumer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    pub id: String,
    /// The `ack` of the message.
    pub message: u64,
    #[serde(default)]
    pub action: Action,
    /// Seconds after which it comes again.
    pub delay: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    #[default]
    Ack,
    Nak,
    Term,
    Progress,
}

impl Frame {
    pub fn read(text: &[u8]) -> Result<Self, Problem> {
        let frame: Self = body::parse_object(text, Code::InvalidParameters)?;
        let id = match &frame {
            Self::Subscribe(Subscribe { id, .. })
            | Self::Credits(Credits { id, .. })
            | Self::Unsubscribe(Unsubscribe { id })
            | Self::Ack(Ack { id, .. }) => id,
        };
        match id.len() {
            1..=LONGEST_ID => Ok(frame),
            _ => Err(super::super::tail::invalid(format!("an id has 1 to {LONGEST_ID} bytes"))),
        }
    }
}

/// The id of a frame that cannot be read as a whole, so that the client knows which one is meant.
pub fn id_of(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    serde_json::from_slice::<Named>(text).ok().map(|named| named.id).filter(|id| id.len() <= LONGEST_ID)
}

/// What is sent.
pub fn frame(value: &Value) -> Utf8Bytes {
    value.to_string().into()
}

pub fn error(id: Option<&str>, problem: &Problem) -> Utf8Bytes {
    #[derive(Serialize)]
    struct ErrorFrame<'a> {
        #[serde(rename = "type")]
        kind: &'static str,
        id: Option<&'a str>,
        error_code: Code,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<&'a Value>,
    }
    let (error_code, message, details) = (problem.code, problem.message.as_str(), problem.details.as_ref());
    let frame = ErrorFrame { kind: "error", id, error_code, message, details };
    serde_json::to_string(&frame).unwrap_or_default().into()
}

pub fn end(id: &str, end: &End) -> Utf8Bytes {
    frame(&json!({ "type": "end", "id": id, "reason": end.reason, "message": end.message }))
}

/// `{"type","id","position",…}` and what the event holds.
pub fn event(id: &str, event: &Event) -> Utf8Bytes {
    let kind = if event.gap.is_some() { "gap" } else { "message" };
    let mut out = Vec::with_capacity(event.json().len() + 128);
    begin(&mut out, kind, id);
    out.extend_from_slice(b",\"position\":");
    // Names of streams may hold anything.
    let position = String::from_utf8_lossy(event.id());
    let _ = serde_json::to_writer(&mut out, &position);
    with_object(out, event.json())
}

/// A message of a consumer, which is settled under that number.
pub fn piece(id: &str, number: u64, record: &[u8]) -> Utf8Bytes {
    let mut out = Vec::with_capacity(record.len() + 128);
    begin(&mut out, "message", id);
    out.extend_from_slice(format!(",\"ack\":{number}").as_bytes());
    with_object(out, record)
}

fn begin(out: &mut Vec<u8>, kind: &str, id: &str) {
    out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"id\":").as_bytes());
    // A text is always JSON, and a vector takes everything.
    let _ = serde_json::to_writer(out, id);
}

fn with_object(mut out: Vec<u8>, object: &[u8]) -> Utf8Bytes {
    out.push(b',');
    out.extend_from_slice(object.strip_prefix(b"{").unwrap_or(object));
    Utf8Bytes::try_from(bytes::Bytes::from(out)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_and_what_is_none_is_named() {
        let read = |text: &str| Frame::read(text.as_bytes());
        assert!(matches!(read(r#"{"type":"subscribe","id":"a","subject":"x.>","from":1}"#), Ok(Frame::Subscribe(_))));
        assert!(matches!(read(r#"{"type":"ack","id":"a","message":3,"action":"nak","delay":1.5}"#), Ok(Frame::Ack(_))));
        for (bad, word) in [
            ("", "JSON"),
            ("[]", "JSON"),
            ("{}", "type"),
            (r#"{"type":"publish","id":"a"}"#, "publish"),
            (r#"{"type":"credits","id":"a","n":-1}"#, "-1"),
            (r#"{"type":"credits","id":"","n":1}"#, "id"),
            (r#"{"type":"subscribe","id":"a","subjet":"x"}"#, "did you mean"),
        ] {
            let problem = read(bad).unwrap_err();
            assert!(problem.message.contains(word), "{bad}: {problem:?}");
        }
        assert_eq!(id_of(br#"{"type":"x","id":"a"}"#), Some("a".to_owned()));
        assert_eq!(id_of(b"no"), None);
    }

    #[test]
    fn a_piece_is_one_object() {
        let text = piece("a\"b", 7, br#"{"sequence":1}"#);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value, json!({ "type": "message", "id": "a\"b", "ack": 7, "sequence": 1 }));
    }
}
