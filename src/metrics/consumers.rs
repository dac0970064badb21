//! How old what consumers have not read is, and what they have lost. Pure.
//!
//! nats-server tells up to which sequence a consumer has acknowledged everything. The next message that it
//! wants is the oldest that it has not read; its time has to be asked for, once for each step of the consumer, and
//! again where messages between others have gone, because it may have been one of them.
//! What it has lost is what it was never sent ([`Losses`]), and what it was sent and had not acknowledged yet
//! when it was removed: of that nats-server tells by itself.

use std::collections::HashMap;

use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::bounds::{Bounded, bounded};
use super::exporter::{parse_time, text};
use super::exposition::{Families, Kind, Labels};
use super::losses::{Look, Losses};
use crate::domain::Subject;
use crate::nats::{ConsumerDetail, Jsz, RaftGroup, StreamDetail};

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
pub struct Consumers {
    known: HashMap<Name, Known>,
    /// Looks so far.
    looks: u64,
}

#[derive(Clone, Debug, Default)]
struct Known {
    /// When the stream and the consumer were made: others of the same name begin anew.
    created: [String; 2],
    /// Everything up to here is acknowledged.
    floor: u64,
    /// Something is not acknowledged.
    is_behind: bool,
    /// The oldest that is not, for that floor: its sequence, and when it came.
    oldest: Option<(u64, OffsetDateTime)>,
    /// The first message of its stream, and how many are missing between that and the last.
    gaps: (u64, u64),
    /// The oldest may have gone.
    is_doubted: bool,
    /// When it was asked about, by the count of all looks.
    asked: u64,
    /// It is not sent what came before that: it begins with the last message of each subject, and whether one of
    /// before was the last when it began nobody can say.
    begins: Option<OffsetDateTime>,
    losses: Losses,
    /// Messages that it had been sent and had not acknowledged when they were removed.
    removed_unacknowledged: u64,
    /// It wants every message of its stream, so that it is known what it has lost.
    wants_all: bool,
}

impl Consumers {
    /// Takes what consumers of that server have come to, and gives what has to be asked about them. A server
    /// whose name is not known says nothing of use.
    pub fn see(&mut self, jsz: &Jsz, server: &str) -> Vec<Question> {
        if server.is_empty() {
            return vec![];
        }
        let mut questions = vec![];
        let mut before = std::mem::take(&mut self.known);
        // Which account our own connection is in nobody says: there is one, or it is the default.
        let is_ours = |name: &str| jsz.account_details.len() == 1 || name == "$G";
        // Of the nodes of a cluster only who leads a consumer knows it well, and who else spoke would count twice.
        let is_led = |group: &Option<RaftGroup>| group.as_ref().is_none_or(|group| group.leader == server);
        for Bounded { account, stream, consumers, .. } in bounded(jsz).0 {
            if !is_ours(account.rest.get("name").and_then(Value::as_str).unwrap_or_default()) {
                continue;
            }
            let first_seq = of_state(stream, "first_seq");
            for consumer in consumers.into_iter().filter(|consumer| is_led(&consumer.cluster)) {
                let name = Name { stream: stream.name.clone(), consumer: consumer.name.clone() };
                let mut known = before.remove(&name).unwrap_or_default();
                known.see(stream, consumer);
                if known.is_behind && (known.oldest.is_none() || known.is_doubted) {
                    let seq = (known.floor + 1).max(first_seq);
                    let question = Question { name: name.clone(), seq, filters: filters(consumer) };
                    questions.push((known.oldest.is_some(), known.asked, question));
                }
                self.known.insert(name, known);
            }
        }
        // Of whom nothing is known first, and then who was asked about longest ago.
        questions.sort_by_key(|(is_known, asked, _)| (*is_known, *asked));
        questions.truncate(MOST_QUESTIONS);
        self.looks += 1;
        for (.., Question { name, .. }) in &questions {
            self.known.entry(name.clone()).and_modify(|known| known.asked = self.looks);
        }
        questions.into_iter().map(|(.., question)| question).collect()
    }

    /// Takes how many messages were removed that a consumer had been sent and had not acknowledged, since the
    /// last time.
    pub fn removed(&mut self, unacknowledged: HashMap<Name, u64>) {
        for (name, messages) in unacknowledged {
            if let Some(known) = self.known.get_mut(&name) {
                known.removed_unacknowledged += messages;
            }
        }
    }

