//! Numbers as people read them, the same on the dashboard and in the terminal. Pure.
//!
//! Bytes are in powers of 1024, as in settings: a limit of `10GB` there is `10.0 GiB` here.
//! All but [`span`] take nine characters at most, which is what a column of the terminal has.

const STEPS: [&str; 5] = ["", "k", "M", "G", "T"];
const BYTE_STEPS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// Three digits that count, and a step of thousands.
fn scaled(number: f64, by: f64, steps: usize) -> (String, usize) {
    let (mut number, mut step) = (number, 0);
    // What would be rounded up to the next step belongs there.
    while number.abs() >= by - 0.5 && step + 1 < steps {
        number /= by;
        step += 1;
    }
    let digits = match number.abs() {
        small if step > 0 && small < 9.995 => 2,
        middle if step > 0 && middle < 99.95 => 1,
        _ => 0,
    };
    (format!("{number:.digits$}"), step)
}

/// `1234` is said in full, more in steps of thousands: `12.3k`.
pub fn count(number: f64) -> String {
    if number.abs() < 9999.5 {
        return format!("{number:.0}");
    }
    let (digits, step) = scaled(number, 1000.0, STEPS.len());
    format!("{digits}{}", STEPS.get(step).copied().unwrap_or_default())
}

/// `1.50 KiB`
pub fn bytes(number: f64) -> String {
    let (digits, step) = scaled(number, 1024.0, BYTE_STEPS.len());
    format!("{digits} {}", BYTE_STEPS.get(step).copied().unwrap_or_default())
}

/// Something per second; [`None`] is a dash.
pub fn rate(number: Option<f64>) -> String {
    match number {
        None => "–".to_owned(),
        Some(number) if number > 0.0 && number < 0.1 => "< 0.1/s".to_owned(),
        Some(number) if number > 0.0 && number < 9.95 => format!("{number:.1}/s"),
        Some(number) => format!("{}/s", count(number)),
    }
}

/// Seconds in words, in the largest unit and the next one where that matters: `45 s`, `2 h 5 min`, `3 d 4 h`.
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

/// Seconds for a narrow column, in two units at most: `9.9s`, `1m15s`, `2h05m`.
pub fn short_span(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match whole {
        0..10 => format!("{:.1}s", (seconds.max(0.0) * 10.0).floor() / 10.0),
        10..60 => format!("{whole}s"),
        60..3600 => format!("{minutes}m{:02}s", whole % 60),
        3600..86_400 => format!("{hours}h{minutes:02}m"),
        86_400..8_640_000 => format!("{days}d{hours:02}h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_short_and_keep_their_size() {
        assert_eq!(
            [0.0, 9999.0, 10_000.0, 1_234_567.0, 999_999.0].map(count),
            ["0", "9999", "10.0k", "1.23M", "1.00M"]
        );
        assert_eq!([0.0, 1023.0, 1536.0, 5e9, 1e18].map(bytes), ["0 B", "1023 B", "1.50 KiB", "4.66 GiB", "888 PiB"]);
        assert_eq!(bytes(10.0 * f64::from(1 << 30)), "10.0 GiB", "what JETSTREAM_MAX_FILE=10GB allows");
        assert_eq!(
            [None, Some(0.0), Some(0.01), Some(0.25), Some(42.0), Some(12_300.0)].map(rate),
            ["–", "0/s", "< 0.1/s", "0.2/s", "42/s", "12.3k/s"]
        );
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
        assert_eq!(
            [0.26, 9.99, 42.0, 75.0, 3600.0, 90_000.0, 1e9].map(short_span),
            ["0.2s", "9.9s", "42s", "1m15s", "1h00m", "1d01h", "11574d"]
        );
    }

    proptest! {
        #[test]
        fn numbers_fit_a_column(number in 0.0..1e14_f64) {
            for text in [count(number), bytes(number), rate(Some(number)), short_span(number / 1e4)] {
                prop_assert!(text.chars().count() <= 9, "{text}");
            }
        }
    }
}
