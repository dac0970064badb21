//! What each stream was seen to hold, and what follows from what it holds now. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::deletions::Heard;
use super::index::Held;
use super::inventory::{Inventory, Meanwhile};
use super::losses::{Loss, Missing};
use super::ranges::{Ranges, count, union, without};
use crate::domain::ServerVersion;
use crate::nats::{StreamInfo, StreamState, Streams};

/// What a stream held when it was last seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// When the stream was created, as the server tells it.
    pub created: String,
    /// The whole configuration, for a stream whose own copy cannot be read any more.
    pub config: Map<String, Value>,
    pub messages: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    /// When the last message came, RFC 3339.
    #[serde(default)]
    pub last_ts: String,
    /// Sequences between the first and the last that hold no message.
    pub num_deleted: u64,
    /// Which sequence had been reached when: tells what may have expired since.
    pub milestones: VecDeque<Milestone>,
    /// Clients were heard to delete from it.
    #[serde(default)]
    pub is_deleted_from: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestone {
    pub seq: u64,
    /// Milliseconds since 1970.
    pub at: u64,
}

/// Marks and losses, as they are kept beside the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Book {
    pub marks: BTreeMap<String, Mark>,
    pub losses: Vec<Loss>,
    /// Sequences of each stream that cannot be read, and that somebody knows about.
    pub accepted: BTreeMap<String, Ranges>,
    /// Directories of streams that the server does not know, and that somebody knows about.
    pub accepted_directories: BTreeSet<String>,
    /// Streams whose files were touched while no server ran; until they are compared.
    pub touched: BTreeSet<String>,
    /// Streams whose last server stopped in order; until they are compared.
    pub indexed: BTreeSet<String>,
    /// What those that were touched held by the account of the server that stopped in order; until the
    /// next one has counted them.
    pub left: BTreeMap<String, Left>,
    /// Streams of which a loss was told since then, so that it is not told again in other words.
    pub told: BTreeSet<String>,
    /// The server that was looked at last, for a store that has lost its marker.
    pub server: Option<ServerVersion>,
    /// What clients have asked to be deleted of each stream since its mark was made.
    pub deleted: BTreeMap<String, Heard>,
}

/// What a server that stopped in order has left of a stream whose files were touched since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub held: Held,
    /// Its index is gone, so that the next server must read every block to count the messages.
    pub counted: bool,
}

/// What is known about the files of a stream since its mark was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// They were changed while no server ran.
    pub touched: bool,
    /// The server before stopped in order.
    pub indexed: bool,
}

/// What is known about the time since the marks were made.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Another server has opened the store since, so that its files may have changed in between.
    pub restarted: bool,
    /// The store is one of several that hold the same streams.
    pub clustered: bool,
    /// The server is one that may forget the end of a stream when it is killed.
    pub forgetful: bool,
    pub now: SystemTime,
}

/// Milestones kept at most; more make the judgement of expired messages finer.
const MILESTONES: u32 = 64;

fn field(config: &Map<String, Value>, name: &str) -> i64 {
    config.get(name).and_then(Value::as_i64).unwrap_or_default()
}

fn word<'a>(config: &'a Map<String, Value>, name: &str) -> &'a str {
    config.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Whether messages survive the server.
pub fn is_on_disk(config: &Map<String, Value>) -> bool {
    word(config, "storage") == "file"
}

/// Whether a message goes for no other reason than the limits of the whole stream.
pub fn keeps_every_message(config: &Map<String, Value>) -> bool {
    let allows = |what: &str| config.get(what).and_then(Value::as_bool).unwrap_or_default();
    word(config, "retention") == "limits"
        && field(config, "max_msgs_per_subject") <= 0
        && !allows("allow_msg_ttl")
        && !allows("allow_rollup_hdrs")
}

fn millis_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn nanos_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

