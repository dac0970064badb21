//! Batches that are stored as a whole or not at all, as far as nats-server can (2.12 and later).

use async_nats::HeaderMap;
use async_nats::client::{PublishErrorKind, Request, RequestErrorKind};
use async_nats::header::{NATS_BATCH_COMMIT, NATS_BATCH_ID, NATS_BATCH_SEQUENCE};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::publishing::Publishing;
use super::{Broker, Failure, Message, Stored};
use crate::domain::Subject;
use crate::nats::{JetStream, StreamInfo, parse_answer};

/// Messages of one batch at most; nats-server takes no more.
pub const LARGEST: usize = 1000;
/// The first version that has such batches.
const SINCE: (u32, u32) = (2, 12);

impl Broker {
    /// Stores all of the messages, or none. What is answered is the last of them.
    pub async fn publish_atomically(&self, messages: &[Message], deadline: Instant) -> Result<Stored, Failure> {
        let publishing = Publishing::many();
        let outcome = self.publish_as_one(messages, publishing.as_ref(), deadline).await;
        if let Some(publishing) = publishing {
            publishing.end(messages.len(), &outcome);
        }
        outcome
    }

    async fn publish_as_one(
        &self,
        messages: &[Message],
        publishing: Option<&Publishing>,
        deadline: Instant,
    ) -> Result<Stored, Failure> {
        let invalid = |reason: String| Err(Failure::Invalid(reason));
        let Some((last, others)) = messages.split_last() else {
            return invalid("an atomic batch has at least one message".to_owned());
        };
        if messages.len() > LARGEST {
            return invalid(format!("an atomic batch has at most {LARGEST} messages, this one {}", messages.len()));
        }
        if messages.iter().any(|message| message.expects.last_msg_id.is_some()) {
            return invalid("nats-server takes no Nats-Expected-Last-Msg-Id in an atomic batch".to_owned());
        }
        let mut ids: Vec<_> = messages.iter().filter_map(|message| message.msg_id.as_deref()).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return invalid(format!("two messages of the atomic batch have the message id {:?}", pair[0]));
        }
        let session = self.data(deadline).await?;
        let jetstream = session.jetstream(deadline.saturating_duration_since(Instant::now()));
        if jetstream.server_version() < SINCE {
            return invalid(format!("atomic batches need nats-server {}.{} or later", SINCE.0, SINCE.1));
        }
        let stream = self.capturing_stream(&jetstream, &last.subject).await?;
        judge(&stream, messages)?;
        messages.iter().try_for_each(|message| message.is_understood(&session))?;

        let batch = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let client = session.client();
        let mut denials = session.listen()?;
        for (number, message) in others.iter().enumerate() {
            let headers = headers_of(message, publishing, (&batch, number + 1, false));
            let subject = message.subject.as_str().to_owned();
            let sent = client.publish_with_headers(subject, headers, message.payload.clone());
            match timeout_at(deadline, sent).await {
                Ok(Ok(())) => {}
                // Without its end nothing of the batch is stored.
                Ok(Err(error)) => {
                    return Err(match error.kind() {
                        PublishErrorKind::MaxPayloadExceeded => message.too_large(client),
                        PublishErrorKind::InvalidSubject => Failure::Invalid(error.to_string()),
                        PublishErrorKind::Send => self.not_connected(),
                    });
                }
                Err(_) => {
                    return Err(Failure::Late(
                        "the atomic batch could not be sent in time; nothing of it was stored".to_owned(),
                    ));
                }
            }
        }
        let request = Request::new()
            .headers(headers_of(last, publishing, (&batch, messages.len(), true)))
            .payload(last.payload.clone())
            .timeout(None);
        let subject = last.subject.as_str().to_owned();
        let answer = tokio::select! {
            answer = timeout_at(deadline, client.send_request(subject, request)) => answer,
            // Without any of them nothing of the batch is stored.
            violation = denials.next(|denied| messages.iter().any(|it| it.subject.as_str() == denied)) => {
                return Err(violation.into());
            }
            () = session.gone() => return Err(last.unconfirmed()),
        };
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            // Without its end nothing of the batch is stored.
            Ok(Err(error)) if error.kind() == RequestErrorKind::MaxPayloadExceeded => {
                return Err(last.too_large(client));
            }
            Ok(Err(_)) | Err(_) => return Err(last.unconfirmed()),
        };
        match parse_answer::<Stored>(&answer.payload) {
            Ok(Ok(stored)) => Ok(stored),
            Ok(Err(refusal)) => Err(refusal.into()),
            Err(_) => Err(last.unconfirmed()),
        }
    }

    /// The stream that captures the subject.
    async fn capturing_stream(&self, jetstream: &JetStream, subject: &Subject) -> Result<StreamInfo, Failure> {
        let names = jetstream.streams_with_subject(subject.as_str()).await?;
        let not_captured = || Failure::NotCaptured { subject: subject.as_str().to_owned() };
        let Some(name) = names.first() else {
            return Err(match self.is_ready() {
                true => not_captured(),
                false => self.not_connected(),
            });
        };
        jetstream.stream_info(name).await?.ok_or_else(not_captured)
    }
}

/// Whether the stream takes the batch as a whole.
fn judge(stream: &StreamInfo, messages: &[Message]) -> Result<(), Failure> {
    let name = stream.name();
    if stream.config.get("allow_atomic").and_then(Value::as_bool) != Some(true) {
        let reason = format!("stream {name} takes no atomic batches: set allow_atomic on it");
        return Err(Failure::Invalid(reason));
    }
    if stream.config.get("no_ack") == Some(&Value::Bool(true))
        && let Some(message) = messages.first()
    {
        let (stream, subject) = (name.to_owned(), message.subject.to_string());
        return Err(Failure::NeverAcknowledged { stream, subject, was_sent: false });
    }
    let subjects = stream.config.get("subjects").and_then(Value::as_array);
    let captured: Vec<Subject> =
        subjects.into_iter().flatten().filter_map(Value::as_str).filter_map(|subject| subject.parse().ok()).collect();
    let is_foreign = |message: &&Message| !captured.iter().any(|filter| filter.covers(&message.subject));
    match messages.iter().find(is_foreign) {
        Some(message) => Err(Failure::Invalid(format!(
            "an atomic batch is for one stream, and {} is not captured by stream {name}",
            message.subject.as_str()
        ))),
        None => Ok(()),
    }
}

fn headers_of(
    message: &Message,
    publishing: Option<&Publishing>,
    (batch, number, is_last): (&str, usize, bool),
) -> HeaderMap {
    let trace = publishing.map(|publishing| publishing.header_of(message)).unwrap_or_default();
    let mut headers = message.all_headers(trace).unwrap_or_default();
    headers.insert(NATS_BATCH_ID, batch);
    headers.insert(NATS_BATCH_SEQUENCE, number.to_string());
    if is_last {
        headers.insert(NATS_BATCH_COMMIT, "1");
    }
    headers
}
