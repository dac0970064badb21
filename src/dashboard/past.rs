//! What the history says, as rates and as lines of charts. Pure.

use serde::Serialize;

use crate::domain::DataType;

const COUNT: usize = DataType::ALL.len();

/// What was so at one moment of the last day.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Seconds since 1970.
    pub at: f64,
    /// Messages from and to clients since nats-server started.
    pub in_msgs: f64,
    pub out_msgs: f64,
    pub store_bytes: f64,
    /// Messages of each family that have come, where they were counted.
    pub families: Option<[u64; COUNT]>,
}

/// The last hour in full and the last day at longer steps, the oldest first, and when the store is full.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    pub hour: Vec<Row>,
    pub day: Vec<Row>,
    /// Seconds until the store holds what was asked for, if it grows as in the last hour.
    pub full_in: Option<f64>,
}

/// Rows of the hour from which a forecast is made.
const ENOUGH: usize = 30;
/// Rows between two points of the charts of an hour.
const HOUR_STEP: usize = 2;
/// Points of a sparkline, and its size.
const SPARK_POINTS: usize = 60;
const SPARK: (f64, f64) = (120.0, 24.0);

/// The charts, as the script of the page takes them: times, and a line of each.
#[derive(Debug, Default, Serialize)]
pub struct Charts {
    hour: Lines,
    day: Lines,
}

#[derive(Debug, Default, Serialize)]
struct Lines {
    at: Vec<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    received: Vec<Option<f64>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sent: Vec<Option<f64>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stored: Vec<f64>,
}

impl Past {
    pub fn is_enough_for_forecasts(&self) -> bool {
        self.hour.len() >= ENOUGH
    }

    pub fn charts(&self) -> Charts {
        let rows: Vec<_> = self.hour.iter().step_by(HOUR_STEP).collect();
        let rates = |of: fn(&Row) -> f64| {
            let pairs = rows.windows(2).map(|two| growth(of(two[0]), of(two[1]), two[1].at - two[0].at));
            pairs.collect::<Vec<_>>()
        };
        let hour = Lines {
            at: rows.iter().skip(1).map(|row| row.at).collect(),
            received: rates(|row| row.in_msgs),
            sent: rates(|row| row.out_msgs),
            stored: vec![],
        };
        let last = self.hour.last().filter(|last| self.day.last().is_none_or(|day| day.at < last.at));
        let days = || self.day.iter().chain(last);
        let stored = days().map(|row| row.store_bytes).collect();
        Charts { hour, day: Lines { at: days().map(|row| row.at).collect(), stored, ..Lines::default() } }
    }

    /// The line of a family over the last hour, as SVG draws it: one text of points for each piece.
    pub fn sparkline(&self, family: usize) -> Vec<String> {
        let step = self.hour.len().div_ceil(SPARK_POINTS).max(1);
        let rows: Vec<_> = self.hour.iter().rev().step_by(step).collect::<Vec<_>>().into_iter().rev().collect();
        let of = |row: &Row| row.families.map(|families| families[family] as f64);
        let rates: Vec<_> = rows
            .windows(2)
            .map(|two| (two[1].at, of(two[0]).zip(of(two[1])).and_then(|(a, b)| growth(a, b, two[1].at - two[0].at))))
            .collect();
        let (Some((end, _)), Some((begin, _))) = (rates.last(), rates.first()) else { return vec![] };
        let most = rates.iter().filter_map(|(_, rate)| *rate).fold(0.0, f64::max);
        let (width, height) = SPARK;
        let x = |at: f64| if end > begin { (at - begin) / (end - begin) * width } else { width };
        let y = |rate: f64| if most > 0.0 { height - 1.0 - rate / most * (height - 2.0) } else { height - 1.0 };
        let pieces = rates.split(|(_, rate)| rate.is_none()).filter(|piece| piece.len() > 1);
        let point = |(at, rate): &(f64, Option<f64>)| format!("{:.1},{:.1}", x(*at), y(rate.unwrap_or(0.0)));
        pieces.map(|piece| piece.iter().map(point).collect::<Vec<_>>().join(" ")).collect()
    }
}

/// Per second; [`None`] where the counter began anew.
fn growth(from: f64, to: f64, seconds: f64) -> Option<f64> {
    let rate = (to - from) / seconds;
    (seconds > 0.0 && to >= from).then(|| (rate * 100.0).round() / 100.0)
}

