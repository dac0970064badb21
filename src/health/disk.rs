//! Looks at the directory of the store: whether it can be written, and how much room there is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access, geteuid};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use super::storage::Disk;
use crate::settings::describe_unwritable;
use crate::store_layout::{self, PROBE};

/// Below that much room we write to see whether it can still be written.
const LITTLE: u64 = 1 << 20;
/// What was found well so lately is not looked at again: a look takes ten system calls on another
/// thread, which is much for a broker that idles.
const FRESH: Duration = Duration::from_millis(900);
/// A look that takes longer says that the disk hangs.
const DEADLINE: Duration = Duration::from_secs(2);

/// Says what stands at the place of the store, where that is another one.
pub type IsThere = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Looks from a thread of its own: a disk that hangs must not stop the supervisor.
pub struct DiskWatch {
    directory: PathBuf,
    /// Whether it is still the right one.
    is_there: IsThere,
    /// A look that has not come back yet.
    looking: Option<JoinHandle<Disk>>,
    /// The last one that found all well, and when.
    well: Option<(Instant, Disk)>,
}

impl DiskWatch {
    pub fn new(directory: PathBuf, is_there: IsThere) -> Self {
        Self { directory, is_there, looking: None, well: None }
    }

    /// `carefully` writes a little in any case; else what was well a moment ago still is.
    pub async fn inspect(&mut self, carefully: bool) -> Disk {
        if let Some((at, disk)) = self.well.take()
            && !carefully
            && at.elapsed() < FRESH
        {
            self.well = Some((at, disk.clone()));
            return disk;
        }
        let disk = self.inspect_now(carefully).await;
        self.well = matches!(disk, Disk::Writable { .. }).then(|| (Instant::now(), disk.clone()));
        disk
    }

    async fn inspect_now(&mut self, carefully: bool) -> Disk {
        let (directory, is_there) = (self.directory.clone(), self.is_there.clone());
        let probe = move || match is_there() {
            Ok(()) => inspect_directory(&directory, carefully),
            Err(reason) => Disk::Broken(reason),
        };
        let mut looking = self.looking.take().unwrap_or_else(|| spawn_blocking(probe));
        match timeout(DEADLINE, &mut looking).await {
            Ok(Ok(disk)) => disk,
            Ok(Err(error)) => Disk::Broken(format!("looking at it failed: {error}")),
            Err(_) => {
                self.looking = Some(looking);
                let seconds = DEADLINE.as_secs();
                Disk::Broken(format!("the disk of {} does not answer within {seconds} s", self.directory.display()))
            }
        }
    }
}

fn inspect_directory(directory: &Path, carefully: bool) -> Disk {
    let broken = |error: &io::Error| Disk::Broken(describe(directory, error));
    let space = match statvfs(directory) {
        Ok(space) => space,
        Err(error) => return broken(&error.into()),
    };
    if space.flags().contains(FsFlags::ST_RDONLY) {
        return broken(&io::ErrorKind::ReadOnlyFilesystem.into());
    }
    if let Some(unwritable) = unwritable_inside(directory) {
        return Disk::Broken(unwritable);
    }
    // The kernel keeps a reserve for root.
    let blocks = if geteuid().is_root() { space.blocks_free() } else { space.blocks_available() };
    let (free, total) = (blocks * space.fragment_size(), space.blocks() * space.fragment_size());
    let out_of_files = space.files() > 0 && space.files_free() == 0;
    if (carefully || free < LITTLE || out_of_files)
        && let Err(error) = write_a_little(directory)
    {
        return broken(&error);
    }
    Disk::Writable { free, total }
}

/// The first directory of the store's that may not be written.
fn unwritable_inside(store: &Path) -> Option<String> {
    let inside = [store.to_owned()].into_iter().chain(store_layout::directories(store));
    inside.into_iter().find_map(|path| {
        let metadata = path.metadata().ok()?;
        let error = access(&path, AccessFlags::W_OK | AccessFlags::X_OK).err()?;
        Some(describe_unwritable(&path, &metadata, error.desc()))
    })
}

/// More than a file system may keep without a block of its own.
const A_LITTLE: [u8; 8192] = [0; 8192];

fn write_a_little(directory: &Path) -> io::Result<()> {
    let probe = directory.join(PROBE);
    let written = std::fs::write(&probe, A_LITTLE).and_then(|()| std::fs::File::open(&probe)?.sync_all());
    // Nothing to remove where nothing could be written.
    let _ = std::fs::remove_file(&probe);
    written
}

fn describe(directory: &Path, error: &io::Error) -> String {
    let directory = directory.display();
    match error.kind() {
        io::ErrorKind::StorageFull => format!("the disk of {directory} is full; make room there"),
        io::ErrorKind::QuotaExceeded => format!("the quota of {directory} is spent; make room there"),
        io::ErrorKind::ReadOnlyFilesystem => format!("{directory} is read-only; mount it for writing again"),
        _ => format!("{directory}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_is_writable_and_one_that_is_gone_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = DiskWatch::new(directory.path().to_owned(), Arc::new(|| Ok(())));
        assert!(matches!(watch.inspect(false).await, Disk::Writable { .. }));
        assert!(matches!(watch.inspect(true).await, Disk::Writable { .. }));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
        drop(directory);
        assert!(matches!(watch.inspect(false).await, Disk::Writable { .. }), "it was just looked at");
        assert!(matches!(watch.inspect(true).await, Disk::Broken(_)));
        assert!(matches!(watch.inspect(false).await, Disk::Broken(_)), "what is broken is looked at again and again");
    }
}
