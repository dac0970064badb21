//! How many messages a consumer of a whole stream was never sent, because the stream had removed them by then.
//! Pure.
//!
//! nats-server counts what it sends to a consumer and says how far in the stream that has got. Where that went
//! further than what was sent, messages were not there any more, whatever removed them: a limit, their age, a
//! newer one of their subject, a deletion or a purge (measured on 2.10 to 2.15; a purge moves the consumer on).
//! What stands before the first message of the stream it will not be sent either, and neither what has been
//! removed further on. What had been removed before the consumer was first seen is none of its losses.

use std::cmp::min;

/// What nats-server says of a consumer and of its stream. The stream is looked at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Of the stream.
    pub first: u64,
    pub last: u64,
    pub messages: u64,
    /// How far in the stream the consumer has been sent messages.
    pub delivered: u64,
    /// Messages that it has been sent, again or not.
    pub deliveries: u64,
    /// Messages that it was sent more than once and has not acknowledged.
    pub redelivered: u64,
    /// Messages that it will still be sent.
    pub pending: u64,
}

impl Look {
    /// Up to here everything was sent or will not be.
    fn position(&self) -> u64 {
        self.delivered.max(self.first.saturating_sub(1))
    }

    /// Sequences from the first message on that hold none.
    pub fn holes(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first).saturating_sub(self.messages)
    }

    /// Those of them that the consumer has yet to pass.
    fn holes_ahead(&self) -> u64 {
        if self.position() < self.first {
            return self.holes();
        }
        // What has come since the stream was looked at makes them fewer.
        min(self.holes(), self.last.saturating_sub(self.position()).saturating_sub(self.pending))
    }
}

/// What has been found of one consumer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    /// What was so the last time, or the time before where it did not fit together.
    before: Option<Look>,
    is_doubted: bool,
    /// Messages that it was not sent, up to where it is.
    passed: u64,
    /// The same and what is gone further on.
    gone: u64,
    /// Holes that were there when it was first seen.
    old: u64,
    total: u64,
}

impl Losses {
    /// Messages; never fewer than before.
    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn see(&mut self, now: Look) {
        let Some(before) = self.before else {
            self.total = now.position() - now.delivered;
            return self.begin(now);
        };
        let is_another = now.position() < before.position() || now.deliveries < before.deliveries;
        if is_another || now.last < before.last {
            // Somebody sent it back, or a server has forgotten the last it did: what lies between nobody knows.
            return self.begin(now);
        }
        let again = now.redelivered.saturating_sub(before.redelivered);
        let sent = (now.deliveries - before.deliveries).saturating_sub(again);
        let skipped = (now.position() - before.position()).saturating_sub(sent);
        // Whom somebody tells to go on elsewhere skips messages that are there.
        let prefix = now.first.saturating_sub(1).saturating_sub(before.position());
        let missing = min(skipped, prefix + now.holes());
        if missing < skipped && !self.is_doubted {
            // The consumer may be of a later moment than the stream: the next look tells.
            self.is_doubted = true;
            return;
        }
        self.is_doubted = false;
        self.passed += missing;
        let gone = self.passed + now.holes_ahead();
        // Behind the first message a message that has just come looks like a hole for a moment; what is so
        // twice is one.
        let is_exact = now.position() < now.first;
        let sure = if is_exact { gone } else { self.passed.max(min(gone, self.gone)) };
        self.gone = gone;
        self.total = self.total.max(sure.saturating_sub(self.old));
        self.before = Some(now);
    }

