//! What a text says, by rules that several readers share.

use std::ops::RangeInclusive;

pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(String::new()),
    }
}

pub fn digits(text: &str) -> Result<&str, String> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        Ok(text)
    } else {
        Err("it is not a whole number".into())
    }
}

pub fn number_in(text: &str, range: &RangeInclusive<i64>) -> Result<i64, String> {
    let number = digits(text)?.parse().map_err(|_| "it is out of range".to_owned())?;
    if range.contains(&number) { Ok(number) } else { Err("it is out of range".into()) }
}

/// `$2a$NN$` with 22 characters of salt and 31 of hash; other letters than a, b, x and y are unknown
/// to nats-server.
pub fn is_bcrypt(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphabet = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/');
    let cost = text.get(4..6).and_then(|cost| cost.parse::<u8>().ok());
    bytes.len() == 60
        && matches!(bytes[2], b'a' | b'b' | b'x' | b'y')
        && bytes[3] == b'$'
        && cost.is_some_and(|cost| (4..=31).contains(&cost))
        && bytes[6] == b'$'
        && bytes[7..].iter().all(alphabet)
}

/// The entries of a comma-separated list, each read by `rule` without the white space around it.
pub fn listed<T>(text: &str, rule: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(|entry| rule(entry.trim())).collect()
}

/// The text that `%20` and the like stand for; nothing where they stand for none.
pub fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push((digit(high)? * 16 + digit(low)?) as u8);
                tail
            }
            (b'%', _) => return None,
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding() {
        assert_eq!(percent_decoded("a%20b%2Cc").as_deref(), Some("a b,c"));
        assert_eq!(percent_decoded("%E2%82%AC").as_deref(), Some("€"));
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(percent_decoded(bad), None, "{bad}");
        }
    }
}
