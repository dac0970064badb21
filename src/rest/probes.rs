//! The probes: answered at the door, whatever else goes on, from the status alone.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;

use super::health::{Health, State};
use crate::status::{BrokerStatus, Verdict};

/// What the handlers may look at.
#[derive(Clone)]
pub struct Views {
    /// Closed once the supervisor has ended.
    pub status: watch::Receiver<Arc<BrokerStatus>>,
    /// When the control side was last seen to turn.
    pub pulse: watch::Receiver<Instant>,
    pub environment: &'static str,
}

/// What is answered at the door.
pub const PROBES: &[&str] = &["/livez", "/readyz", "/startupz", "/health"];

pub fn routes(views: Views) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/health", get(health))
        .with_state(views)
        .layer(CatchPanicLayer::new())
}

/// A control side that has not been seen for so long is asked to show itself.
const FRESH: Duration = Duration::from_secs(5);
/// Time for that: one that was only stopped for a while turns again at once.
const SHOWS_ITSELF: Duration = Duration::from_secs(3);

fn answer<T>(ok: bool, body: T) -> (StatusCode, Json<T>) {
    (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body))
}

/// The supervisor is alive, and the loops of the control side turn.
async fn livez(Shared(mut views): Shared<Views>) -> (StatusCode, Json<Value>) {
    let turns = timeout(SHOWS_ITSELF, views.pulse.wait_for(|seen| seen.elapsed() < FRESH)).await;
    let alive = matches!(turns, Ok(Ok(_))) && views.status.has_changed().is_ok();
    answer(alive, json!({ "status": if alive { "alive" } else { "dead" } }))
}

/// Traffic may come.
async fn readyz(Shared(views): Shared<Views>) -> (StatusCode, Json<State>) {
    let status = views.status.borrow();
    answer(status.is_ready, State::of(&status))
}

/// The broker has been ready once.
async fn startupz(Shared(views): Shared<Views>) -> (StatusCode, Json<State>) {
    let status = views.status.borrow();
    answer(status.ever_ready, State::of(&status))
}

/// Everything there is to know, for people.
async fn health(Shared(views): Shared<Views>) -> (StatusCode, Json<Health>) {
    let status = views.status.borrow().clone();
    let is_well = status.verdict != Verdict::Unhealthy && status.is_ready;
    answer(is_well, Health::of(&status, views.environment, SystemTime::now()))
}
