use std::fmt::Write;
use std::time::Duration;

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Seconds from here on are years; whoever writes that many means nanoseconds, as JetStream's API has them.
const NANOSECONDS_FROM: u64 = 100_000_000;

/// Reads a span of time: seconds (`60`), or numbers with the units h, m, s, ms in that order
/// (`500ms`, `2s`, `1h30m`).
pub fn parse_span(text: &str) -> Result<Duration, String> {
    const RULE: &str = "not a duration";
    if let Ok(number) = parse_digits(text) {
        if number >= NANOSECONDS_FROM {
            return Err(meant_as_nanoseconds(number));
        }
        return within_range(number.checked_mul(1_000));
    }
    if text.contains('.') {
        return Err(with_fraction(text));
    }
    let mut rest = text;
    let mut total = 0u64;
    let mut smallest_seen = u64::MAX;
    while !rest.is_empty() {
        let unit_start = rest.find(|c: char| !c.is_ascii_digit()).ok_or(RULE)?;
        let (digits, tail) = rest.split_at(unit_start);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let millis = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
        let millis = millis.ok_or("the unit is not one of h, m, s, ms")?;
        if millis >= smallest_seen {
            return Err(RULE.into());
        }
        smallest_seen = millis;
        let part = parse_digits(digits)?.checked_mul(millis);
        total = part.and_then(|part| total.checked_add(part)).ok_or("too long")?;
        rest = tail;
    }
    if text.is_empty() {
        return Err(RULE.into());
    }
    within_range(Some(total))
}

fn meant_as_nanoseconds(number: u64) -> String {
    let years = number / (365 * 86_400);
    let meant = format_span(Duration::from_nanos(number));
    format!(
        "a plain number is seconds, and these would be {years} years: nanoseconds are not taken, so write {meant} for \
         them, or a unit"
    )
}

/// Says how to write a span without the fraction that it has.
fn with_fraction(text: &str) -> String {
    const RULE: &str = "it is whole seconds or has a unit, and has no fraction";
    let unit_start = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_start);
    let unit = if unit.is_empty() { "s" } else { unit };
    let millis = || {
        let (whole, fraction) = number.split_once('.')?;
        let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let parts = parse_digits(whole).ok()?.checked_mul(scale)?.checked_add(parse_digits(fraction).ok()?)?;
        let scaled = parts.checked_mul(*size)?;
        scaled.is_multiple_of(scale).then_some(scaled / scale)
    };
    match millis() {
        // One number is easier to change than several with units.
        Some(millis) if !millis.is_multiple_of(1_000) => format!("{RULE}: write {millis}ms"),
        Some(millis) => format!("{RULE}: write {}", format_span(Duration::from_millis(millis))),
        None => RULE.into(),
    }
}

fn parse_digits(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("not a duration".into());
    }
    text.parse().map_err(|_| "too long".into())
}

/// nats-server holds durations as signed 64-bit nanoseconds: about 292 years.
fn within_range(millis: Option<u64>) -> Result<Duration, String> {
    const MAX_MILLIS: u64 = i64::MAX as u64 / 1_000_000;
    match millis {
        Some(millis) if millis <= MAX_MILLIS => Ok(Duration::from_millis(millis)),
        _ => Err("too long".into()),
    }
}

/// Writes whole milliseconds in the form that [`parse_span`] and Go's `time.ParseDuration` read.
pub fn format_span(span: Duration) -> String {
    let mut millis = span.as_millis() as u64;
    if millis == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (unit, size) in UNITS {
        if millis >= size {
            let _ = write!(text, "{}{unit}", millis / size);
            millis %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_documented_form() {
        for (text, millis) in [
            ("0", 0),
            ("60", 60_000),
            ("500ms", 500),
            ("2s", 2_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h30m5s10ms", 5_405_010),
            ("90m", 5_400_000),
        ] {
            assert_eq!(parse_span(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_number_that_is_only_sensible_in_nanoseconds_is_refused_with_words() {
        assert_eq!(parse_span("99999999"), Ok(Duration::from_secs(99_999_999)));
        for (text, years, meant) in
            [("100000000", 3, "100ms"), ("1000000000", 31, "1s"), ("7200000000000", 228_310, "2h")]
        {
            let reason = parse_span(text).unwrap_err();
            assert!(
                reason.contains(&format!("{years} years")) && reason.contains(&format!("write {meant} ")),
                "{reason}"
            );
        }
        assert_eq!(parse_span("876000h"), Ok(Duration::from_secs(3_153_600_000)), "with a unit it is meant");
    }

    #[test]
    fn a_fraction_is_refused_with_what_to_write() {
        for (text, meant) in [
            ("2.9", "2900ms"),
            ("1.5s", "1500ms"),
            ("0.5h", "30m"),
            ("0.25m", "15s"),
            ("1.0", "1s"),
            ("2.25", "2250ms"),
        ] {
            let reason = parse_span(text).unwrap_err();
            assert!(
                reason.contains("whole seconds or has a unit") && reason.contains(&format!("write {meant}")),
                "{reason}"
            );
            assert!(parse_span(meant).is_ok(), "{meant}");
        }
        for text in ["2.", ".5", "1.2.3", "0.0001", "1.5d", "1h2.5m", "99999999999999999999.5"] {
            let reason = parse_span(text).unwrap_err();
            assert!(reason.contains("whole seconds or has a unit") && !reason.contains("write"), "{text}: {reason}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_duration() {
        for text in
            ["", "-5", "1.5s", "5 s", "s", "5d", "10MB", "1m1h", "1s1s", "h1", "99999999999999999999", "9999999999h"]
        {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(millis in 0..9_223_372_036_854u64) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(parse_span(&format_span(span)), Ok(span));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse_span(&text);
        }
    }
}
