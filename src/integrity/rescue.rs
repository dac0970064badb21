//! Streams whose own description is damaged. nats-server leaves such a stream out, messages and all;
//! created again over its files it adopts them (measured on 2.10 to 2.15), and its consumers come
//! back with the next start of the server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::keeper::Keeper;
use super::losses::Missing;
use crate::nats::{ApiError, JetStream};

/// The description of a stream and its checksum.
const DESCRIPTION: [&str; 2] = ["meta.inf", "meta.sum"];
/// Where damaged files go; they are never deleted.
const SET_ASIDE: &str = ".unified-nats-set-aside";

impl Keeper {
    /// Makes streams known again that are on disk and that the server does not know. `fallback` gives
    /// the configuration of a stream that has not been seen before, if it is a declared one. Gives
    /// the names of those that were made known.
    pub async fn rescue(
        &self,
        jetstream: &JetStream,
        fallback: impl Fn(&str) -> Option<Map<String, Value>>,
    ) -> Result<Vec<String>, String> {
        let streams = streams_directory(self.store());
        let on_disk = names_in(&streams);
        if self.is_clustered() || on_disk.is_empty() {
            return Ok(vec![]);
        }
        let streams_known = jetstream.streams().await.map_err(|error| format!("cannot list the streams: {error}"))?;
        let is_known = |name: &String| {
            streams_known.known.iter().any(|info| info.name() == name) || streams_known.unknown.contains(name)
        };
        let mut already = self.rescued().await;
        let mut rescued = Vec::new();
        for name in on_disk.into_iter().filter(|name| !is_known(name)) {
            let directory = streams.join(&name);
            let config = self.config_of(&name).await.or_else(|| fallback(&name));
            // One that does not stay known is beyond us.
            let Some(config) = config.filter(|_| !already.contains(&name)) else {
                self.note(&name, Missing::Unknown { directory: directory.display().to_string() }).await;
                continue;
            };
            let aside = self
                .set_aside(&name, &directory)
                .map_err(|error| format!("cannot set the damaged description of stream {name} aside: {error}"))?;
            match jetstream.create_stream(&name, &config).await {
                Ok(_) => {}
                Err(error @ ApiError::Refused { .. }) if !error.is_transient() => {
                    put_back(&aside, &directory);
                    tracing::error!(stream = name, "cannot make stream {name} known again: {error}");
                    self.note(&name, Missing::Unknown { directory: directory.display().to_string() }).await;
                    continue;
                }
                Err(error) => {
                    put_back(&aside, &directory);
                    return Err(format!("cannot make stream {name} known again: {error}"));
                }
            }
            already.insert(name.clone());
            tracing::warn!(
                stream = name,
                "the description of stream {name} was damaged: made anew as it was last seen, with its messages; the \
                 damaged files are in {}",
                aside.display()
            );
            rescued.push(name);
        }
        Ok(rescued)
    }

    fn set_aside(&self, stream: &str, directory: &Path) -> io::Result<PathBuf> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let aside = self.store().join(SET_ASIDE).join(format!("{stream}-{now}"));
        fs::create_dir_all(&aside)?;
        for name in DESCRIPTION {
            match fs::rename(directory.join(name), aside.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(aside)
    }
}

fn put_back(aside: &Path, directory: &Path) {
    for name in DESCRIPTION {
        // What was not there is not put back; what cannot be put back stays aside.
        let _ = fs::rename(aside.join(name), directory.join(name));
    }
    let _ = fs::remove_dir(aside);
}

/// Of the account that streams without an account are in.
fn streams_directory(store: &Path) -> PathBuf {
    store.join("jetstream/$G/streams")
}

/// Streams that have message files.
fn names_in(streams: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(streams)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("msgs").is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}
