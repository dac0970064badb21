//! Marks and losses of the store, and what follows from what its streams hold now. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::baselines::{Circumstances, Evidence, StreamBaseline};
use super::deletions::Heard;
use super::index::Held;
use super::inventory::{Inventory, Meanwhile};
use super::losses::{Loss, LossKind};
use super::ranges::{Ranges, union, without};
use super::restores::Known;
use crate::domain::ServerVersion;
use crate::nats::{SeenStream, SeenStreams};

/// Marks and losses, as they are kept beside the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntegrityLedger {
    #[serde(rename = "marks")]
    pub baselines: BTreeMap<String, StreamBaseline>,
    pub losses: Vec<Loss>,
    /// Sequences of each stream that cannot be read, and that somebody knows about.
    pub accepted: BTreeMap<String, Ranges>,
    /// Directories of streams that the server does not know, and that somebody knows about.
    pub accepted_directories: BTreeSet<String>,
    /// Streams whose files were touched while no server ran; until they are compared.
    pub touched: BTreeSet<String>,
    /// Of those the ones that could not be asked for when all others were compared.
    pub unasked: BTreeSet<String>,
    /// Streams whose last server stopped in order; until they are compared.
    pub indexed: BTreeSet<String>,
    /// What those that were touched held by the account of the server that stopped in order; until the
    /// next one has counted them.
    pub left: BTreeMap<String, Left>,
    /// Streams of which a loss was told since then, so that it is not told again in other words.
    pub told: BTreeSet<String>,
    /// The server that was looked at last, for a store that has lost its marker.
    pub server: Option<ServerVersion>,
    /// What clients have asked to be deleted of each stream since its baseline was made.
    pub deleted: BTreeMap<String, Heard>,
    /// Restores of streams from snapshots, until a look has shown what came of them.
    pub restores: BTreeMap<String, Known>,
}

/// What a server that stopped in order has left of a stream whose files were touched since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub held: Held,
    /// Its index is gone, so that the next server must read every block to count the messages.
    pub counted: bool,
}

fn nanos_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

impl IntegrityLedger {
    /// Whether a stream ends before the sequence that it was seen to have.
    pub fn ends_earlier(&self, info: &SeenStream) -> bool {
        let baseline = self.baselines.get(info.name()).filter(|baseline| baseline.created == info.created);
        baseline.is_some_and(|baseline| info.state.last_seq < baseline.last_seq)
    }

    /// Streams that hold less than they did: what has become of it only a closer look tells.
    pub fn with_fewer(&self, streams: &[SeenStream], now: SystemTime) -> Vec<String> {
        let fewer = |info: &&SeenStream| {
            let baseline = self.baselines.get(info.name());
            baseline.is_some_and(|baseline| baseline.fewer_in(info, now, &Heard::default()).is_some())
        };
        streams.iter().filter(fewer).map(|info| info.name().to_owned()).collect()
    }

    /// Takes in what has happened while no server ran.
    pub fn note_meanwhile(&mut self, meanwhile: Meanwhile, now: &Inventory) -> Vec<Loss> {
        self.losses.retain(|loss| {
            let is_back =
                matches!(&loss.missing, LossKind::Files { changed, .. } if now.has_back(&loss.stream, changed));
            !is_back
        });
        self.touched.extend(meanwhile.touched);
        self.indexed = meanwhile.indexed;
        for (stream, held) in &meanwhile.held {
            if self.baselines.get_mut(stream).is_some_and(|baseline| baseline.catch_up(held)) {
                // The server knew of it.
                self.deleted.remove(stream);
            }
        }
        let is_indexed = |stream: &String| now.streams.get(stream).is_some_and(|files| files.index.is_some());
        let left = meanwhile.held.into_iter().filter(|(stream, _)| self.touched.contains(stream));
        self.left = left.map(|(stream, held)| (stream.clone(), Left { held, counted: !is_indexed(&stream) })).collect();
        let changes = meanwhile.changes.into_iter();
        let mut found: Vec<_> = changes
            .map(|(stream, changed)| Loss::found_now(&stream, LossKind::Files { changed, messages: None }))
            .collect();
        found.retain(|loss| self.note(loss.clone()));
        self.told.extend(found.iter().map(|loss| loss.stream.clone()));
        found
    }

    /// Takes in how many messages a server has counted in a stream before it let any client in. Gives what
    /// is missing of what the server before it had left.
    pub fn note_restored(&mut self, stream: &str, messages: u64, now: SystemTime) -> Option<Loss> {
        let Left { held, counted } = self.left.remove(stream)?;
        let first_young = |cutoff| self.baselines.get(stream)?.first_younger_than(cutoff);
        let expected = held.messages - held.may_have_expired(nanos_of(now), first_young);
        let is_missing = messages < expected;
        if is_missing || counted {
            // Nothing is left to be found by a look: what clients do from now on does not count.
            self.touched.remove(stream);
        }
        if !is_missing {
            return None;
        }
        self.note_counted(stream, LossKind::Fewer { were: expected, are: messages, end: Some(held.last_seq) }, now)
    }

