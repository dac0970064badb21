use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::errors::in_one_sentence;
use crate::nats::PermissionViolations;

/// The worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Pass,
    /// Works, and somebody should know.
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub outcome: Outcome,
    pub detail: String,
    /// Milliseconds that looking took.
    pub millis: f64,
}

impl Check {
    /// Waits for `look`: what is fine, or why it is not.
    pub async fn run(name: &'static str, look: impl Future<Output = Result<String, String>>) -> Self {
        let started = Instant::now();
        let (outcome, detail) = match look.await {
            Ok(detail) => (Outcome::Pass, detail),
            Err(detail) => (Outcome::Fail, detail),
        };
        Self { name, outcome, detail, millis: millis(started.elapsed()) }
    }

    /// What others have found.
    pub fn of(name: &'static str, outcome: Outcome, detail: String) -> Self {
        Self { name, outcome, detail, millis: 0.0 }
    }

    pub fn failure(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Fail, detail: detail.into(), millis: 0.0 }
    }

    pub fn warning(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Warn, detail: detail.into(), millis: 0.0 }
    }
}

pub(super) fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// All checks of one health check.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub checks: Vec<Check>,
    /// The same in numbers, as far as it was looked at.
    pub observed: Observations,
}

/// What was seen, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observations {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerNumbers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jetstream: Option<JetStreamNumbers>,
    pub streams: Vec<StreamNumbers>,
    pub families: Vec<FamilyStatus>,
    /// Declared streams that are not there; [`None`] where the streams could not be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Vec<String>>,
    /// What cannot become as it is declared.
    pub conflicts: Vec<StreamConflict>,
    /// Consumers that this server leads and that have messages to come, those with the most first;
    /// [`None`] where nobody asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumers: Option<Vec<ConsumerNumbers>>,
}

/// What of one stream cannot become as it is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamConflict {
    pub stream: String,
    pub what: String,
}

/// Of one consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerNumbers {
    pub stream: String,
    pub name: String,
    /// Messages that it has not been sent yet.
    pub pending: u64,
}

/// As nats-server's monitoring tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerNumbers {
    pub name: String,
    pub version: String,
    pub connections: u64,
    pub subscriptions: u64,
    pub slow_consumers: u64,
    /// Messages and bytes from and to clients, since the server started.
    pub in_msgs: u64,
    pub out_msgs: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    /// Resident memory in bytes.
    pub mem: u64,
}

/// Of the account that the streams are in; bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JetStreamNumbers {
    pub streams: u64,
    pub consumers: u64,
    pub storage: u64,
    pub memory: u64,
    /// The same of this server alone, where its monitoring tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_storage: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_memory: Option<u64>,
}

/// Of one declared stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamNumbers {
    pub name: String,
    pub messages: u64,
    pub bytes: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    /// When the last message came, RFC 3339.
    pub last_ts: String,
    pub consumers: u64,
    /// Limits, where there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_messages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// At its limits it refuses new messages, and does not drop old ones.
    pub refuses_when_full: bool,
}

/// Of one family of market data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FamilyStatus {
    pub name: String,
    pub stream: String,
    /// The stream captures all of its subjects.
    pub is_captured: bool,
    /// Messages that the stream holds of it, where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
}

impl Report {
    /// Adds to what failed what the connection was refused, which gets no answer otherwise.
    pub fn explain(&mut self, refused: Option<PermissionViolations>) {
        if !self.is_healthy()
            && let Some(words) = refused.and_then(|refused| refused.take_words())
        {
            self.checks.push(Check::failure("rights", words));
        }
    }

    /// A health check that did not end within `timeout`.
    pub fn late(timeout: Duration) -> Self {
        let detail = format!("no result within {} s", timeout.as_secs_f32());
        let outcome = Outcome::Fail;
        let millis = millis(timeout);
        Self { checks: vec![Check { name: "timeout", outcome, detail, millis }], ..Self::default() }
    }

    pub fn is_healthy(&self) -> bool {
        self.checks.iter().all(|check| check.outcome != Outcome::Fail)
    }

    /// What failed, as one sentence; [`None`] when nothing did.
    pub fn failure(&self) -> Option<String> {
        let failed: Vec<_> = self
            .checks
            .iter()
            .filter(|check| check.outcome == Outcome::Fail)
            .map(|check| format!("{}: {}", check.name, check.detail))
            .collect();
        (!failed.is_empty()).then(|| in_one_sentence(failed.iter().map(String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn warnings_do_not_make_a_broker_unhealthy_and_failures_do() {
        let mut report = Report { checks: vec![Check::warning("open", "anybody may connect")], ..Report::default() };
        report.checks.push(Check::run("a", async { Ok("fine".into()) }).await);
        assert!(report.is_healthy() && report.failure().is_none());
        report.checks.push(Check::run("b", async { Err("broken".into()) }).await);
        assert!(!report.is_healthy());
        assert_eq!(report.failure().as_deref(), Some("b: broken"));
    }
}
