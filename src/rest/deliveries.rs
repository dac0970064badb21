//! Messages of a consumer over HTTP, and acknowledging them.
//!
//! Each message comes with a token that acknowledges it ([`AckTokens`]). A token that was not given by this
//! program since its start, or to another consumer, is 400; one whose time is over is 404, because there is
//! no such delivery any more.

use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::consumers::both;
use super::errors::{self, About};
use super::messages::{Payload, headers};
use super::names;
use super::state::{Acting, Api};
use crate::broker::{Ack, AckTokens, Broker, ConsumerId, Delivery, DeliveryPlace, Pull, TokenError, ack_wait, id_of};
use crate::http::Deadline;
use crate::http::body::{self, NoQuery, Path, Query, Whole};
use crate::http::envelope::{Code, Envelope, ErrorEnvelope, Problem};
use crate::nats::ConsumerInfo;

/// Messages of one pull, where nothing is said, and at most.
const USUAL: usize = 10;
const MOST: usize = 1_000;
/// Acknowledgements on their way at a time.
const AT_A_TIME: usize = 64;
/// The longest delay of a message that is to be delivered again.
const LONGEST_DELAY: f64 = 31_536_000.0;

/// When a message counts as acknowledged.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Acknowledge {
    /// When the client says so.
    #[default]
    Explicit,
    /// Before the answer is sent: at most once, because an answer that is lost loses its messages.
    Auto,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PullQuery {
    /// Messages at most, 1 to 1,000; 10 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    batch: Option<usize>,
    /// Seconds that the first message is waited for, where there is none, within API_REQUEST_TIMEOUT.
    #[param(minimum = 0, maximum = 3600)]
    wait: Option<f64>,
    /// When a message counts as acknowledged.
    #[serde(default)]
    #[param(inline)]
    ack: Acknowledge,
    /// The priority group, for a consumer that has them.
    group: Option<String>,
    /// The header Nats-Pin-Id of the messages before, where such a group is pinned to one client.
    pin: Option<String>,
}

/// A message that a consumer has given.
#[derive(Serialize, ToSchema)]
pub struct Pulled {
    subject: String,
    /// In the stream.
    sequence: u64,
    consumer_sequence: u64,
    /// How often it was delivered, this time included.
    delivered: u64,
    /// Messages behind it.
    pending: u64,
    /// When it was stored, with nanoseconds.
    time: String,
    #[schema(value_type = Object)]
    headers: Map<String, Value>,
    #[serde(flatten)]
    payload: Payload,
    /// Acknowledges this delivery; null where nothing is waited for.
    ack: Option<String>,
    /// How long it is waited for.
    ack_wait_seconds: Option<f64>,
    /// It was acknowledged before this answer was sent.
    acknowledged: bool,
}

/// Messages in the order of their delivery.
#[derive(Serialize, ToSchema)]
pub struct PulledMessages {
    messages: Vec<Pulled>,
}

/// Takes messages: those that there are, or else the first that comes.
#[utoipa::path(post, path = "/api/v1/broker/streams/{name}/consumers/{consumer}/pull", tag = "consumers",
    params(("name" = String, Path), ("consumer" = String, Path), PullQuery),
    responses((status = 200, body = Envelope<PulledMessages>), (status = "default", body = ErrorEnvelope)))]
