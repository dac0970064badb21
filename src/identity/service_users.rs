//! Passwords of the service users, and where commands find the one of control.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::rights;
use crate::domain::{Role, Secret, SubjectError};
use crate::files::FileContent;
use crate::settings::{Credentials, Password, User};

/// A password for each role.
#[derive(Clone, Debug)]
pub struct ServiceUsers {
    control: Secret,
    data: Secret,
    backup: Secret,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot make passwords for our own connections: there is no randomness")]
pub struct NoRandomness;

/// The longest file that is read.
const MAX_FILE: u64 = 4096;

impl ServiceUsers {
    /// With new passwords.
    pub fn make() -> Result<Self, NoRandomness> {
        Ok(Self { control: password()?, data: password()?, backup: password()? })
    }

    pub fn credentials(&self, role: Role) -> Credentials {
        credentials(role, self.password(role).clone())
    }

    fn password(&self, role: Role) -> &Secret {
        match role {
            Role::Control => &self.control,
            Role::Data => &self.data,
            Role::Backup => &self.backup,
        }
    }

    /// With their rights, for nats.conf.
    pub fn users(&self) -> Result<Vec<User>, SubjectError> {
        let user = |role: Role| {
            let password = Password::Plain(self.password(role).clone());
            Ok(User { name: role.user().to_owned(), password, permissions: Some(rights::of(role)?) })
        };
        Role::ALL.into_iter().map(user).collect()
    }

    /// For commands, beside nats.conf: control alone, so that the other passwords never leave this process
    /// but in nats.conf. Brokers may share a directory, but no `port`.
    pub fn file(&self, directory: &Path, port: NonZeroU16) -> FileContent {
        let text = json!({ "user": Role::Control.user(), "password": self.control.expose() }).to_string();
        FileContent::new(file(directory, port), text)
    }
}

/// Whether a file of that name is one of these.
pub fn is_file(name: &str) -> bool {
    name.starts_with("own-user-") && name.ends_with(".json")
}

/// The control of the broker whose nats.conf lies in `directory` and whose server listens on `port`.
pub fn control_beside(directory: &Path, port: NonZeroU16) -> Option<Credentials> {
    let path = file(directory, port);
    let metadata = std::fs::metadata(&path).ok()?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return None;
    }
    let text = std::fs::read(&path).ok()?;
    let read: serde_json::Value = serde_json::from_slice(&text).ok()?;
    Some(credentials(Role::Control, Secret::new(read.get("password")?.as_str()?.to_owned())))
}

fn password() -> Result<Secret, NoRandomness> {
    let mut bytes = [0u8; 24];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn credentials(role: Role, password: Secret) -> Credentials {
    Credentials::User { name: role.user().to_owned(), password }
}

fn file(directory: &Path, port: NonZeroU16) -> PathBuf {
    directory.join(format!("own-user-{port}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(credentials: &Credentials) -> (&str, &str) {
        match credentials {
            Credentials::User { name, password } => (name, password.expose()),
            Credentials::Token(_) => panic!("a user"),
        }
    }

    #[test]
    fn each_start_has_another_password_which_commands_find() {
        let directory = tempfile::tempdir().unwrap();
        let [port, other] = [4222, 4223].map(|port| NonZeroU16::new(port).unwrap());
        let beside = |port| control_beside(directory.path(), port);
        assert!(beside(port).is_none());
        let [first, second] = [(); 2].map(|()| {
            let users = ServiceUsers::make().unwrap();
            users.file(directory.path(), port).write().unwrap();
            users.credentials(Role::Control)
        });
        assert_ne!(shown(&first), shown(&second));
        assert!(beside(other).is_none());
        ServiceUsers::make().unwrap().file(directory.path(), other).write().unwrap();
        assert_eq!(shown(&beside(port).unwrap()), shown(&second));
    }

    #[test]
    fn roles_have_passwords_of_their_own_which_no_file_but_nats_conf_holds() {
        let users = ServiceUsers::make().unwrap();
        let passwords = Role::ALL.map(|role| users.password(role).expose());
        let mut different = passwords.to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), Role::ALL.len());
        assert!(passwords.iter().all(|password| password.len() == 48));
        let file = users.file(Path::new("/run"), NonZeroU16::MIN).content;
        let held = |password: &&&str| String::from_utf8_lossy(&file).contains(**password);
        assert_eq!(passwords.iter().filter(held).collect::<Vec<_>>(), [&passwords[0]]);
        let printed = format!("{users:?}");
        assert!(passwords.iter().all(|password| !printed.contains(password)), "{printed}");
    }
}
