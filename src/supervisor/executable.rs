//! Finding nats-server and making sure that it is one we can work with.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::preparation::Hindrance;
use super::reaper::Reaper;
use crate::domain::OLDEST_SERVER;

/// A nats-server that can be run, with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    pub path: PathBuf,
    pub version: Version,
}

/// Major, minor and patch version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u32, pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ExecutableError {
    #[error(
        "cannot find {name:?} in PATH ({searched}); install nats-server 2.10 or newer, or set NATS_SERVER_BIN to its path"
    )]
    NotInPath { name: String, searched: String },
    #[error("cannot run {}: {reason}; set NATS_SERVER_BIN to a nats-server for this machine", path.display())]
    NotRunnable { path: PathBuf, reason: String },
    #[error("cannot use {}: it answers --version with {answer:?}, not as nats-server does; set NATS_SERVER_BIN", path.display())]
    NotNatsServer { path: PathBuf, answer: String },
    #[error(
        "cannot use {}: it is version {version}, and at least 2.10 is needed; install a newer nats-server or set NATS_SERVER_BIN",
        path.display()
    )]
    TooOld { path: PathBuf, version: String },
}

impl Executable {
    /// Looks `name` up, and asks the file for its version.
    pub fn find(name: &str, search_path: &str, reaper: &Reaper) -> Result<Self, ExecutableError> {
        Self::at(&Self::locate(name, search_path)?, reaper)
    }

    /// Looks `name` up: a path, or a name in the directories of `search_path`.
    pub fn locate(name: &str, search_path: &str) -> Result<PathBuf, ExecutableError> {
        locate(name, search_path)
    }

    /// Asks that file for its version.
    pub fn at(path: &Path, reaper: &Reaper) -> Result<Self, ExecutableError> {
        check_file(path).map_err(|reason| ExecutableError::NotRunnable { path: path.into(), reason })?;
        let version = ask_version(path, reaper)?;
        Ok(Self { path: path.to_owned(), version })
    }
}

impl ExecutableError {
    /// The same for who is about to launch it: somebody may be exchanging the file just now.
    pub fn hindrance(&self) -> Hindrance {
        Hindrance::Passing(format!(
            "cannot start nats-server: {self} and restart the broker, or put a nats-server back at the same place, and the \
             broker goes on by itself"
        ))
    }
}

fn locate(name: &str, search_path: &str) -> Result<PathBuf, ExecutableError> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        return check_file(&path)
            .map(|()| path.clone())
            .map_err(|reason| ExecutableError::NotRunnable { path, reason });
    }
    let mut not_runnable = None;
    for directory in search_path.split(':').filter(|d| !d.is_empty()) {
        let path = Path::new(directory).join(name);
        match check_file(&path) {
            Ok(()) => return Ok(path),
            Err(reason) if path.exists() => {
                not_runnable.get_or_insert(ExecutableError::NotRunnable { path, reason });
            }
            Err(_) => {}
        }
    }
    Err(not_runnable.unwrap_or_else(|| ExecutableError::NotInPath { name: name.into(), searched: search_path.into() }))
}

fn check_file(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".into());
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(format!("it is not executable (mode {:04o})", metadata.permissions().mode() & 0o7777));
    }
    if is_text(path) {
        return Err("it is not a program".into());
    }
    Ok(())
}

/// Whether it is certainly neither a program nor a script. The system would give it to a shell, which
/// would do whatever it can make of it.
fn is_text(path: &Path) -> bool {
    let mut beginning = [0u8; 2];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut beginning));
    match read {
        Ok(()) => ![b"\x7fE", b"#!"].contains(&&beginning),
        // One may run what one may not read.
        Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
    }
}

fn ask_version(path: &Path, reaper: &Reaper) -> Result<Version, ExecutableError> {
    let not_runnable = |reason| ExecutableError::NotRunnable { path: path.into(), reason };
    let answer = first_words(path, reaper).map_err(|error| not_runnable(explain(&error)))?;
    let Some(version) = parse_version(&answer) else {
        return Err(ExecutableError::NotNatsServer { path: path.into(), answer });
    };
    if (version.0, version.1) < OLDEST_SERVER {
        return Err(ExecutableError::TooOld { path: path.into(), version: version.to_string() });
    }
    Ok(version)
}

/// The first characters that the program prints when asked for its version, within a bounded time.
fn first_words(path: &Path, reaper: &Reaper) -> io::Result<String> {
    let (mut output, writer) = io::pipe()?;
    let mut command = Command::new(path);
    command.arg("--version").env_clear().stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
    let (pid, _exit) = reaper.spawn(&mut command)?;
    // The command still holds the pipe's write end.
    drop(command);
    let mut read = || -> io::Result<String> {
        // One write of a few bytes is all that nats-server answers.
        if !says_something(&output, Instant::now() + PATIENCE)? {
            return Err(io::Error::other(format!("it does not answer --version within {} s", PATIENCE.as_secs())));
        }
        let mut words = [0u8; 200];
        let count = output.read(&mut words)?;
        Ok(String::from_utf8_lossy(&words[..count]).trim().to_owned())
    };
    let words = read();
    // It has said what was asked for; a nats-server is about to end anyway.
    reaper.kill(pid);
    words
}

/// What nats-server gets to say its version; less than all that comes before a launch, so that this is
/// what is told.
const PATIENCE: Duration = Duration::from_secs(4);

/// Whether there is something to read before the deadline; signals do not cut that short.
fn says_something(output: &impl AsFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], patience) {
            Err(Errno::EINTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) if code == Errno::ENOEXEC as i32 => {
            format!("it is not a program for this machine ({})", std::env::consts::ARCH)
        }
        _ => error.to_string(),
    }
}

/// `nats-server: v2.15.1` or `nats-server: v2.15.0-RC.1`.
fn parse_version(answer: &str) -> Option<Version> {
    let text = answer.strip_prefix("nats-server: v")?;
    let mut numbers = text.split(['.', '-', '+']).map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Version(next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(parse_version("nats-server: v2.15.1"), Some(Version(2, 15, 1)));
        assert_eq!(parse_version("nats-server: v2.12.0-RC.4"), Some(Version(2, 12, 0)));
        assert_eq!(parse_version("nats-server: vX"), None);
        assert_eq!(parse_version("bash, version 5"), None);
    }

    fn script(directory: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn what_is_wrong_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let plain = script(at, "plain", "x", 0o644);
        let garbage = script(at, "garbage", "\x7fELF nonsense", 0o755);
        let other = script(at, "other", "#!/bin/sh\necho hello\n", 0o755);
        let text = script(at, "text", "touch made-by-a-shell\n", 0o755);
        let empty = script(at, "empty", "", 0o755);
        let old = script(at, "old", "#!/bin/sh\necho nats-server: v2.9.25\n", 0o755);
        for (path, expected) in [
            (at.join("missing"), "No such file"),
            (at.to_path_buf(), "not a file"),
            (plain, "not executable"),
            (garbage, "not a program for this machine"),
            (text, "it is not a program; set NATS_SERVER_BIN"),
            (empty, "it is not a program"),
            (other, "answers --version with \"hello\""),
            (old, "version 2.9.25"),
        ] {
            let error = Executable::find(path.to_str().unwrap(), "", &Reaper::default()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(path.to_str().unwrap()), "{error}");
        }
        let error =
            Executable::find("nats-server-x", "/nonexistent:/usr/bin", &Reaper::default()).unwrap_err().to_string();
        assert!(error.contains("/nonexistent:/usr/bin"), "{error}");
    }
}
