//! How an operator's acknowledgement reaches the broker that runs: a file in the store, which nobody
//! can write but who may write the store. The broker takes it up and removes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ledger::IntegrityLedger;
use super::losses::Loss;
use crate::files::write_atomically;
use crate::store_layout::{ACKNOWLEDGEMENT, LEDGER};

/// What is read at most of a request.
const MAX_REQUEST: u64 = 16 << 20;

/// Where baselines and losses of the store are kept.
pub fn ledger_file(store: &Path) -> PathBuf {
    store.join(LEDGER)
}

fn request_file(store: &Path) -> PathBuf {
    store.join(ACKNOWLEDGEMENT)
}

/// What is kept beside the store; empty where nothing is. One that cannot be read starts over, which
/// is an error to be told: what had been seen before is forgotten.
pub fn read_ledger(store: &Path) -> Result<IntegrityLedger, String> {
    let path = ledger_file(store);
    match fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|error| format!("{} cannot be read: {error}", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(IntegrityLedger::default()),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

/// Asks the broker to forget these losses, which somebody has seen, and no others.
pub fn request(store: &Path, seen: &[Loss]) -> io::Result<()> {
    write_atomically(&request_file(store), &serde_json::to_vec(seen)?)
}

/// Whether a request waits to be taken up.
pub fn is_pending(store: &Path) -> bool {
    request_file(store).exists()
}

/// Takes a request up.
pub fn take(store: &Path) -> Option<Vec<Loss>> {
    let path = request_file(store);
    let metadata = fs::symlink_metadata(&path).ok()?;
    let text = if metadata.is_file() && metadata.len() <= MAX_REQUEST { fs::read(&path).ok() } else { None };
    fs::remove_file(&path).ok()?;
    // What cannot be read acknowledges nothing.
    serde_json::from_slice(&text?).ok()
}

/// Moves a ledger that cannot be read out of the way, where somebody may look at it.
pub fn set_aside_ledger(store: &Path) {
    let mut aside = ledger_file(store).into_os_string();
    aside.push(".unreadable");
    // One that cannot be moved is overwritten.
    let _ = fs::rename(ledger_file(store), aside);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_up_once() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(take(store.path()), None);
        let missing = super::super::losses::LossKind::End { was: 3, is: 1, held: None };
        let seen = [Loss { stream: "A".into(), missing, found_at: "then".into() }];
        request(store.path(), &seen).unwrap();
        assert!(is_pending(store.path()));
        assert_eq!(take(store.path()), Some(seen.to_vec()));
        assert!(!is_pending(store.path()));
        for nonsense in ["", "A", "[]]"] {
            fs::write(request_file(store.path()), nonsense).unwrap();
            assert_eq!((take(store.path()), is_pending(store.path())), (None, false));
        }
    }

    #[test]
    fn a_book_that_cannot_be_read_is_told() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(read_ledger(store.path()), Ok(IntegrityLedger::default()));
        fs::write(ledger_file(store.path()), "{").unwrap();
        assert!(read_ledger(store.path()).is_err());
    }
}
