use std::process::ExitCode;

use crate::preflight::StartError;

/// Exit codes, documented and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// A clean stop, or the check passed.
    Success = 0,
    /// The check failed, or the command did not succeed.
    Failed = 1,
    /// Changes are pending, where that was asked for.
    Pending = 2,
    /// The command line is wrong.
    Usage = 64,
    /// nats-server cannot be run, or a port is taken.
    Unavailable = 69,
    /// A panic, or a task that died.
    Internal = 70,
    /// The restart budget is spent.
    GaveUp = 75,
    /// The settings are invalid.
    Settings = 78,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

impl From<&StartError> for Code {
    fn from(fault: &StartError) -> Self {
        match fault {
            StartError::Settings(_) | StartError::Refused(_) => Self::Settings,
            StartError::Executable(_) | StartError::Port(_) | StartError::ServerPort(_) | StartError::Store(_) => {
                Self::Unavailable
            }
            StartError::CrashLoop { .. } => Self::GaveUp,
            StartError::Internal(_) => Self::Internal,
        }
    }
}
