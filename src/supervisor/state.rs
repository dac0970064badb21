//! What follows from what: every event in every state has an answer.

use std::time::Duration;

use tokio::time::Instant;

use super::conditions::{ConditionKind, Conditions};
use super::policy::{Decision, RestartPolicy};
use super::reaper::Exit;
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
    Replacing {
        generation: Generation,
        why: Replacement,
        reason: String,
        /// How long it had been healthy before.
        healthy_for: Duration,
        killed: bool,
    },
    /// No server; the next one is launched when the backoff is over.
    Restarting {
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

#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The restart budget is spent.
    CrashLoop { reason: String },
    /// The very first server could not have its ports.
    PortTaken,
    /// The very first server did not accept its configuration.
    ConfigurationRefused,
}

/// Why a server that runs is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// It does not answer any more. That is a death, which counts against the restart budget.
    Hung,
    /// A fresh start mends it, and nothing is wrong with the server as such.
    Mending,
}

/// What a server's last words were about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cause {
    /// A port that somebody else has.
    PortTaken,
    /// Its configuration: it never began to start.
    Configuration,
    Other,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The server speaks NATS.
    Answers(Generation),
    /// The condition is ok.
    ConditionOk(Generation, ConditionKind),
    /// The condition failed, and why.
    ConditionFailed(Generation, ConditionKind, String),
    /// Another server must take the place of this one.
    Replace(Generation, Replacement, String),
    Exited {
        exit: Exit,
        cause: Cause,
    },
    /// What has to be done before a launch is done.
    Prepared,
    /// What has to be done before a launch cannot be done yet.
    Hindered(String),
    LaunchFailed(String),
    BackoffOver,
    /// A stop is asked for; asked for again it hurries.
    Stop,
    DrainOver,
    /// Nothing is under way over the API any more, or it had its time.
    Closed,
    /// The server leads nothing any more, or had its time for that.
    HandedOver(Generation),
    /// Lame duck mode is asked for, and the end after it.
    LameDuck,
    /// The time for a graceful end is up.
    Deadline,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Do what comes before a launch; report [`Event::Prepared`] or [`Event::Hindered`].
    Prepare,
    Launch,
    /// Report [`Event::BackoffOver`] after this time.
    Backoff(Duration),
    /// Report [`Event::DrainOver`] after the drain delay.
    Drain,
    /// Report [`Event::Closed`] when what is under way over the API had its time.
    Close,
    /// Report [`Event::Deadline`] when the time for a graceful end is up.
    Deadline,
    /// Report [`Event::Deadline`] soon.
    Hurry,
    /// Report [`Event::Deadline`] when a hung server had its chance to end.
    Patience,
    /// Report [`Event::Deadline`] when lame duck mode should long be over.
    LameDuckDeadline,
    /// Ask the server to give up what it leads; report [`Event::HandedOver`] when it had its time.
    HandOver,
    /// Ask the server to enter lame duck mode.
    EnterLameDuck,
    /// Ask a hung server to end.
    Terminate,
    /// Ask the server to stop.
    Interrupt,
    Kill,
}

/// Between two attempts to do what comes before a launch.
const HINDERED: Duration = Duration::from_secs(1);

/// What the transition depends on besides state and event.
pub struct TransitionContext<'a> {
    pub now: Instant,
    pub drain_delay: Duration,
    /// Whether other nodes can take over what the server leads.
    pub clustered: bool,
    pub policy: &'a mut RestartPolicy,
    pub conditions: &'a mut Conditions,
    /// From 0 to 1.
    pub jitter: f64,
    /// Whether any server has been ready since the program started.
    pub ever_ready: bool,
}

impl State {
    /// The server that is running, if one is.
    pub fn generation(&self) -> Option<Generation> {
        match self {
            Self::Starting { generation }
            | Self::Provisioning { generation }
            | Self::Ready { generation, .. }
            | Self::Degraded { generation, .. }
            | Self::Replacing { generation, .. }
            | Self::Draining { generation }
            | Self::Closing { generation }
            | Self::HandingOver { generation }
            | Self::LameDuck { generation }
            | Self::Stopping { generation, .. } => Some(*generation),
            Self::Preparing { .. } | Self::Restarting { .. } | Self::Stopped | Self::Failed(_) => None,
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
            Self::Replacing { .. } | Self::Restarting { .. } => "restarting",
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
            | Self::Replacing { reason, .. }
            | Self::Restarting { reason, .. }
            | Self::Failed(Failure::CrashLoop { reason }) => Some(reason),
            Self::Preparing { hindrance, .. } => hindrance.as_deref(),
            Self::Failed(Failure::PortTaken) => Some("a port is taken"),
            Self::Failed(Failure::ConfigurationRefused) => Some("nats-server refuses its configuration"),
            _ => None,
        }
    }

    /// How long the server has been healthy; being degraded does not count.
    fn healthy_for(&self, now: Instant) -> Duration {
        match self {
            Self::Ready { since, .. } => now - *since,
            Self::Degraded { healthy_for, .. } | Self::Replacing { healthy_for, .. } => *healthy_for,
            _ => Duration::ZERO,
        }
    }

