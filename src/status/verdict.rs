use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::condition::{DRIFT, LAUNCH, SETTINGS, name};
use super::{BrokerStatus, CheckStatus, Condition, ConditionStatus, Counters, EventKind, Events};
use crate::health::{HealthReport, Outcome};
use crate::integrity::{Integrity, Reading};
use crate::logging::timestamp;
use crate::streams::Drift;
use crate::supervisor::{ConditionKind, Snapshot, State, Transition};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Healthy,
    /// It runs, or is about to, and something promised does not hold, or is not known to.
    Degraded,
    Unhealthy,
}

/// What has become of reloads since the program started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    pub taken: u64,
    pub refused: u64,
    /// Why the last one was refused, until one takes.
    pub refusal: Option<String>,
}

/// What everybody says now.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub supervisor: Snapshot,
    /// States that the supervisor entered since.
    pub transitions: Vec<Transition>,
    pub health: Option<HealthReport>,
    /// [`None`] where messages are not looked after.
    pub integrity: Option<Integrity>,
    /// [`None`] where there are no streams to look after.
    pub drift: Option<Drift>,
    pub reloads: Reloads,
}

impl BrokerStatus {
    /// What is true now, and what has happened since `before`.
    pub fn after(before: Option<&Self>, inputs: &Inputs, now: SystemTime) -> Self {
        let state = &inputs.supervisor.state;
        let integrity = inputs.integrity.as_ref().map(judge);
        let verdict = verdict(state, integrity.as_ref().map(|check| check.status));
        let since = match before {
            Some(before) if before.state == state.name() => before.since,
            _ => inputs.transitions.last().map_or(now, |transition| transition.at),
        };
        let mut status = Self {
            verdict,
            state: state.name(),
            reason: state.reason().map(str::to_owned),
            since,
            is_ready: state.is_ready(),
            ever_ready: inputs.supervisor.ever_ready,
            pid: inputs.supervisor.pid.map(nix::unistd::Pid::as_raw),
            generation: state
                .generation()
                .filter(|_| inputs.supervisor.running && !matches!(state, State::Starting { .. })),
            counters: Counters {
                restarts: inputs.supervisor.restarts,
                restarts_by: inputs.supervisor.restarts_by,
                reloads: inputs.reloads.taken,
                reloads_refused: inputs.reloads.refused,
                repairs: inputs.drift.as_ref().map_or(0, |drift| drift.repaired),
                streams_restored: inputs.integrity.as_ref().map_or(0, |integrity| integrity.restored.count),
            },
            conditions: conditions(inputs, before, now),
            checks: checks(inputs, integrity),
            checked_at: inputs.health.as_ref().map(|health| health.at),
            observed: inputs.health.as_ref().map(|health| health.report.observed.clone()).unwrap_or_default(),
            events: before.map(|before| before.events.clone()).unwrap_or_default(),
        };
        let mut events = (*status.events).clone();
        status.note_changes(before, inputs, &mut events, now);
        if events != *status.events {
            status.events = Arc::new(events);
        }
        status
    }

    fn note_changes(&self, before: Option<&Self>, inputs: &Inputs, events: &mut Events, now: SystemTime) {
        for Transition { at, state, reason, .. } in &inputs.transitions {
            events.push(*at, EventKind::State, *state, reason.clone());
        }
        let known = |kind: &str| before.and_then(|before| before.conditions.iter().find(|other| other.kind == kind));
        for condition in &self.conditions {
            let was = known(condition.kind).map(|was| was.status);
            match condition.status {
                // The words of a reason may change from one probe to the next.
                ConditionStatus::Failed if was != Some(condition.status) => {
                    events.push(
                        now,
                        EventKind::Condition,
                        format!("{} failed", condition.kind),
                        condition.reason.clone(),
                    );
                }
                ConditionStatus::Ok if was == Some(ConditionStatus::Failed) => {
                    events.push(now, EventKind::Condition, format!("{} ok", condition.kind), None);
                }
                _ => {}
            }
        }
        let none = Counters::default();
        let counted = before.map_or(&none, |before| &before.counters);
        if self.counters.reloads > counted.reloads {
            events.push(now, EventKind::Reload, "taken", None);
        }
        if self.counters.reloads_refused > counted.reloads_refused {
            events.push(now, EventKind::Reload, "refused", inputs.reloads.refusal.clone());
        }
        if self.counters.repairs > counted.repairs {
            let what = inputs.drift.as_ref().and_then(|drift| drift.last.as_ref()).map(|(_, what)| what.clone());
            events.push(now, EventKind::Repair, what.unwrap_or_default(), None);
        }
        for (at, stream) in inputs.integrity.iter().flat_map(|seen| seen.restored.since(counted.streams_restored)) {
            events.push(*at, EventKind::StreamRestored, stream, None);
        }
        if before.is_some_and(|before| before.verdict != self.verdict) {
            let word = format!("{:?}", self.verdict).to_lowercase();
            events.push(now, EventKind::Verdict, word, self.why(inputs));
        }
    }
}

