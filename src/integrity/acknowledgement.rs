//! How an operator's acknowledgement reaches the broker that runs: a file in the store, which nobody
//! can write but who may write the store. The broker takes it up and removes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::marks::Book;
use crate::files::write_atomically;

const BOOK: &str = ".unified-nats-integrity.json";
const REQUEST: &str = ".unified-nats-acknowledge-loss";
/// What is read at most of a request; stream names are shorter.
const MAX_REQUEST: u64 = 4096;

/// Where marks and losses of the store are kept.
pub fn book_file(store: &Path) -> PathBuf {
    store.join(BOOK)
}

fn request_file(store: &Path) -> PathBuf {
    store.join(REQUEST)
}

/// What is kept beside the store; empty where nothing is. One that cannot be read starts over, which
/// is an error to be told: what had been seen before is forgotten.
pub fn read_book(store: &Path) -> Result<Book, String> {
    let path = book_file(store);
    match fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|error| format!("{} cannot be read: {error}", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Book::default()),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

/// Asks the broker to forget the losses of `stream`, or all of them.
pub fn request(store: &Path, stream: Option<&str>) -> io::Result<()> {
    write_atomically(&request_file(store), stream.unwrap_or_default().as_bytes())
}

/// Whether a request waits to be taken up.
pub fn is_pending(store: &Path) -> bool {
    request_file(store).exists()
}

/// Takes a request up: the stream it names, or [`None`] within for all of them.
pub fn take(store: &Path) -> Option<Option<String>> {
    let path = request_file(store);
    let size = fs::symlink_metadata(&path).ok()?.len();
    let text = if size > MAX_REQUEST { String::new() } else { fs::read_to_string(&path).ok()? };
    fs::remove_file(&path).ok()?;
    // What is too long to be a name acknowledges nothing.
    if size > MAX_REQUEST {
        return None;
    }
    Some(Some(text.trim().to_owned()).filter(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_up_once() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(take(store.path()), None);
        request(store.path(), Some("A")).unwrap();
        assert!(is_pending(store.path()));
        assert_eq!(take(store.path()), Some(Some("A".into())));
        assert!(!is_pending(store.path()));
        request(store.path(), None).unwrap();
        assert_eq!(take(store.path()), Some(None));
        fs::write(request_file(store.path()), vec![b'x'; 5000]).unwrap();
        assert_eq!((take(store.path()), is_pending(store.path())), (None, false));
    }

    #[test]
    fn a_book_that_cannot_be_read_is_told() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(read_book(store.path()), Ok(Book::default()));
        fs::write(book_file(store.path()), "{").unwrap();
        assert!(read_book(store.path()).is_err());
    }
}
