//! An operator's nats.conf fragment.
//!
//! nats-server and we must never understand the same text differently: a key that only one of the
//! two sees goes round every promise of the settings. So the text is read by the rules of
//! nats-server's own lexer ([`parse`]), what it says is judged ([`keys`]), and what goes into
//! nats.conf is not the text but what was read, written anew ([`write`]): every key in quotes, every
//! value a literal that can mean one thing only. Forms that nats-server takes and nobody means are
//! refused.

mod keys;
mod parse;
mod write;

use crate::domain::Subject;
pub use keys::{Decision, names};
use keys::{decide, fold};
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
        entries.iter().filter(|entry| decide(&entry.key) == Decision::Free("mappings")).try_for_each(refuse_mapping)?;
        Ok(Self { entries })
    }

    /// Whether it lets connections in of another kind than those that the settings guard.
    pub fn opens_a_listener(&self) -> bool {
        let listens = |entry: &Entry| match &entry.value {
            Value::Map(entries) => entries.iter().any(|inner| ["port", "listen"].contains(&fold(&inner.key).as_str())),
            // It stands for a map, as likely as not.
            value => matches!(value, Value::Variable(_)),
        };
        let kinds = ["websocket", "mqtt", "leafnodes"];
        self.entries
            .iter()
            .any(|entry| matches!(decide(&entry.key), Decision::Free(name) if kinds.contains(&name)) && listens(entry))
    }

    /// Its text in nats.conf, with the secrets in it or without.
    pub fn write(&self, secrets: super::Secrets) -> String {
        write::write(&self.entries, secrets)
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

/// Subjects that JetStream and our own connection live on must not lead elsewhere.
fn refuse_mapping(mappings: &Entry) -> Result<(), FragmentError> {
    const LIVED_ON: [&str; 3] = ["$JS.>", "$SYS.>", "_INBOX._unified_nats.>"];
    let Value::Map(entries) = &mappings.value else {
        let what = "mappings must be written out as a map";
        return Err(FragmentError::Malformed { what, line: mappings.line });
    };
    let overlaps = |key: &str, lived_on: &str| {
        let subjects = key.parse::<Subject>().ok().zip(lived_on.parse::<Subject>().ok());
        subjects.is_some_and(|(subject, lived_on)| subject.overlaps(&lived_on))
    };
    match entries.iter().find(|entry| LIVED_ON.iter().any(|lived_on| overlaps(&entry.key, lived_on))) {
        Some(Entry { key, line, .. }) => {
            let reason = "JetStream and this program live on subjects that it maps";
            Err(FragmentError::Kept { key: key.clone(), reason, line: *line })
        }
        None => Ok(()),
    }
}

fn refuse_in(value: &Value) -> Result<(), FragmentError> {
    match value {
        Value::Map(entries) => refuse_nested(entries),
        Value::List(values) => values.iter().try_for_each(refuse_in),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