impl BrokerStatus {
    /// Why the verdict is what it is. A state may have gone by before anybody has seen it, and what leads
    /// to the next launch has the reason of the end before it.
    fn why(&self, inputs: &Inputs) -> Option<String> {
        let passed = || inputs.transitions.iter().rev().find_map(|transition| transition.reason.clone());
        let stopping = || inputs.supervisor.state.is_stopping().then(|| "the broker is stopping".to_owned());
        let unhealthy = || if self.verdict == Verdict::Unhealthy { stopping().or_else(passed) } else { None };
        self.reason.clone().or_else(unhealthy)
    }
}

/// Why nothing that asks the server can be true just now; [`None`] where it answers.
fn why_no_answer(supervisor: &Snapshot) -> Option<String> {
    let told = supervisor.conditions.of(ConditionKind::Answers);
    match &supervisor.state {
        State::Ready { .. } | State::Degraded { .. } | State::Provisioning { .. } | State::Restarting { .. } => {
            told.map(str::to_owned)
        }
        State::Starting { .. } => Some("nats-server does not answer: it is starting".to_owned()),
        // It runs until it is asked to stop.
        state if state.generation().is_some() => None,
        state => Some(match state.reason() {
            Some(reason) => format!("nats-server does not answer: {reason}"),
            None => "nats-server does not answer: none runs".to_owned(),
        }),
    }
}

/// Checks that ask the server itself.
const ASKING: [&str; 3] = ["connectivity", "http", "jetstream"];

fn verdict(state: &State, integrity: Option<Outcome>) -> Verdict {
    match state {
        // Not before every stream has been read through since the start.
        State::Ready { .. } if integrity.is_none_or(|outcome| outcome == Outcome::Pass) => Verdict::Healthy,
        State::Ready { .. } | State::Degraded { .. } | State::Starting { .. } | State::Provisioning { .. } => {
            Verdict::Degraded
        }
        _ => Verdict::Unhealthy,
    }
}

fn conditions(inputs: &Inputs, before: Option<&BrokerStatus>, now: SystemTime) -> Vec<Condition> {
    let failed = &inputs.supervisor.conditions;
    let is_shown = matches!(inputs.supervisor.state, State::Ready { .. } | State::Degraded { .. });
    let of_kind = |kind: ConditionKind| {
        let reason = failed.of(kind).map(str::to_owned);
        let status = match (&reason, is_shown) {
            (Some(_), _) => ConditionStatus::Failed,
            (None, true) => ConditionStatus::Ok,
            (None, false) => ConditionStatus::Unknown,
        };
        (name(kind), status, reason)
    };
    let applies = |kind: &ConditionKind| *kind != ConditionKind::Integrity || inputs.integrity.is_some();
    let launch = match &inputs.supervisor.state {
        State::Preparing { hindrance: Some(reason), .. } => (LAUNCH, ConditionStatus::Failed, Some(reason.clone())),
        state if state.generation().is_some() => (LAUNCH, ConditionStatus::Ok, None),
        _ => (LAUNCH, ConditionStatus::Unknown, None),
    };
    let mut found: Vec<_> = ConditionKind::ALL.into_iter().filter(applies).map(of_kind).collect();
    found.push(launch);
    let with_reason = |reason: Option<String>| {
        let status = if reason.is_some() { ConditionStatus::Failed } else { ConditionStatus::Ok };
        (status, reason)
    };
    let (status, reason) = with_reason(inputs.reloads.refusal.clone());
    found.push((SETTINGS, status, reason));
    if let Some(drift) = &inputs.drift {
        let (status, reason) = with_reason(why_not_as_declared(drift));
        found.push((DRIFT, status, reason));
    }
    let since = |kind: &str, status: ConditionStatus| {
        let was = before.and_then(|before| before.conditions.iter().find(|other| other.kind == kind));
        was.filter(|was| was.status == status).map_or(now, |was| was.since)
    };
    let condition = |(kind, status, reason)| Condition { kind, status, reason, since: since(kind, status) };
    found.into_iter().map(condition).collect()
}

