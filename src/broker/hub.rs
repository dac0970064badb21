//! Everybody who follows the same subject of a stream shares a *hub*: one consumer, whose messages are encoded
//! once into a [`Ring`]. It goes with its last reader.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::consumer::{Most, Start};
use super::feed::{Batch, Feed, Gap, GapReason, Item};
use super::ring::{Event, Ring};
use super::{Broker, Failure};
use crate::nats::StreamInfo;

/// What all rings together may hold, and one of them at least and at most.
const ALL_RINGS: usize = 32 << 20;
const SMALLEST_RING: usize = 64 << 10;
const LARGEST_RING: usize = 8 << 20;
/// Hubs at a time.
const HUBS: usize = 1024;
/// How long a full ring waits for its slowest reader.
const GRACE: Duration = Duration::from_millis(500);
/// Readers that catch up at a time.
const CATCH_UPS: usize = 16;
const LIVE: Most = Most { messages: 2_000, bytes: 1 << 20 };

/// Why nothing follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub reason: &'static str,
    pub message: String,
}

type Key = (String, String);
/// Locked while a hub is made, so that nobody makes another.
type Place = Arc<tokio::sync::Mutex<Weak<Hub>>>;

/// All that is followed.
#[derive(Debug)]
pub struct Hubs {
    hubs: Mutex<HashMap<Key, Place>>,
    /// Turns of readers that catch up.
    pub catch_ups: Arc<Semaphore>,
    pub readers: AtomicU64,
}

#[derive(Debug)]
pub struct Hub {
    /// Stream and subject.
    pub key: Key,
    hubs: Arc<Hubs>,
    pub shared: Arc<Shared>,
    _reading: AbortOnDropHandle<()>,
}

/// What a hub and its readers have in common.
#[derive(Debug)]
pub struct Shared {
    pub ring: Mutex<Ring>,
    /// The place of the next event.
    pub end: watch::Sender<u64>,
    /// Readers have taken something out of a full ring.
    pub taken: Notify,
    pub over: Mutex<Option<End>>,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one of these panics half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hubs {
    pub fn new() -> Arc<Self> {
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
    /// That of the subject, or a new one that begins at the end of the stream.
    pub(super) async fn hub(
        &self,
        info: &StreamInfo,
        created: i64,
        subject: &str,
        deadline: Instant,
    ) -> Result<Arc<Hub>, Failure> {
        let key = (info.name().to_owned(), subject.to_owned());
        let place = self.0.hubs.place(&key)?;
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
            let shared = Arc::new(Shared {
                ring: Mutex::new(Ring::new(created, last)),
                end: watch::Sender::new(0),
                taken: Notify::new(),
                over: Mutex::new(None),
            });
            let follow = follow(stream, feed, first, shared.clone(), self.0.hubs.clone());
            let reading = AbortOnDropHandle::new(tokio::spawn(follow));
            let made = Hub { key: key.clone(), hubs: self.0.hubs.clone(), shared, _reading: reading };
            let made = Arc::new(made);
            *hub = Arc::downgrade(&made);
            Ok(made)
        };
        let found = found.await;
        drop(place);
        if found.is_err() {
            self.0.hubs.tidy(&key);
        }
        found
    }
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
pub fn events(stream: &str, batch: Batch, scanned: u64) -> Vec<Arc<Event>> {
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
    pub fn of(failure: &Failure) -> Self {
        let reason = match failure {
            Failure::NoStream(_) => "stream_deleted",
            _ => "failed",
        };
        Self { reason, message: failure.to_string() }
    }

    pub fn shutting_down() -> Self {
        Self { reason: "shutting_down", message: "the broker stops; resume once it is there again".into() }
    }

    pub fn too_slow() -> Self {
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
