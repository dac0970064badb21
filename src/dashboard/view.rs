//! What the page says, made of what is known. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Map, Value};

use super::format;
use super::past::{Counts, Past, Rates};
use crate::domain::DataType;
use crate::nats::{ConsumerDetail, Jsz, StreamDetail};
use crate::status::{BrokerStatus, ConditionStatus, Event, Verdict};

/// Rows of each table at most.
const MOST_STREAMS: usize = 50;
const MOST_CONSUMERS: usize = 50;
const MOST_EVENTS: usize = 20;
const MOST_ALERTS: usize = 20;
/// A family is moving while its last message is younger.
const MOVING: f64 = 60.0;
/// What is fuller is said in words.
const NEARLY_FULL: f64 = 0.8;
/// A store that is full sooner is said in the headline, in seconds.
const SOON: f64 = 86_400.0;

/// What is known besides the status.
pub struct Known<'a> {
    pub status: &'a BrokerStatus,
    /// nats-server has not answered several times now.
    pub is_silent: bool,
    pub families: &'a [(DataType, u64, Option<f64>)],
    /// How long each may be silent, where somebody has said so.
    pub stale_after: &'a BTreeMap<DataType, Duration>,
    pub varz: Option<&'a Value>,
    /// What JetStream holds, and when that was so where it is not now.
    pub jsz: Option<(&'a Jsz, Option<SystemTime>)>,
    pub lags: &'a [(String, String, f64)],
    pub alerts: &'a [OpenAlert],
    /// Somebody is set who hears of alerts; nobody looks for any otherwise.
    pub has_receivers: bool,
    /// What the store may come to hold, in bytes, and what it holds.
    pub store: Store,
    pub rates: &'a Rates,
    pub past: &'a Past,
    pub has_jetstream: bool,
    pub environment: &'a str,
}

/// An alert that was raised and is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenAlert {
    pub kind: String,
    /// What of; empty where there is only one.
    pub object: String,
    /// `critical`, `warning` or `info`.
    pub severity: &'static str,
    /// RFC 3339.
    pub since: String,
    pub summary: String,
    pub action: String,
}

/// The room of the store. Unknown is [`None`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Store {
    pub held: Option<f64>,
    pub disk_free: Option<f64>,
    /// JETSTREAM_MAX_STORAGE, as nats-server has it.
    pub limit: Option<f64>,
}

impl Store {
    pub fn of(jsz: Option<&Jsz>, disk_free: Option<u64>) -> Self {
        let limit = jsz.and_then(|jsz| jsz.rest.get("config")?.get("max_storage")?.as_f64());
        Self {
            held: jsz.map(|jsz| jsz.storage as f64),
            disk_free: disk_free.map(|free| free as f64),
            limit: limit.filter(|limit| *limit > 0.0),
        }
    }

    /// What the store can hold at most: what its limit and its disk allow.
    pub fn most(&self) -> Option<f64> {
        let disk = self.held.zip(self.disk_free).map(|(held, free)| held + free);
        match (disk, self.limit) {
            (Some(disk), Some(limit)) => Some(disk.min(limit)),
            (one, other) => one.or(other),
        }
    }
}

/// How something is, as the page colours it; the words say it as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    Good,
    Plain,
    Warn,
    Bad,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moment {
    machine: String,
    text: String,
}

