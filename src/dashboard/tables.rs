//! The tables of streams and of consumers. Pure.

use serde::Serialize;
use serde_json::{Map, Value};

use super::known::{Known, Moment, Tone};
use crate::figures;
use crate::nats::{ConsumerDetail, Jsz, StreamDetail};

/// Rows of each table at most.
const MOST_STREAMS: usize = 50;
const MOST_CONSUMERS: usize = 50;
/// What is fuller is said in words.
const NEARLY_FULL: f64 = 0.8;

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
    /// The share of the limit that is used most.
    #[serde(skip)]
    fullness: f64,
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

fn number(object: &Map<String, Value>, key: &str) -> f64 {
    object.get(key).and_then(Value::as_f64).unwrap_or(0.0)
}

fn all_streams(jsz: &Jsz) -> Vec<&StreamDetail> {
    let mut streams: Vec<_> = jsz.account_details.iter().flat_map(|account| &account.stream_detail).collect();
    streams.sort_by(|one, other| one.name.cmp(&other.name));
    streams
}

pub fn streams(known: &Known<'_>) -> Streams {
    let Some((jsz, as_of)) = known.jsz else {
        let none = if known.has_jetstream { "nats-server has not shown its streams." } else { "JetStream is off." };
        return Streams { none, ..Streams::default() };
    };
    let mut rows: Vec<_> = all_streams(jsz).into_iter().map(stream_row).collect();
    let omitted = rows.len().saturating_sub(MOST_STREAMS);
    if omitted > 0 {
        // Those that have no room are not the ones that are nearly full.
        rows.sort_by(|one, other| other.fullness.total_cmp(&one.fullness));
        rows.truncate(MOST_STREAMS);
        rows.sort_by(|one, other| one.name.cmp(&other.name));
    }
    Streams { rows, omitted, as_of: as_of.map(Moment::of), none: "There is no stream." }
}

fn stream_row(stream: &StreamDetail) -> Stream {
    let empty = Map::new();
    let object = |key: &str| stream.rest.get(key).and_then(Value::as_object).unwrap_or(&empty);
    let (state, config) = (object("state"), object("config"));
    let (messages, bytes) = (number(state, "messages"), number(state, "bytes"));
    let limits = [
        ("messages", messages, number(config, "max_msgs"), figures::count as fn(f64) -> String),
        ("bytes", bytes, number(config, "max_bytes"), figures::bytes),
        ("consumers", number(state, "consumer_count"), number(config, "max_consumers"), figures::count),
    ];
    let shares = limits.iter().filter(|(_, _, most, _)| *most > 0.0).map(|(_, used, most, _)| used / most);
    let fullness = shares.fold(0.0, f64::max);
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
        messages: figures::count(messages),
        bytes: figures::bytes(bytes),
        limits: limits.into_iter().filter_map(usage).collect(),
        fullness,
    }
}

pub fn consumers(known: &Known<'_>) -> Consumers {
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
        pending: figures::count(of("num_pending")),
        unacknowledged: figures::count(of("num_ack_pending")),
        redelivered: figures::count(of("num_redelivered")),
        lag: match lag {
            None => "–".to_owned(),
            Some(0.0) => "none".to_owned(),
            Some(seconds) => figures::span(seconds),
        },
        behind: (of("num_pending") + of("num_ack_pending")) as u64,
    }
}
