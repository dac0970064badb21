//! Streams whose own description is damaged. nats-server leaves such a stream out, messages and all;
//! created again over its files it adopts them (measured on 2.10 to 2.15), and its consumers come
//! back with the next start of the server.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::commands::Knowledge;
use super::handle::IntegrityHandle;
use super::losses::LossKind;
use crate::json;
use crate::nats::{ApiError, JetStream, StreamInfo, StreamState};
use crate::off_thread::OffThread;
use crate::store_layout::{self, DESCRIPTION, MESSAGES};

/// Where damaged files go; they are never deleted.
const SET_ASIDE: &str = ".unified-nats-set-aside";

/// For what is to be found and moved on the disk of the store.
const DISK_DEADLINE: Duration = Duration::from_secs(5);

/// Makes streams known again that are on disk and that the server does not know.
pub struct StreamRecovery {
    integrity: IntegrityHandle,
    disk: OffThread<()>,
}

impl StreamRecovery {
    pub fn new(integrity: IntegrityHandle) -> Self {
        Self { integrity, disk: OffThread::default() }
    }

    /// Does so once, as far as that can be brought about. `fallback` gives the configuration of a stream
    /// that has not been seen before, if it is a declared one. Gives the names of those that were made
    /// known. What is older than the launch of the server and no stream any more, or none yet, is set
    /// aside.
    pub async fn recover(
        &mut self,
        jetstream: &JetStream,
        fallback: impl Fn(&str) -> Option<Map<String, Value>>,
        launched: SystemTime,
    ) -> Result<Vec<String>, String> {
        let store = self.integrity.store().to_owned();
        let streams = store_layout::streams(&store);
        let (of_store, directory) = (store.clone(), streams.clone());
        let find = move || {
            set_leftovers_aside(&of_store, &directory, launched);
            let mut on_disk = names_in(&directory);
            // What has come since a client is just creating.
            let created = |name: &String| fs::metadata(directory.join(name)).and_then(|found| found.created());
            on_disk.retain(|name| created(name).map_or(true, |created| created < launched));
            on_disk
        };
        let on_disk = self.on_disk(find, drop).await?;
        if self.integrity.is_clustered() || on_disk.is_empty() {
            return Ok(vec![]);
        }
        let streams_known =
            jetstream.see_streams().await.map_err(|error| format!("cannot list the streams: {error}"))?;
        let is_known = |name: &String| {
            streams_known.known.iter().any(|info| info.name() == name) || streams_known.unknown.contains(name)
        };
        for name in on_disk.iter().filter(|name| streams_known.unknown.contains(name)) {
            // Alone, a server knows all of its streams: one that it does not serve stays so.
            if let Err(ApiError::Refused { description: reason, .. }) = jetstream.stream_info(name).await {
                let directory = streams.join(name).display().to_string();
                self.integrity.note(name, LossKind::Offline { reason, directory }).await;
            }
        }
        let mut rescued = Vec::new();
        for name in on_disk.into_iter().filter(|name| !is_known(name)) {
            if self.make_known(jetstream, &store, &name, fallback(&name)).await? {
                rescued.push(name);
            }
        }
        Ok(rescued)
    }

    /// Whether that stream could be made known again.
    async fn make_known(
        &mut self,
        jetstream: &JetStream,
        store: &Path,
        name: &str,
        declared: Option<Map<String, Value>>,
    ) -> Result<bool, String> {
        let directory = store_layout::streams(store).join(name);
        let Knowledge { config: last_seen, is_rescued, .. } = self.integrity.about(name).await;
        let of = (directory.clone(), name.to_owned());
        let described = self.on_disk(move || described(&of.0, &of.1), drop).await?;
        let sources =
            [(Source::LastSeen, last_seen), (Source::Description, described), (Source::Declaration, declared)];
        let sources: Vec<_> = sources.into_iter().filter_map(|(of, config)| Some((of, config?))).collect();
        let unknown = LossKind::Unknown { directory: directory.display().to_string() };
        // One that does not stay known is beyond us.
        if is_rescued || sources.is_empty() {
            self.integrity.note(name, unknown).await;
            return Ok(false);
        }
        let of = (store.to_owned(), name.to_owned(), directory.clone(), directory.clone());
        let undo = move |aside: io::Result<PathBuf>| aside.iter().for_each(|aside| put_back(aside, &of.3));
        let aside = self.on_disk(move || set_aside(&of.0, &of.1, &of.2), undo).await?;
        let aside =
            aside.map_err(|error| format!("cannot set the damaged description of stream {name} aside: {error}"))?;
        let made = make_anew(jetstream, name, sources).await;
        let Ok(Some((source, info))) = made else {
            let of = (aside, directory);
            self.on_disk(move || put_back(&of.0, &of.1), drop).await?;
            made.map_err(|error| format!("cannot make stream {name} known again: {error}"))?;
            self.integrity.note(name, unknown).await;
            return Ok(false);
        };
        self.integrity.note_made_anew(info).await;
        tracing::warn!(
            stream = name,
            "the description of stream {name} was damaged: made anew {source}, with its messages; the damaged files \
             are in {}",
            aside.display()
        );
        Ok(true)
    }

