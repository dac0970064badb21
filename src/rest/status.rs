//! What the broker is, for both generations of clients.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::figures::{Figures, LastKnown, NatsServer, word};
use super::health::{self, Health};
use super::state::{Acting, Api};
use crate::http::Deadline;
use crate::http::body::{NoQuery, Query};
use crate::http::envelope::{Code, Envelope, ErrorEnvelope, Problem, now};
use crate::nats::StreamInfo;
use crate::settings::Settings;
use crate::settings::variables::NATS_CLUSTER_PORT;
use crate::status::{ConditionStatus, Counters, Verdict};

/// The envelope of the second generation, with the keys of the first beside it.
#[derive(Serialize, ToSchema)]
struct ServiceStatus {
    #[schema(value_type = String, example = "success")]
    status: &'static str,
    message: &'static str,
    data: ServiceData,
    timestamp: String,
    service: &'static str,
    uptime_seconds: u64,
    nats_server: NatsServer,
    /// Null where the server does not answer.
    jetstream_streams: Option<Vec<StreamSummary>>,
    message_stats: MessageStats,
}

#[derive(Serialize, ToSchema)]
struct ServiceData {
    service: &'static str,
    /// `running`, or what else the supervisor does, in one word.
    status: &'static str,
    uptime_seconds: f64,
    version: &'static str,
    environment: &'static str,
    port: u16,
    features: Features,
    nats_info: NatsInfo,
    statistics: Statistics,
    /// While there are no figures, the last ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_known: Option<LastKnown>,
}

#[derive(Serialize, ToSchema)]
struct Features {
    nats_server: bool,
    jetstream: bool,
    message_routing: bool,
    stream_management: bool,
    message_persistence: bool,
}

#[derive(Serialize, ToSchema)]
struct NatsInfo {
    /// `unknown` where the server does not answer.
    server_status: &'static str,
    client_connected: bool,
    /// Null where the server does not answer, as all of its figures.
    streams_count: Option<usize>,
    server_version: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Statistics {
    /// Messages that JetStream has stored; null where the server does not answer.
    messages_published: Option<u64>,
    /// Deliveries that consumers have acknowledged; null where the server does not answer.
    messages_consumed: Option<u64>,
    active_streams: Option<usize>,
    /// Connections of this API to nats-server that could not be made.
    connection_errors: u64,
}

#[derive(Serialize, ToSchema)]
struct MessageStats {
    published: Option<u64>,
    consumed: Option<u64>,
    errors: u64,
}

#[derive(Serialize, ToSchema)]
struct StreamSummary {
    name: String,
    subjects: Vec<String>,
    messages: u64,
    bytes: u64,
    consumer_count: u64,
}

impl StreamSummary {
    fn of(info: &StreamInfo) -> Self {
        Self {
            name: info.name().to_owned(),
            subjects: subjects(info),
            messages: info.state.messages,
            bytes: info.state.bytes,
            consumer_count: info.state.consumer_count,
        }
    }
}

fn subjects(info: &StreamInfo) -> Vec<String> {
    let subjects = info.config.get("subjects").and_then(Value::as_array);
    subjects.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The broker in short. While no server runs it says so, with what is known.
#[utoipa::path(get, path = "/api/v1/status", tag = "broker", operation_id = "service_status", responses(
    (status = 200, body = ServiceStatus), (status = "default", body = ErrorEnvelope, description = "see error_code")))]
async fn service_status(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
) -> Json<ServiceStatus> {
    let (status, settings) = (broker.status(), api.settings());
    let figures = Figures::of(&broker, &status, &settings, deadline).await;
    let seen = figures.now();
    let streams = seen.map(|seen| seen.streams.iter().map(StreamSummary::of).collect::<Vec<_>>());
    let streams_count = streams.as_ref().map(Vec::len);
    let (published, consumed) = (seen.map(|seen| seen.published), seen.map(|seen| seen.consumed));
    let jetstream = settings.jetstream.enabled;
    let uptime = api.started.elapsed();
    let errors = broker.failed_connects();
    let nats_server = figures.server(&status);
    Json(ServiceStatus {
        status: "success",
        message: "Service status retrieved successfully",
        data: ServiceData {
            service: "message-broker",
            status: word(&status),
            uptime_seconds: (uptime.as_secs_f64() * 1e3).round() / 1e3,
            version: env!("CARGO_PKG_VERSION"),
            environment: settings.api.environment,
            port: settings.api.port.get(),
            features: Features {
                nats_server: settings.external.is_none(),
                jetstream,
                message_routing: true,
                stream_management: jetstream,
                message_persistence: jetstream,
            },
            nats_info: NatsInfo {
                server_status: figures.server_word(&status),
                client_connected: seen.is_some(),
                streams_count,
                server_version: seen.map(|seen| seen.server.version.clone()),
            },
            statistics: Statistics {
                messages_published: published,
                messages_consumed: consumed,
                active_streams: streams_count,
                connection_errors: errors,
            },
            last_known: figures.last_known(),
        },
        timestamp: now(),
        service: "message-broker-service",
        uptime_seconds: uptime.as_secs(),
        nats_server,
        jetstream_streams: streams,
        message_stats: MessageStats { published, consumed, errors },
    })
}

/// Everything that is known of the broker.
#[derive(Serialize, ToSchema)]
struct BrokerDetails {
    /// What `/health` answers.
    #[schema(value_type = Object)]
    health: Health,
    server: NatsServer,
    /// What JetStream holds; null where the server does not answer.
    streams: Option<usize>,
    messages: Option<u64>,
    bytes: Option<u64>,
    consumers: Option<u64>,
    /// While there are no figures, the last ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_known: Option<LastKnown>,
}

