//! What has to be done, and to be so, before a server may be launched. It reads and writes files, and a
//! disk may hang: so it is done on a thread where that hinders nobody.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::files::{FileContent, is_out_of_room};

/// Work for a thread that may wait.
pub type Work<T, E> = Box<dyn FnOnce() -> Result<T, E> + Send>;

/// Why no server can be launched.
#[derive(Debug)]
pub enum Hindrance {
    /// It goes by, and is waited for: a disk without room, a store that is somewhere else.
    Passing(String),
    Failed(io::Error),
}

/// The files that a server is started with, nats.conf among them. Clones hold the same files.
#[derive(Clone, Debug)]
pub struct ConfigFiles(Arc<Mutex<Vec<FileContent>>>);

impl ConfigFiles {
    pub fn new(files: Vec<FileContent>) -> Self {
        Self(Arc::new(Mutex::new(files)))
    }

    /// Writes them, whatever has happened to them meanwhile. One that already holds what it should and
    /// cannot be written will do.
    pub fn write(&self) -> Result<(), Hindrance> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.iter().try_for_each(|file| {
            file.write().or_else(|error| match fs::read(&file.path) {
                Ok(content) if content == file.content => Ok(()),
                _ => Err(hindrance(&file.path, error)),
            })
        })
    }

    /// Writes others, which take the place of these from then on.
    pub fn replace(&self, others: Vec<FileContent>) -> io::Result<()> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        others.iter().try_for_each(FileContent::put)?;
        *files = others;
        Ok(())
    }
}

fn hindrance(path: &Path, error: io::Error) -> Hindrance {
    let words = format!("cannot write {}: {error}", path.display());
    match is_out_of_room(&error) {
        true => Hindrance::Passing(format!("{words}; make room there")),
        false => Hindrance::Failed(io::Error::new(error.kind(), words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn file(path: PathBuf, content: &str) -> FileContent {
        FileContent::new(path, content)
    }

    #[test]
    fn others_take_the_place_only_once_they_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nats.conf");
        let files = ConfigFiles::new(vec![file(path.clone(), "old")]);
        files.write().unwrap();
        assert!(files.replace(vec![file(path.join("below"), "new")]).is_err());
        fs::remove_file(&path).unwrap();
        files.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        files.replace(vec![file(path.clone(), "new")]).unwrap();
        fs::write(&path, "scribbled over").unwrap();
        files.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_disk_without_room_goes_by_and_other_faults_do_not() {
        let path = Path::new("/x/nats.conf");
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let Hindrance::Passing(reason) = hindrance(path, kind.into()) else { panic!("{kind}") };
            assert!(reason.contains("/x/nats.conf") && reason.contains("make room"), "{reason}");
        }
        assert!(matches!(hindrance(path, io::ErrorKind::NotADirectory.into()), Hindrance::Failed(_)));
    }
}
