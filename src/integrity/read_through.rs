//! Reading every stream through once: what is damaged in place is still counted by the server, and
//! found only when somebody reads it.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::keeper::{Keeper, Reading};
use super::marks::{Missing, Ranges, count, is_on_disk, keeps_every_message, without};
use crate::nats::{ApiError, JetStream, StreamInfo};

/// Messages asked for at a time. Only their headers come, but the server reads and checks all of them.
const BATCH: u64 = 500;
/// Time for one of these batches.
const BATCH_DEADLINE: Duration = Duration::from_secs(10);
/// Between two batches we rest so many times as long as the last one took: clients come first.
const REST: u32 = 2;
/// A stream with more holes than that is not asked for all of them.
const MOST_HOLES: u64 = 200_000;

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the server stopped sending")]
    Silent,
}

impl Keeper {
    /// Reads every stream through of which no message may be missing, and notes what is.
    pub async fn read_through(&self, jetstream: &JetStream) -> Result<(), ApiError> {
        let mut left_out = Vec::new();
        let mut messages = 0;
        for info in jetstream.streams().await? {
            let name = info.name().to_owned();
            if !is_on_disk(&info.config) || info.state.messages == 0 {
                continue;
            }
            if !keeps_every_message(&info.config) {
                left_out.push(format!("{name} (gives messages up by design)"));
                continue;
            }
            match self.read_stream(jetstream, &name).await {
                Ok(read) => messages += read,
                Err(error) => left_out.push(format!("{name} ({error})")),
            }
        }
        self.show_reading(Reading::Done { messages, left_out });
        Ok(())
    }

    async fn read_stream(&self, jetstream: &JetStream, name: &str) -> Result<u64, ReadError> {
        let mut before = jetstream.stream_info(name).await?.ok_or(ReadError::Silent)?;
        if before.state.num_deleted > 0 && before.state.num_deleted < MOST_HOLES {
            before = jetstream.stream_info_with_deleted(name).await?;
        }
        let consumer = format!("unified-nats-{:016x}", fastrand::u64(..));
        let config = json!({
            "ack_policy": "none", "deliver_policy": "all", "headers_only": true, "mem_storage": true,
            "num_replicas": 1, "inactive_threshold": 60_000_000_000_u64, "name": consumer,
        });
        jetstream.create_consumer(name, &consumer, config).await?;
        let read = self.read_to_the_end(jetstream, name, &consumer, &before).await;
        // It goes by itself where it cannot be deleted.
        let _ = jetstream.delete_consumer(name, &consumer).await;
        let gaps = read?;
        let after = jetstream.stream_info(name).await?.ok_or(ReadError::Silent)?;
        let ranges = gaps.missing(&before, after.state.first_seq, &self.accepted(name).await);
        if ranges.is_empty() {
            self.note_readable(name).await;
        } else {
            self.note(name, Missing::Unreadable { ranges }).await;
        }
        Ok(before.state.messages)
    }

    async fn read_to_the_end(
        &self,
        jetstream: &JetStream,
        stream: &str,
        consumer: &str,
        before: &StreamInfo,
    ) -> Result<Gaps, ReadError> {
        let client = jetstream.client();
        let silent = |_| ReadError::Silent;
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
            let mut received = 0;
            while received < BATCH && gaps.reached < last_seq {
                let message =
                    timeout(BATCH_DEADLINE, messages.next()).await.map_err(silent)?.ok_or(ReadError::Silent)?;
                match message.reply.as_deref().and_then(stream_sequence) {
                    Some(seq) => gaps.reach(seq),
                    // A status: there are no more.
                    None => break,
                }
                received += 1;
            }
            self.show_reading(Reading::Under { stream: stream.to_owned(), seq: gaps.reached, last_seq });
            if received < BATCH || gaps.reached >= last_seq {
                return Ok(gaps.ended(last_seq));
            }
            sleep(began.elapsed() * REST).await;
        }
    }
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
        let gone = first_seq.checked_sub(1).filter(|last| *last > 0).map(|last| (1, last));
        let deleted: Ranges = before.state.deleted.iter().flatten().map(|seq| (*seq, *seq)).collect();
        let rest = without(&without(&self.ranges, gone.as_slice()), &deleted);
        let rest = without(&rest, accepted);
        // Where the holes are not known one by one, so many are expected.
        let expected = if before.state.deleted.is_none() { before.state.num_deleted } else { 0 };
        if count(&rest) > expected { rest } else { vec![] }
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