    /// Ready or degraded, whichever the conditions say, for a server that is in use.
    fn by_conditions(self, context: &TransitionContext) -> Self {
        let Some(generation) = self.generation() else { return self };
        if context.conditions.is_empty() {
            return Self::Ready { generation, since: context.now };
        }
        let healthy_for = self.healthy_for(context.now);
        Self::Degraded { generation, reason: context.conditions.reason(), healthy_for }
    }

    /// The state after `event`, and what has to be done.
    pub fn after(self, event: Event, context: &mut TransitionContext) -> (Self, Vec<Action>) {
        match event {
            Event::Answers(about)
            | Event::ConditionOk(about, _)
            | Event::ConditionFailed(about, ..)
            | Event::Replace(about, ..)
                if self.generation() != Some(about) || !self.is_in_use() =>
            {
                // News about a server that is gone or about to go.
                (self, vec![])
            }
            Event::Answers(_) | Event::ConditionOk(..) | Event::ConditionFailed(..) | Event::Replace(..) => {
                self.after_news(event, context)
            }
            Event::Exited { exit, cause } => self.after_exit(exit, cause, context),
            Event::Prepared => match self {
                Self::Preparing { next, .. } => (Self::Starting { generation: next }, vec![Action::Launch]),
                other => (other, vec![]),
            },
            Event::Hindered(reason) => match self {
                Self::Preparing { next, .. } => {
                    (Self::Preparing { next, hindrance: Some(reason) }, vec![Action::Backoff(HINDERED)])
                }
                other => (other, vec![]),
            },
            Event::LaunchFailed(reason) => self.after_death(reason, Duration::ZERO, context),
            Event::BackoffOver => match self {
                Self::Restarting { last, .. } => successor(last, context),
                Self::Preparing { .. } => (self, vec![Action::Prepare]),
                other => (other, vec![]),
            },
            Event::Stop => self.after_stop(context),
            Event::DrainOver => match self {
                Self::Draining { generation } => (Self::Closing { generation }, vec![Action::Close]),
                other => (other, vec![]),
            },
            Event::Closed => match self {
                Self::Closing { generation } => take_leave(generation, context),
                other => (other, vec![]),
            },
            Event::HandedOver(about) => match self {
                Self::HandingOver { generation } if generation == about => interrupt(generation),
                other => (other, vec![]),
            },
            Event::LameDuck => match self {
                Self::Starting { generation }
                | Self::Provisioning { generation }
                | Self::Ready { generation, .. }
                | Self::Degraded { generation, .. } => {
                    (Self::LameDuck { generation }, vec![Action::LameDuckDeadline, Action::EnterLameDuck])
                }
                Self::Preparing { .. } | Self::Replacing { .. } | Self::Restarting { .. } => self.after_stop(context),
                other => (other, vec![]),
            },
            Event::Deadline => self.after_deadline(),
        }
    }

    /// What was seen of the server that is in use.
    fn after_news(self, news: Event, context: &mut TransitionContext) -> (Self, Vec<Action>) {
        match news {
            Event::Answers(generation) => match self {
                Self::Starting { .. } => (Self::Provisioning { generation }, vec![]),
                other => (other, vec![]),
            },
            Event::ConditionOk(_, kind) => {
                context.conditions.clear(kind);
                match self {
                    // In service is what only the one who brings it there can say.
                    Self::Starting { .. } | Self::Provisioning { .. } if kind != ConditionKind::Service => {
                        (self, vec![])
                    }
                    Self::Ready { .. } => (self, vec![]),
                    other => (other.by_conditions(context), vec![]),
                }
            }
            Event::ConditionFailed(_, kind, reason) => {
                context.conditions.set(kind, reason);
                if matches!(self, Self::Starting { .. } | Self::Provisioning { .. }) {
                    context.conditions.presume_out_of_service();
                }
                (self.by_conditions(context), vec![])
            }
            Event::Replace(generation, why, reason) => {
                let healthy_for = self.healthy_for(context.now);
                let next = Self::Replacing { generation, why, reason, healthy_for, killed: false };
                let actions = match why {
                    Replacement::Hung => vec![Action::Patience, Action::Terminate],
                    Replacement::Mending => vec![Action::Deadline, Action::Interrupt],
                };
                (next, actions)
            }
            _ => (self, vec![]),
        }
    }