/// The broker in detail.
#[utoipa::path(get, path = "/api/v1/broker/status", tag = "broker", responses(
    (status = 200, body = Envelope<BrokerDetails>),
    (status = "default", body = ErrorEnvelope, description = "see error_code")))]
async fn broker_status(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    NoQuery: NoQuery,
) -> Envelope<BrokerDetails> {
    let (status, settings) = (broker.status(), api.settings());
    let figures = Figures::of(&broker, &status, &settings, deadline).await;
    let details = BrokerDetails {
        health: Health::of(&status, settings.api.environment, std::time::SystemTime::now()),
        server: figures.server(&status),
        streams: figures.now().map(|seen| seen.streams.len()),
        messages: figures.sum(|state| state.messages),
        bytes: figures.sum(|state| state.bytes),
        consumers: figures.sum(|state| state.consumer_count),
        last_known: figures.last_known(),
    };
    Envelope::of("Broker status retrieved successfully", details)
}

/// The broker's verdict, and that of each of its parts.
#[derive(Serialize, ToSchema)]
struct BrokerHealth {
    #[schema(value_type = String, example = "healthy")]
    status: Verdict,
    /// Since when the broker is in its state.
    since: String,
    components: Vec<Component>,
    #[schema(value_type = Object)]
    counters: Counters,
}

#[derive(Serialize, ToSchema)]
struct Component {
    name: String,
    /// `healthy`, `unhealthy`, or `unknown` while no server could show it.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    since: String,
}

impl Component {
    fn of(condition: health::Condition) -> Self {
        let status = match condition.status {
            ConditionStatus::Ok => "healthy",
            ConditionStatus::Failed => "unhealthy",
            ConditionStatus::Unknown => "unknown",
        };
        Self { name: condition.kind, status, reason: condition.reason, since: condition.since }
    }
}

/// Whether the broker is well, part by part.
#[utoipa::path(get, path = "/api/v1/broker/health", tag = "broker", responses(
    (status = 200, body = Envelope<BrokerHealth>),
    (status = 503, body = ErrorEnvelope, description = "it is not; details say why"),
    (status = "default", body = ErrorEnvelope, description = "see error_code")))]
async fn broker_health(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    NoQuery: NoQuery,
) -> Result<Envelope<BrokerHealth>, Problem> {
    let (status, settings) = (broker.status(), api.settings());
    let health = Health::of(&status, settings.api.environment, std::time::SystemTime::now());
    let components = health.conditions.into_iter().map(Component::of).collect();
    let answer =
        BrokerHealth { status: health.status, since: health.since, components, counters: status.counters.clone() };
    if status.verdict != Verdict::Unhealthy && status.is_ready {
        return Ok(Envelope::of("Broker is in service", answer));
    }
    let reason = status.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let problem = Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        Code::ServiceUnavailable,
        format!("the broker is {}{reason}", status.state),
    );
    Err(problem.with_details(serde_json::to_value(answer).unwrap_or_default()).retry_after(1))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// Events at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

#[derive(Serialize, ToSchema)]
struct EventList {
    /// The newest first.
    #[schema(value_type = Vec<Object>)]
    events: Vec<health::Event>,
}

/// What happened to the broker since it started, as far as it remembers.
#[utoipa::path(get, path = "/api/v1/broker/events", tag = "broker", params(EventsQuery), responses(
    (status = 200, body = Envelope<EventList>), (status = "default", body = ErrorEnvelope, description = "see error_code")))]
async fn events(
    Extension(Acting(broker)): Extension<Acting>,
    Query(query): Query<EventsQuery>,
) -> Result<Envelope<EventList>, Problem> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=1000).contains(&limit) {
        let message = "limit must be 1 to 1000";
        return Err(Problem::new(StatusCode::BAD_REQUEST, Code::InvalidParameters, message));
    }
    let events = health::last_events(&broker.status(), limit);
    Ok(Envelope::of("Events retrieved successfully", EventList { events }))
}

/// nats-server, as the first generation of clients asks for it.
#[derive(Serialize, ToSchema)]
struct NatsProcess {
    status: &'static str,
    pid: Option<i32>,
    ports: Ports,
    server_info: Value,
}

#[derive(Serialize, ToSchema)]
struct Ports {
    nats: Option<u16>,
    /// Open where nodes make a cluster.
    cluster: Option<u16>,
    http: Option<u16>,
}

impl Ports {
    fn of(settings: &Settings) -> Self {
        let own = settings.external.is_none();
        let usual = || NATS_CLUSTER_PORT.default.fixed().and_then(|port| port.parse().ok());
        let cluster = settings.cluster.as_ref().map(|cluster| cluster.port.get()).or_else(usual);
        Self {
            nats: own.then_some(settings.server.port.get()),
            cluster: own.then_some(cluster).flatten(),
            http: settings.server.monitoring.as_ref().filter(|_| own).map(|monitoring| monitoring.port.get()),
        }
    }
}

/// nats-server, plainly.
#[utoipa::path(get, path = "/api/v1/nats/info", tag = "broker", responses(
    (status = 200, body = NatsProcess), (status = "default", body = ErrorEnvelope, description = "see error_code")))]
async fn nats_info(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
) -> Json<NatsProcess> {
    let (status, settings) = (broker.status(), api.settings());
    let NatsServer { status: word, server_info } =
        Figures::of(&broker, &status, &settings, deadline).await.server(&status);
    Json(NatsProcess { status: word, pid: status.pid, ports: Ports::of(&settings), server_info })
}

pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(service_status))
        .routes(routes!(broker_status))
        .routes(routes!(broker_health))
        .routes(routes!(events))
        .routes(routes!(nats_info))
}
