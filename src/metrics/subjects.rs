//! The busiest and the quietest subjects, from one count of messages to the next. Pure.
//!
//! What a subject has gained between two counts is its rate. When it gained last is known as exactly as counts
//! follow each other, ten seconds at most. How long it is usually silent is learned, so that a subject that
//! sends once an hour is not taken for dead, and one that sends ten times a second is after a minute.
//!
//! The two spellings of a subject are one: while clients move from one to the other neither has fallen silent.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::exposition::{Families, Kind, Labels, Metric};
use crate::domain::DataType;

/// How much a new interval counts against those before.
const WEIGHT: f64 = 0.1;
/// Messages after which a subject's rhythm counts as learned.
const LEARNED: u64 = 10;
/// Counts follow each other so closely at best: silence that is shorter says nothing.
const RESOLUTION: f64 = 10.0;

#[derive(Clone, Debug, Default)]
pub struct Subjects {
    /// Seconds of a clock that only goes forward, as everywhere here.
    counted_at: Option<f64>,
    /// By [`key`].
    seen: HashMap<String, Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    /// Messages per second between the last two counts.
    rate: f64,
    /// When it was first counted, or gained last.
    at: f64,
    /// Messages since it was first counted.
    gained: u64,
    /// Seconds from one message to the next, usually.
    interval: Option<f64>,
}

impl Subjects {
    /// Takes what subjects have gained since the count before. The first count of all says which there are, and
    /// nothing of when their messages came.
    pub fn count(&mut self, gained: &[(String, u64)], now: f64) {
        let Some(before) = self.counted_at.replace(now) else {
            let seen = |(subject, _): &(String, u64)| {
                (key(subject).into_owned(), Seen { rate: 0.0, at: now, gained: 0, interval: None })
            };
            self.seen = gained.iter().map(seen).collect();
            return;
        };
        let mut by_key: HashMap<Cow<'_, str>, u64> = HashMap::new();
        for (subject, messages) in gained {
            *by_key.entry(key(subject)).or_default() += messages;
        }
        let passed = now - before;
        if passed <= 0.0 {
            return;
        }
        for seen in self.seen.values_mut() {
            seen.rate = 0.0;
        }
        for (subject, messages) in by_key {
            let count = messages as f64;
            match self.seen.get_mut(&*subject) {
                Some(seen) => {
                    let interval = (now - seen.at) / count;
                    let learned = seen.interval.map_or(interval, |before| before + WEIGHT * (interval - before));
                    (seen.rate, seen.at, seen.interval) = (count / passed, now, Some(learned));
                    seen.gained += messages;
                }
                None => {
                    let seen = Seen { rate: count / passed, at: now, gained: messages, interval: None };
                    self.seen.insert(subject.into_owned(), seen);
                }
            }
        }
    }

    /// Forgets subjects of which the stream holds nothing any more, so that they do not pile up.
    pub fn keep<'a>(&mut self, held: impl Iterator<Item = &'a str>) {
        let held: HashSet<_> = held.map(key).collect();
        self.seen.retain(|subject, _| held.contains(&**subject));
    }

    /// Adds the `most` busiest, and the `most` that are quietest by the clock and by their own rhythm.
    pub fn add(&self, most: usize, now: f64, families: &mut Families) {
        let age = |seen: &Seen| (now - seen.at).max(0.0);
        let silence = |seen: &Seen| {
            let interval = seen.interval.filter(|_| seen.gained >= LEARNED)?;
            Some(age(seen) / interval.max(RESOLUTION))
        };
        let busiest = self.top(most, |seen| Some(seen.rate).filter(|rate| *rate > 0.0));
        let help = "Messages per second of the busiest subjects";
        add_all(&mut families.metric("unified_nats_subject_rate", Kind::Gauge, help), &busiest);
        let quietest = self.top(most, |seen| Some(age(seen)));
        let of_busiest = busiest.iter().filter_map(|(subject, _)| Some((*subject, age(self.seen.get(*subject)?))));
        let ages: Vec<_> = quietest.into_iter().chain(of_busiest).collect();
        let help = "Time since the last message of the quietest and the busiest subjects, within ten seconds";
        add_all(&mut families.metric("unified_nats_subject_last_message_age_seconds", Kind::Gauge, help), &ages);
        let silent = self.top(most, silence);
        let help = "How long subjects have been silent against their own usual time between messages";
        add_all(&mut families.metric("unified_nats_subject_silence_ratio", Kind::Gauge, help), &silent);
    }

    /// The greatest first; of two that are the same the first by name.
    fn top(&self, most: usize, of: impl Fn(&Seen) -> Option<f64>) -> Vec<(&str, f64)> {
        let mut all: Vec<_> =
            self.seen.iter().filter_map(|(subject, seen)| Some((subject.as_str(), of(seen)?))).collect();
        all.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
        all.truncate(most);
        all
    }
}

