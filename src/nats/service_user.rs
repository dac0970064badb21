//! The user that we connect as to our own server, where users are asked for.
//!
//! The operator's users may have any rights, and passwords that only they know. So we are a user of
//! our own, with a password made at each start and the rights that our work takes.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::jetstream::API_ADVISORIES;
use crate::domain::{DataType, Secret, SubjectStyle};
use crate::files::FileContent;
use crate::settings::OWN_USER;

#[derive(Clone, Debug)]
pub struct ServiceUser {
    pub password: Secret,
}

/// Subjects that the user may publish to, and those it may subscribe to.
pub struct Rights {
    pub publish: Vec<String>,
    pub subscribe: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot make a password for our own connection: there is no randomness")]
pub struct NoRandomness;

/// Where answers to our requests go: below what operators grant to clients that make requests, and apart
/// from the answers that others get.
pub const INBOX: &str = "_INBOX._unified_nats";

/// The longest file that is read.
const MAX_FILE: u64 = 4096;

impl ServiceUser {
    /// With a new password.
    pub fn make() -> Result<Self, NoRandomness> {
        let mut bytes = [0u8; 24];
        let random = rustls::crypto::ring::default_provider().secure_random;
        random.fill(&mut bytes).map_err(|_| NoRandomness)?;
        let password: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { password: Secret::new(password) })
    }

    /// For commands, beside nats.conf. Brokers may share a directory, but no `port`.
    pub fn file(&self, directory: &Path, port: NonZeroU16) -> FileContent {
        let text = json!({ "user": OWN_USER, "password": self.password.expose() }).to_string();
        FileContent::new(file(directory, port), text)
    }

    /// Whether a file of that name is one of these.
    pub fn is_file(name: &str) -> bool {
        name.starts_with("own-user-") && name.ends_with(".json")
    }

    /// The one of the broker whose nats.conf lies in `directory` and whose server listens on `port`.
    pub fn beside(directory: &Path, port: NonZeroU16) -> Option<Self> {
        let path = file(directory, port);
        let metadata = std::fs::metadata(&path).ok()?;
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            return None;
        }
        let text = std::fs::read(&path).ok()?;
        let read: serde_json::Value = serde_json::from_slice(&text).ok()?;
        Some(Self { password: Secret::new(read.get("password")?.as_str()?.to_owned()) })
    }
}

impl Rights {
    /// What provisioning, watching and the probes that write take, and no more: nobody's data can be
    /// published as this user.
    pub fn least() -> Self {
        let families = DataType::ALL.iter().flat_map(|family| family.subjects(SubjectStyle::Both));
        let probes = families.map(|filter| format!("{}._selftest.>", filter.trim_end_matches(".>")));
        let api = ["$JS.API.>".to_owned()];
        Self {
            publish: api.into_iter().chain(probes).collect(),
            subscribe: vec![format!("{INBOX}.>"), API_ADVISORIES.to_owned()],
        }
    }
}

fn file(directory: &Path, port: NonZeroU16) -> PathBuf {
    directory.join(format!("own-user-{port}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_another_password_which_commands_find() {
        let directory = tempfile::tempdir().unwrap();
        let [port, other] = [4222, 4223].map(|port| NonZeroU16::new(port).unwrap());
        let beside = |port| ServiceUser::beside(directory.path(), port).map(|user| user.password.expose().to_owned());
        assert!(beside(port).is_none());
        let [first, second] = [(); 2].map(|()| {
            let user = ServiceUser::make().unwrap();
            user.file(directory.path(), port).write().unwrap();
            user.password
        });
        assert_ne!(first.expose(), second.expose());
        assert!(beside(other).is_none());
        ServiceUser::make().unwrap().file(directory.path(), other).write().unwrap();
        assert_eq!(beside(port).unwrap(), second.expose());
    }

    #[test]
    fn no_family_may_be_published_to_but_for_probes() {
        let rights = Rights::least();
        assert!(rights.publish.contains(&"trade-data._selftest.>".to_owned()), "{:?}", rights.publish);
        assert!(rights.publish.contains(&"trade._selftest.>".to_owned()));
        assert!(rights.publish.iter().all(|subject| subject == "$JS.API.>" || subject.ends_with("._selftest.>")));
    }
}
