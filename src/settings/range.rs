//! Which values a variable takes: one range that readers obey and the reference shows.

use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use super::values::{digits, number_in};
use crate::domain::{ByteSize, Ratio, format_span, parse_span};

/// The kind of a value and its bounds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    Numbers(i64, i64),
    Sizes(u64, u64),
    /// From this span on.
    Spans(Duration),
    /// From 0 to 1.
    Ratio,
    Port,
}

/// The shortest span that is not nothing.
pub const SOME_TIME: Duration = Duration::from_millis(1);
/// Numbers that nats-server, or we, keep in 32 bits.
pub const MAX_COUNT: i64 = i32::MAX as i64;
/// Sizes that are bounded by what JetStream counts in alone.
pub const MAX_SIZE: u64 = i64::MAX as u64;
pub const MIB: u64 = 1 << 20;

impl Range {
    pub fn number(self, text: &str) -> Result<i64, String> {
        match self {
            Self::Numbers(least, most) => number_in(text, &(least..=most)),
            other => unreachable!("{other} is no range of numbers"),
        }
    }

    pub fn size(self, text: &str) -> Result<ByteSize, String> {
        let Self::Sizes(least, most) = self else { unreachable!("{self} is no range of sizes") };
        let size: ByteSize = text.parse()?;
        if (least..=most).contains(&size.bytes()) { Ok(size) } else { Err("it is out of range".into()) }
    }

    pub fn span(self, text: &str) -> Result<Duration, String> {
        let Self::Spans(least) = self else { unreachable!("{self} is no range of spans") };
        let span = parse_span(text)?;
        if span < least { Err("it is too short".into()) } else { Ok(span) }
    }

    pub fn ratio(self, text: &str) -> Result<Ratio, String> {
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let ratio = text.parse().ok().filter(|_| plain).and_then(Ratio::new);
        ratio.ok_or_else(String::new)
    }

    pub fn port(self, text: &str) -> Result<NonZeroU16, String> {
        digits(text)?.parse().map_err(|_| String::new())
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Numbers(0, i64::MAX) => write!(f, "a whole number"),
            Self::Numbers(least, i64::MAX) => write!(f, "a whole number of at least {least}"),
            Self::Numbers(least, most) => write!(f, "a whole number from {least} to {most}"),
            Self::Sizes(0, MAX_SIZE) => write!(f, "a size"),
            Self::Sizes(0, most) => write!(f, "a size of at most {}", with_unit(most)),
            Self::Sizes(least, MAX_SIZE) => write!(f, "a size of at least {}", with_unit(least)),
            Self::Sizes(least, most) => write!(f, "a size from {} to {}", with_unit(least), with_unit(most)),
            Self::Spans(Duration::ZERO) => write!(f, "a duration"),
            Self::Spans(SOME_TIME) => write!(f, "a duration above 0"),
            Self::Spans(least) => write!(f, "a duration of at least {}", format_span(least)),
            Self::Ratio => write!(f, "a number from 0 to 1"),
            Self::Port => write!(f, "a port, {} to {}, used once", NonZeroU16::MIN, NonZeroU16::MAX),
        }
    }
}

fn with_unit(bytes: u64) -> String {
    match bytes {
        1 => "1 byte".into(),
        _ if bytes.is_multiple_of(1024) => ByteSize::new(bytes).to_string(),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_what_they_take() {
        for (range, words) in [
            (Range::Numbers(-1, i64::MAX), "a whole number of at least -1"),
            (Range::Numbers(0, i64::MAX), "a whole number"),
            (Range::Numbers(1, 64), "a whole number from 1 to 64"),
            (Range::Sizes(0, MAX_SIZE), "a size"),
            (Range::Sizes(1, MAX_SIZE), "a size of at least 1 byte"),
            (Range::Sizes(512, MIB), "a size from 512 bytes to 1MB"),
            (Range::Sizes(0, 5), "a size of at most 5 bytes"),
            (Range::Spans(Duration::ZERO), "a duration"),
            (Range::Spans(SOME_TIME), "a duration above 0"),
            (Range::Spans(Duration::from_secs(90)), "a duration of at least 1m30s"),
            (Range::Ratio, "a number from 0 to 1"),
            (Range::Port, "a port, 1 to 65535, used once"),
        ] {
            assert_eq!(range.to_string(), words);
        }
    }

    #[test]
    fn both_ends_belong_to_a_range() {
        let numbers = Range::Numbers(1, 64);
        assert_eq!(["0", "1", "64", "65"].map(|text| numbers.number(text).is_ok()), [false, true, true, false]);
        let sizes = Range::Sizes(1024, 2048);
        assert_eq!(["1023", "1KB", "2KB", "2049"].map(|text| sizes.size(text).is_ok()), [false, true, true, false]);
        let spans = Range::Spans(Duration::from_secs(2));
        assert_eq!(["1999ms", "2", "99h"].map(|text| spans.span(text).is_ok()), [false, true, true]);
        let ratios = ["-0.1", "0", "1", "1.1", "1e-1", "nan"].map(|text| Range::Ratio.ratio(text).is_ok());
        assert_eq!(ratios, [false, true, true, false, false, false]);
        assert_eq!(["0", "1", "65535", "65536"].map(|text| Range::Port.port(text).is_ok()), [false, true, true, false]);
    }
}
