use std::future;

use tokio::time::{Instant, sleep_until};

use super::events::Event;

/// Times at which events are due.
#[derive(Default)]
pub(super) struct WakeUps(Vec<(Instant, Event)>);

impl WakeUps {
    pub(super) fn set(&mut self, at: Instant, event: Event) {
        self.0.retain(|(_, other)| *other != event);
        self.0.push((at, event));
    }

    /// Brings an event forward, or sets it; it is never put off.
    pub(super) fn advance(&mut self, at: Instant, event: Event) {
        let due = self.0.iter().find(|(_, other)| *other == event).map_or(at, |(due, _)| at.min(*due));
        self.set(due, event);
    }

    pub(super) fn cancel(&mut self, event: &Event) {
        self.0.retain(|(_, other)| other != event);
    }

    pub(super) async fn next(&mut self) -> Event {
        let Some(first) = (0..self.0.len()).min_by_key(|index| self.0[*index].0) else {
            return future::pending().await;
        };
        sleep_until(self.0[first].0).await;
        self.0.swap_remove(first).1
    }
}
