//! `GET /api/v1/broker/replay`: a range of a stream as lines of JSON.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tower_http::compression::CompressionLayer;
use utoipa::IntoParams;

use super::errors::{self, About};
use super::state::{Acting, Api};
use super::tail::{filter, invalid, point, stream_name};
use crate::broker::{Range, ReplayRequest, Speed};
use crate::http::Deadline;
use crate::http::body::Query;
use crate::http::envelope::{ErrorEnvelope, Problem};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReplayQuery {
    /// A subject, or a filter with wildcards.
    subject: String,
    /// The stream, where several capture the subject.
    stream: Option<String>,
    /// The first sequence, or the time of the first message (RFC 3339, with fractions); without it the
    /// beginning of the stream.
    from: Option<String>,
    /// The last sequence or time, which belongs to the range; never more than what was there when the
    /// request came.
    to: Option<String>,
    /// `max`, or how many times as fast as the messages came.
    speed: Option<String>,
}

/// A range of a stream as NDJSON: a message on each line.
///
/// The last line is `{"end":{"complete":…,"messages":…,"first":…,"last":…}}`; where it is not complete it says
/// why. An answer without that line was cut. A line `{"gap":{"from":…,"to":…,"reason":…}}` names messages that
/// are not there any more.
#[utoipa::path(
    get, path = "/api/v1/broker/replay", tag = "messages",
    params(ReplayQuery),
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson"),
        (status = "default", body = ErrorEnvelope, description = "see error_code"),
    )
)]
async fn replay(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Query(query): Query<ReplayQuery>,
) -> Result<Response, Problem> {
    let (from, to) = (point("from", query.from.as_deref())?, point("to", query.to.as_deref())?);
    let range = Range::new(from, to)
        .map_err(|error| invalid(error.to_string()).with_details(json!({ "from": query.from, "to": query.to })))?;
    let speed = query.speed.as_deref().unwrap_or("max").parse::<Speed>();
    let speed = speed.map_err(|rule| invalid(format!("speed {rule}")).with_details(json!({ "parameter": "speed" })))?;
    let request = ReplayRequest { subject: filter(&query.subject)?, stream: stream_name(query.stream)?, range, speed };
    let replay = broker.replay(request, deadline).await.map_err(|failure| errors::of(failure, About::Other))?;
    let (lines, chunks) = mpsc::channel(1);
    // It ends with the answer.
    let running = AbortOnDropHandle::new(tokio::spawn(replay.run(lines, api.shutdown.clone())));
    let chunks = stream::unfold(Some((chunks, running)), |answer| async move {
        let (mut chunks, running): (mpsc::Receiver<Option<Bytes>>, _) = answer?;
        match chunks.recv().await {
            Some(Some(chunk)) => Some((Ok(chunk), Some((chunks, running)))),
            Some(None) => None,
            // Neither shall the connection end as if all was well.
            None => Some((Err("the replay was cut"), None)),
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(chunks.fuse())).into_response())
}

pub fn routes() -> utoipa_axum::router::OpenApiRouter<Api> {
    utoipa_axum::router::OpenApiRouter::new().routes(utoipa_axum::routes!(replay)).layer(CompressionLayer::new())
}
