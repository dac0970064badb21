//! What each stream was seen to hold, and what follows from what it holds now. Pure.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::deletions::Heard;
use super::index::Held;
use super::losses::LossKind;
use super::ranges::{Ranges, count, union, without};
use crate::nats::{SeenStream, StreamState, Terms, WrittenConfig};

/// What a stream held when it was last seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamBaseline {
    /// When the stream was created, as the server tells it.
    pub created: String,
    /// The whole configuration, for a stream whose own copy cannot be read any more.
    pub config: WrittenConfig,
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

/// What is known about the files of a stream since its baseline was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// They were changed while no server ran.
    pub touched: bool,
    /// The server before stopped in order.
    pub indexed: bool,
}

/// What is known about the time since the baselines were made.
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

/// A stream with more holes than that is not asked for all of them.
pub const MOST_HOLES: u64 = 200_000;
/// Milestones kept at most; more make the judgement of expired messages finer.
const MILESTONES: u32 = 64;

/// Whether a message goes for no other reason than the limits of the whole stream.
fn keeps_every_message(terms: &Terms) -> bool {
    terms.keeps_to_limits && terms.max_msgs_per_subject <= 0 && !terms.allow_msg_ttl && !terms.allow_rollup_hdrs
}

fn millis_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn max_age(terms: &Terms) -> Option<Duration> {
    let nanoseconds = u64::try_from(terms.max_age).unwrap_or_default();
    (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
}

impl StreamBaseline {
    pub fn of(info: &SeenStream) -> Self {
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

    /// The baseline of the same stream as it is seen now.
    pub fn advanced(self, info: &SeenStream, now: SystemTime) -> Self {
        let mut milestones = self.milestones;
        if let Some(age) = max_age(&info.config.terms) {
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
    pub(super) fn catch_up(&mut self, held: &Held) -> bool {
        let is_newer = held.last_seq >= self.last_seq;
        if is_newer {
            (self.messages, self.first_seq, self.last_seq) = (held.messages, held.first_seq, held.last_seq);
            self.num_deleted = (held.last_seq + 1).saturating_sub(held.first_seq).saturating_sub(held.messages);
        }
        is_newer
    }

    /// The first sequence that is known to be younger than a time, in milliseconds.
    pub(super) fn first_younger_than(&self, cutoff: u64) -> Option<u64> {
        self.milestones.iter().find(|milestone| milestone.at >= cutoff).map(|milestone| milestone.seq.saturating_add(1))
    }

    /// What is missing of the stream that this baseline is of. `deleted` is what clients were heard to delete
    /// since.
    pub fn missing_in(
        &self,
        info: &SeenStream,
        circumstances: Circumstances,
        evidence: Evidence,
        deleted: &Heard,
    ) -> Option<LossKind> {
        let state = &info.state;
        if state.last_seq < self.last_seq && !self.may_forget_its_end(circumstances, evidence) {
            return Some(LossKind::End { was: self.last_seq, is: state.last_seq, held: Some(self.messages) });
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
        let ranges = lost(state);
        (!ranges.is_empty()).then_some(LossKind::Lost { ranges })
    }

    /// nats-server 2.10 that is killed may come back with an earlier end, where the messages at the end
    /// had been deleted or acknowledged (measured).
    fn may_forget_its_end(&self, circumstances: Circumstances, evidence: Evidence) -> bool {
        let Circumstances { restarted, clustered, forgetful, .. } = circumstances;
        let was_killed = forgetful && restarted && !clustered && evidence == Evidence::default();
        was_killed && (self.is_deleted_from || !self.config.terms.keeps_to_limits)
    }

    /// What there is less of than there was, and neither limits nor what was heard explain. The limits
    /// may have been changed in between: what either of them drops is explained.
    pub(super) fn fewer_in(&self, info: &SeenStream, now: SystemTime, deleted: &Heard) -> Option<LossKind> {
        let state = &info.state;
        let terms = [&self.config.terms, &info.config.terms];
        if deleted.purged || !terms.into_iter().all(keeps_every_message) {
            return None;
        }
        let since = state.num_deleted.saturating_sub(count(&deleted.messages));
        if since > self.num_deleted {
            return Some(LossKind::Holes { were: self.num_deleted, are: since });
        }
        let first = terms.into_iter().map(|terms| self.first_that_must_be_there(terms, state, now)).max();
        // What was deleted at the beginning the beginning has passed.
        let expected = without(&[(first.unwrap_or(u64::MAX), u64::MAX)], &deleted.messages);
        let expected = expected.first().map_or(u64::MAX, |(first, _)| *first);
        (state.first_seq > expected).then_some(LossKind::Beginning { expected, is: state.first_seq })
    }

    /// Of streams in which a message may take the place of another.
    fn fewer_by_design(&self, info: &SeenStream, deleted: &Heard) -> Option<LossKind> {
        let (were, are) = (self.messages, info.state.messages);
        let replaces = |terms: &Terms| {
            let expires = max_age(terms).is_some() || terms.allow_msg_ttl;
            terms.keeps_to_limits && !keeps_every_message(terms) && !expires
        };
        let judged = replaces(&self.config.terms) && replaces(&info.config.terms) && !deleted.purged;
        let is_fewer = are.saturating_add(count(&deleted.messages)) < were;
        (judged && is_fewer).then_some(LossKind::Fewer { were, are, end: Some(self.last_seq) })
    }

    /// The highest sequence that the stream may begin with after a restart.
    fn first_that_must_be_there(&self, terms: &Terms, state: &StreamState, now: SystemTime) -> u64 {
        let limit = |limit| u64::try_from(limit).ok().filter(|limit| *limit > 0);
        // A full stream gives way at its beginning. A message that would not fit leaves room for some.
        let some = 8 * state.bytes.checked_div(state.messages).unwrap_or_default();
        let full = limit(terms.max_msgs).is_some_and(|most| state.messages >= most)
            || limit(terms.max_bytes).is_some_and(|most| state.bytes.saturating_add(some.max(most / 50)) >= most);
        if full {
            return u64::MAX;
        }
        // A stream that was empty begins with its first message.
        let first = self.first_seq.max(1);
        let Some(age) = max_age(terms) else { return first };
        let cutoff = millis_of(now).saturating_sub(age.as_millis() as u64);
        // What came after the first milestone that is young enough is young enough as well.
        self.first_younger_than(cutoff).unwrap_or(self.last_seq.saturating_add(1)).max(first)
    }
}

/// What a server says to have lost, where it was asked.
pub fn lost(state: &StreamState) -> Ranges {
    let lost = state.lost.iter().flat_map(|lost| lost.msgs.iter().flatten());
    let mut ranges: Ranges = lost.map(|seq| (*seq, *seq)).collect();
    ranges.sort_unstable();
    union(&ranges, &[])
}

#[cfg(test)]
pub(super) mod tests;
