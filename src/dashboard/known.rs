//! What the page is made of: what is known besides the status, and how it is coloured. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::past::{Past, Rates};
use crate::domain::DataType;
use crate::logging::timestamp;
use crate::nats::Jsz;
use crate::status::BrokerStatus;

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
    pub since: Moment,
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

/// For machines and for people: `2026-11-27T02:50:50Z` and `2026-11-27 02:50:50 UTC`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    machine: String,
    text: String,
}

impl Moment {
    pub fn of(at: SystemTime) -> Self {
        Self::of_text(&timestamp(at).to_string())
    }

    /// Of RFC 3339 in UTC, with or without fractions of a second.
    pub fn of_text(text: &str) -> Self {
        let seconds = text.get(..19).unwrap_or(text);
        Self { machine: format!("{seconds}Z"), text: format!("{} UTC", seconds.replace('T', " ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_said_one_way() {
        let moment = Moment { machine: "1970-01-02T00:00:00Z".to_owned(), text: "1970-01-02 00:00:00 UTC".to_owned() };
        assert_eq!(Moment::of(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)), moment);
        assert_eq!(Moment::of_text("1970-01-02T00:00:00.250Z"), moment);
    }
}
