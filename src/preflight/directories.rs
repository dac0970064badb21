//! The directories that a start needs, proved by writing.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};

use crate::files::is_out_of_room;
use crate::settings::{Problems, Settings, describe_unwritable};
use crate::store_layout::{self, PROBE};

/// Creates what is missing and writes to what is there. Disks that are full are not problems:
/// their directories come back, for the broker starts degraded.
pub fn prepare(settings: &Settings) -> Result<Vec<PathBuf>, Problems> {
    let mut problems = Problems::default();
    let mut full = Vec::new();
    let mut prove = |variable: &str, directory: &Path| match prove_writable(directory) {
        Ok(()) => {}
        Err(error) if is_out_of_room(&error) => full.push(directory.to_path_buf()),
        Err(error) => {
            let reason = fs::metadata(directory).map_or_else(
                |_| format!("it cannot be created: {error}"),
                |metadata| describe_unwritable(directory, &metadata, &error.to_string()),
            );
            problems.add(
                variable,
                format!("{:?}", directory.display().to_string()),
                reason,
                format!("give it to the user that runs this process, or set {variable} to another directory"),
            );
        }
    };
    if settings.jetstream.enabled {
        let store = &settings.jetstream.store_dir;
        prove("JETSTREAM_STORE_DIR", foreign_inside(store).as_ref().unwrap_or(store));
    }
    if let Some(directory) = settings.logs.server_log.as_ref().and_then(|log| log.path.parent()) {
        prove("NATS_LOG_FILE", directory);
    }
    if let Some(directory) = settings.server.config_file.as_ref().and_then(|path| path.parent()) {
        prove("NATS_CONFIG_FILE", directory);
    }
    if problems.is_empty() { Ok(full) } else { Err(problems) }
}

/// A directory of nats-server inside the store that this process may not write: what a volume looks
/// like after an incomplete chown.
fn foreign_inside(store: &Path) -> Option<PathBuf> {
    store_layout::directories(store)
        .into_iter()
        .find(|path| path.exists() && access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_err())
}

fn prove_writable(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o770).create(directory)?;
    let probe = directory.join(PROBE);
    let written = fs::write(&probe, b"x");
    // Nothing to remove where nothing could be written.
    let _ = fs::remove_file(&probe);
    written
}

/// Where nats.conf goes when NATS_CONFIG_FILE does not say: the first of these that we may write.
pub fn config_file_candidates() -> Vec<PathBuf> {
    let uid = geteuid();
    vec![
        PathBuf::from("/run/unified-nats/nats.conf"),
        PathBuf::from(format!("/dev/shm/unified-nats-{uid}/nats.conf")),
        std::env::temp_dir().join(format!("unified-nats-{uid}/nats.conf")),
    ]
}

/// Chooses the place of nats.conf and proves that it can be written.
pub fn choose_config_file(settings: &Settings) -> Result<PathBuf, Problems> {
    if let Some(path) = &settings.server.config_file {
        return Ok(path.clone());
    }
    let (mut tried, mut full) = (Vec::new(), None);
    for path in config_file_candidates() {
        let directory = path.parent().unwrap_or(Path::new("/"));
        match private_directory(directory) {
            Ok(()) => return Ok(path),
            // Room can be waited for, but better is one that has some.
            Err(error) if is_out_of_room(&error) => drop(full.get_or_insert(path)),
            Err(error) => tried.push(format!("{}: {error}", directory.display())),
        }
    }
    if let Some(path) = full {
        return Ok(path);
    }
    let mut problems = Problems::default();
    problems.add(
        "NATS_CONFIG_FILE",
        "no directory for nats.conf",
        tried.join("; "),
        "set NATS_CONFIG_FILE to a path in a directory that this process may write",
    );
    Err(problems)
}

/// A directory that only we write: nats.conf holds credentials, and /dev/shm and /tmp are open to
/// everybody. /run/unified-nats may belong to root with our group, as in the image.
fn private_directory(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(directory)?;
    let trusted = metadata.is_dir() && metadata.mode() & 0o002 == 0;
    if !trusted || (metadata.uid() != geteuid().as_raw() && !directory.starts_with("/run")) {
        return Err(io::Error::other("it belongs to somebody else, or others may write it"));
    }
    prove_writable(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(store: &Path) -> Settings {
        Settings::load(&[("JETSTREAM_STORE_DIR", store.to_str().unwrap())], &[]).unwrap().settings
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        let below_a_file = directory.path().join("file/store");
        let problems = prepare(&Settings {
            jetstream: crate::settings::JetStreamSettings {
                store_dir: below_a_file.clone(),
                ..settings(directory.path()).jetstream
            },
            ..settings(directory.path())
        })
        .unwrap_err()
        .to_string();
        assert!(problems.contains(below_a_file.to_str().unwrap()), "{problems}");
    }
}