impl Moment {
    fn of(at: SystemTime) -> Self {
        let (machine, text) = format::moment(at);
        Self { machine, text }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct View {
    pub headline: Headline,
    pub facts: Vec<Fact>,
    pub families: Vec<Family>,
    pub streams: Streams,
    pub consumers: Consumers,
    pub alerts: Vec<OpenAlert>,
    /// Those that are no further in the list.
    pub alerts_omitted: usize,
    pub no_alerts: &'static str,
    pub conditions: Vec<Condition>,
    pub restarts: Vec<Fact>,
    pub events: Vec<Happened>,
}

/// What a person reads first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Headline {
    pub tone: Tone,
    /// `healthy`, `degraded`, `unhealthy` or `silent`.
    pub verdict: &'static str,
    /// A sign beside the word, for those who do not see its colour.
    pub sign: &'static str,
    pub sentence: &'static str,
    pub state: &'static str,
    pub since: Moment,
    pub reasons: Vec<String>,
    pub quiet: Line,
    pub store: Line,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    pub tone: Tone,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    pub name: &'static str,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Family {
    pub name: &'static str,
    pub tone: Tone,
    pub word: String,
    pub messages: String,
    pub rate: String,
    pub age: String,
    pub spark: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Streams {
    pub rows: Vec<Stream>,
    pub omitted: usize,
    pub as_of: Option<Moment>,
    pub none: &'static str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stream {
    pub name: String,
    pub messages: String,
    pub bytes: String,
    pub limits: Vec<Usage>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Usage {
    pub limit: &'static str,
    pub tone: Tone,
    /// 0 to 100.
    pub percent: u64,
    pub text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Consumers {
    pub rows: Vec<Consumer>,
    pub omitted: usize,
    pub none: &'static str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Consumer {
    pub stream: String,
    pub name: String,
    pub pending: String,
    pub unacknowledged: String,
    pub redelivered: String,
    pub lag: String,
    #[serde(skip)]
    behind: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    pub kind: &'static str,
    pub tone: Tone,
    pub word: &'static str,
    pub reason: Option<String>,
    pub since: Moment,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Happened {
    pub at: Moment,
    pub kind: String,
    pub what: String,
    pub why: Option<String>,
}

impl View {
    pub fn of(known: &Known<'_>) -> Self {
        let families: Vec<_> = (0..DataType::ALL.len()).map(|at| family(known, at)).collect();
        Self {
            headline: headline(known, &families),
            facts: facts(known),
            streams: streams(known),
            consumers: consumers(known),
            alerts: known.alerts.iter().take(MOST_ALERTS).cloned().collect(),
            no_alerts: match known.has_receivers {
                true => "No alert is open.",
                false => "No receiver of alerts is set (ALERT_WEBHOOK_URL and others), so that none is raised.",
            },
            alerts_omitted: known.alerts.len().saturating_sub(MOST_ALERTS),
            conditions: known.status.conditions.iter().map(condition).collect(),
            restarts: restarts(known.status),
            events: known.status.events.iter().rev().take(MOST_EVENTS).map(happened).collect(),
            families,
        }
    }
}

fn headline(known: &Known<'_>, families: &[Family]) -> Headline {
    let status = known.status;
    let (tone, verdict, sign, sentence) = match status.verdict {
        Verdict::Unhealthy => (Tone::Bad, "unhealthy", "✕", "The broker is not in service"),
        _ if known.is_silent => (Tone::Bad, "silent", "✕", "nats-server does not answer"),
        Verdict::Degraded => (Tone::Warn, "degraded", "!", "Something is not as it should be"),
        Verdict::Healthy => (Tone::Good, "healthy", "✓", "The broker is well"),
    };
    let mut reasons: Vec<_> = status.reason.clone().into_iter().collect();
    let failed = status.conditions.iter().filter(|condition| condition.status == ConditionStatus::Failed);
    for reason in failed.filter_map(|condition| condition.reason.clone()) {
        if !reasons.iter().any(|known| known.contains(&reason)) {
            reasons.push(reason);
        }
    }
    Headline {
        tone,
        verdict,
        sign,
        sentence,
        state: status.state,
        since: Moment::of(status.since),
        reasons,
        quiet: quiet(known, families),
        store: store(known),
    }
}

/// Which families are quiet, in one line.
fn quiet(known: &Known<'_>, families: &[Family]) -> Line {
    let line = |tone, text: String| Line { tone, text };
    if !known.has_jetstream {
        return line(Tone::Plain, "JetStream is off, so that no family is counted".to_owned());
    }
    if known.families.is_empty() {
        return line(Tone::Plain, "the families have not been counted yet".to_owned());
    }
    let of = |tone: Tone| families.iter().filter(move |family| family.tone == tone);
    let listed = |tone: Tone| {
        let all: Vec<_> = of(tone).collect();
        // What is so of several is said once.
        let groups = all.chunk_by(|one, other| one.word == other.word).map(|group| {
            let names: Vec<_> = group.iter().map(|one| one.name).collect();
            format!("{} ({})", names.join(", "), group[0].word)
        });
        groups.collect::<Vec<_>>().join(", ")
    };
    match (of(Tone::Bad).count(), of(Tone::Plain).count()) {
        (0, 0) => line(Tone::Good, "all families are moving".to_owned()),
        (0, all) if all == families.len() => line(Tone::Plain, "no family has had a message lately".to_owned()),
        (0, _) => line(Tone::Plain, format!("quiet: {}", listed(Tone::Plain))),
        (_, 0) => line(Tone::Bad, format!("silent for too long: {}", listed(Tone::Bad))),
        (..) => line(Tone::Bad, format!("silent for too long: {}; quiet: {}", listed(Tone::Bad), listed(Tone::Plain))),
    }
}

/// When the store is full, in one line.
fn store(known: &Known<'_>) -> Line {
    let line = |tone, text: String| Line { tone, text };
    let Some(most) = known.store.most() else {
        let why = if known.has_jetstream { "the room of the store is not known" } else { "JetStream is off" };
        return line(Tone::Plain, why.to_owned());
    };
    let held = known.store.held.unwrap_or(0.0);
    let room = format::bytes((most - held).max(0.0));
    let place = match known.store.disk_free {
        Some(free) if (most - held - free).abs() < 1.0 => "on the disk",
        _ => "up to its limit",
    };
    let free = format!("{room} left {place}");
    match known.past.full_in {
        Some(seconds) if seconds < 1.0 => line(Tone::Bad, format!("the store is full: {free}")),
        Some(seconds) => {
            let tone = if seconds < SOON { Tone::Warn } else { Tone::Plain };
            line(tone, format!("full in {} at the growth of the last hour: {free}", format::span(seconds)))
        }
        None if known.past.is_enough_for_forecasts() => {
            line(Tone::Good, format!("will not be full within a year at the growth of the last hour: {free}"))
        }
        None => line(Tone::Plain, format!("{free}; when it will be full is known after five minutes")),
    }
}

fn number(object: &Map<String, Value>, key: &str) -> f64 {
    object.get(key).and_then(Value::as_f64).unwrap_or(0.0)
}

fn facts(known: &Known<'_>) -> Vec<Fact> {
    let fact = |name, value: Option<String>| Fact { name, value: value.unwrap_or_else(|| "–".to_owned()) };
    let of = |key: &str| known.varz.and_then(|varz| varz[key].as_f64());
    let text = |key: &str| known.varz.and_then(|varz| varz[key].as_str()).map(str::to_owned);
    let connections = of("connections").map(|connections| match of("max_connections") {
        Some(most) if most > 0.0 => format!("{} of {}", format::count(connections), format::count(most)),
        _ => format::count(connections),
    });
    vec![
        fact("Server", text("server_name")),
        fact("nats-server", text("version")),
        fact("Up for", text("uptime")),
        fact("Connections", connections),
        fact("Slow consumers", of("slow_consumers").map(format::count)),
        fact("Received", known.rates.received.map(|rate| format::rate(Some(rate)))),
        fact("Sent", known.rates.sent.map(|rate| format::rate(Some(rate)))),
        fact("Memory", of("mem").map(format::bytes)),
        fact("Store", known.store.held.map(format::bytes)),
        fact("Room on disk", known.store.disk_free.map(format::bytes)),
        fact("Environment", Some(known.environment.to_owned())),
    ]
}

fn restarts(status: &BrokerStatus) -> Vec<Fact> {
    let counters = &status.counters;
    let fact = |name, count: u64| Fact { name, value: count.to_string() };
    vec![
        fact("Restarts", counters.restarts),
        fact("Reloads", counters.reloads),
        fact("Reloads refused", counters.reloads_refused),
        fact("Repairs of streams", counters.repairs),
        fact("Streams restored", counters.streams_restored),
    ]
}

fn family(known: &Known<'_>, at: usize) -> Family {
    let family = DataType::ALL[at];
    let counted = known.families.iter().find(|(other, ..)| *other == family);
    let age = counted.and_then(|(_, _, age)| *age);
    let messages = counted.map(|(_, messages, _)| *messages);
    let limit = known.stale_after.get(&family).map(Duration::as_secs_f64);
    let (tone, word) = match (age, messages) {
        (Some(age), _) if limit.is_some_and(|limit| age > limit) => (Tone::Bad, format::span(age)),
        (Some(age), _) if age <= MOVING => (Tone::Good, "moving".to_owned()),
        (Some(age), _) => (Tone::Plain, format!("for {}", format::span(age))),
        (None, Some(0)) => (Tone::Plain, "no message yet".to_owned()),
        (None, Some(_)) => (Tone::Plain, "none since the start".to_owned()),
        (None, None) => (Tone::Plain, "not known".to_owned()),
    };
    Family {
        name: family.name(),
        tone,
        word,
        messages: messages.map_or_else(|| "–".to_owned(), |messages| format::count(messages as f64)),
        rate: format::rate(known.rates.families[at]),
        age: age.map_or_else(|| "–".to_owned(), |age| format!("{} ago", format::span(age))),
        spark: known.past.sparkline(at),
    }
}

fn all_streams(jsz: &Jsz) -> Vec<&StreamDetail> {
    let mut streams: Vec<_> = jsz.account_details.iter().flat_map(|account| &account.stream_detail).collect();
    streams.sort_by(|one, other| one.name.cmp(&other.name));
    streams
}

fn streams(known: &Known<'_>) -> Streams {
    let Some((jsz, as_of)) = known.jsz else {
        let none = if known.has_jetstream { "nats-server has not shown its streams." } else { "JetStream is off." };
        return Streams { none, ..Streams::default() };
    };
    let all = all_streams(jsz);
    Streams {
        rows: all.iter().take(MOST_STREAMS).map(|stream| stream_row(stream)).collect(),
        omitted: all.len().saturating_sub(MOST_STREAMS),
        as_of: as_of.map(Moment::of),
        none: "There is no stream.",
    }
}

fn stream_row(stream: &StreamDetail) -> Stream {
    let empty = Map::new();
    let object = |key: &str| stream.rest.get(key).and_then(Value::as_object).unwrap_or(&empty);
    let (state, config) = (object("state"), object("config"));
    let (messages, bytes) = (number(state, "messages"), number(state, "bytes"));
    let limits = [
        ("messages", messages, number(config, "max_msgs"), format::count as fn(f64) -> String),
        ("bytes", bytes, number(config, "max_bytes"), format::bytes),
        ("consumers", number(state, "consumer_count"), number(config, "max_consumers"), format::count),
    ];
    let usage = |(limit, used, most, text): (&'static str, f64, f64, fn(f64) -> String)| {
        // Without a limit it is -1, or 0.
        (most > 0.0).then(|| Usage {
            limit,
            tone: match used / most {
                share if share >= 1.0 => Tone::Bad,
                share if share >= NEARLY_FULL => Tone::Warn,
                _ => Tone::Good,
            },
            percent: (used / most * 100.0).round().clamp(0.0, 100.0) as u64,
            text: format!("{} of {}", text(used), text(most)),
        })
    };
    Stream {
        name: stream.name.clone(),
        messages: format::count(messages),
        bytes: format::bytes(bytes),
        limits: limits.into_iter().filter_map(usage).collect(),
    }
}

fn consumers(known: &Known<'_>) -> Consumers {
    let Some((jsz, _)) = known.jsz else {
        return Consumers { none: "nats-server has not shown its consumers.", ..Consumers::default() };
    };
    let of = |stream: &StreamDetail, consumer: &ConsumerDetail| consumer_row(known, stream, consumer);
    let mut rows: Vec<_> = all_streams(jsz)
        .into_iter()
        .flat_map(|stream| stream.consumer_detail.iter().map(move |consumer| of(stream, consumer)))
        .collect();
    // Those that are behind come first.
    rows.sort_by_key(|row| std::cmp::Reverse(row.behind));
    let omitted = rows.len().saturating_sub(MOST_CONSUMERS);
    rows.truncate(MOST_CONSUMERS);
    Consumers { rows, omitted, none: "There is no consumer." }
}

fn consumer_row(known: &Known<'_>, stream: &StreamDetail, consumer: &ConsumerDetail) -> Consumer {
    let of = |key: &str| number(&consumer.rest, key);
    let is_this = |(of, name, _): &&(String, String, f64)| *of == stream.name && *name == consumer.name;
    let lag = known.lags.iter().find(is_this).map(|(_, _, seconds)| *seconds);
    Consumer {
        stream: stream.name.clone(),
        name: consumer.name.clone(),
        pending: format::count(of("num_pending")),
        unacknowledged: format::count(of("num_ack_pending")),
        redelivered: format::count(of("num_redelivered")),
        lag: match lag {
            None => "–".to_owned(),
            Some(0.0) => "none".to_owned(),
            Some(seconds) => format::span(seconds),
        },
        behind: (of("num_pending") + of("num_ack_pending")) as u64,
    }
}

fn condition(condition: &crate::status::Condition) -> Condition {
    let (tone, word) = match condition.status {
        ConditionStatus::Ok => (Tone::Good, "ok"),
        ConditionStatus::Failed => (Tone::Bad, "failed"),
        ConditionStatus::Unknown => (Tone::Plain, "unknown"),
    };
    let (reason, since) = (condition.reason.clone(), Moment::of(condition.since));
    Condition { kind: condition.kind, tone, word, reason, since }
}

fn happened(event: &Event) -> Happened {
    let kind = serde_json::to_value(event.kind).ok();
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default().replace('_', " ");
    Happened { at: Moment::of(event.at), kind, what: event.what.clone(), why: event.why.clone() }
}

/// What is counted now.
pub fn counts(families: &[(DataType, u64, Option<f64>)], varz: Option<&Value>, now: SystemTime) -> Counts {
    let of = |key: &str| varz.and_then(|varz| varz[key].as_f64());
    let total = |at: usize| families.iter().find(|(family, ..)| *family == DataType::ALL[at]).map_or(0, |one| one.1);
    Counts {
        at: format::epoch(now),
        in_msgs: of("in_msgs"),
        out_msgs: of("out_msgs"),
        families: (!families.is_empty()).then(|| std::array::from_fn(total)),
    }
}
