//! What each stream was seen to hold, and what follows from what it holds now. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestone {
    pub seq: u64,
    /// Milliseconds since 1970.
    pub at: u64,
}

/// Messages that are gone though nobody asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    pub stream: String,
    pub missing: Missing,
    /// When it was found, RFC 3339.
    pub found_at: String,
}

/// What is missing of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The last sequence went backwards.
    End {
        was: u64,
        is: u64,
        /// Messages that it held.
        #[serde(default)]
        held: Option<u64>,
    },
    /// Sequences between the first and the last hold no message that did.
    Holes { were: u64, are: u64 },
    /// Messages at the beginning are gone that no limit has removed.
    Beginning { expected: u64, is: u64 },
    /// The stream does not exist any more.
    Stream { messages: u64, last_seq: u64 },
    /// Sequences that are counted as messages cannot be read.
    Unreadable { ranges: Ranges },
    /// The server itself found them damaged while it ran, and counts them as deleted.
    Lost { ranges: Ranges },
    /// The server does not know a stream whose files are there.
    Unknown { directory: String },
    /// What had been seen before could not be read any more.
    Memory { reason: String },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End { was, is, held } => {
                let missing = was.saturating_sub(*is).min(held.unwrap_or(u64::MAX));
                write!(f, "its last sequence was {was} and is {is}: at least {missing} messages are missing")
            }
            Self::Holes { were, are } => {
                write!(f, "{} messages are missing between its first and its last sequence", are.saturating_sub(*were))
            }
            Self::Beginning { expected, is } => write!(
                f,
                "it should begin at sequence {expected} and begins at {is}: {} messages are missing",
                is.saturating_sub(*expected)
            ),
            Self::Stream { messages, last_seq } => {
                write!(f, "it is gone, and held {messages} messages up to sequence {last_seq}")
            }
            Self::Unreadable { ranges } => {
                let first = ranges.first().map_or(0, |(first, _)| *first);
                write!(f, "{} messages cannot be read, the first of them at sequence {first}", count(ranges))
            }
            Self::Lost { ranges } => {
                let first = ranges.first().map_or(0, |(first, _)| *first);
                let count = count(ranges);
                write!(f, "nats-server lost {count} messages in damaged files, the first of them at sequence {first}")
            }
            Self::Memory { reason } => {
                write!(f, "what it held before is not known, so something may be missing: {reason}")
            }
            Self::Unknown { directory } => {
                write!(f, "nats-server cannot recover it; its files are untouched in {directory}")
            }
        }
    }
}

impl Loss {
    pub fn found_now(stream: &str, missing: Missing) -> Self {
        let found_at = crate::logging::timestamp(SystemTime::now()).to_string();
        Self { stream: stream.to_owned(), missing, found_at }
    }
}

impl Missing {
    /// Whether what was missing is there again. Sequences are used once, so holes that are closed and a
    /// beginning that is back hold the very messages; what follows a shorter end are others.
    fn is_back(&self, state: &StreamState) -> bool {
        match self {
            Self::Holes { were, .. } => state.num_deleted <= *were,
            Self::Beginning { expected, .. } => state.first_seq <= *expected,
            _ => false,
        }
    }
}

/// How many sequences are in ranges.
pub fn count(ranges: &[(u64, u64)]) -> u64 {
    ranges.iter().fold(0, |sum: u64, (from, to)| sum.saturating_add(to.saturating_sub(*from).saturating_add(1)))
}

/// First and last of each run of sequences, in order.
pub type Ranges = Vec<(u64, u64)>;

/// What is in `ranges` and not in `others`; both are in order and without overlaps.
pub fn without(ranges: &[(u64, u64)], others: &[(u64, u64)]) -> Ranges {
    let mut rest = Ranges::new();
    for &(from, to) in ranges {
        // The first sequence that is not dealt with; nothing follows the last one there can be.
        let mut next = Some(from);
        let first = others.partition_point(|(_, end)| *end < from);
        for &(start, end) in others[first..].iter().take_while(|(start, _)| *start <= to) {
            rest.extend(next.filter(|from| *from < start).map(|from| (from, start - 1)));
            next = end.checked_add(1);
        }
        rest.extend(next.filter(|from| *from <= to).map(|from| (from, to)));
    }
    rest
}

/// What is in both of two lists of ranges.
pub fn common(some: &[(u64, u64)], others: &[(u64, u64)]) -> Ranges {
    without(some, &without(some, others))
}

/// What is in either of two lists of ranges.
pub fn union(some: &[(u64, u64)], others: &[(u64, u64)]) -> Ranges {
    let mut all = [some, others].concat();
    all.sort_unstable();
    let mut merged: Ranges = Vec::new();
    for (from, to) in all {
        match merged.last_mut() {
            Some((_, end)) if from <= end.saturating_add(1) => *end = to.max(*end),
            _ => merged.push((from, to)),
        }
    }
    merged
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
}

/// What is known about the time since the marks were made.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Another server has opened the store since, so that its files may have changed in between.
    pub restarted: bool,
    /// The store is one of several that hold the same streams.
    pub clustered: bool,
    pub now: SystemTime,
}

