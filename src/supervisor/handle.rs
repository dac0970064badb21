use std::sync::Arc;

use nix::unistd::Pid;
use tokio::sync::{Notify, mpsc, watch};

use super::state::{Event, Generation, State};

/// What can be seen of the supervisor from outside.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub state: State,
    pub pid: Option<Pid>,
    /// Servers launched beyond the first.
    pub restarts: u64,
    /// Whether the broker has been ready since the program started.
    pub ever_ready: bool,
}

/// Sends what happened elsewhere to the task that owns the server, and watches its state.
#[derive(Clone)]
pub struct Handle {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) snapshots: watch::Receiver<Snapshot>,
    pub(super) ready_line: Arc<Notify>,
}

impl Handle {
    pub async fn answers(&self, generation: Generation) {
        self.send(Event::Answers(generation)).await;
    }

    pub async fn sound(&self, generation: Generation) {
        self.send(Event::Sound(generation)).await;
    }

    pub async fn impaired(&self, generation: Generation, reason: String) {
        self.send(Event::Impaired(generation, reason)).await;
    }

    /// Asks for a graceful stop; asked for again it hurries.
    pub async fn stop(&self) {
        self.send(Event::Stop).await;
    }

    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }

    /// Whether the task that owns the server has ended, in whatever way.
    pub fn is_over(&self) -> bool {
        self.events.is_closed()
    }

    /// Wakes when the server prints that it is ready. Only a hint when to look: whether it is ready
    /// is told by its answers.
    pub fn ready_line(&self) -> &Notify {
        &self.ready_line
    }

    async fn send(&self, event: Event) {
        // A task that has ended has nothing left to do about it.
        let _ = self.events.send(event).await;
    }
}
