//! `/api/v1/broker/streams/{name}/consumers`.

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::errors::{self, About};
use super::names::{self, Paging};
use super::options::{self, ConsumerBody, Named};
use super::state::{Acting, Api};
use crate::broker::Failure;
use crate::http::Deadline;
use crate::http::body::{NoQuery, Path, Query, Whole};
use crate::http::envelope::{Code, Envelope, ErrorEnvelope, Problem};
use crate::nats::ConsumerInfo;
use crate::settings::declared::bodies;
use crate::settings::declared::options::CONSUMER;

/// A consumer and how far it has come; durations are seconds, sizes bytes.
#[derive(Serialize, ToSchema)]
pub struct Consumer {
    stream: String,
    name: String,
    /// When it was made.
    created: String,
    #[schema(value_type = Object)]
    config: Map<String, Value>,
    /// Messages that it has not delivered yet.
    num_pending: u64,
    /// Deliveries that it waits for.
    num_ack_pending: u64,
    num_redelivered: u64,
    /// Requests for messages that wait.
    num_waiting: u64,
    /// The last one that was delivered.
    #[schema(value_type = Object)]
    delivered: Value,
    /// Up to where everything is acknowledged.
    #[schema(value_type = Object)]
    ack_floor: Value,
    /// Whether it gives nothing just now.
    paused: bool,
}

impl Consumer {
    fn of(stream: &str, info: &ConsumerInfo) -> Self {
        let field = |name: &str| info.state.get(name);
        let number = |name: &str| field(name).and_then(Value::as_u64).unwrap_or_default();
        Self {
            stream: stream.to_owned(),
            name: info.name.clone(),
            created: field("created").and_then(Value::as_str).unwrap_or_default().to_owned(),
            config: bodies::described(CONSUMER, &info.config),
            num_pending: number("num_pending"),
            num_ack_pending: number("num_ack_pending"),
            num_redelivered: number("num_redelivered"),
            num_waiting: number("num_waiting"),
            delivered: field("delivered").cloned().unwrap_or_default(),
            ack_floor: field("ack_floor").cloned().unwrap_or_default(),
            paused: field("paused").and_then(Value::as_bool).unwrap_or_default(),
        }
    }
}

/// Consumers in the order of their names.
#[derive(Serialize, ToSchema)]
pub struct ConsumerPage {
    consumers: Vec<Consumer>,
    /// On all pages.
    total: usize,
    /// Asks for the next page, where there is one.
    cursor: Option<String>,
    /// Consumers of this page that exist and do not answer just now.
    unknown: Vec<String>,
}

/// What became of a consumer that was asked for.
#[derive(Serialize, ToSchema)]
pub struct ConsumerOutcome {
    #[serde(flatten)]
    consumer: Consumer,
    /// It was made just now.
    is_new: bool,
}

const DATA: Code = Code::InvalidParameters;

fn failed(failure: Failure) -> Problem {
    errors::of(failure, About::Other)
}

/// Makes a durable consumer that is asked for messages. One that exists with the same configuration is as
/// good as made; one with another is 409, and the answer names what differs.
#[utoipa::path(post, path = "/api/v1/broker/streams/{name}/consumers", tag = "consumers",
    params(("name" = String, Path)),
    request_body(content = ConsumerBody, content_type = "application/json"),
    responses((status = 200, body = Envelope<ConsumerOutcome>), (status = "default", body = ErrorEnvelope)))]
async fn create(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Path(stream): Path<String>,
    NoQuery: NoQuery,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Envelope<ConsumerOutcome>, Problem> {
    let stream = names::checked("stream", stream)?;
    let named = Named::read(&headers, &body, &["durable_name"], DATA)?;
    let name = named.name(DATA)?;
    let of = broker.stream(&stream, deadline).await.map_err(failed)?;
    let consumer = bodies::consumer(name, &named.options, (&stream, &of.config));
    let consumer = consumer.map_err(|faults| options::refused(faults, DATA))?;
    let made = broker.create_consumer(&of, consumer, &api.declared.desired(), deadline).await;
    let (info, is_new) = made.map_err(failed)?;
    let message = match is_new {
        true => "Consumer created successfully",
        false => "Consumer exists with this configuration",
    };
    Ok(Envelope::of(message, ConsumerOutcome { consumer: Consumer::of(&stream, &info), is_new }))
}

/// Lists the consumers of a stream.
#[utoipa::path(get, path = "/api/v1/broker/streams/{name}/consumers", tag = "consumers",
    params(("name" = String, Path), Paging),
    responses((status = 200, body = Envelope<ConsumerPage>), (status = "default", body = ErrorEnvelope)))]
async fn list(
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Path(stream): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Envelope<ConsumerPage>, Problem> {
    let stream = names::checked("stream", stream)?;
    let (limit, after) = (paging.limit()?, paging.after::<String>()?);
    let page = broker.consumers(&stream, after.as_deref(), limit, deadline).await.map_err(failed)?;
    let data = ConsumerPage {
        consumers: page.items.iter().map(|info| Consumer::of(&stream, info)).collect(),
        total: page.total,
        cursor: page.next.as_ref().and_then(names::cursor),
        unknown: page.unknown,
    };
    Ok(Envelope::of("Consumers retrieved successfully", data))
}

/// One consumer.
#[utoipa::path(get, path = "/api/v1/broker/streams/{name}/consumers/{consumer}", tag = "consumers",
    params(("name" = String, Path), ("consumer" = String, Path)),
    responses((status = 200, body = Envelope<Consumer>), (status = "default", body = ErrorEnvelope)))]
async fn get(
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Path((stream, consumer)): Path<(String, String)>,
    NoQuery: NoQuery,
) -> Result<Envelope<Consumer>, Problem> {
    let (stream, consumer) = both(stream, consumer)?;
    let info = broker.consumer(&stream, &consumer, deadline).await.map_err(failed)?;
    Ok(Envelope::of("Consumer retrieved successfully", Consumer::of(&stream, &info)))
}

/// The two names of a path.
pub fn both(stream: String, consumer: String) -> Result<(String, String), Problem> {
    Ok((names::checked("stream", stream)?, names::checked("consumer", consumer)?))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Forced {
    /// Also where the settings declare the consumer, and will bring it back as they say.
    #[serde(default)]
    force: bool,
}

/// What was deleted.
#[derive(Serialize, ToSchema)]
pub struct DeletedConsumer {
    stream: String,
    name: String,
}

/// Deletes a consumer; the messages stay.
#[utoipa::path(delete, path = "/api/v1/broker/streams/{name}/consumers/{consumer}", tag = "consumers",
    params(("name" = String, Path), ("consumer" = String, Path), Forced),
    responses((status = 200, body = Envelope<DeletedConsumer>), (status = "default", body = ErrorEnvelope)))]
async fn delete(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Path((stream, consumer)): Path<(String, String)>,
    Query(Forced { force }): Query<Forced>,
) -> Result<Envelope<DeletedConsumer>, Problem> {
    let (stream, name) = both(stream, consumer)?;
    let declared = api.declared.desired();
    broker.delete_consumer(&stream, &name, &declared, force, deadline).await.map_err(failed)?;
    Ok(Envelope::of("Consumer deleted successfully", DeletedConsumer { stream, name }))
}

pub fn routes() -> utoipa_axum::router::OpenApiRouter<Api> {
    utoipa_axum::router::OpenApiRouter::new()
        .routes(utoipa_axum::routes!(create, list))
        .routes(utoipa_axum::routes!(get, delete))
}
