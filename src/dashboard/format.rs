//! Numbers and times as people read them. Pure.

use std::time::{Duration, SystemTime};

use crate::logging::timestamp;

/// `1.5 GB`, in powers of 1000.
pub fn bytes(bytes: f64) -> String {
    scaled(bytes, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// `950`, `12.3 k`.
pub fn count(count: f64) -> String {
    scaled(count, &["", "k", "M", "G", "T"]).trim_end().to_owned()
}

/// Per second; [`None`] is a dash.
pub fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "–".to_owned(),
        Some(0.0) => "0/s".to_owned(),
        Some(rate) if rate < 0.1 => "< 0.1/s".to_owned(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}/s"),
        Some(rate) => format!("{}/s", count(rate)),
    }
}

fn scaled(value: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (value.max(0.0), 0);
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", units[unit])
}

/// In its largest unit, and the next one where that matters: `45 s`, `3 min`, `2 h 5 min`, `3 d 4 h`.
pub fn span(seconds: f64) -> String {
    let seconds = seconds.clamp(0.0, 1e12) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |first: u64, unit: &str, second: u64, next: &str| match second {
        0 => format!("{first} {unit}"),
        second => format!("{first} {unit} {second} {next}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => two(hours, "h", minutes % 60, "min"),
        (days, hours, _) if days < 10 => two(days, "d", hours % 24, "h"),
        (days, ..) => format!("{days} d"),
    }
}

/// A moment, for machines and for people: `2026-11-27T02:50:50Z` and `2026-11-27 02:50:50 UTC`.
pub fn moment(at: SystemTime) -> (String, String) {
    let text = timestamp(at).to_string();
    let seconds = text.get(..19).unwrap_or(&text);
    (format!("{seconds}Z"), format!("{} UTC", seconds.replace('T', " ")))
}

/// Seconds since 1970.
pub fn epoch(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_size() {
        for (value, text) in
            [(0.0, "0 B"), (999.0, "999 B"), (999.6, "1.0 kB"), (12_345.0, "12.3 kB"), (1.5e9, "1.5 GB")]
        {
            assert_eq!(bytes(value), text);
        }
        assert_eq!((count(950.0), count(1_234_000.0)), ("950".to_owned(), "1.2 M".to_owned()));
        let rates = [None, Some(0.0), Some(0.01), Some(2.34), Some(12_000.0)].map(rate);
        assert_eq!(rates, ["–", "0/s", "< 0.1/s", "2.3/s", "12.0 k/s"]);
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, text) in [
            (0.4, "0 s"),
            (59.9, "59 s"),
            (60.0, "1 min"),
            (3600.0, "1 h"),
            (7500.0, "2 h 5 min"),
            (273_600.0, "3 d 4 h"),
            (8e6, "92 d"),
        ] {
            assert_eq!(span(seconds), text);
        }
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        assert_eq!(moment(at), ("1970-01-02T00:00:00Z".to_owned(), "1970-01-02 00:00:00 UTC".to_owned()));
    }
}
