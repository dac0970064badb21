//! JetStream: where streams are stored and how much may be stored.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::variables::*;
use crate::domain::{ByteSize, StreamName};

#[derive(Clone, Debug)]
pub struct JetStreamSettings {
    pub enabled: bool,
    pub store_dir: PathBuf,
    /// Whether the store must have been used before.
    pub require_marker: bool,
    pub max_memory: ByteSize,
    pub max_file: ByteSize,
    /// Domains follow the rule of stream names.
    pub domain: Option<StreamName>,
    pub sync_interval: SyncInterval,
}

/// What a server of our own can hold. Of one that others run only that server knows.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    pub max_memory: ByteSize,
    pub max_file: ByteSize,
    pub clustered: bool,
}

/// When written messages are forced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncInterval {
    /// Before each acknowledgement.
    Always,
    Every(Duration),
}

impl JetStreamSettings {
    pub fn read(reader: &mut Reader, enabled: bool) -> Self {
        let settings = Self {
            enabled,
            store_dir: reader.path(&JETSTREAM_STORE_DIR).unwrap_or_else(|| "/data/jetstream".into()),
            require_marker: reader.bool(&JETSTREAM_REQUIRE_MARKER),
            max_memory: reader.size(&JETSTREAM_MAX_MEMORY),
            max_file: reader.size(&JETSTREAM_MAX_FILE),
            domain: reader.optional(&JETSTREAM_DOMAIN, |text| text.parse().map_err(|e| format!("it {e}"))),
            sync_interval: reader.required(&JETSTREAM_SYNC_INTERVAL, |text| match text {
                "always" => Ok(SyncInterval::Always),
                _ => JETSTREAM_SYNC_INTERVAL.own_range().span(text).map(SyncInterval::Every),
            }),
        };
        if settings.enabled {
            check_store_dir(reader, &settings.store_dir);
        }
        settings
    }

    pub fn capacity(&self, clustered: bool) -> Capacity {
        Capacity { max_memory: self.max_memory, max_file: self.max_file, clustered }
    }
}

/// What can be said without writing: an existing path must be a directory that may be written.
/// The start then proves it by writing.
fn check_store_dir(reader: &mut Reader, path: &std::path::Path) {
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => reader.refuse(&JETSTREAM_STORE_DIR, "it is not a directory"),
        Ok(metadata) => {
            if let Err(reason) = nix::unistd::access(path, nix::unistd::AccessFlags::W_OK) {
                let reason = describe_unwritable(path, &metadata, reason.desc());
                reader.refuse(&JETSTREAM_STORE_DIR, &reason);
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => reader.refuse(&JETSTREAM_STORE_DIR, &error.to_string()),
    }
}

/// Why a directory cannot be used, with what an operator needs to mend it.
pub fn describe_unwritable(path: &std::path::Path, metadata: &std::fs::Metadata, reason: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    format!(
        "{} is not writable: {reason}; it belongs to {}:{} with mode {:04o}, this process runs as {}:{}",
        path.display(),
        metadata.uid(),
        metadata.gid(),
        metadata.mode() & 0o7777,
        nix::unistd::geteuid(),
        nix::unistd::getegid(),
    )
}
