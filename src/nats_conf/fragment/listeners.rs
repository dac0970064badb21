//! Ports that a fragment opens beside those of the settings.

use super::keys::{Decision, decide, fold};
use super::meant;
use super::parse::{Entry, Value};

/// One more port that nats-server listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// websocket, mqtt or leafnodes.
    pub kind: &'static str,
    pub port: u16,
    /// Of the fragment.
    pub line: usize,
}

const KINDS: [&str; 3] = ["websocket", "mqtt", "leafnodes"];

fn kind_of(entry: &Entry) -> Option<&'static str> {
    match decide(&entry.key) {
        Decision::Free(name) => KINDS.into_iter().find(|kind| *kind == name),
        _ => None,
    }
}

fn is_port(entry: &Entry) -> bool {
    ["port", "listen"].contains(&fold(&entry.key).as_str())
}

pub(super) fn opens_one(entries: &[Entry]) -> bool {
    let listens = |entry: &Entry| match &entry.value {
        Value::Map(entries) => entries.iter().any(is_port),
        // It stands for a map, as likely as not.
        value => matches!(value, Value::Variable(_)),
    };
    entries.iter().any(|entry| kind_of(entry).is_some() && listens(entry))
}

pub(super) fn find(entries: &[Entry]) -> Vec<Listener> {
    let mut found = vec![];
    for entry in entries {
        let (Some(kind), Value::Map(inside)) = (kind_of(entry), meant(&entry.value, entries)) else { continue };
        for inner in inside.iter().filter(|inner| is_port(inner)) {
            let value = match &inner.value {
                Value::Variable(name) if inside.iter().any(|other| other.key == *name) => meant(&inner.value, inside),
                value => meant(value, entries),
            };
            found.extend(port(value).map(|port| Listener { kind, port, line: inner.line }));
        }
    }
    found
}

/// Of a number, or of text as `127.0.0.1:8443`. Nothing listens on 0 and below, or on a port that is chosen.
fn port(value: &Value) -> Option<u16> {
    let number = match value {
        Value::Literal(literal) => thousands(literal)?,
        Value::Text(text) => std::str::from_utf8(text).ok()?.rsplit(':').next()?.trim().parse().ok()?,
        _ => return None,
    };
    u16::try_from(number).ok().filter(|port| *port > 0)
}

/// nats-server takes `8k` for 8000, and `8kb` for 8192.
fn thousands(literal: &str) -> Option<i64> {
    let digits = literal.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match literal[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1000,
        "kb" | "ki" | "kib" => 1024,
        _ => return None,
    };
    digits.parse::<i64>().ok()?.checked_mul(unit)
}
