//! Following a subject as messages come, from any position on.
//!
//! A *hub* reads a stream for everybody who follows the same subject: one consumer, whose messages are
//! encoded once into a [`Ring`]. A [`Tail`] is one reader. One that begins in the past catches up with a
//! consumer of its own, of which there are not many at a time, until it meets the ring. The hub goes with
//! its last reader.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::feed::{self, Batch, Feed, Gap, GapReason, Item, Most, Start};
use super::point::Point;
use super::position::Position;
use super::ring::{Event, Found, Ring};
use super::{Broker, Failure};
use crate::domain::Subject;
use crate::nats::StreamInfo;

/// What all rings together may hold, and one of them at least and at most.
const ALL_RINGS: usize = 32 << 20;
const SMALLEST_RING: usize = 64 << 10;
const LARGEST_RING: usize = 8 << 20;
/// Hubs at a time.
const HUBS: usize = 1024;
/// How long a full ring waits for its slowest reader.
const GRACE: Duration = Duration::from_millis(500);
/// Readers that catch up at a time; each holds up to twice [`CATCH_UP`] and what it has made of it.
const CATCH_UPS: usize = 16;
const CATCH_UP: Most = Most { messages: 500, bytes: 256 << 10 };
const LIVE: Most = Most { messages: 2_000, bytes: 1 << 20 };
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

/// Why nothing follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub reason: &'static str,
    pub message: String,
}

/// What a reader gets.
#[derive(Debug)]
pub enum Output {
    Events(Vec<Arc<Event>>),
    End(End),
}

type Key = (String, String);
/// Locked while a hub is made, so that nobody makes another.
type Place = Arc<tokio::sync::Mutex<Weak<Hub>>>;

/// All that is followed.
#[derive(Debug)]
pub struct Hubs {
    hubs: Mutex<HashMap<Key, Place>>,
    catch_ups: Arc<Semaphore>,
    readers: AtomicU64,
}

#[derive(Debug)]
struct Hub {
    key: Key,
    hubs: Arc<Hubs>,
    shared: Arc<Shared>,
    _reading: DropGuard,
}

