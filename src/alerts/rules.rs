//! What is firing now: from the status of the broker, the thresholds of the settings and what was seen
//! beside them. Pure; time is a parameter.
//!
//! Spans are told by a clock that nobody sets. What must last before it counts is a candidate until then,
//! and what is not known, because no server answers or nobody has looked yet, is undecided: an alert that
//! is open stays so.

mod service;
mod usage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::alert::{Alert, AlertKind, Fingerprint, Severity};
use crate::domain::{DataType, Generation};
use crate::logging::timestamp;
use crate::settings::Settings;
use crate::status::{BrokerStatus, EventKind};
use crate::supervisor::Restarts;

/// A time of the clock that nobody sets: since the machine started.
pub type Moment = Duration;

/// What the rules are asked about.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub status: &'a BrokerStatus,
    pub settings: &'a Settings,
    pub facts: &'a Facts,
    /// The name of the machine.
    pub host: &'a str,
    pub now: Moment,
    /// The time of day.
    pub at: SystemTime,
}

/// What the status does not say. What is [`None`], or missing, is not known.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub disk: Option<DiskSpace>,
    pub certificates: Vec<CertificateEnd>,
    /// How long each family has been silent.
    pub silent: BTreeMap<DataType, Duration>,
    /// Another node of the cluster leads their stream, and raises the alert.
    pub told_elsewhere: bool,
    /// How the last backup went: why it failed, if it did.
    pub backup: Option<Result<(), String>>,
    /// The supervisor has given up, and why.
    pub gave_up: Option<String>,
}

/// Of the file system that the store is on, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    pub free: u64,
    pub total: u64,
}

/// How long a certificate holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateEnd {
    pub file: PathBuf,
    /// [`None`]: it has expired.
    pub left: Option<Duration>,
}

/// What the rules say.
#[derive(Debug, Default)]
pub struct Judgement {
    pub firing: Vec<Alert>,
    /// Of each kind, the objects that nobody can judge now; [`None`]: none of them.
    undecided: BTreeSet<(AlertKind, Option<String>)>,
    /// Time alone may change it.
    pub is_waiting: bool,
}

impl Judgement {
    /// Of those that fire, with nothing undecided; for tests.
    #[cfg(test)]
    pub fn of(firing: Vec<Alert>, undecided: impl IntoIterator<Item = (AlertKind, Option<String>)>) -> Self {
        Self { firing, undecided: undecided.into_iter().collect(), is_waiting: false }
    }

    /// Whether an alert that is open stays so, because nobody knows better.
    pub fn is_undecided(&self, alert: &Alert) -> bool {
        let is_named = |object| self.undecided.contains(&(alert.kind, object));
        is_named(None) || is_named(Some(alert.object.clone()))
    }
}

/// What something may be an alert about.
type Key = (AlertKind, String);

/// What is so, and will be an alert when it has lasted.
struct Candidate {
    kind: AlertKind,
    object: String,
    severity: Severity,
    /// How long it has to last.
    patience: Duration,
    since: Option<SystemTime>,
    summary: String,
    action: String,
}

impl Candidate {
    fn new(
        kind: AlertKind,
        object: impl Into<String>,
        severity: Severity,
        summary: impl Into<String>,
        action: impl Into<String>,
    ) -> Self {
        let (object, summary, action) = (object.into(), summary.into(), action.into());
        Self { kind, object, severity, patience: Duration::ZERO, since: None, summary, action }
    }

    fn lasting(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    fn since(self, since: SystemTime) -> Self {
        Self { since: Some(since), ..self }
    }
}

/// What is found in one go.
#[derive(Default)]
struct Found {
    candidates: Vec<Candidate>,
    undecided: BTreeSet<(AlertKind, Option<String>)>,
}

impl Found {
    fn undecided(&mut self, kind: AlertKind) {
        self.undecided.insert((kind, None));
    }

    fn undecided_of(&mut self, kind: AlertKind, object: impl Into<String>) {
        self.undecided.insert((kind, Some(object.into())));
    }
}

/// Something that happened a moment ago, and is told until the server has served for a while.
struct Incident {
    at: SystemTime,
    times: u64,
    reason: Option<String>,
}

/// Remembers what the rules need of the past.
#[derive(Default)]
pub struct Rules {
    /// Candidates, and since when they have been.
    held: BTreeMap<Key, (Moment, SystemTime)>,
    firing: BTreeSet<Key>,
    counted: Restarts,
    /// The ends of servers within the window of the restart budget.
    ends: VecDeque<Moment>,
    incidents: BTreeMap<AlertKind, Incident>,
    repairs: u64,
    repaired: Option<(Moment, SystemTime)>,
    /// The server that serves, and since when.
    serving: Option<(Generation, Moment)>,
    /// One has served long enough since the program started to say that none crashes all the time.
    is_proven: bool,
}

/// A server that has served so long has come through its restart.
const SETTLED: Duration = Duration::from_secs(5);
/// One that has served so long is not in a loop.
const PROVEN: Duration = Duration::from_secs(60);
/// A repair is told so long.
const REPAIR_TOLD: Duration = Duration::from_secs(60);
/// What is worse than a threshold by less than that part, once it was worse, still is.
const HYSTERESIS: f64 = 0.95;

impl Rules {
    /// What is firing now.
    pub fn after(&mut self, seen: Seen<'_>) -> Judgement {
        self.remember(seen);
        let mut found = Found::default();
        self.service(seen, &mut found);
        self.usage(seen, &mut found);
        self.settle(seen, found)
    }