async fn pull(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Path((stream, consumer)): Path<(String, String)>,
    Query(asked): Query<PullQuery>,
) -> Result<Envelope<PulledMessages>, Problem> {
    let (stream, consumer) = both(stream, consumer)?;
    let batch = names::limited("batch", asked.batch, USUAL, MOST)?;
    let wait = seconds("wait", asked.wait.unwrap_or_default(), 3_600.0)?;
    let info = broker.consumer(&stream, &consumer, deadline).await?;
    if info.config.get("deliver_subject").and_then(Value::as_str).is_some_and(|subject| !subject.is_empty()) {
        return Err(names::invalid(format!(
            "consumer {consumer} sends its messages to a subject: nobody can pull them"
        )));
    }
    let pull = Pull { batch, wait, group: asked.group, pin: asked.pin };
    let deliveries = broker.pull(&stream, &info, &pull, deadline).await?;
    let id = id_of(&stream, &info);
    let messages = match asked.ack {
        Acknowledge::Explicit => deliveries.into_iter().map(|one| pulled(one, &id, &api.ack_tokens, false)).collect(),
        Acknowledge::Auto => {
            let confirmed: Vec<_> = deliveries.into_iter().map(|one| confirm(&broker, one, deadline)).collect();
            let confirmed = stream::iter(confirmed).buffered(AT_A_TIME);
            confirmed.map(|(one, done)| pulled(one, &id, &api.ack_tokens, done)).collect().await
        }
    };
    Ok(Envelope::of("Messages pulled successfully", PulledMessages { messages }))
}

/// One that is not confirmed goes out with its token.
async fn confirm(broker: &Broker, delivery: Delivery, deadline: Instant) -> (Delivery, bool) {
    let done = match &delivery.ack {
        Some((reply, _)) => broker.acknowledge(reply, &Ack::Done, deadline).await.is_ok(),
        None => true,
    };
    (delivery, done)
}

fn pulled(delivery: Delivery, of: &ConsumerId, tokens: &AckTokens, acknowledged: bool) -> Pulled {
    let Delivery { subject, headers: given, payload, place, ack } = delivery;
    let ack = ack.filter(|_| !acknowledged);
    let time = OffsetDateTime::from_unix_timestamp_nanos(place.time.into()).ok();
    Pulled {
        subject,
        sequence: place.sequence,
        consumer_sequence: place.consumer_sequence,
        delivered: place.delivered,
        pending: place.pending,
        time: time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default(),
        headers: headers(given),
        payload: Payload::of(&payload),
        ack_wait_seconds: ack.as_ref().map(|(_, wait)| wait.as_secs_f64()),
        ack: ack.map(|(reply, wait)| tokens.give(of, &reply, wait)),
        acknowledged,
    }
}

fn seconds(name: &str, given: f64, most: f64) -> Result<Duration, Problem> {
    let fits = (0.0..=most).contains(&given).then(|| Duration::try_from_secs_f64(given).ok()).flatten();
    fits.ok_or_else(|| names::invalid(format!("{name} must be from 0 to {most} seconds, not {given}")))
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// It is done.
    #[default]
    Ack,
    /// It is to be delivered again, after `delay`.
    Nak,
    /// It is never to be delivered again.
    Term,
    /// It takes longer: it is waited for anew, with another token.
    InProgress,
}

/// One acknowledgement.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OneAck {
    /// That of the message.
    token: String,
    #[serde(default)]
    #[schema(inline)]
    kind: Kind,
    /// Seconds, with `nak`.
    #[schema(minimum = 0)]
    delay: Option<f64>,
    /// With `term`; it goes into an advisory.
    #[schema(max_length = 256)]
    reason: Option<String>,
}

/// One acknowledgement, or several.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AckRequest {
    /// That of one message.
    token: Option<String>,
    /// Those of several messages that become the same.
    #[schema(max_items = 1000)]
    tokens: Option<Vec<String>>,
    /// Several acknowledgements, each of its kind.
    #[schema(max_items = 1000)]
    acks: Option<Vec<OneAck>>,
    /// For `token` and `tokens`.
    #[serde(default)]
    #[schema(inline)]
    kind: Option<Kind>,
    /// Seconds, with `nak`.
    #[schema(minimum = 0)]
    delay: Option<f64>,
    /// With `term`.
    #[schema(max_length = 256)]
    reason: Option<String>,
}

