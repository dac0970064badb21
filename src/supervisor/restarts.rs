use serde::{Deserialize, Serialize};

use super::events::{Event, RestartReason};
use super::state::State;

/// Servers that had to be followed by another, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restarts {
    /// It ended by itself, or somebody ended it.
    pub exited: u64,
    /// It did not answer any more.
    pub hung: u64,
    /// A fresh start was to mend something.
    pub recovery: u64,
    /// It could not be launched.
    pub launch_failed: u64,
}

impl Restarts {
    /// Counts the end of a server that `event` tells of in state `was`, where another one follows in
    /// state `is`.
    pub(super) fn count(&mut self, was: &State, event: &Event, is: &State) {
        let counter = match (event, was) {
            (Event::Exited { .. }, State::Restarting { why: RestartReason::Hung, .. }) => &mut self.hung,
            (Event::Exited { .. }, State::Restarting { why: RestartReason::Recovery, .. }) => &mut self.recovery,
            (Event::Exited { .. }, _) => &mut self.exited,
            (Event::LaunchFailed(_), _) => &mut self.launch_failed,
            _ => return,
        };
        if matches!(is, State::Preparing { .. } | State::BackingOff { .. }) {
            *counter += 1;
        }
    }
}
