//! Metrics, on the port of the API.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::Api;
use crate::http::envelope::ErrorEnvelope;

/// Metrics for Prometheus: its text format 0.0.4, or OpenMetrics 1.0 for who accepts that.
#[utoipa::path(get, path = "/metrics", tag = "broker", operation_id = "metrics", responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = "default", body = ErrorEnvelope, description = "see error_code")))]
async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Response {
    (api.scrape)(headers).await
}

pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(metrics))
}