    /// Notes how many messages are missing. Where the cause is told already, that sentence says it as well,
    /// and there is nothing to give.
    fn note_counted(&mut self, stream: &str, missing: LossKind, now: SystemTime) -> Option<Loss> {
        if self.told.contains(stream)
            && let Some(count) = missing.count()
        {
            let files = self.losses.iter_mut().filter(|loss| loss.stream == stream);
            let messages = files.filter_map(|loss| match &mut loss.missing {
                LossKind::Files { messages, .. } => Some(messages),
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

    /// Compares the baselines with the streams that exist now, and advances them. Gives what was found
    /// missing. `declared` are the streams that must exist; others may be deleted by who made them.
    pub fn compare(&mut self, streams: &SeenStreams, declared: &[&str], circumstances: Circumstances) -> Vec<Loss> {
        let declared: BTreeSet<_> = declared.iter().copied().collect();
        let mut found = Vec::new();
        let mut baselines = std::mem::take(&mut self.baselines);
        for name in &streams.unknown {
            // Neither there nor gone.
            self.baselines.extend(baselines.remove_entry(name));
        }
        for info in &streams.known {
            let name = info.name().to_owned();
            let is_served = |missing: &LossKind| matches!(missing, LossKind::Unknown { .. } | LossKind::Offline { .. });
            self.losses.retain(|loss| loss.stream != name || !is_served(&loss.missing));
            let must_exist = declared.contains(name.as_str());
            let touched = circumstances.restarted && self.touched.contains(&name);
            let evidence = Evidence { touched, indexed: self.indexed.contains(&name) };
            let baseline = baselines.remove(&name).filter(|baseline| {
                // Another stream of that name: who made it deleted the one that was seen.
                let made_again = baseline.created != info.created && !touched && !must_exist;
                let stays = baseline.config.terms.is_on_disk && info.config.terms.is_on_disk;
                let forgotten = circumstances.restarted && !stays;
                !made_again && !forgotten
            });
            let deleted = self.deleted.get(&name).cloned().unwrap_or_default();
            if let Some(missing) =
                baseline.as_ref().and_then(|baseline| baseline.missing_in(info, circumstances, evidence, &deleted))
            {
                found.push((name.clone(), missing));
            } else if circumstances.restarted {
                self.losses.retain(|loss| loss.stream != name || !loss.missing.is_back(&info.state));
            }
            let baseline = baseline.unwrap_or_else(|| StreamBaseline::of(info)).advanced(info, circumstances.now);
            self.baselines.insert(name, baseline);
        }
        for (name, baseline) in baselines {
            let touched = circumstances.restarted && self.touched.contains(&name) || self.unasked.contains(&name);
            let touched = touched && !circumstances.clustered;
            let deliberate = !touched && !declared.contains(name.as_str());
            let in_memory = circumstances.restarted && !baseline.config.terms.is_on_disk;
            if !deliberate && !in_memory {
                let StreamBaseline { messages, last_seq, .. } = baseline;
                found.push((name, LossKind::Stream { messages, last_seq }));
            }
        }
        // The same finding again is no news.
        let found =
            found.into_iter().filter_map(|(stream, missing)| self.note_counted(&stream, missing, circumstances.now));
        let found = found.collect();
        self.unasked.retain(|name| streams.unknown.contains(name));
        if circumstances.restarted {
            self.unasked.extend(self.touched.iter().filter(|name| streams.unknown.contains(name)).cloned());
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
            if let LossKind::Unreadable { ranges } | LossKind::Lost { ranges } = &loss.missing {
                let accepted = self.accepted.entry(loss.stream.clone()).or_default();
                *accepted = union(accepted, ranges);
            }
            if let LossKind::Unknown { directory } | LossKind::Offline { directory, .. } = &loss.missing {
                self.accepted_directories.insert(directory.clone());
            }
        }
        forgotten
    }

    /// Forgets what was known of each stream that came out of a snapshot since, and gives their names: what
    /// a snapshot does not hold is no loss. Nothing can be said of streams that are still being restored.
    pub fn settle_restores(&mut self, streams: &mut SeenStreams) -> Vec<String> {
        let (ended, under_way): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.restores).into_iter().partition(|(_, restore)| restore.has_ended);
        streams.known.retain(|info| !under_way.contains_key(info.name()));
        streams.unknown.extend(under_way.keys().cloned());
        self.restores = under_way;
        let mut restored = vec![];
        for (stream, restore) in ended {
            if streams.known.iter().any(|info| info.name() == stream && restore.has_made(info)) {
                self.forget(&stream);
                restored.push(stream);
            } else if streams.unknown.contains(&stream) {
                self.restores.insert(stream, restore);
            }
            // Of any other the restore has failed, and what is missing is missing.
        }
        restored
    }

    /// Nothing was known of that stream.
    pub fn forget(&mut self, stream: &str) {
        self.baselines.remove(stream);
        self.losses.retain(|loss| loss.stream != stream);
        self.accepted.remove(stream);
        self.deleted.remove(stream);
        self.left.remove(stream);
        for names in [&mut self.touched, &mut self.unasked, &mut self.indexed, &mut self.told] {
            names.remove(stream);
        }
    }

    /// Leaves out what had been heard before a look: the baselines that it has made know of that.
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
        self.losses.retain(|loss| loss.stream != stream || !matches!(loss.missing, LossKind::Unreadable { .. }));
        self.losses.len() < before
    }

    /// Notes a loss that was found in some other way; false where it is known already. What cannot be
    /// read of a stream is one loss, however often it is read.
    pub fn note(&mut self, mut loss: Loss) -> bool {
        if let LossKind::Lost { ranges } = &mut loss.missing {
            // A server tells all that it has lost since its start each time.
            let accepted = self.accepted.get(&loss.stream).map(Vec::as_slice).unwrap_or_default();
            *ranges = without(ranges, accepted);
            let known = self
                .losses
                .iter()
                .position(|known| known.stream == loss.stream && matches!(known.missing, LossKind::Lost { .. }));
            if let Some(LossKind::Lost { ranges: known }) = known.map(|at| &self.losses[at].missing) {
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
        if let LossKind::Unknown { directory } | LossKind::Offline { directory, .. } = &loss.missing
            && self.accepted_directories.contains(directory)
        {
            return false;
        }
        let unreadable = |loss: &Loss| matches!(loss.missing, LossKind::Unreadable { .. });
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