impl AckRequest {
    fn all(self) -> Result<Vec<(String, Ack)>, Problem> {
        let Self { token, tokens, acks, kind, delay, reason } = self;
        let list = match (token, tokens, acks) {
            (Some(token), None, None) => vec![token],
            (None, Some(tokens), None) => tokens,
            (None, None, Some(acks)) => {
                if kind.is_some() || delay.is_some() || reason.is_some() {
                    return Err(names::invalid("kind, delay and reason stand in each of acks"));
                }
                let all = acks
                    .into_iter()
                    .map(|OneAck { token, kind, delay, reason }| Ok((token, meant(kind, delay, reason)?)));
                return counted(all.collect::<Result<_, Problem>>()?);
            }
            _ => return Err(names::invalid("give one of token, tokens and acks")),
        };
        let ack = meant(kind.unwrap_or_default(), delay, reason)?;
        counted(list.into_iter().map(|token| (token, ack.clone())).collect())
    }
}

fn counted(acks: Vec<(String, Ack)>) -> Result<Vec<(String, Ack)>, Problem> {
    match acks.len() {
        1..=MOST => Ok(acks),
        many => Err(names::invalid(format!("1 to {MOST} messages are acknowledged at a time, not {many}"))),
    }
}

fn meant(kind: Kind, delay: Option<f64>, reason: Option<String>) -> Result<Ack, Problem> {
    if delay.is_some() && kind != Kind::Nak {
        return Err(names::invalid("delay goes with the kind nak alone"));
    }
    if reason.is_some() && kind != Kind::Term {
        return Err(names::invalid("reason goes with the kind term alone"));
    }
    if reason.as_ref().is_some_and(|reason| reason.len() > 256 || reason.chars().any(char::is_control)) {
        return Err(names::invalid("reason has at most 256 bytes and no control characters"));
    }
    Ok(match kind {
        Kind::Ack => Ack::Done,
        Kind::Nak => Ack::Again(delay.map(|delay| seconds("delay", delay, LONGEST_DELAY)).transpose()?),
        Kind::Term => Ack::Never(reason.filter(|reason| !reason.is_empty())),
        Kind::InProgress => Ack::InProgress,
    })
}

/// What became of one acknowledgement.
#[derive(Serialize, ToSchema)]
pub struct AckResult {
    /// Its place in the request, from 0.
    index: usize,
    #[schema(example = "success")]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// The token from now on, of a message that takes longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<String>,
}

/// In the order of the request.
#[derive(Serialize, ToSchema)]
pub struct AckResults {
    results: Vec<AckResult>,
    acknowledged: usize,
    failed: usize,
}

/// Says what becomes of messages. It is answered once nats-server has confirmed it. One that fails by itself
/// is an error; of several the answer is 207 and says which.
#[utoipa::path(post, path = "/api/v1/broker/streams/{name}/consumers/{consumer}/ack", tag = "consumers",
    params(("name" = String, Path), ("consumer" = String, Path)),
    request_body(content = AckRequest, content_type = "application/json"),
    responses(
        (status = 200, body = Envelope<AckResults>),
        (status = 207, body = Envelope<AckResults>, description = "some failed"),
        (status = "default", body = ErrorEnvelope)))]
async fn ack(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Path((stream, consumer)): Path<(String, String)>,
    NoQuery: NoQuery,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let (stream, consumer) = both(stream, consumer)?;
    body::require_json(&headers)?;
    let request: AckRequest = body::parse_object(&body, Code::InvalidParameters)?;
    let acks = request.all()?;
    let info = broker.consumer(&stream, &consumer, deadline).await?;
    let (id, tokens) = (id_of(&stream, &info), &*api.ack_tokens);
    let outcomes: Vec<_> =
        acks.iter().map(|(token, ack)| one(&broker, tokens, &id, &info, (token, ack), deadline)).collect();
    let mut outcomes: Vec<_> = stream::iter(outcomes).buffered(AT_A_TIME).collect().await;
    if outcomes.len() == 1
        && let Some(Err(_)) = outcomes.first()
        && let Some(Err(problem)) = outcomes.pop()
    {
        return Err(problem);
    }
    let results: Vec<_> = outcomes.into_iter().enumerate().map(|(index, outcome)| result(index, outcome)).collect();
    let failed = results.iter().filter(|result| result.error_code.is_some()).count();
    let data = AckResults { acknowledged: results.len() - failed, failed, results };
    Ok(match failed {
        0 => Envelope::of("Messages acknowledged successfully", data).into_response(),
        _ => (StatusCode::MULTI_STATUS, Envelope::of("Some messages were not acknowledged", data)).into_response(),
    })
}

