//! Spans that have ended and were not sent yet: so many, and no more.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::span::Span;

/// Whoever ends a span puts it here and goes on; one task takes them out.
pub struct Queue {
    state: Mutex<State>,
    /// So many are worth a request.
    batch: usize,
    most: usize,
    full: Notify,
    first: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Span>,
    dropped: u64,
}

impl Queue {
    /// Takes `most` spans, and says so once a `batch` of them is there.
    pub fn new(most: usize, batch: usize) -> Self {
        let most = most.max(1);
        Self { state: Mutex::default(), batch: batch.clamp(1, most), most, full: Notify::new(), first: Notify::new() }
    }

    /// The oldest one makes room: what is new says more about what is wrong now.
    pub fn push(&self, span: Span) {
        let count = {
            let mut state = self.state();
            if state.waiting.len() == self.most {
                state.waiting.pop_front();
                state.dropped += 1;
            }
            state.waiting.push_back(span);
            state.waiting.len()
        };
        if count == 1 {
            self.first.notify_one();
        }
        if count >= self.batch {
            self.full.notify_one();
        }
    }

    /// The oldest ones, a batch at most.
    pub fn take(&self) -> Vec<Span> {
        let mut state = self.state();
        let count = state.waiting.len().min(self.batch);
        state.waiting.drain(..count).collect()
    }

    /// Waits until there is a span.
    pub async fn some(&self) {
        while self.is_empty() {
            self.first.notified().await;
        }
    }

    /// Waits until there is a batch.
    pub async fn full(&self) {
        while self.state().waiting.len() < self.batch {
            self.full.notified().await;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.state().waiting.is_empty()
    }

    /// Spans that had to make room.
    pub fn dropped(&self) -> u64 {
        self.state().dropped
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::context::{SpanContext, SpanId, TraceId};
    use super::super::span::Kind;
    use super::*;

    fn span(number: u64) -> Span {
        let context = SpanContext { trace: TraceId::new(1), span: SpanId::new(number), sampled: true };
        Span::new(context, None, "x", Kind::Internal, SystemTime::UNIX_EPOCH)
    }

    fn numbers(spans: &[Span]) -> Vec<u8> {
        spans.iter().map(|span| span.context.span.bytes()[7]).collect()
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let queue = Queue::new(4, 3);
        (1..=6).for_each(|number| queue.push(span(number)));
        assert_eq!((numbers(&queue.take()), queue.dropped()), (vec![3, 4, 5], 2));
        assert_eq!((numbers(&queue.take()), queue.is_empty()), (vec![6], true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_waited_for() {
        let queue = Queue::new(4, 2);
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.some()).await.is_err());
        queue.push(span(1));
        queue.some().await;
        let early = tokio::time::timeout(Duration::from_secs(60), queue.full()).await;
        assert!(early.is_err());
        queue.push(span(2));
        queue.full().await;
        assert_eq!(queue.take().len(), 2);
        // What was said of a batch that is gone is forgotten.
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.full()).await.is_err());
    }
}