/// What is counted now, to make rates of.
#[derive(Clone, Debug, PartialEq)]
pub struct Counts {
    pub at: f64,
    pub in_msgs: Option<f64>,
    pub out_msgs: Option<f64>,
    pub families: Option<[u64; COUNT]>,
}

/// Messages per second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    pub received: Option<f64>,
    pub sent: Option<f64>,
    pub families: [Option<f64>; COUNT],
}

/// Rates are those of this time.
const WINDOW: f64 = 10.0;
/// What the history counted longer ago says nothing about now.
const RECENT: f64 = 30.0;

/// The counts of the last seconds.
#[derive(Clone, Debug, Default)]
pub struct LastCounts(Vec<Counts>);

impl LastCounts {
    /// Takes counts and gives the rates; where nothing was counted lately, from what the history knows.
    pub fn rates(&mut self, now: Counts, past: &Past) -> Rates {
        self.0.retain(|counts| (0.0..=WINDOW + 2.0).contains(&(now.at - counts.at)));
        let of_row = |row: &Row| Counts {
            at: row.at,
            in_msgs: Some(row.in_msgs),
            out_msgs: Some(row.out_msgs),
            families: row.families,
        };
        let rows = past.hour.iter().rev().take_while(|row| now.at - row.at <= RECENT);
        let known: Vec<_> = self.0.iter().cloned().chain(rows.map(of_row)).collect();
        let rate = |of: &dyn Fn(&Counts) -> Option<f64>| {
            let to = of(&now)?;
            // Counts take half a second, so that a shorter time says little.
            let from = known.iter().filter(|counts| now.at - counts.at >= 1.0).find_map(|c| Some((c.at, of(c)?)))?;
            growth(from.1, to, now.at - from.0)
        };
        let family = |at: usize| rate(&|counts| counts.families.map(|families| families[at] as f64));
        let rates = Rates {
            received: rate(&|counts| counts.in_msgs),
            sent: rate(&|counts| counts.out_msgs),
            families: std::array::from_fn(family),
        };
        self.0.push(now);
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(at: f64, messages: f64, trades: Option<u64>) -> Row {
        let families = trades.map(|trades| [0, trades, 0, 0, 0, 0, 0, 0]);
        Row { at, in_msgs: messages, out_msgs: messages, store_bytes: messages, families }
    }

    #[test]
    fn a_server_that_began_anew_is_a_hole_in_the_line() {
        let rows = [0.0, 100.0, 200.0, 5.0, 105.0].iter().enumerate();
        let hour = rows.map(|(at, messages)| row(at as f64 * 5.0, *messages, None)).flat_map(|row| [row.clone(), row]);
        let charts = Past { hour: hour.collect(), ..Past::default() }.charts();
        assert_eq!(charts.hour.received, [Some(20.0), Some(20.0), None, Some(20.0)]);
        assert_eq!(charts.day.at, [20.0], "the newest is always there");
    }

    #[test]
    fn sparklines_leave_out_what_nobody_counted() {
        let counted = [Some(0), Some(10), Some(30), None, None, Some(30), Some(30), Some(40)];
        let hour = counted.iter().enumerate().map(|(at, trades)| row(at as f64 * 10.0, 0.0, *trades)).collect();
        let past = Past { hour, ..Past::default() };
        let pieces = past.sparkline(1);
        assert_eq!(pieces, ["0.0,12.0 20.0,1.0", "100.0,23.0 120.0,12.0"]);
        assert!(Past::default().sparkline(1).is_empty());
    }

    #[test]
    fn rates_come_from_the_last_seconds_or_the_history() {
        let now = |at: f64, messages: f64| Counts {
            at,
            in_msgs: Some(messages),
            out_msgs: None,
            families: Some([messages as u64; COUNT]),
        };
        let mut last = LastCounts::default();
        assert_eq!(last.rates(now(100.0, 50.0), &Past::default()), Rates::default());
        let past = Past { hour: vec![row(80.0, 10.0, Some(10))], ..Past::default() };
        let mut other = LastCounts::default();
        assert_eq!(other.rates(now(100.0, 50.0), &past).received, Some(2.0));
        let rates = last.rates(now(104.0, 90.0), &past);
        assert_eq!((rates.received, rates.sent, rates.families[1]), (Some(10.0), None, Some(10.0)));
        assert_eq!(last.rates(now(200.0, 90.0), &Past::default()).received, None, "that is too long ago");
    }
}
