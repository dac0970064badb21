//! Messages as clients write them, read into what the broker stores.

use std::borrow::Cow;

use async_nats::HeaderMap;
use axum::http::{self, HeaderName};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::headers::Given;
use crate::broker::{Expectations, Message, TIME_TO_LIVE};
use crate::domain::Subject;
use crate::http::body;
use crate::http::envelope::{Code, Problem};

// Names that are looked for in each request, read once.
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A message to be stored.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest<'a> {
    /// Where to; no wildcards.
    #[serde(borrow)]
    #[schema(value_type = String, example = "trade-data.binance.spot.BTCUSDT")]
    subject: Cow<'a, str>,
    /// A text is sent as its bytes, anything else as JSON.
    #[serde(borrow)]
    #[schema(value_type = serde_json::Value)]
    message: &'a RawValue,
    /// NATS headers: a text each, or a list of texts.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::HashMap<String, String>>)]
    headers: Option<Given>,
    /// With the same id within the stream's duplicate window a message is stored once; payloads are never
    /// compared.
    #[serde(default)]
    msg_id: Option<String>,
    /// Only if that is the last sequence of the stream.
    #[serde(default)]
    expected_last_sequence: Option<u64>,
    /// How `message` is written.
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// A text is sent as its bytes, anything else as JSON.
    #[default]
    Json,
    /// `message` must be a text.
    Text,
    /// `message` must be a text in base64.
    Base64,
}

pub fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(http::StatusCode::BAD_REQUEST, Code::InvalidMessageData, message)
}

/// Reads one message as a request with such a key says it.
pub fn read_message(body: &[u8], key: Option<&[u8]>) -> Result<Message, Problem> {
    let mut headers = http::HeaderMap::new();
    if let Some(key) = key {
        let key = http::HeaderValue::from_bytes(key).map_err(|_| invalid("the Idempotency-Key is no header"))?;
        headers.insert("idempotency-key", key);
    }
    let request: PublishRequest = body::parse_object(body, Code::InvalidMessageData)?;
    request.into_message(&headers)
}

impl PublishRequest<'_> {
    /// Reads it as a message; `headers` are those of the request.
    pub fn into_message(self, headers: &http::HeaderMap) -> Result<Message, Problem> {
        let subject = subject(&self.subject)?;
        let mut message = Message {
            payload: payload(self.message, self.encoding)?,
            headers: HeaderMap::new(),
            msg_id: self.msg_id,
            expects: Expectations { last_sequence: self.expected_last_sequence, ..Expectations::default() },
            subject,
        };
        for (name, value) in self.headers.iter().flat_map(Given::lines) {
            message.take_header(name, value)?;
        }
        message.take_request_headers(headers)?;
        Ok(message)
    }
}

/// Where a client may publish to: one subject, which is nobody's own.
pub fn subject(text: &str) -> Result<Subject, Problem> {
    let subject: Subject = text.parse().map_err(|error| invalid(format!("the subject {error}")))?;
    if text.split('.').any(|token| matches!(token, "*" | ">")) {
        return Err(invalid("the subject holds a wildcard; a message goes to one subject"));
    }
    let first = text.split('.').next().unwrap_or_default();
    let is_reserved = (first.starts_with('$') && !matches!(first, "$KV" | "$O"))
        || matches!(first, "_INBOX" | "_R_" | "_GR_")
        || first.starts_with("_unified_nats");
    if is_reserved {
        return Err(invalid(format!("subjects below {first} are those of NATS itself")));
    }
    Ok(subject)
}

fn payload(message: &RawValue, encoding: Encoding) -> Result<Bytes, Problem> {
    let raw = message.get();
    let text = |encoding: &str| {
        if !raw.starts_with('"') {
            return Err(invalid(format!("message must be a text where encoding is {encoding:?}")));
        }
        // As JSON it has been read already, so that only its escapes can be wrong.
        serde_json::from_str::<String>(raw).map_err(|_| {
            invalid(
                "message holds half of a surrogate pair such as \\ud800, which is no character and so has no bytes: \
                 write both halves, or give the bytes with encoding \"base64\"",
            )
        })
    };
    match encoding {
        Encoding::Json if !raw.starts_with('"') => Ok(Bytes::copy_from_slice(raw.as_bytes())),
        Encoding::Json | Encoding::Text => text("text").map(Bytes::from),
        Encoding::Base64 => {
            let decoded = BASE64_STANDARD.decode(text("base64")?);
            decoded.map(Bytes::from).map_err(|error| invalid(format!("message is no base64: {error}")))
        }
    }
}