    /// Goes on from here with what is known.
    fn begin(&mut self, now: Look) {
        (self.passed, self.old) = (self.total, now.holes_ahead());
        self.gone = self.passed + self.old;
        self.is_doubted = false;
        self.before = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn look(first: u64, last: u64, messages: u64, delivered: u64, deliveries: u64, pending: u64) -> Look {
        Look { first, last, messages, delivered, deliveries, redelivered: 0, pending }
    }

    /// What each look says, one after the other.
    fn totals(looks: &[Look]) -> Vec<u64> {
        let mut losses = Losses::default();
        let see = |now: &Look| {
            losses.see(*now);
            losses.total()
        };
        looks.iter().map(see).collect()
    }

    /// The numbers are those that nats-server 2.10.26, 2.12.8 and 2.15.1 gave: eight messages, four sent.
    #[test]
    fn whatever_removes_what_was_not_sent_is_seen() {
        let before = look(1, 8, 8, 4, 4, 4);
        for (what, after, lost) in [
            ("a limit", look(14, 23, 10, 4, 4, 10), 9),
            ("a purge", look(9, 8, 0, 8, 4, 0), 4),
            ("a purge that keeps two", look(7, 8, 2, 6, 4, 2), 2),
            ("a purge of a subject", look(1, 8, 4, 4, 4, 2), 2),
            ("deletions", look(3, 8, 3, 4, 4, 2), 2),
            ("newer ones of the subject", look(3, 12, 8, 4, 4, 7), 1),
            ("their age", look(9, 8, 0, 4, 4, 0), 4),
        ] {
            // What is gone behind the first message counts when it is seen twice.
            assert_eq!(totals(&[before, after, after])[2], lost, "{what}");
        }
        assert_eq!(totals(&[before, look(14, 23, 10, 4, 4, 10), look(14, 23, 10, 15, 6, 8)]), [0, 9, 9]);
        assert_eq!(totals(&[before, look(1, 8, 4, 4, 4, 2), look(1, 8, 4, 7, 6, 0)]), [0, 0, 2]);
    }

    #[test]
    fn a_reader_that_goes_on_has_lost_what_it_skipped() {
        // Of a thousand that came between two looks it was sent ten.
        let looks = [look(1, 100, 100, 50, 50, 50), look(1001, 1100, 100, 1010, 60, 90)];
        assert_eq!(totals(&looks), [0, 950]);
        // Both have been removed in order once it had them.
        assert_eq!(totals(&[look(1, 100, 100, 50, 50, 50), look(51, 150, 100, 150, 150, 0)]), [0, 0]);
    }

    #[test]
    fn what_was_gone_before_it_was_seen_is_no_loss_but_what_it_will_not_be_sent_any_more() {
        assert_eq!(totals(&[look(11, 20, 5, 10, 0, 5), look(11, 20, 5, 20, 5, 0)]), [0, 0], "holes of before");
        assert_eq!(totals(&[look(31, 40, 10, 20, 20, 10)]), [10]);
    }

    #[test]
    fn messages_that_come_again_are_no_news_and_hide_as_many_losses_at_most() {
        let again = Look { redelivered: 3, ..look(1, 20, 20, 10, 13, 10) };
        assert_eq!(totals(&[look(1, 20, 20, 10, 10, 10), again]), [0, 0]);
        let skips = Look { redelivered: 3, ..look(16, 25, 10, 16, 14, 9) };
        assert_eq!(totals(&[look(1, 20, 20, 10, 10, 10), skips]), [0, 5], "three of the four it had been sent before");
    }

    #[test]
    fn a_consumer_that_is_sent_elsewhere_has_lost_nothing() {
        let back = look(1, 20, 20, 3, 10, 17);
        let on = look(1, 20, 20, 15, 10, 5);
        assert_eq!(totals(&[look(1, 20, 20, 10, 10, 10), back, on, on]), [0, 0, 0, 0]);
        // Its server was looked at a moment before a purge, and the consumer after it.
        let between = look(1, 20, 20, 20, 10, 0);
        assert_eq!(totals(&[look(1, 20, 20, 10, 10, 10), between, look(21, 20, 0, 20, 10, 0)]), [0, 0, 10]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Publish(u8),
        Read(u8),
        Delete(u8),
        Trim(u8),
        See,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1u8..20).prop_map(Step::Publish),
            (1u8..10).prop_map(Step::Read),
            any::<u8>().prop_map(Step::Delete),
            (0u8..20).prop_map(Step::Trim),
            Just(Step::See),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        /// Against a stream and a reader that are counted in full.
        #[test]
        fn it_is_never_more_than_what_was_lost_and_all_of_it_in_the_end(steps in steps()) {
            let (mut held, mut last, mut delivered, mut deliveries, mut lost) = (BTreeSet::new(), 0u64, 0u64, 0u64, 0u64);
            let mut losses = Losses::default();
            let look = |held: &BTreeSet<u64>, last: u64, delivered: u64, deliveries: u64| Look {
                first: held.first().copied().unwrap_or(last + 1), last, messages: held.len() as u64, delivered, deliveries,
                redelivered: 0, pending: held.range(delivered + 1..).count() as u64,
            };
            losses.see(look(&held, last, delivered, deliveries));
            for step in steps {
                match step {
                    Step::Publish(count) => for _ in 0..count { last += 1; held.insert(last); },
                    Step::Read(count) => for _ in 0..count {
                        let Some(next) = held.range(delivered + 1..).next().copied() else { break };
                        (delivered, deliveries) = (next, deliveries + 1);
                    },
                    Step::Delete(at) => if let Some(one) = held.iter().nth(usize::from(at) % held.len().max(1)).copied() {
                        held.remove(&one);
                        lost += u64::from(one > delivered);
                    },
                    Step::Trim(most) => while held.len() > usize::from(most) {
                        let one = held.pop_first().unwrap();
                        lost += u64::from(one > delivered);
                    },
                    Step::See => losses.see(look(&held, last, delivered, deliveries)),
                }
                prop_assert!(losses.total() <= lost, "{} of {lost}", losses.total());
            }
            for _ in 0..2 {
                losses.see(look(&held, last, delivered, deliveries));
            }
            prop_assert_eq!(losses.total(), lost);
        }
    }
}
