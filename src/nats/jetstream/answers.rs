//! What a nats-server answers, and how it refuses.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::monitor::RaftGroup;
use super::super::violations::Violation;
use super::configuration::{Configuration, WrittenConfig};
use super::way_out::way_out;
use crate::domain::{OLDEST_SERVER, ServerVersion};
use crate::json;

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server answered, and refused; `code` is like a status of HTTP.
    #[error("{description} (JetStream error {err_code}){}", way_out(*.err_code, .description))]
    Refused { code: u16, err_code: u64, description: String },
    #[error("no answer to {subject} within {} s", .deadline.as_secs_f32())]
    Timeout { subject: String, deadline: Duration },
    #[error("nobody answers {subject}: JetStream is not enabled or not ready")]
    NoResponders { subject: String },
    #[error("cannot ask {subject}: {reason}")]
    Transport { subject: String, reason: String },
    #[error("nats-server does not let this user {0}")]
    Denied(Violation),
    #[error("the answer to {subject} cannot be read: {reason}")]
    Unreadable { subject: String, reason: String },
}

impl ApiError {
    /// A stream of that name does not exist (server/errors.json).
    pub const STREAM_NOT_FOUND: u64 = 10059;
    /// A stream of that name exists with another configuration.
    pub const STREAM_NAME_EXISTS: u64 = 10058;
    /// No message is like that.
    pub const NO_MESSAGE: u64 = 10037;
    /// A consumer of that name exists with another configuration.
    pub const CONSUMER_EXISTS: u64 = 10148;
    /// The stream has no such consumer.
    pub const NO_CONSUMER: u64 = 10014;
    /// A consumer that was to be changed does not exist.
    pub const CONSUMER_NOT_FOUND: u64 = 10149;
    /// Consumers have more than the new limits of their stream allow.
    pub const CONSUMERS_VIOLATE_LIMITS: u64 = 10069;

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        /// "JetStream system temporarily unavailable": a cluster without a leader.
        const UNAVAILABLE: u64 = 10008;
        /// "too many requests": more wait to be stored than the server holds.
        const TOO_MANY: u64 = 10167;
        match self {
            Self::Timeout { .. } | Self::NoResponders { .. } | Self::Transport { .. } => true,
            Self::Refused { .. } => self.is(UNAVAILABLE) || self.is(TOO_MANY),
            Self::Denied(_) | Self::Unreadable { .. } => false,
        }
    }

    /// Which one it is, in a word; the number of JetStream where it refused.
    pub fn word(&self) -> Cow<'static, str> {
        match self {
            Self::Refused { err_code, .. } => err_code.to_string().into(),
            Self::Timeout { .. } => "timeout".into(),
            Self::NoResponders { .. } => "no_responders".into(),
            Self::Transport { .. } => "transport".into(),
            Self::Denied(_) => "denied".into(),
            Self::Unreadable { .. } => "unreadable".into(),
        }
    }

    pub fn is(&self, code: u64) -> bool {
        matches!(self, Self::Refused { err_code, .. } if *err_code == code)
    }
}

/// A stream, with its configuration in that form.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "C: Configuration"))]
pub struct StreamInfo<C = Map<String, Value>> {
    #[serde(deserialize_with = "C::read")]
    pub config: C,
    pub state: StreamState,
    /// RFC 3339, with nanoseconds.
    #[serde(default)]
    pub created: String,
    /// Who leads it; of a server alone only some versions say.
    #[serde(default)]
    pub cluster: Option<RaftGroup>,
}

impl<C: Configuration> StreamInfo<C> {
    pub fn name(&self) -> &str {
        self.config.name()
    }
}

/// A stream as it is looked at again and again.
pub type SeenStream = StreamInfo<WrittenConfig>;
pub type SeenStreams = Streams<WrittenConfig>;

