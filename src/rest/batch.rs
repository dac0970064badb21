//! `POST /api/v1/broker/publish/batch`: many messages on one request, each with its own outcome.

mod lines;

pub use lines::lines_of;

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::errors::{self, About};
use super::message::{PublishRequest, check_id, idempotency_key, invalid};
use super::publish::Published;
use super::state::{Acting, Api};
use crate::broker::{Broker, LARGEST_ATOMIC_BATCH, Message, Sent, Within};
use crate::http::Deadline;
use crate::http::body::{self, Query, Whole};
use crate::http::envelope::{Code, Envelope, ErrorEnvelope, Problem};

/// Messages of one array at most; lines have no such bound.
const LARGEST_ARRAY: usize = 10_000;

#[derive(Clone, Copy, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BatchQuery {
    /// All or nothing, on one stream with allow_atomic.
    #[serde(default)]
    atomic: bool,
    /// Which outcomes the answer lists.
    #[serde(default)]
    #[param(inline)]
    results: Results,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Results {
    #[default]
    All,
    /// Those of messages that were not stored, or are not known to be.
    Failed,
}

/// What became of one message, by its place in the request.
#[derive(Serialize, ToSchema)]
pub struct Outcome {
    index: usize,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize, ToSchema)]
#[serde(tag = "status", rename_all = "lowercase")]
enum What {
    Success(Published),
    Error {
        error_code: Code,
        /// What it would have been for the message alone.
        http_status: u16,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<serde_json::Value>,
    },
}

impl Outcome {
    fn of(index: usize, sent: Sent<Problem>) -> Self {
        let problem = match sent {
            Sent::Stored(stored, message) => {
                return Self { index, what: What::Success(Published::of(stored, message.subject)) };
            }
            Sent::Failed(failure) => errors::of(failure, About::Message),
            Sent::NoMessage(problem) => problem,
        };
        let Problem { status, code, message, details, .. } = problem;
        Self { index, what: What::Error { error_code: code, http_status: status.as_u16(), message, details } }
    }

    /// What it would have been for the message alone.
    fn status(&self) -> StatusCode {
        match &self.what {
            What::Success(_) => StatusCode::OK,
            What::Error { http_status, .. } => {
                StatusCode::from_u16(*http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    fn is_success(&self) -> bool {
        matches!(self.what, What::Success(_))
    }
}

/// What became of all of them.
#[derive(Serialize, ToSchema)]
struct BatchOutcome {
    published: usize,
    failed: usize,
    /// In the order of the request.
    results: Vec<Outcome>,
}

/// Stores many messages, pipelined, in their order.
///
/// As a JSON array, or as lines of JSON (`application/x-ndjson`) that are answered line by line as they are
/// stored. An Idempotency-Key gives each message that has no id of its own one: the key, a colon and its
/// index.
#[utoipa::path(
    post, path = "/api/v1/broker/publish/batch", tag = "publish", params(BatchQuery),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the whole batch repeatable")),
    request_body(content(
        (Vec<PublishRequest> = "application/json"), (PublishRequest = "application/x-ndjson"),
    )),
    responses(
        (status = 200, body = Envelope<BatchOutcome>, description = "all were stored"),
        (status = 207, body = Envelope<BatchOutcome>, description = "some were not, or the answer began before the end of the request"),
        (status = "default", body = ErrorEnvelope, description = "see error_code"),
    )
)]
async fn publish_batch(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Query(query): Query<BatchQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let entries = Entries::new(headers)?;
    if body::is_of_lines(&entries.headers) {
        if query.atomic {
            return Err(invalid("an atomic batch is a JSON array, so that its end is known before it is sent"));
        }
        let patience = api.settings().api.request_timeout;
        let longest = request.extensions().get::<body::MaxBody>().map_or(1 << 20, |most| most.bytes);
        let lines = lines::outcomes(broker, entries, request.into_body(), longest, patience);
        return Ok(lines::answer(lines, deadline, query.results).await);
    }
    body::require_json(&entries.headers)?;
    let Whole(body) = body::whole(request).await?;
    let array = entries_of(&body)?;
    // Read as they are sent: nats-server stores the first while the last are read.
    let messages = array.into_iter().enumerate().map(move |(index, entry)| entries.read(index, &entry));
    if query.atomic {
        return publish_atomically(&broker, messages.collect(), deadline).await.map(IntoResponse::into_response);
    }
    let sent = broker.publish_all(stream::iter(messages).boxed(), Within::Until(deadline));
    let mut outcomes = pin!(sent.enumerate().map(|(index, sent)| Outcome::of(index, sent)));
    let (mut published, mut listed) = (0, vec![]);
    while let Some(outcome) = outcomes.next().await {
        published += usize::from(outcome.is_success());
        if query.results == Results::All || !outcome.is_success() {
            listed.push(outcome);
        }
    }
    Ok(answer(published, listed))
}

/// How the entries of one request are read.
struct Entries {
    headers: HeaderMap,
    /// Begins the ids of messages that have none.
    key: Option<String>,
    /// The headers without the key, for what goes into each message.
    of_each: HeaderMap,
}

impl Entries {
    fn new(headers: HeaderMap) -> Result<Self, Problem> {
        let mut of_each = headers.clone();
        let key = idempotency_key(&headers)?.map(str::to_owned);
        if let Some(key) = &key {
            check_id(key)?;
        }
        of_each.remove("idempotency-key");
        Ok(Self { headers, key, of_each })
    }

    fn read(&self, index: usize, entry: &[u8]) -> Result<Message, Problem> {
        let request: PublishRequest = body::parse_object(entry, Code::InvalidMessageData)?;
        let mut message = request.into_message(&self.of_each)?;
        if let (None, Some(key)) = (&message.msg_id, &self.key) {
            message.take_msg_id(&format!("{key}:{index}"))?;
        }
        Ok(message)
    }
}

/// The texts of the entries of an array.
fn entries_of(body: &Bytes) -> Result<Vec<Bytes>, Problem> {
    let Array { entries, others } = body::parse(body, Code::InvalidMessageData)?;
    if entries.is_empty() {
        return Err(invalid("the batch is empty"));
    }
    if others > 0 {
        let message = format!(
            "the array has {} messages, and takes {LARGEST_ARRAY} at most; lines of application/x-ndjson have no such bound",
            entries.len() + others
        );
        let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge, message);
        return Err(problem.with_details(json!({ "limit": LARGEST_ARRAY })));
    }
    Ok(entries.into_iter().map(|entry| body.slice_ref(entry.get().as_bytes())).collect())
}

/// The first entries of an array; of those beyond the bound only the number is kept.
struct Array<'a> {
    entries: Vec<&'a RawValue>,
    others: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Array<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Array<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Array<'de>, A::Error> {
                let (mut entries, mut others) = (Vec::new(), 0);
                while entries.len() < LARGEST_ARRAY {
                    match array.next_element()? {
                        Some(entry) => entries.push(entry),
                        None => return Ok(Array { entries, others }),
                    }
                }
                while array.next_element::<IgnoredAny>()?.is_some() {
                    others += 1;
                }
                Ok(Array { entries, others })
            }
        }
        deserializer.deserialize_seq(Entries)
    }
}

