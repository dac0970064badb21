//! The JetStream API as JSON. Configurations stay JSON objects, so that fields a newer server knows
//! and we do not are carried over untouched.

use std::time::Duration;

use async_nats::Client;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::domain::{OLDEST_SERVER, ServerVersion};

/// Requests to `$JS.API`, each with a deadline.
#[derive(Clone)]
pub struct JetStream {
    client: Client,
    deadline: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server answered, and refused.
    #[error("{description} (JetStream error {err_code})")]
    Refused { err_code: u64, description: String },
    #[error("no answer to {subject} within {} s", .deadline.as_secs_f32())]
    Timeout { subject: String, deadline: Duration },
    #[error("nobody answers {subject}: JetStream is not enabled or not ready")]
    NoResponders { subject: String },
    #[error("cannot ask {subject}: {reason}")]
    Transport { subject: String, reason: String },
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
    /// A consumer of that name does not exist.
    pub const CONSUMER_NOT_FOUND: u64 = 10149;
    /// Consumers have more than the new limits of their stream allow.
    pub const CONSUMERS_VIOLATE_LIMITS: u64 = 10069;

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        /// "JetStream system temporarily unavailable": a cluster without a leader.
        const UNAVAILABLE: u64 = 10008;
        match self {
            Self::Timeout { .. } | Self::NoResponders { .. } | Self::Transport { .. } => true,
            Self::Refused { .. } => self.is(UNAVAILABLE),
            Self::Unreadable { .. } => false,
        }
    }

    pub fn is(&self, code: u64) -> bool {
        matches!(self, Self::Refused { err_code, .. } if *err_code == code)
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct StreamInfo {
    pub config: Map<String, Value>,
    pub state: StreamState,
    /// RFC 3339, with nanoseconds.
    #[serde(default)]
    pub created: String,
}

impl StreamInfo {
    pub fn name(&self) -> &str {
        self.config.get("name").and_then(Value::as_str).unwrap_or_default()
    }
}

/// A consumer and how far it has come.
#[derive(Clone, Debug, Deserialize)]
pub struct ConsumerInfo {
    pub name: String,
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

/// What becomes of a consumer that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It must not exist, or be the same.
    New,
    /// It must exist.
    Change,
}

/// The streams of an account, as far as the server knows about them.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    pub known: Vec<StreamInfo>,
    /// Streams that exist and whose state the server does not know just now, such as one whose only
    /// node is away.
    pub unknown: Vec<String>,
}

impl JetStream {
    pub fn new(client: Client, deadline: Duration) -> Self {
        Self { client, deadline }
    }

    /// Major and minor version of the server that is connected.
    pub fn server_version(&self) -> ServerVersion {
        major_minor(&self.client.server_info().version)
    }

