use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::alert::AlertKind;
use super::sinks::SinkKind;

/// What became of a notification, or of an attempt to hand it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SendResult {
    Sent,
    /// An attempt failed; another one follows.
    Failed,
    /// The receiver will never take it.
    Refused,
    /// There was no room for it any more.
    Dropped,
}

impl SendResult {
    pub const ALL: [Self; 4] = [Self::Sent, Self::Failed, Self::Refused, Self::Dropped];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

/// How many, by kind, sink and result.
pub type Totals = BTreeMap<(AlertKind, SinkKind, SendResult), u64>;

/// How many there were since the program started, by kind, sink and result: `alerts_total`.
#[derive(Clone, Debug, Default)]
pub struct AlertCounts(Arc<Mutex<Totals>>);

impl AlertCounts {
    pub(super) fn count(&self, kind: AlertKind, sink: SinkKind, result: SendResult) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((kind, sink, result)).or_default() += 1;
    }

    /// Those that are not 0.
    pub fn totals(&self) -> Totals {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
