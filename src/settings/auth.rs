//! Who may connect to a server of our own, and as whom we connect to one that others run.

use super::external::ExternalServer;
use super::file::SettingsFile;
use super::problem::quote;
use super::reader::Reader;
use super::users::{Password, User};
use super::variables::*;
use crate::domain::{Role, Secret};

#[derive(Clone, Debug)]
pub enum Authentication {
    /// Anybody.
    Open,
    /// At least one.
    Users(Vec<User>),
    Token(Secret),
}

/// What a client shows to be let in.
#[derive(Clone, Debug)]
pub enum Credentials {
    User { name: String, password: Secret },
    Token(Secret),
}

/// What variables say about credentials.
struct Given {
    name: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
    /// Set, even if to something that breaks its rule, which has been told already.
    any_name: bool,
    any_password: bool,
    any_token: bool,
}

impl Given {
    fn read(reader: &mut Reader) -> Self {
        let name = reader.text(&NATS_AUTH_USERNAME);
        if name.as_deref().and_then(Role::of_user).is_some() {
            reader.refuse(&NATS_AUTH_USERNAME, "that is whom we connect as");
        }
        if let Some(name) = &name {
            reader.warn_if_odd(NATS_AUTH_USERNAME.name, name);
        }
        let password = reader.secret(&NATS_AUTH_PASSWORD);
        let token = reader.secret(&NATS_AUTH_TOKEN);
        let given = |variable| reader.is_set(variable) || reader.has_problem(variable);
        let [any_name, any_password, any_token] =
            [&NATS_AUTH_USERNAME, &NATS_AUTH_PASSWORD, &NATS_AUTH_TOKEN].map(given);
        Self { name, password, token, any_name, any_password, any_token }
    }

    fn any(&self) -> bool {
        self.any_name || self.any_password || self.any_token
    }

    /// What they come to; nothing where they contradict each other, which is told.
    fn credentials(self, reader: &mut Reader) -> Option<Credentials> {
        if self.any_token && (self.any_name || self.any_password) {
            reader.problems.add(
                "NATS_AUTH_TOKEN, NATS_AUTH_USERNAME",
                "both a token and a user",
                "nats-server takes one or the other",
                "unset NATS_AUTH_TOKEN, or NATS_AUTH_USERNAME and NATS_AUTH_PASSWORD",
            );
            return None;
        }
        let missing = match (self.any_name, self.any_password) {
            (true, false) => "a user name without a password",
            (false, true) => "a password without a user name",
            _ => {
                let user = self.name.zip(self.password).map(|(name, password)| Credentials::User { name, password });
                return user.or(self.token.map(Credentials::Token));
            }
        };
        reader.problems.add(
            "NATS_AUTH_USERNAME, NATS_AUTH_PASSWORD",
            missing,
            "they go together",
            "set both, or NATS_AUTH_TOKEN instead",
        );
        None
    }
}

impl Authentication {
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// `declared` are the users of the settings file. A user of NATS_AUTH_USERNAME comes first.
    pub fn read(reader: &mut Reader, declared: Vec<User>) -> Self {
        let enabled = reader.bool(&NATS_AUTH_ENABLED);
        let given = Given::read(reader);
        let mut users = declared;
        let users_file = reader.readable_file(&NATS_USERS_FILE);
        if !enabled {
            if given.any() || users_file.is_some() || !users.is_empty() {
                reader.warnings.push(
                    "credentials are set, but NATS_AUTH_ENABLED is false: anybody may connect; set \
                     NATS_AUTH_ENABLED=true to ask for them"
                        .into(),
                );
            }
            return Self::Open;
        }
        if let Some(file) = users_file {
            let read = SettingsFile::read(&file, &NATS_USERS_FILE, reader.problems);
            if read.users.is_empty() && reader.problems.is_empty() {
                reader.refuse(&NATS_USERS_FILE, "it declares no user");
            }
            let others = read.variables.iter().any(|(name, ..)| *name != NATS_AUTH_ENABLED.name);
            if others || !read.streams.is_empty() {
                let file = file.display();
                reader.warnings.push(format!("{file}: what it says besides users counts in CONFIG_FILE only"));
            }
            users.extend(read.users);
        }
        for user in &users {
            let name = quote(&user.name);
            reader.warn_if_odd(&format!("the name of the user {name}"), &user.name);
            if let Password::Plain(password) = &user.password {
                reader.warn_if_odd(&format!("the password of the user {name}"), password.expose());
            }
        }
        let nothing_given = !given.any() && !reader.is_set(&NATS_USERS_FILE);
        match given.credentials(reader) {
            Some(Credentials::Token(_)) if !users.is_empty() => {
                reader.problems.add(
                    "NATS_AUTH_TOKEN",
                    "a token beside users",
                    "nats-server takes one or the other",
                    "unset NATS_AUTH_TOKEN, or NATS_USERS_FILE and `users:` in CONFIG_FILE",
                );
                return Self::Open;
            }
            Some(Credentials::Token(token)) => return Self::Token(token),
            Some(Credentials::User { name, password }) => {
                users.insert(0, User { name, password: Password::Plain(password), permissions: None });
            }
            None if users.is_empty() && nothing_given => reader.problems.add(
                "NATS_AUTH_ENABLED",
                "no credentials",
                "true needs NATS_AUTH_USERNAME and NATS_AUTH_PASSWORD, NATS_AUTH_TOKEN, or NATS_USERS_FILE",
                "set them, or set NATS_AUTH_ENABLED=false",
            ),
            None => {}
        }
        refuse_doubles(&users, reader);
        if users.is_empty() { Self::Open } else { Self::Users(users) }
    }
}

fn refuse_doubles(users: &[User], reader: &mut Reader) {
    for (index, user) in users.iter().enumerate() {
        if users[..index].iter().any(|other| other.name == user.name) {
            reader.problems.add(
                "NATS_USERS_FILE",
                format!("the user {} twice", quote(&user.name)),
                "each user is declared once, NATS_AUTH_USERNAME included",
                "keep one of the two",
            );
        }
    }
}

impl Credentials {
    /// Those for a server that others run.
    pub fn read(reader: &mut Reader, external: &ExternalServer) -> Option<Self> {
        let credentials = Given::read(reader).credentials(reader);
        if credentials.is_some() && external.credentials_file.is_some() {
            reader.problems.add(
                "NATS_CREDS_FILE",
                "a credentials file beside NATS_AUTH_USERNAME or NATS_AUTH_TOKEN",
                "one connection shows one kind of credentials",
                "unset NATS_CREDS_FILE, or the others",
            );
        }
        credentials
    }
}
