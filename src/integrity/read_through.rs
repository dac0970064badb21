//! Reading every stream through once: what is damaged in place is still counted by the server, and
//! found only when somebody reads it.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::deletions::Deletions;
use super::keeper::{Keeper, MOST_HOLES, Reading};
use super::losses::Missing;
use super::marks::{is_on_disk, keeps_every_message, lost};
use super::ranges::{Ranges, common, count, union, without};
use crate::nats::{ApiError, JetStream, StreamInfo};

/// Messages asked for at a time. Only their headers come, but the server reads and checks all of them.
const BATCH: u64 = 500;
/// Time for one of these batches.
const BATCH_DEADLINE: Duration = Duration::from_secs(20);
/// Between two batches we rest so many times as long as the last one took: clients come first.
const REST: u32 = 2;
/// The consumer does not last longer without being asked.
const LONGEST_REST: Duration = Duration::from_secs(10);
const CONSUMER_LASTS: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the server stopped sending")]
    Silent,
    #[error("the server broke off: {0}")]
    BrokenOff(String),
    #[error("it was purged meanwhile")]
    Purged,
    #[error("the server left out sequence {0}, which it has")]
    LeftOut(u64),
}

impl Keeper {
    /// Reads every stream through of which no message may be missing, and notes what is. Gives the
    /// streams of which something could not be read for the first time: a server that ran short of
    /// something may have given up blocks that another one can open.
    pub async fn read_through(&self, jetstream: &JetStream) -> Result<Vec<String>, ApiError> {
        let (mut by_design, mut failed, mut suspicious) = (vec![], vec![], vec![]);
        let mut messages = 0;
        for info in jetstream.streams().await?.known {
            let name = info.name().to_owned();
            if !is_on_disk(&info.config) || info.state.messages == 0 {
                continue;
            }
            if !keeps_every_message(&info.config) {
                by_design.push(name);
                continue;
            }
            match self.read_stream(jetstream, &name).await {
                Ok(Outcome::Whole { read }) => messages += read,
                Ok(Outcome::Suspicious { what }) => suspicious.push(format!("{name} ({what})")),
                Err(error) => failed.push(format!("{name} ({error})")),
            }
        }
        if !failed.is_empty() {
            self.show_reading(Reading::Failed { streams: failed });
        } else if suspicious.is_empty() {
            self.show_reading(Reading::Done { messages, by_design });
        }
        Ok(suspicious)
    }

    async fn read_stream(&self, jetstream: &JetStream, name: &str) -> Result<Outcome, ReadError> {
        let mut deletions = Deletions::of(jetstream.client(), name).await.map_err(|_| ReadError::Silent)?;
        let mut before = jetstream.stream_info(name).await?.ok_or(ReadError::Silent)?;
        if before.state.num_deleted > 0 && before.state.num_deleted < MOST_HOLES {
            before = jetstream.stream_info_with_deleted(name).await?;
        }
        let consumer = format!("unified-nats-{:016x}", fastrand::u64(..));
        let config = json!({
            "ack_policy": "none", "deliver_policy": "all", "headers_only": true, "mem_storage": true,
            "num_replicas": 1, "inactive_threshold": CONSUMER_LASTS.as_nanos() as u64, "name": consumer,
        });
        jetstream.create_consumer(name, &consumer, config).await?;
        let read = self.read_to_the_end(jetstream, name, &consumer, &before, &mut deletions).await;
        // It goes by itself where it cannot be deleted.
        let _ = jetstream.delete_consumer(name, &consumer).await;
        let gaps = read?;
        let after = jetstream.stream_info(name).await?.ok_or(ReadError::Silent)?;
        let accepted = self.accepted(name).await;
        let missing = gaps.missing(&before, after.state.first_seq, &accepted);
        let missing = deletions.not_among(missing).await.ok_or(ReadError::Purged)?;
        let missing = self.not_among_the_lost(jetstream, name, missing).await?;
        cannot_be_read(jetstream, name, &missing).await?;
        // What did not come before and does not come now is missing, also where the server has begun
        // to count it as deleted.
        let again = match self.suspects(name).await {
            Some(suspects) => {
                let gone = Gaps::beginning(after.state.first_seq);
                let again = common(&without(&without(&gaps.ranges, &gone), &accepted), &suspects);
                Some(deletions.not_among(again).await.ok_or(ReadError::Purged)?)
            }
            None => None,
        };
        match again {
            None if missing.is_empty() => self.note_readable(name).await,
            // Told already: another server has tried.
            None if without(&missing, &self.unreadable(name).await).is_empty() => {}
            None => {
                self.suspect(name, missing.clone()).await;
                return Ok(Outcome::Suspicious { what: Missing::Unreadable { ranges: missing } });
            }
            Some(again) => {
                let ranges = union(&again, &missing);
                if ranges.is_empty() {
                    self.note_readable(name).await;
                } else {
                    self.note(name, Missing::Unreadable { ranges }).await;
                }
            }
        }
        Ok(Outcome::Whole { read: before.state.messages })
    }

