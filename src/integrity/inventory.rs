//! What the server has left on disk, and what has happened to it while no server ran.
//!
//! Between the end of one server and the start of the next nobody has a right to change the files of
//! a stream, whatever its kind and whatever its clients do: a difference there is evidence where the
//! number of messages proves nothing. A supervisor that sees the end of its server writes down every
//! block. One that is killed cannot; it has been leaving a sign of life several times a second, and
//! what changed later than the last of them changed while nothing ran.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};

use super::index::Held;
use crate::files::write_atomically;
use crate::store_layout::{self, ALIVE, BLOCK, INDEX, LEFT, MESSAGES};

/// Between two signs of life.
pub const BEAT: Duration = Duration::from_millis(250);
/// A server ends that long after the last sign of life at most; a sign may come late.
const SLACK: Duration = Duration::from_millis(750);

/// The blocks of each stream, as its server left them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    pub streams: BTreeMap<String, Files>,
}

/// Of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Files {
    /// Length of each block in bytes.
    pub blocks: BTreeMap<String, u64>,
    /// Length of the index.
    pub index: Option<u64>,
    /// When the newest of them was written, in nanoseconds since 1970; 0 where that is not known.
    pub written: u64,
    /// The index is as new as the blocks: the server has stopped in order, and the next one believes it.
    pub is_indexed: bool,
    /// What the server that has stopped in order says that it holds.
    pub held: Option<Held>,
    /// When anything of it changed last.
    #[serde(skip)]
    pub changed: Option<SystemTime>,
}

/// A block that is not what the server left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub file: String,
    pub was: u64,
    /// [`None`] where it is gone.
    pub is: Option<u64>,
}

/// What is known of the time in which no server ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meanwhile {
    /// Blocks that were changed.
    pub changes: BTreeMap<String, Vec<Change>>,
    /// Streams of which something was changed or is gone.
    pub touched: BTreeSet<String>,
    /// Streams whose server stopped in order: what the next one calls lost was there.
    pub indexed: BTreeSet<String>,
    /// What these held, where nothing but their server has changed them until then.
    pub held: BTreeMap<String, Held>,
}

impl Inventory {
    /// Every stream on disk.
    pub fn of(store: &Path) -> Self {
        let entries = fs::read_dir(store_layout::streams(store)).into_iter().flatten().flatten();
        let named = entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
        let streams = named.filter(|(_, path)| path.is_dir()).map(|(name, path)| (name, Files::of(&path)));
        Self { streams: streams.collect() }
    }

    /// What differs from `self` in what is there now.
    fn compared_with(&self, now: &Self) -> Meanwhile {
        let mut meanwhile = Meanwhile::default();
        for (stream, left) in &self.streams {
            let none = Files::default();
            let found = now.streams.get(stream).unwrap_or(&none);
            let changed = left.blocks.iter().filter_map(|(file, was)| {
                let is = found.blocks.get(file).copied();
                // One that grew has lost nothing: another server may have run.
                is.is_none_or(|is| is < *was).then(|| Change { file: file.clone(), was: *was, is })
            });
            let changed: Vec<_> = changed.collect();
            let rewritten = left.written > 0 && found.written != left.written;
            if !changed.is_empty()
                || rewritten
                || found.blocks != left.blocks
                || found.index != left.index
                || !now.streams.contains_key(stream)
            {
                meanwhile.touched.insert(stream.clone());
            }
            if !changed.is_empty() && now.streams.contains_key(stream) {
                meanwhile.changes.insert(stream.clone(), changed);
            }
            if left.is_indexed {
                meanwhile.indexed.insert(stream.clone());
                // What has grown another server has written, which may have removed messages as well.
                let held = if found.has_grown_from(left) { &found.held } else { &left.held };
                meanwhile.held.extend(held.clone().map(|held| (stream.clone(), held)));
            }
        }
        meanwhile
    }

    /// What changed later than a supervisor gave its last sign of life. `known` are the streams that it
    /// had seen, `changed` is when a stream came or went last.
    fn changed_after(&self, alive: SystemTime, known: &[&str], changed: Option<SystemTime>) -> Meanwhile {
        let is_later = |time: Option<SystemTime>| time.is_some_and(|time| time > alive + SLACK);
        let touched = self.streams.iter().filter(|(_, files)| is_later(files.changed)).map(|(name, _)| name.clone());
        let gone = known.iter().filter(|name| is_later(changed) && !self.streams.contains_key(**name));
        Meanwhile { touched: touched.chain(gone.map(|name| (*name).to_owned())).collect(), ..Default::default() }
    }

