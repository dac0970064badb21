//! A consumer that reads for us: it needs no acknowledgements, is asked for messages in pulls, so that what
//! is on its way is bounded, and goes by itself when nobody asks.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::Session;
use super::delivery::{Delivery, Place};
use super::point::Nanos;
use super::record::Record;
use crate::nats::{ApiError, Denials, JetStream, Violation};

/// Time for one request to the server.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the server says that there is nothing, and when its silence means that it sends no more.
const HEARTBEAT: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(4);
/// How long one pull waits for messages.
const EXPIRES: Duration = Duration::from_secs(30);
/// A consumer that nobody asks goes by itself.
const INACTIVE: Duration = Duration::from_secs(30);

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    At(u64),
    Since(Nanos),
    /// With the last message of each subject, then everything after those.
    LastOfEach,
}

/// How much may be on its way.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    pub messages: u64,
    pub bytes: u64,
}

/// A consumer, for as long as it lasts.
pub struct Consumer {
    pub session: Session,
    stream: Arc<str>,
    pub name: String,
    inbox: String,
    messages: Subscriber,
    /// Where it is asked for messages.
    next: String,
    denials: Denials,
    /// What has been asked for and has not come.
    asked: Most,
    /// How many it has sent.
    pub delivered: u64,
    /// How many of the last messages of each subject are still to come.
    pub lasts: u64,
    /// Where the stream ended before that was counted: after those nothing up to there comes.
    pub end_of_lasts: u64,
    /// There was more behind the last message.
    pub is_behind: bool,
    heard: Instant,
    pub inspected: Instant,
}

/// Why a consumer is of no use any more.
pub enum Broken {
    Lost(String),
    /// The user may not ask it for messages.
    Denied(Violation),
}

impl Consumer {
    pub async fn create(
        session: Session,
        jetstream: &JetStream,
        (purpose, (stream, filter)): (&str, (Arc<str>, &str)),
        start: Start,
    ) -> Result<Self, ApiError> {
        let name = format!("unified-nats-{}-{:012x}", purpose, fastrand::u64(..) >> 16);
        let mut config = json!({
            "name": name,
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subject": filter,
            "mem_storage": true,
            "num_replicas": 1,
            "inactive_threshold": INACTIVE.as_nanos() as u64,
        });
        match start {
            Start::At(sequence) => {
                config["deliver_policy"] = "by_start_sequence".into();
                config["opt_start_seq"] = sequence.into();
            }
            Start::Since(time) => {
                config["deliver_policy"] = "by_start_time".into();
                config["opt_start_time"] = time.to_string().into();
            }
            Start::LastOfEach => config["deliver_policy"] = "last_per_subject".into(),
        }
        let transport = |reason: String| ApiError::Transport { subject: "a subscription".into(), reason };
        let denials = session.listen().map_err(ApiError::Denied)?;
        let inbox = session.client().new_inbox();
        let subscribed = session.client().subscribe(inbox.clone()).await;
        let messages = subscribed.map_err(|error| transport(error.to_string()))?;
        let pending = jetstream.consume(&stream, &name, filter, config).await?;
        let now = Instant::now();
        let consumer = Self {
            session,
            next: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
            stream,
            name,
            inbox,
            messages,
            denials,
            asked: Most { messages: 0, bytes: 0 },
            delivered: 0,
            lasts: if start == Start::LastOfEach { pending } else { 0 },
            end_of_lasts: 0,
            is_behind: pending > 0,
            heard: now,
            inspected: now,
        };
        jetstream.may_pull(&consumer.next).await?;
        Ok(consumer)
    }

