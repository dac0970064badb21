//! Why there is no nats.conf.

use super::fragment::{FragmentError, Listener};
use crate::settings::variables::{NATS_EXTRA_CONFIG, SECURITY_STRICT};
use crate::settings::{Problem, quote};

#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    #[error("cannot lay out nats.conf")]
    Template(#[from] tera::Error),
    #[error("cannot hash a password that looks like a bcrypt hash")]
    Hash(#[from] bcrypt::BcryptError),
    #[error("NATS_EXTRA_CONFIG cannot be used")]
    Fragment(#[from] FragmentError),
    #[error("NATS_EXTRA_CONFIG lets in clients that nobody asks for credentials")]
    Listener,
    #[error("NATS_EXTRA_CONFIG takes port {} twice", .listener.port)]
    Port { listener: Listener, other: String },
}

impl RenderError {
    /// The problem in the settings that the error comes from, if it does.
    pub fn as_problem(&self) -> Option<Problem> {
        let error = match self {
            Self::Fragment(error) => error,
            Self::Listener => {
                return Some(Problem {
                    variable: format!("{}, {}", SECURITY_STRICT.name, NATS_EXTRA_CONFIG.name),
                    found: "a websocket, mqtt or leafnodes port in the fragment".into(),
                    rule: "nobody is asked for credentials there while NATS_AUTH_ENABLED is false".into(),
                    remedy: "set NATS_AUTH_ENABLED=true, or take the port out of the fragment".into(),
                });
            }
            Self::Port { listener: Listener { kind, port, line }, other } => {
                return Some(Problem {
                    variable: NATS_EXTRA_CONFIG.name.into(),
                    found: format!("port {port} of {kind} in line {line} of the fragment, which is that of {other}"),
                    rule: "all ports in use must be distinct".into(),
                    remedy: "give one of them another port".into(),
                });
            }
            _ => return None,
        };
        let (found, rule, remedy) = match error {
            FragmentError::Reserved { key, instead, line } => (
                format!("the key {} in line {line} of the fragment", quote(key)),
                format!("it is set by {instead}, and a fragment must not go round that"),
                "set the variable instead and take the key out of the fragment",
            ),
            FragmentError::Kept { key, reason, line } => (
                format!("the key {} in line {line} of the fragment", quote(key)),
                format!("a fragment must leave it alone: {reason}"),
                "take the key out of the fragment",
            ),
            FragmentError::Include { line } => (
                format!("include in line {line} of the fragment"),
                "what the fragment says is copied into nats.conf, where the path would mean something else".to_owned(),
                "put the text of the included file into the fragment",
            ),
            FragmentError::Variable { name, line } => (
                format!("the variable {} in line {line} of the fragment", quote(name)),
                "a variable stands for an earlier key of the fragment; nats-server is run without environment variables"
                    .to_owned(),
                "set the key above, or write the value itself",
            ),
            FragmentError::Twice { key, earlier, line } => (
                format!("the key {} in line {line} of the fragment", quote(key)),
                format!("it sets what {} above has set, and which of the two counts is up to chance", quote(earlier)),
                "keep one of the two",
            ),
            FragmentError::Malformed { what, line } => {
                (format!("line {line} of the fragment"), (*what).to_owned(), "correct the fragment")
            }
        };
        Some(Problem { variable: NATS_EXTRA_CONFIG.name.into(), found, rule, remedy: remedy.into() })
    }
}
