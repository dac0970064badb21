//! What one receiver has not taken yet, in order. Pure.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::alert::{Fingerprint, Notification};
use super::ledger::MOST_OPEN;

/// Notifications that wait at most. The end of an alert that was taken is never dropped for want of room:
/// there are no more of them than alerts that were open.
const MOST: usize = MOST_OPEN + 56;
/// Between two attempts; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Entry>,
    attempts: u32,
    /// Alerts that were dropped and whose ends have not come yet.
    dropped: BTreeSet<Fingerprint>,
}

#[derive(Debug)]
struct Entry {
    notification: Notification,
    /// The end of an alert that was dropped: nobody misses it.
    is_orphan: bool,
}

impl Queue {
    pub fn of(notifications: Vec<Notification>) -> Self {
        let mut queue = Self::default();
        for notification in notifications {
            queue.push(notification, false);
        }
        queue
    }

    pub fn notifications(&self) -> impl Iterator<Item = &Notification> {
        self.waiting.iter().map(|entry| &entry.notification)
    }

    /// The one whose turn it is.
    pub fn front(&self) -> Option<&Notification> {
        self.waiting.front().map(|entry| &entry.notification)
    }

    /// Adds one at the end; gives what had to make room. The first stays when it `is_on_its_way`.
    pub fn push(&mut self, notification: Notification, is_on_its_way: bool) -> Option<Notification> {
        let is_orphan = notification.is_over && self.dropped.remove(&notification.alert.fingerprint);
        self.waiting.push_back(Entry { notification, is_orphan });
        if self.waiting.len() <= MOST {
            return None;
        }
        let droppable = |(at, entry): (usize, &Entry)| {
            let alert = !entry.notification.is_over;
            ((at > 0 || !is_on_its_way) && (alert || entry.is_orphan)).then_some(at)
        };
        let at = self.waiting.iter().enumerate().find_map(droppable)?;
        let Entry { notification: dropped, .. } = self.waiting.remove(at)?;
        if !dropped.is_over {
            let its_end = |entry: &&mut Entry| {
                entry.notification.is_over && entry.notification.alert.fingerprint == dropped.alert.fingerprint
            };
            match self.waiting.iter_mut().skip(at).find(its_end) {
                Some(end) => end.is_orphan = true,
                None => _ = self.dropped.insert(dropped.alert.fingerprint.clone()),
            }
        }
        Some(dropped)
    }

    /// The first was taken, or never will be.
    pub fn done(&mut self) -> Option<Notification> {
        self.attempts = 0;
        self.waiting.pop_front().map(|entry| entry.notification)
    }

    /// The first was not taken; how long to wait before the next attempt. `jitter` is from 0 to 1 and
    /// shortens the wait by up to a quarter.
    pub fn failed(&mut self, jitter: f64) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.attempts.min(20)).min(LAST_PAUSE);
        self.attempts += 1;
        pause.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0)
    }

    /// Makes the next attempt count as the first.
    pub const fn forgive(&mut self) {
        self.attempts = 0;
    }

    /// Whether the first has not been tried in vain yet.
    pub const fn is_fresh(&self) -> bool {
        self.attempts == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::alert::{Alert, AlertKind, Fingerprint, Severity};

    fn notification(object: usize, is_over: bool) -> Notification {
        let (kind, object, text) = (AlertKind::ConsumerLag, object.to_string(), String::new);
        let alert = Alert {
            fingerprint: Fingerprint::of("n", kind, &object),
            kind,
            object,
            severity: Severity::Info,
            since: text(),
            server: text(),
            host: text(),
            summary: text(),
            action: text(),
        };
        Notification { alert, is_over, at: text() }
    }

    fn is(notification: &Notification, object: usize, is_over: bool) -> bool {
        notification.alert.object == object.to_string() && notification.is_over == is_over
    }

    #[test]
    fn pauses_double_and_begin_anew_with_the_next() {
        let mut queue = Queue::of(vec![notification(1, false), notification(2, false)]);
        let pauses: Vec<_> = (0..10).map(|_| queue.failed(0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(queue.failed(1.0), Duration::from_secs(225));
        assert!(!queue.is_fresh());
        assert!(is(&queue.done().unwrap(), 1, false) && queue.is_fresh());
        assert_eq!(queue.failed(0.0).as_secs(), 1);
    }

    #[test]
    fn without_room_the_oldest_alert_goes_and_its_end_comes_all_the_same() {
        let mut queue = Queue::default();
        assert!(queue.push(notification(0, false), false).is_none());
        assert!(queue.push(notification(0, true), true).is_none());
        for object in 1..MOST - 1 {
            assert!(queue.push(notification(object, false), true).is_none(), "{object}");
        }
        assert!(is(&queue.push(notification(MOST, false), true).unwrap(), 1, false), "the first is on its way");
        assert!(is(&queue.push(notification(1, true), false).unwrap(), 0, false));
        assert!(is(queue.front().unwrap(), 0, true), "the end of what was dropped");
        assert!(is(&queue.push(notification(MOST + 1, false), true).unwrap(), 2, false));
        let last = queue.notifications().last().unwrap();
        assert!(is(last, MOST + 1, false), "nothing overtakes");
        assert_eq!(queue.notifications().count(), MOST);
    }

    #[test]
    fn a_receiver_that_is_down_for_ever_costs_no_more_than_that() {
        let mut queue = Queue::default();
        for object in 0..10 * MOST {
            queue.push(notification(object, false), true);
            queue.push(notification(object, true), true);
        }
        assert_eq!((queue.notifications().count(), queue.dropped.len()), (MOST, 0));
        let newest = queue.notifications().any(|notification| is(notification, 10 * MOST - 1, false));
        assert!(newest, "what is new has room");
    }

    #[test]
    fn ends_of_alerts_that_were_told_are_kept() {
        let mut queue = Queue::default();
        for object in 0..MOST_OPEN {
            queue.push(notification(object, true), false);
        }
        for object in 0..2 * MOST {
            queue.push(notification(object, false), false);
        }
        let ends = queue.notifications().filter(|notification| notification.is_over).count();
        assert_eq!((ends, queue.notifications().count()), (MOST_OPEN, MOST));
    }
}
