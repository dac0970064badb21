//! Bodies and queries as typed values, or a problem that names what is wrong.

use std::error::Error;
use std::io;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as HttpBody;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::timeout_at;

use super::envelope::{Code, Problem};
use super::exchange::Deadline;

/// The most that a body may hold, after decompression.
#[derive(Clone, Copy, Debug)]
pub struct MaxBody {
    pub bytes: usize,
    /// The variable that says so.
    pub variable: &'static str,
}

/// A client that says this sends its body only once it is asked for it.
const CONTINUE: &[u8] = b"100-continue";

/// A body as it came, read within the limit and the deadline of the request.
pub struct Whole(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        whole(request).await
    }
}

/// The same, for a handler that looks at the request first.
pub async fn whole(request: Request) -> Result<Whole, Problem> {
    let deadline = request.extensions().get::<Deadline>().copied();
    let most = request.extensions().get::<MaxBody>().copied().unwrap_or(MaxBody { bytes: usize::MAX, variable: "" });
    require_short(&request, most)?;
    let body = request.into_body();
    let read = read(body, most);
    match deadline {
        Some(Deadline(deadline)) => timeout_at(deadline, read).await.unwrap_or_else(|_| Err(stalled())),
        None => read.await,
    }
    .map(Whole)
}

/// Refuses a body that is too long before the client has sent it: the first read would ask for all of it.
fn require_short(request: &Request, most: MaxBody) -> Result<(), Problem> {
    let expected = request.headers().get(header::EXPECT);
    let waits = expected.is_some_and(|what| what.as_bytes().eq_ignore_ascii_case(CONTINUE));
    match waits && HttpBody::size_hint(request.body()).lower() > most.bytes as u64 {
        true => Err(too_large(most)),
        false => Ok(()),
    }
}

async fn read(body: Body, most: MaxBody) -> Result<Bytes, Problem> {
    match Limited::new(body, most.bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if is_of_length(&*error) => Err(too_large(most)),
        Err(error) => {
            let message = format!("the body cannot be read: {error}");
            Err(Problem::new(StatusCode::BAD_REQUEST, Code::InvalidParameters, message))
        }
    }
}

/// Whether a body, decompressed or not, was longer than allowed.
fn is_of_length(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            // The source of such an error is that of what it wraps, not what it wraps.
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// Bounds what is read of a compressed body before it is decompressed: one may be long and hold little. Lines
/// of JSON have no end; who reads them bounds each.
pub fn bound_compressed(request: Request, most: MaxBody) -> Result<Request, Problem> {
    if !request.headers().contains_key(header::CONTENT_ENCODING) || is_of_lines(request.headers()) {
        return Ok(request);
    }
    require_short(&request, most)?;
    Ok(request.map(|body| Body::new(Limited::new(body, most.bytes))))
}

/// Whether the body says that it is lines of JSON.
pub fn is_of_lines(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"]
        .contains(&essence.as_str())
}

fn too_large(most: MaxBody) -> Problem {
    let MaxBody { bytes, variable } = most;
    let message = format!("the body is longer than {bytes} bytes ({variable})");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge, message).with_details(json!({ "limit": bytes }))
}

fn stalled() -> Problem {
    let message = "the body did not come in time (API_REQUEST_TIMEOUT)";
    Problem::new(StatusCode::REQUEST_TIMEOUT, Code::Timeout, message)
}

/// Refuses a body that says it is something else than JSON. One that says nothing is taken for it.
pub fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") {
        return Ok(());
    }
    let message = format!("the body must be application/json, not {essence:?}");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::UnsupportedMediaType, message))
}

/// Reads a JSON body; `code` tells what kind of thing it was to be.
pub fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8], code: Code) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| of_json(&error, code))
}

/// The same of what is an object: a list would be taken for its fields, in their order.
pub fn parse_object<'a, T: serde::Deserialize<'a>>(body: &'a [u8], code: Code) -> Result<T, Problem> {
    match body.trim_ascii_start().first() {
        Some(b'[') => Err(Problem::new(StatusCode::BAD_REQUEST, code, "the JSON body must be an object, not a list")),
        _ => parse(body, code),
    }
}

