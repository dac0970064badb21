//! Single looks at a broker. Each says what is fine, or why it is not.

use std::time::Duration;

use serde_json::Value;

use super::report::{ConsumerNumbers, JetStreamNumbers};
use crate::nats::{JetStream, Monitor, Varz};
use crate::settings::Settings;

type Finding = Result<String, String>;

/// The full `/healthz`, and what the server says about itself.
pub async fn http(monitor: &Monitor, deadline: Duration) -> Result<Varz, String> {
    let (health, varz) = tokio::join!(monitor.healthz(deadline), monitor.varz(deadline));
    health.map_err(|e| e.to_string())?;
    varz.map_err(|e| e.to_string())
}

/// Why HTTP monitoring is not looked at.
pub fn why_no_monitoring(settings: &Settings) -> &'static str {
    match settings.external {
        Some(_) => "NATS_MONITOR_URL is not set: not looked at",
        None => "MONITORING_ENABLED is false: not looked at",
    }
}

/// Only `/healthz`.
pub async fn healthz(monitor: &Monitor, deadline: Duration) -> Finding {
    monitor.healthz(deadline).await.map(|()| "/healthz answers 200".to_owned()).map_err(|e| e.to_string())
}

/// Consumers kept at most: those that are behind the most.
const MOST_CONSUMERS: usize = 1000;

/// Consumers that this server leads and that have messages to come, those with the most first.
pub async fn consumers(monitor: &Monitor, server: &str, deadline: Duration) -> Option<Vec<ConsumerNumbers>> {
    let jsz = monitor.jsz_of_streams(deadline).await.ok()?;
    let mut found = vec![];
    for stream in jsz.account_details.into_iter().flat_map(|account| account.stream_detail) {
        for consumer in stream.consumer_detail {
            // What others lead they count themselves.
            let led_here = consumer.cluster.is_none_or(|group| group.leader.is_empty() || group.leader == server);
            let pending = consumer.rest.get("num_pending").and_then(Value::as_u64).unwrap_or_default();
            if led_here && pending > 0 {
                found.push(ConsumerNumbers { stream: stream.name.clone(), name: consumer.name, pending });
            }
        }
    }
    found.sort_by(|a, b| b.pending.cmp(&a.pending).then_with(|| (&a.stream, &a.name).cmp(&(&b.stream, &b.name))));
    found.truncate(MOST_CONSUMERS);
    Some(found)
}

/// JetStream's API answers, and `/jsz` where there is monitoring.
pub async fn jetstream(
    api: &JetStream,
    monitor: Option<&Monitor>,
    deadline: Duration,
) -> Result<JetStreamNumbers, String> {
    let jsz = async {
        match monitor {
            Some(monitor) => monitor.jsz(deadline).await.map(Some),
            None => Ok(None),
        }
    };
    let (account, jsz) = tokio::join!(api.account_info(), jsz);
    let account = account.map_err(|e| e.to_string())?;
    let jsz = jsz.map_err(|e| e.to_string())?;
    if jsz.as_ref().is_some_and(|jsz| jsz.disabled) {
        return Err("/jsz says that JetStream is disabled".into());
    }
    let number = |name: &str| account.get(name).and_then(Value::as_u64).unwrap_or_default();
    Ok(JetStreamNumbers {
        streams: number("streams"),
        consumers: number("consumers"),
        storage: number("storage"),
        memory: number("memory"),
        server_storage: jsz.as_ref().map(|jsz| jsz.storage),
        server_memory: jsz.as_ref().map(|jsz| jsz.memory),
    })
}
