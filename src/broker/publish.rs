//! Storing messages. What is answered as stored was acknowledged by JetStream; what is answered as not
//! stored was not, and everything else is said to be unknown.

use async_nats::client::Request;
use async_nats::{Client, HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::memory::{Earlier, Memory, TIME_TO_LIVE};
use super::publishing::{Publishing, TraceHeader};
use super::{Broker, Failure, Session};
use crate::domain::Subject;
use crate::nats::{ApiError, major_minor, parse_answer};

/// A message to be stored.
#[derive(Clone, Debug)]
pub struct Message {
    pub subject: Subject,
    pub payload: Bytes,
    /// What the client gave, the message id and expectations not among them.
    pub headers: HeaderMap,
    /// With the same id within the stream's duplicate window it is stored once.
    pub msg_id: Option<String>,
    pub expects: Expectations,
}

/// What must hold of the stream for the message to be stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectations {
    pub stream: Option<String>,
    pub last_sequence: Option<u64>,
    pub last_sequence_of_subject: Option<u64>,
    /// The subject that is meant, where it is not that of the message; wildcards stand for many. For
    /// nats-server [`SUBJECT_SINCE`] and later: older ones store the message whatever is expected.
    pub other_subject: Option<Box<Subject>>,
    pub last_msg_id: Option<String>,
}

/// What JetStream acknowledged.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Stored {
    pub stream: String,
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// A message of the same id had been stored before; this one was not.
    #[serde(default)]
    pub duplicate: bool,
}

/// Whether there is a stream for a subject.
pub(super) enum Captured {
    Somewhere,
    Nowhere,
    /// The server cannot say just now.
    Unknown(Failure),
}

/// What became of one attempt.
enum Attempt {
    Done(Result<Stored, Failure>),
    /// Nothing was stored, and another attempt may be.
    NotTaken(Failure),
    /// It may have been stored.
    Unknown,
}

/// Names the subject whose last sequence is expected.
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
/// The first version that heeds it (measured on 2.10 to 2.15).
pub const SUBJECT_SINCE: (u32, u32) = (2, 11);
/// The first version that heeds [`TIME_TO_LIVE`]: older ones keep the message for ever (measured on 2.10 to 2.15).
const TIME_TO_LIVE_SINCE: (u32, u32) = (2, 11);

impl Message {
    /// With its message id and expectations, as nats-server reads them, and the trace that it belongs to.
    pub(super) fn all_headers(&self, trace: TraceHeader<'_>) -> Option<HeaderMap> {
        use async_nats::header::{
            NATS_EXPECTED_LAST_MESSAGE_ID, NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            NATS_EXPECTED_STREAM, NATS_MESSAGE_ID,
        };
        let Expectations { stream, last_sequence, last_sequence_of_subject, other_subject, last_msg_id } =
            &self.expects;
        let more = [
            (NATS_MESSAGE_ID, self.msg_id.clone()),
            (NATS_EXPECTED_STREAM, stream.clone()),
            (NATS_EXPECTED_LAST_SEQUENCE, last_sequence.map(|sequence| sequence.to_string())),
            (NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last_sequence_of_subject.map(|sequence| sequence.to_string())),
            (NATS_EXPECTED_LAST_MESSAGE_ID, last_msg_id.clone()),
        ];
        if self.headers.is_empty() && !trace.is_there() && more.iter().all(|(_, value)| value.is_none()) {
            return None;
        }
        let mut headers = self.headers.clone();
        for (name, value) in more {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        if let Some(subject) = other_subject {
            headers.insert(EXPECTED_SUBJECT, subject.as_str());
        }
        trace.put(&mut headers);
        Some(headers)
    }

    /// Whether the server heeds what the message says of itself, as it is meant.
    pub(super) fn is_understood(&self, session: &Session) -> Result<(), Failure> {
        let said = [
            (EXPECTED_SUBJECT, SUBJECT_SINCE, self.expects.other_subject.is_some()),
            (TIME_TO_LIVE, TIME_TO_LIVE_SINCE, !self.headers.is_empty() && self.headers.get(TIME_TO_LIVE).is_some()),
        ];
        if said.iter().all(|(_, _, is_said)| !is_said) {
            return Ok(());
        }
        let version = &session.client().server_info().version;
        match said.into_iter().find(|(_, since, is_said)| *is_said && major_minor(version) < *since) {
            None => Ok(()),
            Some((name, (major, minor), _)) => {
                let reason = format!("{name} needs nats-server {major}.{minor} or later, and this one is {version}");
                Err(Failure::Invalid(reason))
            }
        }
    }
}

impl Broker {
    /// Stores a message, and answers once JetStream has acknowledged it.
    ///
    /// While no server is there it waits for one until the deadline. A message with an id is sent again
    /// where nothing was heard of it, while the stream is sure to recognise it; one without is not, because
    /// it could then be stored twice.
    pub async fn publish(&self, message: &Message, deadline: Instant) -> Result<Stored, Failure> {
        let Some(publishing) = Publishing::one(message) else {
            return self.publish_again(message, TraceHeader::default(), None, deadline).await;
        };
        let outcome = self.publish_again(message, publishing.header(), None, deadline).await;
        publishing.end(1, &outcome);
        outcome
    }

