//! Whether the server serves, and what does not hold.

use std::time::Duration;

use super::{AlertKind, Candidate, Found, Rules, SETTLED, Seen, Severity};
use crate::settings::UnauthenticatedListener;
use crate::status::{Condition, ConditionStatus};

/// What may pass by itself is no alert before.
const PATIENCE: Duration = Duration::from_secs(5);
/// Until another server should have taken the place of one that is being ended: one that hangs is killed
/// after five seconds.
const REPLACEMENT: Duration = Duration::from_secs(10);
/// Ends within the window that are a loop in any case.
const LEAST_OF_LOOP: usize = 3;
/// How long before its end a certificate is told of, and when that becomes urgent.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);
const EXPIRES_NOW: Duration = Duration::from_secs(3 * 24 * 3600);
const DAY: u64 = 24 * 3600;

impl Rules {
    pub(super) fn service(&self, seen: Seen<'_>, found: &mut Found) {
        self.server(seen, found);
        self.restarts(seen, found);
        seen.status.conditions.iter().for_each(|condition| self.condition(seen, condition, found));
        self.settings(seen, found);
    }

    /// Whether a nats-server answers.
    fn server(&self, seen: Seen<'_>, found: &mut Found) {
        let status = seen.status;
        let no_launch = status.conditions.iter().find(|c| c.kind == "launch" && c.status == ConditionStatus::Failed);
        let reason = || status.reason.clone().unwrap_or_else(|| "no reason is known".into());
        let (patience, reason) = match (status.state, no_launch) {
            ("failed", _) => (Duration::ZERO, reason()),
            (_, Some(condition)) => (PATIENCE, condition.reason.clone().unwrap_or_else(reason)),
            ("restarting", _) => (REPLACEMENT, reason()),
            // The recovery of a large store takes its time.
            ("starting", _) => {
                (seen.settings.supervision.init_timeout, "it has been launched and does not answer yet".into())
            }
            _ => return,
        };
        let summary = format!("no nats-server answers: {reason}");
        let action = "read the last lines of its log; the supervisor goes on trying by itself unless it has ended";
        let down = Candidate::new(AlertKind::ServerDown, "", Severity::Critical, summary, action);
        found.candidates.push(down.lasting(patience).since(status.since));
    }

    fn restarts(&self, seen: Seen<'_>, found: &mut Found) {
        for (kind, incident) in &self.incidents {
            let times = match incident.times {
                1 => String::new(),
                times => format!(" {times} times"),
            };
            let reason = incident.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let (severity, summary, action) = match kind {
                AlertKind::Hung => (
                    Severity::Critical,
                    format!("nats-server did not answer any more and was replaced{times}{reason}"),
                    "look for a disk or a processor that stalls; what was acknowledged is kept",
                ),
                _ => (
                    Severity::Warning,
                    format!("nats-server ended and was started again{times}{reason}"),
                    "read the lines of nats-server before its end; what was acknowledged is kept",
                ),
            };
            found.candidates.push(Candidate::new(*kind, "", severity, summary, action).since(incident.at));
        }
        if !self.has_served(seen.now, SETTLED) {
            found.undecided(AlertKind::Hung);
            found.undecided(AlertKind::Restart);
        }
        let budget = seen.settings.supervision.restart_max;
        let gave_up = seen.facts.gave_up.as_ref();
        if gave_up.is_some() || self.ends.len() >= LEAST_OF_LOOP.max(budget / 2) {
            let window = seen.settings.supervision.restart_window.as_secs();
            let (count, what) = (self.ends.len(), seen.status.reason.as_deref().unwrap_or("it serves again for now"));
            let summary = match gave_up {
                Some(reason) => format!("nats-server ended too often and the supervisor has given up: {reason}"),
                None => format!("nats-server ended {count} times within {window} s, of {budget} allowed: {what}"),
            };
            let action = "read the lines of nats-server before its ends; see to what they name, then start the broker again if it has given up";
            found.candidates.push(Candidate::new(AlertKind::CrashLoop, "", Severity::Critical, summary, action));
        } else if !self.is_proven {
            // What an earlier process has counted nobody knows.
            found.undecided(AlertKind::CrashLoop);
        }
    }

