//! Points of a stream as clients name them, and times as text.

use std::str::FromStr;

/// A time, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub i64);

/// A message of a stream, by its sequence or by when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Sequence(u64),
    Time(Nanos),
}

/// Why a text is no point, as a phrase that follows "it".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointError {
    #[error("must be a sequence, or a time of RFC 3339 such as 2026-01-02T03:04:05.123456789Z")]
    Form,
    #[error("is 0, and sequences begin at 1")]
    Zero,
    #[error("is a sequence that no stream reaches")]
    Sequence,
    #[error("is a time outside of 1970 to 2261")]
    Time,
}

/// Both ends belong to it. An end that is left open is that of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub from: Option<Point>,
    pub to: Option<Point>,
}

/// A range whose end comes before its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("from comes after to: the range is upside down")]
pub struct UpsideDown;

impl Range {
    pub fn new(from: Option<Point>, to: Option<Point>) -> Result<Self, UpsideDown> {
        match (from, to) {
            (Some(Point::Sequence(from)), Some(Point::Sequence(to))) if from > to => Err(UpsideDown),
            (Some(Point::Time(from)), Some(Point::Time(to))) if from > to => Err(UpsideDown),
            _ => Ok(Self { from, to }),
        }
    }
}

impl FromStr for Point {
    type Err = PointError;

    fn from_str(text: &str) -> Result<Self, PointError> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match text.parse() {
                // nats-server takes it for the beginning, which as an end would be a range with a message in it.
                Ok(0) => Err(PointError::Zero),
                Ok(sequence) => Ok(Self::Sequence(sequence)),
                Err(_) => Err(PointError::Sequence),
            };
        }
        Nanos::of_rfc3339(text).map(Self::Time)
    }
}

impl Nanos {
    /// Reads a time with or without a fraction, in any zone. A `+` that a client forgot to encode in a
    /// query has become a space, which is taken for it.
    pub fn of_rfc3339(text: &str) -> Result<Self, PointError> {
        use time::OffsetDateTime;
        use time::format_description::well_known::Rfc3339;
        // Longer fractions than nanoseconds are cut by the parser; what is longer than that is no time.
        if text.len() > 64 {
            return Err(PointError::Form);
        }
        let time = OffsetDateTime::parse(&text.replace(' ', "+"), &Rfc3339).map_err(|_| PointError::Form)?;
        let nanos = i64::try_from(time.unix_timestamp_nanos()).map_err(|_| PointError::Time)?;
        (nanos >= 0).then_some(Self(nanos)).ok_or(PointError::Time)
    }

    /// Appends it as RFC 3339, UTC, with nanoseconds.
    pub fn write(self, out: &mut Vec<u8>) {
        const DAY: i64 = 86_400;
        let (seconds, nanos) = (self.0.div_euclid(1_000_000_000), self.0.rem_euclid(1_000_000_000));
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let (year, month, day) = civil(days);
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        let mut put = |at: usize, digits: usize, mut number: i64| {
            for place in (at..at + digits).rev() {
                text[place] = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, second / 3_600);
        put(14, 2, second / 60 % 60);
        put(17, 2, second % 60);
        put(20, 9, nanos);
        out.extend_from_slice(&text);
    }
}

impl std::fmt::Display for Nanos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = vec![];
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// The date that so many days after 1970-01-01 is (H. Hinnant, "chrono-compatible low-level date
/// algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn points_are_sequences_or_times() {
        assert_eq!("17".parse(), Ok(Point::Sequence(17)));
        for zero in ["0", "000"] {
            assert_eq!(zero.parse::<Point>(), Err(PointError::Zero));
        }
        for (text, nanos) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.5Z", 500_000_000),
            ("1970-01-01T01:00:00.000000001+01:00", 1),
            ("1970-01-01T01:00:00 01:00", 0),
            ("2026-06-29T05:32:44.123Z", 1_782_711_164_123_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Point::Time(Nanos(nanos))), "{text}");
        }
        for bad in ["", "-1", "1.5", "x", "2026-", "2026-06-29", "2026-13-01T00:00:00Z", "1969-12-31T23:59:59Z"] {
            assert!(bad.parse::<Point>().is_err(), "{bad}");
        }
        assert_eq!("99999999999999999999".parse::<Point>(), Err(PointError::Sequence));
        assert_eq!("9999-01-01T00:00:00Z".parse::<Point>(), Err(PointError::Time));
    }

    #[test]
    fn ranges_have_their_beginning_first() {
        let sequence = |number| Some(Point::Sequence(number));
        let time = |nanos| Some(Point::Time(Nanos(nanos)));
        assert_eq!(Range::new(sequence(2), sequence(1)), Err(UpsideDown));
        assert_eq!(Range::new(time(2), time(1)), Err(UpsideDown));
        for (from, to) in [(sequence(1), sequence(1)), (time(1), time(1)), (None, time(1)), (sequence(9), time(1))] {
            assert!(Range::new(from, to).is_ok());
        }
    }

    proptest! {
        #[test]
        fn times_are_written_as_they_are_read(nanos in 0i64..i64::MAX) {
            let text = Nanos(nanos).to_string();
            prop_assert_eq!(text.parse(), Ok(Point::Time(Nanos(nanos))), "{}", text);
        }

        #[test]
        fn nothing_panics(text in ".*") {
            let _ = text.parse::<Point>();
        }
    }
}
