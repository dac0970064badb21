use std::io;
use std::time::SystemTime;

use nix::unistd::Pid;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::conditions::{ConditionKind, Conditions};
use super::events::{Event, RestartReason};
use super::output::Notice;
use super::restarts::Restarts;
use super::state::State;
use crate::domain::Generation;
use crate::files::FileContent;

/// What can be seen of the supervisor from outside.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub state: State,
    /// Whether a server is launched, or attached to where others run it.
    pub running: bool,
    pub pid: Option<Pid>,
    /// Servers launched beyond the first.
    pub restarts: u64,
    pub restarts_by: Restarts,
    /// When the last ones were, as far as they count against those that are allowed.
    pub recent_restarts: Vec<Instant>,
    /// What does not hold.
    pub conditions: Conditions,
    /// Whether the broker has been ready since the program started.
    pub ever_ready: bool,
}

/// The supervisor has entered another state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub at: SystemTime,
    pub state: &'static str,
    /// Why it is not what one would wish.
    pub reason: Option<String>,
    /// The server that runs, was launched last, or is launched next.
    pub generation: Option<Generation>,
}

/// What the task that owns the server is asked for.
pub(super) enum Message {
    Event(Event),
    Install { files: Vec<FileContent>, done: oneshot::Sender<io::Result<Installed>> },
    ReopenLogs,
}

/// What became of a configuration that was put in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// This server was asked to reload it.
    Signalled(Generation),
    /// No server runs that could be asked; the next one reads it.
    ForTheNextLaunch,
}

/// Sends what happened elsewhere to the task that owns the server, and watches its state.
#[derive(Clone)]
pub struct Handle {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) snapshots: watch::Receiver<Snapshot>,
    pub(super) notices: broadcast::Sender<Notice>,
    pub(super) transitions: broadcast::Sender<Transition>,
}

impl Handle {
    pub async fn answers(&self, generation: Generation) {
        self.send(Event::Answers(generation)).await;
    }

    /// The condition is ok.
    pub async fn report_ok(&self, generation: Generation, kind: ConditionKind) {
        self.send(Event::ConditionOk(generation, kind)).await;
    }

    /// The condition failed, until it is reported ok.
    pub async fn report_failed(&self, generation: Generation, kind: ConditionKind, reason: String) {
        self.send(Event::ConditionFailed(generation, kind, reason)).await;
    }

    /// Has another server take the place of that one.
    pub async fn restart(&self, generation: Generation, why: RestartReason, reason: String) {
        self.send(Event::Restart(generation, why, reason)).await;
    }

    /// Nothing is under way over the API any more.
    pub async fn closed(&self) {
        self.send(Event::Closed).await;
    }

    /// That server leads nothing any more.
    pub async fn handed_over(&self, generation: Generation) {
        self.send(Event::HandedOver(generation)).await;
    }

    /// Asks for a graceful stop; asked for again it hurries.
    pub async fn stop(&self) {
        self.send(Event::Stop).await;
    }

    /// Asks for lame duck mode, and the end after it.
    pub async fn lame_duck(&self) {
        self.send(Event::LameDuck).await;
    }

    /// Writes nats.conf and what it names, and asks the server to reload it. Whether it took is for the
    /// caller to see.
    pub async fn install(&self, files: Vec<FileContent>) -> io::Result<Installed> {
        let (done, answer) = oneshot::channel();
        let _ = self.messages.send(Message::Install { files, done }).await;
        answer.await.unwrap_or_else(|_| Err(io::Error::other("the supervisor is stopping")))
    }

    pub async fn reopen_logs(&self) {
        let _ = self.messages.send(Message::ReopenLogs).await;
    }

    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }

    /// The states that it enters from now on, each of them.
    pub fn transitions(&self) -> broadcast::Receiver<Transition> {
        self.transitions.subscribe()
    }

    /// Whether the task that owns the server has ended, in whatever way.
    pub fn is_over(&self) -> bool {
        self.messages.is_closed()
    }

    /// What the server prints from now on, as far as it means something to us. Only hints when to
    /// look: what holds is told by its answers.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    async fn send(&self, event: Event) {
        // A task that has ended has nothing left to do about it.
        let _ = self.messages.send(Message::Event(event)).await;
    }
}
