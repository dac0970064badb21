//! Reads a stream on from a position, in order: without a hole that is not reported, without a message
//! twice, over every restart of the server.
//!
//! A consumer of its own, that needs no acknowledgements, is asked for messages in pulls, so that what is
//! on its way is bounded. Whatever happens to it, another one begins behind the last message.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::delivery::{Delivery, Place};
use super::point::Nanos;
use super::record::Record;
use super::{Broker, Failure, Session};
use crate::nats::{ApiError, JetStream, StreamInfo};

/// Time for one request to the server, and for a connection to it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the server says that there is nothing, and when its silence means that it sends no more.
const HEARTBEAT: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(4);
/// How long one pull waits for messages.
const EXPIRES: Duration = Duration::from_secs(30);
/// How long a stream may be away, or shorter than it was, before that is believed: a server that has just
/// started, or just become the leader, may know less than there is.
const DOUBT: Duration = Duration::from_secs(10);
/// A consumer that nobody asks goes by itself.
const INACTIVE: Duration = Duration::from_secs(30);
/// Between two inspections of a consumer that has nothing to send.
const INSPECTION: Duration = Duration::from_secs(30);

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    At(u64),
    Since(Nanos),
    /// With the last message of each subject, then everything after those.
    LastOfEach,
}

/// Messages that cannot be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub from: u64,
    /// The last of them; [`None`] where nobody knows any more.
    pub to: Option<u64>,
    pub reason: GapReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// By a limit, a purge or a deletion, before they were delivered.
    Removed,
    /// The stream was deleted and made anew.
    StreamRecreated,
    /// The end of the stream is earlier than it was.
    EndLost,
    /// The reader takes them more slowly than they come.
    TooSlow,
}

impl GapReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::StreamRecreated => "stream_recreated",
            Self::EndLost => "end_lost",
            Self::TooSlow => "reader_too_slow",
        }
    }
}

#[derive(Debug)]
pub enum Item {
    Message(Record),
    Gap(Gap),
}

/// What has come since the last.
#[derive(Debug, Default)]
pub struct Batch {
    /// When the stream of these items was made.
    pub created: i64,
    pub items: Vec<Item>,
    /// There was nothing behind them.
    pub is_caught_up: bool,
}

/// How much may be on its way.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    pub messages: u64,
    pub bytes: u64,
}

pub struct Feed {
    broker: Broker,
    /// What its consumers are called.
    purpose: &'static str,
    stream: Arc<str>,
    filter: Arc<str>,
    most: Most,
    start: Start,
    /// When the stream that is read was made; [`None`] until it is known.
    created: Option<i64>,
    /// Everything up to there has been delivered.
    scanned: u64,
    consumer: Option<Consumer>,
    /// Since when something is so that it may be transient.
    doubted: Option<Instant>,
}

/// A consumer, for as long as it lasts.
struct Consumer {
    session: Session,
    stream: Arc<str>,
    name: String,
    inbox: String,
    messages: Subscriber,
    /// What has been asked for and has not come.
    asked: Most,
    /// How many it has sent.
    delivered: u64,
    /// How many of the last messages of each subject are still to come.
    lasts: u64,
    /// Where the stream ended before that was counted: after those nothing up to there comes.
    end_of_lasts: u64,
    /// There was more behind the last message.
    is_behind: bool,
    heard: Instant,
    inspected: Instant,
}

/// Why a consumer is of no use any more.
enum Broken {
    Lost(String),
}

/// What comes of an attempt to begin.
enum Attempt {
    Begun(Vec<Item>),
    Later(String),
    Never(Failure),
}

impl Feed {
    pub fn new(
        broker: Broker,
        purpose: &'static str,
        (stream, filter): (Arc<str>, Arc<str>),
        (start, created): (Start, Option<i64>),
        most: Most,
    ) -> Self {
        let scanned = match start {
            Start::At(sequence) => sequence.saturating_sub(1),
            Start::Since(_) | Start::LastOfEach => 0,
        };
        Self { broker, purpose, stream, filter, most, start, created, scanned, consumer: None, doubted: None }
    }