    fn condition(&self, seen: Seen<'_>, condition: &Condition, found: &mut Found) {
        let Condition { kind, status, reason, since } = condition;
        let (alert, object) = match *kind {
            // A server that cannot be launched is down.
            "launch" => return,
            "storage" => (AlertKind::StoreFull, "disk"),
            "settings" => (AlertKind::ReloadFailed, ""),
            "drift" => (AlertKind::StreamDrift, ""),
            kind => (AlertKind::Unhealthy, kind),
        };
        match status {
            ConditionStatus::Unknown => found.undecided_of(alert, object),
            ConditionStatus::Ok => {}
            // Streams that are missing are an alert of their own.
            ConditionStatus::Failed
                if *kind == "health_check"
                    && seen.status.observed.missing.as_ref().is_some_and(|missing| !missing.is_empty()) => {}
            // So are those that cannot become as declared.
            ConditionStatus::Failed if *kind == "drift" && !seen.status.observed.conflicts.is_empty() => {}
            ConditionStatus::Failed => {
                let reason = reason.as_deref().unwrap_or("no reason is known");
                let (severity, patience, summary, action) = failed(seen, kind, reason);
                let candidate = Candidate::new(alert, object, severity, summary, action);
                found.candidates.push(candidate.lasting(patience).since(*since));
            }
        }
        if let Some((_, at)) = self.repaired.filter(|_| *kind == "drift" && *status == ConditionStatus::Ok) {
            let last = seen.status.checks.get("drift").map(|check| check.detail.as_str()).unwrap_or_default();
            let summary = format!("streams had been changed by somebody and were made as declared again: {last}");
            let action = "find out who changes them, or declare the change";
            let repaired = Candidate::new(AlertKind::StreamDrift, "", Severity::Warning, summary, action);
            found.candidates.push(repaired.since(at));
        }
    }

    /// What follows from settings and files.
    fn settings(&self, seen: Seen<'_>, found: &mut Found) {
        for door in &seen.settings.unauthenticated_listeners {
            let object = match door {
                UnauthenticatedListener::Nats => "nats",
                UnauthenticatedListener::Monitoring => "monitoring",
                UnauthenticatedListener::Api => "api",
                UnauthenticatedListener::Metrics => "metrics",
            };
            let (summary, action) = door.describe().split_once("; ").unwrap_or((door.describe(), ""));
            found.candidates.push(Candidate::new(AlertKind::Insecure, object, Severity::Warning, summary, action));
        }
        for certificate in &seen.facts.certificates {
            let (severity, when) = match certificate.left {
                None => (Severity::Critical, "has expired".to_owned()),
                Some(left) if left >= EXPIRES_SOON => continue,
                Some(left) => {
                    let severity = if left < EXPIRES_NOW { Severity::Critical } else { Severity::Warning };
                    (severity, format!("expires in {} days", left.as_secs() / DAY))
                }
            };
            let file = certificate.file.display().to_string();
            let summary = format!("the certificate in {file} {when}");
            let action = "put a new certificate and its key in place; they are taken over by themselves";
            found.candidates.push(Candidate::new(AlertKind::CertExpiring, file, severity, summary, action));
        }
        match &seen.facts.backup {
            None => found.undecided(AlertKind::BackupFailed),
            Some(Ok(())) => {}
            Some(Err(reason)) => {
                let summary = format!("the last backup failed: {reason}");
                let action = "see to what it names; the next one is tried at its time";
                found.candidates.push(Candidate::new(AlertKind::BackupFailed, "", Severity::Warning, summary, action));
            }
        }
    }
}

/// How grave a condition is that failed, how long it has to last, and how it is told.
fn failed<'a>(seen: Seen<'_>, kind: &str, reason: &str) -> (Severity, Duration, String, &'a str) {
    let (critical, warning) = (Severity::Critical, Severity::Warning);
    match kind {
        "integrity" => (
            critical,
            Duration::ZERO,
            format!("messages are missing from the store: {reason}"),
            "restore the stream from a backup, or accept the loss with `unified-nats streams acknowledge-loss`",
        ),
        "storage" => (
            critical,
            Duration::ZERO,
            reason.to_owned(),
            "make room on the disk of the store, or see to what it names; writing goes on by itself",
        ),
        "responsive" => (critical, PATIENCE, reason.to_owned(), "wait: a server that stays silent is replaced"),
        "in_service" => {
            let starts = matches!(seen.status.state, "starting" | "provisioning");
            let patience = if starts { seen.settings.supervision.init_timeout } else { PATIENCE };
            (critical, patience, format!("nats-server is not in service: {reason}"), "see to what it names")
        }
        "settings" => (
            warning,
            Duration::ZERO,
            format!("the last reload was refused, and the old settings stay in force: {reason}"),
            "mend the settings and send SIGHUP again",
        ),
        "drift" => (
            warning,
            PATIENCE,
            reason.to_owned(),
            "send SIGHUP to have changed files taken over, or see to what it names",
        ),
        "health_check" => {
            (warning, PATIENCE, format!("the health check fails: {reason}"), "run `unified-nats health-check full`")
        }
        other => (warning, PATIENCE, format!("{other} failed: {reason}"), "see to what it names"),
    }
}
