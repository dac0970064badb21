//! What the log says of a change of state.

use super::events::RestartReason;
use super::state::State;

/// Logs that `next` follows `was`.
pub fn log_change(was: &State, next: &State) {
    match next {
        // Deaths have been told, and failures are told by who ends the program.
        State::Degraded { reason, .. } if Some(reason.as_str()) != was.reason() => {
            tracing::warn!(state = next.name(), was = was.name(), "{reason}");
        }
        State::Restarting { why: RestartReason::Hung, reason, killed: false, .. } => {
            tracing::error!(state = next.name(), was = was.name(), "nats-server hangs: {reason}");
        }
        State::Restarting { reason, killed: false, .. } => {
            tracing::warn!(state = next.name(), was = was.name(), "nats-server is restarted: {reason}");
        }
        State::Preparing { hindrance: Some(reason), .. } if Some(reason.as_str()) != was.reason() => {
            tracing::error!(state = next.name(), was = was.name(), "nats-server is not started: {reason}");
        }
        State::Starting { .. } if matches!(was, State::Preparing { hindrance: Some(_), .. }) => {
            tracing::info!(state = next.name(), was = was.name(), "what kept nats-server from being started is over");
        }
        State::Ready { .. } if matches!(was, State::Degraded { .. }) => {
            tracing::info!(state = next.name(), was = was.name(), "everything promised holds again");
        }
        _ => tracing::debug!(state = next.name(), was = was.name(), "state changed"),
    }
}
