use std::fmt;
use std::str::FromStr;

/// A number of bytes. Units are powers of 1024 with or without the `i` and the `B`:
/// `512MB`, `1G`, `1GiB`, `1.5GB`, `1073741824`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

const UNITS: [(&str, u32); 4] = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];

impl ByteSize {
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits_end);
        let unit = unit.to_ascii_uppercase();
        let unit = unit.strip_suffix('B').unwrap_or(&unit);
        let unit = unit.strip_suffix('I').filter(|u| !u.is_empty()).unwrap_or(unit);
        let shift = match unit {
            "" => 0,
            _ => UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, shift)| *shift)
                .ok_or("the unit is not one of KB, MB, GB, TB")?,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.len() > 12 {
            return Err("not a number of bytes".into());
        }
        let scale = 10u128.pow(fraction.len() as u32);
        let parse = |digits: &str| digits.parse::<u128>().map_err(|_| "not a number of bytes");
        let whole = parse(whole)?;
        let fraction = if fraction.is_empty() { 0 } else { parse(fraction)? };
        let scaled = whole
            .checked_mul(scale)
            .and_then(|v| v.checked_add(fraction))
            .and_then(|v| v.checked_mul(1 << shift))
            .ok_or("too large")?;
        if scaled % scale != 0 {
            return Err("does not come to whole bytes".into());
        }
        // nats-server and JetStream hold sizes in signed 64-bit integers.
        match i64::try_from(scaled / scale) {
            Ok(bytes) => Ok(Self(bytes as u64)),
            Err(_) => Err("too large".into()),
        }
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that divides it: `1GB`, `1536MB`, `1000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in UNITS {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}B", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_documented_form() {
        for (text, bytes) in [
            ("0", 0),
            ("1073741824", 1 << 30),
            ("512MB", 512 << 20),
            ("1GB", 1 << 30),
            ("1GiB", 1 << 30),
            ("1g", 1 << 30),
            ("4k", 4096),
            ("64B", 64),
            ("1.5GB", 3 << 29),
            ("0.25K", 256),
            ("2T", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_size() {
        for text in [
            "",
            "GB",
            "-1",
            "1 GB",
            "1XB",
            "1e9",
            "1.",
            ".5K",
            "1.3",
            "1..5K",
            "1.2.3K",
            "9999999999T",
            "iB",
            "9223372036854775808",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(bytes in 0..=i64::MAX as u64) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<ByteSize>();
        }
    }
}
