//! Brings notifications to one receiver: one at a time, in order, again and again until it takes them.

use std::time::Duration;

use tokio::time::Instant;

use super::alert::Notification;
use super::counts::{AlertCounts, SendResult};
use super::queue::Queue;
use super::sinks::{SendError, Sink};

pub struct Courier {
    pub sink: Sink,
    queue: Queue,
    state: State,
    /// The receiver took nothing lately.
    is_failing: bool,
    counts: AlertCounts,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// An attempt is under way.
    Sending,
    /// The next attempt is at that time.
    Waiting(Instant),
}

impl Courier {
    pub fn new(sink: Sink, waiting: Vec<Notification>, counts: AlertCounts) -> Self {
        Self { sink, queue: Queue::of(waiting), state: State::Idle, is_failing: false, counts }
    }

    /// The same for a receiver at another address; what is under way to the old one counts all the same.
    pub fn readdress(&mut self, sink: Sink) {
        self.sink = sink;
        if let State::Waiting(_) = self.state {
            self.state = State::Idle;
        }
    }

    pub fn push(&mut self, notification: Notification) {
        if let Some(dropped) = self.queue.push(notification, self.state == State::Sending) {
            self.counts.count(dropped.kind(), self.sink.kind, SendResult::Dropped);
        }
    }

    /// What is to be sent now, if something is.
    pub fn take(&mut self, now: Instant) -> Option<(Sink, Notification)> {
        let is_due = match self.state {
            State::Idle => true,
            State::Sending => false,
            State::Waiting(until) => until <= now,
        };
        let next = self.queue.front().filter(|_| is_due)?.clone();
        self.state = State::Sending;
        Some((self.sink.clone(), next))
    }

    /// The same before its time, for a last attempt; nothing where one has just failed.
    pub fn take_last(&mut self, now: Instant) -> Option<(Sink, Notification)> {
        self.queue.is_fresh().then(|| self.take(now)).flatten()
    }

    /// Has the next attempt made at once.
    pub fn hurry(&mut self) {
        if let State::Waiting(_) = self.state {
            self.state = State::Idle;
            self.queue.forgive();
        }
    }

    /// What became of the one that was taken.
    pub fn sent(&mut self, outcome: Result<(), SendError>, now: Instant) {
        let kind = self.sink.kind;
        let count = |notification: Option<&Notification>, result| {
            if let Some(notification) = notification {
                self.counts.count(notification.kind(), kind, result);
            }
        };
        self.state = State::Idle;
        match outcome {
            Ok(()) => {
                count(self.queue.done().as_ref(), SendResult::Sent);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("{kind} takes alerts again");
                }
            }
            Err(SendError::Refused(reason)) => {
                let refused = self.queue.done();
                count(refused.as_ref(), SendResult::Refused);
                let title = refused.map(|refused| refused.headline()).unwrap_or_default();
                tracing::warn!("cannot send an alert by {kind}, and it is not tried again: {reason}: {title}");
            }
            Err(SendError::Failed(reason)) => {
                count(self.queue.front(), SendResult::Failed);
                let pause = self.queue.failed(fastrand::f64());
                self.state = State::Waiting(now + pause);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!("cannot send an alert by {kind}, and it is tried again until that works: {reason}");
                }
            }
        }
    }

    /// When something is to be done, at the latest.
    pub fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(until) => Some(until),
            State::Idle | State::Sending => None,
        }
    }

    pub fn is_sending(&self) -> bool {
        self.state == State::Sending
    }

    pub fn waiting(&self) -> Vec<Notification> {
        self.queue.notifications().cloned().collect()
    }
}

/// Time for what is under way when the program ends.
pub const LAST_SEND: Duration = Duration::from_secs(2);