/// What serde_json found, with the nearest of the fields that there are for one that there is not.
pub fn of_json(error: &serde_json::Error, code: Code) -> Problem {
    let text = error.to_string();
    let problem = |message: String| Problem::new(StatusCode::BAD_REQUEST, code, message);
    let Some((field, expected)) = unknown_field(&text) else {
        return problem(format!("the JSON body is not as expected: {text}"));
    };
    let nearest = nearest(field, &expected);
    let hint = nearest.map(|nearest| format!("; did you mean {nearest:?}?")).unwrap_or_default();
    problem(format!("unknown field {field:?}{hint}"))
        .with_details(json!({ "field": field, "nearest": nearest, "known": expected }))
}

/// The field and those that there are, out of serde's words.
fn unknown_field(text: &str) -> Option<(&str, Vec<&str>)> {
    let rest = text.strip_prefix("unknown field `")?;
    // The client's field may hold anything, so the last of serde's words are looked for.
    let (field, rest) = rest.rsplit_once("`, expected ").or_else(|| rest.rsplit_once("`, there are no fields"))?;
    let known = rest.split('`').skip(1).step_by(2).filter(|word| !word.is_empty()).collect();
    Some((field, known))
}

/// The one that is spelled most like it, if any is.
pub fn nearest<'a>(word: &str, of: &[&'a str]) -> Option<&'a str> {
    let likeness = |other: &str| strsim::jaro_winkler(&word.to_lowercase(), other);
    let best = of.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.75).then_some(*best)
}

/// The query as a typed value; unknown parameters are refused.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let text = rejection.body_text();
                let reason = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
                // The name of the field may stand before it.
                let unknown = reason.find("unknown field `").map_or(reason, |at| &reason[at..]);
                let problem = |message| Problem::new(StatusCode::BAD_REQUEST, Code::InvalidParameters, message);
                let Some((field, expected)) = unknown_field(unknown) else {
                    return Err(problem(format!("the query is not as expected: {reason}")));
                };
                let nearest = nearest(field, &expected);
                let hint = nearest.map(|nearest| format!("; did you mean {nearest:?}?")).unwrap_or_default();
                let details = json!({ "parameter": field, "nearest": nearest, "known": expected });
                Err(problem(format!("unknown parameter {field:?}{hint}")).with_details(details))
            }
        }
    }
}

/// For a request that takes no parameters: one that gives some is refused, because what they ask for would
/// not be done.
pub struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        Query::<Nothing>::from_request_parts(parts, state).await.map(|_| Self)
    }
}

/// Parts of the path, decoded.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(rejection) => {
                let message = format!("the path is not as expected: {}", rejection.body_text());
                Err(Problem::new(StatusCode::BAD_REQUEST, Code::InvalidParameters, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "it is only read")]
    struct Sample {
        subject: String,
        message: Option<u64>,
    }

    fn refusal(body: &str) -> Problem {
        parse::<Sample>(body.as_bytes(), Code::InvalidMessageData).unwrap_err()
    }

    #[test]
    fn an_unknown_field_is_named_with_the_nearest() {
        let problem = refusal(r#"{"subjet": "a"}"#);
        assert!(problem.message.starts_with("unknown field \"subjet\"; did you mean \"subject\"?"), "{problem:?}");
        let details = problem.details.unwrap();
        assert_eq!(details["nearest"], "subject");
        assert_eq!(details["known"], json!(["subject", "message"]));
        let odd = refusal(r#"{"`, expected `": "a"}"#);
        assert!(odd.message.contains("unknown field"), "{odd:?}");
        let none = refusal(r#"{"zzz": 1}"#);
        assert_eq!(none.details.unwrap()["nearest"], serde_json::Value::Null);
    }

    #[test]
    fn other_faults_are_told_with_their_place() {
        for body in ["", "{", "[]", r#"{"subject":1}"#, r#"{"subject":"a","subject":"b"}"#, "\u{feff}{}"] {
            let problem = refusal(body);
            assert_eq!(problem.code, Code::InvalidMessageData);
            assert!(problem.message.contains("line 1"), "{problem:?}");
        }
    }
}
