//! In a cluster the end of a stream that lies before the one that was seen is not a loss yet: a leader
//! that was cut off, or one that has just been chosen, answers with what it has. What was acknowledged
//! comes back when the nodes are together; messages that are really gone are followed by others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::ledger::IntegrityLedger;
use super::losses::LossKind;
use crate::nats::{JetStream, SeenStream, SeenStreams};

/// For this long an earlier end is put down to the leader that answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Streams that have been seen with an earlier end and not with the right one since.
#[derive(Debug, Default)]
pub struct SuspectedLosses(BTreeMap<String, Doubt>);

#[derive(Clone, Copy, Debug)]
struct Doubt {
    since: Instant,
    /// The earliest end that was seen.
    end: u64,
}

/// A stream whose end is where it was or further on, after it had been in doubt.
#[derive(Debug)]
pub struct Resolved {
    stream: String,
    /// The message at the end that had been seen first is another one now.
    replaced: bool,
}

impl SuspectedLosses {
    /// The streams that are in doubt no longer: asks for the message that had been the last one.
    pub async fn resolve(
        jetstream: &JetStream,
        streams: &SeenStreams,
        doubtful: Vec<(String, u64, String)>,
    ) -> Vec<Resolved> {
        let mut resolved = vec![];
        for (stream, last_seq, last_ts) in doubtful {
            let is_there = |info: &SeenStream| info.name() == stream && info.state.last_seq >= last_seq;
            if streams.known.iter().any(is_there)
                && let Ok(time) = jetstream.time_of(&stream, last_seq).await
            {
                // One that is gone may have been deleted or expired since.
                let replaced = !last_ts.is_empty() && time.is_some_and(|time| time != last_ts);
                resolved.push(Resolved { stream, replaced });
            }
        }
        resolved
    }

    /// Stream, last sequence and time of the last message, as they had been seen.
    pub fn marked(&self, ledger: &IntegrityLedger) -> Vec<(String, u64, String)> {
        let baselines = self.0.keys().filter_map(|stream| Some((stream, ledger.baselines.get(stream)?)));
        baselines.map(|(stream, baseline)| (stream.clone(), baseline.last_seq, baseline.last_ts.clone())).collect()
    }

    /// Takes the streams out that nothing can be said of yet, and gives what turned out to be missing.
    pub fn sort(
        &mut self,
        streams: &mut SeenStreams,
        ledger: &IntegrityLedger,
        resolved: Vec<Resolved>,
        now: Instant,
    ) -> Vec<(String, LossKind)> {
        let mut missing = vec![];
        for Resolved { stream, replaced } in resolved {
            let (Some(doubt), Some(baseline)) = (self.0.remove(&stream), ledger.baselines.get(&stream)) else {
                continue;
            };
            if replaced {
                let found = LossKind::End { was: baseline.last_seq, is: doubt.end, held: Some(baseline.messages) };
                missing.push((stream, found));
            }
        }
        self.0.retain(|stream, _| ledger.baselines.contains_key(stream));
        let SeenStreams { known, unknown } = streams;
        known.retain(|info| {
            let (name, end) = (info.name(), info.state.last_seq);
            let earlier = ledger.ends_earlier(info);
            if !earlier && !self.0.contains_key(name) {
                return true;
            }
            let doubt = self.0.entry(name.to_owned()).or_insert(Doubt { since: now, end });
            doubt.end = doubt.end.min(end);
            if now.duration_since(doubt.since) >= PATIENCE {
                self.0.remove(name);
                return true;
            }
            unknown.push(name.to_owned());
            false
        });
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integrity::baselines::{Circumstances, StreamBaseline};
    use serde_json::json;

    fn info(last_seq: u64) -> SeenStream {
        let state = json!({ "messages": last_seq, "first_seq": 1, "last_seq": last_seq, "last_ts": "then" });
        serde_json::from_value(json!({ "config": { "name": "S", "storage": "file" }, "state": state })).unwrap()
    }

    fn ledger() -> IntegrityLedger {
        let mut ledger = IntegrityLedger::default();
        ledger.baselines.insert("S".into(), StreamBaseline::of(&info(100)));
        ledger
    }

    /// What a look at a stream with that end comes to.
    fn look(
        suspected: &mut SuspectedLosses,
        ledger: &mut IntegrityLedger,
        end: u64,
        resolved: Option<bool>,
        now: Instant,
    ) -> Vec<LossKind> {
        let mut streams = SeenStreams { known: vec![info(end)], unknown: vec![] };
        let resolved = resolved.map(|replaced| Resolved { stream: "S".into(), replaced });
        let missing = suspected.sort(&mut streams, ledger, resolved.into_iter().collect(), now);
        let circumstances = Circumstances {
            restarted: false,
            clustered: true,
            forgetful: false,
            now: std::time::SystemTime::UNIX_EPOCH,
        };
        let found = ledger.compare(&streams, &["S"], circumstances);
        missing.into_iter().map(|(_, missing)| missing).chain(found.into_iter().map(|loss| loss.missing)).collect()
    }

    #[test]
    fn an_earlier_end_that_goes_by_is_no_loss() {
        let (mut suspected, mut ledger, now) = (SuspectedLosses::default(), ledger(), Instant::now());
        assert_eq!(look(&mut suspected, &mut ledger, 70, None, now), []);
        assert_eq!(ledger.baselines["S"].last_seq, 100, "what was seen is not forgotten");
        assert_eq!(suspected.marked(&ledger), [("S".into(), 100, "then".into())]);
        assert_eq!(look(&mut suspected, &mut ledger, 120, None, now), [], "nobody has looked at the message yet");
        assert_eq!(ledger.baselines["S"].last_seq, 100);
        assert_eq!(look(&mut suspected, &mut ledger, 130, Some(false), now), []);
        assert_eq!((ledger.baselines["S"].last_seq, suspected.marked(&ledger).len()), (130, 0));
    }

    #[test]
    fn other_messages_in_the_place_of_those_that_were_seen_are_a_loss() {
        let (mut suspected, mut ledger, now) = (SuspectedLosses::default(), ledger(), Instant::now());
        look(&mut suspected, &mut ledger, 70, None, now);
        look(&mut suspected, &mut ledger, 90, None, now);
        let lost = LossKind::End { was: 100, is: 70, held: Some(100) };
        assert_eq!(look(&mut suspected, &mut ledger, 130, Some(true), now), [lost]);
    }

    #[test]
    fn an_earlier_end_that_stays_is_a_loss() {
        let (mut suspected, mut ledger, now) = (SuspectedLosses::default(), ledger(), Instant::now());
        assert_eq!(look(&mut suspected, &mut ledger, 70, None, now), []);
        assert_eq!(look(&mut suspected, &mut ledger, 70, None, now + PATIENCE / 2), []);
        let lost = LossKind::End { was: 100, is: 70, held: Some(100) };
        assert_eq!(look(&mut suspected, &mut ledger, 70, None, now + PATIENCE), [lost]);
        assert_eq!(look(&mut suspected, &mut ledger, 70, None, now + PATIENCE), [], "told once");
    }
}
