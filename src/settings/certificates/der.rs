//! As much of DER as keys and signatures need.

pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const SEQUENCE: u8 = 0x30;

/// The contents of the element of that kind that the bytes begin with, and what follows it.
pub fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (contents, rest) = any(bytes.strip_prefix(&[tag])?)?;
    Some((contents, rest))
}

/// What follows the element that the bytes begin with.
pub fn skip(bytes: &[u8]) -> Option<&[u8]> {
    any(bytes.get(1..)?).map(|(_, rest)| rest)
}

/// From the length on.
fn any(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A bit string of whole bytes.
pub fn bits(bytes: &[u8]) -> Option<&[u8]> {
    element(bytes, BIT_STRING)?.0.strip_prefix(&[0])
}

/// Algorithm and key of a SubjectPublicKeyInfo.
pub fn public_key(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let (algorithm, key) = element(element(spki, SEQUENCE)?.0, SEQUENCE)?;
    Some((algorithm, bits(key)?))
}
