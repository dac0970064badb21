//! What the broker is, for both generations of clients.

use std::time::SystemTime;

use axum::extract::{Extension, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::state::Api;
use crate::http::Deadline;
use crate::http::envelope::{Envelope, ErrorEnvelope, Problem};

/// In the words of both generations of clients.
#[derive(Serialize, ToSchema)]
pub struct ServiceStatus {
    service: &'static str,
    /// In one word.
    status: &'static str,
    uptime_seconds: f64,
    version: &'static str,
    environment: &'static str,
    port: u16,
}

/// The broker in short.
#[utoipa::path(get, path = "/api/v1/status", tag = "broker", responses(
    (status = 200, body = Envelope<ServiceStatus>), (status = "default", body = ErrorEnvelope)))]
async fn status(
    State(api): State<Api>,
    Extension(_deadline): Extension<Deadline>,
) -> Result<Envelope<ServiceStatus>, Problem> {
    let (status, settings) = (api.broker.status(), api.settings());
    let started = SystemTime::now();
    let data = ServiceStatus {
        service: "message-broker",
        status: status.state,
        uptime_seconds: started.duration_since(status.since).unwrap_or_default().as_secs_f64(),
        version: env!("CARGO_PKG_VERSION"),
        environment: settings.api.environment,
        port: settings.api.port.get(),
    };
    Ok(Envelope::of("Service status retrieved successfully", data))
}

pub fn routes() -> utoipa_axum::router::OpenApiRouter<Api> {
    utoipa_axum::router::OpenApiRouter::new().routes(utoipa_axum::routes!(status))
}
