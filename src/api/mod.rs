//! What the API port answers: the probes; and serving it within bounds.

mod server;

use std::time::SystemTime;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::health::Examined;
use crate::logging::timestamp;
use crate::supervisor::{Snapshot, State};
pub use server::serve;

/// What the handlers may look at.
#[derive(Clone)]
pub struct Views {
    pub supervisor: watch::Receiver<Snapshot>,
    pub health: watch::Receiver<Option<Examined>>,
    pub environment: &'static str,
}

pub fn router(views: Views) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/health", get(health))
        .with_state(views)
}

fn answer(ok: bool, body: Value) -> (StatusCode, Json<Value>) {
    (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body))
}

/// The supervisor is alive. That this handler runs shows that the loops turn; the task that owns
/// the server holds the other end of the channel.
async fn livez(Shared(views): Shared<Views>) -> (StatusCode, Json<Value>) {
    let alive = views.supervisor.has_changed().is_ok();
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

/// Everything there is to know, for people.
async fn health(Shared(views): Shared<Views>) -> (StatusCode, Json<Value>) {
    let snapshot = views.supervisor.borrow().clone();
    let state = &snapshot.state;
    let status = match state {
        State::Ready { .. } => "healthy",
        State::Degraded { .. } | State::Starting { .. } | State::Provisioning { .. } => "degraded",
        _ => "unhealthy",
    };
    let mut checks = serde_json::Map::new();
    let mut server = describe(state);
    server["status"] = status.into();
    server["restarts"] = snapshot.restarts.into();
    server["pid"] = snapshot.pid.map(|pid| pid.as_raw()).into();
    checks.insert("nats_server".into(), server);
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
