//! Streams that acknowledge nothing (`no_ack`): whoever waits for an answer of theirs waits in vain.
//!
//! To look at the stream before each publish would cost more than the publish. So a silence has it looked at,
//! and what was found is known beforehand the next time.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{Broker, Failure, Session};
use crate::domain::Subject;
use crate::nats::{JetStream, StreamInfo};

/// A stream that acknowledges does so sooner, on any but a slow disk.
pub(super) const QUIET: Duration = Duration::from_secs(1);
/// Time for a look at the stream.
const PATIENCE: Duration = Duration::from_secs(1);
/// Streams that are remembered.
const MOST: usize = 256;

/// Streams that were seen to acknowledge nothing, with what they capture. Clones know the same.
#[derive(Clone, Default)]
pub(super) struct SilentStreams(Arc<RwLock<Vec<Silent>>>);

#[derive(Clone)]
pub(super) struct Silent {
    stream: String,
    captures: Vec<Subject>,
}

impl Silent {
    fn of(info: &StreamInfo) -> Option<Self> {
        let captured = info.config.get("subjects").and_then(Value::as_array).into_iter().flatten();
        let captures = captured.filter_map(Value::as_str).filter_map(|subject| subject.parse().ok()).collect();
        let is_silent = info.config.get("no_ack") == Some(&Value::Bool(true));
        is_silent.then(|| Self { stream: info.name().to_owned(), captures })
    }

    pub fn captures(&self, subject: &Subject) -> bool {
        self.captures.iter().any(|filter| filter.covers(subject))
    }

    /// What becomes of a message to it.
    pub fn failure(&self, subject: &Subject, was_sent: bool) -> Failure {
        let (stream, subject) = (self.stream.clone(), subject.to_string());
        Failure::NeverAcknowledged { stream, subject, was_sent }
    }
}

impl SilentStreams {
    /// Takes in what a stream is like now.
    pub fn note(&self, info: &StreamInfo) {
        let silent = Silent::of(info);
        if silent.is_none() && self.read().iter().all(|known| known.stream != info.name()) {
            return;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| known.stream != info.name());
        if known.len() < MOST {
            known.extend(silent);
        }
    }

    fn forget(&self, stream: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|known| known.stream != stream);
    }

    fn of_subject(&self, subject: &Subject) -> Option<Silent> {
        self.read().iter().find(|known| known.captures(subject)).cloned()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Silent>> {
        // What is written is whole at each moment.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Refuses a message to a stream that is known to acknowledge nothing, before it is sent.
    pub(super) async fn require_acknowledgement(&self, session: &Session, subject: &Subject) -> Result<(), Failure> {
        let Some(known) = self.0.silent.of_subject(subject) else { return Ok(()) };
        // It may have been changed since.
        let jetstream = session.jetstream(PATIENCE);
        match timeout(PATIENCE, Box::pin(jetstream.stream_info(&known.stream))).await {
            Ok(Ok(Some(info))) => self.0.silent.note(&info),
            Ok(Ok(None)) => self.0.silent.forget(&known.stream),
            Ok(Err(_)) | Err(_) => return Ok(()),
        }
        match self.0.silent.of_subject(subject) {
            Some(silent) => Err(silent.failure(subject, false)),
            None => Ok(()),
        }
    }

    /// Ends where the message, of which nothing has been heard for a while, went to a stream that acknowledges
    /// nothing.
    pub(super) async fn finds_silence(&self, session: &Session, subject: &Subject) -> Failure {
        sleep(QUIET).await;
        match Box::pin(self.silent_stream(session, subject, Instant::now() + PATIENCE)).await {
            Some(silent) => silent.failure(subject, true),
            None => std::future::pending().await,
        }
    }

    /// The stream that captures the subject, where it acknowledges nothing.
    pub(super) async fn silent_stream(
        &self,
        session: &Session,
        subject: &Subject,
        deadline: Instant,
    ) -> Option<Silent> {
        let patience = PATIENCE.min(deadline.saturating_duration_since(Instant::now()));
        let looked = timeout(patience, looked_at(session.jetstream(patience), subject)).await;
        let info = looked.ok().flatten()?;
        self.0.silent.note(&info);
        Silent::of(&info)
    }
}

async fn looked_at(jetstream: JetStream, subject: &Subject) -> Option<StreamInfo> {
    let names = jetstream.streams_with_subject(subject.as_str()).await.ok()?;
    jetstream.stream_info(names.first()?).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn info(name: &str, no_ack: Value) -> StreamInfo {
        let config = json!({ "name": name, "subjects": [format!("{name}.>")], "no_ack": no_ack });
        serde_json::from_value(json!({ "config": config, "state": {} })).unwrap()
    }

    #[test]
    fn a_stream_is_known_until_it_acknowledges() {
        let (known, subject) = (SilentStreams::default(), "a.b".parse().unwrap());
        for acknowledges in [json!(false), json!(null)] {
            known.note(&info("a", json!(true)));
            known.note(&info("a", json!(true)));
            known.note(&info("b", json!(true)));
            assert_eq!(known.of_subject(&subject).map(|silent| silent.stream), Some("a".to_owned()));
            assert_eq!(known.read().len(), 2);
            known.note(&info("a", acknowledges));
            assert!(known.of_subject(&subject).is_none());
        }
        known.forget("b");
        assert!(known.read().is_empty());
        for number in 0..2 * MOST {
            known.note(&info(&number.to_string(), json!(true)));
        }
        assert_eq!(known.read().len(), MOST);
    }
}
