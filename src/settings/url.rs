//! Addresses with a scheme.

use std::fmt;
use std::num::NonZeroU16;

use super::host::parse_host;
use super::problem::quote;
use super::redaction::redact_urls;

/// A URL that may hold a user and a password, which are not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    pub fn parse(text: &str, schemes: &[&str]) -> Result<Self, String> {
        parse_url(text, schemes).map(Self)
    }

    /// What stands below it; for one without a query.
    pub fn below(&self, path: &str) -> Self {
        Self(format!("{}{path}", self.0.trim_end_matches('/')))
    }

    /// With what it holds.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact_urls(&self.0))
    }
}

/// The authority part is looked at, no more: `scheme://[user[:password]@]host[:port][/…]`.
pub fn parse_url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
    if !schemes.contains(&scheme) {
        // Other than a scheme it may be a user and a password.
        let found = match scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            true => format!("the scheme {}", quote(scheme)),
            false => "what stands before ://".to_owned(),
        };
        return Err(format!("{found} is not one of {}", schemes.join(", ")));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (address, None),
    };
    if let Some(port) = port
        && port.parse::<NonZeroU16>().is_err()
    {
        return Err("its port is not 1 to 65535".into());
    }
    parse_host(host).map_err(|_| "its host is not an address or a name".to_owned())?;
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("it holds white space".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for good in ["nats://a:4222", "nats://user:p%20w@a", "nats://[::1]:4222", "nats://10.0.0.1:1/x"] {
            assert!(parse_url(good, &["nats"]).is_ok(), "{good}");
        }
        for bad in ["a:4222", "http://a", "nats://", "nats://a:0", "nats://a:99999", "nats://a b:1", "nats://:4222"] {
            assert!(parse_url(bad, &["nats"]).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_stands_before_a_scheme_is_not_shown() {
        for url in ["u:tell-nobody://h", "tell-nobody@h://x", "tell-nobody ://h"] {
            let reason = parse_url(url, &["nats"]).unwrap_err();
            assert!(!reason.contains("tell-nobody"), "{reason}");
        }
        assert!(parse_url("http://h", &["nats"]).unwrap_err().contains("\"http\""));
    }

    #[test]
    fn passwords_in_urls_are_not_printed() {
        let url = Url::parse("http://u:tell-nobody@h:1/x", &["http"]).unwrap();
        assert_eq!(format!("{url:?}"), "http://(redacted)@h:1/x");
    }
}
