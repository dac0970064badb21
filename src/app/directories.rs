//! The directories that a start needs, proved by writing; and what the store tells about itself.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};

use crate::files::{PROBE_FILE, write_atomically};
use crate::settings::{Problems, Settings, describe_unwritable};

/// Creates what is missing and writes to what is there. Disks that are full are not problems:
/// their directories come back, for the broker starts degraded.
pub fn prepare(settings: &Settings) -> Result<Vec<PathBuf>, Problems> {
    let mut problems = Problems::default();
    let mut full = Vec::new();
    let mut prove = |variable: &str, directory: &Path| match prove_writable(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::StorageFull => full.push(directory.to_path_buf()),
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
    let inside = ["jetstream", "jetstream/$G", "jetstream/$G/streams"].map(|path| store.join(path));
    inside.into_iter().find(|path| path.exists() && access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_err())
}

fn prove_writable(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o770).create(directory)?;
    let probe = directory.join(PROBE_FILE);
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
    let mut tried = Vec::new();
    for path in config_file_candidates() {
        let directory = path.parent().unwrap_or(Path::new("/"));
        match private_directory(directory) {
            Ok(()) => return Ok(path),
            Err(error) => tried.push(format!("{}: {error}", directory.display())),
        }
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

const MARKER: &str = ".unified-nats-mode";

/// Refuses a cluster over a standalone store that holds streams, and notes the mode in the store.
///
/// nats-server would not find the streams in the cluster's metadata and remove their files as
/// orphans (measured on 2.15.1).
pub fn check_store_mode(settings: &Settings) -> Result<(), Problems> {
    let store = &settings.jetstream.store_dir;
    let marker = store.join(MARKER);
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
    let mut streams: Vec<_> = entries(store.join("jetstream"))
        .filter(|account| account.file_name() != "$SYS")
        .flat_map(|account| entries(account.path().join("streams")))
        .map(|stream| stream.file_name().to_string_lossy().into_owned())
        .collect();
    streams.sort();
    streams
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(store: &Path, clustered: bool) -> Settings {
        let mut pairs = vec![("JETSTREAM_STORE_DIR", store.to_str().unwrap())];
        if clustered {
            pairs.extend([("NATS_CLUSTER_ENABLED", "true"), ("NATS_CLUSTER_ROUTES", "nats://b:6222")]);
        }
        Settings::load(&pairs.as_slice(), &[]).unwrap().settings
    }

    fn with_stream(store: &Path) {
        fs::create_dir_all(store.join("jetstream/$G/streams/MARKET_DATA")).unwrap();
    }

    #[test]
    fn a_cluster_over_a_standalone_store_with_streams_is_refused_untouched() {
        let store = tempfile::tempdir().unwrap();
        with_stream(store.path());
        let refused = check_store_mode(&settings(store.path(), true)).unwrap_err().to_string();
        assert!(refused.contains("MARKET_DATA"), "{refused}");
        assert!(!store.path().join(MARKER).exists());
        check_store_mode(&settings(store.path(), false)).unwrap();
        assert!(check_store_mode(&settings(store.path(), true)).is_err(), "also when the marker says so");
    }

    #[test]
    fn empty_and_clustered_stores_join_clusters() {
        let empty = tempfile::tempdir().unwrap();
        check_store_mode(&settings(empty.path(), true)).unwrap();
        with_stream(empty.path());
        assert!(check_store_mode(&settings(empty.path(), true)).is_err(), "no cluster has written these streams");
        fs::create_dir_all(empty.path().join("jetstream/$SYS/_js_/_meta_")).unwrap();
        check_store_mode(&settings(empty.path(), true)).unwrap();
        check_store_mode(&settings(empty.path(), false)).unwrap();
        assert!(check_store_mode(&settings(empty.path(), true)).is_err(), "it was used standalone in between");

        let foreign = tempfile::tempdir().unwrap();
        with_stream(foreign.path());
        fs::create_dir_all(foreign.path().join("jetstream/$SYS/_js_/_meta_")).unwrap();
        check_store_mode(&settings(foreign.path(), true)).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        let below_a_file = directory.path().join("file/store");
        let problems = prepare(&Settings {
            jetstream: crate::settings::JetStreamSettings {
                store_dir: below_a_file.clone(),
                ..settings(directory.path(), false).jetstream
            },
            ..settings(directory.path(), false)
        })
        .unwrap_err()
        .to_string();
        assert!(problems.contains(below_a_file.to_str().unwrap()), "{problems}");
    }
}