    /// Waits for a message and takes with it what has come already. Nothing where the server says that
    /// there is nothing.
    pub async fn receive(&mut self, most: Most) -> Result<Vec<(Place, Record)>, Broken> {
        let mut came = vec![];
        let mut bytes = 0;
        loop {
            self.ask(most).await?;
            let message = match self.messages.next().now_or_never() {
                Some(message) => message,
                None if !came.is_empty() => return Ok(came),
                None => {
                    let silence = SILENCE.saturating_sub(self.heard.elapsed());
                    tokio::select! {
                        message = timeout(silence, self.messages.next()) => match message {
                            Ok(message) => message,
                            Err(_) => return Err(Broken::Lost("the server is silent".into())),
                        },
                        violation = self.denials.next(|denied| denied == self.next) => {
                            return Err(Broken::Denied(violation));
                        }
                        () = self.session.gone() => return Err(Broken::Lost("the connection has gone".into())),
                    }
                }
            };
            let Some(message) = message else { return Err(Broken::Lost("the subscription has ended".into())) };
            // The clock is read once for all that has come at once: a replay has many.
            if came.is_empty() {
                self.heard = Instant::now();
            }
            match Delivery::of(message) {
                Delivery::Message(place, message) => {
                    if place.delivered != self.delivered + 1 {
                        return match came.is_empty() {
                            true => Err(Broken::Lost("messages were lost on their way".into())),
                            // The next call finds the same.
                            false => {
                                self.delivered = u64::MAX - 1;
                                Ok(came)
                            }
                        };
                    }
                    self.delivered = place.delivered;
                    self.asked.messages = self.asked.messages.saturating_sub(1);
                    self.asked.bytes = self.asked.bytes.saturating_sub(message.length as u64);
                    bytes += message.length as u64;
                    let async_nats::Message { subject, payload, headers, .. } = message;
                    let (sequence, time) = (place.sequence, place.time);
                    came.push((place, Record { subject, payload, headers, sequence, time }));
                    if came.len() as u64 >= most.messages || bytes >= most.bytes {
                        return Ok(came);
                    }
                }
                Delivery::Heartbeat if came.is_empty() => return Ok(came),
                Delivery::Heartbeat => {}
                Delivery::Over { messages, bytes } => {
                    self.asked.messages = self.asked.messages.saturating_sub(messages);
                    self.asked.bytes = self.asked.bytes.saturating_sub(bytes);
                }
                Delivery::Ended(words) if came.is_empty() => return Err(Broken::Lost(words)),
                Delivery::Ended(_) => {
                    self.delivered = u64::MAX - 1;
                    return Ok(came);
                }
            }
        }
    }

    /// Asks for more before what was asked for has all come.
    async fn ask(&mut self, most: Most) -> Result<(), Broken> {
        // A message must fit in any case.
        let bytes = most.bytes.max(2 * self.session.client().max_payload() as u64);
        if self.asked.messages > most.messages / 2 && self.asked.bytes > bytes / 2 {
            return Ok(());
        }
        let more = Most {
            messages: most.messages.saturating_sub(self.asked.messages).max(1),
            bytes: bytes.saturating_sub(self.asked.bytes).max(bytes / 2),
        };
        let request = json!({
            "batch": more.messages,
            "max_bytes": more.bytes,
            "expires": EXPIRES.as_nanos() as u64,
            "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
        });
        self.asked = Most { messages: self.asked.messages + more.messages, bytes: self.asked.bytes + more.bytes };
        let (next, inbox) = (self.next.clone(), self.inbox.clone());
        let publish = self.session.client().publish_with_reply(next, inbox, request.to_string().into());
        tokio::select! {
            published = publish => published.map_err(|error| Broken::Lost(error.to_string())),
            () = self.session.gone() => Err(Broken::Lost("the connection has gone".into())),
        }
    }
}

impl Drop for Consumer {
    /// It would go by itself, but only later.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.session.is_gone() {
            return;
        }
        let subject = format!("$JS.API.CONSUMER.DELETE.{}.{}", self.stream, self.name);
        let client: Client = self.session.client().clone();
        runtime.spawn(async move {
            let _ = timeout(PATIENCE, client.request(subject, "".into())).await;
        });
    }
}