impl Circumstances {
    /// Whether somebody may have deleted a stream or made it anew since, through a server.
    const fn others_may_act(self) -> bool {
        !self.restarted || self.clustered
    }
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
        Self { milestones, ..Self::of(info) }
    }

    /// What is missing of the stream that this mark is of.
    pub fn missing_in(&self, info: &StreamInfo, circumstances: Circumstances) -> Option<Missing> {
        let state = &info.state;
        if state.last_seq < self.last_seq {
            return Some(Missing::End { was: self.last_seq, is: state.last_seq, held: Some(self.messages) });
        }
        // In a cluster others hold it, too.
        if circumstances.clustered {
            return None;
        }
        let fewer = self.fewer_in(info, circumstances.now);
        if circumstances.restarted {
            return fewer;
        }
        // What a running server deletes somebody has asked for, unless it says otherwise.
        let ranges = fewer.map(|_| lost(info)).filter(|ranges| !ranges.is_empty())?;
        Some(Missing::Lost { ranges })
    }

    /// What there is less of than there was, for whatever reason.
    fn fewer_in(&self, info: &StreamInfo, now: SystemTime) -> Option<Missing> {
        let state = &info.state;
        if !keeps_every_message(&info.config) {
            return None;
        }
        if state.num_deleted > self.num_deleted {
            return Some(Missing::Holes { were: self.num_deleted, are: state.num_deleted });
        }
        let expected = self.first_that_must_be_there(info, now);
        (state.first_seq > expected).then_some(Missing::Beginning { expected, is: state.first_seq })
    }

    /// The highest sequence that the stream may begin with after a restart.
    fn first_that_must_be_there(&self, info: &StreamInfo, now: SystemTime) -> u64 {
        let limit = |name| u64::try_from(field(&info.config, name)).ok().filter(|limit| *limit > 0);
        let state = &info.state;
        // A full stream gives way at its beginning. A message that would not fit leaves room for some.
        let some = 8 * state.bytes.checked_div(state.messages).unwrap_or_default();
        let full = limit("max_msgs").is_some_and(|most| state.messages >= most)
            || limit("max_bytes").is_some_and(|most| state.bytes.saturating_add(some.max(most / 50)) >= most);
        if full {
            return u64::MAX;
        }
        // A stream that was empty begins with its first message.
        let first = self.first_seq.max(1);
        let Some(age) = max_age(&info.config) else { return first };
        let cutoff = millis_of(now).saturating_sub(age.as_millis() as u64);
        // What came after the first milestone that is young enough is young enough as well.
        let young = self.milestones.iter().find(|milestone| milestone.at >= cutoff);
        young.map_or(self.last_seq, |milestone| milestone.seq).max(first - 1).saturating_add(1)
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
        let fewer =
            |info: &&StreamInfo| self.marks.get(info.name()).is_some_and(|mark| mark.fewer_in(info, now).is_some());
        streams.iter().filter(fewer).map(|info| info.name().to_owned()).collect()
    }

    /// Compares the marks with the streams that exist now, and advances them. Gives what was found
    /// missing. `declared` are the streams that must exist; others may be deleted by who made them.
    pub fn compare(&mut self, streams: &Streams, declared: &[&str], circumstances: Circumstances) -> Vec<Loss> {
        let mut found = Vec::new();
        let mut marks = std::mem::take(&mut self.marks);
        let mut note = |stream: &str, missing: Missing| {
            let found_at = crate::logging::timestamp(circumstances.now).to_string();
            found.push(Loss { stream: stream.to_owned(), missing, found_at });
        };
        for name in &streams.unknown {
            // Neither there nor gone.
            self.marks.extend(marks.remove_entry(name));
        }
        for info in &streams.known {
            let name = info.name().to_owned();
            self.losses.retain(|loss| loss.stream != name || !matches!(loss.missing, Missing::Unknown { .. }));
            let must_exist = declared.contains(&name.as_str());
            let mark = marks.remove(&name).filter(|mark| {
                let made_again = mark.created != info.created && circumstances.others_may_act() && !must_exist;
                let forgotten = circumstances.restarted && !(is_on_disk(&mark.config) && is_on_disk(&info.config));
                !made_again && !forgotten
            });
            if let Some(missing) = mark.as_ref().and_then(|mark| mark.missing_in(info, circumstances)) {
                note(&name, missing);
            } else if circumstances.restarted {
                self.losses.retain(|loss| loss.stream != name || !loss.missing.is_back(&info.state));
            }
            let mark = mark.unwrap_or_else(|| Mark::of(info)).advanced(info, circumstances.now);
            self.marks.insert(name, mark);
        }
        for (name, mark) in marks {
            let deliberate = circumstances.others_may_act() && !declared.contains(&name.as_str());
            let in_memory = circumstances.restarted && !is_on_disk(&mark.config);
            if !deliberate && !in_memory {
                let Mark { messages, last_seq, .. } = mark;
                note(&name, Missing::Stream { messages, last_seq });
            }
        }
        // The same finding again is no news.
        found.retain(|loss| self.note(loss.clone()));
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
            if let Missing::Unknown { directory } = &loss.missing {
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
        if matches!(&loss.missing, Missing::Unknown { directory } if self.accepted_directories.contains(directory)) {
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