    /// What `work` gives on a thread that may wait for the disk; what it gives too late goes to `undo`.
    async fn on_disk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        undo: impl FnOnce(T) + Send + 'static,
    ) -> Result<T, String> {
        let (done, mut result) = oneshot::channel();
        let work = move || {
            if let Err(late) = done.send(work()) {
                undo(late);
            }
        };
        let in_time = self.disk.run(DISK_DEADLINE, work).await;
        in_time
            .and_then(|()| result.try_recv().ok())
            .ok_or_else(|| format!("the disk of the store does not answer within {} s", DISK_DEADLINE.as_secs()))
    }
}

/// A server that is killed while it deletes or creates a stream leaves a directory that is none, and
/// the next one goes on saying that it cannot recover it.
fn set_leftovers_aside(store: &Path, streams: &Path, launched: SystemTime) {
    for name in names_of_leftovers(streams, launched) {
        let moved = aside(store, &name).and_then(|aside| {
            fs::rename(streams.join(&name), aside.join("stream"))?;
            Ok(aside)
        });
        match moved {
            Ok(aside) => tracing::warn!(
                "nats-server was killed while it deleted or created a stream: {name} is none, and was moved to {}; \
                 it may be removed",
                aside.display()
            ),
            Err(error) => tracing::warn!("cannot set {} aside: {error}", streams.join(&name).display()),
        }
    }
}

/// A directory of its own for what is set aside.
fn aside(store: &Path, name: &str) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let aside = store.join(SET_ASIDE).join(format!("{name}-{now}"));
    fs::create_dir_all(&aside)?;
    Ok(aside)
}

fn set_aside(store: &Path, stream: &str, directory: &Path) -> io::Result<PathBuf> {
    let aside = aside(store, stream)?;
    for name in DESCRIPTION {
        match fs::rename(directory.join(name), aside.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// Where the configuration of a stream comes from, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    LastSeen,
    /// The description itself, which can be read although its checksum is wrong.
    Description,
    /// How it is declared.
    Declaration,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LastSeen => "as it was last seen",
            Self::Description => "from what the damaged description says, which nobody can vouch for",
            Self::Declaration => "as it is declared, without limits until its messages are there",
        })
    }
}

/// What the description of a stream says, where it can be read and is of that stream.
fn described(directory: &Path, name: &str) -> Option<Map<String, Value>> {
    let text = fs::read(directory.join(DESCRIPTION[0])).ok()?;
    let mut config = json::object_of(&text).ok()?;
    config.retain(|field, _| !field.eq_ignore_ascii_case("created"));
    (config.get("name").and_then(Value::as_str) == Some(name)).then_some(config)
}

/// Creates the stream over its files, from the first source that the server takes; [`None`] where it
/// takes none.
async fn make_anew(
    jetstream: &JetStream,
    name: &str,
    sources: Vec<(Source, Map<String, Value>)>,
) -> Result<Option<(Source, StreamInfo)>, ApiError> {
    for (source, config) in sources {
        let is_vouched_for = source != Source::Description;
        let first = if is_vouched_for { config.clone() } else { without_limits(&config) };
        let mut info = match jetstream.create_stream(name, &first).await {
            Ok(info) => info,
            Err(error @ ApiError::Refused { .. }) if !error.is_transient() => {
                tracing::error!(stream = name, "cannot make stream {name} known again {source}: {error}");
                continue;
            }
            Err(error) => return Err(error),
        };
        let whole = without_what_would_drop(&config, &info.state, SystemTime::now());
        if !is_vouched_for && whole != first {
            match jetstream.update_stream(name, &whole).await {
                Ok(updated) => info = updated,
                Err(error) => tracing::warn!(stream = name, "stream {name} stays without limits: {error}"),
            }
        }
        return Ok(Some((source, info)));
    }
    Ok(None)
}

const LIMITS: [&str; 3] = ["max_msgs", "max_bytes", "max_age"];

fn without_limits(config: &Map<String, Value>) -> Map<String, Value> {
    let mut config = config.clone();
    for limit in LIMITS {
        config.insert(limit.into(), unlimited(limit));
    }
    config
}

fn unlimited(limit: &str) -> Value {
    if limit == "max_age" { 0.into() } else { (-1).into() }
}