    /// Everything up to there has been delivered.
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// There is more to come of the last messages of each subject.
    pub fn is_among_lasts(&self) -> bool {
        self.consumer.as_ref().is_some_and(|consumer| consumer.lasts > 0)
    }

    /// What has come next, as soon as something has, or once as soon as there is nothing behind what came.
    ///
    /// It waits for a server for as long as it takes. An error is final.
    pub async fn next(&mut self) -> Result<Batch, Failure> {
        loop {
            let Some(consumer) = &mut self.consumer else {
                match self.begin().await {
                    Attempt::Begun(items) => {
                        let is_caught_up = self.consumer.as_ref().is_some_and(|consumer| !consumer.is_behind);
                        if !items.is_empty() || is_caught_up {
                            return Ok(Batch { created: self.created.unwrap_or_default(), items, is_caught_up });
                        }
                    }
                    Attempt::Later(reason) => {
                        tracing::debug!("cannot read {} of {} yet: {reason}", self.filter, self.stream);
                        sleep(PAUSE).await;
                    }
                    Attempt::Never(failure) => return Err(failure),
                }
                continue;
            };
            let was_behind = consumer.is_behind;
            let came = consumer.receive(self.most).await;
            match self.take(came, was_behind).await {
                Ok(Some(batch)) => return Ok(batch),
                Ok(None) => {}
                Err(Broken::Lost(reason)) => {
                    tracing::debug!("another consumer follows for {} of {}: {reason}", self.filter, self.stream);
                    self.consumer = None;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// A consumer behind the last message.
    async fn begin(&mut self) -> Attempt {
        let session = match self.broker.data(Instant::now() + PATIENCE).await {
            Ok(session) => session,
            Err(failure) => return Attempt::Later(failure.to_string()),
        };
        let jetstream = session.jetstream(PATIENCE);
        let begin = self.begin_over(session.clone(), jetstream);
        tokio::select! {
            attempt = begin => attempt,
            () = session.gone() => Attempt::Later("the connection has gone".into()),
        }
    }

    async fn begin_over(&mut self, session: Session, jetstream: JetStream) -> Attempt {
        let info = match jetstream.stream_info(&self.stream).await {
            Ok(Some(info)) => info,
            Ok(None) => return self.doubt(Failure::NoStream(self.stream.to_string())),
            Err(error) => return self.refused(error),
        };
        let Some(created) = created(&info) else {
            return Attempt::Later("the stream does not say when it was made".into());
        };
        let (first, last) = (info.state.first_seq.max(1), info.state.last_seq);
        let mut items = vec![];
        let before = self.created;
        let mut start = self.start;
        if before.is_some_and(|before| before != created) {
            let gap = Gap { from: self.scanned + 1, to: None, reason: GapReason::StreamRecreated };
            items.push(Item::Gap(gap));
            start = Start::At(first);
        } else if let Start::At(sequence) = start {
            if sequence > last.saturating_add(1) {
                if !self.is_doubted_long() {
                    return Attempt::Later("the stream ends earlier than it did".into());
                }
                let gap = Gap { from: last + 1, to: Some(sequence - 1), reason: GapReason::EndLost };
                items.push(Item::Gap(gap));
                start = Start::At(last + 1);
            } else if sequence < first {
                let gap = Gap { from: sequence, to: Some(first - 1), reason: GapReason::Removed };
                items.push(Item::Gap(gap));
                start = Start::At(first);
            }
        }
        let mut consumer = match self.create(session, &jetstream, start).await {
            Ok(consumer) => consumer,
            Err(error) => return self.refused(error),
        };
        consumer.end_of_lasts = last;
        // It may have been made anew in between; then the next attempt finds that out.
        let again = match jetstream.stream_info(&self.stream).await {
            Ok(again) => again.as_ref().and_then(self::created),
            Err(error) => return self.refused(error),
        };
        if again != Some(created) {
            return Attempt::Later("the stream was made anew just now".into());
        }
        (self.start, self.created) = (start, Some(created));
        if let Start::At(sequence) = start {
            self.scanned = sequence - 1;
        }
        if !consumer.is_behind {
            self.advance(last);
        }
        self.doubted = None;
        self.consumer = Some(consumer);
        Attempt::Begun(items)
    }

    async fn create(&self, session: Session, jetstream: &JetStream, start: Start) -> Result<Consumer, ApiError> {
        let name = format!("unified-nats-{}-{:012x}", self.purpose, fastrand::u64(..) >> 16);
        let mut config = json!({
            "name": name,
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subject": *self.filter,
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
        let inbox = session.client().new_inbox();
        let subscribed = session.client().subscribe(inbox.clone()).await;
        let messages = subscribed.map_err(|error| transport(error.to_string()))?;
        let pending = jetstream.consume(&self.stream, &name, &self.filter, config).await?;
        let now = Instant::now();
        Ok(Consumer {
            session,
            stream: self.stream.clone(),
            name,
            inbox,
            messages,
            asked: Most { messages: 0, bytes: 0 },
            delivered: 0,
            lasts: if start == Start::LastOfEach { pending } else { 0 },
            end_of_lasts: 0,
            is_behind: pending > 0,
            heard: now,
            inspected: now,
        })
    }

    /// What the server refuses now may be what it does not know yet.
    fn refused(&mut self, error: ApiError) -> Attempt {
        let is_known = self.created.is_some() && self.doubted.is_none_or(|since| since.elapsed() < DOUBT);
        match error {
            error if error.is_transient() => Attempt::Later(error.to_string()),
            error if error.is(ApiError::STREAM_NOT_FOUND) => self.doubt(Failure::NoStream(self.stream.to_string())),
            error if is_known => {
                self.doubted.get_or_insert_with(Instant::now);
                Attempt::Later(error.to_string())
            }
            error => Attempt::Never(error.into()),
        }
    }

    fn doubt(&mut self, failure: Failure) -> Attempt {
        match self.is_doubted_long() {
            true => Attempt::Never(failure),
            false => Attempt::Later(failure.to_string()),
        }
    }

    /// A server that is not ready is not believed at all.
    fn is_doubted_long(&mut self) -> bool {
        if !self.broker.status.borrow().is_ready {
            self.doubted = None;
            return false;
        }
        self.doubted.get_or_insert_with(Instant::now).elapsed() >= DOUBT
    }

    fn advance(&mut self, to: u64) {
        self.scanned = self.scanned.max(to);
        self.start = Start::At(self.scanned + 1);
    }

    /// Makes a batch of what came. Where messages were skipped while more were waiting, it asks whether
    /// they are gone.
    async fn take(
        &mut self,
        came: Result<Vec<(Place, Record)>, Broken>,
        was_behind: bool,
    ) -> Result<Option<Batch>, Broken> {
        let came = came?;
        let created = self.created.unwrap_or_default();
        if came.is_empty() {
            return self.inspect(created).await;
        }
        let mut items = Vec::with_capacity(came.len());
        // Places among the items where messages may be missing.
        let mut suspects = vec![];
        let mut is_behind = was_behind;
        for (place, record) in came {
            let Some(consumer) = &mut self.consumer else { break };
            let is_last_of_its_subject = consumer.lasts > 0;
            consumer.lasts = if place.pending == 0 { 0 } else { consumer.lasts.saturating_sub(1) };
            let ends_lasts = (is_last_of_its_subject && consumer.lasts == 0).then_some(consumer.end_of_lasts);
            let is_exact = matches!(self.start, Start::At(_)) && !is_last_of_its_subject;
            if place.sequence <= self.scanned && is_exact {
                return Err(Broken::Lost(format!("message {} came again", place.sequence)));
            }
            if is_exact && is_behind && place.sequence > self.scanned + 1 {
                suspects.push((items.len(), self.scanned + 1, place.sequence - 1));
            }
            is_behind = place.pending > 0;
            self.advance(place.sequence.max(ends_lasts.unwrap_or_default()));
            items.push(Item::Message(record));
        }
        if let Some(consumer) = &mut self.consumer {
            consumer.is_behind = is_behind;
        }
        if !suspects.is_empty() {
            let first = self.first_sequence().await?;
            for (at, from, to) in suspects.into_iter().rev().filter(|(_, from, _)| *from < first) {
                let to = Some(to.min(first - 1));
                items.insert(at, Item::Gap(Gap { from, to, reason: GapReason::Removed }));
            }
        }
        Ok(Some(Batch { created, items, is_caught_up: !is_behind }))
    }

    async fn first_sequence(&mut self) -> Result<u64, Broken> {
        self.info().await.map(|info| info.state.first_seq)
    }

    async fn info(&self) -> Result<StreamInfo, Broken> {
        let info = self.jetstream()?.stream_info(&self.stream).await;
        let info = info.map_err(|error| Broken::Lost(error.to_string()))?;
        match info {
            Some(info) if created(&info) == self.created => Ok(info),
            _ => Err(Broken::Lost("the stream is another one".into())),
        }
    }

    fn jetstream(&self) -> Result<JetStream, Broken> {
        match &self.consumer {
            Some(consumer) => Ok(consumer.session.jetstream(PATIENCE)),
            None => Err(Broken::Lost("there is no consumer".into())),
        }
    }

    /// Nothing comes though there was more, or nothing has come for long: is that so, and how far does it
    /// reach?
    async fn inspect(&mut self, created: i64) -> Result<Option<Batch>, Broken> {
        let Some(consumer) = &mut self.consumer else { return Ok(None) };
        if !consumer.is_behind && consumer.inspected.elapsed() < INSPECTION {
            return Ok(None);
        }
        consumer.inspected = Instant::now();
        let (was_behind, name, received) = (consumer.is_behind, consumer.name.clone(), consumer.delivered);
        let info = self.info().await?;
        let progress = self.jetstream()?.consumer_progress(&self.stream, &name).await;
        let (delivered, pending) = progress.map_err(|error| Broken::Lost(error.to_string()))?;
        if delivered != received || pending > 0 {
            return Ok(None);
        }
        let (first, last) = (info.state.first_seq, info.state.last_seq);
        let mut items = vec![];
        if was_behind && matches!(self.start, Start::At(_)) && first > self.scanned + 1 {
            let gap = Gap { from: self.scanned + 1, to: Some(first - 1), reason: GapReason::Removed };
            items.push(Item::Gap(gap));
        }
        // The stream was asked first, so that up to its end of then nothing is left.
        self.advance(last);
        if let Some(consumer) = &mut self.consumer {
            consumer.is_behind = false;
            consumer.lasts = 0;
        }
        Ok(was_behind.then_some(Batch { created, items, is_caught_up: true }))
    }
}

impl Consumer {
    /// Waits for a message and takes with it what has come already. Nothing where the server says that
    /// there is nothing.
    async fn receive(&mut self, most: Most) -> Result<Vec<(Place, Record)>, Broken> {
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
                        () = self.session.gone() => return Err(Broken::Lost("the connection has gone".into())),
                    }
                }
            };
            let Some(message) = message else { return Err(Broken::Lost("the subscription has ended".into())) };
            self.heard = Instant::now();
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
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.name);
        let publish = self.session.client().publish_with_reply(subject, self.inbox.clone(), request.to_string().into());
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

/// When a stream was made, in nanoseconds since 1970.
pub fn created(info: &StreamInfo) -> Option<i64> {
    Nanos::of_rfc3339(&info.created).ok().map(|time| time.0)
}