fn add_all(metric: &mut Metric<'_>, values: &[(&str, f64)]) {
    for (subject, value) in values {
        metric.add(&labels(subject), *value);
    }
}

/// A subject in its plain spelling.
fn key(subject: &str) -> Cow<'_, str> {
    let family = DataType::of_subject(subject);
    match family.and_then(|family| Some((family, subject.strip_prefix(family.suffixed_token())?))) {
        Some((family, rest)) => Cow::Owned(format!("{}{rest}", family.name())),
        None => Cow::Borrowed(subject),
    }
}

/// The parts of a subject: what follows the third stands in the symbol.
fn labels(subject: &str) -> Labels {
    let family = DataType::of_subject(subject).map_or("", DataType::name);
    let mut parts = subject.splitn(4, '.').skip(1);
    let mut part = || parts.next().unwrap_or_default();
    Labels::none().and([("data_type", family), ("exchange", part()), ("market_type", part()), ("symbol", part())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::exposition::Format;

    fn gained(counts: &[(&str, u64)]) -> Vec<(String, u64)> {
        counts.iter().map(|(subject, count)| ((*subject).to_owned(), *count)).collect()
    }

    fn text(subjects: &Subjects, most: usize, now: f64) -> String {
        let mut families = Families::default();
        subjects.add(most, now, &mut families);
        families.write(Format::Text)
    }

    const A: &str = "trade-data.x.spot.A";
    const B: &str = "trade-data.x.spot.B.C";

    #[test]
    fn rates_and_ages_are_of_the_last_counts() {
        let mut subjects = Subjects::default();
        subjects.count(&gained(&[(A, 1000), (B, 1)]), 0.0);
        assert!(!text(&subjects, 5, 0.0).contains("subject_rate"), "what was there before came nobody knows when");
        subjects.count(&gained(&[(A, 50)]), 10.0);
        let labels = "data_type=\"trade\",exchange=\"x\",market_type=\"spot\"";
        let now = text(&subjects, 5, 12.0);
        for line in [
            format!("unified_nats_subject_rate{{{labels},symbol=\"A\"}} 5\n"),
            format!("unified_nats_subject_last_message_age_seconds{{{labels},symbol=\"B.C\"}} 12\n"),
            format!("unified_nats_subject_last_message_age_seconds{{{labels},symbol=\"A\"}} 2\n"),
        ] {
            assert!(now.contains(&line), "{line}\n{now}");
        }
        assert_eq!(
            text(&subjects, 1, 12.0).matches("\nunified_nats_subject_last").count(),
            2,
            "the quietest, the busiest"
        );
        subjects.count(&[], 20.0);
        assert!(!text(&subjects, 5, 20.0).contains("subject_rate"));
    }

    #[test]
    fn silence_is_judged_by_the_rhythm_that_was_learned() {
        let mut subjects = Subjects::default();
        subjects.count(&gained(&[(A, 1), (B, 1)]), 0.0);
        for step in 1..=40 {
            let now = f64::from(step) * 100.0;
            // One each 100 s, and a hundred.
            subjects.count(&gained(&[(A, 1), (B, 100)]), now);
        }
        let now = text(&subjects, 5, 4200.0);
        let ratio = |symbol: &str| {
            let line = now.lines().find(|line| line.contains("silence_ratio{") && line.contains(symbol)).unwrap();
            line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
        };
        assert!((ratio("symbol=\"A\"") - 2.0).abs() < 1e-9, "{now}");
        assert!((ratio("symbol=\"B.C\"") - 20.0).abs() < 1e-9, "{now}");
        subjects.keep([A].into_iter());
        assert!(!text(&subjects, 5, 4200.0).contains("B.C"));
    }

    #[test]
    fn a_subject_whose_spelling_changes_goes_on() {
        let (old, new) = ("trade-data.x.spot.A", "trade.x.spot.A");
        let mut subjects = Subjects::default();
        subjects.count(&gained(&[(old, 100)]), 0.0);
        for step in 1..=20 {
            let spelled = if step < 10 { [(old, 10), (new, 0)] } else { [(old, 4), (new, 6)] };
            subjects.count(&gained(&spelled), f64::from(step) * 10.0);
        }
        subjects.keep([old, new].into_iter());
        subjects.count(&gained(&[(new, 10)]), 210.0);
        for held in [&[old, new][..], &[new]] {
            subjects.keep(held.iter().copied());
            let now = text(&subjects, 5, 210.0);
            let labels = "data_type=\"trade\",exchange=\"x\",market_type=\"spot\",symbol=\"A\"";
            for (name, value) in [("rate", 1), ("last_message_age_seconds", 0), ("silence_ratio", 0)] {
                let line = format!("unified_nats_subject_{name}{{{labels}}} {value}\n");
                assert!(now.contains(&line), "{line}\n{now}");
            }
        }
    }
}
