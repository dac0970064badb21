//! What surrounds every request on the workers: an id, a deadline, one line in the access log, and
//! errors in the form that the client accepts.

use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

use super::envelope::Problem;

/// When the answer has to stand.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

/// What the request is known by, in the log and in its answer.
#[derive(Clone, Debug)]
pub struct RequestId(pub HeaderValue);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest that a client may give.
const LONGEST_ID: usize = 128;

/// Runs the rest of the request, with a deadline after so long.
pub async fn exchange(patience: Duration, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let accept = request.headers().get(header::ACCEPT).cloned();
    let method = request.method().clone();
    let path = match tracing::enabled!(tracing::Level::DEBUG) {
        true => request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()),
        false => None,
    };
    request.extensions_mut().insert(Deadline(started + patience));
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let id = id.to_str().unwrap_or_default();
        if problem.status.is_server_error() {
            tracing::debug!("request {id}: {}", problem.message);
        }
        let kept = std::mem::take(response.headers_mut());
        response = problem.render(accept.as_ref(), id);
        // Such as Allow.
        response.headers_mut().extend(kept.into_iter().filter(|(name, _)| {
            name.as_ref().is_some_and(|name| *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE)
        }));
    }
    response.headers_mut().insert(REQUEST_ID, id.clone());
    tracing::debug!(
        target: "unified_nats::access",
        method = method.as_str(),
        path = path.as_deref().unwrap_or("-"),
        status = response.status().as_u16(),
        took_us = started.elapsed().as_micros() as u64,
        request_id = id.to_str().unwrap_or_default(),
        "request"
    );
    response
}

/// The client's own, where it can stand in a log, or a new one.
fn request_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(REQUEST_ID);
    let is_fit =
        |id: &&HeaderValue| id.len() <= LONGEST_ID && !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic);
    let new = || HeaderValue::from_str(&format!("{:016x}", fastrand::u64(..)));
    match given.filter(is_fit) {
        Some(id) => id.clone(),
        None => new().unwrap_or(HeaderValue::from_static("-")),
    }
}
