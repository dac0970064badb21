//! What a fragment says, in a form that can mean one thing only.

use std::fmt::Write;

use super::super::{Secrets, quote};
use super::keys::fold;
use super::parse::{Entry, Value};
use crate::settings::{REDACTED, redact_urls};

pub fn write(entries: &[Entry], secrets: Secrets) -> String {
    let mut text = String::new();
    write_entries(&mut text, entries, secrets, 0);
    text
}

fn write_entries(text: &mut String, entries: &[Entry], secrets: Secrets, depth: usize) {
    for Entry { key, value, .. } in entries {
        // Nothing is escaped in a key, and none holds quotes of both kinds.
        let mark = if key.contains('"') { '\'' } else { '"' };
        let _ = write!(text, "{:indent$}{mark}{key}{mark}: ", "", indent = 2 * depth);
        let is_secret = ["password", "pass", "token"].contains(&fold(key).as_str());
        if secrets == Secrets::Redacted && is_secret {
            text.push_str(&quote(REDACTED));
        } else {
            write_value(text, value, secrets, depth);
        }
        text.push('\n');
    }
}

fn write_value(text: &mut String, value: &Value, secrets: Secrets, depth: usize) {
    let indent = 2 * depth;
    match value {
        Value::Text(bytes) => match (secrets, std::str::from_utf8(bytes)) {
            (Secrets::Redacted, Ok(url)) if url.contains("://") => text.push_str(&quote(redact_urls(url))),
            _ => text.push_str(&quote(bytes)),
        },
        Value::Literal(literal) => text.push_str(literal),
        Value::Variable(name) => {
            let _ = write!(text, "${name}");
        }
        Value::List(values) => {
            text.push_str("[\n");
            for value in values {
                // A number with a bracket behind it is text to nats-server, hence a line for each.
                let _ = write!(text, "{:1$}", "", indent + 2);
                write_value(text, value, secrets, depth + 1);
                text.push('\n');
            }
            let _ = write!(text, "{:indent$}]", "");
        }
        Value::Map(entries) => {
            text.push_str("{\n");
            write_entries(text, entries, secrets, depth + 1);
            let _ = write!(text, "{:indent$}}}", "");
        }
    }
}