    /// Whether the changed blocks are what they were.
    pub fn has_back(&self, stream: &str, changed: &[Change]) -> bool {
        let blocks = self.streams.get(stream).map(|files| &files.blocks);
        changed.iter().all(|change| blocks.is_some_and(|blocks| blocks.get(&change.file) == Some(&change.was)))
    }
}

impl Files {
    fn of(stream: &Path) -> Self {
        let messages = stream.join(MESSAGES);
        let mut files = Self { changed: modified(&messages), ..Self::default() };
        let (mut newest, mut indexed) = (None, None);
        for entry in fs::read_dir(messages).into_iter().flatten().flatten() {
            let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            let time = metadata.modified().ok();
            if name.ends_with(BLOCK) {
                newest = newest.max(time);
                files.blocks.insert(name, metadata.len());
            } else if name == INDEX {
                (files.index, indexed) = (Some(metadata.len()), time);
            }
        }
        files.changed = files.changed.max(newest);
        let written = newest.max(indexed).and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        files.written = written.map_or(0, |since| since.as_nanos() as u64);
        files.is_indexed = indexed.is_some() && indexed >= newest;
        files.held = if files.is_indexed { Held::of(stream) } else { None };
        files
    }

    /// Whether messages were written to it since.
    fn has_grown_from(&self, left: &Self) -> bool {
        self.blocks.iter().any(|(name, length)| left.blocks.get(name).is_none_or(|was| was < length))
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// Writes down what the server has left that is gone now.
pub fn write_down(store: &Path) -> io::Result<()> {
    write_atomically(&store.join(LEFT), &serde_json::to_vec(&Inventory::of(store))?)
}

/// What has happened since the last server. `known` are the streams that were seen.
pub fn meanwhile(store: &Path, known: &[&str], now: &Inventory) -> Meanwhile {
    let left = fs::read(store.join(LEFT)).ok().and_then(|text| serde_json::from_slice::<Inventory>(&text).ok());
    match (left, modified(&store.join(ALIVE))) {
        (Some(left), _) => left.compared_with(now),
        (None, Some(alive)) => now.changed_after(alive, known, modified(&store_layout::streams(store))),
        // Nobody has kept this store: nothing can be said.
        (None, None) => Meanwhile::default(),
    }
}

/// A server is about to change what was written down.
pub fn forget(store: &Path) {
    // Where it cannot be removed the server cannot write either.
    let _ = fs::remove_file(store.join(LEFT));
}

/// Leaves a sign of life, with the time of the file system that the blocks are in as well.
pub fn beat(store: &Path) {
    let path = store.join(ALIVE);
    let touch =
        || utimensat(AT_FDCWD, &path, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW, UtimensatFlags::FollowSymlink);
    if touch().is_err() {
        // A disk that is full or gone is told by who watches it.
        let _ = OpenOptions::new().create(true).append(true).open(&path);
        let _ = touch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(streams: &[(&str, &[(&str, usize)])]) -> tempfile::TempDir {
        let store = tempfile::tempdir().unwrap();
        for (stream, files) in streams {
            let messages = store_layout::streams(store.path()).join(stream).join("msgs");
            fs::create_dir_all(&messages).unwrap();
            for (name, length) in *files {
                fs::write(messages.join(name), "x".repeat(*length)).unwrap();
            }
        }
        store
    }

    fn meanwhile_in(store: &tempfile::TempDir) -> Meanwhile {
        meanwhile(store.path(), &["A", "B"], &Inventory::of(store.path()))
    }

    const STREAMS: &[(&str, &[(&str, usize)])] =
        &[("A", &[("1.blk", 10), ("2.blk", 10), ("index.db", 5)]), ("B", &[("1.blk", 10), ("index.db", 5)])];

    #[test]
    fn what_nobody_touched_is_as_it_was_left() {
        let store = store(STREAMS);
        assert_eq!(meanwhile_in(&store), Meanwhile::default(), "nothing is known of a store that nobody kept");
        write_down(store.path()).unwrap();
        let indexed = ["A", "B"].map(str::to_owned).into();
        assert_eq!(meanwhile_in(&store), Meanwhile { indexed, ..Default::default() });
    }

    #[test]
    fn blocks_that_grew_or_were_written_anew_were_touched_and_lost_nothing() {
        for content in ["longer than it was", "other text"] {
            let store = store(STREAMS);
            let block = store_layout::streams(store.path()).join("A/msgs/1.blk");
            write_down(store.path()).unwrap();
            fs::write(&block, content).unwrap();
            let later = modified(&block).unwrap() + Duration::from_secs(1);
            fs::File::options().write(true).open(&block).unwrap().set_modified(later).unwrap();
            let found = meanwhile_in(&store);
            assert_eq!((found.changes.len(), found.touched), (0, ["A".to_owned()].into()), "{content}");
        }
    }

    #[test]
    fn blocks_that_were_cut_or_removed_are_named() {
        let store = store(STREAMS);
        let messages = store_layout::streams(store.path()).join("A/msgs");
        write_down(store.path()).unwrap();
        fs::write(messages.join("1.blk"), "short").unwrap();
        fs::remove_file(messages.join("2.blk")).unwrap();
        let found = meanwhile_in(&store);
        let changes =
            [Change { file: "1.blk".into(), was: 10, is: Some(5) }, Change { file: "2.blk".into(), was: 10, is: None }];
        assert_eq!(found.changes["A"], changes);
        assert_eq!(found.touched, ["A".to_owned()].into());
        assert!(!Inventory::of(store.path()).has_back("A", &changes));
        for name in ["1.blk", "2.blk"] {
            fs::write(messages.join(name), "x".repeat(10)).unwrap();
        }
        assert!(Inventory::of(store.path()).has_back("A", &changes));
        forget(store.path());
        assert_eq!(meanwhile_in(&store), Meanwhile::default());
    }

    #[test]
    fn an_index_that_is_gone_is_no_loss_and_a_stream_that_is_gone_is_touched() {
        let store = store(STREAMS);
        let streams = store_layout::streams(store.path());
        write_down(store.path()).unwrap();
        fs::remove_file(streams.join("A/msgs/index.db")).unwrap();
        fs::remove_dir_all(streams.join("B")).unwrap();
        let found = meanwhile_in(&store);
        assert_eq!(found.changes, BTreeMap::new());
        assert_eq!(found.touched, ["A", "B"].map(str::to_owned).into());
    }

    #[test]
    fn what_changed_after_the_last_sign_of_life_was_touched() {
        let store = store(STREAMS);
        let set = |path: &Path, time: SystemTime| fs::File::open(path).unwrap().set_modified(time).unwrap();
        beat(store.path());
        let alive = modified(&store.path().join(ALIVE)).unwrap();
        let block = store_layout::streams(store.path()).join("A/msgs/1.blk");
        set(&block, alive + SLACK);
        assert_eq!(meanwhile_in(&store), Meanwhile::default(), "the server outlives a sign of life");
        set(&block, alive + SLACK + Duration::from_millis(1));
        assert_eq!(meanwhile_in(&store).touched, ["A".to_owned()].into());
        fs::remove_dir_all(store_layout::streams(store.path()).join("B")).unwrap();
        assert_eq!(meanwhile_in(&store).touched, ["A".to_owned()].into(), "its owner may have deleted it");
        set(&store_layout::streams(store.path()), alive + SLACK * 2);
        assert_eq!(meanwhile_in(&store).touched, ["A", "B"].map(str::to_owned).into());
    }

    #[test]
    fn what_a_stopped_server_says_to_hold_is_kept_until_another_has_written() {
        let store = store(&[("A", &[("1.blk", 10)])]);
        let stream = store_layout::streams(store.path()).join("A");
        let index =
            |messages: u8| fs::write(stream.join("msgs/index.db"), [11, 1, messages, 9, 1, 2, messages, 2]).unwrap();
        fs::write(stream.join("meta.inf"), r#"{"name":"A"}"#).unwrap();
        index(7);
        write_down(store.path()).unwrap();
        let held = || meanwhile_in(&store).held.get("A").map(|held| held.messages);
        assert_eq!(held(), Some(7));
        fs::remove_file(stream.join("msgs/index.db")).unwrap();
        assert_eq!(held(), Some(7), "the index is not needed");
        fs::write(stream.join("msgs/1.blk"), "it has grown").unwrap();
        assert_eq!(held(), None, "another server has written");
        index(5);
        assert_eq!(held(), Some(5), "and stopped in order");
    }

    #[test]
    fn a_sign_of_life_is_given_again_and_again() {
        let store = store(&[]);
        beat(store.path());
        let path = store.path().join(ALIVE);
        fs::File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        beat(store.path());
        assert!(modified(&path).unwrap() > SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    }
}