    /// What of `missing` the server does not say to have lost; what it does is noted.
    async fn not_among_the_lost(&self, jetstream: &JetStream, name: &str, missing: Ranges) -> Result<Ranges, ApiError> {
        if missing.is_empty() {
            return Ok(missing);
        }
        let lost = lost(&jetstream.stream_info_with_deleted(name).await?);
        let ranges = common(&missing, &lost);
        if !ranges.is_empty() {
            self.note(name, Missing::Lost { ranges }).await;
        }
        Ok(without(&missing, &lost))
    }

    async fn read_to_the_end(
        &self,
        jetstream: &JetStream,
        stream: &str,
        consumer: &str,
        before: &StreamInfo,
        deletions: &mut Deletions,
    ) -> Result<Gaps, ReadError> {
        let client = jetstream.client();
        let inbox = client.new_inbox();
        let mut messages = client.subscribe(inbox.clone()).await.map_err(|_| ReadError::Silent)?;
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let request = json!({ "batch": BATCH, "no_wait": true }).to_string();
        let last_seq = before.state.last_seq;
        let mut gaps = Gaps::from(before.state.first_seq);
        loop {
            let began = Instant::now();
            let payload = request.clone().into_bytes().into();
            client.publish_with_reply(next.clone(), inbox.clone(), payload).await.map_err(|_| ReadError::Silent)?;
            let batch = read_batch(&mut messages, &mut gaps, last_seq);
            let full = timeout(BATCH_DEADLINE, batch).await.map_err(|_| ReadError::Silent)??;
            deletions.take_in();
            self.show_reading(Reading::Under { stream: stream.to_owned(), seq: gaps.reached, last_seq });
            if !full || gaps.reached >= last_seq {
                return Ok(gaps.ended(last_seq));
            }
            sleep((began.elapsed() * REST).min(LONGEST_REST)).await;
        }
    }
}

/// Asks once more, in another way: a consumer that leaves messages out is no reason for a restart.
async fn cannot_be_read(jetstream: &JetStream, stream: &str, ranges: &[(u64, u64)]) -> Result<(), ReadError> {
    /// So many ranges are enough to see what is the matter.
    const SOME: usize = 20;
    for (first, _) in ranges.iter().take(SOME) {
        if jetstream.has_message(stream, *first).await? {
            return Err(ReadError::LeftOut(*first));
        }
    }
    Ok(())
}

/// Reads up to the end of a batch; whether there may be more.
async fn read_batch(messages: &mut async_nats::Subscriber, gaps: &mut Gaps, last_seq: u64) -> Result<bool, ReadError> {
    /// What a server says that has nothing to send, or not enough.
    const NO_MORE: [u16; 2] = [404, 408];
    for _ in 0..BATCH {
        if gaps.reached >= last_seq {
            return Ok(true);
        }
        let message = messages.next().await.ok_or(ReadError::Silent)?;
        match (message.reply.as_deref().and_then(stream_sequence), message.status) {
            (Some(seq), _) => gaps.reach(seq),
            (None, Some(status)) if NO_MORE.contains(&status.as_u16()) => return Ok(false),
            (None, status) => {
                let status = status.map_or("no status".to_owned(), |status| status.to_string());
                return Err(ReadError::BrokenOff(message.description.unwrap_or(status)));
            }
        }
    }
    Ok(true)
}

/// What reading a stream has shown.
enum Outcome {
    /// All there is to know is noted.
    Whole { read: u64 },
    /// Something did not come that another server may have.
    Suspicious { what: Missing },
}

/// Sequences that did not come.
#[derive(Debug)]
struct Gaps {
    reached: u64,
    ranges: Ranges,
}

impl Gaps {
    fn from(first_seq: u64) -> Self {
        Self { reached: first_seq.saturating_sub(1), ranges: Vec::new() }
    }

    fn reach(&mut self, seq: u64) {
        let next = self.reached.saturating_add(1);
        if seq > next {
            self.ranges.push((next, seq - 1));
        }
        self.reached = self.reached.max(seq);
    }

