//! Single looks at a broker. Each says what is fine, or why it is not.

use std::time::Duration;

use serde_json::Value;

use super::report::JetStreamNumbers;
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
    if jsz.map_err(|e| e.to_string())?.is_some_and(|jsz| jsz.disabled) {
        return Err("/jsz says that JetStream is disabled".into());
    }
    let number = |name: &str| account.get(name).and_then(Value::as_u64).unwrap_or_default();
    Ok(JetStreamNumbers {
        streams: number("streams"),
        consumers: number("consumers"),
        storage: number("storage"),
        memory: number("memory"),
    })
}
