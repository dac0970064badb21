//! A client that sends no more. It may have closed its side only and wait for its answer, or have gone
//! altogether: both look the same until something is sent to it. So its request is done for a while
//! longer, and not for ever.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Time for the next piece of an answer to a client that sends no more.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of the end of a client. Clones know the same.
#[derive(Clone, Default)]
pub struct Farewell(Arc<Known>);

#[derive(Default)]
struct Known {
    /// When the client was heard or served last, once it sends no more.
    last: Mutex<Option<Instant>>,
    ended: Notify,
}

impl Farewell {
    /// The client sends no more.
    pub fn note_end(&self) {
        self.last().get_or_insert_with(Instant::now);
        self.0.ended.notify_one();
    }

    /// It has been sent a piece of its answer.
    pub fn note_write(&self) {
        if let Some(last) = self.last().as_mut() {
            *last = Instant::now();
        }
    }

    /// Ends when the client sends no more.
    pub async fn begins(&self) {
        while self.last().is_none() {
            self.0.ended.notified().await;
        }
    }

    /// Ends when the client has sent no more and been sent nothing for too long.
    pub async fn is_over(&self) {
        self.begins().await;
        loop {
            let last = *self.last();
            match last {
                Some(last) if last.elapsed() < PATIENCE => sleep_until(last + PATIENCE).await,
                _ => return,
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
