use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc;
use nix::sys::signal::{Signal, kill};

use nix::unistd::Pid;
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    /// A signal by its number: real-time signals have no name.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "signal {signal}"),
                Err(_) => write!(f, "signal {number}"),
            },
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

    /// Ends a process that [`Self::spawn`] has started, unless it has ended already: then its id may be
    /// another one's.
    pub fn kill(&self, pid: Pid) {
        let owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.contains_key(&pid) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    /// Buries every process that has ended. To be called on SIGCHLD; returns how many there were.
    pub fn reap(&self) -> usize {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reaped = 0;
        while let Some((pid, status)) = next_dead_child() {
            reaped += 1;
            if let Some(owner) = owners.remove(&pid) {
                let code = status.code().map(Exit::Code);
                let exit = code.or(status.signal().map(Exit::Signal)).unwrap_or(Exit::Code(-1));
                // Nobody waits any more: the owner has gone, and so has the child.
                let _ = owner.send(exit);
            }
        }
        reaped
    }
}

/// Not nix's `waitpid`, which fails on a child that a real-time signal ended, after burying it.
#[allow(unsafe_code, reason = "there is no other way to wait for any child and learn everything")]
fn next_dead_child() -> Option<(Pid, ExitStatus)> {
    let mut status = 0;
    // SAFETY: waitpid writes to the status, which lives on this stack frame.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then(|| (Pid::from_raw(pid), ExitStatus::from_raw(status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test, because the reaper collects the children of the whole process.
    #[test]
    fn every_way_to_end_reaches_its_owner() {
        let reaper = Reaper::default();
        for (script, expected) in [
            ("exit 0", Exit::Code(0)),
            ("exit 255", Exit::Code(255)),
            ("kill -9 $$", Exit::Signal(9)),
            ("kill -40 $$", Exit::Signal(40)),
        ] {
            let (_, mut exit) = reaper.spawn(Command::new("sh").args(["-c", script])).unwrap();
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            let exit = loop {
                reaper.reap();
                if let Ok(exit) = exit.try_recv() {
                    break exit;
                }
                assert!(std::time::Instant::now() < deadline, "{script}");
                std::thread::yield_now();
            };
            assert_eq!(exit, expected, "{script}");
        }
        assert_eq!(Exit::Signal(9).to_string(), "signal SIGKILL");
        assert_eq!(Exit::Signal(40).to_string(), "signal 40");
    }
}
