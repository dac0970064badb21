//! Messages of a consumer that somebody made, each to be settled by its client.

use std::time::Duration;

use async_nats::Subscriber;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};

use super::delivery::{Delivery, Place};
use super::record::Record;
use super::waiting::News;
use super::{Broker, Failure, Session};
use crate::nats::Denials;

const PATIENCE: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(4);
const EXPIRES: Duration = Duration::from_secs(30);
/// On its way at most.
const MOST_BYTES: u64 = 1 << 20;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    Ack,
    /// It is to come again, after so long.
    Nak(Option<Duration>),
    /// It is not to come again.
    Term,
    /// More time is needed.
    Progress,
}

/// One who takes messages of a consumer.
pub struct Work {
    broker: Broker,
    stream: String,
    consumer: String,
    pull: Option<Pull>,
    news: News,
}

/// What says as little as nothing in a configuration.
const EMPTY: [Value; 3] = [Value::Null, Value::String(String::new()), Value::Array(vec![])];

/// Where messages are asked for.
const NEXT: &str = "$JS.API.CONSUMER.MSG.NEXT.";

struct Pull {
    session: Session,
    messages: Subscriber,
    denials: Denials,
    heard: Instant,
    /// Asked for and not come.
    left: usize,
}

/// A message, and where it is settled.
#[derive(Debug)]
pub struct Piece {
    pub record: Record,
    pub reply: String,
}

impl Broker {
    /// Finds the consumer, and refuses one that it cannot be worked for.
    pub async fn work(&self, stream: &str, consumer: &str, deadline: Instant) -> Result<Work, Failure> {
        let info = self.consumer(stream, consumer, deadline).await?;
        let is_given = |field: &str| info.config.get(field).is_some_and(|given| !EMPTY.contains(given));
        if is_given("deliver_subject") {
            return Err(not_for_pulling(stream, consumer));
        }
        if is_given("priority_groups") {
            return Err(has_groups(stream, consumer));
        }
        let (stream, consumer, news) = (stream.to_owned(), consumer.to_owned(), News::of(self));
        Ok(Work { broker: self.clone(), stream, consumer, pull: None, news })
    }

    /// Settles a message, and hears that nats-server knows of it. More time is not answered.
    pub async fn settle(&self, reply: &str, how: Settlement, deadline: Instant) -> Result<(), Failure> {
        let payload = match how {
            Settlement::Ack => "+ACK".to_owned(),
            Settlement::Nak(None) => "-NAK".to_owned(),
            Settlement::Nak(Some(delay)) => format!("-NAK {{\"delay\":{}}}", delay.as_nanos()),
            Settlement::Term => "+TERM".to_owned(),
            Settlement::Progress => "+WPI".to_owned(),
        };
        loop {
            let session = self.data(deadline).await?;
            let late = || Failure::Late("the settlement of a message was not confirmed".into());
            let denials = session.listen()?;
            let request = session.client().request(reply.to_owned(), payload.clone().into());
            tokio::select! {
                answer = timeout_at(deadline, request) => match answer {
                    Ok(Ok(_)) => return Ok(()),
                    // Its consumer is not there yet, or the connection broke.
                    Ok(Err(error)) if !self.waits_for_another_attempt(deadline).await => {
                        return Err(Failure::NotReady(error.to_string()));
                    }
                    Ok(Err(_)) => {}
                    Err(_) => return Err(late()),
                },
                violation = denials.of(reply) => return Err(violation.into()),
                () = session.gone() => {}
            }
        }
    }
}

impl Work {
    /// The next message, of so many that are wanted. It waits for one for as long as it takes.
    pub async fn next(&mut self, wanted: usize) -> Result<Piece, Failure> {
        loop {
            if self.pull.as_ref().is_none_or(|pull| pull.left == 0) {
                self.news.catch_up();
                match self.begin(wanted).await {
                    Ok(pull) => self.pull = Some(pull),
                    Err(failure @ (Failure::NotLetIn | Failure::Denied(_))) => return Err(failure),
                    Err(failure) => {
                        tracing::debug!("cannot pull from {}/{} yet: {failure}", self.stream, self.consumer);
                        self.news.wait().await;
                        continue;
                    }
                }
            }
            let Some(pull) = &mut self.pull else { continue };
            let silence = SILENCE.saturating_sub(pull.heard.elapsed());
            let message = tokio::select! {
                message = timeout(silence, pull.messages.next()) => message.ok().flatten(),
                violation = pull.denials.next(|denied| denied.starts_with(NEXT)) => return Err(violation.into()),
                () = pull.session.gone() => None,
            };
            let Some(message) = message else {
                self.pull = None;
                continue;
            };
            pull.heard = Instant::now();
            let reply = message.reply.clone();
            match Delivery::of(message) {
                Delivery::Message(Place { sequence, time, .. }, message) => {
                    pull.left -= 1;
                    self.news.is_good();
                    let async_nats::Message { subject, payload, headers, .. } = message;
                    let record = Record { subject, payload, headers, sequence, time };
                    return Ok(Piece { record, reply: reply.map(|reply| reply.to_string()).unwrap_or_default() });
                }
                Delivery::Heartbeat => {}
                Delivery::Over { .. } => self.pull = None,
                Delivery::Ended(words) if words.contains("consumer deleted") => {
                    let (stream, consumer) = (self.stream.clone(), self.consumer.clone());
                    return Err(Failure::NoConsumer { stream, consumer });
                }
                Delivery::Ended(words) if words.contains("push based") => {
                    return Err(not_for_pulling(&self.stream, &self.consumer));
                }
                // Somebody has changed it since.
                Delivery::Ended(words) if words.contains("Priority Group") => {
                    return Err(has_groups(&self.stream, &self.consumer));
                }
                Delivery::Ended(_) => {
                    self.pull = None;
                    self.news.wait().await;
                }
            }
        }
    }

    /// Asks for so many; what an earlier request had asked for is not awaited any more.
    async fn begin(&self, wanted: usize) -> Result<Pull, Failure> {
        let session = self.broker.data(Instant::now() + PATIENCE).await?;
        let not_ready = |error: String| Failure::NotReady(error);
        let denials = session.listen()?;
        let inbox = session.client().new_inbox();
        let messages = session.client().subscribe(inbox.clone()).await;
        let messages = messages.map_err(|error| not_ready(error.to_string()))?;
        let request = json!({
            "batch": wanted.max(1),
            "max_bytes": MOST_BYTES.max(2 * session.client().max_payload() as u64),
            "expires": EXPIRES.as_nanos() as u64,
            "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
        });
        let subject = format!("{NEXT}{}.{}", self.stream, self.consumer);
        let published = session.client().publish_with_reply(subject, inbox, request.to_string().into()).await;
        published.map_err(|error| not_ready(error.to_string()))?;
        Ok(Pull { session, messages, denials, heard: Instant::now(), left: wanted.max(1) })
    }
}

fn not_for_pulling(stream: &str, consumer: &str) -> Failure {
    Failure::Invalid(format!("consumer {consumer} of {stream} sends its messages to a subject: nobody can pull them"))
}

/// Whoever asks such a consumer names a group, and may be pinned to it.
fn has_groups(stream: &str, consumer: &str) -> Failure {
    Failure::Invalid(format!(
        "consumer {consumer} of {stream} has priority groups, which are for its pull only: name one there with group="
    ))
}
