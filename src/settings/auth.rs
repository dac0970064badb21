//! Who may connect to nats-server.

use super::reader::Reader;
use super::variables::*;
use crate::domain::Secret;

#[derive(Clone, Debug)]
pub enum Authentication {
    /// Anybody.
    Open,
    User {
        name: String,
        password: Secret,
    },
    Token(Secret),
}

impl Authentication {
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    pub fn read(reader: &mut Reader) -> Self {
        let enabled = reader.bool(&NATS_AUTH_ENABLED);
        let name = reader.text(&NATS_AUTH_USERNAME);
        let password = reader.secret(&NATS_AUTH_PASSWORD);
        let token = reader.secret(&NATS_AUTH_TOKEN);
        let users_file = reader.path(&NATS_USERS_FILE).is_some();
        let given = |variable| reader.is_set(variable) || reader.has_problem(variable);
        let any_user = given(&NATS_AUTH_USERNAME) || given(&NATS_AUTH_PASSWORD);
        let any_token = given(&NATS_AUTH_TOKEN);
        if !enabled {
            if any_user || any_token || users_file {
                reader.warnings.push(
                    "credentials are set, but NATS_AUTH_ENABLED is false: anybody may connect; set \
                     NATS_AUTH_ENABLED=true to ask for them"
                        .into(),
                );
            }
            return Self::Open;
        }
        if users_file {
            reader.problems.add(
                NATS_USERS_FILE.name,
                "a users file",
                "this version knows one user or a token only, and must not start more open than asked for",
                "set NATS_AUTH_USERNAME and NATS_AUTH_PASSWORD, or NATS_AUTH_TOKEN, and unset NATS_USERS_FILE",
            );
            return Self::Open;
        }
        if any_token && any_user {
            reader.problems.add(
                "NATS_AUTH_TOKEN, NATS_AUTH_USERNAME",
                "both a token and a user",
                "nats-server takes one or the other",
                "unset NATS_AUTH_TOKEN, or NATS_AUTH_USERNAME and NATS_AUTH_PASSWORD",
            );
            return Self::Open;
        }
        match (name, password, token) {
            (Some(name), Some(password), None) => Self::User { name, password },
            (None, None, Some(token)) => Self::Token(token),
            // A value that was set but broke its rule has been reported already.
            _ => {
                let missing = match (given(&NATS_AUTH_USERNAME), given(&NATS_AUTH_PASSWORD), any_token) {
                    (true, false, false) => "a user name without a password",
                    (false, true, false) => "a password without a user name",
                    (false, false, false) => "no credentials",
                    _ => return Self::Open,
                };
                reader.problems.add(
                    "NATS_AUTH_ENABLED",
                    missing,
                    "true needs NATS_AUTH_USERNAME and NATS_AUTH_PASSWORD, or NATS_AUTH_TOKEN",
                    "set them, or set NATS_AUTH_ENABLED=false",
                );
                Self::Open
            }
        }
    }
}
