//! What clients change over the broker: others would notice it only when they look the next time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Counts changes of streams and consumers. Clones count together.
#[derive(Clone)]
pub(super) struct Changes(Arc<Counted>);

struct Counted {
    count: AtomicU64,
    /// Wakes who looks at the streams.
    heard: Arc<Notify>,
}

impl Changes {
    pub fn new(heard: Arc<Notify>) -> Self {
        Self(Arc::new(Counted { count: AtomicU64::new(0), heard }))
    }

    /// Something was changed just now, or may have been.
    pub fn note(&self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        self.0.heard.notify_one();
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }
}
