//! Which alerts were sent and are open. Pure; time is a parameter.
//!
//! What fires and is not open is sent, unless one of the same fingerprint was sent less than the least
//! interval ago: then it waits, and is sent when it still fires by then. What is open and does not fire any
//! more is over, and exactly that is told once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alert::{Alert, Fingerprint, Notification};
use super::rules::{Judgement, Moment};

/// Alerts that are open at most. One more waits until another is over.
pub const MOST_OPEN: usize = 200;
/// Fingerprints of which it is remembered when they were sent. What is forgotten may come again sooner.
const MOST_SENT: usize = 2000;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    open: BTreeMap<Fingerprint, Alert>,
    /// When each was sent last.
    sent: BTreeMap<Fingerprint, Moment>,
}

/// The same in a file. Moments are those of one run of the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Written {
    boot: String,
    open: Vec<Alert>,
    /// Milliseconds since the machine started.
    sent: BTreeMap<Fingerprint, u64>,
}

impl Ledger {
    /// What a file says. Where the machine has started anew nobody knows how long ago something was sent:
    /// then it was just now.
    pub fn read(written: Written, boot: &str, now: Moment) -> Self {
        let same = written.boot == boot;
        let moment = |millis: u64| if same { Duration::from_millis(millis).min(now) } else { now };
        let sent = written.sent.into_iter().map(|(fingerprint, millis)| (fingerprint, moment(millis))).collect();
        let open = written.open.into_iter().map(|alert| (alert.fingerprint.clone(), alert)).collect();
        Self { open, sent }
    }

    pub fn write(&self, boot: &str) -> Written {
        let millis = |moment: &Moment| u64::try_from(moment.as_millis()).unwrap_or(u64::MAX);
        Written {
            boot: boot.to_owned(),
            open: self.open.values().cloned().collect(),
            sent: self.sent.iter().map(|(fingerprint, moment)| (fingerprint.clone(), millis(moment))).collect(),
        }
    }

    /// Alerts that were sent and are not over.
    pub fn open(&self) -> impl Iterator<Item = &Alert> {
        self.open.values()
    }

    /// Takes in what fires now; gives what is to be sent, what is over first. `at` is the time of day.
    pub fn after(&mut self, judgement: &Judgement, now: Moment, interval: Duration, at: &str) -> Vec<Notification> {
        self.sent
            .retain(|fingerprint, sent| self.open.contains_key(fingerprint) || now.saturating_sub(*sent) < interval);
        let firing: BTreeMap<_, _> = judgement.firing.iter().map(|alert| (&alert.fingerprint, alert)).collect();
        let is_over = |alert: &Alert| !firing.contains_key(&alert.fingerprint) && !judgement.is_undecided(alert);
        let over: Vec<_> = self.open.extract_if(.., |_, alert| is_over(alert)).map(|(_, alert)| alert).collect();
        let notification = |alert, is_over| Notification { alert, is_over, at: at.to_owned() };
        let mut notifications: Vec<_> = over.into_iter().map(|alert| notification(alert, true)).collect();
        for alert in &judgement.firing {
            let fingerprint = &alert.fingerprint;
            let waits = self.sent.get(fingerprint).is_some_and(|sent| now.saturating_sub(*sent) < interval);
            if self.open.contains_key(fingerprint) || waits || self.open.len() >= MOST_OPEN {
                continue;
            }
            if self.sent.len() >= MOST_SENT {
                self.sent.pop_first();
            }
            self.open.insert(fingerprint.clone(), alert.clone());
            self.sent.insert(fingerprint.clone(), now);
            notifications.push(notification(alert.clone(), false));
        }
        notifications
    }

    /// Whether something fires that may only be sent later.
    pub fn holds_back(&self, judgement: &Judgement) -> bool {
        judgement.firing.iter().any(|alert| !self.open.contains_key(&alert.fingerprint))
    }
}

#[cfg(test)]
mod tests;