/// A consumer and how far it has come.
#[derive(Clone, Debug, Deserialize)]
pub struct ConsumerInfo {
    pub name: String,
    #[serde(deserialize_with = "json::object")]
    pub config: Map<String, Value>,
    #[serde(flatten)]
    pub state: Map<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct StreamState {
    pub messages: u64,
    pub bytes: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    /// RFC 3339; the year 1 where there has been no message.
    pub first_ts: String,
    pub last_ts: String,
    pub consumer_count: u64,
    /// Subjects that messages have.
    pub num_subjects: u64,
    /// Sequences between the first and the last that hold no message.
    pub num_deleted: u64,
    /// Those sequences, where they were asked for.
    pub deleted: Option<Vec<u64>>,
    /// What this server found damaged and counts as deleted, where deleted sequences were asked for.
    pub lost: Option<LostMessages>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct LostMessages {
    /// Sequences.
    pub msgs: Option<Vec<u64>>,
}

/// The consumers of a stream, as far as the server knows about them.
#[derive(Clone, Debug, Default)]
pub struct Consumers {
    pub known: Vec<ConsumerInfo>,
    /// Consumers that exist and whose state the server does not know just now.
    pub unknown: Vec<String>,
}

/// A message as a stream holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub subject: String,
    pub payload: Vec<u8>,
}

/// The streams of an account, as far as the server knows about them.
#[derive(Clone, Debug, Default)]
pub struct Streams<C = Map<String, Value>> {
    pub known: Vec<StreamInfo<C>>,
    /// Streams that exist and whose state the server does not know just now, such as one whose only
    /// node is away.
    pub unknown: Vec<String>,
}

/// `2.15.1` → (2, 15); what cannot be read is taken for the oldest version that is supported.
/// Public for the fuzz target `monitoring`.
pub fn major_minor(version: &str) -> ServerVersion {
    let mut numbers = version.split('.').map(|n| n.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor),
        _ => OLDEST_SERVER,
    }
}

/// What an answer of the JetStream API holds, or how the server refuses. Public for the fuzz target
/// `monitoring`.
pub fn parse_answer<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<Result<T, ApiError>, String> {
    #[derive(Deserialize)]
    struct Envelope {
        error: Option<Refusal>,
    }
    #[derive(Deserialize)]
    struct Refusal {
        #[serde(default)]
        code: u16,
        #[serde(default)]
        err_code: u64,
        #[serde(default)]
        description: String,
    }
    // Most hold none, and to read each answer twice is what an idle broker would do all day.
    if memchr::memmem::find(payload, b"\"error\"").is_some() {
        let Envelope { error } = serde_json::from_slice(payload).map_err(|e| e.to_string())?;
        if let Some(Refusal { code, err_code, description }) = error {
            return Ok(Err(ApiError::Refused { code, err_code, description }));
        }
    }
    serde_json::from_slice(payload).map(Ok).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(major_minor("2.15.1"), (2, 15));
        assert_eq!(major_minor("2.12.0-RC.1"), (2, 12));
        assert_eq!(major_minor("odd"), OLDEST_SERVER);
    }

    #[test]
    fn an_answer_is_what_it_holds_or_a_refusal() {
        #[derive(Debug, Deserialize, PartialEq)]
        struct Held {
            seq: u64,
        }
        let read = |text: &str| parse_answer::<Held>(text.as_bytes());
        for good in [r#"{"seq":7}"#, r#"{"seq":7,"error":null}"#, r#"{"seq":7,"domain":"\"error\""}"#] {
            assert_eq!(read(good).unwrap().unwrap(), Held { seq: 7 }, "{good}");
        }
        for refusal in [r#"{"error":{"code":503},"seq":7}"#, r#"{"seq":7,"error":{}}"#, "{\"seq\":7, \"error\" : {}}"] {
            assert!(read(refusal).unwrap().is_err(), "{refusal}");
        }
        for neither in ["", "{", r#"{"sequence":7}"#, r#"{"error":"x","seq":7}"#] {
            assert!(read(neither).is_err(), "{neither}");
        }
    }

    #[test]
    fn refusals_keep_their_code() {
        let answer = br#"{"type":"x","error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
        let error = parse_answer::<StreamInfo>(answer).unwrap().unwrap_err();
        assert!(error.is(ApiError::STREAM_NOT_FOUND));
        assert_eq!(error.to_string(), "stream not found (JetStream error 10059)");
        let full = ApiError::Refused { code: 500, err_code: 10047, description: "insufficient storage".into() };
        assert!(full.to_string().starts_with("insufficient storage (JetStream error 10047); lower max_bytes"));
    }

    #[test]
    fn other_answers_are_unreadable() {
        for answer in [&b""[..], b"[]", b"{", b"{\"error\":5}", b"{}"] {
            assert!(parse_answer::<StreamInfo>(answer).is_err());
            assert!(parse_answer::<SeenStream>(answer).is_err());
        }
    }

    #[test]
    fn fields_that_we_do_not_know_stay_as_they_are() {
        let config = r#"{"name":"A","of_the_future":-1.8888888888888888e+113,"max_msgs":9223372036854775807}"#;
        let info: StreamInfo = serde_json::from_str(&format!(r#"{{"config":{config},"state":{{}}}}"#)).unwrap();
        assert_eq!(serde_json::to_string(&info.config).unwrap(), config);
    }
}
