//! Subjects that a fragment turns into others.

use super::keys::{Decision, decide, fold};
use super::parse::{Entry, Value};
use super::{FragmentError, meant};
use crate::domain::{Role, Subject};

/// A mapping that keeps messages from the stream that captures them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diversion<'a> {
    /// Of the fragment.
    pub line: usize,
    pub subject: &'a str,
    /// Where they go.
    pub destination: String,
    pub stream: &'a str,
    pub captured: &'a Subject,
}

/// Subjects that JetStream and our own connection live on must not lead elsewhere.
pub(super) fn refuse(mappings: &Entry) -> Result<(), FragmentError> {
    let inboxes = Role::ALL.into_iter().map(|role| format!("{}.>", role.inbox()));
    let lived_on: Vec<_> = ["$JS.>", "$SYS.>"].map(str::to_owned).into_iter().chain(inboxes).collect();
    let Value::Map(entries) = &mappings.value else {
        let what = "mappings must be written out as a map";
        return Err(FragmentError::Malformed { what, line: mappings.line });
    };
    let overlaps = |key: &str, lived_on: &str| {
        let subjects = key.parse::<Subject>().ok().zip(lived_on.parse::<Subject>().ok());
        subjects.is_some_and(|(subject, lived_on)| subject.overlaps(&lived_on))
    };
    match entries.iter().find(|entry| lived_on.iter().any(|lived_on| overlaps(&entry.key, lived_on))) {
        Some(Entry { key, line, .. }) => {
            let reason = "JetStream and this program live on subjects that it maps";
            Err(FragmentError::Kept { key: key.clone(), reason, line: *line })
        }
        None => Ok(()),
    }
}

/// One for each mapped subject whose messages may end up where no stream captures them.
pub(super) fn diversions<'a>(entries: &'a [Entry], captured: &'a [(String, Subject)]) -> Vec<Diversion<'a>> {
    let mut found = vec![];
    for mappings in entries.iter().filter(|entry| decide(&entry.key) == Decision::Free("mappings")) {
        let Value::Map(mapped) = &mappings.value else { continue };
        for Entry { key, value, line } in mapped {
            let Ok(source) = key.parse::<Subject>() else { continue };
            let Some((stream, subject)) = captured.iter().find(|(_, subject)| subject.overlaps(&source)) else {
                continue;
            };
            let is_captured = |destination: &String| {
                let pattern = without_functions(destination).parse::<Subject>();
                pattern.is_ok_and(|pattern| captured.iter().any(|(_, subject)| subject.covers(&pattern)))
            };
            let mut destinations = vec![];
            collect(meant(value, entries), entries, &mut destinations);
            if let Some(destination) = destinations.into_iter().find(|destination| !is_captured(destination)) {
                found.push(Diversion { line: *line, subject: key, destination, stream, captured: subject });
            }
        }
    }
    found
}

/// The destinations in the value of a mapping: a subject, or maps of a subject and its weight.
fn collect(value: &Value, top: &[Entry], into: &mut Vec<String>) {
    match value {
        Value::Text(text) => into.push(String::from_utf8_lossy(text).into_owned()),
        Value::List(values) => values.iter().for_each(|value| collect(meant(value, top), top, into)),
        Value::Map(entries) => {
            let named = |entry: &&Entry| ["destination", "dest"].contains(&fold(&entry.key).as_str());
            entries.iter().filter(named).for_each(|entry| collect(meant(&entry.value, top), top, into));
        }
        Value::Literal(literal) => into.push(literal.clone()),
        Value::Variable(_) => {}
    }
}

/// A destination as a filter: what a function gives is any token.
fn without_functions(destination: &str) -> String {
    let token =
        |token: &str| if token.starts_with("{{") || token.starts_with('$') { "*".to_owned() } else { token.to_owned() };
    // Functions have no points but in `split` and the like, which are then no filter and count as elsewhere.
    destination.split('.').map(token).collect::<Vec<_>>().join(".")
}
