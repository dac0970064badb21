//! What browsers let pages of other origins ask for.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::settings::CorsOrigins;

/// For how long a browser need not ask again.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Answers browsers that ask beforehand, and tells them which pages may read an answer. With no origin
/// listed nobody tells them anything, so that none may.
pub fn of(origins: &CorsOrigins) -> Option<CorsLayer> {
    let allowed = match origins {
        CorsOrigins::Any => AllowOrigin::any(),
        CorsOrigins::Listed(origins) if origins.is_empty() => return None,
        CorsOrigins::Listed(_) => {
            let origins = origins.clone();
            AllowOrigin::predicate(move |origin: &HeaderValue, _| origin.to_str().is_ok_and(|o| origins.allows(o)))
        }
    };
    let name = HeaderName::from_static;
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            header::ACCEPT,
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            name("idempotency-key"),
            name("last-event-id"),
            name("traceparent"),
            name("tracestate"),
            name("x-request-id"),
        ])
        .expose_headers([header::RETRY_AFTER, header::ALLOW, name("x-request-id")])
        .max_age(REMEMBERED);
    Some(layer)
}
