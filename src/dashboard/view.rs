//! What the page says, made of what is known. Pure.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use super::families::{Family, family};
use super::headline::{Headline, headline};
use super::known::{Known, Moment, OpenAlert, Tone};
use super::past::Counts;
use super::tables::{Consumers, Streams, consumers, streams};
use crate::domain::DataType;
use crate::figures;
use crate::status::{BrokerStatus, ConditionStatus, Event};

/// Rows of each list at most.
const MOST_EVENTS: usize = 20;
const MOST_ALERTS: usize = 20;

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

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    pub name: &'static str,
    pub value: String,
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

fn facts(known: &Known<'_>) -> Vec<Fact> {
    let fact = |name, value: Option<String>| Fact { name, value: value.unwrap_or_else(|| "–".to_owned()) };
    let of = |key: &str| known.varz.and_then(|varz| varz[key].as_f64());
    let text = |key: &str| known.varz.and_then(|varz| varz[key].as_str()).map(str::to_owned);
    let connections = of("connections").map(|connections| match of("max_connections") {
        Some(most) if most > 0.0 => format!("{} of {}", figures::count(connections), figures::count(most)),
        _ => figures::count(connections),
    });
    vec![
        fact("Server", text("server_name")),
        fact("nats-server", text("version")),
        fact("Up for", text("uptime")),
        fact("Connections", connections),
        fact("Slow consumers", of("slow_consumers").map(figures::count)),
        fact("Received", known.rates.received.map(|rate| figures::rate(Some(rate)))),
        fact("Sent", known.rates.sent.map(|rate| figures::rate(Some(rate)))),
        fact("Memory", of("mem").map(figures::bytes)),
        fact("Store", known.store.held.map(figures::bytes)),
        fact("Room on disk", known.store.disk_free.map(figures::bytes)),
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
        at: now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        in_msgs: of("in_msgs"),
        out_msgs: of("out_msgs"),
        families: (!families.is_empty()).then(|| std::array::from_fn(total)),
    }
}
