use std::collections::HashMap;
use std::fmt;
use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(Signal),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Collects the exit status of every child of this process, those it adopted as PID 1 included.
///
/// It is the only place that waits. Spawning holds the same lock as reaping, so that a child cannot
/// be reaped before its owner is known.
#[derive(Clone, Default)]
pub struct Reaper(Arc<Mutex<HashMap<Pid, oneshot::Sender<Exit>>>>);

impl Reaper {
    /// Starts `command`; the receiver gets its exit status.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Pid, oneshot::Receiver<Exit>)> {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = Pid::from_raw(command.spawn()?.id() as i32);
        let (owner, exit) = oneshot::channel();
        owners.insert(pid, owner);
        Ok((pid, exit))
    }

    /// Buries every process that has ended. To be called on SIGCHLD; returns how many there were.
    pub fn reap(&self) -> usize {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reaped = 0;
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let (pid, exit) = match status {
                WaitStatus::Exited(pid, code) => (pid, Exit::Code(code)),
                WaitStatus::Signaled(pid, signal, _) => (pid, Exit::Signal(signal)),
                WaitStatus::StillAlive => break,
                _ => continue,
            };
            reaped += 1;
            if let Some(owner) = owners.remove(&pid) {
                // Nobody waits any more: the owner has gone, and so has the child.
                let _ = owner.send(exit);
            }
        }
        reaped
    }
}
