//! What the API port answers: the probes.

use std::time::{Duration, Instant, SystemTime};

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;

use crate::health::{Examined, Outcome};
use crate::http::Routes;
use crate::integrity::{Integrity, Reading};
use crate::logging::timestamp;
use crate::streams::Drift;
use crate::supervisor::{Snapshot, State};

/// What the handlers may look at.
#[derive(Clone)]
pub struct Views {
    /// When the control side was last seen to turn.
    pub pulse: watch::Receiver<Instant>,
    pub supervisor: watch::Receiver<Snapshot>,
    pub health: watch::Receiver<Option<Examined>>,
    /// Whether there are streams to look after.
    pub streams: bool,
    /// [`None`] where messages are not looked after.
    pub integrity: Option<watch::Receiver<Integrity>>,
    pub drift: watch::Receiver<Drift>,
    /// Why settings that were to be taken over are not in force.
    pub refused: watch::Receiver<Option<String>>,
    pub environment: &'static str,
}

/// What is answered at the door, whatever else goes on.
const PROBES: &[&str] = &["/livez", "/readyz", "/startupz", "/health"];

pub fn routes(views: Views) -> Routes {
    let probes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/health", get(health))
        .with_state(views)
        .layer(CatchPanicLayer::new());
    Routes { all: probes.clone(), probes, probe_paths: PROBES }
}

/// A control side that has not been seen for so long is asked to show itself.
const FRESH: Duration = Duration::from_secs(5);
/// Time for that: one that was only stopped for a while turns again at once.
const SHOWS_ITSELF: Duration = Duration::from_secs(3);

fn answer(ok: bool, body: Value) -> (StatusCode, Json<Value>) {
    (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body))
}

/// The supervisor is alive: its loops turn, and the task that owns the server holds the other end of
/// the channel.
async fn livez(Shared(mut views): Shared<Views>) -> (StatusCode, Json<Value>) {
    let turns = timeout(SHOWS_ITSELF, views.pulse.wait_for(|seen| seen.elapsed() < FRESH)).await;
    let alive = matches!(turns, Ok(Ok(_))) && views.supervisor.has_changed().is_ok();
    answer(alive, json!({ "status": if alive { "alive" } else { "dead" } }))
}

/// Traffic may come.
async fn readyz(Shared(views): Shared<Views>) -> (StatusCode, Json<Value>) {
    let snapshot = views.supervisor.borrow();
    answer(snapshot.state.is_ready(), describe(&snapshot.state))
}

/// The broker has been ready once.
async fn startupz(Shared(views): Shared<Views>) -> (StatusCode, Json<Value>) {
    let snapshot = views.supervisor.borrow();
    answer(snapshot.ever_ready, describe(&snapshot.state))
}

fn describe(state: &State) -> Value {
    let mut body = json!({ "state": state.name() });
    if let Some(reason) = state.reason() {
        body["reason"] = reason.into();
    }
    body
}

/// What is known about the messages in the store.
fn judge(integrity: &Integrity) -> (Outcome, String) {
    if !integrity.losses.is_empty() {
        let losses = integrity.losses.iter();
        let losses: Vec<_> =
            losses.map(|l| format!("stream {}: {} (found {})", l.stream, l.missing, l.found_at)).collect();
        return (Outcome::Fail, losses.join("; "));
    }
    match &integrity.reading {
        Reading::NotYet => (Outcome::Warn, "the streams have not been read through since the start".into()),
        Reading::Under { stream, seq, last_seq } => {
            (Outcome::Warn, format!("stream {stream} is being read through, at sequence {seq} of {last_seq}"))
        }
        Reading::Failed { streams } => {
            (Outcome::Warn, format!("could not be read through, and is tried again: {}", streams.join(", ")))
        }
        Reading::Done { messages, by_design } => {
            let mut detail = format!("nothing is missing; {messages} messages were read through after the start");
            if !by_design.is_empty() {
                detail.push_str("; not judged, because they have many holes and changed meanwhile: ");
                detail.push_str(&by_design.join(", "));
            }
            (Outcome::Pass, detail)
        }
    }
}

/// Whether streams stay as they are declared.
fn describe_drift(drift: &Drift) -> Value {
    let (outcome, detail) = match (&drift.suspended, &drift.last) {
        (Some(reason), _) => (Outcome::Warn, reason.clone()),
        _ if !drift.remaining.is_empty() => {
            (Outcome::Warn, format!("not as declared, and not to be repaired: {}", drift.remaining.join("; ")))
        }
        (None, None) => (Outcome::Pass, "nothing had to be repaired".to_owned()),
        (None, Some((at, what))) => (Outcome::Pass, format!("the last repair was at {}: {what}", timestamp(*at))),
    };
    json!({ "status": outcome, "detail": detail, "repaired": drift.repaired })
}

/// Everything there is to know, for people.
async fn health(Shared(views): Shared<Views>) -> (StatusCode, Json<Value>) {
    let snapshot = views.supervisor.borrow().clone();
    let state = &snapshot.state;
    let integrity = views.integrity.as_ref().map(|integrity| judge(&integrity.borrow()));
    let status = match state {
        // Not before every stream has been read through since the start.
        State::Ready { .. } if integrity.as_ref().is_none_or(|(outcome, _)| *outcome == Outcome::Pass) => "healthy",
        State::Ready { .. } | State::Degraded { .. } | State::Starting { .. } | State::Provisioning { .. } => {
            "degraded"
        }
        _ => "unhealthy",
    };
    let mut checks = serde_json::Map::new();
    let mut server = describe(state);
    server["status"] = status.into();
    server["restarts"] = snapshot.restarts.into();
    server["pid"] = snapshot.pid.map(|pid| pid.as_raw()).into();
    checks.insert("nats_server".into(), server);
    if let Some((outcome, detail)) = integrity {
        checks.insert("integrity".into(), json!({ "status": outcome, "detail": detail }));
    }
    if views.streams {
        checks.insert("drift".into(), describe_drift(&views.drift.borrow()));
    }
    if let Some(refusal) = &*views.refused.borrow() {
        let detail = format!("the last reload was refused, and the old settings stay in force: {refusal}");
        checks.insert("settings".into(), json!({ "status": Outcome::Warn, "detail": detail }));
    }
    if let Some(Examined { at, report, .. }) = &*views.health.borrow() {
        for check in &report.checks {
            let entry = json!({ "status": check.outcome, "detail": check.detail });
            // Several remarks may bear the same name.
            let mut name = check.name.to_owned();
            while checks.contains_key(&name) {
                name.push('+');
            }
            checks.insert(name, entry);
        }
        checks.insert("checked_at".into(), timestamp(*at).to_string().into());
    }
    let body = json!({
        "status": status,
        "service": "unified-nats",
        "version": env!("CARGO_PKG_VERSION"),
        "environment": views.environment,
        "timestamp": timestamp(SystemTime::now()).to_string(),
        "checks": checks,
    });
    answer(status != "unhealthy" && state.is_ready(), body)
}
