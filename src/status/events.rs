use std::collections::VecDeque;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// Events kept at most.
const MOST: usize = 1000;
/// Characters of a reason kept at most.
const LONGEST: usize = 500;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: SystemTime,
    pub kind: EventKind,
    /// What became of what: a state, the type of a condition, a stream.
    pub what: String,
    pub why: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The supervisor entered another state.
    State,
    /// The verdict changed.
    Verdict,
    /// A condition failed, or holds again.
    Condition,
    /// A reload took or was refused.
    Reload,
    /// A stream or consumer was repaired.
    Repair,
    /// A stream was restored from a snapshot.
    StreamRestored,
}

/// The last of them, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events(VecDeque<Event>);

impl Events {
    pub fn push(&mut self, at: SystemTime, kind: EventKind, what: impl Into<String>, why: Option<String>) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        let why = why.map(|why| match why.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &why[..end]),
            None => why,
        });
        self.0.push_back(Event { at, kind, what: what.into(), why });
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_long_reasons_are_cut() {
        let mut events = Events::default();
        for number in 0..MOST + 2 {
            events.push(SystemTime::UNIX_EPOCH, EventKind::State, number.to_string(), Some("é".repeat(LONGEST)));
        }
        assert_eq!(events.iter().count(), MOST);
        assert_eq!(events.iter().next().unwrap().what, "2");
        assert_eq!(events.iter().next().unwrap().why, Some("é".repeat(LONGEST)));
        events.push(SystemTime::UNIX_EPOCH, EventKind::State, "x", Some("é".repeat(LONGEST + 1)));
        let why = events.iter().next_back().unwrap().why.clone().unwrap();
        assert_eq!(why.chars().count(), LONGEST + 1);
        assert!(why.ends_with('…'));
    }
}
