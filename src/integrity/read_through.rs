//! Reading every stream through once: what is damaged in place is still counted by the server, and
//! found only when somebody reads it.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::baselines::{MOST_HOLES, lost};
use super::commands::Knowledge;
use super::deletions::Deletions;
use super::handle::IntegrityHandle;
use super::losses::LossKind;
use super::ranges::{Ranges, common, count, union, without};
use super::view::Reading;
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
    #[error("the server left out sequence {0}, which it has")]
    LeftOut(u64),
}

impl IntegrityHandle {
    /// Reads every stream through of which no message may be missing, and notes what is. Gives the
    /// streams of which something could not be read for the first time: a server that ran short of
    /// something may have given up blocks that another one can open.
    pub async fn read_through(&self, jetstream: &JetStream) -> Result<Vec<String>, ApiError> {
        let (mut by_design, mut failed, mut suspicious) = (vec![], vec![], vec![]);
        let mut messages = 0;
        for info in jetstream.see_streams().await?.known {
            let name = info.name().to_owned();
            if !info.config.terms.is_on_disk || info.state.messages == 0 {
                continue;
            }
            match self.read_stream(jetstream, &name).await {
                Ok(Outcome::Whole { read }) => messages += read,
                Ok(Outcome::Unsettled) => by_design.push(name),
                Ok(Outcome::Gone) => {}
                Ok(Outcome::Suspicious { what }) => suspicious.push(format!("{name} ({what})")),
                Err(error) => failed.push(format!("{name} ({error})")),
            }
        }
        if !failed.is_empty() {
            self.show_reading(Reading::Failed { streams: failed }).await;
        } else if suspicious.is_empty() {
            self.show_reading(Reading::Done { messages, by_design }).await;
        }
        Ok(suspicious)
    }

    async fn read_stream(&self, jetstream: &JetStream, name: &str) -> Result<Outcome, ReadError> {
        let mut deletions = Deletions::of(jetstream.client(), name).await.map_err(|_| ReadError::Silent)?;
        let Some(before) = jetstream.stream_info(name).await? else { return Ok(Outcome::Gone) };
        let gaps = match self.read_with_consumer(jetstream, name, &before, &mut deletions).await {
            // It wants another consumer there, or none at all.
            Err(ReadError::Api(ApiError::Refused { .. })) => self.walk(jetstream, name, &before).await?,
            read => read?,
        };
        let Some(after) = jetstream.stream_info(name).await? else { return Ok(Outcome::Gone) };
        let Knowledge { accepted, unreadable, suspects, called_lost, .. } = self.about(name).await;
        if suspects.is_some() {
            self.suspect(name, vec![]).await;
        }
        let mut missing = gaps.within(after.state.first_seq, &accepted);
        let is_whole = gaps.came >= before.state.messages;
        if (suspects.is_none() && is_whole) || missing.is_empty() {
            // As many came as were counted, or all that there are.
            missing.clear();
        } else if before.state.num_deleted >= MOST_HOLES {
            if before.state != after.state {
                // Which of them are deleted is too much to ask, and their number has changed meanwhile.
                return Ok(Outcome::Unsettled);
            }
            let (were, are) = (before.state.messages, gaps.came + count(&common(&gaps.ranges, &accepted)));
            if are < were {
                self.note(name, LossKind::Unread { counted: were, came: are }).await;
            }
            return Ok(Outcome::Whole { read: gaps.came });
        } else {
            cannot_be_read(jetstream, name, &missing).await?;
            // Asked last: what it does not call deleted now was counted all the time.
            let now = jetstream.stream_info_with_deleted(name).await?;
            missing = gaps.missing(&now, &accepted);
            let ranges = common(&gaps.ranges, &without(&lost(&now.state), &called_lost));
            let ranges = without(&ranges, &accepted);
            if !ranges.is_empty() {
                self.note(name, LossKind::Lost { ranges }).await;
            }
        }
        // What did not come before and does not come now is missing, also where the server has begun
        // to count it as deleted.
        let again = match suspects {
            Some(suspects) => {
                let gone = Gaps::beginning(after.state.first_seq);
                let again = common(&without(&without(&gaps.ranges, &gone), &accepted), &suspects);
                // After a purge only what is still counted can be told.
                Some(deletions.not_among(again).await.unwrap_or_default())
            }
            None => None,
        };
        match again {
            None if missing.is_empty() => self.note_readable(name).await,
            // Told already: another server has tried.
            None if without(&missing, &unreadable).is_empty() => {}
            None => {
                self.suspect(name, missing.clone()).await;
                return Ok(Outcome::Suspicious { what: LossKind::Unreadable { ranges: missing } });
            }
            Some(again) => {
                let ranges = union(&again, &missing);
                if ranges.is_empty() {
                    self.note_readable(name).await;
                } else {
                    self.note(name, LossKind::Unreadable { ranges }).await;
                }
            }
        }
        Ok(Outcome::Whole { read: gaps.came })
    }

    async fn read_with_consumer(
        &self,
        jetstream: &JetStream,
        name: &str,
        before: &StreamInfo,
        deletions: &mut Deletions,
    ) -> Result<Gaps, ReadError> {
        if keeps_until_acknowledged(&before.config) {
            // A consumer more would change what it keeps.
            return self.walk(jetstream, name, before).await;
        }
        let consumer = format!("unified-nats-{:016x}", fastrand::u64(..));
        let config = json!({
            "ack_policy": "none", "deliver_policy": "all", "headers_only": true, "mem_storage": true,
            "num_replicas": 1, "inactive_threshold": CONSUMER_LASTS.as_nanos() as u64, "name": consumer,
        });
        jetstream.create_consumer(name, &consumer, config).await?;
        let read = self.read_to_the_end(jetstream, name, &consumer, before, deletions).await;
        // It goes by itself where it cannot be deleted.
        let _ = jetstream.delete_consumer(name, &consumer).await;
        read
    }

