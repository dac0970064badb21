//! What the supervisor can be at, and what is known of the server in each case.

use std::time::Duration;

use tokio::time::Instant;

use super::events::{Failure, RestartReason};
use crate::domain::Generation;

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// No server yet: what has to be done before a launch is being done, again and again while it is
    /// hindered.
    Preparing {
        next: Generation,
        /// Why it could not be done so far.
        hindrance: Option<String>,
    },
    /// Launched, does not answer yet: recovery of a large store can take minutes.
    Starting {
        generation: Generation,
    },
    /// Answers; streams are being brought up to date.
    Provisioning {
        generation: Generation,
    },
    Ready {
        generation: Generation,
        since: Instant,
    },
    /// Runs, but something that was promised does not hold.
    Degraded {
        generation: Generation,
        reason: String,
        /// How long it had been healthy before.
        healthy_for: Duration,
    },
    /// Runs, and is being ended so that another can take its place.
    Restarting {
        generation: Generation,
        why: RestartReason,
        reason: String,
        /// How long it had been healthy before.
        healthy_for: Duration,
        killed: bool,
    },
    /// No server; the next one is launched when the backoff is over.
    BackingOff {
        last: Generation,
        reason: String,
    },
    /// Runs on for a while so that load balancers notice.
    Draining {
        generation: Generation,
    },
    /// Takes no more requests over the API, and what is under way there still needs the server.
    Closing {
        generation: Generation,
    },
    /// Gives its leaderships to the other nodes of the cluster, so that nobody has to wait for them.
    HandingOver {
        generation: Generation,
    },
    /// Sends its clients away bit by bit, and then ends by itself.
    LameDuck {
        generation: Generation,
    },
    Stopping {
        generation: Generation,
        killed: bool,
    },
    Stopped,
    Failed(Failure),
}

impl State {
    /// The server that is running, if one is.
    pub fn generation(&self) -> Option<Generation> {
        match self {
            Self::Starting { generation }
            | Self::Provisioning { generation }
            | Self::Ready { generation, .. }
            | Self::Degraded { generation, .. }
            | Self::Restarting { generation, .. }
            | Self::Draining { generation }
            | Self::Closing { generation }
            | Self::HandingOver { generation }
            | Self::LameDuck { generation }
            | Self::Stopping { generation, .. } => Some(*generation),
            Self::Preparing { .. } | Self::BackingOff { .. } | Self::Stopped | Self::Failed(_) => None,
        }
    }

    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    pub fn is_stopping(&self) -> bool {
        matches!(
            self,
            Self::Draining { .. }
                | Self::Closing { .. }
                | Self::HandingOver { .. }
                | Self::LameDuck { .. }
                | Self::Stopping { .. }
                | Self::Stopped
                | Self::Failed(_)
        )
    }

    /// Whether a server runs that is meant to go on.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Provisioning { .. } | Self::Ready { .. } | Self::Degraded { .. })
    }

    pub fn is_final(&self) -> bool {
        matches!(self, Self::Stopped | Self::Failed(_))
    }

    pub const fn name(&self) -> &'static str {
        match self {
            Self::Preparing { hindrance: None, .. } | Self::Starting { .. } => "starting",
            // What was promised does not hold, and that no server runs is only a part of it.
            Self::Preparing { hindrance: Some(_), .. } => "degraded",
            Self::Provisioning { .. } => "provisioning",
            Self::Ready { .. } => "ready",
            Self::Degraded { .. } => "degraded",
            Self::Restarting { .. } | Self::BackingOff { .. } => "restarting",
            Self::Draining { .. }
            | Self::Closing { .. }
            | Self::HandingOver { .. }
            | Self::LameDuck { .. }
            | Self::Stopping { .. } => "draining",
            Self::Stopped => "stopped",
            Self::Failed(_) => "failed",
        }
    }

    /// Why the state is not what one would wish.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Degraded { reason, .. }
            | Self::Restarting { reason, .. }
            | Self::BackingOff { reason, .. }
            | Self::Failed(Failure::CrashLoop { reason }) => Some(reason),
            Self::Preparing { hindrance, .. } => hindrance.as_deref(),
            Self::Failed(Failure::PortTaken) => Some("a port is taken"),
            Self::Failed(Failure::ConfigurationRefused) => Some("nats-server refuses its configuration"),
            _ => None,
        }
    }

    /// How long the server has been healthy; being degraded does not count.
    pub fn healthy_for(&self, now: Instant) -> Duration {
        match self {
            Self::Ready { since, .. } => now - *since,
            Self::Degraded { healthy_for, .. } | Self::Restarting { healthy_for, .. } => *healthy_for,
            _ => Duration::ZERO,
        }
    }
}
