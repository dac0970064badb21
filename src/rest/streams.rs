//! `/api/v1/broker/streams`, and `/api/v1/streams` as the first generation of clients has it.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::errors::{self, About};
use super::names::{self, Paging};
use super::options::{self, Named, StreamBody};
use super::state::{Acting, Api};
use crate::broker::{Difference, Failure, Provisioned};
use crate::domain::Subject;
use crate::http::Deadline;
use crate::http::body::{self, NoQuery, Path, Query, Whole};
use crate::http::envelope::{Code, Envelope, ErrorEnvelope, Problem};
use crate::nats::{Purge, StreamInfo};
use crate::settings::declared::bodies;
use crate::settings::declared::options::STREAM;
use crate::streams::DesiredStream;

/// A stream in short.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamSummary)]
pub struct Summary {
    name: String,
    subjects: Vec<String>,
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    consumer_count: u64,
}

/// A stream, with its configuration: durations are seconds, sizes bytes.
#[derive(Serialize, ToSchema)]
pub struct Stream {
    #[serde(flatten)]
    summary: Summary,
    /// When it was made.
    created: String,
    /// When its first message came, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_time: Option<String>,
    /// Sequences between the first and the last that hold no message.
    num_deleted: u64,
    #[schema(value_type = Object)]
    config: Map<String, Value>,
}

impl From<&StreamInfo> for Summary {
    fn from(info: &StreamInfo) -> Self {
        let subjects = info.config.get("subjects").and_then(Value::as_array).into_iter().flatten();
        let state = &info.state;
        Self {
            name: info.name().to_owned(),
            subjects: subjects.filter_map(Value::as_str).map(str::to_owned).collect(),
            messages: state.messages,
            bytes: state.bytes,
            first_seq: state.first_seq,
            last_seq: state.last_seq,
            consumer_count: state.consumer_count,
        }
    }
}

impl From<&StreamInfo> for Stream {
    fn from(info: &StreamInfo) -> Self {
        let time = |time: &str| (info.state.messages > 0).then(|| time.to_owned());
        Self {
            summary: info.into(),
            created: info.created.clone(),
            first_time: time(&info.state.first_ts),
            last_time: time(&info.state.last_ts),
            num_deleted: info.state.num_deleted,
            config: bodies::described(STREAM, &info.config),
        }
    }
}

/// Streams in the order of their names.
#[derive(Serialize, ToSchema)]
pub struct StreamPage {
    streams: Vec<Stream>,
    /// On all pages.
    total: usize,
    /// Asks for the next page, where there is one.
    cursor: Option<String>,
    /// Streams of this page that exist and do not answer just now.
    unknown: Vec<String>,
}

/// What became of a stream that was asked for.
#[derive(Serialize, ToSchema)]
pub struct StreamOutcome {
    #[serde(flatten)]
    stream: Stream,
    /// It was made just now.
    is_new: bool,
    /// What was changed.
    changes: Vec<FieldChange>,
    /// What stays as it is, because leaving it out would cost messages: say it to have it so.
    kept: Vec<FieldChange>,
}

/// A field of a configuration, as it was and as it was asked for.
#[derive(Serialize, ToSchema)]
pub struct FieldChange {
    field: &'static str,
    now: Value,
    wanted: Value,
}

impl From<Difference> for FieldChange {
    fn from(Difference { field, now, wanted, .. }: Difference) -> Self {
        Self { field, now, wanted }
    }
}

impl From<Provisioned> for StreamOutcome {
    fn from(Provisioned { info, created, changes, kept }: Provisioned) -> Self {
        let all = |differences: Vec<Difference>| differences.into_iter().map(FieldChange::from).collect();
        Self { stream: (&info).into(), is_new: created, changes: all(changes), kept: all(kept) }
    }
}

const STREAM_DATA: Code = Code::InvalidStreamData;

fn failed(failure: Failure) -> Problem {
    errors::of(failure, About::Stream)
}

