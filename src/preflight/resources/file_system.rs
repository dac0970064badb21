//! The file system of the store: how large it is, and what of it is taken.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::format_bytes;
use crate::domain::ByteSize;

/// A file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    pub total: u64,
    pub free: u64,
    /// What the store holds already; [`None`] where that was not worth counting.
    pub store: Option<u64>,
}

impl FileSystem {
    /// [`None`] where the file system does not tell.
    pub fn of(store: &Path, wanted: u64) -> Option<Self> {
        let file_system = statvfs(store).ok()?;
        let block = file_system.fragment_size();
        let (total, free) = (file_system.blocks() * block, file_system.blocks_available() * block);
        // Counting takes a look at every file, so only where the answer depends on it.
        let counts = total >= wanted && free < wanted;
        Some(Self { total, free, store: if counts { bytes_below(store) } else { None } })
    }

    /// What `wanted` promises and it cannot hold.
    pub fn warning(self, wanted: ByteSize, store: &Path) -> Option<String> {
        let way_out = "lower JETSTREAM_MAX_FILE, or give JETSTREAM_STORE_DIR a larger disk";
        if wanted.bytes() > self.total {
            return Some(format!(
                "JETSTREAM_MAX_FILE={wanted} cannot be held: the file system of {} has {} in all, and publishing fails \
                 once it is full; {way_out}",
                store.display(),
                format_bytes(self.total)
            ));
        }
        let held = self.store.filter(|held| wanted.bytes() > self.free.saturating_add(*held))?;
        Some(format!(
            "JETSTREAM_MAX_FILE={wanted} cannot be held: the file system of {} has {} free beside the {} that the store \
             takes, and publishing fails once it is full; make room there, {way_out}",
            store.display(),
            format_bytes(self.free),
            format_bytes(held)
        ))
    }
}

/// What the files below `directory` take on the disk; [`None`] where there are too many to count at
/// a start.
fn bytes_below(directory: &Path) -> Option<u64> {
    const MOST: usize = 100_000;
    let mut open = vec![directory.to_path_buf()];
    let (mut seen, mut bytes) = (0, 0);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            seen += 1;
            if seen > MOST {
                return None;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            }
            bytes += metadata.blocks() * 512;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_s_files_are_counted_in_all_directories() {
        let store = tempfile::tempdir().unwrap();
        let below = store.path().join("jetstream/$G");
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join("1.blk"), vec![1; 200_000]).unwrap();
        let bytes = bytes_below(store.path()).unwrap();
        assert!((200_000..400_000).contains(&bytes), "{bytes}");
        let disk = FileSystem::of(store.path(), u64::MAX).unwrap();
        assert!(disk.total > disk.free && disk.store.is_none(), "{disk:?}");
    }
}