    /// The oldest message that the consumer has not acknowledged.
    pub fn answer(&mut self, name: &Name, seq: u64, at: OffsetDateTime) {
        if let Some(known) = self.known.get_mut(name) {
            (known.oldest, known.is_doubted) = (Some((seq, at)), false);
        }
    }

    /// Age of the oldest message that each has not acknowledged, in seconds; 0 where there is none.
    pub fn lags(&self, now: OffsetDateTime) -> Vec<(Name, f64)> {
        self.known.iter().filter_map(|(name, known)| Some((name.clone(), known.lag(now)?))).collect()
    }

    pub fn add(&self, now: OffsetDateTime, families: &mut Families) {
        let mut all: Vec<_> = self.known.iter().collect();
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
                metric.add(&labels, (known.losses.total() + known.removed_unacknowledged) as f64);
            }
        }
    }
}

impl Known {
    /// [`None`] where nobody has been told yet.
    fn lag(&self, now: OffsetDateTime) -> Option<f64> {
        match (self.is_behind, self.oldest) {
            (false, _) => Some(0.0),
            (true, oldest) => {
                let waits_since = |(_, at): (u64, OffsetDateTime)| self.begins.map_or(at, |begins| at.max(begins));
                oldest.map(|oldest| (now - waits_since(oldest)).as_seconds_f64().max(0.0))
            }
        }
    }

    fn see(&mut self, stream: &StreamDetail, consumer: &ConsumerDetail) {
        let text = |rest: &Map<String, Value>| text(rest, "created").to_owned();
        let created = [text(&stream.rest), text(&consumer.rest)];
        let wants_all = wants_all(stream, consumer);
        if created != self.created || wants_all != self.wants_all {
            *self = Self { created, wants_all, ..Self::default() };
        }
        let of = |part: &str, key: &str| consumer.rest.get(part).and_then(|part| part[key].as_u64()).unwrap_or(0);
        let count = |key: &str| consumer.rest.get(key).and_then(Value::as_u64).unwrap_or(0);
        let (floor, first) = (of("ack_floor", "stream_seq"), of_state(stream, "first_seq"));
        self.is_behind = count("num_pending") + count("num_ack_pending") > 0;
        if floor != self.floor || self.oldest.is_some_and(|(seq, _)| seq < first) {
            self.oldest = None;
        }
        self.floor = floor;
        self.begins = begins_with_last(consumer).then(|| parse_time(&self.created[1])).flatten();
        let look = Look {
            first,
            last: of_state(stream, "last_seq"),
            messages: of_state(stream, "messages"),
            delivered: of("delivered", "stream_seq"),
            deliveries: of("delivered", "consumer_seq"),
            redelivered: count("num_redelivered"),
            pending: count("num_pending"),
        };
        let gaps = (first, look.holes());
        self.is_doubted |= look.holes() > 0 && gaps != self.gaps;
        self.gaps = gaps;
        self.losses.see(look);
    }
}

/// Whether a consumer is sent every message of its stream. One that is sent the last of each subject first
/// skips the others.
fn wants_all(stream: &StreamDetail, consumer: &ConsumerDetail) -> bool {
    if begins_with_last(consumer) {
        return false;
    }
    let filters = filters(consumer);
    if filters.is_empty() {
        return true;
    }
    let Some(config) = stream.rest.get("config") else { return false };
    // What comes from other streams bears any subject.
    let has_others = ["sources", "mirror"].iter().any(|key| !config[*key].is_null());
    let filters: Vec<Subject> = filters.iter().filter_map(|filter| filter.parse().ok()).collect();
    let subjects = config["subjects"].as_array().filter(|subjects| !has_others && !subjects.is_empty());
    let is_wanted = |subject: &Value| {
        let subject = subject.as_str().and_then(|subject| subject.parse::<Subject>().ok());
        subject.is_some_and(|subject| filters.iter().any(|filter| filter.covers(&subject)))
    };
    subjects.is_some_and(|subjects| subjects.iter().all(is_wanted))
}

