//! Reads one variable at a time by its rule; what is wrong is noted and reading goes on.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use super::host::{Host, parse_host};
use super::oddity::oddity;
use super::problem::Problems;
use super::redaction::quote_redacted;
use super::url::{Url, parse_url};
use super::values::{is_bcrypt, parse_bool};
use super::variables::{ALL, Environment, Variable};
use crate::domain::{ByteSize, Ratio, Secret};

pub struct Reader<'a> {
    pub environment: &'a Environment,
    pub problems: &'a mut Problems,
    pub warnings: &'a mut Vec<String>,
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
        let found = format!("{}{by_default}", quote_redacted(variable, value));
        let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        let remedy = match variable.default.fixed() {
            Some(_) if !by_default.is_empty() => format!("make it usable, or set {} to another", variable.name),
            Some(default) => format!("correct it, or unset it for the default {default}"),
            None => "correct it, or unset it".to_owned(),
        };
        self.problems.add(variable.name, found, format!("must be {}{reason}", variable.allowed()), remedy);
    }

    /// Notes that one of two variables is set that belong together.
    pub fn refuse_half(&mut self, one: &Variable, other: &Variable) {
        let both = format!("{}, {}", one.name, other.name);
        self.problems.add(both, "one without the other", "they go together", "set both or none");
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

    pub fn ratio(&mut self, variable: &Variable) -> Ratio {
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
        host.or_else(|| otherwise.cloned()).unwrap_or_else(Host::everywhere)
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

    pub fn url(&mut self, variable: &Variable, schemes: &[&str]) -> Option<Url> {
        self.optional(variable, |text| Url::parse(text, schemes))
    }
}
