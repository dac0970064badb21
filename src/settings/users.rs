//! Users of a server of our own, and what each of them may do.

use super::document::{Document, found, join, kind, scalar};
use super::permissions::{self, Permissions};
use super::values::is_bcrypt;
use crate::domain::{Role, Secret};
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
    /// None: the user signs with the seed of an nkey, whose public half is its name.
    Nkey,
}

/// The longest name and password: clients send both in one line, which nats-server bounds.
const LONGEST: usize = 1024;

const KEYS: [&str; 4] = ["user", "password", "nkey", "permissions"];

/// Reads the list under `users:`; users with problems, which are told, are left out.
pub fn read(document: &mut Document, node: &Node, path: &str) -> Vec<User> {
    let yaml::Value::List(nodes) = &node.value else {
        document.problem(
            node.at,
            path,
            kind(node),
            "must be a list of users",
            "write `- user: NAME` with `password:` and `permissions:` below it",
        );
        return vec![];
    };
    let read = |(index, node)| read_user(document, node, &format!("{path}[{index}]"));
    nodes.iter().enumerate().filter_map(read).collect()
}

fn read_user(document: &mut Document, node: &Node, path: &str) -> Option<User> {
    let (mut name, mut password, mut nkey, mut permissions) = (None, None, None, None);
    // Nothing of it is shown: it may be a name and a password in one.
    if matches!(node.value, yaml::Value::Scalar { .. }) {
        let remedy = "write `- user: NAME` with `password:` and `permissions:` below it";
        document.problem(node.at, path, kind(node), "must be a map", remedy);
        return None;
    }
    for entry in document.entries(node, path) {
        let path = &join(path, &entry.key);
        match entry.key.as_str() {
            "user" | "username" => name = read_name(document, &entry.value, path),
            "password" | "pass" => password = read_password(document, &entry.value, path),
            "nkey" => nkey = read_nkey(document, &entry.value, path),
            "permissions" => permissions = Some(permissions::read(document, &entry.value, path)),
            _ => document.unknown_key(entry, path.trim_end_matches(&format!(".{}", entry.key)), KEYS.into_iter()),
        }
    }
    let has = |keys: &[&str]| match &node.value {
        yaml::Value::Map(entries) => entries.iter().any(|entry| keys.contains(&entry.key.as_str())),
        // That has been told.
        _ => true,
    };
    let is_map = matches!(node.value, yaml::Value::Map(_));
    if is_map && has(&["nkey"]) {
        if has(&["user", "username", "password", "pass"]) {
            let rule = "names one way to log in: user and password, or nkey";
            document.problem(node.at, path, "both", rule, "leave one of the two out");
            return None;
        }
        return Some(User { name: nkey?, password: Password::Nkey, permissions });
    }
    for keys in [["user", "username"], ["password", "pass"]] {
        if !has(&keys) {
            let rule = format!("must have a {}", keys[0]);
            document.problem(node.at, path, "a user without one", &rule, &format!("add {}: …", keys[0]));
        }
    }
    Some(User { name: name?, password: password?, permissions })
}

fn read_name(document: &mut Document, node: &Node, path: &str) -> Option<String> {
    let text = scalar(node).ok().filter(|text| {
        let is_name = !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control);
        is_name && Role::of_user(text).is_none()
    });
    if text.is_none() {
        let ours = Role::ALL.map(Role::user).join(", ");
        let rule = format!("must be a name of 1 to {LONGEST} bytes other than {ours}, which we connect as");
        document.problem(node.at, path, &found(node), &rule, "give the user another name");
    }
    text.map(str::to_owned)
}

/// Nothing of it is shown: it may be a seed, written there by mistake.
fn read_nkey(document: &mut Document, node: &Node, path: &str) -> Option<String> {
    let text = scalar(node).unwrap_or_default();
    let is_user = text.starts_with('U') && nkeys::KeyPair::from_public_key(text).is_ok();
    if !is_user {
        let found = if text.starts_with('S') { "what looks like a seed (not shown)" } else { "a text (not shown)" };
        let rule = "must be the public nkey of a user: U and 55 letters and digits";
        document.problem(node.at, path, found, rule, "give the public key that `nk -inkey SEED_FILE -pubout` prints");
    }
    is_user.then(|| text.to_owned())
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

#[cfg(test)]
mod tests;
