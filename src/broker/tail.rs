//! Following a subject as messages come, from any position on.
//!
//! A [`Tail`] is one reader. It takes events from the ring of its hub; one that begins in the past catches up
//! with a consumer of its own, of which there are not many at a time, until it meets the ring.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::consumer::{Most, Start};
use super::feed::{self, Feed, Gap, GapReason};
use super::hub::{End, Hub, events, lock};
use super::point::Point;
use super::position::Position;
use super::ring::{Event, Found};
use super::{Broker, Failure};
use crate::domain::Subject;

/// What a reader that catches up has on its way; it holds as much, and what it has made of it.
const CATCH_UP: Most = Most { messages: 500, bytes: 256 << 10 };
/// What a reader takes at a time.
const TAKEN: usize = 128 << 10;
/// Time for a reader to take what was read for it while it catches up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct TailRequest {
    pub subject: Subject,
    /// Where several streams capture the subject.
    pub stream: Option<String>,
    pub from: From,
    /// It takes messages when it likes to, and is never too slow.
    pub is_patient: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// With what comes next.
    Now,
    Point(Point),
    /// Behind what the client has seen.
    Position(Position),
    /// With the last message of each subject.
    LastOfEach,
}

/// What a reader gets.
#[derive(Debug)]
pub enum Output {
    Events(Vec<Arc<Event>>),
    End(End),
}

/// One who follows.
pub struct Tail {
    hub: Arc<Hub>,
    broker: Broker,
    reader: u64,
    end: watch::Receiver<u64>,
    /// Everything up to there has been given out, of the stream made then.
    created: i64,
    seen: u64,
    /// Where to begin, until the first event.
    start: Start,
    place: Where,
    is_patient: bool,
    /// The stream was seen to end before what was seen, so that the ring cannot be joined there.
    is_ahead: bool,
}

#[derive(Debug)]
enum Where {
    /// At that place of the ring.
    Ring(u64),
    CatchingUp {
        chunks: mpsc::Receiver<Chunk>,
        /// Of the last chunk.
        ready: VecDeque<Arc<Event>>,
        behind: Option<Behind>,
        _task: AbortOnDropHandle<()>,
    },
    Nowhere,
    /// With that, which is given out once.
    Over(Option<End>),
}

/// What follows a chunk: everything up to there has been read.
#[derive(Clone, Copy, Debug)]
struct Behind {
    created: i64,
    sequence: u64,
    /// Not only the last message of some subjects.
    is_all: bool,
}

#[derive(Debug)]
enum Chunk {
    Read(Vec<Arc<Event>>, Behind),
    Failed(End),
}

impl Broker {
    /// Begins to follow a subject.
    pub async fn tail(&self, request: TailRequest, deadline: Instant) -> Result<Tail, Failure> {
        let info = self.stream_of(&request.subject, request.stream.as_deref(), deadline).await?;
        let stream = info.name().to_owned();
        if info.config.get("retention").and_then(serde_json::Value::as_str) == Some("workqueue") {
            return Err(Failure::Invalid(format!(
                "stream {stream} is a work queue, whose messages belong to its consumers: pull them"
            )));
        }
        let Some(created) = feed::created(&info) else {
            return Err(Failure::NotReady(format!("stream {stream} does not say when it was made")));
        };
        let (last, subject) = (info.state.last_seq, request.subject.as_str().to_owned());
        let (start, created_then) = match &request.from {
            From::Now => (Start::At(last + 1), created),
            From::LastOfEach => (Start::LastOfEach, created),
            From::Point(Point::Time(time)) => (Start::Since(*time), created),
            From::Point(Point::Sequence(sequence)) if *sequence <= last + 1 => (Start::At(*sequence), created),
            From::Point(Point::Sequence(sequence)) => {
                let message = format!("from is {sequence}, and stream {stream} ends with {last}");
                return Err(Failure::Invalid(message));
            }
            From::Position(position) if position.stream != stream => {
                let message =
                    format!("the id to resume from is of stream {}, and {subject} of {stream}", position.stream);
                return Err(Failure::Invalid(message));
            }
            From::Position(position) => (Start::At(position.sequence + 1), position.created),
        };
        let hub = self.hub(&info, created, &subject, deadline).await?;
        let reader = self.0.hubs.readers.fetch_add(1, Ordering::Relaxed);
        let seen = match start {
            Start::At(sequence) => sequence - 1,
            Start::Since(_) | Start::LastOfEach => 0,
        };
        let mut tail = Tail {
            end: hub.shared.end.subscribe(),
            broker: self.clone(),
            reader,
            created: created_then,
            seen,
            start,
            place: Where::Nowhere,
            is_patient: request.is_patient,
            is_ahead: created_then == created && seen > last,
            hub,
        };
        tail.join();
        Ok(tail)
    }
}

impl Tail {
    pub fn stream(&self) -> &str {
        &self.hub.key.0
    }

    /// What comes next, at most so many events. Whoever stops waiting loses nothing.
    pub async fn next(&mut self, most: usize) -> Output {
        loop {
            if let Some(output) = self.step(most).await {
                return output;
            }
        }
    }

    /// Nothing is wanted for now: nobody waits for this reader.
    pub fn pause(&mut self) {
        lock(&self.hub.shared.ring).forget(self.reader);
    }

