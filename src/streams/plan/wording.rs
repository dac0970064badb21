//! Plans in sentences for the operator.

use std::fmt;

use super::{Action, Change, Conflict, ConsumerAction, Remark, StreamPlan};
use crate::domain::ByteSize;
use crate::settings::declared::options::readable;
use crate::streams::spec::SpecOrigin;

impl StreamPlan {
    /// Changes that are wanted, and consumers that are missing, in sentences.
    pub fn pending(&self) -> (Vec<String>, Vec<String>) {
        let wanted = |change: &Change| format!("{change} is wanted");
        let (mut changes, mut missing) = (vec![], vec![]);
        if let Action::Update { changes: of_stream, .. } = &self.action {
            changes.extend(of_stream.iter().map(wanted));
        }
        for consumer in &self.consumers {
            match &consumer.action {
                ConsumerAction::Create(_) => missing.push(format!("consumer {} does not exist", consumer.name)),
                ConsumerAction::Update { changes: of_consumer, .. } => {
                    let named = |change: &Change| format!("consumer {}: {}", consumer.name, wanted(change));
                    changes.extend(of_consumer.iter().map(named));
                }
                ConsumerAction::Nothing | ConsumerAction::Blocked => {}
            }
        }
        (changes, missing)
    }
}

impl Change {
    /// For a change that was left out.
    pub fn why_kept(&self) -> String {
        let (field, effect) = (self.field, self.effect.as_deref().unwrap_or_default());
        match &self.by {
            SpecOrigin::DefaultOf(variable) => format!(
                "{field} stays {}: the default {} {effect}; set {variable} if that is wanted",
                readable(field, &self.now),
                readable(field, &self.wanted)
            ),
            _ => {
                let now = readable(field, &self.now);
                format!("{field} stays {now}: to leave it out {effect}; write {field} down if that is wanted")
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → {}", self.field, readable(self.field, &self.now), readable(self.field, &self.wanted))?;
        match &self.effect {
            Some(effect) => write!(f, " ({effect})"),
            None => Ok(()),
        }
    }
}

impl SpecOrigin {
    /// What an operator sets to change a field of a stream.
    fn where_to_set<'a>(&'a self, field: &'a str) -> &'a str {
        match self {
            Self::Variable(name) | Self::DefaultOf(name) => name,
            Self::Line(_) | Self::Nobody => field,
        }
    }
}

impl fmt::Display for SpecOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::DefaultOf(name) => write!(f, "the default of {name}"),
            Self::Line(line) => f.write_str(line),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed { field, now, wanted, by } => write!(
                f,
                "{field} is {} and cannot become {} ({by}) while it exists: keep it and change {by} to what it is, or \
                 back it up, recreate and restore it",
                readable(field, now),
                readable(field, wanted)
            ),
            Self::TooOld { field, since, version, by } => write!(
                f,
                "{field} ({by}) needs nats-server {}.{} and this one is {}.{}: upgrade it, or leave {field} out",
                since.0, since.1, version.0, version.1
            ),
            Self::Overlap { subject, other, other_subject, by } => write!(
                f,
                "{subject} ({by}) belongs to stream {other} already, which captures {other_subject}: take it out of one \
                 of them"
            ),
            Self::Inside { subject, other, by } => write!(
                f,
                "{subject} ({by}) overlaps {other}, which the stream captures, too, and neither holds the other: take \
                 one of them out, or set strict_subjects",
            ),
            Self::Untaken { subject, other, by } => write!(
                f,
                "{subject} is to go ({by}) to stream {other}, which cannot take it: settle what stands in the way of \
                 that one first"
            ),
            Self::Circle { other } => write!(
                f,
                "it takes subjects from stream {other} while that one waits for it: change them in two steps, first \
                 taking subjects out"
            ),
            Self::NoRoom { bytes: 0, used, of, .. } => write!(
                f,
                "there is no room for another stream, even without max_bytes: other streams reserve {}, which is all \
                 that {of} allows: lower max_bytes of one of them, or raise {of}",
                ByteSize::new(used.unsigned_abs())
            ),
            Self::NoRoom { bytes, used, most, of, by } => {
                let size = |bytes: i64| ByteSize::new(bytes.unsigned_abs());
                let enough = size(used.saturating_add(*bytes));
                write!(
                    f,
                    "max_bytes {} ({by}) has no room: other streams reserve {} of the {} that {of} allows: lower it, or \
                     raise {of} to {enough} at least",
                    size(*bytes),
                    size(*used),
                    size(*most)
                )
            }
            Self::AboveAccount { field, value, most, by } => {
                let shown = |number: i64| match *field {
                    "max_bytes" => ByteSize::new(number.unsigned_abs()).to_string(),
                    _ => number.to_string(),
                };
                let (value, most) = (shown(*value), shown(*most));
                write!(
                    f,
                    "{field} is {value} ({by}), and the account allows {most}: set {} to {most} at most, or have the \
                     account's limit raised",
                    by.where_to_set(field)
                )
            }
            Self::Required { field, by } => write!(
                f,
                "{field} is not limited, and the account asks for a limit of each stream: set {}",
                by.where_to_set(field)
            ),
            Self::Contradiction { field, found, rule, remedy, by } => {
                write!(f, "{field} ({by}): cannot use {found}: {rule}; {remedy}")
            }
            Self::TooMany { what, most, variable } => {
                write!(f, "{variable} allows {most} {what}, and there are as many already: raise it, or delete some")
            }
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { consumer: None, conflict } => write!(f, "conflict: {conflict}"),
            Self::Conflict { consumer: Some(name), conflict } => write!(f, "conflict: consumer {name}: {conflict}"),
            Self::Kept(change) => f.write_str(&change.why_kept()),
            Self::Blind { consumer, filter } => {
                write!(f, "consumer {consumer}: no message of the stream can match {filter}")
            }
            Self::Unknown => {
                f.write_str("it does not answer: the node that holds it may be away, or its cluster has no leader")
            }
        }
    }
}
