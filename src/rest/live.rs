//! What the dashboard shows, as it changes.

use axum::extract::State;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::Api;
use crate::http::envelope::ErrorEnvelope;

/// What the built-in dashboard shows, as it changes, as server-sent events.
///
/// An event `sections` holds parts of the page as HTML, those that have changed; an event `charts` holds the
/// numbers of its charts. It is made for the page at `/`, and changes with it: programs read `/metrics`,
/// `/api/v1/broker/status` and `/api/v1/broker/events`.
#[utoipa::path(get, path = "/api/v1/broker/live", tag = "broker", operation_id = "dashboard_live", responses(
    (status = 200, body = String, content_type = "text/event-stream"),
    (status = "default", body = ErrorEnvelope, description = "see error_code")))]
async fn live(State(api): State<Api>) -> Response {
    (api.home.live)()
}

pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(live))
}
