//! Which store this is, and who has written it. A marker inside tells the store from an empty directory
//! in its place, from another store and from an older copy of itself.

mod marker;
mod program;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use crate::files::{HeldDirectory, remove_leftovers, write_atomically};
use crate::integrity::acknowledgement;
use crate::settings::{Problems, Settings};
use crate::store_layout::{self, LEDGER, MARKER, MODE};
use crate::supervisor::{Hindrance, Reaper, Version};
use marker::Marker;
use program::Program;
pub use program::{Asked, ask, is_program};

/// The store that this process has used so far. Nothing is launched over any other.
pub struct Store {
    directory: PathBuf,
    /// For who writes into it besides.
    held: Arc<HeldDirectory>,
    allow_downgrade: bool,
    known: Mutex<Known>,
}

struct Known {
    marker: Marker,
    /// The executable whose version is known.
    program: Option<Program>,
    /// No server has written the store, so that none can be too old for it.
    unwritten: bool,
    /// The directory, where the marker could not be written so far.
    unmarked: Option<Option<DirectoryIdentity>>,
}

type DirectoryIdentity = (u64, u64);

impl Store {
    /// Takes the store as it is at the start.
    pub fn open(settings: &Settings) -> Self {
        let directory = settings.jetstream.store_dir.clone();
        remove_leftovers(&directory, |name| name.starts_with(".unified-nats"));
        let unwritten = is_unwritten(&directory);
        let mut marker = marker::read(&directory).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(
                    "cannot read the marker of the store {}, and make it anew: {error}",
                    directory.display()
                );
            }
            Marker::make()
        });
        if marker.newest_server.is_none() {
            // Who has written the store is known in another place as well.
            let witness = acknowledgement::read_ledger(&directory).ok().and_then(|book| book.server);
            marker.newest_server = witness.map(|(major, minor)| Version(major, minor, 0));
        }
        let unmarked = Some(identity_of_directory(&directory));
        let known = Mutex::new(Known { program: marker.program.clone(), marker, unwritten, unmarked });
        let held = Arc::new(HeldDirectory::hold(directory.clone()));
        Self { directory, held, allow_downgrade: settings.server.allow_downgrade, known }
    }

    pub fn held(&self) -> Arc<HeldDirectory> {
        self.held.clone()
    }

    /// That executable with its version, if an earlier start has asked for it.
    pub fn remembered(&self, executable: &Path) -> Option<Asked> {
        self.known().program.as_ref()?.remembered(executable)
    }

    /// Whether no server has written the store so far.
    pub fn is_unwritten(&self) -> bool {
        self.known().unwritten
    }

    /// Refuses a nats-server that is older than one that has written the store.
    pub fn admit(&self, asked: &Asked) -> Result<(), Problems> {
        let mut known = self.known();
        (known.program, known.unwritten) = (asked.program.clone(), false);
        let refused = known.marker.refuses(asked.version).filter(|_| !self.allow_downgrade);
        let Some(newest) = refused else { return Ok(()) };
        let mut problems = Problems::default();
        problems.add(
            "NATS_SERVER_BIN",
            format!("{}, which is version {}", asked.path.display(), asked.version),
            format!(
                "the store {} was written by version {newest}, and an older server drops what it does not know",
                self.directory.display()
            ),
            format!(
                "run version {newest} or newer; or back the streams up and set NATS_SERVER_ALLOW_DOWNGRADE=true if the \
                 downgrade is meant"
            ),
        );
        Err(problems)
    }

    /// Whether a server may be launched over what is at the place of the store now, and by which
    /// executable. Reads and writes files; the reason says what is wrong and the way out.
    pub fn check(&self, executable: &Path, reaper: &Reaper) -> Result<(), Hindrance> {
        let mut known = self.known();
        if let Some(difference) = self.difference(&known).map_err(Hindrance::Failed)? {
            return Err(Hindrance::Passing(format!("cannot start nats-server: {}", self.is_another(difference))));
        }
        let remembered = known.program.as_ref().and_then(|program| program.remembered(executable));
        let asked = match remembered {
            Some(asked) => Some(asked),
            // Whatever it is, once.
            None if std::mem::take(&mut known.unwritten) => None,
            None => Some(ask(executable, reaper).map_err(|error| error.hindrance())?),
        };
        if let Some(Asked { version, program, .. }) = asked {
            known.program = program;
            if let Some(newest) = known.marker.refuses(version).filter(|_| !self.allow_downgrade) {
                return Err(Hindrance::Passing(format!(
                    "cannot start nats-server {version} over the store {}: version {newest} has written it, and an older \
                     one drops what it does not know; put {newest} or newer back at {}, or restart the broker with \
                     NATS_SERVER_ALLOW_DOWNGRADE=true",
                    self.directory.display(),
                    executable.display()
                )));
            }
            known.note_version(version);
        }
        if !self.held.is_in_place() {
            self.held.take_up();
        }
        known.marker.launches += 1;
        if !self.write_marker(&mut known) {
            known.marker.launches -= 1;
        }
        Ok(())
    }

    /// Notes the version of the server that was launched before it was asked for.
    pub fn note_version(&self, version: Version) {
        let mut known = self.known();
        known.note_version(version);
        // Where the store is another one the next launch says so.
        if matches!(self.difference(&known), Ok(None)) {
            self.write_marker(&mut known);
        }
    }

    /// False where that fails: a disk that is full or read-only is told by who watches it.
    fn write_marker(&self, known: &mut Known) -> bool {
        let written = known.marker.write(&self.directory);
        match &written {
            Ok(()) => known.unmarked = None,
            Err(error) => {
                tracing::debug!("cannot write the marker of the store {}: {error}", self.directory.display());
            }
        }
        written.is_ok()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the store is where it was, for who looks again and again.
    pub fn is_there(&self) -> Result<(), String> {
        let known = self.known();
        match self.difference(&known) {
            // A lack of descriptors says nothing about the store.
            Ok(None) | Err(_) => Ok(()),
            Ok(Some(difference)) => Err(self.is_another(difference)),
        }
    }

    fn is_another(&self, difference: &str) -> String {
        format!(
            "the store {} is not the one that this broker has used: {difference}; bring that one back (mount it again) \
             and the broker goes on by itself, or restart the broker to begin with what is there now",
            self.directory.display()
        )
    }

    /// Of another directory with our marker. What was written since it was made is in the one that was used.
    fn is_copy(&self) -> io::Result<Option<&'static str>> {
        match marker::read(self.held.in_hand().as_ref()) {
            Err(error) if lacks_resources(&error) => Err(error),
            Ok(_) => Ok(Some("it is a copy, and the one that was used is somewhere else")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Some("it is a copy, and the one that was used was removed"))
            }
            // A volume that went away under us and is another device now.
            Err(_) => Ok(None),
        }
    }

    /// What tells the store at the place from the one that was used; an error says nothing of it.
    fn difference(&self, known: &Known) -> io::Result<Option<&'static str>> {
        if let Some(identity) = &known.unmarked {
            let same = *identity == identity_of_directory(&self.directory);
            return Ok((!same).then_some("it is another directory than at the start"));
        }
        let error = match marker::read(&self.directory) {
            Ok(found) if found.id != known.marker.id => return Ok(Some("it bears the marker of another store")),
            // The very one, whatever was restored into it.
            Ok(_) if self.held.is_in_place() => return Ok(None),
            Ok(found) if found.launches < known.marker.launches => return Ok(Some("it is an older copy")),
            Ok(_) => return self.is_copy(),
            // The process lacks something.
            Err(error) if lacks_resources(&error) => return Err(error),
            Err(error) => error,
        };
        // Somebody has removed or damaged the marker and left the rest.
        if self.held.is_in_place() && self.directory.join(MODE).exists() {
            return Ok(None);
        }
        Ok(Some(match error.kind() {
            io::ErrorKind::NotFound => "it holds no marker, as a directory does whose file system is not mounted",
            _ => "its marker cannot be read",
        }))
    }
}

