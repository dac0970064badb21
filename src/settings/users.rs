//! Users of a server of our own, and what each of them may do.

use super::document::{Document, found, join, scalar};
use crate::domain::{Secret, Subject, SubjectError};
use crate::yaml::{self, Node};

#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub password: Password,
    /// [`None`]: everything.
    pub permissions: Option<Permissions>,
}

#[derive(Clone, Debug)]
pub enum Password {
    Plain(Secret),
    /// A bcrypt hash: nobody but the user knows the password.
    Hash(Secret),
}

/// As nats-server understands them (<https://docs.nats.io/running-a-nats-service/configuration/securing_nats/authorization>).
#[derive(Clone, Debug, Default)]
pub struct Permissions {
    pub publish: Rule,
    pub subscribe: Rule,
    /// May answer requests, whatever subject they name for the answer.
    pub allow_responses: bool,
}

/// Subjects that are open or closed to a user.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// [`None`]: all but those denied.
    pub allow: Option<Vec<Subject>>,
    pub deny: Vec<Subject>,
}

/// The user that the program itself connects as.
pub const OWN_USER: &str = "_unified_nats";

/// The longest name and password: clients send both in one line, which nats-server bounds.
const LONGEST: usize = 1024;

const KEYS: [&str; 3] = ["user", "password", "permissions"];
const PERMISSION_KEYS: [&str; 3] = ["publish", "subscribe", "allow_responses"];

/// Reads the list under `users:`; users with problems, which are told, are left out.
pub fn read(document: &mut Document, node: &Node, path: &str) -> Vec<User> {
    let yaml::Value::List(nodes) = &node.value else {
        document.problem(
            node.at,
            path,
            &found(node),
            "must be a list of users",
            "write `- user: NAME` with `password:` and `permissions:` below it",
        );
        return vec![];
    };
    let read = |(index, node)| read_user(document, node, &format!("{path}[{index}]"));
    nodes.iter().enumerate().filter_map(read).collect()
}

fn read_user(document: &mut Document, node: &Node, path: &str) -> Option<User> {
    let (mut name, mut password, mut permissions) = (None, None, None);
    for entry in document.entries(node, path) {
        let path = &join(path, &entry.key);
        match entry.key.as_str() {
            "user" | "username" => name = read_name(document, &entry.value, path),
            "password" | "pass" => password = read_password(document, &entry.value, path),
            "permissions" => permissions = Some(read_permissions(document, &entry.value, path)),
            _ => document.unknown_key(entry, path.trim_end_matches(&format!(".{}", entry.key)), KEYS.into_iter()),
        }
    }
    let has = |keys: [&str; 2]| match &node.value {
        yaml::Value::Map(entries) => entries.iter().any(|entry| keys.contains(&entry.key.as_str())),
        // That has been told.
        _ => true,
    };
    for keys in [["user", "username"], ["password", "pass"]] {
        if !has(keys) {
            let rule = format!("must have a {}", keys[0]);
            document.problem(node.at, path, "a user without one", &rule, &format!("add {}: …", keys[0]));
        }
    }
    Some(User { name: name?, password: password?, permissions })
}

fn read_name(document: &mut Document, node: &Node, path: &str) -> Option<String> {
    let text = scalar(node).ok().filter(|text| {
        !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control) && *text != OWN_USER
    });
    if text.is_none() {
        let rule = format!("must be a name of 1 to {LONGEST} bytes other than {OWN_USER}, which we connect as");
        document.problem(node.at, path, &found(node), &rule, "give the user another name");
    }
    text.map(str::to_owned)
}

/// Nothing of a password is ever shown.
fn read_password(document: &mut Document, node: &Node, path: &str) -> Option<Password> {
    let mut refuse = |rule: &str, remedy: &str| {
        document.problem(node.at, path, "a password (not shown)", rule, remedy);
        None
    };
    let Ok(text) = scalar(node) else {
        return refuse("must be one text", "write it in quotes");
    };
    if text.is_empty() || text.len() > LONGEST || text.contains('\0') {
        return refuse(&format!("must be 1 to {LONGEST} bytes without NUL"), "choose another");
    }
    if !text.starts_with("$2") {
        return Some(Password::Plain(Secret::new(text.to_owned())));
    }
    match is_bcrypt(text) {
        true => Some(Password::Hash(Secret::new(text.to_owned()))),
        false => refuse(
            "begins like a bcrypt hash, and is none ($2a$NN$ and 53 characters)",
            "make the hash anew, or choose a password that does not begin with $2",
        ),
    }
}

/// `$2a$NN$` with 22 characters of salt and 31 of hash; other letters than a, b, x and y are unknown
/// to nats-server.
fn is_bcrypt(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphabet = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/');
    let cost = text.get(4..6).and_then(|cost| cost.parse::<u8>().ok());
    bytes.len() == 60
        && matches!(bytes[2], b'a' | b'b' | b'x' | b'y')
        && bytes[3] == b'$'
        && cost.is_some_and(|cost| (4..=31).contains(&cost))
        && bytes[6] == b'$'
        && bytes[7..].iter().all(alphabet)
}

fn read_permissions(document: &mut Document, node: &Node, path: &str) -> Permissions {
    let mut permissions = Permissions::default();
    for entry in document.entries(node, path) {
        let inner = join(path, &entry.key);
        match entry.key.as_str() {
            "publish" => permissions.publish = read_rule(document, &entry.value, &inner),
            "subscribe" => permissions.subscribe = read_rule(document, &entry.value, &inner),
            "allow_responses" => {
                permissions.allow_responses = document.bool(&entry.value, &inner).unwrap_or_default();
            }
            _ => document.unknown_key(entry, path, PERMISSION_KEYS.into_iter()),
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
fn read_rule(document: &mut Document, node: &Node, path: &str) -> Rule {
    if !matches!(node.value, yaml::Value::Map(_)) {
        return Rule { allow: Some(read_subjects(document, node, path)), deny: vec![] };
    }
    let mut rule = Rule::default();
    for entry in document.entries(node, path) {
        let inner = join(path, &entry.key);
        match entry.key.as_str() {
            "allow" => rule.allow = Some(read_subjects(document, &entry.value, &inner)),
            "deny" => rule.deny = read_subjects(document, &entry.value, &inner),
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

fn read_subjects(document: &mut Document, node: &Node, path: &str) -> Vec<Subject> {
    let nodes = match &node.value {
        yaml::Value::List(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut subjects = Vec::with_capacity(nodes.len());
    for node in nodes {
        let read: Result<Subject, String> =
            scalar(node).and_then(|text| text.parse().map_err(|error: SubjectError| format!(" (it {error})")));
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

#[cfg(test)]
mod tests;