    fn ended(mut self, last_seq: u64) -> Self {
        if self.reached < last_seq {
            self.ranges.push((self.reached + 1, last_seq));
            self.reached = last_seq;
        }
        self
    }

    /// What should have come and did not. What was deleted before, what has gone from the beginning
    /// since, and what is known to be unreadable should not.
    fn missing(&self, before: &StreamInfo, first_seq: u64, accepted: &[(u64, u64)]) -> Ranges {
        let gone = Self::beginning(first_seq);
        let deleted: Ranges = before.state.deleted.iter().flatten().map(|seq| (*seq, *seq)).collect();
        let rest = without(&without(&self.ranges, &gone), &deleted);
        let rest = without(&rest, accepted);
        // So many more holes are known without their place, such as a write at the end that failed.
        let listed = before.state.deleted.as_ref().map_or(0, Vec::len) as u64;
        if count(&rest) > before.state.num_deleted.saturating_sub(listed) { rest } else { vec![] }
    }

    /// What a stream that begins at this sequence does not have any more.
    fn beginning(first_seq: u64) -> Ranges {
        first_seq.checked_sub(1).filter(|last| *last > 0).map(|last| (1, last)).into_iter().collect()
    }
}

/// The sequence in the stream, from the subject that a message is acknowledged with:
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.…`, with domain and account before the
/// stream in the longer form.
fn stream_sequence(reply: &str) -> Option<u64> {
    let tokens: Vec<_> = reply.split('.').collect();
    let at = match tokens[..] {
        ["$JS", "ACK", _, _, _, _, _, _, _] => 5,
        ["$JS", "ACK", _, _, _, _, _, _, _, _, _, ..] => 7,
        _ => return None,
    };
    tokens[at].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::StreamState;

    fn stream(first_seq: u64, last_seq: u64, deleted: Option<Vec<u64>>, num_deleted: u64) -> StreamInfo {
        let state = StreamState { first_seq, last_seq, deleted, num_deleted, ..Default::default() };
        StreamInfo { config: Default::default(), state, created: String::new() }
    }

    fn gaps(first_seq: u64, seqs: &[u64], last_seq: u64) -> Gaps {
        let mut gaps = Gaps::from(first_seq);
        seqs.iter().for_each(|seq| gaps.reach(*seq));
        gaps.ended(last_seq)
    }

    #[test]
    fn what_does_not_come_is_missing() {
        let whole = gaps(3, &[3, 4, 5], 5);
        assert_eq!(whole.missing(&stream(3, 5, None, 0), 3, &[]), []);
        let damaged = gaps(1, &[1, 2, 5, 6], 8);
        assert_eq!(damaged.missing(&stream(1, 8, None, 0), 1, &[]), [(3, 4), (7, 8)]);
        assert_eq!(damaged.missing(&stream(1, 8, None, 0), 5, &[]), [(7, 8)], "the beginning has expired meanwhile");
        assert_eq!(damaged.missing(&stream(1, 8, None, 0), 1, &[(3, 4)]), [(7, 8)], "somebody knows");
    }

    #[test]
    fn what_was_deleted_before_is_not() {
        let gaps = gaps(1, &[1, 2, 5, 6], 8);
        assert_eq!(gaps.missing(&stream(1, 8, Some(vec![3, 4, 7, 8]), 4), 1, &[]), []);
        assert_eq!(gaps.missing(&stream(1, 8, Some(vec![3, 7, 8]), 3), 1, &[]), [(4, 4)]);
        assert_eq!(gaps.missing(&stream(1, 8, None, 4), 1, &[]), [], "only their number is known");
        assert_eq!(count(&gaps.missing(&stream(1, 8, None, 3), 1, &[])), 4);
        assert_eq!(gaps.missing(&stream(1, 8, Some(vec![3, 4, 7]), 4), 1, &[]), [], "one is known without its place");
    }

    #[test]
    fn sequences_are_read_from_both_forms_of_the_reply() {
        assert_eq!(stream_sequence("$JS.ACK.A.c.1.77.5.1700000000.3"), Some(77));
        assert_eq!(stream_sequence("$JS.ACK.hub.hash.A.c.1.77.5.1700000000.3.token"), Some(77));
        assert_eq!(stream_sequence("$JS.ACK.hub.hash.A.c.1.77.5.1700000000.3"), Some(77));
        assert_eq!(stream_sequence("_INBOX.x"), None);
        assert_eq!(stream_sequence("$JS.ACK.A.c.1.x.5.1.3"), None);
    }
}