    /// Takes in what has happened since the last time.
    fn remember(&mut self, seen: Seen<'_>) {
        let Seen { status, settings, now, at, .. } = seen;
        let serves = matches!(status.state, "ready" | "degraded");
        self.serving = match (status.generation.filter(|_| serves), self.serving) {
            (Some(generation), Some((of, since))) if of == generation => Some((of, since)),
            (Some(generation), _) => Some((generation, now)),
            (None, _) => None,
        };
        let counted = status.counters.restarts_by;
        let hung = counted.hung.saturating_sub(self.counted.hung);
        let others = |counted: Restarts| counted.exited + counted.recovery + counted.launch_failed;
        let restarted = others(counted).saturating_sub(others(self.counted));
        self.counted = counted;
        let entered = status.events.iter().rev().find(|event| event.kind == EventKind::State && event.why.is_some());
        for (kind, times) in [(AlertKind::Hung, hung), (AlertKind::Restart, restarted)] {
            if times > 0 {
                let incident = self.incidents.entry(kind).or_insert(Incident { at, times: 0, reason: None });
                incident.times += times;
                incident.reason = entered.and_then(|event| event.why.clone());
            }
        }
        // More than the budget are never looked at.
        let most = settings.supervision.restart_max.saturating_add(1).min(1000);
        self.ends.extend((0..hung + restarted).take(most).map(|_| now));
        let window = settings.supervision.restart_window;
        while self.ends.len() > most || self.ends.front().is_some_and(|end| now.saturating_sub(*end) > window) {
            self.ends.pop_front();
        }
        if hung + restarted > 0 {
            self.serving = self.serving.map(|(generation, _)| (generation, now));
        }
        if self.has_served(now, SETTLED) {
            self.incidents.clear();
        }
        self.is_proven |= self.has_served(now, PROVEN);
        if status.counters.repairs > self.repairs {
            self.repaired = Some((now, at));
        }
        self.repairs = status.counters.repairs;
        self.repaired = self.repaired.filter(|(since, _)| now.saturating_sub(*since) < REPAIR_TOLD);
    }

    fn has_served(&self, now: Moment, span: Duration) -> bool {
        self.serving.is_some_and(|(_, since)| now.saturating_sub(since) >= span)
    }

    /// Whether a part of a whole is above a threshold, or hardly below it again.
    fn is_above(&self, kind: AlertKind, object: &str, part: f64, threshold: f64) -> bool {
        let was = self.firing.contains(&(kind, object.to_owned()));
        part >= if was { threshold * HYSTERESIS } else { threshold }
    }

    /// What has lasted long enough is firing.
    fn settle(&mut self, seen: Seen<'_>, found: Found) -> Judgement {
        let Seen { settings, host, now, at, .. } = seen;
        let mut judgement = Judgement { undecided: found.undecided, ..Judgement::default() };
        let (mut held, mut firing) = (BTreeMap::new(), BTreeSet::new());
        for candidate in found.candidates {
            let Candidate { kind, object, severity, patience, since, summary, action } = candidate;
            let key = (kind, object.clone());
            let (from, first) = self.held.get(&key).copied().unwrap_or((now, at));
            held.insert(key.clone(), (from, first));
            if !self.firing.contains(&key) && now.saturating_sub(from) < patience {
                judgement.is_waiting = true;
                judgement.undecided.insert((kind, Some(object)));
                continue;
            }
            firing.insert(key);
            let server = settings.server_name(host);
            judgement.firing.push(Alert {
                kind,
                severity,
                since: timestamp(since.unwrap_or(first)).to_string(),
                host: host.to_owned(),
                fingerprint: Fingerprint::of(&server, kind, &object),
                object,
                server,
                summary,
                action,
            });
        }
        judgement.is_waiting |= !self.incidents.is_empty() || !self.is_proven || !self.ends.is_empty();
        judgement.is_waiting |= self.repaired.is_some();
        (self.held, self.firing) = (held, firing);
        judgement
    }
}

#[cfg(test)]
mod tests;
