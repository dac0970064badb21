//! What is known about the store, for everybody to see, and how it is told.

use crate::integrity::losses::Loss;

/// What is known about the store, for everybody to see.
#[derive(Clone, Debug, Default)]
pub struct Integrity {
    /// What is missing and not acknowledged.
    pub losses: Vec<Loss>,
    pub reading: Reading,
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
