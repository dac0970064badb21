//! `POST /api/v1/broker/subjects/{subject}`: a payload as it is.

use axum::extract::{Extension, Request, State};
use axum::http::header;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::errors::{self, About};
use super::message::{self, invalid};
use super::publish::Published;
use super::state::{Acting, Api};
use crate::broker::{Expectations, Message};
use crate::http::Deadline;
use crate::http::body::{self, MaxBody, NoQuery, Path, Whole};
use crate::http::envelope::{Envelope, ErrorEnvelope, Problem};
use crate::settings::variables::NATS_MAX_PAYLOAD;

/// Stores the body as it is, whatever its type, up to NATS_MAX_PAYLOAD.
///
/// Nats-Msg-Id, Nats-Expected-* and Nats-TTL of the request go with the message, and so does its
/// Content-Type.
#[utoipa::path(
    post, path = "/api/v1/broker/subjects/{subject}", tag = "publish",
    params(
        ("subject" = String, Path, description = "Where to; no wildcards"),
        ("Idempotency-Key" = Option<String>, Header, description = "With the same one it is stored once"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = Envelope<Published>),
        (status = "default", body = ErrorEnvelope, description = "see error_code"),
    )
)]
async fn publish_raw(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Path(subject): Path<String>,
    NoQuery: NoQuery,
    mut request: Request,
) -> Result<Envelope<Published>, Problem> {
    let subject = message::subject(&subject)?;
    let headers = request.headers().clone();
    let most = api.settings().server.limits.max_payload.bytes();
    let bytes = usize::try_from(most).unwrap_or(usize::MAX);
    request.extensions_mut().insert(MaxBody { bytes, variable: NATS_MAX_PAYLOAD.name });
    let Whole(payload) = body::whole(request).await?;
    let mut message = Message {
        subject,
        payload,
        headers: async_nats::HeaderMap::new(),
        msg_id: None,
        expects: Expectations::default(),
    };
    for (name, value) in &headers {
        let name = name.as_str();
        if name.starts_with("nats-") {
            let text =
                value.to_str().map_err(|_| invalid(format!("header {name:?} is not of visible ASCII characters")))?;
            message.take_header(name, text)?;
        }
    }
    if let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) {
        message.headers.insert("Content-Type", kind);
    }
    message.take_request_headers(&headers)?;
    drop(headers);
    let stored = broker.publish(&message, deadline).await;
    let stored = stored.map_err(|failure| errors::of(failure, About::Message))?;
    Ok(Envelope::of("Message published successfully", Published::of(stored, message.subject)))
}

pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(publish_raw))
}
