//! What has become of spans and of requests to the collector.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts up.
#[derive(Debug)]
pub struct Count(AtomicU64);

#[derive(Debug)]
pub struct Counts {
    pub spans_sent: Count,
    /// Those that the collector does not want.
    pub spans_refused: Count,
    pub traces: ExportCounts,
    pub metrics: ExportCounts,
}

/// Requests to the collector, by what became of them.
#[derive(Debug)]
pub struct ExportCounts {
    pub taken: Count,
    /// It may take the same later.
    pub failed: Count,
    /// It never will.
    pub refused: Count,
}

impl Count {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl ExportCounts {
    const fn new() -> Self {
        Self { taken: Count::new(), failed: Count::new(), refused: Count::new() }
    }
}

impl Counts {
    pub(super) const fn new() -> Self {
        let (spans_sent, spans_refused) = (Count::new(), Count::new());
        Self { spans_sent, spans_refused, traces: ExportCounts::new(), metrics: ExportCounts::new() }
    }
}
