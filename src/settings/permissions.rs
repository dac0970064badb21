//! What a user may do.

use std::fmt;
use std::time::Duration;

use super::document::{Document, found, join, scalar};
use super::values::number_in;
use crate::domain::{Subject, SubjectError, parse_span};
use crate::yaml::{self, Node};

/// As nats-server understands them (<https://docs.nats.io/running-a-nats-service/configuration/securing_nats/authorization>).
#[derive(Clone, Debug, Default)]
pub struct Permissions {
    pub publish: Rule,
    pub subscribe: Rule,
    /// May answer requests, whatever subject they name for the answer.
    pub allow_responses: Option<Responses>,
}

/// How many answers a request may get, and for how long; nothing for nats-server's own bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Responses {
    pub max: Option<i32>,
    pub expires: Option<Duration>,
}

/// A subject, for subscribers in that queue group alone where one is named.
#[derive(Clone, Debug)]
pub struct Grant {
    pub subject: Subject,
    pub queue: Option<Subject>,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.queue {
            Some(queue) => write!(f, "{} {queue}", self.subject),
            None => write!(f, "{}", self.subject),
        }
    }
}

/// Subjects that are open or closed to a user.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// [`None`]: all but those denied.
    pub allow: Option<Vec<Grant>>,
    pub deny: Vec<Grant>,
}

const KEYS: [&str; 3] = ["publish", "subscribe", "allow_responses"];
const RESPONSES_KEYS: [&str; 2] = ["max", "expires"];

/// Whether a queue group may be named: there are none to publish to.
#[derive(Clone, Copy, PartialEq)]
enum Queues {
    None,
    May,
}

pub fn read(document: &mut Document, node: &Node, path: &str) -> Permissions {
    let mut permissions = Permissions::default();
    for entry in document.entries(node, path) {
        let inner = join(path, &entry.key);
        match entry.key.as_str() {
            "publish" => permissions.publish = read_rule(document, &entry.value, &inner, Queues::None),
            "subscribe" => permissions.subscribe = read_rule(document, &entry.value, &inner, Queues::May),
            "allow_responses" => permissions.allow_responses = read_responses(document, &entry.value, &inner),
            _ => document.unknown_key(entry, path, KEYS.into_iter()),
        }
    }
    refuse_empty(
        document,
        node,
        path,
        "leave it out for everything, or write `publish: []` and `subscribe: []` below it",
    );
    permissions
}

/// Subjects that are allowed, or a map of `allow` and `deny`.
fn read_rule(document: &mut Document, node: &Node, path: &str, queues: Queues) -> Rule {
    if !matches!(node.value, yaml::Value::Map(_)) {
        return Rule { allow: Some(read_subjects(document, node, path, queues)), deny: vec![] };
    }
    let mut rule = Rule::default();
    for entry in document.entries(node, path) {
        let inner = join(path, &entry.key);
        match entry.key.as_str() {
            "allow" => rule.allow = Some(read_subjects(document, &entry.value, &inner, queues)),
            "deny" => rule.deny = read_subjects(document, &entry.value, &inner, queues),
            _ => document.unknown_key(entry, path, ["allow", "deny"].into_iter()),
        }
    }
    refuse_empty(document, node, path, "leave it out for everything, or write [] for none");
    rule
}

/// To nats-server nothing means everything, and who wrote nothing down may have meant to close.
fn refuse_empty(document: &mut Document, node: &Node, path: &str, remedy: &str) {
    let is_empty = match &node.value {
        yaml::Value::Map(entries) => entries.is_empty(),
        value => matches!(value, yaml::Value::Null),
    };
    if is_empty {
        document.problem(node.at, path, "nothing", "must say what is open or closed", remedy);
    }
}

fn read_subjects(document: &mut Document, node: &Node, path: &str, queues: Queues) -> Vec<Grant> {
    let nodes = match &node.value {
        yaml::Value::List(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut subjects = Vec::with_capacity(nodes.len());
    for node in nodes {
        let read = scalar(node).and_then(|text| read_grant(text, queues));
        match read {
            Ok(subject) => subjects.push(subject),
            Err(reason) => {
                let rule = format!("must be a subject such as trade.>{reason}");
                document.problem(node.at, path, &found(node), &rule, "correct it, or write [] for none");
            }
        }
    }
    subjects
}

/// A subject, or a subject and a queue group: `orders.> workers`.
fn read_grant(text: &str, queues: Queues) -> Result<Grant, String> {
    let parse = |text: &str| text.parse::<Subject>().map_err(|error: SubjectError| format!(" (it {error})"));
    let mut words = text.split([' ', '\t']).filter(|word| !word.is_empty());
    match (words.next(), words.next(), words.next()) {
        (Some(subject), Some(queue), None) if queues == Queues::May => {
            Ok(Grant { subject: parse(subject)?, queue: Some(parse(queue)?) })
        }
        (Some(_), Some(_), None) => Err(" (a queue group may stand below subscribe only)".into()),
        (Some(subject), None, None) => Ok(Grant { subject: parse(subject)?, queue: None }),
        _ => Ok(Grant { subject: parse(text)?, queue: None }),
    }
}

/// Yes, no, or bounds.
fn read_responses(document: &mut Document, node: &Node, path: &str) -> Option<Responses> {
    if !matches!(node.value, yaml::Value::Map(_)) {
        return document.bool(node, path).unwrap_or_default().then(Responses::default);
    }
    let mut responses = Responses::default();
    for entry in document.entries(node, path) {
        let inner = join(path, &entry.key);
        let mut refuse = |rule: &str| {
            document.problem(entry.value.at, &inner, &found(&entry.value), rule, "correct it, or leave it out")
        };
        match entry.key.as_str() {
            // nats-server takes 0 for its own bound.
            "max" => match scalar(&entry.value).and_then(|text| number_in(text, &(-1..=i64::from(i32::MAX)))) {
                Ok(max) if max != 0 => responses.max = i32::try_from(max).ok(),
                _ => refuse("must be a number of answers from 1, or -1 for any number"),
            },
            "expires" => match scalar(&entry.value).and_then(parse_span) {
                Ok(span) if !span.is_zero() => responses.expires = Some(span),
                _ => refuse("must be a time such as 2m"),
            },
            _ => document.unknown_key(entry, path, RESPONSES_KEYS.into_iter()),
        }
    }
    refuse_empty(document, node, path, "write true, or `max:` and `expires:` below it");
    Some(responses)
}
