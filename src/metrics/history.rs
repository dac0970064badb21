//! Numbers of the last 24 hours, and what follows from their growth. Pure.
//!
//! A ring of fixed size, whatever happens: one row every ten seconds, with numbers of the broker and of each
//! family; for the streams, of which there may be many, the last hour alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::domain::DataType;

/// Between two rows.
pub const STEP: Duration = Duration::from_secs(10);
/// Rows in 24 hours.
pub const ROWS: usize = 8640;
/// Rows in the hour that is kept of streams.
pub const ROWS_OF_STREAMS: usize = 360;
/// Streams that are kept at most, in the order of their names.
pub const MOST_STREAMS: usize = 128;

/// A growth is told of once there are that many rows: five minutes.
const ENOUGH: usize = 30;
/// What takes longer than that to be full is not going to be.
const HORIZON: f64 = 365.0 * 86_400.0;

/// What was so at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Seconds since 1970.
    pub at: f64,
    /// Messages and bytes from and to clients since nats-server started.
    pub in_msgs: f64,
    pub out_msgs: f64,
    pub in_bytes: f64,
    pub out_bytes: f64,
    pub connections: f64,
    /// Bytes that the store holds.
    pub store_bytes: f64,
    /// Messages of each family that have come, in the order of [`DataType::ALL`], where they are counted.
    pub families: Option<[u64; DataType::ALL.len()]>,
}

/// What a stream held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    pub messages: f64,
    pub bytes: f64,
}

#[derive(Clone, Debug, Default)]
pub struct History {
    rows: VecDeque<Row>,
    streams: BTreeMap<String, VecDeque<(f64, Held)>>,
}

impl History {
    /// Takes a row and what each stream held then. One that comes before its time is left out, and one that
    /// lies before the last, because a clock was set back, begins anew.
    pub fn add(&mut self, row: Row, streams: impl IntoIterator<Item = (String, Held)>) {
        if let Some(last) = self.rows.back() {
            if row.at < last.at {
                self.rows.clear();
                self.streams.clear();
            } else if row.at - last.at < STEP.as_secs_f64() / 2.0 {
                return;
            }
        }
        let mut streams: BTreeMap<_, _> = streams.into_iter().collect();
        while streams.len() > MOST_STREAMS {
            streams.pop_last();
        }
        self.streams.retain(|name, _| streams.contains_key(name));
        for (name, held) in streams {
            push(self.streams.entry(name).or_default(), (row.at, held), ROWS_OF_STREAMS);
        }
        push(&mut self.rows, row, ROWS);
    }

    /// The oldest first.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = &Row> + ExactSizeIterator {
        self.rows.iter()
    }

    /// Seconds until the store holds `most` bytes, if it goes on to grow as in the last hour.
    pub fn store_full_in(&self, most: f64) -> Option<f64> {
        let hour = self.rows.iter().rev().take(ROWS_OF_STREAMS).map(|row| (row.at, row.store_bytes));
        full_in(hour, most)
    }

    /// The same of a stream and its messages.
    pub fn messages_full_in(&self, stream: &str, most: f64) -> Option<f64> {
        self.stream_full_in(stream, most, |held| held.messages)
    }

    /// The same of a stream and its bytes.
    pub fn bytes_full_in(&self, stream: &str, most: f64) -> Option<f64> {
        self.stream_full_in(stream, most, |held| held.bytes)
    }

    fn stream_full_in(&self, stream: &str, most: f64, of: impl Fn(&Held) -> f64) -> Option<f64> {
        full_in(self.streams.get(stream)?.iter().rev().map(|(at, held)| (*at, of(held))), most)
    }
}

fn push<T>(ring: &mut VecDeque<T>, value: T, most: usize) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(value);
}

/// When a line through the points, the latest first, reaches `most`; [`None`] where it does not rise, or
/// nobody can know yet. What is full already is so in 0 seconds.
fn full_in(points: impl Iterator<Item = (f64, f64)>, most: f64) -> Option<f64> {
    let points: Vec<_> = points.collect();
    let (_, now) = *points.first()?;
    if most <= 0.0 || points.len() < ENOUGH {
        return None;
    }
    if now >= most {
        return Some(0.0);
    }
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (at, value) = (mean(|point| point.0), mean(|point| point.1));
    let (mut covariance, mut variance) = (0.0, 0.0);
    for point in &points {
        covariance += (point.0 - at) * (point.1 - value);
        variance += (point.0 - at) * (point.0 - at);
    }
    let growth = covariance / variance;
    let seconds = (most - now) / growth;
    // Not a number where all points are of one moment.
    (growth > 0.0 && seconds <= HORIZON).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(at: f64, store_bytes: f64) -> Row {
        Row { at, store_bytes, ..Row::default() }
    }

    fn held(name: &str, messages: f64, bytes: f64) -> (String, Held) {
        (name.to_owned(), Held { messages, bytes })
    }

    #[test]
    fn the_ring_keeps_a_day_and_no_more() {
        let mut history = History::default();
        for step in 0..ROWS + 5 {
            history
                .add(row(step as f64 * 10.0, 0.0), (0..MOST_STREAMS + 3).map(|at| held(&format!("{at:04}"), 0.0, 0.0)));
        }
        assert_eq!((history.rows().len(), history.rows().next().unwrap().at), (ROWS, 50.0));
        assert_eq!(history.streams.len(), MOST_STREAMS);
        assert!(history.streams.values().all(|stream| stream.len() == ROWS_OF_STREAMS));
    }

    #[test]
    fn rows_that_come_too_early_are_left_out_and_a_clock_set_back_begins_anew() {
        let mut history = History::default();
        for at in [0.0, 1.0, 4.9, 10.0, 12.0] {
            history.add(row(at, at), []);
        }
        assert_eq!(history.rows().map(|row| row.at).collect::<Vec<_>>(), [0.0, 10.0]);
        history.add(row(-100.0, 0.0), []);
        assert_eq!(history.rows().len(), 1);
    }

    #[test]
    fn growth_says_when_things_are_full() {
        let mut history = History::default();
        for step in 0..60 {
            let at = f64::from(step) * 10.0;
            let streams = [held("GROWS", at * 2.0, 500.0), held("SHRINKS", 1000.0 - at, 1000.0 - at)];
            history.add(row(at, 1000.0 + at), streams);
            if step < 20 {
                assert_eq!(history.store_full_in(2000.0), None, "nobody knows yet");
            }
        }
        // At 590 s: a byte and two messages a second.
        let near = |found: Option<f64>, wanted: f64| found.is_some_and(|found| (found - wanted).abs() < 1e-6);
        assert!(near(history.store_full_in(2000.0), 410.0));
        assert!(near(history.messages_full_in("GROWS", 2180.0), 500.0));
        assert_eq!(history.messages_full_in("GROWS", 1000.0), Some(0.0), "it is full already");
        assert_eq!(history.bytes_full_in("GROWS", 1000.0), None, "it does not grow");
        assert_eq!(history.bytes_full_in("SHRINKS", 2000.0), None);
        assert_eq!(history.bytes_full_in("NOWHERE", 2000.0), None);
        assert_eq!(history.store_full_in(1e15), None, "not in a year");
        assert_eq!(history.store_full_in(-1.0), None, "there is no limit");
    }

    proptest! {
        #[test]
        fn a_forecast_is_a_time_or_none(points in prop::collection::vec((any::<f64>(), any::<f64>()), 0..80), most: f64) {
            let found = full_in(points.into_iter(), most);
            prop_assert!(found.is_none_or(|seconds| (0.0..=HORIZON).contains(&seconds)));
        }
    }
}
