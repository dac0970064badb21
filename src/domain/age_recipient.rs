use std::fmt;
use std::str::FromStr;

/// Somebody for whom `age` encrypts: `age1…`, an X25519 key in Bech32. Its checksum holds, so that a typing
/// error does not make backups that nobody can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgeRecipient(String);

const PREFIX: &str = "age1";
const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
/// 32 bytes in groups of five bits, and six groups of checksum.
const GROUPS: usize = 52 + 6;

impl AgeRecipient {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgeRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AgeRecipient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            return Err("an identity is a secret that opens backups, and belongs to who restores them".into());
        }
        let data = text.strip_prefix(PREFIX).ok_or("a recipient begins with age1")?;
        let group = |byte: u8| ALPHABET.iter().position(|letter| *letter == byte).map(|group| group as u32);
        let groups: Option<Vec<u32>> = data.bytes().map(group).collect();
        match groups {
            Some(groups) if groups.len() == GROUPS && checksum(&groups) == 1 => Ok(Self(text.to_owned())),
            Some(groups) if groups.len() == GROUPS => {
                Err("a recipient has a typing error: its checksum is wrong".into())
            }
            Some(_) => Err(format!("a recipient has {} characters", PREFIX.len() + GROUPS)),
            None => Err("a recipient holds a character that none has".into()),
        }
    }
}

/// The checksum of Bech32 (BIP 173) over the prefix `age` and the groups; 1 where they hold the right one.
fn checksum(groups: &[u32]) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let name = PREFIX.trim_end_matches('1').bytes().map(u32::from);
    let expanded = name.clone().map(|byte| byte >> 5).chain([0]).chain(name.map(|byte| byte & 31));
    expanded.chain(groups.iter().copied()).fold(1, |sum, value| {
        let top = sum >> 25;
        let sum = (sum & 0x01ff_ffff) << 5 ^ value;
        GENERATOR.iter().enumerate().filter(|(bit, _)| top >> bit & 1 == 1).fold(sum, |sum, (_, part)| sum ^ part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    #[test]
    fn a_recipient_with_its_checksum_is_taken() {
        assert_eq!(RECIPIENT.parse::<AgeRecipient>().unwrap().as_str(), RECIPIENT);
    }

    #[test]
    fn typing_errors_and_identities_are_refused() {
        let identity = format!("AGE-SECRET-KEY-1{}", "Q".repeat(58));
        for (text, reason) in [
            (RECIPIENT.replace("ql3z", "ql3x"), "checksum"),
            (RECIPIENT.replace("ql3z", "lq3z"), "checksum"),
            (RECIPIENT[..61].to_owned(), "62 characters"),
            (RECIPIENT.replace("ql3z", "ql3b"), "a character that none has"),
            (RECIPIENT.to_ascii_uppercase(), "begins with age1"),
            ("ssh-ed25519 AAAA".to_owned(), "begins with age1"),
            (identity, "is a secret"),
        ] {
            let refusal = text.parse::<AgeRecipient>().unwrap_err();
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
    }
}