    /// The same as a part of something that has a span, and for a message that was sent before and of which
    /// nothing was heard.
    pub(super) async fn publish_again(
        &self,
        message: &Message,
        trace: TraceHeader<'_>,
        mut earlier: Option<Earlier>,
        deadline: Instant,
    ) -> Result<Stored, Failure> {
        let headers = message.all_headers(trace);
        loop {
            let session = match self.data(deadline).await {
                Ok(session) => session,
                Err(_) if earlier.is_some() => return Err(message.unconfirmed()),
                Err(failure) => return Err(failure),
            };
            message.is_understood(&session)?;
            if earlier.is_none() {
                self.require_acknowledgement(&session, &message.subject).await?;
            }
            if let Some(earlier) = &earlier {
                // On the heap like all that few publishes come to: a thousand that wait shall be small.
                match Box::pin(self.memory(&session, message, earlier, deadline)).await {
                    Memory::Lasts => {}
                    Memory::Unknown if self.waits_for_another_attempt(deadline).await => continue,
                    Memory::Unknown | Memory::MayBeGone => return Err(message.unconfirmed()),
                }
            }
            let began = Instant::now();
            match self.attempt(&session, message, headers.clone(), deadline).await {
                // What it says is about this attempt. Only where JetStream says it the earlier one is known
                // not to have been stored: it would have been recognised.
                Attempt::Done(Err(failure))
                    if earlier.is_some()
                        && !matches!(failure, Failure::Refused(_) | Failure::NeverAcknowledged { .. }) =>
                {
                    return Err(message.unconfirmed());
                }
                Attempt::Done(outcome) => return outcome,
                Attempt::Unknown if message.msg_id.is_none() => return Err(message.unconfirmed()),
                Attempt::Unknown => {
                    let is_gone = session.is_gone();
                    earlier.get_or_insert(Earlier { began, session });
                    // Where the connection is gone the next one is what is waited for.
                    if !is_gone && !self.waits_for_another_attempt(deadline).await {
                        return Err(message.unconfirmed());
                    }
                }
                Attempt::NotTaken(failure) => {
                    if !self.waits_for_another_attempt(deadline).await {
                        return Err(if earlier.is_some() { message.unconfirmed() } else { failure });
                    }
                }
            }
        }
    }

