//! What must hold whatever happened: judged from the ledger and from what a client reads back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::ledger::Acknowledged;
use super::message::Identity;

/// A message as a client reads it.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    pub sequence: u64,
    pub message: Identity,
    /// Its bytes are those that were sent.
    pub intact: bool,
}

/// What a client sees of the whole stream, in its order.
#[derive(Debug, Default)]
pub struct Contents {
    pub last_sequence: u64,
    pub messages: Vec<Stored>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    pub acknowledged: usize,
    pub stored: usize,
    /// Acknowledged and not readable as it was sent.
    pub lost: usize,
    /// Stored again inside the duplicate window; no run lasts longer than that between two attempts.
    pub duplicates: usize,
    /// Behind a later message of the same producer.
    pub out_of_order: usize,
    /// Acknowledged with a sequence at which the message is not, or that lies behind the end.
    pub sequences_taken_back: usize,
    /// One for each kind of finding, with an example.
    pub violations: Vec<String>,
}

impl Findings {
    pub fn of(ledger: &[Acknowledged], contents: &Contents) -> Self {
        let mut findings = Self { acknowledged: ledger.len(), stored: contents.messages.len(), ..Self::default() };
        let mut readable: HashMap<Identity, Stored> = HashMap::with_capacity(contents.messages.len());
        findings.count_duplicates_and_order(contents, &mut readable);
        findings.count_lost(ledger, &readable);
        findings.count_sequences(ledger, contents.last_sequence, &readable);
        findings
    }

    fn count_duplicates_and_order(&mut self, contents: &Contents, readable: &mut HashMap<Identity, Stored>) {
        let mut last: HashMap<u16, u64> = HashMap::new();
        let (mut duplicate, mut behind) = (None, None);
        for stored in &contents.messages {
            match readable.entry(stored.message) {
                Entry::Occupied(_) => {
                    self.duplicates += 1;
                    duplicate.get_or_insert(stored);
                    continue;
                }
                Entry::Vacant(first) => first.insert(*stored),
            };
            let last = last.entry(stored.message.producer).or_default();
            if stored.message.n < *last {
                self.out_of_order += 1;
                behind.get_or_insert(stored);
            }
            *last = stored.message.n.max(*last);
        }
        self.tell(self.duplicates, "messages are stored twice", duplicate);
        self.tell(self.out_of_order, "messages are behind a later one of their producer", behind);
    }

    fn count_lost(&mut self, ledger: &[Acknowledged], readable: &HashMap<Identity, Stored>) {
        let lost: Vec<_> =
            ledger.iter().filter(|entry| !readable.get(&entry.message).is_some_and(|stored| stored.intact)).collect();
        self.lost = lost.len();
        self.tell(self.lost, "acknowledged messages cannot be read", lost.first());
    }

    fn count_sequences(&mut self, ledger: &[Acknowledged], last: u64, readable: &HashMap<Identity, Stored>) {
        let elsewhere = |entry: &&Acknowledged| {
            let stored = readable.get(&entry.message);
            entry.sequence > last || stored.is_some_and(|stored| stored.sequence != entry.sequence)
        };
        let told = ledger.iter().filter(|entry| entry.sequence > 0);
        let taken_back: Vec<_> = told.filter(elsewhere).collect();
        self.sequences_taken_back = taken_back.len();
        self.tell(self.sequences_taken_back, "acknowledged sequences were taken back", taken_back.first());
    }

    fn tell(&mut self, count: usize, what: &str, example: Option<impl std::fmt::Debug>) {
        if let Some(example) = example {
            self.violations.push(format!("{count} {what}, such as {example:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: u64) -> Identity {
        Identity { producer: 1, n }
    }

    fn ledger(count: u64) -> Vec<Acknowledged> {
        (0..count).map(|n| Acknowledged { message: message(n), sequence: n + 1 }).collect()
    }

    fn contents(messages: &[u64]) -> Contents {
        let stored =
            |(index, n): (usize, &u64)| Stored { sequence: index as u64 + 1, message: message(*n), intact: true };
        Contents { last_sequence: messages.len() as u64, messages: messages.iter().enumerate().map(stored).collect() }
    }

    fn findings(acknowledged: u64, stored: &[u64]) -> Findings {
        Findings::of(&ledger(acknowledged), &contents(stored))
    }

    #[test]
    fn what_was_acknowledged_may_have_company() {
        assert_eq!(findings(3, &[0, 1, 2, 3]).violations, [""; 0]);
    }

    #[test]
    fn a_lost_message_is_found() {
        let mut stored = contents(&[0, 1, 2]);
        stored.messages.remove(1);
        let findings = Findings::of(&ledger(3), &stored);
        assert_eq!((findings.lost, findings.violations.len()), (1, 1), "{findings:?}");
    }

    #[test]
    fn a_damaged_message_is_lost() {
        let mut stored = contents(&[0, 1, 2]);
        stored.messages[1].intact = false;
        let findings = Findings::of(&ledger(3), &stored);
        assert_eq!((findings.lost, findings.violations.len()), (1, 1), "{findings:?}");
    }

    #[test]
    fn a_message_stored_twice_is_found() {
        let findings = findings(3, &[0, 1, 2, 1]);
        assert_eq!((findings.duplicates, findings.out_of_order, findings.violations.len()), (1, 0, 1), "{findings:?}");
    }

    #[test]
    fn a_message_behind_a_later_one_is_found() {
        let findings = findings(3, &[0, 2, 1]);
        assert_eq!(findings.out_of_order, 1, "{findings:?}");
    }

    #[test]
    fn a_message_at_another_sequence_than_acknowledged_is_found() {
        let mut ledger = ledger(3);
        ledger[2].sequence = 2;
        let findings = Findings::of(&ledger, &contents(&[0, 1, 2]));
        assert_eq!((findings.sequences_taken_back, findings.violations.len()), (1, 1), "{findings:?}");
    }

    #[test]
    fn an_end_before_an_acknowledged_sequence_is_found() {
        let mut stored = contents(&[0, 1, 2]);
        stored.last_sequence = 2;
        assert_eq!(Findings::of(&ledger(3), &stored).sequences_taken_back, 1);
    }
}
