//! What happens to a supervisor, and what it has to do then.

use std::time::Duration;

use super::conditions::ConditionKind;
use super::reaper::Exit;
use crate::domain::Generation;

#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The restart budget is spent.
    CrashLoop { reason: String },
    /// The very first server could not have its ports.
    PortTaken,
    /// The very first server did not accept its configuration.
    ConfigurationRefused,
}

/// Why a server that runs is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartReason {
    /// It does not answer any more. That is a death, which counts against the restart budget.
    Hung,
    /// A fresh start recovers something, and nothing is wrong with the server as such.
    Recovery,
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
    Restart(Generation, RestartReason, String),
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