fn begins_with_last(consumer: &ConsumerDetail) -> bool {
    consumer.rest.get("config").is_some_and(|config| config["deliver_policy"] == "last_per_subject")
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
        with(first_seq, floor, pending, json!({ "filter_subject": filter }))
    }

    /// Everything from the first message on waits, and what is before the floor was sent and acknowledged.
    fn with(first_seq: u64, floor: u64, pending: u64, mut config: Value) -> Jsz {
        let delivered = floor.max(first_seq - 1);
        config["durable_name"] = "C".into();
        serde_json::from_value(json!({ "account_details": [{ "name": "A", "stream_detail": [{
            "name": "S", "created": "2026-11-27T00:00:00Z",
            "config": { "subjects": ["a.>", "b"], "name": "S" },
            "state": { "first_seq": first_seq, "last_seq": delivered + pending, "messages": delivered + pending + 1 - first_seq },
            "consumer_detail": [{
                "name": "C", "config": config, "delivered": { "stream_seq": floor, "consumer_seq": floor },
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
        assert!(consumers.see(&jsz(1, 9, 0, None), "n1").is_empty());
        assert_eq!(told(&consumers, 100), (Some(0.0), Some(0.0)));
        let asked = consumers.see(&jsz(1, 9, 3, Some("a.>")), "n1");
        let name = Name { stream: "S".into(), consumer: "C".into() };
        assert_eq!(asked, [Question { name: name.clone(), seq: 10, filters: vec!["a.>".into()] }]);
        assert_eq!(told(&consumers, 100), (None, None), "not known yet, and with a filter nobody can say what it lost");
        consumers.answer(&name, 12, OffsetDateTime::from_unix_timestamp(70).unwrap());
        assert!(consumers.see(&jsz(1, 9, 4, Some("a.>")), "n1").is_empty());
        assert_eq!(told(&consumers, 100).0, Some(30.0));
        assert_eq!(told(&consumers, 60).0, Some(0.0), "a clock that was set back makes no age below nothing");
        assert_eq!(consumers.see(&jsz(13, 9, 4, Some("a.>")), "n1")[0].seq, 13, "that message is gone");
        assert_eq!(consumers.see(&jsz(13, 20, 4, Some("a.>")), "n1")[0].seq, 21, "it went on");
    }

    /// Like [`with`], and one that is not the first is missing.
    fn with_gap(first_seq: u64, floor: u64, pending: u64) -> Jsz {
        let mut jsz = jsz(first_seq, floor, pending, None);
        let stream = &mut jsz.account_details[0].stream_detail[0];
        stream.rest["state"]["messages"] = (of_state(stream, "messages") - 1).into();
        jsz
    }

    #[test]
    fn the_oldest_unread_message_is_asked_for_again_once_messages_between_others_have_gone() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let name = Name { stream: "S".into(), consumer: "C".into() };
        let mut consumers = Consumers::default();
        assert_eq!(consumers.see(&jsz(1, 9, 3, None), "n1")[0].seq, 10);
        consumers.answer(&name, 10, at(10));
        assert!(consumers.see(&jsz(1, 9, 4, None), "n1").is_empty());
        assert_eq!(consumers.see(&with_gap(1, 9, 5), "n1")[0].seq, 10);
        assert_eq!(told(&consumers, 100).0, Some(90.0), "nobody knows better yet");
        assert_eq!(consumers.see(&with_gap(1, 9, 6), "n1").len(), 1, "until somebody has answered");
        consumers.answer(&name, 11, at(60));
        assert_eq!(told(&consumers, 100).0, Some(40.0));
        assert!(consumers.see(&with_gap(1, 9, 7), "n1").is_empty(), "it has been asked");
    }

    #[test]
    fn of_many_those_are_asked_about_first_of_whom_nothing_is_known() {
        let many = |gap: bool, count: usize| -> Jsz {
            let mut jsz = if gap { with_gap(1, 9, 3) } else { jsz(1, 9, 3, None) };
            let stream = &mut jsz.account_details[0].stream_detail[0];
            let consumer = stream.consumer_detail[0].clone();
            let named = |at| ConsumerDetail { name: format!("{at:03}"), ..consumer.clone() };
            stream.consumer_detail = (0..count).map(named).collect();
            jsz
        };
        let mut consumers = Consumers::default();
        let mut ask = |jsz: &Jsz, answers: bool| -> Vec<String> {
            let asked = consumers.see(jsz, "n1");
            for question in asked.iter().filter(|_| answers) {
                consumers.answer(&question.name, question.seq, OffsetDateTime::UNIX_EPOCH);
            }
            asked.into_iter().map(|question| question.name.consumer).collect()
        };
        assert_eq!(ask(&many(false, MOST_QUESTIONS), true).len(), MOST_QUESTIONS);
        let more = many(true, MOST_QUESTIONS + 3);
        assert_eq!(ask(&more, false)[..3], ["064", "065", "066"], "the others are only doubted");
        assert!(ask(&more, true).contains(&"063".to_owned()), "who was left out comes before who was asked about");
    }

    #[test]
    fn who_begins_with_the_last_of_each_subject_does_not_wait_for_what_came_before() {
        let name = Name { stream: "S".into(), consumer: "C".into() };
        let of = |policy: &str| {
            let mut jsz = with(1, 9, 3, json!({ "deliver_policy": policy }));
            jsz.account_details[0].stream_detail[0].consumer_detail[0]
                .rest
                .insert("created".into(), "1970-01-01T00:01:00Z".into());
            let mut consumers = Consumers::default();
            consumers.see(&jsz, "n1");
            [30, 80].map(|at| {
                consumers.answer(&name, 10, OffsetDateTime::from_unix_timestamp(at).unwrap());
                told(&consumers, 100).0
            })
        };
        assert_eq!(of("last_per_subject"), [Some(40.0), Some(20.0)]);
        assert_eq!(of("all"), [Some(70.0), Some(20.0)]);
    }

    #[test]
    fn what_was_removed_unread_is_counted_once() {
        let name = Name { stream: "S".into(), consumer: "C".into() };
        let mut consumers = Consumers::default();
        let dropped = |consumers: &mut Consumers, first_seq, floor| {
            consumers.see(&jsz(first_seq, floor, 1, None), "n1");
            told(consumers, 0).1
        };
        assert_eq!(dropped(&mut consumers, 1, 0), Some(0.0));
        assert_eq!(dropped(&mut consumers, 11, 20), Some(0.0), "it had read those");
        assert_eq!(dropped(&mut consumers, 31, 20), Some(10.0));
        assert_eq!(dropped(&mut consumers, 31, 20), Some(10.0));
        assert_eq!(dropped(&mut consumers, 36, 20), Some(15.0));
        consumers.removed(HashMap::from([(name, 2), (Name { stream: "S".into(), consumer: "D".into() }, 7)]));
        assert_eq!(told(&consumers, 0).1, Some(17.0), "it had been sent two of those that are gone");
        consumers.see(&Jsz::default(), "");
        assert_eq!(told(&consumers, 0).1, Some(17.0), "who has not said its name said nothing");
        consumers.see(&Jsz::default(), "n1");
        assert_eq!(told(&consumers, 0), (None, None), "it is gone");
    }

    #[test]
    fn what_was_lost_is_told_of_consumers_of_the_whole_stream_and_by_who_leads_them() {
        let tells = |config: Value| {
            let mut consumers = Consumers::default();
            consumers.see(&with(11, 0, 1, config), "n1");
            told(&consumers, 0).1
        };
        for config in [json!({}), json!({ "filter_subject": ">" }), json!({ "filter_subjects": ["b", "a.>"] })] {
            assert_eq!(tells(config.clone()), Some(10.0), "{config}");
        }
        for config in [
            json!({ "filter_subject": "a.>" }),
            json!({ "filter_subjects": ["b", "a.*"] }),
            json!({ "deliver_policy": "last_per_subject" }),
        ] {
            assert_eq!(tells(config.clone()), None, "{config}");
        }
        let mut led = with(11, 0, 1, json!({}));
        led.account_details[0].stream_detail[0].consumer_detail[0].cluster =
            Some(RaftGroup { leader: "n1".into(), ..RaftGroup::default() });
        for (server, lost) in [("n1", Some(10.0)), ("n2", None)] {
            let mut consumers = Consumers::default();
            consumers.see(&led, server);
            assert_eq!(told(&consumers, 0).1, lost, "{server}");
        }
    }
}