    async fn step(&mut self, most: usize) -> Option<Output> {
        let shared = self.hub.shared.clone();
        match &mut self.place {
            Where::Over(end) => match end.take() {
                Some(end) => Some(Output::End(end)),
                None => std::future::pending().await,
            },
            Where::Nowhere => {
                if !self.join() {
                    self.catch_up();
                }
                None
            }
            Where::Ring(place) => {
                let found = {
                    let mut ring = lock(&shared.ring);
                    ring.wait_for(self.reader, *place);
                    ring.take(self.reader, *place, (most, TAKEN))
                };
                match found {
                    Found::Events(mut events) => {
                        *place += events.len() as u64;
                        shared.taken.notify_waiters();
                        let mut seen = (self.created, self.seen);
                        events.retain(|event| event.is_behind(&mut seen));
                        self.note(&events);
                        (!events.is_empty()).then_some(Output::Events(events))
                    }
                    Found::Overtaken { .. } if self.is_patient => {
                        self.place = Where::Nowhere;
                        None
                    }
                    Found::Overtaken { to } => Some(self.too_slow(to)),
                    Found::Nothing => {
                        if let Some(end) = lock(&shared.over).clone() {
                            self.place = Where::Over(Some(end));
                            return None;
                        }
                        let place = *place;
                        let over = || lock(&shared.over).is_some();
                        // The hub outlives its readers.
                        let _ = self.end.wait_for(|end| *end > place || over()).await;
                        None
                    }
                }
            }
            Where::CatchingUp { chunks, ready, behind, .. } => {
                if !ready.is_empty() {
                    let count = ready.len().min(most.max(1));
                    let events: Vec<_> = ready.drain(..count).collect();
                    self.note(&events);
                    return Some(Output::Events(events));
                }
                if let Some(behind) = behind.take() {
                    (self.created, self.seen) = (behind.created, behind.sequence);
                    self.start = Start::At(behind.sequence + 1);
                    self.is_ahead = false;
                    if behind.is_all {
                        self.join();
                    }
                    return None;
                }
                match chunks.recv().await {
                    Some(Chunk::Read(events, then)) => {
                        ready.extend(events);
                        *behind = Some(then);
                        None
                    }
                    Some(Chunk::Failed(end)) => {
                        self.place = Where::Over(Some(end));
                        None
                    }
                    // It has waited for this reader too long.
                    None => {
                        self.place = if self.is_patient { Where::Nowhere } else { Where::Over(Some(End::too_slow())) };
                        None
                    }
                }
            }
        }
    }

    /// Goes on in the ring, if everything behind what was seen is there.
    fn join(&mut self) -> bool {
        if self.is_ahead || !matches!(self.start, Start::At(_)) {
            return false;
        }
        let mut ring = lock(&self.hub.shared.ring);
        match ring.place_behind(self.created, self.seen) {
            Some(place) => {
                ring.wait_for(self.reader, place);
                self.place = Where::Ring(place);
                true
            }
            None => false,
        }
    }

    fn note(&mut self, events: &[Arc<Event>]) {
        if let Some(last) = events.last() {
            (self.created, self.seen) = (last.created, last.sequence);
            self.start = Start::At(last.sequence + 1);
        }
    }

    /// Says what is not sent. Its id is that of the last message that was, so that a reader which resumes
    /// gets it all.
    fn too_slow(&mut self, to: u64) -> Output {
        self.place = Where::Over(Some(End::too_slow()));
        let gap = Gap { from: self.seen + 1, to: Some(to), reason: GapReason::TooSlow };
        Output::Events(vec![Arc::new(Event::gap(&self.hub.key.0, self.created, gap, self.seen))])
    }

    /// Reads with a consumer of its own, as soon as it is its turn.
    fn catch_up(&mut self) {
        let (sender, chunks) = mpsc::channel(1);
        let (hub, broker) = (self.hub.shared.clone(), self.broker.clone());
        let names = (Arc::<str>::from(self.hub.key.0.as_str()), Arc::<str>::from(self.hub.key.1.as_str()));
        let (start, created, turns) = (self.start, self.created, self.broker.0.hubs.catch_ups.clone());
        let stream = names.0.clone();
        let work = async move {
            let Ok(_turn) = turns.acquire_owned().await else { return };
            let mut feed = Feed::new(broker, "catch-up", names, (start, Some(created)), CATCH_UP);
            loop {
                // What is in the ring up to there the server has sent already.
                let floor = lock(&hub.ring).floor();
                let chunk = match feed.next().await {
                    Ok(batch) => {
                        let sequence = if batch.is_caught_up { feed.scanned().max(floor) } else { feed.scanned() };
                        let behind = Behind { created: batch.created, sequence, is_all: !feed.is_among_lasts() };
                        Chunk::Read(events(&stream, batch, feed.scanned()), behind)
                    }
                    Err(failure) => Chunk::Failed(End::of(&failure)),
                };
                let is_last = matches!(chunk, Chunk::Failed(_));
                if sender.send_timeout(chunk, PATIENCE).await.is_err() || is_last {
                    return;
                }
            }
        };
        let task = AbortOnDropHandle::new(tokio::spawn(work));
        self.place = Where::CatchingUp { chunks, ready: VecDeque::new(), behind: None, _task: task };
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        lock(&self.hub.shared.ring).forget(self.reader);
        self.hub.shared.taken.notify_waiters();
    }
}