    async fn attempt(
        &self,
        session: &Session,
        message: &Message,
        headers: Option<HeaderMap>,
        deadline: Instant,
    ) -> Attempt {
        use async_nats::RequestErrorKind::{InvalidSubject, MaxPayloadExceeded, NoResponders};
        let mut request = Request::new().payload(message.payload.clone()).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let subject = message.subject.as_str();
        let denials = match session.listen() {
            Ok(denials) => denials,
            // It would be stored, and nobody could know.
            Err(violation) => return Attempt::Done(Err(violation.into())),
        };
        let answer = tokio::select! {
            answer = timeout_at(deadline, session.client().send_request(subject.to_owned(), request)) => answer,
            violation = denials.of(subject) => return Attempt::Done(Err(violation.into())),
            silence = self.finds_silence(session, &message.subject) => return Attempt::Done(Err(silence)),
            () = session.gone() => return Attempt::Unknown,
        };
        match answer {
            Ok(Ok(answer)) => match parse_answer::<Stored>(&answer.payload) {
                Ok(Ok(stored)) => Attempt::Done(Ok(stored)),
                Ok(Err(refusal)) if refusal.is_transient() => Attempt::NotTaken(refusal.into()),
                Ok(Err(refusal)) => Attempt::Done(Err(refusal.into())),
                // Somebody else answers on that subject. Where a stream captures it, too, its acknowledgement
                // comes when nobody listens any more.
                Err(_) => match Box::pin(self.not_captured(session, message, deadline)).await {
                    Attempt::Done(outcome) => Attempt::Done(outcome),
                    Attempt::NotTaken(_) | Attempt::Unknown => Attempt::Unknown,
                },
            },
            Ok(Err(error)) => match error.kind() {
                NoResponders => Box::pin(self.not_captured(session, message, deadline)).await,
                MaxPayloadExceeded => Attempt::Done(Err(message.too_large(session.client()))),
                InvalidSubject => Attempt::Done(Err(Failure::Invalid(error.to_string()))),
                _ => Attempt::Unknown,
            },
            Err(_) => Attempt::Unknown,
        }
    }

    /// Nobody took the message. Only a server that is ready and has no stream for the subject means that;
    /// one that is just starting answers like that, too.
    async fn not_captured(&self, session: &Session, message: &Message, deadline: Instant) -> Attempt {
        match self.captures(session, &message.subject, deadline).await {
            Captured::Nowhere => {
                Attempt::Done(Err(Failure::NotCaptured { subject: message.subject.as_str().to_owned() }))
            }
            Captured::Somewhere => {
                let reason = format!("nobody takes messages to {} just now", message.subject);
                Attempt::NotTaken(Failure::NotReady(reason))
            }
            Captured::Unknown(failure) => Attempt::NotTaken(failure),
        }
    }

    /// Whether there is a stream for the subject.
    pub(super) async fn captures(&self, session: &Session, subject: &Subject, deadline: Instant) -> Captured {
        let jetstream = session.jetstream(deadline.saturating_duration_since(Instant::now()));
        let streams = tokio::select! {
            streams = jetstream.streams_with_subject(subject.as_str()) => streams,
            () = session.gone() => return Captured::Unknown(self.not_connected()),
        };
        let is_ready = self.is_ready();
        match streams {
            Ok(streams) if !streams.is_empty() => Captured::Somewhere,
            // Who may not ask hears what the silence means on a server that is ready.
            Ok(_) | Err(ApiError::Denied(_)) if is_ready => Captured::Nowhere,
            Ok(_) | Err(ApiError::Denied(_)) => {
                let reason = format!("nobody takes messages to {subject} just now");
                Captured::Unknown(Failure::NotReady(reason))
            }
            Err(error) => Captured::Unknown(error.into()),
        }
    }
}

impl Message {
    /// nats-server takes no messages of its size.
    pub(super) fn too_large(&self, client: &Client) -> Failure {
        /// `NATS/1.0`, and the empty line at the end.
        const FRAME: usize = 12;
        let line = |name: &HeaderName, value: &HeaderValue| AsRef::<str>::as_ref(name).len() + value.as_str().len() + 4;
        let headers = self.all_headers(TraceHeader::default()).map_or(0, |headers| {
            let lines = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| line(name, value)));
            lines.sum::<usize>() + FRAME
        });
        Failure::TooLarge { size: self.payload.len() + headers, most: client.max_payload() }
    }

    pub(super) fn unconfirmed(&self) -> Failure {
        Failure::Unconfirmed { subject: self.subject.as_str().to_owned(), msg_id: self.msg_id.clone() }
    }
}
