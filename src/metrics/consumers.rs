//! How old what consumers have not read is, and what they have lost. Pure.
//!
//! nats-server tells up to which sequence a consumer has acknowledged everything. The next message that it
//! wants is the oldest that it has not read; its time has to be asked for, once for each step of the consumer.
//! What the stream has removed beyond that sequence the consumer has lost.

use std::collections::HashMap;

use serde_json::Value;
use time::OffsetDateTime;

use super::bounds::{Bounded, bounded};
use super::exporter::number;
use super::exposition::{Families, Kind, Labels};
use crate::nats::{ConsumerDetail, Jsz, StreamDetail};

/// Questions to nats-server for one scrape, at most; who was not asked about keeps what was known.
const MOST_QUESTIONS: usize = 64;

/// A consumer of the account that our own connection is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub stream: String,
    pub consumer: String,
}

/// Which message is the first that matches one of the filters, from that sequence on?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub name: Name,
    pub seq: u64,
    pub filters: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Consumers(HashMap<Name, Known>);

#[derive(Clone, Debug, Default)]
struct Known {
    /// Everything up to here is acknowledged.
    floor: u64,
    /// Something is not acknowledged.
    is_behind: bool,
    /// The oldest that is not, for that floor: its sequence, and when it came.
    oldest: Option<(u64, OffsetDateTime)>,
    /// Up to here what was removed has been counted.
    counted: u64,
    dropped: u64,
    /// It wants every message of its stream, so that it is known what it has lost.
    wants_all: bool,
}

impl Consumers {
    /// Takes what consumers have come to, and gives what has to be asked about them.
    pub fn see(&mut self, jsz: &Jsz) -> Vec<Question> {
        let mut questions = vec![];
        let mut before = std::mem::take(&mut self.0);
        // Which account our own connection is in nobody says: there is one, or it is the default.
        let is_ours = |name: &str| jsz.account_details.len() == 1 || name == "$G";
        for Bounded { account, stream, consumers, .. } in bounded(jsz).0 {
            if !is_ours(account.rest.get("name").and_then(Value::as_str).unwrap_or_default()) {
                continue;
            }
            let first_seq = of_state(stream, "first_seq");
            for consumer in consumers {
                let name = Name { stream: stream.name.clone(), consumer: consumer.name.clone() };
                let mut known = before.remove(&name).unwrap_or_default();
                known.see(consumer, first_seq);
                if known.is_behind && known.oldest.is_none() && questions.len() < MOST_QUESTIONS {
                    let seq = (known.floor + 1).max(first_seq);
                    questions.push(Question { name: name.clone(), seq, filters: filters(consumer) });
                }
                self.0.insert(name, known);
            }
        }
        questions
    }

    /// The oldest message that the consumer has not acknowledged.
    pub fn answer(&mut self, name: &Name, seq: u64, at: OffsetDateTime) {
        if let Some(known) = self.0.get_mut(name) {
            known.oldest = Some((seq, at));
        }
    }

    /// Age of the oldest message that each has not acknowledged, in seconds; 0 where there is none.
    pub fn lags(&self, now: OffsetDateTime) -> Vec<(Name, f64)> {
        self.0.iter().filter_map(|(name, known)| Some((name.clone(), known.lag(now)?))).collect()
    }

    pub fn add(&self, now: OffsetDateTime, families: &mut Families) {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(name, _)| *name);
        for (Name { stream, consumer }, known) in all {
            let labels = Labels::none().and([("stream", stream.as_str()), ("consumer", consumer)]);
            if let Some(lag) = known.lag(now) {
                let help = "Age of the oldest message that a consumer has not acknowledged; 0 where there is none";
                families.metric("unified_nats_consumer_lag_seconds", Kind::Gauge, help).add(&labels, lag);
            }
            if known.wants_all {
                let help =
                    "Messages that were removed from a stream before a consumer of all of it had acknowledged them";
                let mut metric = families.metric("unified_nats_consumer_unread_dropped_total", Kind::Counter, help);
                metric.add(&labels, known.dropped as f64);
            }
        }
    }
}

impl Known {
    /// [`None`] where nobody has been told yet.
    fn lag(&self, now: OffsetDateTime) -> Option<f64> {
        match (self.is_behind, self.oldest) {
            (false, _) => Some(0.0),
            (true, oldest) => oldest.map(|(_, at)| (now - at).as_seconds_f64().max(0.0)),
        }
    }

