//! Single looks at a broker. Each says what is fine, or why it is not.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::report::{Check, millis};
use crate::domain::ByteSize;
use crate::nats::{JetStream, Monitor};
use crate::settings::Settings;

type Finding = Result<String, String>;

/// The full `/healthz`, and what the server says about itself.
pub async fn http(monitor: &Monitor, deadline: Duration) -> Finding {
    let (health, varz) = tokio::join!(monitor.healthz(deadline), monitor.varz(deadline));
    health.map_err(|e| e.to_string())?;
    let varz = varz.map_err(|e| e.to_string())?;
    let text = |name: &str| varz.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
    let number = |name: &str| varz.get(name).and_then(Value::as_u64).unwrap_or_default();
    Ok(format!("{} {}, {} connections", text("server_name"), text("version"), number("connections")))
}

/// Why HTTP monitoring is not looked at.
pub fn why_no_monitoring(settings: &Settings) -> &'static str {
    match settings.remote {
        Some(_) => "NATS_MONITOR_URL is not set: not looked at",
        None => "MONITORING_ENABLED is false: not looked at",
    }
}

/// Only `/healthz`.
pub async fn healthz(monitor: &Monitor, deadline: Duration) -> Finding {
    monitor.healthz(deadline).await.map(|()| "/healthz answers 200".to_owned()).map_err(|e| e.to_string())
}

/// JetStream's API answers, and `/jsz` where there is monitoring.
pub async fn jetstream(api: &JetStream, monitor: Option<&Monitor>, deadline: Duration) -> Finding {
    let jsz = async {
        match monitor {
            Some(monitor) => monitor.jsz(deadline).await.map(Some),
            None => Ok(None),
        }
    };
    let (account, jsz) = tokio::join!(api.account_info(), jsz);
    let account = account.map_err(|e| e.to_string())?;
    if let Some(jsz) = jsz.map_err(|e| e.to_string())?
        && jsz.get("disabled").and_then(Value::as_bool) == Some(true)
    {
        return Err("/jsz says that JetStream is disabled".into());
    }
    let number = |name: &str| account.get(name).and_then(Value::as_u64).unwrap_or_default();
    Ok(format!(
        "{} streams, {} consumers, {} on disk, {} in memory",
        number("streams"),
        number("consumers"),
        ByteSize::new(number("storage")),
        ByteSize::new(number("memory"))
    ))
}

/// What the supervisor knows about messages that are missing; [`None`] where it does not look.
pub async fn integrity(settings: &Settings, deadline: Duration) -> Option<Check> {
    let started = Instant::now();
    // That it cannot be asked is told by the check before.
    let (_, _, health) = ask_supervisor(settings, "/health", deadline).await.ok()?;
    let check = health.get("checks")?.get("integrity")?;
    let outcome = serde_json::from_value(check.get("status")?.clone()).ok()?;
    let detail = check.get("detail")?.as_str()?.to_owned();
    Some(Check { name: "integrity", outcome, detail, millis: millis(started.elapsed()) })
}

async fn ask_supervisor(settings: &Settings, path: &str, deadline: Duration) -> Result<(String, u16, Value), String> {
    let url = format!("http://{}:{}{path}", settings.api.host.to_reach(), settings.api.port);
    let answer = crate::nats::get(&crate::nats::direct_client(), url, deadline).await;
    let (url, status, body) = answer.map_err(|e| e.to_string())?;
    Ok((url, status, serde_json::from_slice(&body).unwrap_or_default()))
}

/// The supervisor itself says that traffic may come.
pub async fn readyz(settings: &Settings, deadline: Duration) -> Finding {
    let (url, status, state) = ask_supervisor(settings, "/readyz", deadline).await?;
    if status == 200 {
        return Ok("the supervisor is ready".into());
    }
    let text = |name: &str| state.get(name).and_then(Value::as_str).map(str::to_owned);
    let reason = text("reason").map(|reason| format!(": {reason}")).unwrap_or_default();
    Err(format!("{url} answers {status}, {}{reason}", text("state").unwrap_or_default()))
}
