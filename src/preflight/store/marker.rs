//! The marker in the store: a file that says which store it is.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::program::Program;
use crate::files::write_atomically;
use crate::store_layout::MARKER;
use crate::supervisor::Version;

/// The longest marker that is read.
const MAX_FILE: u64 = 4096;

/// What the file says, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Of this store alone; made with it.
    pub id: String,
    /// Servers that were launched over the store: an older copy knows of fewer.
    #[serde(default)]
    pub launches: u64,
    /// The newest nats-server that has written the store.
    #[serde(default)]
    pub newest_server: Option<Version>,
    /// The program that was launched last, so that it need not be asked for its version again.
    #[serde(default)]
    pub program: Option<Program>,
}

impl Marker {
    pub fn make() -> Self {
        Self {
            id: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
            launches: 0,
            newest_server: None,
            program: None,
        }
    }

    /// The newer server that has written the store, if there was one.
    pub fn refuses(&self, version: Version) -> Option<Version> {
        self.newest_server.filter(|newest| version < *newest)
    }

    pub fn write(&self, store: &Path) -> io::Result<()> {
        write_atomically(&store.join(MARKER), serde_json::to_string(self)?.as_bytes())
    }
}

/// A marker that does not exist is [`io::ErrorKind::NotFound`].
pub fn read(store: &Path) -> io::Result<Marker> {
    let path = store.join(MARKER);
    let metadata = std::fs::metadata(&path)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(io::Error::other("it is no small file"));
    }
    Ok(serde_json::from_slice(&std::fs::read(&path)?)?)
}