/// The stream of a body; `name` is that of the path.
fn desired(named: &Named, name: &str) -> Result<DesiredStream, Problem> {
    let declared = bodies::stream(name, &named.options).map_err(|faults| options::refused(faults, STREAM_DATA))?;
    Ok(DesiredStream::of_client(&declared))
}

/// Makes a stream. One that exists with the same configuration is as good as made; one with another is 409,
/// and the answer names what differs.
#[utoipa::path(post, path = "/api/v1/broker/streams", tag = "streams",
    request_body(content = StreamBody, content_type = "application/json"),
    responses((status = 200, body = Envelope<StreamOutcome>), (status = "default", body = ErrorEnvelope)))]
async fn create(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    NoQuery: NoQuery,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Envelope<StreamOutcome>, Problem> {
    let named = Named::read(&headers, &body, &[], STREAM_DATA)?;
    let stream = desired(&named, named.name(STREAM_DATA)?)?;
    let made = broker.create_stream(stream, &api.declared.desired(), deadline).await.map_err(failed)?;
    let message = match made.created {
        true => "Stream created successfully",
        false => "Stream exists with this configuration",
    };
    Ok(Envelope::of(message, made.into()))
}

/// Lists streams.
#[utoipa::path(get, path = "/api/v1/broker/streams", tag = "streams", params(Paging),
    responses((status = 200, body = Envelope<StreamPage>), (status = "default", body = ErrorEnvelope)))]
async fn list(
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Query(paging): Query<Paging>,
) -> Result<Envelope<StreamPage>, Problem> {
    let (limit, after) = (paging.limit()?, paging.after::<String>()?);
    let page = broker.streams(after.as_deref(), limit, deadline).await.map_err(failed)?;
    let data = StreamPage {
        streams: page.items.iter().map(Stream::from).collect(),
        total: page.total,
        cursor: page.next.as_ref().and_then(names::cursor),
        unknown: page.unknown,
    };
    Ok(Envelope::of("Streams retrieved successfully", data))
}

/// One stream.
#[utoipa::path(get, path = "/api/v1/broker/streams/{name}", tag = "streams", params(("name" = String, Path)),
    responses((status = 200, body = Envelope<Stream>), (status = "default", body = ErrorEnvelope)))]
async fn get(
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Path(name): Path<String>,
    NoQuery: NoQuery,
) -> Result<Envelope<Stream>, Problem> {
    let name = names::checked("stream", name)?;
    let info = broker.stream(&name, deadline).await.map_err(failed)?;
    Ok(Envelope::of("Stream retrieved successfully", (&info).into()))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Forced {
    /// Also where the settings declare the stream, and will bring it back as they say.
    #[serde(default)]
    force: bool,
}

/// Gives a stream another configuration. The body says all of it: what it leaves out goes back to
/// JetStream's default, unless that would cost messages.
#[utoipa::path(put, path = "/api/v1/broker/streams/{name}", tag = "streams",
    params(("name" = String, Path), Forced),
    request_body(content = StreamBody, content_type = "application/json"),
    responses((status = 200, body = Envelope<StreamOutcome>), (status = "default", body = ErrorEnvelope)))]
async fn update(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Path(name): Path<String>,
    Query(Forced { force }): Query<Forced>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Envelope<StreamOutcome>, Problem> {
    let name = names::checked("stream", name)?;
    let named = Named::read(&headers, &body, &[], STREAM_DATA)?;
    named.require_name(&name, STREAM_DATA)?;
    let stream = desired(&named, &name)?;
    let made = broker.update_stream(stream, &api.declared.desired(), force, deadline).await.map_err(failed)?;
    let message = match made.changes.is_empty() {
        true => "Stream has this configuration",
        false => "Stream updated successfully",
    };
    Ok(Envelope::of(message, made.into()))
}

/// What was deleted.
#[derive(Serialize, ToSchema)]
#[schema(as = DeletedStream)]
pub struct Deleted {
    name: String,
    /// The settings declare it, so that it comes back, empty.
    is_declared: bool,
}

/// Deletes a stream with its messages.
#[utoipa::path(delete, path = "/api/v1/broker/streams/{name}", tag = "streams",
    params(("name" = String, Path), Forced),
    responses((status = 200, body = Envelope<Deleted>), (status = "default", body = ErrorEnvelope)))]
