//! Reads one variable at a time by its rule; what is wrong is noted and reading goes on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use super::oddity::oddity;
use super::problem::{Problems, shown};
use super::redaction::shown_value;
use super::values::{is_bcrypt, parse_bool};
use super::variables::{ALL, Environment, Variable};
use crate::domain::{ByteSize, Secret};

pub struct Reader<'a> {
    pub environment: &'a Environment,
    pub problems: &'a mut Problems,
    pub warnings: &'a mut Vec<String>,
}

/// An address to listen on or to connect to: an IP address or a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

impl Host {
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

impl Reader<'_> {
    /// The same reader, for as long as it is lent.
    pub fn again(&mut self) -> Reader<'_> {
        Reader { environment: self.environment, problems: self.problems, warnings: self.warnings }
    }

    /// The value as it is set.
    pub fn set(&self, variable: &Variable) -> Option<&str> {
        (variable.value)(self.environment)
    }

    pub fn is_set(&self, variable: &Variable) -> bool {
        self.set(variable).is_some()
    }

    /// Notes that the value of `variable` breaks its rule.
    pub fn refuse(&mut self, variable: &Variable, reason: &str) {
        let (value, by_default) = match self.set(variable) {
            Some(value) => (value, ""),
            None => (variable.default.fixed().unwrap_or_default(), " (the default)"),
        };
        let found = format!("{}{by_default}", shown_value(variable, value));
        let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        let remedy = match variable.default.fixed() {
            Some(_) if !by_default.is_empty() => format!("make it usable, or set {} to another", variable.name),
            Some(default) => format!("correct it, or unset it for the default {default}"),
            None => "correct it, or unset it".to_owned(),
        };
        self.problems.add(variable.name, found, format!("must be {}{reason}", variable.allowed()), remedy);
    }

    /// Whether a problem with this variable, or with the file it comes from, is known already.
    pub fn has_problem(&self, variable: &Variable) -> bool {
        self.problems.list.iter().any(|problem| problem.variable.contains(variable.name))
    }

    /// The value read by `rule`, or nothing when it is not set or breaks the rule.
    pub fn optional<T>(&mut self, variable: &Variable, rule: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.set(variable).or(variable.default.fixed())?;
        if !variable.secret && value.trim() != value {
            self.refuse(variable, "it has surrounding white space");
            return None;
        }
        match rule(value) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.refuse(variable, &reason);
                None
            }
        }
    }

    /// The value read by `rule`; the default stands in for one that breaks the rule, so that
    /// reading goes on.
    pub fn required<T>(&mut self, variable: &Variable, rule: impl Fn(&str) -> Result<T, String>) -> T {
        let default = variable.default.fixed().map(&rule);
        match (self.optional(variable, rule), default) {
            (Some(value), _) | (None, Some(Ok(value))) => value,
            _ => unreachable!("{} has a default that its own rule reads", variable.name),
        }
    }

    pub fn bool(&mut self, variable: &Variable) -> bool {
        self.required(variable, parse_bool)
    }

    pub fn port(&mut self, variable: &Variable) -> NonZeroU16 {
        self.required(variable, |text| variable.own_range().port(text))
    }

    pub fn number(&mut self, variable: &Variable) -> i64 {
        self.required(variable, |text| variable.own_range().number(text))
    }

    pub fn ratio(&mut self, variable: &Variable) -> f64 {
        self.required(variable, |text| variable.own_range().ratio(text))
    }

    pub fn size(&mut self, variable: &Variable) -> ByteSize {
        self.required(variable, |text| variable.own_range().size(text))
    }

    pub fn span(&mut self, variable: &Variable) -> Duration {
        self.required(variable, |text| variable.own_range().span(text))
    }

    pub fn choice<T: Copy>(&mut self, variable: &Variable, choices: &[(&str, T)]) -> T {
        self.required(variable, |text| {
            let found = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
            found.map(|(_, choice)| *choice).ok_or_else(String::new)
        })
    }

    pub fn host(&mut self, variable: &Variable, otherwise: Option<&Host>) -> Host {
        let host = self.optional(variable, parse_host);
        host.or_else(|| otherwise.cloned()).unwrap_or_else(|| Host("0.0.0.0".into()))
    }

    /// Text without control characters.
    pub fn text(&mut self, variable: &Variable) -> Option<String> {
        self.optional(variable, |text| {
            if text.chars().any(char::is_control) {
                return Err("it holds a control character".into());
            }
            if text.len() > 1024 { Err("it is longer than 1 KiB".into()) } else { Ok(text.to_owned()) }
        })
    }

    /// Warns of a user name or secret that is most likely not what was meant, and shows nothing of it.
    pub fn warn_if_odd(&mut self, whose: &str, text: &str) {
        if let Some(oddity) = oddity(text) {
            self.warnings.push(format!("{whose} {oddity}; that counts as a part of it, so clients must send it, too"));
        }
    }

    /// The same of every variable that is set and has not been warned of, whatever takes its text.
    pub fn warn_of_odd_texts(&mut self) {
        for variable in ALL {
            let is_told = self.warnings.iter().any(|warning| warning.starts_with(&format!("{} ", variable.name)));
            if let Some(oddity) = self.set(variable).filter(|_| !is_told).and_then(oddity) {
                self.warnings.push(format!("{} {oddity}; that counts as a part of it", variable.name));
            }
        }
    }

    /// A credential: any text without NUL up to 1 KiB. The protocol's CONNECT line carries it.
    pub fn secret(&mut self, variable: &Variable) -> Option<Secret> {
        let secret = self.read_secret(variable)?;
        self.warn_if_odd(variable.name, secret.expose());
        if is_bcrypt(secret.expose()) {
            self.warnings.push(format!(
                "{} looks like a bcrypt hash and is taken as the secret itself: clients must send this very text; a hash \
                 belongs into NATS_USERS_FILE",
                variable.name
            ));
        }
        Some(secret)
    }

    fn read_secret(&mut self, variable: &Variable) -> Option<Secret> {
        self.optional(variable, |text| {
            if text.contains('\0') {
                return Err("it holds a NUL character".into());
            }
            // We hash a text that nats-server would take for a bcrypt hash; bcrypt reads 72 bytes.
            if text.starts_with("$2") && text.len() > 72 {
                return Err("it begins like a bcrypt hash and is longer than 72 bytes".into());
            }
            if text.len() > 1024 { Err("it is longer than 1 KiB".into()) } else { Ok(Secret::new(text.into())) }
        })
    }

    pub fn path(&mut self, variable: &Variable) -> Option<PathBuf> {
        self.optional(variable, |text| {
            if text.contains('\0') || text.len() > 4096 {
                return Err("it is not a path".into());
            }
            std::path::absolute(text).map_err(|e| e.to_string())
        })
    }

    /// A path whose file must be readable now.
    pub fn readable_file(&mut self, variable: &Variable) -> Option<PathBuf> {
        let path = self.path(variable)?;
        // Looked at before it is opened: opening a pipe would wait for whoever writes to it.
        let opened = match std::fs::metadata(&path) {
            Ok(metadata) if !metadata.is_file() => Err("it is not a regular file".to_owned()),
            Ok(_) => std::fs::File::open(&path).map(drop).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match opened {
            Ok(()) => Some(path),
            Err(reason) => {
                self.refuse(variable, &reason);
                None
            }
        }
    }

    pub fn urls(&mut self, variable: &Variable, schemes: &[&str]) -> Vec<String> {
        let list = self.optional(variable, |text| text.split(',').map(|url| parse_url(url, schemes)).collect());
        list.unwrap_or_default()
    }

    pub fn url(&mut self, variable: &Variable, schemes: &[&str]) -> Option<String> {
        self.optional(variable, |text| parse_url(text, schemes))
    }
}

fn parse_host(text: &str) -> Result<Host, String> {
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

/// The authority part is looked at, no more: `scheme://[user[:password]@]host[:port][/…]`.
pub fn parse_url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
    if !schemes.contains(&scheme) {
        return Err(format!("the scheme {} is not one of {}", shown(scheme), schemes.join(", ")));
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

    #[test]
    fn urls() {
        for good in ["nats://a:4222", "nats://user:p%20w@a", "nats://[::1]:4222", "nats://10.0.0.1:1/x"] {
            assert!(parse_url(good, &["nats"]).is_ok(), "{good}");
        }
        for bad in ["a:4222", "http://a", "nats://", "nats://a:0", "nats://a:99999", "nats://a b:1", "nats://:4222"] {
            assert!(parse_url(bad, &["nats"]).is_err(), "{bad}");
        }
    }
}
