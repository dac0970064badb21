//! What is missing of streams, and how it is told.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::inventory::Change;
use super::ranges::{Ranges, count};
use crate::nats::StreamState;

/// Messages that are gone though nobody asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    pub stream: String,
    pub missing: LossKind,
    /// When it was found, RFC 3339.
    pub found_at: String,
}

/// What is missing of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// The last sequence went backwards.
    End {
        was: u64,
        is: u64,
        /// Messages that it held.
        #[serde(default)]
        held: Option<u64>,
    },
    /// Sequences between the first and the last hold no message that did.
    Holes { were: u64, are: u64 },
    /// Messages at the beginning are gone that no limit has removed.
    Beginning { expected: u64, is: u64 },
    /// The stream does not exist any more.
    Stream { messages: u64, last_seq: u64 },
    /// Sequences that are counted as messages cannot be read.
    Unreadable { ranges: Ranges },
    /// The server itself found them damaged while it ran, and counts them as deleted.
    Lost { ranges: Ranges },
    /// The server does not know a stream whose files are there.
    Unknown { directory: String },
    /// Blocks changed while no server ran.
    Files {
        changed: Vec<Change>,
        /// So many messages were found to be missing.
        #[serde(default)]
        messages: Option<u64>,
    },
    /// Its files were touched while no server ran, and it holds fewer messages than before.
    Fewer {
        were: u64,
        are: u64,
        /// Its last sequence then.
        #[serde(default)]
        end: Option<u64>,
    },
    /// The server knows it and does not serve it.
    Offline { reason: String, directory: String },
    /// So many messages are counted, and fewer can be read.
    Unread { counted: u64, came: u64 },
    /// What had been seen before could not be read any more.
    Memory { reason: String },
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End { was, is, held } => {
                let missing = was.saturating_sub(*is).min(held.unwrap_or(u64::MAX));
                write!(f, "its last sequence was {was} and is {is}: at least {missing} messages are missing")
            }
            Self::Holes { were, are } => {
                write!(f, "{} messages are missing between its first and its last sequence", are.saturating_sub(*were))
            }
            Self::Beginning { expected, is } => write!(
                f,
                "it should begin at sequence {expected} and begins at {is}: {} messages are missing",
                is.saturating_sub(*expected)
            ),
            Self::Stream { messages, last_seq } => {
                write!(f, "it is gone, and held {messages} messages up to sequence {last_seq}")
            }
            Self::Unreadable { ranges } => {
                let first = ranges.first().map_or(0, |(first, _)| *first);
                write!(f, "{} messages cannot be read, the first of them at sequence {first}", count(ranges))
            }
            Self::Lost { ranges } => {
                let first = ranges.first().map_or(0, |(first, _)| *first);
                let count = count(ranges);
                write!(f, "nats-server lost {count} messages in damaged files, the first of them at sequence {first}")
            }
            Self::Files { changed, messages } => {
                /// So many are enough to see what is the matter.
                const SOME: usize = 5;
                let named = changed.iter().take(SOME).map(|Change { file, was, is }| match is {
                    Some(is) => format!("{file} had {was} bytes and has {is}"),
                    None => format!("{file} of {was} bytes is gone"),
                });
                let mut named: Vec<_> = named.collect();
                if let Some(more) = changed.len().checked_sub(SOME).filter(|more| *more > 0) {
                    named.push(format!("and {more} more"));
                }
                write!(f, "blocks of messages were changed while no nats-server ran: {}", named.join(", "))?;
                messages.map_or(Ok(()), |count| write!(f, "; at least {count} messages are missing"))
            }
            Self::Fewer { were, are, .. } => write!(
                f,
                "its files were changed while no nats-server ran, and of {were} messages {} are missing",
                were.saturating_sub(*are)
            ),
            Self::Unread { counted, came } => write!(
                f,
                "{} messages of {counted} that nats-server counts cannot be read",
                counted.saturating_sub(*came)
            ),
            Self::Memory { reason } => {
                write!(f, "what it held before is not known, so something may be missing: {reason}")
            }
            Self::Offline { reason, directory } => write!(
                f,
                "nats-server does not serve it ({reason}); its files are untouched in {directory}, and the description of \
                 a consumer in obs that is damaged, or that a newer nats-server wrote, is what stands in the way"
            ),
            Self::Unknown { directory } => {
                write!(f, "nats-server cannot recover it; its files are untouched in {directory}")
            }
        }
    }
}

impl Loss {
    pub fn found_now(stream: &str, missing: LossKind) -> Self {
        let found_at = crate::logging::timestamp(SystemTime::now()).to_string();
        Self { stream: stream.to_owned(), missing, found_at }
    }
}

impl LossKind {
    /// Whether what was missing is there again. Sequences are used once, so holes that are closed and a
    /// beginning that is back hold the very messages; what follows a shorter end are others.
    pub(super) fn is_back(&self, state: &StreamState) -> bool {
        match self {
            Self::Holes { were, .. } => state.num_deleted <= *were,
            Self::Beginning { expected, .. } => state.first_seq <= *expected,
            // What came later does not make up for it.
            Self::Fewer { were, end, .. } => state.messages >= *were && end.is_none_or(|end| state.last_seq <= end),
            _ => false,
        }
    }

    /// How many messages are missing from the stream since it was seen, where that is known.
    pub(super) fn count(&self) -> Option<u64> {
        match self {
            Self::End { was, is, held } => Some(was.saturating_sub(*is).min(held.unwrap_or(u64::MAX))),
            Self::Holes { were: less, are: more } | Self::Beginning { expected: less, is: more } => {
                Some(more.saturating_sub(*less))
            }
            Self::Fewer { were, are, .. } => Some(were.saturating_sub(*are)),
            Self::Lost { ranges } => Some(count(ranges)),
            _ => None,
        }
    }
}
