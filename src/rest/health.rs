//! What `/health` answers, as those who serve it and those who read it know it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::health::{Observations, Outcome};
use crate::logging::timestamp;
use crate::status::{BrokerStatus, CheckStatus, ConditionStatus, Counters, EventKind, Verdict};

/// Events that are shown.
const EVENTS: usize = 100;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    pub status: Verdict,
    pub service: String,
    pub version: String,
    pub environment: String,
    /// When this was answered; times are RFC 3339.
    pub timestamp: String,
    /// Since when the broker is in its state.
    pub since: String,
    pub checks: Checks,
    pub conditions: Vec<Condition>,
    pub counters: Counters,
    pub observed: Observations,
    /// The last of them, the newest first.
    pub events: Vec<Event>,
}

/// By the name of the check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checks {
    pub nats_server: Server,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    #[serde(flatten)]
    pub others: BTreeMap<String, CheckStatus>,
    /// When the last health check ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Server {
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub status: Verdict,
    pub restarts: u64,
    pub pid: Option<i32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drift {
    pub status: Outcome,
    pub detail: String,
    pub repaired: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: ConditionStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub since: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    pub at: String,
    pub kind: EventKind,
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What the probes answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

fn text(at: SystemTime) -> String {
    timestamp(at).to_string()
}

/// The newest first, so many at most.
pub fn last_events(status: &BrokerStatus, most: usize) -> Vec<Event> {
    let event = |event: &crate::status::Event| Event {
        at: text(event.at),
        kind: event.kind,
        what: event.what.clone(),
        why: event.why.clone(),
    };
    status.events.iter().rev().take(most).map(event).collect()
}

impl State {
    pub fn of(status: &BrokerStatus) -> Self {
        Self { state: status.state.to_owned(), reason: status.reason.clone() }
    }
}

impl Health {
    pub fn of(status: &BrokerStatus, environment: &str, now: SystemTime) -> Self {
        let mut others = status.checks.clone();
        let drift = others.remove("drift").map(|CheckStatus { status: outcome, detail }| Drift {
            status: outcome,
            detail,
            repaired: status.counters.repairs,
        });
        let server = Server {
            state: status.state.to_owned(),
            reason: status.reason.clone(),
            status: status.verdict,
            restarts: status.counters.restarts,
            pid: status.pid,
        };
        let condition = |condition: &crate::status::Condition| Condition {
            kind: condition.kind.to_owned(),
            status: condition.status,
            reason: condition.reason.clone(),
            since: text(condition.since),
        };
        Self {
            status: status.verdict,
            service: "unified-nats".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            environment: environment.to_owned(),
            timestamp: text(now),
            since: text(status.since),
            checks: Checks { nats_server: server, drift, others, checked_at: status.checked_at.map(text) },
            conditions: status.conditions.iter().map(condition).collect(),
            counters: status.counters.clone(),
            observed: status.observed.clone(),
            events: last_events(status, EVENTS),
        }
    }
}
