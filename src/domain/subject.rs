use std::fmt;
use std::str::FromStr;

/// A subject or a filter for subjects: tokens separated by dots, where `*` stands for any one token
/// and `>`, at the end, for one or more.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(String);

/// Why a subject was refused, as a phrase that follows "it".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    #[error("is empty")]
    Empty,
    #[error("is longer than {LONGEST} bytes")]
    TooLong,
    #[error("has an empty token")]
    EmptyToken,
    #[error("holds white space or a control character")]
    Character,
    #[error("has > before its end")]
    Tail,
}

/// The protocol's line, which carries it, is 4096 bytes by default.
const LONGEST: usize = 1024;

impl Subject {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is a subject that both match.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.0.split('.'), other.0.split('.'));
        loop {
            match (ours.next(), theirs.next()) {
                (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
                (Some(our), Some(their)) if our == "*" || their == "*" || our == their => {}
                _ => return false,
            }
        }
    }

    /// Whether it matches every subject that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.0.split('.'), other.0.split('.'));
        loop {
            match (ours.next(), theirs.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some(_), Some(">")) => return false,
                (Some(our), Some(their)) if our == "*" || our == their => {}
                _ => return false,
            }
        }
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        match text {
            "" => Err(SubjectError::Empty),
            _ if text.len() > LONGEST => Err(SubjectError::TooLong),
            _ if !is_plain(text) && text.chars().any(|c| c.is_whitespace() || c.is_control()) => {
                Err(SubjectError::Character)
            }
            _ if text.split('.').any(str::is_empty) => Err(SubjectError::EmptyToken),
            _ if text.split('.').rev().skip(1).any(|token| token == ">") => Err(SubjectError::Tail),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

/// Nearly every subject is, and that is seen in no time.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subject(text: &str) -> Subject {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_a_subject() {
        for good in ["a", "a.b", "*", ">", "a.*.>", "trade-data.okx.BTC-USDT", "$KV.B.>", "a*.b>", "日本.>"] {
            assert!(good.parse::<Subject>().is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", SubjectError::Empty),
            (".", SubjectError::EmptyToken),
            ("a..b", SubjectError::EmptyToken),
            ("a.", SubjectError::EmptyToken),
            (">.a", SubjectError::Tail),
            ("a.>.b", SubjectError::Tail),
            ("a b", SubjectError::Character),
            ("a\tb", SubjectError::Character),
        ] {
            assert_eq!(bad.parse::<Subject>(), Err(why), "{bad}");
        }
        assert_eq!("x".repeat(1025).parse::<Subject>(), Err(SubjectError::TooLong));
    }

    #[test]
    fn what_overlaps_and_what_covers() {
        // Left, right, overlap, left covers right, right covers left.
        for (left, right, overlap, left_covers, right_covers) in [
            ("a.b", "a.b", true, true, true),
            ("a.b", "a.c", false, false, false),
            ("a.b", "a", false, false, false),
            ("a.*", "a.b", true, true, false),
            ("a.*", "*.b", true, false, false),
            ("a.>", "a.b.c", true, true, false),
            ("a.>", "a", false, false, false),
            ("a.>", "a.*", true, true, false),
            ("a.>", "*.b", true, false, false),
            (">", "a.b", true, true, false),
            (">", "*", true, true, false),
            ("*", ">", true, false, true),
            ("a.*.c", "a.>", true, false, true),
            ("a.*.c", "a.b", false, false, false),
        ] {
            let (l, r) = (subject(left), subject(right));
            assert_eq!((l.overlaps(&r), r.overlaps(&l)), (overlap, overlap), "{left} {right}");
            assert_eq!((l.covers(&r), r.covers(&l)), (left_covers, right_covers), "{left} {right}");
        }
    }

    proptest! {
        #[test]
        fn a_filter_that_covers_what_matches_matches_it(
            filter in r"([ab*]\.){0,2}([ab*]|>)",
            other in r"([ab*]\.){0,2}([ab*]|>)",
            text in r"([ab]\.){0,3}[ab]",
        ) {
            let (filter, other, text) = (subject(&filter), subject(&other), subject(&text));
            let both = filter.covers(&text) && other.covers(&text);
            // A subject that both match shows that they overlap.
            prop_assert!(!both || filter.overlaps(&other));
            prop_assert!(!(filter.covers(&other) && other.covers(&text)) || filter.covers(&text));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Subject>();
        }
    }
}
