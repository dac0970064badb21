//! What is shown, made of what was asked. Pure.

use std::collections::VecDeque;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::samples::{Sample, Samples};
use crate::domain::DataType;
use crate::rest::Health;
use crate::status::ConditionStatus;

/// Rates are those of the last ten seconds: messages are counted every two.
const RATE_OVER: f64 = 10.0;

/// What was asked at one moment; what could not be had says why.
pub struct Seen {
    /// Seconds on a clock that only goes forward.
    pub at: f64,
    pub health: Result<Health, String>,
    pub samples: Result<Samples, String>,
}

/// What was seen lately.
pub struct History {
    /// What `gnatsd` and `jetstream` are called.
    prefix: Option<String>,
    health: Option<Health>,
    samples: VecDeque<(f64, Samples)>,
    /// Why the last one is not as it should be.
    failures: Vec<String>,
    /// When it was.
    at: f64,
}

impl History {
    pub fn new(prefix: Option<String>) -> Self {
        Self { prefix, health: None, samples: VecDeque::new(), failures: vec![], at: 0.0 }
    }

    pub fn add(&mut self, seen: Seen) {
        self.at = seen.at;
        self.failures.clear();
        match seen.health {
            Ok(health) => self.health = Some(health),
            // What it was is not what it is.
            Err(failure) => {
                self.health = None;
                self.failures.push(failure);
            }
        }
        match seen.samples {
            Ok(samples) => self.samples.push_back((seen.at, samples)),
            // Who is not there answers neither question, and once is enough to say so.
            Err(failure) if self.failures.is_empty() => self.failures.push(failure),
            Err(_) => {}
        }
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(at, _)| seen.at - at >= RATE_OVER) {
            self.samples.pop_front();
        }
    }

    /// Whether nothing has answered.
    pub fn failure(&self) -> Option<&str> {
        let is_silent = self.health.is_none() && self.samples.is_empty();
        self.failures.first().filter(|_| is_silent).map(String::as_str)
    }

    fn last(&self) -> Option<&(f64, Samples)> {
        self.samples.back()
    }

    /// What a counter gained per second; nothing while it is known once only, or has begun anew.
    fn rate(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let (until, last) = self.last()?;
        let now = last.with(name, labels)?;
        let known = |(at, samples): &(f64, Samples)| Some((*at, samples.with(name, labels)?));
        let (from, then) = self.samples.iter().find_map(known)?;
        let gained = now - then;
        (until - from > 0.0 && gained >= 0.0).then(|| gained / (until - from))
    }

    fn name(&self, system: &str, rest: &str) -> String {
        format!("{}_{rest}", self.prefix.as_deref().unwrap_or(system))
    }
}

