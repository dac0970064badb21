//! How the producers fare, as far as others must know while they work.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What clients can do at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientView {
    /// Nothing was acknowledged since then, although somebody has been waiting for it all the time.
    pub blocked_since: Option<Instant>,
    /// Everything was acknowledged since then, without a pause worth speaking of.
    pub served_since: Option<Instant>,
}

/// A gap of this length ends being served.
const GAP: Duration = Duration::from_millis(500);

pub struct Progress(Mutex<Inner>);

struct Inner {
    /// For each producer: since when it has been waiting for its message's acknowledgement.
    waiting: Vec<Option<Instant>>,
    last_acknowledged: Option<Instant>,
    served_since: Option<Instant>,
    acknowledged: u64,
    longest_gap: Duration,
    last_sequence: u64,
    violations: Vec<String>,
}

impl Progress {
    pub fn new(producers: u16) -> Self {
        Self(Mutex::new(Inner {
            waiting: vec![None; usize::from(producers)],
            last_acknowledged: None,
            served_since: None,
            acknowledged: 0,
            longest_gap: Duration::ZERO,
            last_sequence: 0,
            violations: Vec::new(),
        }))
    }

    pub fn attempt(&self, producer: u16) {
        self.0.lock().unwrap().waiting[usize::from(producer)].get_or_insert_with(Instant::now);
    }

    pub fn failed(&self) {
        self.0.lock().unwrap().served_since = None;
    }

    pub fn acknowledged(&self, producer: u16, sequence: u64) {
        let mut inner = self.0.lock().unwrap();
        let now = Instant::now();
        if inner.last_acknowledged.is_none_or(|last| now - last > GAP) {
            inner.served_since = None;
        }
        let gap = inner.last_acknowledged.map_or(Duration::ZERO, |last| now - last);
        inner.longest_gap = inner.longest_gap.max(gap);
        inner.served_since.get_or_insert(now);
        inner.last_acknowledged = Some(now);
        inner.waiting[usize::from(producer)] = None;
        inner.acknowledged += 1;
        inner.last_sequence = inner.last_sequence.max(sequence);
    }

    /// The stream's end as far as anybody has been told.
    pub fn known_sequence(&self) -> u64 {
        self.0.lock().unwrap().last_sequence
    }

    /// What the stream's end is, told to somebody who knew of `known` when asking.
    pub fn last_sequence(&self, known: u64, last: u64) {
        let mut inner = self.0.lock().unwrap();
        if last < known {
            inner.violations.push(format!("the last sequence went back from {known} to {last}"));
        }
        inner.last_sequence = inner.last_sequence.max(last);
    }

    pub fn count(&self) -> u64 {
        self.0.lock().unwrap().acknowledged
    }

    /// The longest time between two acknowledgements, whoever got them.
    pub fn longest_gap(&self) -> Duration {
        self.0.lock().unwrap().longest_gap
    }

    pub fn violations(&self) -> Vec<String> {
        self.0.lock().unwrap().violations.clone()
    }

    pub fn view(&self) -> ClientView {
        let inner = self.0.lock().unwrap();
        let waiting = inner.waiting.iter().flatten().min();
        let blocked_since = waiting.map(|since| inner.last_acknowledged.map_or(*since, |last| last.max(*since)));
        let fresh = inner.last_acknowledged.is_some_and(|last| last.elapsed() < GAP);
        ClientView { blocked_since, served_since: inner.served_since.filter(|_| fresh) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_blocked_until_anybody_is_served() {
        let progress = Progress::new(2);
        assert!(progress.view().blocked_since.is_none());
        progress.attempt(0);
        progress.attempt(1);
        let blocked = progress.view().blocked_since.unwrap();
        progress.acknowledged(0, 1);
        let view = progress.view();
        assert!(view.blocked_since.unwrap() > blocked && view.served_since.is_some());
        progress.failed();
        assert!(progress.view().served_since.is_none());
    }

    #[test]
    fn an_end_that_goes_back_is_found() {
        let progress = Progress::new(1);
        progress.acknowledged(0, 7);
        progress.last_sequence(progress.known_sequence(), 9);
        // Asked before the others were told of 9.
        progress.last_sequence(7, 8);
        assert_eq!(progress.violations().len(), 0);
        progress.last_sequence(progress.known_sequence(), 8);
        assert_eq!(progress.violations().len(), 1);
    }
}
