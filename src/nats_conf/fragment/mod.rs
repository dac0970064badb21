//! An operator's nats.conf fragment.
//!
//! nats-server and we must never understand the same text differently: a key that only one of the
//! two sees goes round every promise of the settings. So the text is read by the rules of
//! nats-server's own lexer ([`parse`]), what it says is judged ([`keys`]), and what goes into
//! nats.conf is not the text but what was read, written anew ([`write`]): every key in quotes, every
//! value a literal that can mean one thing only. Forms that nats-server takes and nobody means are
//! refused.

mod keys;
mod listeners;
mod mappings;
mod parse;
mod write;

use crate::domain::Subject;
pub use keys::{Decision, names};
use keys::{decide, fold};
pub use listeners::Listener;
pub use mappings::Diversion;
use parse::{Entry, Value};

/// A fragment that is fit for nats.conf.
#[derive(Debug)]
pub struct Fragment {
    entries: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// A key that only the settings may set; `instead` says which.
    #[error("line {line}: the key {key:?} is set by {instead}")]
    Reserved { key: String, instead: &'static str, line: usize },
    /// A key that must keep nats-server's own value, and why.
    #[error("line {line}: the key {key:?} must be left alone: {reason}")]
    Kept { key: String, reason: &'static str, line: usize },
    #[error("line {line}: include is not allowed")]
    Include { line: usize },
    /// `$name` stands for nothing that the fragment has set before.
    #[error("line {line}: the variable {name:?} is not set in the fragment")]
    Variable { name: String, line: usize },
    /// The same thing is set twice: which of the two counts is up to chance.
    #[error("line {line}: {key:?} sets what {earlier:?} has set")]
    Twice { key: String, earlier: String, line: usize },
    #[error("line {line}: {what}")]
    Malformed { what: &'static str, line: usize },
}

impl Fragment {
    pub fn read(text: &str) -> Result<Self, FragmentError> {
        let entries = parse::parse(text)?;
        let mut seen: Vec<(&'static str, &str)> = vec![];
        for entry in &entries {
            let key = || String::from(&entry.key);
            match decide(&entry.key) {
                Decision::SetBy(instead) => {
                    return Err(FragmentError::Reserved { key: key(), instead, line: entry.line });
                }
                Decision::Kept(reason) => return Err(FragmentError::Kept { key: key(), reason, line: entry.line }),
                Decision::Free(name) => {
                    if let Some((_, earlier)) = seen.iter().find(|(known, _)| *known == name) {
                        let earlier = (*earlier).to_owned();
                        return Err(FragmentError::Twice { key: key(), earlier, line: entry.line });
                    }
                    seen.push((name, &entry.key));
                }
                Decision::Unknown => {}
            }
        }
        refuse_nested(&entries)?;
        entries
            .iter()
            .filter(|entry| decide(&entry.key) == Decision::Free("mappings"))
            .try_for_each(mappings::refuse)?;
        Ok(Self { entries })
    }

    /// Whether it lets connections in of another kind than those that the settings guard.
    pub fn opens_a_listener(&self) -> bool {
        listeners::opens_one(&self.entries)
    }

    /// The ports that it opens, as far as they are written out.
    pub fn listeners(&self) -> Vec<Listener> {
        listeners::find(&self.entries)
    }

    /// What it maps away from those who capture it, by the names that these subjects come with.
    pub fn diversions<'a>(&'a self, captured: &'a [(String, Subject)]) -> Vec<Diversion<'a>> {
        mappings::diversions(&self.entries, captured)
    }

    /// Its text in nats.conf, with the secrets in it or without.
    pub fn write(&self, secrets: super::Secrets) -> String {
        write::write(&self.entries, secrets).0
    }

    /// The line of the fragment that each line of that text comes from.
    pub fn lines(&self) -> Vec<usize> {
        write::write(&self.entries, super::Secrets::Written).1
    }
}

/// What is to be done with a top-level key; nothing of one that no nats-server has.
pub fn decision_of(key: &str) -> Option<Decision> {
    Some(decide(key)).filter(|decision| *decision != Decision::Unknown)
}

/// What opens a door however deep it stands: also below a name of the operator's own, which a
/// variable can put into any place.
fn refuse_nested(entries: &[Entry]) -> Result<(), FragmentError> {
    for entry in entries {
        if fold(&entry.key) == "no_auth_user" {
            let reason = keys::NO_AUTH_USER;
            return Err(FragmentError::Kept { key: entry.key.clone(), reason, line: entry.line });
        }
        refuse_in(&entry.value)?;
    }
    Ok(())
}

fn refuse_in(value: &Value) -> Result<(), FragmentError> {
    match value {
        Value::Map(entries) => refuse_nested(entries),
        Value::List(values) => values.iter().try_for_each(refuse_in),
        _ => Ok(()),
    }
}

/// What a value says; a variable stands for an earlier key of the fragment.
fn meant<'a>(value: &'a Value, top: &'a [Entry]) -> &'a Value {
    match value {
        Value::Variable(name) => top.iter().rev().find(|entry| entry.key == *name).map_or(value, |entry| &entry.value),
        value => value,
    }
}

#[cfg(test)]
mod tests;