    /// Asks for one message after the other, which needs no consumer.
    async fn walk(&self, jetstream: &JetStream, name: &str, before: &StreamInfo) -> Result<Gaps, ReadError> {
        let last_seq = before.state.last_seq;
        let mut gaps = Gaps::from(before.state.first_seq);
        loop {
            let began = Instant::now();
            for _ in 0..BATCH {
                // The server passes over what it cannot read.
                match jetstream.next_sequence(name, gaps.reached.saturating_add(1)).await? {
                    Some(seq) if seq <= last_seq => gaps.reach(seq),
                    _ => return Ok(gaps.ended(last_seq)),
                }
            }
            self.show_reading(Reading::Under { stream: name.to_owned(), seq: gaps.reached, last_seq }).await;
            sleep((began.elapsed() * REST).min(LONGEST_REST)).await;
        }
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
            self.show_reading(Reading::Under { stream: stream.to_owned(), seq: gaps.reached, last_seq }).await;
            if !full || gaps.reached >= last_seq {
                return Ok(gaps.ended(last_seq));
            }
            sleep((began.elapsed() * REST).min(LONGEST_REST)).await;
        }
    }
}

/// Whether a message goes once its consumers have acknowledged it.
fn keeps_until_acknowledged(config: &Map<String, Value>) -> bool {
    config.get("retention").and_then(Value::as_str).is_some_and(|retention| retention != "limits")
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
            (Some(seq), _) => {
                gaps.reach(seq);
                // It came after the reading had begun, and those before it have gone since.
                gaps.came -= u64::from(seq > last_seq);
            }
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
    /// It changed too much meanwhile.
    Unsettled,
    /// Its owner has deleted it.
    Gone,
    /// All there is to know is noted.
    Whole { read: u64 },
    /// Something did not come that another server may have.
    Suspicious { what: LossKind },
}

/// Sequences that did not come.
#[derive(Debug)]
struct Gaps {
    reached: u64,
    /// Messages that came.
    came: u64,
    ranges: Ranges,
}

impl Gaps {
    fn from(first_seq: u64) -> Self {
        Self { reached: first_seq.saturating_sub(1), came: 0, ranges: Vec::new() }
    }

    fn reach(&mut self, seq: u64) {
        self.came += 1;
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

    /// What did not come of a stream that begins at this sequence now, and that nobody knows about.
    fn within(&self, first_seq: u64, accepted: &[(u64, u64)]) -> Ranges {
        without(&without(&self.ranges, &Self::beginning(first_seq)), accepted)
    }

    /// What should have come and did not. What is deleted now, what has gone from the beginning since,
    /// and what is known to be unreadable should not.
    fn missing(&self, now: &StreamInfo, accepted: &[(u64, u64)]) -> Ranges {
        let deleted: Ranges = now.state.deleted.iter().flatten().map(|seq| (*seq, *seq)).collect();
        let rest = without(&self.within(now.state.first_seq, accepted), &union(&deleted, &[]));
        // So many more holes are known without their place, such as a write at the end that failed.
        let listed = now.state.deleted.as_ref().map_or(0, Vec::len) as u64;
        if count(&rest) > now.state.num_deleted.saturating_sub(listed) { rest } else { vec![] }
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
        StreamInfo { config: Default::default(), state, created: String::new(), cluster: None }
    }

    fn gaps(first_seq: u64, seqs: &[u64], last_seq: u64) -> Gaps {
        let mut gaps = Gaps::from(first_seq);
        seqs.iter().for_each(|seq| gaps.reach(*seq));
        gaps.ended(last_seq)
    }

    #[test]
    fn what_does_not_come_is_missing() {
        let whole = gaps(3, &[3, 4, 5], 5);
        assert_eq!(whole.missing(&stream(3, 5, None, 0), &[]), []);
        let damaged = gaps(1, &[1, 2, 5, 6], 8);
        assert_eq!(damaged.missing(&stream(1, 8, None, 0), &[]), [(3, 4), (7, 8)]);
        assert_eq!(damaged.missing(&stream(5, 8, None, 0), &[]), [(7, 8)], "the beginning has expired meanwhile");
        assert_eq!(damaged.missing(&stream(1, 8, None, 0), &[(3, 4)]), [(7, 8)], "somebody knows");
    }

    #[test]
    fn what_was_deleted_before_is_not() {
        let gaps = gaps(1, &[1, 2, 5, 6], 8);
        assert_eq!(gaps.missing(&stream(1, 8, Some(vec![3, 4, 7, 8]), 4), &[]), []);
        assert_eq!(gaps.missing(&stream(1, 8, Some(vec![3, 7, 8]), 3), &[]), [(4, 4)]);
        assert_eq!(gaps.missing(&stream(1, 8, None, 4), &[]), [], "only their number is known");
        assert_eq!(count(&gaps.missing(&stream(1, 8, None, 3), &[])), 4);
        assert_eq!(gaps.missing(&stream(1, 8, Some(vec![3, 4, 7]), 4), &[]), [], "one is known without its place");
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