impl Known {
    fn note_version(&mut self, version: Version) {
        self.marker.newest_server = Some(version);
        self.marker.program = self.program.clone();
    }
}

/// The same as asking that executable for its version, where the store tells it.
pub fn remembered(settings: &Settings, executable: &Path) -> Option<Asked> {
    marker::read(&settings.jetstream.store_dir).ok()?.program?.remembered(executable)
}

/// Whether no server has written the store there, as far as can be seen.
pub fn is_unwritten(store: &Path) -> bool {
    let is_missing =
        |path: PathBuf| fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    [store.join(MARKER), store.join(LEDGER), store_layout::accounts(store)].into_iter().all(is_missing)
}

/// Where a store must have been used before, refuses a place that shows no sign of it.
pub fn check_marker(settings: &Settings) -> Result<(), Problems> {
    let directory = &settings.jetstream.store_dir;
    let mut problems = Problems::default();
    let signs = [MARKER, MODE];
    if settings.jetstream.require_marker && !signs.iter().any(|sign| directory.join(sign).exists()) {
        problems.add(
            "JETSTREAM_STORE_DIR",
            format!("{:?}", directory.display().to_string()),
            format!("JETSTREAM_REQUIRE_MARKER asks for a store that was used before, and it holds no {}", MARKER),
            "mount the volume of the store there; for the first start of a new store set JETSTREAM_REQUIRE_MARKER=false",
        );
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Refuses a cluster over a standalone store that holds streams, and notes the mode in the store.
///
/// nats-server would not find the streams in the cluster's metadata and remove their files as
/// orphans (measured on 2.15.1).
pub fn check_mode(settings: &Settings) -> Result<(), Problems> {
    let store = &settings.jetstream.store_dir;
    let marker = store.join(MODE);
    let mode = if settings.cluster.is_some() { "clustered" } else { "standalone" };
    let streams = streams_in(store);
    if settings.cluster.is_some() && !streams.is_empty() {
        let written = fs::read_to_string(&marker).ok();
        // A store of another program has no marker, but a clustered one has a metadata group; one
        // that was used standalone in between has both and a marker that says so.
        let has_metadata = store.join("jetstream/$SYS/_js_/_meta_").is_dir();
        let clustered = has_metadata && written.as_deref().is_none_or(|text| text.trim() == "clustered");
        if !clustered {
            let mut problems = Problems::default();
            problems.add(
                "NATS_CLUSTER_ENABLED, JETSTREAM_STORE_DIR",
                format!("a cluster over the standalone store {} with streams {}", store.display(), streams.join(", ")),
                "nats-server would delete these streams: a cluster does not adopt streams that were written standalone",
                "set NATS_CLUSTER_ENABLED=false; to move into a cluster, back the streams up and verify the backup, \
                 start the cluster on an empty JETSTREAM_STORE_DIR, and restore them there",
            );
            return Err(problems);
        }
    }
    // A full disk leaves the marker out; the next start writes it.
    if let Err(error) = write_atomically(&marker, mode.as_bytes()) {
        tracing::warn!("cannot note in {} that the store is {mode}: {error}", marker.display());
    }
    Ok(())
}

/// `<store>/jetstream/<account>/streams/<stream>`
fn streams_in(store: &Path) -> Vec<String> {
    let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    let mut streams: Vec<_> = entries(store_layout::accounts(store))
        .filter(|account| account.file_name() != "$SYS")
        .flat_map(|account| entries(account.path().join("streams")))
        .map(|stream| stream.file_name().to_string_lossy().into_owned())
        .collect();
    streams.sort();
    streams
}

fn lacks_resources(error: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM].iter().any(|lack| error.raw_os_error() == Some(*lack as i32))
}

/// Tells a directory from another one under its name.
fn identity_of_directory(path: &Path) -> Option<DirectoryIdentity> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests;
