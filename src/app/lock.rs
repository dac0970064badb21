//! One broker for one store: two servers on the same files would destroy them.

use std::fs::{OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LOCK: &str = ".unified-nats.lock";
/// A server whose supervisor was killed is on its way out, and holds the lock until it is gone.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot use the store {}: another broker has it; stop that one, or set JETSTREAM_STORE_DIR to another directory",
    .0.display()
)]
pub struct StoreTaken(PathBuf);

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
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Err(StoreTaken(store.to_owned())),
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
