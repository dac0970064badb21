//! One broker for one store: two servers on the same files would destroy them.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A server whose supervisor was killed is on its way out, and holds the lock until it is gone.
use crate::store_layout::LOCK;

const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot use the store {}: {}, or set JETSTREAM_STORE_DIR to another directory", .store.display(), describe(.holders)
)]
pub struct StoreTaken {
    store: PathBuf,
    /// Processes that have the lock open, as far as they can be seen from here.
    holders: Vec<Holder>,
}

#[derive(Debug, PartialEq, Eq)]
struct Holder {
    pid: u32,
    name: String,
}

fn describe(holders: &[Holder]) -> String {
    /// More do not help.
    const SOME: usize = 3;
    let named = holders.iter().take(SOME).map(|Holder { pid, name }| format!("process {pid}, {name}"));
    match named.collect::<Vec<_>>().join("; ") {
        unseen if unseen.is_empty() => {
            "another broker has it, in another container or on another machine; stop that one".to_owned()
        }
        named => format!(
            "another broker has it ({named}); stop that one, or end that process where its broker has left it behind"
        ),
    }
}

/// Who else has the lock open. It is inherited: a server that was killed may have left a process behind.
fn holders(lock: &File) -> Vec<Holder> {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let Ok(lock) = lock.metadata().map(identity) else { return vec![] };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = processes.filter_map(|process| Some((process.file_name().to_str()?.parse().ok()?, process.path())));
    let others = numbered.filter(|(pid, _)| *pid != std::process::id());
    let holding = others.filter(|(_, process)| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        open.into_iter().any(|file| fs::metadata(file.path()).map(identity).is_ok_and(|identity| identity == lock))
    });
    let named = holding.map(|(pid, process)| {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        Holder { pid, name: name.trim().to_owned() }
    });
    named.collect()
}

/// Takes the store, for as long as the descriptor or one that was inherited from it is open. Waits a
/// little for a server that is about to end. Where no lock can be made (a disk that is full, a file
/// system without locks) there is none.
pub fn take(store: &Path) -> Result<Option<OwnedFd>, StoreTaken> {
    let path = store.join(LOCK);
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o660).open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(error) => return Ok(without(&path, &error)),
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file.into())),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(StoreTaken { store: store.to_owned(), holders: holders(&file) });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
            Err(TryLockError::Error(error)) => return Ok(without(&path, &error)),
        }
    }
}

fn without(path: &Path, error: &io::Error) -> Option<OwnedFd> {
    tracing::warn!("cannot lock {}: {error}; see to it that no other broker uses this store", path.display());
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_lock_is_named_with_the_way_out() {
        let taken = |holders: Vec<Holder>| StoreTaken { store: "/data".into(), holders }.to_string();
        let nobody = taken(vec![]);
        assert!(nobody.contains("/data: another broker has it") && nobody.contains("JETSTREAM_STORE_DIR"), "{nobody}");
        let somebody = taken(vec![Holder { pid: 77, name: "sleep".into() }]);
        for part in ["/data: another broker has it", "process 77, sleep", "end that process", "JETSTREAM_STORE_DIR"] {
            assert!(somebody.contains(part), "{part}: {somebody}");
        }
        let store = tempfile::tempdir().unwrap();
        let lock = File::create(store.path().join(LOCK)).unwrap();
        assert_eq!(holders(&lock), [], "we are no other");
        let mut child = std::process::Command::new("sleep").arg("60").stdin(lock.try_clone().unwrap()).spawn().unwrap();
        let found = holders(&lock);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.iter().map(|holder| holder.pid).collect::<Vec<_>>(), [child.id()], "{found:?}");
    }

    #[test]
    fn a_store_is_for_one() {
        let store = tempfile::tempdir().unwrap();
        let lock = take(store.path()).unwrap().unwrap();
        let inherited = lock.try_clone().unwrap();
        drop(lock);
        let path = store.path().to_owned();
        let waiting = std::thread::spawn(move || take(&path).map(|lock| lock.is_some()));
        // Still held by who inherited it; a wait that must not end cannot be waited for.
        std::thread::sleep(POLL * 10);
        assert!(!waiting.is_finished());
        drop(inherited);
        assert!(waiting.join().unwrap().unwrap());
    }
}