async fn delete(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Path(name): Path<String>,
    Query(Forced { force }): Query<Forced>,
) -> Result<Envelope<Deleted>, Problem> {
    let name = names::checked("stream", name)?;
    let declared = api.declared.desired();
    broker.delete_stream(&name, &declared, force, &*api.declared.deleting, deadline).await.map_err(failed)?;
    let is_declared = declared.stream(&name).is_some();
    Ok(Envelope::of("Stream deleted successfully", Deleted { name, is_declared }))
}

/// Which messages go; all where nothing is said.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PurgeRequest {
    /// Only those whose subject that matches.
    #[serde(default, deserialize_with = "said")]
    filter: Option<String>,
    /// Only those before that sequence; not with `keep`.
    #[serde(default, deserialize_with = "said")]
    seq: Option<u64>,
    /// All but so many, the last ones.
    #[serde(default, deserialize_with = "said")]
    keep: Option<u64>,
}

/// What a bound is. A client whose null was to be a bound must not lose everything.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let value = Option::<T>::deserialize(deserializer)?;
    let null =
        || D::Error::custom("null says nothing of what is to go: give filter, seq or keep a value, or leave it out");
    value.map(Some).ok_or_else(null)
}

/// How many messages went.
#[derive(Serialize, ToSchema)]
#[schema(as = PurgedMessages)]
pub struct Purged {
    purged: u64,
}

/// Removes messages of a stream.
#[utoipa::path(post, path = "/api/v1/broker/streams/{name}/purge", tag = "streams", params(("name" = String, Path)),
    request_body(content = Option<PurgeRequest>, content_type = "application/json"),
    responses((status = 200, body = Envelope<Purged>), (status = "default", body = ErrorEnvelope)))]
async fn purge(
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Path(name): Path<String>,
    NoQuery: NoQuery,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Envelope<Purged>, Problem> {
    let name = names::checked("stream", name)?;
    let request = match body.is_empty() {
        true => PurgeRequest::default(),
        false => {
            body::require_json(&headers)?;
            body::parse_object::<PurgeRequest>(&body, Code::InvalidParameters)?
        }
    };
    if request.seq.is_some() && request.keep.is_some() {
        return Err(names::invalid("seq and keep do not go together: give one of them"));
    }
    if let Some(filter) = &request.filter {
        filter.parse::<Subject>().map_err(|error| names::invalid(format!("filter is no subject: it {error}")))?;
    }
    let PurgeRequest { filter, seq, keep } = request;
    let purged = broker.purge_stream(&name, Purge { filter, seq, keep }, deadline).await.map_err(failed)?;
    Ok(Envelope::of("Stream purged successfully", Purged { purged }))
}

/// All streams, in the words of the first generation of clients.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamList)]
pub struct Plain {
    streams: Vec<Summary>,
}

/// All streams.
#[utoipa::path(get, path = "/api/v1/streams", tag = "streams",
    responses((status = 200, body = Plain), (status = "default", body = ErrorEnvelope)))]
async fn list_plainly(
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
) -> Result<Json<Plain>, Problem> {
    let streams = broker.all_streams(deadline).await.map_err(failed)?;
    Ok(Json(Plain { streams: streams.iter().map(Summary::from).collect() }))
}

pub fn routes() -> utoipa_axum::router::OpenApiRouter<Api> {
    utoipa_axum::router::OpenApiRouter::new()
        .routes(utoipa_axum::routes!(create, list))
        .routes(utoipa_axum::routes!(get, update, delete))
        .routes(utoipa_axum::routes!(purge))
        .routes(utoipa_axum::routes!(list_plainly))
}