    fn after_deadline(self) -> (Self, Vec<Action>) {
        match self {
            Self::Replacing { generation, why, reason, healthy_for, killed: false } => {
                let next = Self::Replacing { generation, why, reason, healthy_for, killed: true };
                (next, vec![Action::Kill])
            }
            Self::LameDuck { generation } | Self::HandingOver { generation } => {
                (Self::Stopping { generation, killed: false }, vec![Action::Interrupt, Action::Hurry])
            }
            // The drain delay took the time; the server still gets a moment to stop by itself.
            Self::Draining { generation } | Self::Closing { generation } => {
                (Self::Stopping { generation, killed: false }, vec![Action::Interrupt, Action::Hurry])
            }
            Self::Stopping { generation, killed: false } => {
                (Self::Stopping { generation, killed: true }, vec![Action::Kill, Action::Hurry])
            }
            // Not even SIGKILL ended it (a disk that hangs): it ends with this process.
            Self::Stopping { killed: true, .. } => (Self::Stopped, vec![]),
            other => (other, vec![]),
        }
    }

    fn after_exit(self, exit: Exit, cause: Cause, context: &mut TransitionContext) -> (Self, Vec<Action>) {
        let first_start = !context.ever_ready && !self.is_stopping();
        match cause {
            // Waiting cures neither.
            Cause::PortTaken if first_start => (Self::Failed(Failure::PortTaken), vec![]),
            Cause::Configuration if first_start => (Self::Failed(Failure::ConfigurationRefused), vec![]),
            _ => {
                let healthy_for = self.healthy_for(context.now);
                let reason = match &self {
                    Self::Replacing { reason, .. } => format!("{reason}; it ended with {exit}"),
                    _ => format!("nats-server ended with {exit}"),
                };
                self.after_death(reason, healthy_for, context)
            }
        }
    }

    fn after_death(
        self,
        reason: String,
        healthy_for: Duration,
        context: &mut TransitionContext,
    ) -> (Self, Vec<Action>) {
        match self {
            Self::Draining { .. }
            | Self::Closing { .. }
            | Self::HandingOver { .. }
            | Self::LameDuck { .. }
            | Self::Stopping { .. } => (Self::Stopped, vec![]),
            Self::Stopped | Self::Failed(_) | Self::Restarting { .. } => (self, vec![]),
            Self::Replacing { generation, why: Replacement::Mending, .. } => successor(generation, context),
            Self::Replacing { generation, .. }
            | Self::Preparing { next: generation, .. }
            | Self::Starting { generation }
            | Self::Provisioning { generation }
            | Self::Ready { generation, .. }
            | Self::Degraded { generation, .. } => {
                match context.policy.on_death(context.now, healthy_for, context.jitter) {
                    Decision::RestartAfter(Duration::ZERO) => successor(generation, context),
                    Decision::RestartAfter(wait) => {
                        context.conditions.forget_server();
                        (Self::Restarting { last: generation, reason }, vec![Action::Backoff(wait)])
                    }
                    Decision::GiveUp => (Self::Failed(Failure::CrashLoop { reason }), vec![]),
                }
            }
        }
    }

    fn after_stop(self, context: &mut TransitionContext) -> (Self, Vec<Action>) {
        match self {
            Self::Starting { generation }
            | Self::Provisioning { generation }
            | Self::Ready { generation, .. }
            | Self::Degraded { generation, .. } => {
                if !context.drain_delay.is_zero() {
                    return (Self::Draining { generation }, vec![Action::Deadline, Action::Drain]);
                }
                let (next, actions) = match self {
                    // One that has just been launched serves nobody and leads nothing, and would not
                    // understand.
                    Self::Starting { .. } => interrupt(generation),
                    _ => (Self::Closing { generation }, vec![Action::Close]),
                };
                (next, [vec![Action::Deadline], actions].concat())
            }
            // Who asks again does not want to wait for anybody's request.
            Self::Draining { generation } | Self::Closing { generation } => take_leave(generation, context),
            Self::HandingOver { generation } => interrupt(generation),
            Self::LameDuck { generation } => {
                (Self::Stopping { generation, killed: false }, vec![Action::Deadline, Action::Interrupt])
            }
            Self::Replacing { generation, killed: false, .. } => {
                (Self::Stopping { generation, killed: false }, vec![Action::Deadline, Action::Interrupt])
            }
            Self::Replacing { generation, killed: true, .. } => {
                (Self::Stopping { generation, killed: true }, vec![Action::Deadline])
            }
            Self::Stopping { .. } => (self, vec![Action::Hurry]),
            Self::Preparing { .. } | Self::Restarting { .. } => (Self::Stopped, vec![]),
            Self::Stopped | Self::Failed(_) => (self, vec![]),
        }
    }
}

/// Asks the server to stop, after it has handed over what it leads where others can take it.
fn take_leave(generation: Generation, context: &TransitionContext) -> (State, Vec<Action>) {
    match context.clustered {
        true => (State::HandingOver { generation }, vec![Action::HandOver]),
        false => interrupt(generation),
    }
}

fn interrupt(generation: Generation) -> (State, Vec<Action>) {
    (State::Stopping { generation, killed: false }, vec![Action::Interrupt])
}

fn successor(last: Generation, context: &mut TransitionContext) -> (State, Vec<Action>) {
    context.conditions.forget_server();
    (State::Preparing { next: Generation(last.0 + 1), hindrance: None }, vec![Action::Prepare])
}

#[cfg(test)]
mod tests;
