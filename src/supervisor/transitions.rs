//! What follows from what: every event in every state has an answer.

use std::time::Duration;

use tokio::time::Instant;

use super::conditions::{ConditionKind, Conditions};
use super::events::{Action, Cause, Event, Failure, RestartReason};
use super::policy::{Decision, RestartPolicy};
use super::reaper::Exit;
use super::state::State;
use crate::domain::Generation;

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
            | Event::Restart(about, ..)
                if self.generation() != Some(about) || !self.is_in_use() =>
            {
                // News about a server that is gone or about to go.
                (self, vec![])
            }
            Event::Answers(_) | Event::ConditionOk(..) | Event::ConditionFailed(..) | Event::Restart(..) => {
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
                Self::BackingOff { last, .. } => successor(last, context),
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
                Self::Preparing { .. } | Self::Restarting { .. } | Self::BackingOff { .. } => self.after_stop(context),
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
            Event::Restart(generation, why, reason) => {
                let healthy_for = self.healthy_for(context.now);
                let next = Self::Restarting { generation, why, reason, healthy_for, killed: false };
                let actions = match why {
                    RestartReason::Hung => vec![Action::Patience, Action::Terminate],
                    RestartReason::Recovery => vec![Action::Deadline, Action::Interrupt],
                };
                (next, actions)
            }
            _ => (self, vec![]),
        }
    }

    fn after_deadline(self) -> (Self, Vec<Action>) {
        match self {
            Self::Restarting { generation, why, reason, healthy_for, killed: false } => {
                let next = Self::Restarting { generation, why, reason, healthy_for, killed: true };
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
                    Self::Restarting { reason, .. } => format!("{reason}; it ended with {exit}"),
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
            Self::Stopped | Self::Failed(_) | Self::BackingOff { .. } => (self, vec![]),
            Self::Restarting { generation, why: RestartReason::Recovery, .. } => successor(generation, context),
            Self::Restarting { generation, .. }
            | Self::Preparing { next: generation, .. }
            | Self::Starting { generation }
            | Self::Provisioning { generation }
            | Self::Ready { generation, .. }
            | Self::Degraded { generation, .. } => {
                match context.policy.on_death(context.now, healthy_for, context.jitter) {
                    Decision::RestartAfter(Duration::ZERO) => successor(generation, context),
                    Decision::RestartAfter(wait) => {
                        context.conditions.forget_server();
                        (Self::BackingOff { last: generation, reason }, vec![Action::Backoff(wait)])
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
            Self::Restarting { generation, killed: false, .. } => {
                (Self::Stopping { generation, killed: false }, vec![Action::Deadline, Action::Interrupt])
            }
            Self::Restarting { generation, killed: true, .. } => {
                (Self::Stopping { generation, killed: true }, vec![Action::Deadline])
            }
            Self::Stopping { .. } => (self, vec![Action::Hurry]),
            Self::Preparing { .. } | Self::BackingOff { .. } => (Self::Stopped, vec![]),
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
