//! `GET /api/v1/broker/tail`: messages as they come, as server-sent events.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::errors::{self, About};
use super::names;
use super::state::{Acting, Api};
use crate::broker::{End, From, Output, Point, Position, Tail, TailRequest};
use crate::domain::Subject;
use crate::http::Deadline;
use crate::http::body::Query;
use crate::http::envelope::{Code, ErrorEnvelope, Problem};

/// Between two signs of life while nothing comes.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events of one piece of the answer.
const PIECE: usize = 64;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TailQuery {
    /// A subject, or a filter with wildcards.
    subject: String,
    /// The stream, where several capture the subject.
    stream: Option<String>,
    /// A sequence, or a time of RFC 3339; without it, from now on.
    from: Option<String>,
    /// `last`: the last message of each matching subject first, then everything after those.
    snapshot: Option<String>,
    /// The id of the last event that was seen, for clients that cannot send Last-Event-ID, which goes before it.
    resume: Option<String>,
}

/// What both ways of following a subject say about where to begin.
pub struct Beginning<'a> {
    pub from: Option<&'a str>,
    pub snapshot: Option<&'a str>,
    /// What the client has seen; it goes before both.
    pub resume: Option<&'a str>,
}

pub fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, Code::InvalidParameters, message)
}

/// A subject to read, with wildcards or without.
pub fn filter(text: &str) -> Result<Subject, Problem> {
    text.parse()
        .map_err(|error| invalid(format!("the subject {error}")).with_details(json!({ "parameter": "subject" })))
}

/// A stream that a client names, of whoever made it.
pub fn stream_name(text: Option<String>) -> Result<Option<String>, Problem> {
    text.map(|name| names::checked("stream", name)).transpose()
}

pub fn point(name: &str, text: Option<&str>) -> Result<Option<Point>, Problem> {
    let read = |text: &str| {
        text.parse().map_err(|error| invalid(format!("{name} {error}")).with_details(json!({ "parameter": name })))
    };
    text.map(read).transpose()
}

impl Beginning<'_> {
    pub fn read(self) -> Result<From, Problem> {
        let from = point("from", self.from)?;
        let is_snapshot = match self.snapshot {
            None => false,
            Some("last") => true,
            Some(_) => return Err(invalid("snapshot must be last").with_details(json!({ "parameter": "snapshot" }))),
        };
        if let Some(id) = self.resume {
            let position = id.parse::<Position>();
            let refusal =
                |error| invalid(format!("cannot resume from {id:?}: {error}")).with_details(json!({ "id": id }));
            return position.map(From::Position).map_err(refusal);
        }
        match (from, is_snapshot) {
            (Some(_), true) => Err(invalid("from and snapshot exclude each other")),
            (Some(point), false) => Ok(From::Point(point)),
            (None, true) => Ok(From::LastOfEach),
            (None, false) => Ok(From::Now),
        }
    }
}

/// Messages as they come, as server-sent events.
///
/// Each event is a message, its data a JSON object on one line, its id where to resume (`Last-Event-ID`).
/// An event `gap` names messages that cannot be delivered, an event `end` why nothing follows.
#[utoipa::path(
    get, path = "/api/v1/broker/tail", tag = "messages",
    params(TailQuery, ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen")),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = "default", body = ErrorEnvelope, description = "see error_code"),
    )
)]
async fn tail(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    headers: HeaderMap,
    Query(query): Query<TailQuery>,
) -> Result<Response, Problem> {
    let header = headers.get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let beginning = Beginning {
        from: query.from.as_deref(),
        snapshot: query.snapshot.as_deref(),
        // Event sources without an id may send an empty one.
        resume: header.as_deref().filter(|id| !id.is_empty()).or(query.resume.as_deref()),
    };
    let request = TailRequest {
        subject: filter(&query.subject)?,
        from: beginning.read()?,
        stream: stream_name(query.stream)?,
        is_patient: false,
    };
    let tail = broker.tail(request, deadline).await.map_err(|failure| errors::of(failure, About::Other))?;
    let body = Body::from_stream(events(tail, api.shutdown.clone()).fuse());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    // Proxies shall not collect it.
    Ok((headers, [("x-accel-buffering", "no")], body).into_response())
}

/// The text of the answer, piece by piece, as the client takes it.
fn events(
    tail: Tail,
    shutdown: CancellationToken,
) -> impl stream::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let begin = Bytes::from_static(b"retry: 1000\n\n");
    stream::unfold((Some(tail), Some(begin), shutdown), |(tail, begin, shutdown)| async move {
        if let Some(begin) = begin {
            return Some((Ok(begin), (tail, None, shutdown)));
        }
        let mut tail = tail?;
        let output = tokio::select! {
            biased;
            () = shutdown.cancelled() => Some(Output::End(End::shutting_down())),
            output = tail.next(PIECE) => Some(output),
            () = tokio::time::sleep(KEEP_ALIVE) => None,
        };
        Some(match output {
            Some(Output::Events(events)) => {
                let piece = match events.as_slice() {
                    [only] => only.sse(),
                    several => several.iter().map(|event| event.sse()).collect::<Vec<_>>().concat().into(),
                };
                (Ok(piece), (Some(tail), None, shutdown))
            }
            Some(Output::End(end)) => {
                let data = json!({ "reason": end.reason, "message": end.message });
                (Ok(format!("event: end\ndata: {data}\n\n").into()), (None, None, shutdown))
            }
            None => (Ok(Bytes::from_static(b": keep-alive\n\n")), (Some(tail), None, shutdown)),
        })
    })
}

pub fn routes() -> utoipa_axum::router::OpenApiRouter<Api> {
    utoipa_axum::router::OpenApiRouter::new().routes(utoipa_axum::routes!(tail))
}