/// Success when all are stored, 207 when some are. When none is known to be, what is unknown counts before
/// what is known to have failed. `results` are those that are listed, and always those that failed.
fn answer(published: usize, results: Vec<Outcome>) -> Response {
    let failed = results.iter().filter(|outcome| !outcome.is_success()).count();
    let worst = results.iter().find(|outcome| outcome.status() == StatusCode::GATEWAY_TIMEOUT).or(results.first());
    if published == 0
        && let Some(worst) = worst
        && let What::Error { error_code, message, .. } = &worst.what
    {
        let status = worst.status();
        let message = format!("no message of the batch is known to be stored; {}: {message}", worst.index);
        let mut problem = Problem::new(status, *error_code, message);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            problem = problem.retry_after(1);
        }
        return problem.with_details(json!({ "published": 0, "failed": failed, "results": results })).into_response();
    }
    let status = if failed == 0 { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    let message = format!("{published} messages published, {failed} failed");
    (status, Envelope::of(message, BatchOutcome { published, failed, results })).into_response()
}

/// What became of a batch that is stored as a whole.
#[derive(Serialize, ToSchema)]
struct AtomicOutcome {
    published: usize,
    failed: usize,
    stream: String,
    /// Of the first message and of the last.
    first_sequence: u64,
    sequence: u64,
}

async fn publish_atomically(
    broker: &Broker,
    messages: Vec<Result<Message, Problem>>,
    deadline: Instant,
) -> Result<Envelope<AtomicOutcome>, Problem> {
    if messages.len() > LARGEST_ATOMIC_BATCH {
        let message =
            format!("an atomic batch has at most {LARGEST_ATOMIC_BATCH} messages, this one {}", messages.len());
        return Err(invalid(message).with_details(json!({ "limit": LARGEST_ATOMIC_BATCH })));
    }
    let at = |index: usize| {
        move |problem: Problem| {
            let message = format!("message {index} of the batch: {}", problem.message);
            Problem { message, ..problem }
        }
    };
    let messages: Vec<Message> = messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| message.map_err(at(index)))
        .collect::<Result<_, _>>()?;
    let stored = broker.publish_atomically(&messages, deadline).await;
    let stored = stored.map_err(|failure| errors::of(failure, About::Message))?;
    let published = messages.len();
    let outcome = AtomicOutcome {
        published,
        failed: 0,
        stream: stored.stream,
        first_sequence: (stored.sequence + 1).saturating_sub(published as u64),
        sequence: stored.sequence,
    };
    Ok(Envelope::of(format!("{published} messages published as one"), outcome))
}

pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(publish_batch))
}

/// For how long a line may be waited for.
type Patience = Duration;

/// The body of an answer that is made line by line.
fn lines_response(status: StatusCode, body: Body) -> Response {
    let mut response = (status, [(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
