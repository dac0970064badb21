//! What is true of the broker, in one value.
//!
//! [`BrokerStatus::after`] makes it of what the supervisor, the health check, the integrity of the
//! messages, drift and reloads say; it is pure. One task ([`keep`]) publishes it on one watch, and the
//! probes, `/health` and the commands read nothing else.

mod condition;
mod events;
mod keep;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::domain::Generation;
use crate::health::{Observations, Outcome};
use crate::supervisor::Restarts;
pub use condition::{Condition, ConditionStatus};
pub use events::{Event, EventKind, Events};
pub use keep::{Sources, keep};
pub use verdict::{Inputs, Reloads, Verdict};

/// All that is known of the broker at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerStatus {
    pub verdict: Verdict,
    /// What the supervisor does, in one word.
    pub state: &'static str,
    /// Why the state is not what one would wish.
    pub reason: Option<String>,
    /// Since when it is in that state.
    pub since: SystemTime,
    /// Traffic may come.
    pub is_ready: bool,
    /// It has been ready since the program started.
    pub ever_ready: bool,
    pub pid: Option<i32>,
    /// Which of the servers that were launched runs now and has answered, if one has.
    pub generation: Option<Generation>,
    pub counters: Counters,
    /// One of each type that applies.
    pub conditions: Vec<Condition>,
    /// What was checked, by the name of the check; remarks of the same name are one.
    pub checks: BTreeMap<String, CheckStatus>,
    /// When the last health check ended.
    pub checked_at: Option<SystemTime>,
    /// What it found, in numbers.
    pub observed: Observations,
    pub events: Arc<Events>,
}

/// Since the program started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Servers launched beyond the first.
    pub restarts: u64,
    /// The same by what became of the one before.
    pub restarts_by: Restarts,
    /// Reloads that took, and that were refused.
    pub reloads: u64,
    pub reloads_refused: u64,
    /// Changes to streams and consumers that somebody had changed.
    pub repairs: u64,
    /// Streams that were restored from snapshots.
    pub streams_restored: u64,
}

/// What checks of one name found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStatus {
    pub status: Outcome,
    pub detail: String,
}

#[cfg(test)]
mod tests;
