//! What a fragment says, in a form that can mean one thing only.

use std::fmt::Write;

use super::super::{Secrets, quote};
use super::keys::fold;
use super::parse::{Entry, Value};
use crate::settings::{REDACTED, redact_urls};

/// The text, and the line of the fragment that each of its lines comes from.
pub fn write(entries: &[Entry], secrets: Secrets) -> (String, Vec<usize>) {
    let mut written = Written { text: String::new(), lines: vec![], secrets };
    written.entries(entries, 0);
    (written.text, written.lines)
}

struct Written {
    text: String,
    lines: Vec<usize>,
    secrets: Secrets,
}

impl Written {
    fn entries(&mut self, entries: &[Entry], depth: usize) {
        for Entry { key, value, line } in entries {
            // Nothing is escaped in a key, and none holds quotes of both kinds.
            let mark = if key.contains('"') { '\'' } else { '"' };
            let _ = write!(self.text, "{:indent$}{mark}{key}{mark}: ", "", indent = 2 * depth);
            let is_secret = ["password", "pass", "token"].contains(&fold(key).as_str());
            if self.secrets == Secrets::Redacted && is_secret {
                self.text.push_str(&quote(REDACTED));
            } else {
                self.value(value, *line, depth);
            }
            self.end_line(*line);
        }
    }

    fn end_line(&mut self, line: usize) {
        self.text.push('\n');
        self.lines.push(line);
    }

    /// `line` is that of its key.
    fn value(&mut self, value: &Value, line: usize, depth: usize) {
        let indent = 2 * depth;
        match value {
            Value::Text(bytes) => match (self.secrets, std::str::from_utf8(bytes)) {
                (Secrets::Redacted, Ok(url)) if url.contains("://") => self.text.push_str(&quote(redact_urls(url))),
                _ => self.text.push_str(&quote(bytes)),
            },
            Value::Literal(literal) => self.text.push_str(literal),
            Value::Variable(name) => {
                let _ = write!(self.text, "${name}");
            }
            Value::List(values) => {
                self.text.push('[');
                self.end_line(line);
                for value in values {
                    // A number with a bracket behind it is text to nats-server, hence a line for each.
                    let _ = write!(self.text, "{:1$}", "", indent + 2);
                    self.value(value, line, depth + 1);
                    self.end_line(line);
                }
                let _ = write!(self.text, "{:indent$}]", "");
            }
            Value::Map(entries) => {
                self.text.push('{');
                self.end_line(line);
                self.entries(entries, depth + 1);
                let _ = write!(self.text, "{:indent$}}}", "");
            }
        }
    }
}