    fn see(&mut self, consumer: &ConsumerDetail, first_seq: u64) {
        let floor = consumer.rest.get("ack_floor").and_then(|floor| floor["stream_seq"].as_u64()).unwrap_or(0);
        if floor < self.counted.min(self.floor) {
            // Another one of that name, or another stream.
            (self.counted, self.oldest) = (0, None);
        }
        self.is_behind = number(&consumer.rest, "num_pending") + number(&consumer.rest, "num_ack_pending") > 0.0;
        self.wants_all = filters(consumer).is_empty();
        if floor != self.floor || self.oldest.is_some_and(|(seq, _)| seq < first_seq) {
            self.oldest = None;
        }
        self.floor = floor;
        let removed = first_seq.saturating_sub(1);
        let from = self.counted.max(floor);
        if self.wants_all && removed > from {
            self.dropped += removed - from;
        }
        self.counted = self.counted.max(removed);
    }
}

fn of_state(stream: &StreamDetail, key: &str) -> u64 {
    stream.rest.get("state").and_then(|state| state[key].as_u64()).unwrap_or(0)
}

fn filters(consumer: &ConsumerDetail) -> Vec<String> {
    let Some(config) = consumer.rest.get("config") else { return vec![] };
    let one = config["filter_subject"].as_str().filter(|filter| !filter.is_empty());
    let many = config["filter_subjects"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let all = one.into_iter().chain(many).map(str::to_owned).collect::<Vec<_>>();
    if all.iter().any(|filter| filter == ">") { vec![] } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::exposition::Format;
    use serde_json::json;

    fn jsz(first_seq: u64, floor: u64, pending: u64, filter: Option<&str>) -> Jsz {
        serde_json::from_value(json!({ "account_details": [{ "name": "A", "stream_detail": [{
            "name": "S", "state": { "first_seq": first_seq }, "consumer_detail": [{
                "name": "C", "config": { "durable_name": "C", "filter_subject": filter },
                "ack_floor": { "stream_seq": floor }, "num_pending": pending,
            }],
        }] }] }))
        .unwrap()
    }

    fn told(consumers: &Consumers, now: i64) -> (Option<f64>, Option<f64>) {
        let mut families = Families::default();
        consumers.add(OffsetDateTime::from_unix_timestamp(now).unwrap(), &mut families);
        let text = families.write(Format::Text);
        let value = |name: &str| {
            let line =
                text.lines().find(|line| line.starts_with(&format!("{name}{{stream=\"S\",consumer=\"C\"}} ")))?;
            line.rsplit_once(' ')?.1.parse().ok()
        };
        (value("unified_nats_consumer_lag_seconds"), value("unified_nats_consumer_unread_dropped_total"))
    }

    #[test]
    fn the_oldest_unread_message_is_asked_for_once_for_each_step() {
        let mut consumers = Consumers::default();
        assert!(consumers.see(&jsz(1, 9, 0, None)).is_empty());
        assert_eq!(told(&consumers, 100), (Some(0.0), Some(0.0)));
        let asked = consumers.see(&jsz(1, 9, 3, Some("a.>")));
        let name = Name { stream: "S".into(), consumer: "C".into() };
        assert_eq!(asked, [Question { name: name.clone(), seq: 10, filters: vec!["a.>".into()] }]);
        assert_eq!(told(&consumers, 100), (None, None), "not known yet, and with a filter nobody can say what it lost");
        consumers.answer(&name, 12, OffsetDateTime::from_unix_timestamp(70).unwrap());
        assert!(consumers.see(&jsz(1, 9, 4, Some("a.>"))).is_empty());
        assert_eq!(told(&consumers, 100).0, Some(30.0));
        assert_eq!(consumers.see(&jsz(13, 9, 4, Some("a.>")))[0].seq, 13, "that message is gone");
        assert_eq!(consumers.see(&jsz(13, 20, 4, Some("a.>")))[0].seq, 21, "it went on");
    }

    #[test]
    fn what_was_removed_unread_is_counted_once() {
        let mut consumers = Consumers::default();
        let dropped = |consumers: &mut Consumers, first_seq, floor| {
            consumers.see(&jsz(first_seq, floor, 1, None));
            told(consumers, 0).1
        };
        assert_eq!(dropped(&mut consumers, 1, 0), Some(0.0));
        assert_eq!(dropped(&mut consumers, 11, 20), Some(0.0), "it had read those");
        assert_eq!(dropped(&mut consumers, 31, 20), Some(10.0));
        assert_eq!(dropped(&mut consumers, 31, 20), Some(10.0));
        assert_eq!(dropped(&mut consumers, 36, 20), Some(15.0));
        assert_eq!(dropped(&mut consumers, 36, 35), Some(15.0), "nats-server moved it on");
        assert_eq!(dropped(&mut consumers, 41, 38), Some(17.0));
        consumers.see(&Jsz::default());
        assert_eq!(told(&consumers, 0), (None, None), "it is gone");
    }
}