    /// [`None`] when there is no such stream.
    pub async fn stream_info(&self, name: &str) -> Result<Option<StreamInfo>, ApiError> {
        match self.ask(format!("$JS.API.STREAM.INFO.{name}"), &Value::Null).await {
            Err(error) if error.is(ApiError::STREAM_NOT_FOUND) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The same with the sequences that hold no message, which can be many.
    pub async fn stream_info_with_deleted(&self, name: &str) -> Result<StreamInfo, ApiError> {
        let request = serde_json::json!({ "deleted_details": true });
        self.ask(format!("$JS.API.STREAM.INFO.{name}"), &request).await
    }

    /// Every stream of the account.
    pub async fn streams(&self) -> Result<Streams, ApiError> {
        #[derive(Deserialize)]
        struct Page {
            total: usize,
            streams: Option<Vec<StreamInfo>>,
            missing: Option<Vec<String>>,
            offline: Option<Map<String, Value>>,
        }
        let mut streams = Streams::default();
        let mut offset = 0;
        loop {
            let request = serde_json::json!({ "offset": offset });
            let page: Page = self.ask("$JS.API.STREAM.LIST".into(), &request).await?;
            let (listed, missing) = (page.streams.unwrap_or_default(), page.missing.unwrap_or_default());
            // Streams may come and go between two pages.
            let on_page = listed.len() + missing.len();
            offset += on_page;
            streams.known.extend(listed);
            streams.unknown.extend(missing);
            streams.unknown.extend(page.offline.into_iter().flatten().map(|(name, _)| name));
            if on_page == 0 || offset >= page.total {
                break;
            }
        }
        let mut seen = std::collections::HashSet::new();
        streams.known.retain(|info| seen.insert(info.name().to_owned()));
        // A server lists those too, with a state of zeros.
        let Streams { known, unknown } = &mut streams;
        known.retain(|info| !unknown.iter().any(|name| name == info.name()));
        Ok(streams)
    }

    /// Creates a stream; does nothing when it exists with this very configuration.
    pub async fn create_stream(&self, name: &str, config: &Map<String, Value>) -> Result<StreamInfo, ApiError> {
        self.ask(format!("$JS.API.STREAM.CREATE.{name}"), config).await
    }

    /// Replaces the whole configuration of a stream.
    pub async fn update_stream(&self, name: &str, config: &Map<String, Value>) -> Result<StreamInfo, ApiError> {
        self.ask(format!("$JS.API.STREAM.UPDATE.{name}"), config).await
    }

    /// Every consumer of a stream.
    pub async fn consumers(&self, stream: &str) -> Result<Consumers, ApiError> {
        #[derive(Deserialize)]
        struct Page {
            total: usize,
            consumers: Option<Vec<ConsumerInfo>>,
            missing: Option<Vec<String>>,
        }
        let mut consumers = Consumers::default();
        let mut offset = 0;
        loop {
            let request = serde_json::json!({ "offset": offset });
            let page: Page = self.ask(format!("$JS.API.CONSUMER.LIST.{stream}"), &request).await?;
            let (listed, missing) = (page.consumers.unwrap_or_default(), page.missing.unwrap_or_default());
            let on_page = listed.len() + missing.len();
            offset += on_page;
            consumers.known.extend(listed);
            consumers.unknown.extend(missing);
            if on_page == 0 || offset >= page.total {
                return Ok(consumers);
            }
        }
    }

    /// Creates a consumer that does not exist, or replaces the whole configuration of one that does.
    pub async fn put_consumer(
        &self,
        stream: &str,
        name: &str,
        config: &Map<String, Value>,
        put: Put,
    ) -> Result<(), ApiError> {
        let action = match put {
            Put::New => "create",
            Put::Change => "update",
        };
        let request = serde_json::json!({ "stream_name": stream, "config": config, "action": action });
        let filter = config.get("filter_subject").and_then(Value::as_str).map(|filter| format!(".{filter}"));
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.{name}{}", filter.unwrap_or_default());
        let _: Value = self.ask(subject, &request).await?;
        Ok(())
    }

    /// Deletes a stream with its messages.
    pub async fn delete_stream(&self, name: &str) -> Result<(), ApiError> {
        match self.ask::<Value>(format!("$JS.API.STREAM.DELETE.{name}"), &Value::Null).await {
            Err(error) if error.is(ApiError::STREAM_NOT_FOUND) => Ok(()),
            other => other.map(drop),
        }
    }

    /// The streams that capture `subject`.
    pub async fn streams_with_subject(&self, subject: &str) -> Result<Vec<String>, ApiError> {
        #[derive(Deserialize)]
        struct Names {
            streams: Option<Vec<String>>,
        }
        let request = serde_json::json!({ "subject": subject });
        let names: Names = self.ask("$JS.API.STREAM.NAMES".into(), &request).await?;
        Ok(names.streams.unwrap_or_default())
    }

    /// How many messages of a stream match `filter`.
    pub async fn messages_of(&self, stream: &str, filter: &str) -> Result<u64, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            total: usize,
            state: Counted,
        }
        #[derive(Deserialize)]
        struct Counted {
            subjects: Option<std::collections::HashMap<String, u64>>,
        }
        let (mut subjects, mut messages) = (0, 0);
        loop {
            let request = serde_json::json!({ "subjects_filter": filter, "offset": subjects });
            let answer: Answer = self.ask(format!("$JS.API.STREAM.INFO.{stream}"), &request).await?;
            let page = answer.state.subjects.unwrap_or_default();
            messages += page.values().sum::<u64>();
            subjects += page.len();
            if page.is_empty() || subjects >= answer.total {
                return Ok(messages);
            }
        }
    }

