//! What is known about the store, for everybody to see, and how it is told.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::integrity::losses::Loss;

/// What is known about the store, for everybody to see.
#[derive(Clone, Debug, Default)]
pub struct Integrity {
    /// What is missing and not acknowledged.
    pub losses: Vec<Loss>,
    pub reading: Reading,
    pub restored: Restored,
}

/// Streams that were restored from snapshots since the program started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub count: u64,
    /// The last of them, the oldest first.
    last: VecDeque<(SystemTime, String)>,
}

impl Restored {
    /// So many are kept for who has not heard of them yet.
    const MOST: usize = 32;

    pub fn add(&mut self, at: SystemTime, stream: String) {
        self.count += 1;
        self.last.push_back((at, stream));
        if self.last.len() > Self::MOST {
            self.last.pop_front();
        }
    }

    /// Those that came after so many, when and which.
    pub fn since(&self, count: u64) -> impl Iterator<Item = &(SystemTime, String)> {
        let news = usize::try_from(self.count.saturating_sub(count)).unwrap_or(Self::MOST);
        self.last.iter().skip(self.last.len().saturating_sub(news))
    }
}

/// How far the streams have been read through since the server started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    #[default]
    NotYet,
    Under {
        stream: String,
        seq: u64,
        last_seq: u64,
    },
    Done {
        messages: u64,
        /// Streams that changed too much meanwhile, of which nothing can be said.
        by_design: Vec<String>,
    },
    /// Some streams could not be read through, and why.
    Failed {
        streams: Vec<String>,
    },
}

pub(super) fn log_loss(loss: &Loss) {
    tracing::error!(stream = loss.stream, "messages are missing: stream {}: {}", loss.stream, loss.missing);
}

/// All that is missing, as one sentence.
pub(super) fn reason(losses: &[Loss]) -> Option<String> {
    if losses.is_empty() {
        return None;
    }
    let losses: Vec<_> = losses.iter().map(|loss| format!("stream {}: {}", loss.stream, loss.missing)).collect();
    Some(format!(
        "messages are missing: {}; restore them, or accept that with `unified-nats streams acknowledge-loss`",
        losses.join("; ")
    ))
}
