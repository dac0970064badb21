//! What surrounds every request on the workers: an id, a deadline, one line in the access log, a span where
//! traces are sent, and errors in the form that the client accepts.

use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::future::Either;
use tokio::time::{Instant, timeout_at};

use super::envelope::{Code, ErrorForm, Problem};
use super::traffic::{Traffic, word};
use crate::spans::{self, Kind, SpanContext};

/// When the answer has to stand.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

/// What the request is known by, in the log and in its answer.
#[derive(Clone, Debug)]
pub struct RequestId(pub HeaderValue);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest that a client may give.
const LONGEST_ID: usize = 128;
/// Operations keep the deadline themselves and tell more about what became of them. This long after it
/// nobody waits for them any more.
const GRACE: Duration = Duration::from_secs(1);

/// Runs the rest of the request, with a deadline after so long, and counts it.
pub async fn exchange(patience: Duration, traffic: Traffic, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let form = ErrorForm::of(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    request.extensions_mut().insert(Deadline(started + patience));
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = span(&request, route);
    let work = next.run(request);
    let work = match &span {
        Some(span) => Either::Left(span.scope(work)),
        None => Either::Right(work),
    };
    let answered = timeout_at(started + patience + GRACE, work).await;
    let mut response = answered.unwrap_or_else(|_| late().into_response());
    let mut reason = None;
    if let Some(problem) = response.extensions_mut().remove::<Problem>().or_else(|| of_others(&response)) {
        let id = id.to_str().unwrap_or_default();
        if problem.status.is_server_error() {
            tracing::debug!("request {id}: {}", problem.message);
        }
        let kept = std::mem::take(response.headers_mut());
        reason = span.is_some().then(|| problem.message.clone());
        response = problem.render(form, id);
        keep(response.headers_mut(), &kept);
    }
    response.headers_mut().insert(REQUEST_ID, id.clone());
    if let Some(span) = span {
        end(span, response.status(), &id, reason);
    }
    let took = started.elapsed();
    traffic.count(route, &method, response.status(), took);
    tracing::debug!(
        target: "unified_nats::access",
        method = method.as_str(),
        path = route.unwrap_or("-"),
        status = response.status().as_u16(),
        took_us = took.as_micros() as u64,
        request_id = id.to_str().unwrap_or_default(),
        "request"
    );
    response
}

/// The span of a request to the API, below the one that the client names. Probes, scrapes and the dashboard
/// ask too often to be worth one.
fn span(request: &Request, route: Option<&str>) -> Option<spans::Open> {
    let recorder = spans::recorder()?;
    let route = route.filter(|route| route.starts_with("/api/"))?;
    let parent = request.headers().get("traceparent").and_then(|parent| SpanContext::parse(parent.to_str().ok()?));
    let method = word(request.method());
    let mut span = recorder.begin(parent, format!("{method} {route}"), Kind::Server);
    // Names of the semantic conventions of OpenTelemetry for HTTP. What is asked may be a secret; paths are not.
    span.set("http.request.method", if method == "other" { "_OTHER" } else { method });
    span.set("http.route", route);
    span.set("url.path", request.uri().path());
    span.set("url.scheme", "http");
    Some(span)
}

/// A client that asked for what cannot be is no failure of ours.
fn end(mut span: spans::Open, status: StatusCode, id: &HeaderValue, reason: Option<String>) {
    span.set("http.response.status_code", u64::from(status.as_u16()));
    span.set("unified_nats.request_id", id.to_str().unwrap_or_default());
    match status.is_server_error() {
        true => span.fail(status.as_str(), reason.unwrap_or_default()),
        false => span.end(),
    }
}

fn late() -> Problem {
    let message = "no answer in time (API_REQUEST_TIMEOUT); what was asked for may have been done";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, Code::Timeout, message)
}

const NDJSON: &[u8] = b"application/x-ndjson";

/// An error that was made without its words, as by a layer that knows nothing of ours.
fn of_others(response: &Response) -> Option<Problem> {
    let status = response.status();
    let is_ours = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        [&b"application/json"[..], b"application/problem+json", NDJSON].iter().any(|ours| kind.starts_with(ours))
    });
    if is_ours || !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    let (code, message) = match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            (Code::UnsupportedMediaType, "the Content-Encoding is none of gzip, zstd and identity")
        }
        StatusCode::PAYLOAD_TOO_LARGE => (Code::PayloadTooLarge, "the body is too long"),
        StatusCode::NOT_FOUND => (Code::NotFound, "there is nothing here"),
        StatusCode::METHOD_NOT_ALLOWED => (Code::MethodNotAllowed, "the method is not for that path"),
        _ if status.is_client_error() => (Code::InvalidParameters, "the request cannot be understood"),
        _ => (Code::InternalError, "the request failed inside the broker"),
    };
    Some(Problem::new(status, code, message))
}

/// What layers have said beside the problem, such as Allow, and what a browser needs.
fn keep(headers: &mut HeaderMap, kept: &HeaderMap) {
    for (name, value) in kept {
        if *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE {
            headers.append(name, value.clone());
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;

    const PATIENCE: Duration = Duration::from_secs(2);

    async fn answer(router: Router, path: &str) -> (Response<()>, serde_json::Value) {
        let router =
            router.layer(from_fn(|request: Request, next: Next| exchange(PATIENCE, Traffic::default(), request, next)));
        let request = Request::builder().uri(path).header(REQUEST_ID, "mine").body(Body::empty()).unwrap();
        let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, 1 << 16).await.unwrap();
        (Response::from_parts(parts, ()), serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_an_operation_that_forgets_its_deadline() {
        let started = Instant::now();
        let router = Router::new().route("/", get(std::future::pending::<&'static str>));
        let (response, body) = answer(router, "/").await;
        assert_eq!((response.status(), &body["error_code"]), (StatusCode::GATEWAY_TIMEOUT, &"TIMEOUT".into()));
        assert_eq!(response.headers()[REQUEST_ID], "mine");
        assert!(started.elapsed() <= PATIENCE + GRACE * 2);
    }

    #[tokio::test]
    async fn what_others_answer_without_words_comes_in_the_envelope() {
        let bare = |status: StatusCode| get(async move || (status, [(header::ALLOW, "GET"), (header::ALLOW, "HEAD")]));
        let router = Router::new()
            .route("/415", bare(StatusCode::UNSUPPORTED_MEDIA_TYPE))
            .route("/418", bare(StatusCode::IM_A_TEAPOT))
            .route("/502", bare(StatusCode::BAD_GATEWAY))
            .route("/json", get(async || (StatusCode::SERVICE_UNAVAILABLE, axum::Json("mine"))));
        for (path, code) in
            [("/415", "UNSUPPORTED_MEDIA_TYPE"), ("/418", "INVALID_PARAMETERS"), ("/502", "INTERNAL_ERROR")]
        {
            let (response, body) = answer(router.clone(), path).await;
            assert_eq!(response.status().as_str(), &path[1..]);
            assert_eq!(body["error_code"], code);
            assert!(response.headers().contains_key(header::ALLOW), "what was said beside is kept");
        }
        assert_eq!(answer(router.clone(), "/json").await.1, "mine");
        assert_eq!(answer(router, "/404").await.1["error_code"], "NOT_FOUND");
    }
}