    /// When the last message of a stream came that matches `filter`, in RFC 3339.
    pub async fn last_time_of(&self, stream: &str, filter: &str) -> Result<Option<String>, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            message: Stored,
        }
        #[derive(Deserialize)]
        struct Stored {
            time: String,
        }
        let request = serde_json::json!({ "last_by_subj": filter });
        match self.ask::<Answer>(format!("$JS.API.STREAM.MSG.GET.{stream}"), &request).await {
            Ok(answer) => Ok(Some(answer.message.time)),
            Err(error) if error.is(ApiError::NO_MESSAGE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores a message and gives its sequence. With the same id it is stored once only.
    pub async fn publish(&self, subject: &str, id: &str, payload: &[u8]) -> Result<u64, ApiError> {
        #[derive(Deserialize)]
        struct Stored {
            seq: u64,
        }
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
        let payload = payload.to_vec().into();
        let request = self.client.request_with_headers(subject.to_owned(), headers, payload);
        let stored: Stored = self.answer(subject.to_owned(), request).await?;
        Ok(stored.seq)
    }

    /// Whether the server can read the message.
    pub async fn has_message(&self, stream: &str, seq: u64) -> Result<bool, ApiError> {
        let request = serde_json::json!({ "seq": seq });
        match self.ask::<Value>(format!("$JS.API.STREAM.MSG.GET.{stream}"), &request).await {
            Ok(_) => Ok(true),
            Err(ApiError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// [`None`] when there is no message of that sequence.
    pub async fn message(&self, stream: &str, seq: u64) -> Result<Option<Stored>, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            message: Encoded,
        }
        #[derive(Deserialize)]
        struct Encoded {
            subject: String,
            #[serde(default)]
            data: String,
        }
        let subject = format!("$JS.API.STREAM.MSG.GET.{stream}");
        match self.ask::<Answer>(subject.clone(), &serde_json::json!({ "seq": seq })).await {
            Ok(Answer { message: Encoded { subject: of, data } }) => {
                let payload = BASE64_STANDARD.decode(data);
                let payload = payload.map_err(|error| ApiError::Unreadable { subject, reason: error.to_string() })?;
                Ok(Some(Stored { subject: of, payload }))
            }
            Err(error) if error.is(ApiError::NO_MESSAGE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn delete_message(&self, stream: &str, seq: u64) -> Result<(), ApiError> {
        let request = serde_json::json!({ "seq": seq });
        let _: Value = self.ask(format!("$JS.API.STREAM.MSG.DELETE.{stream}"), &request).await?;
        Ok(())
    }

    /// Creates a consumer that goes by itself when it is not used.
    pub async fn create_consumer(&self, stream: &str, name: &str, config: Value) -> Result<(), ApiError> {
        let request = serde_json::json!({ "stream_name": stream, "config": config });
        let _: Value = self.ask(format!("$JS.API.CONSUMER.CREATE.{stream}.{name}"), &request).await?;
        Ok(())
    }

    pub async fn delete_consumer(&self, stream: &str, name: &str) -> Result<(), ApiError> {
        let _: Value = self.ask(format!("$JS.API.CONSUMER.DELETE.{stream}.{name}"), &Value::Null).await?;
        Ok(())
    }

    /// The connection itself, for what is not a request.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether JetStream answers at all.
    pub async fn answers(&self) -> Result<(), ApiError> {
        self.ask::<serde::de::IgnoredAny>("$JS.API.INFO".into(), &Value::Null).await.map(drop)
    }

    /// Memory, storage and limits of the account.
    pub async fn account_info(&self) -> Result<Value, ApiError> {
        self.ask("$JS.API.INFO".into(), &Value::Null).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        subject: String,
        request: &impl serde::Serialize,
    ) -> Result<T, ApiError> {
        let payload = match serde_json::to_vec(request) {
            Ok(null) if null == b"null" => Vec::new(),
            Ok(payload) => payload,
            Err(error) => return Err(ApiError::Unreadable { subject, reason: error.to_string() }),
        };
        let request = self.client.request(subject.clone(), payload.into());
        self.answer(subject, request).await
    }

    async fn answer<T: serde::de::DeserializeOwned>(
        &self,
        subject: String,
        request: impl Future<Output = Result<async_nats::Message, async_nats::RequestError>>,
    ) -> Result<T, ApiError> {
        let message = match timeout(self.deadline, request).await {
            Err(_) => {
                return Err(ApiError::Timeout { subject, deadline: self.deadline });
            }
            Ok(Err(error)) if error.kind() == async_nats::RequestErrorKind::NoResponders => {
                return Err(ApiError::NoResponders { subject });
            }
            Ok(Err(error)) => {
                return Err(ApiError::Transport { subject, reason: error.to_string() });
            }
            Ok(Ok(message)) => message,
        };
        parse_answer(&message.payload).unwrap_or_else(|reason| Err(ApiError::Unreadable { subject, reason }))
    }
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
pub fn parse_answer<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<Result<T, ApiError>, String> {
    #[derive(Deserialize)]
    struct Envelope {
        error: Option<Refusal>,
    }
    #[derive(Deserialize)]
    struct Refusal {
        #[serde(default)]
        err_code: u64,
        #[serde(default)]
        description: String,
    }
    // Looked at twice rather than taken apart twice: this is what an idle broker does all day.
    let Envelope { error } = serde_json::from_slice(payload).map_err(|e| e.to_string())?;
    match error {
        Some(Refusal { err_code, description }) => Ok(Err(ApiError::Refused { err_code, description })),
        None => serde_json::from_slice(payload).map(Ok).map_err(|e| e.to_string()),
    }
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
    fn refusals_keep_their_code() {
        let answer = br#"{"type":"x","error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
        let error = parse_answer::<StreamInfo>(answer).unwrap().unwrap_err();
        assert!(error.is(ApiError::STREAM_NOT_FOUND));
        assert_eq!(error.to_string(), "stream not found (JetStream error 10059)");
    }

    #[test]
    fn other_answers_are_unreadable() {
        for answer in [&b""[..], b"[]", b"{", b"{\"error\":5}", b"{}"] {
            assert!(parse_answer::<StreamInfo>(answer).is_err());
        }
    }

    #[test]
    fn fields_that_we_do_not_know_stay_as_they_are() {
        let config = r#"{"name":"A","of_the_future":-1.8888888888888888e+113,"max_msgs":9223372036854775807}"#;
        let info: StreamInfo = serde_json::from_str(&format!(r#"{{"config":{config},"state":{{}}}}"#)).unwrap();
        assert_eq!(serde_json::to_string(&info.config).unwrap(), config);
    }
}