fn why_not_as_declared(drift: &Drift) -> Option<String> {
    drift.suspended.clone().or_else(|| {
        let remains = !drift.remaining.is_empty();
        remains.then(|| format!("not as declared, and not to be repaired: {}", drift.remaining.join("; ")))
    })
}

fn checks(inputs: &Inputs, integrity: Option<CheckStatus>) -> BTreeMap<String, CheckStatus> {
    let mut checks = BTreeMap::new();
    checks.extend(integrity.map(|check| ("integrity".to_owned(), check)));
    checks.extend(inputs.drift.as_ref().map(|drift| (DRIFT.to_owned(), check_drift(drift))));
    if let Some(refusal) = &inputs.reloads.refusal {
        let detail = format!("the last reload was refused, and the old settings stay in force: {refusal}");
        checks.insert(SETTINGS.to_owned(), CheckStatus { status: Outcome::Warn, detail });
    }
    for check in inputs.health.iter().flat_map(|health| &health.report.checks) {
        let found = CheckStatus { status: check.outcome, detail: check.detail.clone() };
        match checks.get_mut(check.name) {
            Some(other) => other.add(found),
            None => _ = checks.insert(check.name.to_owned(), found),
        }
    }
    // What the last health check has found does not hold any more.
    if let Some(reason) = why_no_answer(&inputs.supervisor) {
        for (_, check) in checks.iter_mut().filter(|(name, _)| ASKING.contains(&name.as_str())) {
            *check = CheckStatus { status: Outcome::Fail, detail: reason.clone() };
        }
    }
    checks
}

impl CheckStatus {
    /// Another remark of the same name.
    fn add(&mut self, other: Self) {
        self.status = self.status.max(other.status);
        if self.detail != other.detail {
            self.detail = format!("{}; {}", self.detail, other.detail);
        }
    }
}

/// What is known about the messages in the store.
fn judge(integrity: &Integrity) -> CheckStatus {
    let check = |status, detail| CheckStatus { status, detail };
    if !integrity.losses.is_empty() {
        let losses = integrity.losses.iter();
        let losses: Vec<_> =
            losses.map(|l| format!("stream {}: {} (found {})", l.stream, l.missing, l.found_at)).collect();
        return check(Outcome::Fail, losses.join("; "));
    }
    match &integrity.reading {
        Reading::NotYet => check(Outcome::Warn, "the streams have not been read through since the start".into()),
        Reading::Under { stream, seq, last_seq } => {
            check(Outcome::Warn, format!("stream {stream} is being read through, at sequence {seq} of {last_seq}"))
        }
        Reading::Failed { streams } => {
            check(Outcome::Warn, format!("could not be read through, and is tried again: {}", streams.join(", ")))
        }
        Reading::Done { messages, by_design } => {
            let mut detail = format!("nothing is missing; {messages} messages were read through after the start");
            if !by_design.is_empty() {
                detail.push_str("; not judged, because they have many holes and changed meanwhile: ");
                detail.push_str(&by_design.join(", "));
            }
            check(Outcome::Pass, detail)
        }
    }
}

/// Whether streams stay as they are declared.
fn check_drift(drift: &Drift) -> CheckStatus {
    let (status, detail) = match (why_not_as_declared(drift), &drift.last) {
        (Some(reason), _) => (Outcome::Warn, reason),
        (None, None) => (Outcome::Pass, "nothing had to be repaired".to_owned()),
        (None, Some((at, what))) => (Outcome::Pass, format!("the last repair was at {}: {what}", timestamp(*at))),
    };
    CheckStatus { status, detail }
}
