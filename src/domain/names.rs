use std::fmt;
use std::str::FromStr;

/// Why a name was refused, as a phrase that follows "it".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("is empty")]
    Empty,
    #[error("is longer than {0} characters")]
    TooLong(usize),
    #[error("holds a character that is not allowed")]
    Character,
}

/// The name of a stream: `[A-Za-z0-9_-]`, at most 255 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(String);

/// The name nats-server gives itself: no white space or control characters, at most 128 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName(String);

fn checked(text: &str, longest: usize, allowed: impl Fn(char) -> bool) -> Result<String, NameError> {
    match text {
        "" => Err(NameError::Empty),
        _ if text.chars().count() > longest => Err(NameError::TooLong(longest)),
        _ if !text.chars().all(allowed) => Err(NameError::Character),
        _ => Ok(text.to_owned()),
    }
}

impl FromStr for StreamName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        checked(text, 255, |c| c.is_ascii_alphanumeric() || c == '_' || c == '-').map(Self)
    }
}

impl FromStr for ServerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        checked(text, 128, |c| !c.is_whitespace() && !c.is_control()).map(Self)
    }
}

macro_rules! reads_as_text {
    ($($name:ty),*) => {$(
        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

reads_as_text!(StreamName, ServerName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_names() {
        assert!("MARKET_DATA-2".parse::<StreamName>().is_ok());
        assert_eq!("".parse::<StreamName>(), Err(NameError::Empty));
        assert_eq!("a.b".parse::<StreamName>(), Err(NameError::Character));
        assert_eq!("é".parse::<StreamName>(), Err(NameError::Character));
        assert_eq!("x".repeat(256).parse::<StreamName>(), Err(NameError::TooLong(255)));
    }

    #[test]
    fn server_names() {
        assert!("🦀-\"$x}".parse::<ServerName>().is_ok());
        assert_eq!("a b".parse::<ServerName>(), Err(NameError::Character));
        assert_eq!("a\nb".parse::<ServerName>(), Err(NameError::Character));
        assert_eq!("x".repeat(129).parse::<ServerName>(), Err(NameError::TooLong(128)));
    }
}
