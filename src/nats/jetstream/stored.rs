//! What streams hold: how many messages of which subject, and single messages by their sequence.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{ApiError, JetStream, Stored};

impl JetStream {
    /// How many messages of a stream each subject has. For one that is known to have few: the answer names
    /// every one of them, up to 100,000.
    pub async fn messages_by_subject(&self, stream: &str) -> Result<BTreeMap<String, u64>, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            state: Counted,
        }
        #[derive(Deserialize)]
        struct Counted {
            subjects: Option<BTreeMap<String, u64>>,
        }
        let request = serde_json::json!({ "subjects_filter": ">" });
        let answer: Answer = self.ask(format!("$JS.API.STREAM.INFO.{stream}"), &request).await?;
        Ok(answer.state.subjects.unwrap_or_default())
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

    /// When the message of that sequence came, in RFC 3339; [`None`] when there is none.
    pub async fn time_of(&self, stream: &str, seq: u64) -> Result<Option<String>, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            message: Timed,
        }
        #[derive(Deserialize)]
        struct Timed {
            time: String,
        }
        let request = serde_json::json!({ "seq": seq });
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

    /// The sequence of the first message from `seq` on that the server can read.
    pub async fn next_sequence(&self, stream: &str, seq: u64) -> Result<Option<u64>, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            message: Numbered,
        }
        #[derive(Deserialize)]
        struct Numbered {
            seq: u64,
        }
        let request = serde_json::json!({ "seq": seq, "next_by_subj": ">" });
        match self.ask::<Answer>(format!("$JS.API.STREAM.MSG.GET.{stream}"), &request).await {
            Ok(answer) => Ok(Some(answer.message.seq)),
            Err(error) if error.is(ApiError::NO_MESSAGE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the server can read the message.
    pub async fn has_message(&self, stream: &str, seq: u64) -> Result<bool, ApiError> {
        let request = serde_json::json!({ "seq": seq });
        match self.ask::<IgnoredAny>(format!("$JS.API.STREAM.MSG.GET.{stream}"), &request).await {
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
        let _: IgnoredAny = self.ask(format!("$JS.API.STREAM.MSG.DELETE.{stream}"), &request).await?;
        Ok(())
    }
}