/// Takes what may be said once, or twice in the same way.
fn set<T: PartialEq>(place: &mut Option<T>, name: &str, value: T) -> Result<(), Problem> {
    match place {
        Some(other) if *other != value => Err(invalid(format!("{name:?} asks for two different things"))),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

/// The longest message id; it stands in a header and in the server's memory.
const LONGEST_ID: usize = 512;

/// The idempotency key of a request, without the quotes that it may stand in.
pub fn idempotency_key(headers: &http::HeaderMap) -> Result<Option<&str>, Problem> {
    let mut keys = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    if keys.next().is_some() {
        return Err(invalid("two Idempotency-Key headers"));
    }
    let key = key.to_str().map_err(|_| invalid("the Idempotency-Key is not of visible ASCII characters"))?;
    Ok(Some(key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key)))
}

/// Whether a message can have that id.
pub fn check_id(id: &str) -> Result<(), Problem> {
    if id.is_empty() || id.len() > LONGEST_ID || id.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(invalid(format!("a message id has 1 to {LONGEST_ID} bytes and no control characters")));
    }
    // Before it nats-server drops a blank, so that two ids would be one.
    if id.trim() != id {
        return Err(invalid("a message id does not begin or end with a blank"));
    }
    Ok(())
}

impl Message {
    /// A header that the client gives. Those that tell nats-server what to do are few.
    pub fn take_header(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        let refuse = |why: &str| Err(invalid(format!("header {name:?} {why}")));
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
            return refuse("has a name that no NATS header can have");
        }
        if value.bytes().any(|byte| byte == b'\r' || byte == b'\n') {
            return refuse("holds a line break");
        }
        // nats-server counts those behind a value to it, those before it not, and most who read it drop both.
        if value.trim() != value {
            return refuse("has a value that begins or ends with a blank, which not everybody would see");
        }
        let lower = name.to_ascii_lowercase();
        // It would store the message as if the header was not there (measured on 2.10 to 2.15).
        if value.is_empty() && lower.starts_with("nats-") {
            return refuse("is empty, which nats-server takes for no such header");
        }
        let number = || value.parse::<u64>().map_err(|_| invalid(format!("header {name:?} must be a sequence")));
        let expects = &mut self.expects;
        match lower.as_str() {
            "nats-msg-id" => self.take_msg_id(value)?,
            "nats-expected-stream" => set(&mut expects.stream, name, value.to_owned())?,
            "nats-expected-last-sequence" => set(&mut expects.last_sequence, name, number()?)?,
            "nats-expected-last-subject-sequence" => set(&mut expects.last_sequence_of_subject, name, number()?)?,
            "nats-expected-last-subject-sequence-subject" => {
                let subject = value.parse().map_err(|error| invalid(format!("header {name:?}: it {error}")))?;
                set(&mut expects.other_subject, name, Box::new(subject))?;
            }
            "nats-expected-last-msg-id" => set(&mut expects.last_msg_id, name, value.to_owned())?,
            "nats-ttl" if self.headers.get(TIME_TO_LIVE).is_some_and(|other| other.as_str() != value) => {
                return refuse("is there twice, with two values");
            }
            "nats-ttl" => self.headers.insert(TIME_TO_LIVE, value),
            lower if lower.starts_with("nats-") => {
                return refuse(
                    "is one that NATS gives a meaning; allowed are Nats-Msg-Id, Nats-Expected-* and Nats-TTL",
                );
            }
            _ => self.headers.append(name, value),
        }
        Ok(())
    }

    pub(super) fn take_msg_id(&mut self, id: &str) -> Result<(), Problem> {
        check_id(id)?;
        match &self.msg_id {
            Some(other) if other != id => Err(invalid(format!("two message ids: {other:?} and {id:?}"))),
            _ => {
                self.msg_id = Some(id.to_owned());
                Ok(())
            }
        }
    }

    /// What the request itself says: its idempotency key, and the trace it belongs to. To be taken last.
    pub fn take_request_headers(&mut self, headers: &http::HeaderMap) -> Result<(), Problem> {
        if let Some(id) = self.msg_id.take() {
            self.take_msg_id(&id)?;
        }
        if let Some(key) = idempotency_key(headers)? {
            self.take_msg_id(key)?;
        }
        for name in [&TRACEPARENT, &TRACESTATE] {
            if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok())
                && self.headers.get(name.as_str()).is_none()
            {
                self.headers.insert(name.as_str(), value);
            }
        }
        match &self.expects {
            Expectations { other_subject: Some(_), last_sequence_of_subject: None, .. } => Err(invalid(
                "the header Nats-Expected-Last-Subject-Sequence-Subject says nothing without \
                 Nats-Expected-Last-Subject-Sequence",
            )),
            _ => Ok(()),
        }
    }
}
