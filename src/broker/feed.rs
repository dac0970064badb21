//! Reads a stream on from a position, in order: without a hole that is not reported, without a message
//! twice, over every restart of the server.
//!
//! Whatever happens to the consumer that it reads with, another one begins behind the last message.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::consumer::{Broken, Consumer, Most, Start};
use super::delivery::Place;
use super::point::Nanos;
use super::record::Record;
use super::waiting::News;
use super::{Broker, Failure, Session};
use crate::nats::{ApiError, JetStream, StreamInfo};

/// Time for one request to the server, and for a connection to it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a stream may be away, or shorter than it was, before that is believed: a server that has just
/// started, or just become the leader, may know less than there is.
const DOUBT: Duration = Duration::from_secs(10);
/// Between two inspections of a consumer that has nothing to send.
const INSPECTION: Duration = Duration::from_secs(30);

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
    news: News,
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
        let news = News::of(&broker);
        Self { broker, purpose, stream, filter, most, start, created, scanned, consumer: None, doubted: None, news }
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
                self.news.catch_up();
                match self.begin().await {
                    Attempt::Begun(items) => {
                        let is_caught_up = self.consumer.as_ref().is_some_and(|consumer| !consumer.is_behind);
                        if !items.is_empty() || is_caught_up {
                            return Ok(Batch { created: self.created.unwrap_or_default(), items, is_caught_up });
                        }
                    }
                    Attempt::Later(reason) => {
                        tracing::debug!("cannot read {} of {} yet: {reason}", self.filter, self.stream);
                        self.news.wait().await;
                    }
                    Attempt::Never(failure) => return Err(failure),
                }
                continue;
            };
            let was_behind = consumer.is_behind;
            let came = consumer.receive(self.most).await;
            match self.take(came, was_behind).await {
                Ok(Some(batch)) => {
                    self.news.is_good();
                    return Ok(batch);
                }
                Ok(None) => {}
                Err(Broken::Lost(reason)) => {
                    tracing::debug!("another consumer follows for {} of {}: {reason}", self.filter, self.stream);
                    self.consumer = None;
                    self.news.wait().await;
                }
                Err(Broken::Denied(violation)) => return Err(violation.into()),
            }
        }
    }

    /// A consumer behind the last message.
    async fn begin(&mut self) -> Attempt {
        let session = match self.broker.data(Instant::now() + PATIENCE).await {
            Ok(session) => session,
            Err(failure @ Failure::NotLetIn) => return Attempt::Never(failure),
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
        let names = (self.stream.clone(), &*self.filter);
        let mut consumer = match Consumer::create(session, &jetstream, (self.purpose, names), start).await {
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

    /// What the server refuses now may be what it does not know yet.
    fn refused(&mut self, error: ApiError) -> Attempt {
        let is_known = self.created.is_some() && self.doubted.is_none_or(|since| since.elapsed() < DOUBT);
        match error {
            error if error.is_transient() => Attempt::Later(error.to_string()),
            // Another connection of the same user may do no more.
            ApiError::Denied(violation) => Attempt::Never(violation.into()),
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
        if !self.broker.is_ready() {
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
                continue;
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

/// When a stream was made, in nanoseconds since 1970.
pub fn created(info: &StreamInfo) -> Option<i64> {
    Nanos::of_rfc3339(&info.created).ok().map(|time| time.0)
}