fn max_age(config: &Map<String, Value>) -> Option<Duration> {
    let nanoseconds = u64::try_from(field(config, "max_age")).unwrap_or_default();
    (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
}

impl Mark {
    pub fn of(info: &StreamInfo) -> Self {
        let StreamState { messages, first_seq, last_seq, num_deleted, .. } = info.state;
        let last_ts = info.state.last_ts.clone();
        Self {
            created: info.created.clone(),
            config: info.config.clone(),
            messages,
            first_seq,
            last_seq,
            last_ts,
            num_deleted,
            milestones: VecDeque::new(),
            is_deleted_from: false,
        }
    }

    /// The mark of the same stream as it is seen now.
    pub fn advanced(self, info: &StreamInfo, now: SystemTime) -> Self {
        let mut milestones = self.milestones;
        if let Some(age) = max_age(&info.config) {
            let at = millis_of(now);
            let apart = (age / MILESTONES).max(Duration::from_secs(1)).as_millis() as u64;
            if milestones.back().is_none_or(|last| at.saturating_sub(last.at) >= apart) {
                milestones.push_back(Milestone { seq: info.state.last_seq, at });
            }
            while milestones.len() > MILESTONES as usize + 1 {
                milestones.pop_front();
            }
        }
        Self { milestones, is_deleted_from: self.is_deleted_from, ..Self::of(info) }
    }

    /// Takes in what its server has left, which is newer than what was seen; whether it was the same stream.
    fn catch_up(&mut self, held: &Held) -> bool {
        let is_newer = held.last_seq >= self.last_seq;
        if is_newer {
            (self.messages, self.first_seq, self.last_seq) = (held.messages, held.first_seq, held.last_seq);
            self.num_deleted = (held.last_seq + 1).saturating_sub(held.first_seq).saturating_sub(held.messages);
        }
        is_newer
    }

    /// The first sequence that is known to be younger than a time, in milliseconds.
    fn first_younger_than(&self, cutoff: u64) -> Option<u64> {
        self.milestones.iter().find(|milestone| milestone.at >= cutoff).map(|milestone| milestone.seq.saturating_add(1))
    }

    /// What is missing of the stream that this mark is of. `deleted` is what clients were heard to delete
    /// since.
    pub fn missing_in(
        &self,
        info: &StreamInfo,
        circumstances: Circumstances,
        evidence: Evidence,
        deleted: &Heard,
    ) -> Option<Missing> {
        let state = &info.state;
        if state.last_seq < self.last_seq && !self.may_forget_its_end(circumstances, evidence) {
            return Some(Missing::End { was: self.last_seq, is: state.last_seq, held: Some(self.messages) });
        }
        // In a cluster others hold it, too.
        if circumstances.clustered {
            return None;
        }
        if circumstances.restarted && evidence.touched {
            let fewer = self.fewer_in(info, circumstances.now, deleted);
            return fewer.or_else(|| self.fewer_by_design(info, deleted));
        }
        // What else is gone somebody has asked for, if only right before the server was killed, unless
        // the server says otherwise.
        let ranges = lost(info);
        (!ranges.is_empty()).then_some(Missing::Lost { ranges })
    }

    /// nats-server 2.10 that is killed may come back with an earlier end, where the messages at the end
    /// had been deleted or acknowledged (measured).
    fn may_forget_its_end(&self, circumstances: Circumstances, evidence: Evidence) -> bool {
        let Circumstances { restarted, clustered, forgetful, .. } = circumstances;
        let was_killed = forgetful && restarted && !clustered && evidence == Evidence::default();
        was_killed && (self.is_deleted_from || word(&self.config, "retention") != "limits")
    }

    /// What there is less of than there was, and neither limits nor what was heard explain. The limits
    /// may have been changed in between: what either of them drops is explained.
    fn fewer_in(&self, info: &StreamInfo, now: SystemTime, deleted: &Heard) -> Option<Missing> {
        let state = &info.state;
        let configs = [&self.config, &info.config];
        if deleted.purged || !configs.iter().all(|config| keeps_every_message(config)) {
            return None;
        }
        let since = state.num_deleted.saturating_sub(count(&deleted.messages));
        if since > self.num_deleted {
            return Some(Missing::Holes { were: self.num_deleted, are: since });
        }
        let first = configs.iter().map(|config| self.first_that_must_be_there(config, state, now)).max();
        // What was deleted at the beginning the beginning has passed.
        let expected = without(&[(first.unwrap_or(u64::MAX), u64::MAX)], &deleted.messages);
        let expected = expected.first().map_or(u64::MAX, |(first, _)| *first);
        (state.first_seq > expected).then_some(Missing::Beginning { expected, is: state.first_seq })
    }

    /// Of streams in which a message may take the place of another.
    fn fewer_by_design(&self, info: &StreamInfo, deleted: &Heard) -> Option<Missing> {
        let (were, are) = (self.messages, info.state.messages);
        let replaces = |config: &Map<String, Value>| {
            let expires = max_age(config).is_some() || config.get("allow_msg_ttl") == Some(&Value::Bool(true));
            word(config, "retention") == "limits" && !keeps_every_message(config) && !expires
        };
        let judged = replaces(&self.config) && replaces(&info.config) && !deleted.purged;
        let is_fewer = are.saturating_add(count(&deleted.messages)) < were;
        (judged && is_fewer).then_some(Missing::Fewer { were, are, end: Some(self.last_seq) })
    }

    /// The highest sequence that the stream may begin with after a restart.
    fn first_that_must_be_there(&self, config: &Map<String, Value>, state: &StreamState, now: SystemTime) -> u64 {
        let limit = |name| u64::try_from(field(config, name)).ok().filter(|limit| *limit > 0);
        // A full stream gives way at its beginning. A message that would not fit leaves room for some.
        let some = 8 * state.bytes.checked_div(state.messages).unwrap_or_default();
        let full = limit("max_msgs").is_some_and(|most| state.messages >= most)
            || limit("max_bytes").is_some_and(|most| state.bytes.saturating_add(some.max(most / 50)) >= most);
        if full {
            return u64::MAX;
        }
        // A stream that was empty begins with its first message.
        let first = self.first_seq.max(1);
        let Some(age) = max_age(config) else { return first };
        let cutoff = millis_of(now).saturating_sub(age.as_millis() as u64);
        // What came after the first milestone that is young enough is young enough as well.
        self.first_younger_than(cutoff).unwrap_or(self.last_seq.saturating_add(1)).max(first)
    }
}

/// What a server says to have lost, where it was asked.
pub fn lost(info: &StreamInfo) -> Ranges {
    let lost = info.state.lost.iter().flat_map(|lost| lost.msgs.iter().flatten());
    let mut ranges: Ranges = lost.map(|seq| (*seq, *seq)).collect();
    ranges.sort_unstable();
    union(&ranges, &[])
}

impl Book {
    /// Whether a stream ends before the sequence that it was seen to have.
    pub fn ends_earlier(&self, info: &StreamInfo) -> bool {
        let mark = self.marks.get(info.name()).filter(|mark| mark.created == info.created);
        mark.is_some_and(|mark| info.state.last_seq < mark.last_seq)
    }

    /// Streams that hold less than they did: what has become of it only a closer look tells.
    pub fn with_fewer(&self, streams: &[StreamInfo], now: SystemTime) -> Vec<String> {
        let fewer = |info: &&StreamInfo| {
            let mark = self.marks.get(info.name());
            mark.is_some_and(|mark| mark.fewer_in(info, now, &Heard::default()).is_some())
        };
        streams.iter().filter(fewer).map(|info| info.name().to_owned()).collect()
    }

    /// Takes in what has happened while no server ran.
    pub fn note_meanwhile(&mut self, meanwhile: Meanwhile, now: &Inventory) -> Vec<Loss> {
        self.losses.retain(|loss| {
            let is_back =
                matches!(&loss.missing, Missing::Files { changed, .. } if now.has_back(&loss.stream, changed));
            !is_back
        });
        self.touched.extend(meanwhile.touched);
        self.indexed = meanwhile.indexed;
        for (stream, held) in &meanwhile.held {
            if self.marks.get_mut(stream).is_some_and(|mark| mark.catch_up(held)) {
                // The server knew of it.
                self.deleted.remove(stream);
            }
        }
        let is_indexed = |stream: &String| now.streams.get(stream).is_some_and(|files| files.index.is_some());
        let left = meanwhile.held.into_iter().filter(|(stream, _)| self.touched.contains(stream));
        self.left = left.map(|(stream, held)| (stream.clone(), Left { held, counted: !is_indexed(&stream) })).collect();
        let changes = meanwhile.changes.into_iter();
        let mut found: Vec<_> = changes
            .map(|(stream, changed)| Loss::found_now(&stream, Missing::Files { changed, messages: None }))
            .collect();
        found.retain(|loss| self.note(loss.clone()));
        self.told.extend(found.iter().map(|loss| loss.stream.clone()));
        found
    }

    /// Takes in how many messages a server has counted in a stream before it let any client in. Gives what
    /// is missing of what the server before it had left.
    pub fn note_restored(&mut self, stream: &str, messages: u64, now: SystemTime) -> Option<Loss> {
        let Left { held, counted } = self.left.remove(stream)?;
        let first_young = |cutoff| self.marks.get(stream)?.first_younger_than(cutoff);
        let expected = held.messages - held.may_have_expired(nanos_of(now), first_young);
        let is_missing = messages < expected;
        if is_missing || counted {
            // Nothing is left to be found by a look: what clients do from now on does not count.
            self.touched.remove(stream);
        }
        if !is_missing {
            return None;
        }
        self.note_counted(stream, Missing::Fewer { were: expected, are: messages, end: Some(held.last_seq) }, now)
    }

    /// Notes how many messages are missing. Where the cause is told already, that sentence says it as well,
    /// and there is nothing to give.
    fn note_counted(&mut self, stream: &str, missing: Missing, now: SystemTime) -> Option<Loss> {
        if self.told.contains(stream)
            && let Some(count) = missing.count()
        {
            let files = self.losses.iter_mut().filter(|loss| loss.stream == stream);
            let messages = files.filter_map(|loss| match &mut loss.missing {
                Missing::Files { messages, .. } => Some(messages),
                _ => None,
            });
            messages.for_each(|messages| *messages = Some(messages.unwrap_or_default().max(count)));
            return None;
        }
        let found_at = crate::logging::timestamp(now).to_string();
        let loss = Loss { stream: stream.to_owned(), missing, found_at };
        let is_news = self.note(loss.clone());
        if is_news {
            self.told.insert(stream.to_owned());
        }
        is_news.then_some(loss)
    }

    /// Compares the marks with the streams that exist now, and advances them. Gives what was found
    /// missing. `declared` are the streams that must exist; others may be deleted by who made them.
    pub fn compare(&mut self, streams: &Streams, declared: &[&str], circumstances: Circumstances) -> Vec<Loss> {
        let mut found = Vec::new();
        let mut marks = std::mem::take(&mut self.marks);
        for name in &streams.unknown {
            // Neither there nor gone.
            self.marks.extend(marks.remove_entry(name));
        }
        for info in &streams.known {
            let name = info.name().to_owned();
            let is_served = |missing: &Missing| matches!(missing, Missing::Unknown { .. } | Missing::Offline { .. });
            self.losses.retain(|loss| loss.stream != name || !is_served(&loss.missing));
            let must_exist = declared.contains(&name.as_str());
            let touched = circumstances.restarted && self.touched.contains(&name);
            let evidence = Evidence { touched, indexed: self.indexed.contains(&name) };
            let mark = marks.remove(&name).filter(|mark| {
                // Another stream of that name: who made it deleted the one that was seen.
                let made_again = mark.created != info.created && !touched && !must_exist;
                let forgotten = circumstances.restarted && !(is_on_disk(&mark.config) && is_on_disk(&info.config));
                !made_again && !forgotten
            });
            let deleted = self.deleted.get(&name).cloned().unwrap_or_default();
            if let Some(missing) =
                mark.as_ref().and_then(|mark| mark.missing_in(info, circumstances, evidence, &deleted))
            {
                found.push((name.clone(), missing));
            } else if circumstances.restarted {
                self.losses.retain(|loss| loss.stream != name || !loss.missing.is_back(&info.state));
            }
            let mark = mark.unwrap_or_else(|| Mark::of(info)).advanced(info, circumstances.now);
            self.marks.insert(name, mark);
        }
        for (name, mark) in marks {
            let touched = circumstances.restarted && !circumstances.clustered && self.touched.contains(&name);
            let deliberate = !touched && !declared.contains(&name.as_str());
            let in_memory = circumstances.restarted && !is_on_disk(&mark.config);
            if !deliberate && !in_memory {
                let Mark { messages, last_seq, .. } = mark;
                found.push((name, Missing::Stream { messages, last_seq }));
            }
        }
        // The same finding again is no news.
        let found =
            found.into_iter().filter_map(|(stream, missing)| self.note_counted(&stream, missing, circumstances.now));
        let found = found.collect();
        if circumstances.restarted {
            self.touched.clear();
            self.indexed.clear();
            self.left.clear();
        }
        // What is found from now on has another cause.
        self.told.clear();
        found
    }

    /// Forgets losses that somebody has seen; gives what is forgotten.
    pub fn acknowledge(&mut self, seen: &[Loss]) -> Vec<Loss> {
        let (forgotten, kept): (Vec<_>, _) =
            std::mem::take(&mut self.losses).into_iter().partition(|loss| seen.contains(loss));
        self.losses = kept;
        for loss in &forgotten {
            if let Missing::Unreadable { ranges } | Missing::Lost { ranges } = &loss.missing {
                let accepted = self.accepted.entry(loss.stream.clone()).or_default();
                *accepted = union(accepted, ranges);
            }
            if let Missing::Unknown { directory } | Missing::Offline { directory, .. } = &loss.missing {
                self.accepted_directories.insert(directory.clone());
            }
        }
        forgotten
    }

    /// Nothing was known of that stream.
    pub fn forget(&mut self, stream: &str) {
        self.marks.remove(stream);
        self.losses.retain(|loss| loss.stream != stream);
        self.accepted.remove(stream);
    }

    /// Leaves out what had been heard before a look: the marks that it has made know of that.
    pub fn forget_heard(&mut self, before: BTreeMap<String, Heard>) {
        for (stream, before) in before {
            if let Some(heard) = self.deleted.get_mut(&stream) {
                heard.messages = without(&heard.messages, &before.messages);
                // Another purge since then does not show; the next look knows of it as well.
                heard.purged &= !before.purged;
            }
        }
        self.deleted.retain(|_, heard| *heard != Heard::default());
    }

    /// Takes back that messages of `stream` cannot be read; whether that had been so.
    pub fn is_readable(&mut self, stream: &str) -> bool {
        let before = self.losses.len();
        self.losses.retain(|loss| loss.stream != stream || !matches!(loss.missing, Missing::Unreadable { .. }));
        self.losses.len() < before
    }

    /// Notes a loss that was found in some other way; false where it is known already. What cannot be
    /// read of a stream is one loss, however often it is read.
    pub fn note(&mut self, mut loss: Loss) -> bool {
        if let Missing::Lost { ranges } = &mut loss.missing {
            // A server tells all that it has lost since its start each time.
            let accepted = self.accepted.get(&loss.stream).map(Vec::as_slice).unwrap_or_default();
            *ranges = without(ranges, accepted);
            let known = self
                .losses
                .iter()
                .position(|known| known.stream == loss.stream && matches!(known.missing, Missing::Lost { .. }));
            if let Some(Missing::Lost { ranges: known }) = known.map(|at| &self.losses[at].missing) {
                *ranges = union(ranges, known);
                if ranges == known {
                    return false;
                }
            }
            if ranges.is_empty() {
                return false;
            }
            known.map(|at| self.losses.remove(at));
        }
        if let Missing::Unknown { directory } | Missing::Offline { directory, .. } = &loss.missing
            && self.accepted_directories.contains(directory)
        {
            return false;
        }
        let unreadable = |loss: &Loss| matches!(loss.missing, Missing::Unreadable { .. });
        let same = |known: &&mut Loss| {
            known.stream == loss.stream && (known.missing == loss.missing || (unreadable(known) && unreadable(&loss)))
        };
        match self.losses.iter_mut().find(same) {
            Some(known) => {
                let found_at = known.found_at.clone();
                *known = Loss { found_at, ..loss };
                false
            }
            None => {
                self.losses.push(loss);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests;