/// Another token, where the message takes longer.
async fn one(
    broker: &Broker,
    tokens: &AckTokens,
    id: &ConsumerId,
    info: &ConsumerInfo,
    (token, ack): (&str, &Ack),
    deadline: Instant,
) -> Result<Option<String>, Problem> {
    let reply = tokens.read(token, id).map_err(refused)?;
    broker.acknowledge(&reply, ack, deadline).await.map_err(|failure| errors::of(failure, About::Other))?;
    let delivered = DeliveryPlace::of(&reply).unwrap_or_default().delivered;
    Ok((*ack == Ack::InProgress).then(|| tokens.give(id, &reply, ack_wait(info, delivered))))
}

fn refused(error: TokenError) -> Problem {
    let (status, code) = match error {
        TokenError::Forged | TokenError::Foreign => (StatusCode::BAD_REQUEST, Code::InvalidParameters),
        TokenError::Expired => (StatusCode::NOT_FOUND, Code::NotFound),
    };
    Problem::new(status, code, error.to_string())
}

fn result(index: usize, outcome: Result<Option<String>, Problem>) -> AckResult {
    match outcome {
        Ok(ack) => AckResult { index, status: "success", error_code: None, message: None, ack },
        Err(Problem { code, message, .. }) => {
            AckResult { index, status: "error", error_code: Some(code), message: Some(message), ack: None }
        }
    }
}

pub fn routes() -> utoipa_axum::router::OpenApiRouter<Api> {
    utoipa_axum::router::OpenApiRouter::new().routes(utoipa_axum::routes!(pull)).routes(utoipa_axum::routes!(ack))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Vec<(String, Ack)>, Problem> {
        body::parse_object::<AckRequest>(body.as_bytes(), Code::InvalidParameters)?.all()
    }

    #[test]
    fn one_or_several_acknowledgements_are_read() {
        let one = |ack| vec![("t".to_owned(), ack)];
        for (body, acks) in [
            (r#"{"token": "t"}"#, one(Ack::Done)),
            (r#"{"token": "t", "kind": "nak", "delay": 1.5}"#, one(Ack::Again(Some(Duration::from_millis(1500))))),
            (r#"{"acks": [{"token": "t", "kind": "term", "reason": "bad"}]}"#, one(Ack::Never(Some("bad".into())))),
            (r#"{"tokens": ["t", "t"], "kind": "in_progress"}"#, [one(Ack::InProgress), one(Ack::InProgress)].concat()),
        ] {
            assert_eq!(read(body).unwrap_or_else(|problem| panic!("{body}: {problem:?}")), acks, "{body}");
        }
        for bad in [
            "{}",
            r#"{"token": "t", "tokens": ["t"]}"#,
            r#"{"tokens": []}"#,
            r#"{"token": 5}"#,
            r#"{"token": "t", "kind": "nack"}"#,
            r#"{"token": "t", "delay": 1}"#,
            r#"{"token": "t", "kind": "nak", "delay": -1}"#,
            r#"{"token": "t", "kind": "nak", "delay": 1e300}"#,
            r#"{"token": "t", "kind": "term", "reason": "a\r\nb"}"#,
            r#"{"acks": [{"token": "t"}], "kind": "nak"}"#,
            r#"{"acks": [{"tokn": "t"}]}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
