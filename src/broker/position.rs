//! Where a reader is, as a text that it gives back to go on there.

use std::fmt;
use std::str::FromStr;

/// A message of a stream, or the place behind it. `STREAM.CREATED.SEQUENCE.CHECK`: streams have no dots in
/// their names; CREATED is when this stream was made, in nanoseconds, so that one that was made anew under
/// the same name is known as another; CHECK finds what was garbled or made up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub stream: String,
    /// Nanoseconds since 1970.
    pub created: i64,
    pub sequence: u64,
}

/// Why a text is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    #[error("it is not of the form STREAM.CREATED.SEQUENCE.CHECK")]
    Form,
    #[error("its parts do not belong together: it was changed, or not given out here")]
    Check,
}

/// The longest name that nats-server takes for a stream.
const LONGEST_NAME: usize = 255;

impl Position {
    /// FNV-1a over everything else. No secret: whoever makes one up may read from there anyway.
    fn check(stream: &str, created: i64, sequence: u64) -> u32 {
        let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        let hash = stream.as_bytes().iter().fold(0x811c_9dc5, step);
        let hash = created.to_le_bytes().iter().fold(hash, step);
        sequence.to_le_bytes().iter().fold(hash, step)
    }

    /// Appends the text of such a position.
    pub fn write(out: &mut Vec<u8>, stream: &str, created: i64, sequence: u64) {
        use std::io::Write;
        let check = Self::check(stream, created, sequence);
        // A vector takes everything.
        let _ = write!(out, "{stream}.{created}.{sequence}.{check:08x}");
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, created, sequence } = self;
        write!(f, "{stream}.{created}.{sequence}.{:08x}", Self::check(stream, *created, *sequence))
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let mut parts = text.split('.');
        let (Some(stream), Some(created), Some(sequence), Some(check), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(PositionError::Form);
        };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = !stream.is_empty() && stream.len() <= LONGEST_NAME;
        if !is_name || !is_number(sequence) || !is_number(created.strip_prefix('-').unwrap_or(created)) {
            return Err(PositionError::Form);
        }
        let position = Self {
            stream: stream.to_owned(),
            created: created.parse().map_err(|_| PositionError::Form)?,
            sequence: sequence.parse().map_err(|_| PositionError::Form)?,
        };
        // As text, so that each position has one spelling only.
        match position.to_string() == text && check.len() == 8 {
            true => Ok(position),
            false => Err(PositionError::Check),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_position_is_read_as_it_was_written(stream in "[A-Za-z0-9_-]{1,32}", created: i64, sequence: u64) {
            let position = Position { stream, created, sequence };
            prop_assert_eq!(position.to_string().parse(), Ok(position.clone()));
            let mut written = vec![];
            Position::write(&mut written, &position.stream, created, sequence);
            prop_assert_eq!(written, position.to_string().into_bytes());
        }

        #[test]
        fn what_was_changed_is_refused(sequence: u64, at in 0usize..40, with in "[0-9a-f]") {
            let text = Position { stream: "S".into(), created: 1_700_000_000_123_456_789, sequence }.to_string();
            let at = at.min(text.len() - 1);
            let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
            prop_assert!(changed == text || changed.parse::<Position>().is_err(), "{}", changed);
        }

        #[test]
        fn nothing_panics(text in ".*") {
            let _ = text.parse::<Position>();
        }
    }

    #[test]
    fn garbled_ids_are_refused() {
        let good = Position { stream: "MARKET_DATA".into(), created: 7, sequence: 9 }.to_string();
        for bad in [
            "",
            "1",
            "S.1.2",
            "S.1.2.3.4",
            "S.1.2.00000000",
            "S.+1.2.00000000",
            "S.1.-2.00000000",
            "S.99999999999999999999.1.0",
            ".1.2.00000000",
            &format!("{good} "),
            &good.to_uppercase().replace("MARKET", "market"),
            &good.replace(".9.", ".09."),
            &good.replace("MARKET_DATA", "ORDERS"),
        ] {
            assert!(bad.parse::<Position>().is_err(), "{bad:?}");
        }
    }
}
