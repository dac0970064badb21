//! What a connection is subscribed to: each runs by itself and sends frames into the one queue.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Utf8Bytes;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::frames;
use crate::broker::{Broker, End, Output, Piece, Tail, Work};
use crate::rest::errors::{self, About};

/// Credits at most.
const CREDITS: usize = 1_000_000;
/// Messages of a frame queue's entry.
const PIECE: usize = 64;
/// Messages of a consumer that were sent and are not settled.
const UNSETTLED: usize = 1_000;

/// Frames that are sent together.
pub type Frames = Vec<Utf8Bytes>;

pub struct Subscription {
    credits: Option<Arc<Semaphore>>,
    /// For messages of a consumer.
    pub unsettled: Option<Arc<Unsettled>>,
    task: AbortOnDropHandle<()>,
}

/// Where the messages that were sent are settled, by number.
#[derive(Default)]
pub struct Unsettled {
    replies: Mutex<BTreeMap<u64, String>>,
    changed: Notify,
}

impl Unsettled {
    fn replies(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        // Nothing panics half-way through a change.
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, number: u64) -> Option<String> {
        self.replies().get(&number).cloned()
    }

    pub fn remove(&self, number: u64) {
        self.replies().remove(&number);
        self.changed.notify_one();
    }

    /// Waits until there is room; gives how much.
    async fn room(&self) -> usize {
        loop {
            let room = UNSETTLED.saturating_sub(self.replies().len());
            if room > 0 {
                return room;
            }
            self.changed.notified().await;
        }
    }
}

impl Subscription {
    pub fn tail(id: String, tail: Tail, credits: Option<u32>, out: mpsc::Sender<Frames>) -> Self {
        let credits = credits.map(of_credits);
        let task = tokio::spawn(follow(id, tail, credits.clone(), out));
        Self { credits, unsettled: None, task: AbortOnDropHandle::new(task) }
    }

    pub fn work(id: String, work: Work, stream: String, credits: Option<u32>, out: mpsc::Sender<Frames>) -> Self {
        let credits = credits.map(of_credits);
        let unsettled = Arc::<Unsettled>::default();
        let task = tokio::spawn(pull(id, work, stream, (credits.clone(), unsettled.clone()), out));
        Self { credits, unsettled: Some(unsettled), task: AbortOnDropHandle::new(task) }
    }

    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// [`None`] where it has none: then nothing is counted.
    pub fn add_credits(&self, more: u32) -> Option<usize> {
        let credits = self.credits.as_ref()?;
        credits.add_permits((more as usize).min(CREDITS.saturating_sub(credits.available_permits())));
        Some(credits.available_permits())
    }
}

fn of_credits(credits: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new((credits as usize).min(CREDITS)))
}

/// Waits for credits; gives how many there are.
async fn available(credits: Option<&Semaphore>) -> usize {
    let Some(credits) = credits else { return CREDITS };
    // It is never closed, and what was acquired goes back at once.
    drop(credits.acquire().await);
    credits.available_permits().max(1)
}

async fn follow(id: String, mut tail: Tail, credits: Option<Arc<Semaphore>>, out: mpsc::Sender<Frames>) {
    loop {
        if credits.as_ref().is_some_and(|credits| credits.available_permits() == 0) {
            tail.pause();
        }
        let most = available(credits.as_deref()).await.min(PIECE);
        let (frames, is_over) = match tail.next(most).await {
            Output::Events(events) => {
                let messages = events.iter().filter(|event| event.gap.is_none()).count();
                if let Some(credits) = &credits {
                    credits.forget_permits(messages);
                }
                (events.iter().map(|event| frames::event(&id, event)).collect(), false)
            }
            Output::End(end) => (vec![frames::end(&id, &end)], true),
        };
        if out.send(frames).await.is_err() || is_over {
            return;
        }
    }
}

async fn pull(
    id: String,
    mut work: Work,
    stream: String,
    (credits, unsettled): (Option<Arc<Semaphore>>, Arc<Unsettled>),
    out: mpsc::Sender<Frames>,
) {
    for number in 1.. {
        let room = unsettled.room().await;
        let wanted = available(credits.as_deref()).await.min(room).min(PIECE);
        let piece = work.next(wanted).await;
        let Piece { record, reply } = match piece {
            Ok(piece) => piece,
            Err(failure) => {
                let message = failure.to_string();
                let problem = errors::of(failure, About::Other);
                let end = End { reason: "failed", message };
                let _ = out.send(vec![frames::error(Some(&id), &problem), frames::end(&id, &end)]).await;
                return;
            }
        };
        if let Some(credits) = &credits {
            credits.forget_permits(1);
        }
        unsettled.replies().insert(number, reply);
        let mut json = Vec::with_capacity(record.size() + 256);
        record.write(&mut json, &stream);
        if out.send(vec![frames::piece(&id, number, &json)]).await.is_err() {
            return;
        }
    }
}

/// Settles messages for the connection.
pub async fn settle(
    broker: Broker,
    unsettled: Arc<Unsettled>,
    (id, number, how): (String, u64, crate::broker::Settlement),
    deadline: tokio::time::Instant,
    out: mpsc::Sender<Frames>,
) {
    let Some(reply) = unsettled.get(number) else { return };
    let frame = match broker.settle(&reply, how, deadline).await {
        Ok(()) => {
            if how != crate::broker::Settlement::Progress {
                unsettled.remove(number);
            }
            frames::frame(&serde_json::json!({ "type": "acked", "id": id, "message": number }))
        }
        Err(failure) => frames::error(Some(&id), &errors::of(failure, About::Other)),
    };
    let _ = out.send(vec![frame]).await;
}
