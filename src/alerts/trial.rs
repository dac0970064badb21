use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::alert::{Alert, AlertKind, Fingerprint, Notification, Severity};
use super::host_name;
use super::sinks::{SinkKind, authorities, sinks};
use crate::logging::timestamp;
use crate::settings::Settings;

/// How one receiver took the alert that tries it.
#[derive(Debug)]
pub struct Trial {
    pub sink: SinkKind,
    pub outcome: Result<(), String>,
}

/// Sends one alert to every receiver that the settings name, each within `deadline`.
pub async fn send_trial(settings: &Settings, deadline: Duration) -> Vec<Trial> {
    let (kind, host) = (AlertKind::Test, host_name());
    let (server, at) = (settings.server_name(&host), timestamp(SystemTime::now()).to_string());
    let alert = Alert {
        kind,
        object: String::new(),
        severity: Severity::Info,
        since: at.clone(),
        host,
        summary: "this is a test: alerts of this broker arrive here".into(),
        action: "nothing; somebody ran `unified-nats alerts test`".into(),
        fingerprint: Fingerprint::of(&server, kind, ""),
        server,
    };
    let notification = Notification { alert, is_over: false, at };
    let sinks = sinks(&settings.alerts, &authorities());
    let sending = sinks.iter().map(async |sink| {
        let outcome = sink.send(&notification, deadline).await.map_err(|error| error.to_string());
        Trial { sink: sink.kind, outcome }
    });
    join_all(sending).await
}