/// How well something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mood {
    #[default]
    Well,
    Doubtful,
    Bad,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    pub version: String,
    pub state: String,
    pub mood: Mood,
    /// Seconds in that state.
    pub state_for: Option<f64>,
    pub restarts: Option<f64>,
    /// Restarts by what became of servers, those that are not 0.
    pub restarts_by: Vec<(String, f64)>,
    pub restarts_left: Option<f64>,
    pub server: Server,
    pub store: Store,
    /// What is wrong, a line each.
    pub problems: Vec<String>,
    pub families: Vec<Family>,
    pub streams: Vec<Stream>,
    pub consumers: Vec<Consumer>,
    /// The newest first.
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Server {
    /// Seconds since it was launched.
    pub uptime: Option<f64>,
    pub connections: Option<f64>,
    pub in_msgs: Option<f64>,
    pub out_msgs: Option<f64>,
    pub in_bytes: Option<f64>,
    pub out_bytes: Option<f64>,
    pub memory: Option<f64>,
    /// Percent of a core.
    pub cpu: Option<f64>,
    pub slow_consumers: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Store {
    pub used: Option<f64>,
    pub most: Option<f64>,
    pub free: Option<f64>,
    /// Seconds.
    pub full_in: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family {
    pub name: &'static str,
    pub rate: Option<f64>,
    pub messages: Option<f64>,
    /// Seconds since the last message.
    pub age: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stream {
    pub name: String,
    pub messages: f64,
    pub bytes: f64,
    pub rate: Option<f64>,
    /// The share of the limit that is used most, and which that is.
    pub usage: Option<(f64, String)>,
    /// Seconds.
    pub full_in: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Consumer {
    pub stream: String,
    pub name: String,
    pub waiting: f64,
    pub unacknowledged: f64,
    /// Age of the oldest message that is not acknowledged, in seconds.
    pub late: Option<f64>,
    /// Messages that were removed unread.
    pub lost: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// `HH:MM:SS`
    pub at: String,
    pub what: String,
    pub why: Option<String>,
}

impl Picture {
    pub fn of(history: &History) -> Self {
        let empty = Samples::default();
        let samples = history.last().map_or(&empty, |(_, samples)| samples);
        let mut picture = Self { problems: history.failures.clone(), ..Self::default() };
        picture.take_health(history.health.as_ref());
        if let Some((at, _)) = history.last().filter(|(at, _)| history.at - at > 0.0) {
            picture.problems.push(format!("the numbers below are {:.0} s old", history.at - at));
        }
        picture.restarts_by = samples
            .all("unified_nats_child_restarts_total")
            .iter()
            .filter(|sample| sample.value > 0.0)
            .map(|sample| (sample.label("reason").to_owned(), sample.value))
            .collect();
        picture.restarts_left = samples.one("unified_nats_restart_budget_remaining");
        picture.server = server(history, samples);
        picture.store = Store {
            used: samples.one(&history.name("gnatsd", "varz_jetstream_stats_storage")),
            most: samples.one(&history.name("gnatsd", "varz_jetstream_config_max_storage")),
            free: samples.one("unified_nats_store_disk_free_bytes"),
            full_in: samples.one("unified_nats_store_full_in_seconds"),
        };
        picture.families = DataType::ALL.map(|family| self::family(history, samples, family.name())).to_vec();
        picture.streams = streams(history, samples);
        picture.consumers = consumers(history, samples);
        picture
    }

    fn take_health(&mut self, health: Option<&Health>) {
        let Some(health) = health else {
            "no answer".clone_into(&mut self.state);
            self.mood = Mood::Bad;
            return;
        };
        self.version.clone_from(&health.version);
        self.state.clone_from(&health.checks.nats_server.state);
        self.state_for = seconds_between(&health.since, &health.timestamp);
        self.restarts = Some(health.checks.nats_server.restarts as f64);
        self.mood = match self.state.as_str() {
            "ready" => Mood::Well,
            "failed" | "stopped" => Mood::Bad,
            _ => Mood::Doubtful,
        };
        self.problems.extend(health.checks.nats_server.reason.clone());
        let failed = health.conditions.iter().filter(|condition| condition.status == ConditionStatus::Failed);
        self.problems.extend(failed.map(|condition| match &condition.reason {
            Some(reason) => format!("{}: {reason}", condition.kind),
            None => format!("{} does not hold", condition.kind),
        }));
        let mut seen = std::collections::HashSet::new();
        self.problems.retain(|problem| seen.insert(problem.clone()));
        let event = |event: &crate::rest::Happened| Event {
            at: event.at.get(11..19).unwrap_or(&event.at).to_owned(),
            what: event.what.clone(),
            why: event.why.clone(),
        };
        self.events = health.events.iter().map(event).collect();
    }
}

fn seconds_between(from: &str, until: &str) -> Option<f64> {
    let parse = |text| OffsetDateTime::parse(text, &Rfc3339).ok();
    Some((parse(until)? - parse(from)?).as_seconds_f64().max(0.0))
}

fn server(history: &History, samples: &Samples) -> Server {
    let of = |rest: &str| samples.one(&history.name("gnatsd", rest));
    let rate = |rest: &str| history.rate(&history.name("gnatsd", rest), &[]);
    Server {
        uptime: samples.one("unified_nats_child_uptime_seconds"),
        connections: of("varz_connections"),
        in_msgs: rate("varz_in_msgs"),
        out_msgs: rate("varz_out_msgs"),
        in_bytes: rate("varz_in_bytes"),
        out_bytes: rate("varz_out_bytes"),
        memory: of("varz_mem"),
        cpu: of("varz_cpu"),
        slow_consumers: of("varz_slow_consumers"),
    }
}

fn family(history: &History, samples: &Samples, name: &'static str) -> Family {
    let labels = [("data_type", name)];
    Family {
        name,
        rate: history.rate("unified_nats_family_messages_total", &labels),
        messages: samples.with("unified_nats_family_messages_total", &labels),
        age: samples.with("unified_nats_family_last_message_age_seconds", &labels),
    }
}

/// Those that are fullest first.
fn streams(history: &History, samples: &Samples) -> Vec<Stream> {
    let last_seq = history.name("jetstream", "stream_last_seq");
    let stream = |sample: &Sample| {
        let (account, name) = (sample.label("account"), sample.label("stream_name"));
        let theirs = [("account", account), ("stream_name", name)];
        let is_own = |other: &&Sample| other.label("account") == account && other.label("stream") == name;
        let usages = samples.all("unified_nats_stream_usage_ratio").iter().filter(is_own);
        let usage = usages.max_by(|one, other| one.value.total_cmp(&other.value));
        let forecasts = samples.all("unified_nats_stream_full_in_seconds").iter().filter(is_own);
        Stream {
            name: name.to_owned(),
            messages: sample.value,
            bytes: samples.with(&history.name("jetstream", "stream_total_bytes"), &theirs).unwrap_or_default(),
            rate: history.rate(&last_seq, &theirs),
            usage: usage.map(|usage| (usage.value, usage.label("limit").to_owned())),
            full_in: forecasts.map(|forecast| forecast.value).min_by(f64::total_cmp),
        }
    };
    let mut streams: Vec<_> =
        samples.all(&history.name("jetstream", "stream_total_messages")).iter().map(stream).collect();
    let fullness = |stream: &Stream| stream.usage.as_ref().map_or(0.0, |(share, _)| *share);
    streams.sort_by(|one, other| fullness(other).total_cmp(&fullness(one)).then_with(|| one.name.cmp(&other.name)));
    streams
}

/// Those that have lost most first, then those that are latest.
fn consumers(history: &History, samples: &Samples) -> Vec<Consumer> {
    let consumer = |sample: &Sample| {
        let (stream, name) = (sample.label("stream_name"), sample.label("consumer_name"));
        let theirs = [("account", sample.label("account")), ("stream_name", stream), ("consumer_name", name)];
        let ours = [("stream", stream), ("consumer", name)];
        Consumer {
            stream: stream.to_owned(),
            name: name.to_owned(),
            waiting: sample.value,
            unacknowledged: samples
                .with(&history.name("jetstream", "consumer_num_ack_pending"), &theirs)
                .unwrap_or_default(),
            late: samples.with("unified_nats_consumer_lag_seconds", &ours),
            lost: samples.with("unified_nats_consumer_unread_dropped_total", &ours),
        }
    };
    let mut consumers: Vec<_> =
        samples.all(&history.name("jetstream", "consumer_num_pending")).iter().map(consumer).collect();
    let urgency =
        |consumer: &Consumer| [consumer.lost.unwrap_or_default(), consumer.late.unwrap_or_default(), consumer.waiting];
    consumers.sort_by(|one, other| {
        let pairs = urgency(other).into_iter().zip(urgency(one));
        let unequal = pairs.map(|(other, one)| other.total_cmp(&one)).find(|order| order.is_ne());
        unequal
            .unwrap_or(std::cmp::Ordering::Equal)
            .then_with(|| (&one.stream, &one.name).cmp(&(&other.stream, &other.name)))
    });
    consumers
}

#[cfg(test)]
mod tests;
