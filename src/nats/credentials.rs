//! What a connection shows to be let in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use async_nats::{Auth, AuthError, ServerAddr};
use percent_encoding::percent_decode_str;
use tokio::task::spawn_blocking;

use crate::domain::Secret;
use crate::settings::Credentials;

/// Where the credentials of a connection come from.
#[derive(Clone, Debug)]
pub enum Identity {
    Nobody,
    Known(Credentials),
    /// Read anew for each connection: whoever issues such files renews them.
    File(PathBuf),
}

/// The longest credentials file.
const MAX_FILE: u64 = 64 * 1024;

impl Identity {
    pub fn user(name: impl Into<String>, password: Secret) -> Self {
        Self::Known(Credentials::User { name: name.into(), password })
    }

    /// `nats://user:password@host` or `nats://token@host`; what would end a part is percent-encoded.
    pub fn in_url(url: &str) -> Option<Self> {
        let address: ServerAddr = url.parse().ok()?;
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let name = decoded(address.username()?);
        Some(match address.password() {
            Some(password) => Self::user(name, Secret::new(decoded(password))),
            None => Self::Known(Credentials::Token(Secret::new(name))),
        })
    }

    fn as_auth(&self, nonce: &[u8]) -> Result<Auth, String> {
        let mut auth = Auth::new();
        match self {
            Self::Nobody => {}
            Self::Known(Credentials::User { name, password }) => {
                auth.username = Some(name.clone());
                auth.password = Some(password.expose().to_owned());
            }
            Self::Known(Credentials::Token(token)) => auth.token = Some(token.expose().to_owned()),
            Self::File(path) => {
                let of_file = |reason: String| format!("the credentials file {}: {reason}", path.display());
                let file = CredentialsFile::read(path).map_err(of_file)?;
                let signature = file.sign(nonce).map_err(of_file)?;
                auth.jwt = Some(file.jwt);
                auth.signature = Some(signature);
            }
        }
        Ok(auth)
    }
}

/// What an attempt to connect asks for each time; errors tell what is wrong with a file.
pub async fn answer(identity: Arc<RwLock<Identity>>, nonce: Vec<u8>) -> Result<Auth, AuthError> {
    // Without a panic no lock is poisoned.
    let identity = identity.read().map_or(Identity::Nobody, |identity| identity.clone());
    let auth = match identity {
        // From a disk that may hang.
        Identity::File(_) => spawn_blocking(move || identity.as_auth(&nonce)).await.map_err(AuthError::new)?,
        _ => identity.as_auth(&nonce),
    };
    auth.map_err(AuthError::new)
}

/// A JWT and the seed of the key that signs for it, each between lines of dashes.
struct CredentialsFile {
    jwt: String,
    seed: Secret,
}

impl CredentialsFile {
    fn read(path: &Path) -> Result<Self, String> {
        let unreadable = |error: io::Error| format!("cannot be read: {error}");
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            return Err("is not a regular file of at most 64 KiB".into());
        }
        Self::parse(&std::fs::read_to_string(path).map_err(unreadable)?)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let after = |title: &str| {
            let mut lines = text.lines().skip_while(|line| !line.contains(title)).skip(1);
            lines.next().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("---"))
        };
        let jwt = after("BEGIN NATS USER JWT").ok_or("holds no user JWT")?;
        let seed = after("BEGIN USER NKEY SEED").ok_or("holds no nkey seed")?;
        Ok(Self { jwt: jwt.to_owned(), seed: Secret::new(seed.to_owned()) })
    }

    fn sign(&self, nonce: &[u8]) -> Result<Vec<u8>, String> {
        let pair = nkeys::KeyPair::from_seed(self.seed.expose()).map_err(|_| "its nkey seed is damaged")?;
        pair.sign(nonce).map_err(|_| "its nkey seed cannot sign".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_urls_are_decoded() {
        let Some(Identity::Known(Credentials::User { name, password })) = Identity::in_url("nats://us%40er:p%3Aw@h:1")
        else {
            panic!("a user");
        };
        assert_eq!((name.as_str(), password.expose()), ("us@er", "p:w"));
        let Some(Identity::Known(Credentials::Token(token))) = Identity::in_url("nats://to%2Fken@h") else {
            panic!("a token");
        };
        assert_eq!(token.expose(), "to/ken");
        assert!(Identity::in_url("nats://h:4222").is_none());
    }

    #[test]
    fn a_credentials_file_signs_what_the_server_asks_it_to() {
        let pair = nkeys::KeyPair::new_user();
        let seed = pair.seed().unwrap();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\njwt.of.user\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let file = CredentialsFile::parse(&text).unwrap();
        assert_eq!(file.jwt, "jwt.of.user");
        let signature = file.sign(b"nonce").unwrap();
        assert!(pair.verify(b"nonce", &signature).is_ok());
        let damaged = text.replace(&seed, &seed.to_lowercase());
        let error = CredentialsFile::parse(&damaged).unwrap().sign(b"nonce").unwrap_err();
        assert!(!error.contains(&seed), "{error}");
        assert!(CredentialsFile::parse("-----BEGIN NATS USER JWT-----\n------END NATS USER JWT------\n").is_err());
        assert!(CredentialsFile::parse("").is_err());
    }
}
