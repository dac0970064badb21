//! Where to listen, or whom to reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address to listen on or to connect to: an IP address or a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// All addresses of this machine.
    pub fn everywhere() -> Self {
        Self(Ipv4Addr::UNSPECIFIED.to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn ip(&self) -> Option<IpAddr> {
        match self.0.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(bracketed) => bracketed.parse().ok().map(IpAddr::V6),
            None => self.0.parse().ok(),
        }
    }

    pub fn is_loopback(&self) -> bool {
        self.ip().map_or(self.0 == "localhost", |ip| ip.is_loopback())
    }

    /// Where a client on this machine reaches a server that listens on this address.
    pub fn to_reach(&self) -> String {
        match self.ip() {
            Some(IpAddr::V4(ip)) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            Some(IpAddr::V6(ip)) if ip.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
            Some(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.0.clone(),
        }
    }

    /// The form without brackets, for `bind` and nats.conf.
    pub fn to_bind(&self) -> String {
        self.ip().map_or_else(|| self.0.clone(), |ip| ip.to_string())
    }
}

pub fn parse_host(text: &str) -> Result<Host, String> {
    let host = Host(text.to_owned());
    let name_like = text.len() <= 253
        && text.split('.').all(|label| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            !label.is_empty() && label.len() <= 63 && label.chars().all(allowed)
        });
    // Four numbers that are not an address are a typing error, not a name.
    let number_like = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if host.ip().is_some() || (name_like && !number_like) { Ok(host) } else { Err(String::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in ["0.0.0.0", "::", "[::1]", "localhost", "nats-1.example.org", "my_host", "[fe80::1]"] {
            assert!(parse_host(good).is_ok(), "{good}");
        }
        for bad in
            ["", "256.1.1.1", "1.2.3", "a b", "host:4222", "http://x", "a..b", "${X}", "[127.0.0.1]", "[[::1]]", "[::1"]
        {
            assert!(parse_host(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_host("0.0.0.0").unwrap().to_reach(), "127.0.0.1");
        assert_eq!(parse_host("::").unwrap().to_reach(), "[::1]");
        assert_eq!(parse_host("[::1]").unwrap().to_bind(), "::1");
        assert!(parse_host("127.0.0.2").unwrap().is_loopback());
    }
}
