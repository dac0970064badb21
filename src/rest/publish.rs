//! `POST /api/v1/broker/publish` and its older sister `POST /api/v1/publish`.

use axum::Json;
use axum::extract::Extension;
use axum::http;
use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::errors::{self, About};
use super::message::PublishRequest;
use super::state::{Acting, Api};
use crate::broker::{Broker, Message, Stored};
use crate::domain::Subject;
use crate::http::Deadline;
use crate::http::body::{self, NoQuery, Whole};
use crate::http::envelope::{Code, Envelope, ErrorEnvelope, Problem};

/// What JetStream acknowledged.
#[derive(Serialize, ToSchema)]
pub struct Published {
    pub stream: String,
    pub sequence: u64,
    /// A message of the same id had been stored before; this one was not.
    pub duplicate: bool,
    pub subject: String,
}

impl Published {
    pub fn of(stored: Stored, subject: Subject) -> Self {
        let Stored { stream, sequence, duplicate } = stored;
        Self { stream, sequence, duplicate, subject: subject.into() }
    }
}

/// Stores a message. It is answered once JetStream has acknowledged it.
#[utoipa::path(
    post, path = "/api/v1/broker/publish", tag = "publish",
    request_body(content = PublishRequest, content_type = "application/json"),
    params(("Idempotency-Key" = Option<String>, Header, description = "The same as msg_id")),
    responses(
        (status = 200, body = Envelope<Published>),
        (status = "default", body = ErrorEnvelope, description = "see error_code"),
    )
)]
pub async fn publish(
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    NoQuery: NoQuery,
    headers: http::HeaderMap,
    Whole(body): Whole,
) -> Result<Envelope<Published>, Problem> {
    let published = publish_body(&broker, headers, body, deadline).await?;
    Ok(Envelope::of("Message published successfully", published))
}

/// The same, in the words of the first generation of clients.
#[derive(Serialize, ToSchema)]
pub struct Success {
    success: bool,
}

/// Stores a message; the answer says only that it was.
#[utoipa::path(
    post, path = "/api/v1/publish", tag = "publish",
    request_body(content = PublishRequest, content_type = "application/json"),
    responses((status = 200, body = Success), (status = "default", body = ErrorEnvelope, description = "see error_code"))
)]
pub async fn publish_plainly(
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    headers: http::HeaderMap,
    Whole(body): Whole,
) -> Result<Json<Success>, Problem> {
    publish_body(&broker, headers, body, deadline).await?;
    Ok(Json(Success { success: true }))
}

async fn publish_body(
    broker: &Broker,
    headers: http::HeaderMap,
    body: Bytes,
    deadline: Instant,
) -> Result<Published, Problem> {
    let message = read(&headers, &body)?;
    // Both are pieces of what the connection reads into: without them it takes those buffers again while the
    // message is on its way.
    drop((headers, body));
    let stored = broker.publish(&message, deadline).await;
    let stored = stored.map_err(|failure| errors::of(failure, About::Message))?;
    Ok(Published::of(stored, message.subject))
}

fn read(headers: &http::HeaderMap, body: &[u8]) -> Result<Message, Problem> {
    body::require_json(headers)?;
    let request: PublishRequest = body::parse_object(body, Code::InvalidMessageData)?;
    request.into_message(headers)
}

/// Answers of this file, for the router.
pub fn routes() -> utoipa_axum::router::OpenApiRouter<Api> {
    utoipa_axum::router::OpenApiRouter::new()
        .routes(utoipa_axum::routes!(publish))
        .routes(utoipa_axum::routes!(publish_plainly))
}
