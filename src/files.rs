//! Writing files that are whole or not there.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// A file and what it is to hold, mode 0600.
#[derive(Clone, PartialEq, Eq)]
pub struct FileContent {
    pub path: PathBuf,
    pub content: Vec<u8>,
}

impl FileContent {
    pub fn new(path: PathBuf, content: impl Into<Vec<u8>>) -> Self {
        Self { path, content: content.into() }
    }

    /// See [`write_atomically`].
    pub fn write(&self) -> io::Result<()> {
        write_atomically(&self.path, &self.content)
    }

    /// The same; what goes wrong names the file, and the way out where there is no room.
    pub fn put(&self) -> io::Result<()> {
        self.write().map_err(|error| {
            let way_out = if is_out_of_room(&error) { "; make room there" } else { "" };
            io::Error::new(error.kind(), format!("cannot write {}: {error}{way_out}", self.path.display()))
        })
    }
}

impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may hold passwords and keys.
        write!(f, "{} ({} bytes)", self.path.display(), self.content.len())
    }
}

/// A directory that stays the one it was when something else comes to stand at its path.
#[derive(Debug)]
pub struct HeldDirectory {
    path: PathBuf,
    held: RwLock<Option<Arc<OwnedFd>>>,
}

/// A [`HeldDirectory`] for as long as it is used.
#[derive(Debug)]
pub struct InHand {
    path: PathBuf,
    _held: Option<Arc<OwnedFd>>,
}

impl HeldDirectory {
    /// The one that is at `path` now.
    pub fn hold(path: PathBuf) -> Self {
        let directory = Self { path, held: RwLock::default() };
        directory.take_up();
        directory
    }

    /// Takes up the one that is at the path now.
    pub fn take_up(&self) {
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&self.path);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        *held = opened.ok().map(|file| Arc::new(file.into()));
    }

    /// Whether it is at its path.
    pub fn is_in_place(&self) -> bool {
        let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        let held = identity(self.in_hand().as_ref());
        held.is_some() && held == identity(&self.path)
    }

    /// For reading and writing in it; by its path where it could not be opened.
    pub fn in_hand(&self) -> InHand {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner).clone();
        let path = held.as_ref().map(|held| PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())));
        InHand { path: path.unwrap_or_else(|| self.path.clone()), _held: held }
    }
}

impl AsRef<Path> for InHand {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// Removes what processes that were killed while they wrote into `directory` have left there, of the
/// files whose names are `ours`.
pub fn remove_leftovers(directory: &Path, ours: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_str().and_then(split_temporary).is_some_and(|(name, pid)| ours(name) && is_over(pid)) {
            // What cannot be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The file that a temporary one is to become, and the process that writes it.
fn split_temporary(name: &str) -> Option<(&str, i32)> {
    let (name, pid) = name.strip_suffix(".tmp")?.rsplit_once('.')?;
    let numeric = pid.bytes().all(|b| b.is_ascii_digit());
    Some((name, pid.parse().ok().filter(|_| numeric)?))
}

/// Whether that process writes no more: it is gone, or it was one of an earlier start with our id.
fn is_over(pid: i32) -> bool {
    pid == std::process::id() as i32 || pid <= 0 || kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

/// Whether room that is made elsewhere mends it.
pub fn is_out_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes `bytes` to `path` with mode 0600: into a temporary file beside it, then renamed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&temporary);
    let write = || {
        // A leftover of a process with our id must not lend its mode to a secret.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
        file.write_all(bytes)?;
        fs::rename(temporary, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_held_directory_is_the_same_wherever_it_goes() {
        let at = tempfile::tempdir().unwrap();
        let (place, away) = (at.path().join("place"), at.path().join("away"));
        fs::create_dir(&place).unwrap();
        let held = HeldDirectory::hold(place.clone());
        assert!(held.is_in_place());
        fs::rename(&place, &away).unwrap();
        assert!(!held.is_in_place());
        fs::create_dir(&place).unwrap();
        assert!(!held.is_in_place());
        write_atomically(&held.in_hand().as_ref().join("a"), b"1").unwrap();
        assert!(away.join("a").exists() && !place.join("a").exists());
        held.take_up();
        write_atomically(&held.in_hand().as_ref().join("b"), b"1").unwrap();
        assert!(place.join("b").exists() && !away.join("b").exists());
    }

    #[test]
    fn removes_what_a_killed_process_left_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (mut gone, ours, alive) = (std::process::Command::new("true").spawn().unwrap(), std::process::id(), 1);
        gone.wait().unwrap();
        let gone = gone.id();
        let leftovers = [format!("nats.conf.{gone}.tmp"), format!("nats.conf.candidate.{ours}.tmp")];
        let others = [
            "nats.conf".to_owned(),
            "nats.conf.x.tmp".to_owned(),
            "nats.conf.tmp".to_owned(),
            format!("nats.conf.+{gone}.tmp"),
            format!("nats.conf.{alive}.tmp"),
            format!("other.{gone}.tmp"),
        ];
        for name in leftovers.iter().chain(&others) {
            fs::write(directory.path().join(name), "").unwrap();
        }
        remove_leftovers(directory.path(), |name| name.starts_with("nats.conf"));
        for name in &others {
            assert!(directory.path().join(name).exists(), "{name}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), others.len());
    }

    #[test]
    fn replaces_the_whole_file_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nats.conf");
        fs::write(&path, "old and longer").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
    }
}
