use super::lock::StoreTaken;
use super::ports::PortError;
use crate::settings::Problems;
use crate::supervisor::{Ending, ExecutableError, Failure};

/// Why a start was refused or the broker ended other than by a stop.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Settings(#[from] Problems),
    #[error(transparent)]
    Executable(#[from] ExecutableError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Store(#[from] StoreTaken),
    #[error("nats-server could not listen on one of its ports; its last lines were:\n{0}")]
    ServerPort(String),
    #[error("nats-server refuses its configuration (see `unified-nats config validate`):\n{0}")]
    Refused(String),
    #[error(
        "gave up: {reason}, and the restart budget (RESTART_MAX, RESTART_WINDOW) is spent; its last lines were:\n{last_lines}"
    )]
    CrashLoop { reason: String, last_lines: String },
    #[error("internal error: {0}")]
    Internal(#[from] anyhow::Error),
}

impl StartError {
    /// How supervision ended, as a result.
    pub fn of(ending: Ending) -> Result<(), Self> {
        let Ending::Failed { failure, last_lines } = ending else {
            return Ok(());
        };
        let last_lines = last_lines.join("\n");
        Err(match failure {
            Failure::PortTaken => StartError::ServerPort(last_lines),
            Failure::ConfigurationRefused => StartError::Refused(last_lines),
            Failure::CrashLoop { reason } => StartError::CrashLoop { reason, last_lines },
        })
    }
}
