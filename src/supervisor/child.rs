use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::preparation::{ConfigFiles, Hindrance, Work};
use super::reaper::{Exit, Reaper};
use crate::files::FileContent;

/// What has to be so before a launch.
pub type Condition = Arc<dyn Fn() -> Result<(), Hindrance> + Send + Sync>;

/// Starts servers and sends them signals. The real one runs nats-server; tests of the supervisor's
/// logic record what was asked for.
pub trait Launch {
    /// What comes before a launch, if anything does.
    fn preparation(&mut self) -> Option<Work<(), Hindrance>>;
    /// Must be called from a thread that lives as long as the program.
    fn launch(&mut self) -> io::Result<Launched>;
    /// `pid` is the one that `launch` gave.
    fn signal(&mut self, pid: Option<Pid>, signal: Signal);
    /// Puts another configuration in place, for a reload and for every launch from then on.
    fn installation(&mut self, files: Vec<FileContent>) -> Work<(), io::Error>;
}

/// A server that has just been started.
pub struct Launched {
    /// [`None`] for a server that others run.
    pub pid: Option<Pid>,
    pub exit: oneshot::Receiver<Exit>,
    /// What it prints, both streams in one.
    pub output: Option<pipe::Receiver>,
}

/// How nats-server is run.
pub struct NatsServer {
    pub executable: PathBuf,
    pub config_file: PathBuf,
    /// nats.conf and what it names. Written before each launch: whatever happened to them meanwhile,
    /// the server gets the configuration that was validated.
    pub files: ConfigFiles,
    /// What else has to be so before each launch.
    pub condition: Condition,
    /// The whole environment of the child.
    pub environment: Vec<(&'static str, String)>,
    pub reaper: Reaper,
    /// Stays open in the server: a lock that lasts as long as it does.
    pub inherited: Option<OwnedFd>,
}

impl Launch for NatsServer {
    fn preparation(&mut self) -> Option<Work<(), Hindrance>> {
        let (files, condition) = (self.files.clone(), self.condition.clone());
        Some(Box::new(move || {
            condition()?;
            files.write()
        }))
    }

    fn launch(&mut self) -> io::Result<Launched> {
        let (reader, writer) = io::pipe()?;
        let supervisor = getpid();
        let inherited = self.inherited.as_ref().map(|descriptor| descriptor.as_raw_fd());
        let mut command = Command::new(&self.executable);
        command
            .arg("--config")
            .arg(&self.config_file)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            // Signals meant for us (Ctrl-C in a terminal) do not reach it.
            .process_group(0);
        #[allow(unsafe_code, reason = "the standard library offers prctl in no other way")]
        // SAFETY: only async-signal-safe calls (prctl, getppid, fcntl) between fork and exec, and the
        // descriptor is open as long as `self` is.
        unsafe {
            command.pre_exec(move || {
                // SIGKILL, because a server that hangs would survive anything gentler, and the next
                // supervisor must never meet it on the same store. It fires when the thread that
                // spawned ends, hence the rule on `launch`.
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                // The supervisor may have gone before prctl took effect.
                if getppid() != supervisor {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                if let Some(descriptor) = inherited {
                    let descriptor = BorrowedFd::borrow_raw(descriptor);
                    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
                }
                Ok(())
            });
        }
        let (pid, exit) = self.reaper.spawn(&mut command)?;
        // The command still holds the pipe's write end; with it open the output would never end.
        drop(command);
        let output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        Ok(Launched { pid: Some(pid), exit, output: Some(output) })
    }

    fn signal(&mut self, pid: Option<Pid>, signal: Signal) {
        let Some(pid) = pid else { return };
        if let Err(error) = kill(pid, signal) {
            tracing::debug!(%pid, %signal, %error, "cannot signal nats-server");
        }
    }

    fn installation(&mut self, files: Vec<FileContent>) -> Work<(), io::Error> {
        let present = self.files.clone();
        Box::new(move || present.replace(files))
    }
}