/// Leaves limits out that would cost messages which are there: a digit may be what is damaged.
fn without_what_would_drop(config: &Map<String, Value>, state: &StreamState, now: SystemTime) -> Map<String, Value> {
    let oldest = humantime::parse_rfc3339(&state.first_ts).ok();
    let age = oldest.and_then(|oldest| now.duration_since(oldest).ok()).unwrap_or_default();
    let mut config = config.clone();
    for (limit, held) in LIMITS.iter().zip([state.messages, state.bytes, age.as_nanos() as u64]) {
        let most = config.get(*limit).and_then(Value::as_i64).unwrap_or_default();
        if most > 0 && held > most as u64 && state.messages > 0 {
            config.insert((*limit).into(), unlimited(limit));
        }
    }
    config
}

fn put_back(aside: &Path, directory: &Path) {
    for name in DESCRIPTION {
        // What was not there is not put back; what cannot be put back stays aside.
        let _ = fs::rename(aside.join(name), directory.join(name));
    }
    let _ = fs::remove_dir(aside);
}

/// Directories that nats-server had begun to delete, which it renames first, and those of streams that it
/// had not described yet and that hold nothing. Younger ones are at work.
fn names_of_leftovers(streams: &Path, launched: SystemTime) -> Vec<String> {
    let launched = launched.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let is_leftover = |entry: &fs::DirEntry| {
        let (name, path) = (entry.file_name(), entry.path());
        let Ok(metadata) = entry.metadata() else { return false };
        let nothing_there = || {
            let files = fs::read_dir(path.join(MESSAGES)).into_iter().flatten().flatten();
            let holds = |file: fs::DirEntry| file.metadata().is_ok_and(|metadata| metadata.len() > 0);
            !DESCRIPTION.iter().any(|name| path.join(name).exists()) && !files.into_iter().any(holds)
        };
        // A directory that is renamed keeps every other time.
        let is_old = metadata.ctime() as u128 * 1_000_000_000 + (metadata.ctime_nsec() as u128) < launched;
        metadata.is_dir() && is_old && (name.as_encoded_bytes().starts_with(b".") || nothing_there())
    };
    let entries = fs::read_dir(streams).into_iter().flatten().flatten();
    entries.filter(is_leftover).filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Streams that have message files.
fn names_in(streams: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(streams)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join(MESSAGES).is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_description_is_believed_that_can_be_read_and_is_of_that_stream() {
        let directory = tempfile::tempdir().unwrap();
        let describe = |text: &str| {
            fs::write(directory.path().join("meta.inf"), text).unwrap();
            described(directory.path(), "A")
        };
        let config = describe(r#"{"Created":"2026-11-26T11:40:46Z","name":"A","subjects":["a","b"]}"#).unwrap();
        assert_eq!(Value::Object(config), json!({ "name": "A", "subjects": ["a", "b"] }));
        for other in [r#"{"name":"B"}"#, r#"{"nbme":"A"}"#, r#"{"name":"A""#, "", "[]"] {
            assert_eq!(describe(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_kill_left_of_a_deletion_or_a_creation_is_no_stream() {
        let streams = tempfile::tempdir().unwrap();
        let make = |name: &str, files: &[(&str, &str)]| {
            fs::create_dir_all(streams.path().join(name).join("msgs")).unwrap();
            for (file, text) in files {
                fs::write(streams.path().join(name).join(file), text).unwrap();
            }
        };
        make(".DELETED", &[("msgs/1.blk", "x"), ("meta.inf", "{}")]);
        make("BEGUN", &[("msgs/1.blk", "")]);
        make("EMPTY", &[("meta.inf", "{}")]);
        make("DAMAGED", &[("msgs/1.blk", "x")]);
        let now = SystemTime::now();
        let mut found = names_of_leftovers(streams.path(), now + Duration::from_millis(20));
        found.sort();
        assert_eq!(found, [".DELETED", "BEGUN"]);
        let at_work = names_of_leftovers(streams.path(), now - Duration::from_millis(500));
        assert_eq!(at_work, Vec::<String>::new(), "a server that runs is at work on them");
    }

    #[test]
    fn limits_that_would_cost_messages_are_left_out() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let first_ts = "1970-01-12T13:45:00Z".to_owned();
        let state = StreamState { messages: 10, bytes: 1000, first_ts, ..Default::default() };
        let limits = |messages: i64, bytes: i64, age: i64| {
            let config =
                json!({ "name": "A", "max_msgs": messages, "max_bytes": bytes, "max_age": age * 1_000_000_000 });
            config.as_object().unwrap().clone()
        };
        let kept = |config| without_what_would_drop(&config, &state, now);
        assert_eq!(kept(limits(10, 1000, 101)), limits(10, 1000, 101));
        assert_eq!(kept(limits(9, 1000, 101)), limits(-1, 1000, 101));
        assert_eq!(kept(limits(10, 999, 99)), limits(10, -1, 0));
        assert_eq!(without_limits(&limits(9, 9, 9)), limits(-1, -1, 0));
    }
}