/// What a hub and its readers have in common.
#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    /// The place of the next event.
    end: watch::Sender<u64>,
    /// Readers have taken something out of a full ring.
    taken: Notify,
    over: Mutex<Option<End>>,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one of these panics half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hubs {
    pub(super) fn new() -> Arc<Self> {
        let catch_ups = Arc::new(Semaphore::new(CATCH_UPS));
        Arc::new(Self { hubs: Mutex::default(), catch_ups, readers: AtomicU64::new(0) })
    }

    fn most(&self) -> usize {
        (ALL_RINGS / lock(&self.hubs).len().max(1)).clamp(SMALLEST_RING, LARGEST_RING)
    }

    fn place(&self, key: &Key) -> Result<Place, Failure> {
        let mut hubs = lock(&self.hubs);
        if let Some(place) = hubs.get(key) {
            return Ok(place.clone());
        }
        if hubs.len() >= HUBS {
            return Err(Failure::NotReady(format!("{HUBS} subjects are followed already, and no more can be")));
        }
        Ok(hubs.entry(key.clone()).or_default().clone())
    }

    /// Forgets a place whose hub has gone and that nobody is about to fill.
    fn tidy(&self, key: &Key) {
        let mut hubs = lock(&self.hubs);
        let is_free =
            |place: &Place| Arc::strong_count(place) == 1 && place.try_lock().is_ok_and(|hub| hub.strong_count() == 0);
        if hubs.get(key).is_some_and(is_free) {
            hubs.remove(key);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.hubs.tidy(&self.key);
    }
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
        let reader = self.hubs.readers.fetch_add(1, Ordering::Relaxed);
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

    /// The one stream that captures the subject.
    pub(super) async fn stream_of(
        &self,
        subject: &Subject,
        named: Option<&str>,
        deadline: Instant,
    ) -> Result<StreamInfo, Failure> {
        loop {
            let session = self.data(deadline).await?;
            let patience = deadline.saturating_duration_since(Instant::now());
            let jetstream = session.jetstream(patience);
            let find = async {
                let name = match named {
                    Some(name) => name.to_owned(),
                    None => match jetstream.streams_with_subject(subject.as_str()).await?.as_slice() {
                        [] => return Ok(None),
                        [only] => only.clone(),
                        several => {
                            let list = several.join(", ");
                            let message =
                                format!("{subject} is captured by several streams ({list}): name one with stream=");
                            return Err(Failure::Invalid(message));
                        }
                    },
                };
                let info = jetstream.stream_info(&name).await?;
                match info {
                    Some(info) if !may_hold(&info, subject) => {
                        Err(Failure::NotCaptured { subject: subject.to_string() })
                    }
                    info => Ok(info),
                }
            };
            let found = tokio::select! {
                found = find => found,
                () = session.gone() => Err(self.not_connected()),
            };
            let failure = match found {
                Ok(Some(info)) => return Ok(info),
                Ok(None) if !self.status.borrow().is_ready => Failure::NotReady("its streams are not known yet".into()),
                Ok(None) => {
                    return Err(match named {
                        Some(name) => Failure::NoStream(name.to_owned()),
                        None => Failure::NotCaptured { subject: subject.to_string() },
                    });
                }
                Err(failure @ (Failure::NotReady(_) | Failure::NotConnected { .. })) => failure,
                Err(failure) => return Err(failure),
            };
            let again = Instant::now() + Duration::from_millis(20);
            if again >= deadline {
                return Err(failure);
            }
            tokio::time::sleep_until(again).await;
        }
    }

    async fn hub(
        &self,
        info: &StreamInfo,
        created: i64,
        subject: &str,
        deadline: Instant,
    ) -> Result<Arc<Hub>, Failure> {
        let key = (info.name().to_owned(), subject.to_owned());
        let place = self.hubs.place(&key)?;
        let late = || Failure::Late(format!("{subject} cannot be followed yet"));
        let found = async {
            let mut hub = timeout_at(deadline, place.lock()).await.map_err(|_| late())?;
            if let Some(hub) = hub.upgrade().filter(|hub| lock(&hub.shared.over).is_none()) {
                return Ok(hub);
            }
            let (stream, filter) = (Arc::<str>::from(key.0.as_str()), Arc::<str>::from(subject));
            let last = info.state.last_seq;
            let names = (stream.clone(), filter);
            let mut feed = Feed::new(self.clone(), "tail", names, (Start::At(last + 1), Some(created)), LIVE);
            // What it cannot do it says now.
            let first = timeout_at(deadline, feed.next()).await.map_err(|_| late())??;
            let stop = CancellationToken::new();
            let shared = Arc::new(Shared {
                ring: Mutex::new(Ring::new(created, last)),
                end: watch::Sender::new(0),
                taken: Notify::new(),
                over: Mutex::new(None),
            });
            let follow = follow(stream, feed, first, shared.clone(), self.hubs.clone());
            let stopped = stop.clone();
            tokio::spawn(async move {
                let _ = stopped.run_until_cancelled(follow).await;
            });
            let made = Hub { key: key.clone(), hubs: self.hubs.clone(), shared, _reading: stop.drop_guard() };
            let made = Arc::new(made);
            *hub = Arc::downgrade(&made);
            Ok(made)
        };
        let found = found.await;
        drop(place);
        if found.is_err() {
            self.hubs.tidy(&key);
        }
        found
    }
}

/// Whether there may be messages of the subject; mirrors hold those of others.
fn may_hold(info: &StreamInfo, subject: &Subject) -> bool {
    let subjects = info.config.get("subjects").and_then(serde_json::Value::as_array);
    let copies =
        ["mirror", "sources"].iter().any(|name| info.config.get(*name).is_some_and(|copied| !copied.is_null()));
    let captures = |captured: &serde_json::Value| {
        captured.as_str().and_then(|captured| captured.parse().ok()).is_some_and(|captured| subject.overlaps(&captured))
    };
    copies || subjects.is_none_or(|subjects| subjects.iter().any(captures))
}

/// Reads for a hub, until nobody is there any more or nothing can follow.
async fn follow(stream: Arc<str>, mut feed: Feed, first: Batch, shared: Arc<Shared>, hubs: Arc<Hubs>) {
    let mut batch = Ok(first);
    loop {
        match batch {
            Ok(batch) => shared.publish(events(&stream, batch, feed.scanned()), hubs.most()).await,
            Err(failure) => {
                *lock(&shared.over) = Some(End::of(&failure));
                shared.end.send_modify(|_| {});
                return;
            }
        }
        batch = feed.next().await;
    }
}

/// What a batch holds, encoded. Behind a gap the stream is read on from the message after it.
fn events(stream: &str, batch: Batch, scanned: u64) -> Vec<Arc<Event>> {
    let next_of = |item: Option<&Item>| match item {
        Some(Item::Message(record)) => Some(record.sequence - 1),
        _ => None,
    };
    let created = batch.created;
    let mut events = Vec::with_capacity(batch.items.len());
    let mut items = batch.items.into_iter().peekable();
    while let Some(item) = items.next() {
        let event = match item {
            Item::Message(record) => Event::message(stream, created, &record),
            Item::Gap(gap) => {
                let behind = match gap {
                    Gap { reason: GapReason::EndLost, from, .. } => from - 1,
                    Gap { to: Some(to), .. } => to,
                    Gap { to: None, .. } => next_of(items.peek()).unwrap_or(scanned),
                };
                Event::gap(stream, created, gap, behind)
            }
        };
        events.push(Arc::new(event));
    }
    events
}

impl End {
    fn of(failure: &Failure) -> Self {
        let reason = match failure {
            Failure::NoStream(_) => "stream_deleted",
            _ => "failed",
        };
        Self { reason, message: failure.to_string() }
    }

    pub fn shutting_down() -> Self {
        Self { reason: "shutting_down", message: "the broker stops; resume once it is there again".into() }
    }

    fn too_slow() -> Self {
        let message = "messages come faster than this reader takes them; resume from the last id".into();
        Self { reason: GapReason::TooSlow.as_str(), message }
    }
}

impl Shared {
    async fn publish(&self, events: Vec<Arc<Event>>, most: usize) {
        let until = Instant::now() + GRACE;
        for event in events {
            let taken = self.taken.notified();
            tokio::pin!(taken);
            loop {
                taken.as_mut().enable();
                if lock(&self.ring).push(&event, most) {
                    break;
                }
                self.announce();
                if timeout_at(until, taken.as_mut()).await.is_err() {
                    lock(&self.ring).force(&event, most);
                    break;
                }
                taken.set(self.taken.notified());
            }
        }
        self.announce();
    }

    fn announce(&self) {
        let end = lock(&self.ring).end();
        self.end.send_replace(end);
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
                    Found::Events(events) => {
                        *place += events.len() as u64;
                        shared.taken.notify_waiters();
                        self.note(&events);
                        Some(Output::Events(events))
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
        let (start, created, turns) = (self.start, self.created, self.broker.hubs.catch_ups.clone());
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
