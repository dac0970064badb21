//! Looking inside streams: messages, subjects, and the last message of each subject.

use axum::extract::Extension;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::errors::{self, About};
use super::names::{self, Paging};
use super::state::{Acting, Api};
use crate::broker::{Failure, MOST_LAST, Place};
use crate::domain::Subject;
use crate::http::Deadline;
use crate::http::body::{NoQuery, Path, Query};
use crate::http::envelope::{Envelope, ErrorEnvelope, Problem};
use crate::nats::{MessageRequest, StoredMessage};

/// How `message` is written.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = StoredEncoding)]
pub enum Encoding {
    /// As it is: the payload is JSON.
    Json,
    /// A text in base64: the payload is something else.
    Base64,
}

/// A payload for people and programs.
#[derive(Serialize, ToSchema)]
#[schema(as = StoredPayload)]
pub struct Payload {
    #[schema(value_type = Value)]
    message: Box<RawValue>,
    encoding: Encoding,
}

impl Payload {
    pub fn of(payload: &[u8]) -> Self {
        match serde_json::from_slice::<Box<RawValue>>(payload) {
            Ok(message) => Self { message, encoding: Encoding::Json },
            Err(_) => {
                // Nothing in base64 has to be escaped.
                let text = format!("\"{}\"", BASE64_STANDARD.encode(payload));
                Self { message: RawValue::from_string(text).unwrap_or_default(), encoding: Encoding::Base64 }
            }
        }
    }
}

/// A text for each header, or a list of texts where it stands several times.
pub fn headers(headers: Vec<(String, String)>) -> Map<String, Value> {
    let mut map = Map::new();
    for (name, value) in headers {
        match map.get_mut(&name) {
            None => _ = map.insert(name, value.into()),
            Some(Value::Array(values)) => values.push(value.into()),
            Some(first) => *first = Value::Array(vec![first.take(), value.into()]),
        }
    }
    map
}

/// A message of a stream.
#[derive(Serialize, ToSchema)]
#[schema(as = StoredMessage)]
pub struct Message {
    stream: String,
    subject: String,
    sequence: u64,
    /// When it was stored, with nanoseconds.
    time: String,
    #[schema(value_type = Object)]
    headers: Map<String, Value>,
    #[serde(flatten)]
    payload: Payload,
}

impl From<StoredMessage> for Message {
    fn from(message: StoredMessage) -> Self {
        Self {
            payload: Payload::of(&message.payload),
            headers: headers(message.headers),
            stream: message.stream,
            subject: message.subject,
            sequence: message.sequence,
            time: message.time,
        }
    }
}

fn failed(failure: Failure) -> Problem {
    errors::of(failure, About::Other)
}

fn filter(name: &str, text: &str) -> Result<Subject, Problem> {
    text.parse().map_err(|error| names::invalid(format!("{name} is no subject: it {error}")))
}

/// One message, by its sequence.
#[utoipa::path(get, path = "/api/v1/broker/streams/{name}/messages/{seq}", tag = "messages",
    params(("name" = String, Path), ("seq" = u64, Path, minimum = 1)),
    responses((status = 200, body = Envelope<Message>), (status = "default", body = ErrorEnvelope)))]
async fn by_sequence(
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Path((name, seq)): Path<(String, u64)>,
    NoQuery: NoQuery,
) -> Result<Envelope<Message>, Problem> {
    let name = names::checked("stream", name)?;
    if seq == 0 {
        return Err(names::invalid("sequences begin at 1"));
    }
    let message = broker.message(&name, MessageRequest::Numbered { seq }, deadline).await.map_err(failed)?;
    Ok(Envelope::of("Message retrieved successfully", message.into()))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only messages whose subject that matches; all where nothing is said.
    subject: Option<String>,
    /// The last of them, not the first.
    #[serde(default)]
    last: bool,
    /// The first of them from that sequence on; not with `last`.
    #[param(minimum = 1)]
    seq: Option<u64>,
}

/// The first or the last message that matches.
#[utoipa::path(get, path = "/api/v1/broker/streams/{name}/messages", tag = "messages",
    params(("name" = String, Path), Which),
    responses((status = 200, body = Envelope<Message>), (status = "default", body = ErrorEnvelope)))]
async fn by_subject(
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Path(name): Path<String>,
    Query(Which { subject, last, seq }): Query<Which>,
) -> Result<Envelope<Message>, Problem> {
    let name = names::checked("stream", name)?;
    let subject = filter("subject", subject.as_deref().unwrap_or(">"))?.to_string();
    let request = match (last, seq) {
        (true, Some(_)) => return Err(names::invalid("last and seq do not go together: give one of them")),
        (true, None) => MessageRequest::Last { subject },
        (false, Some(0)) => return Err(names::invalid("sequences begin at 1")),
        (false, seq) => MessageRequest::Next { seq: seq.unwrap_or(1), subject },
    };
    let message = broker.message(&name, request, deadline).await.map_err(failed)?;
    Ok(Envelope::of("Message retrieved successfully", message.into()))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Subjects {
    /// Only of that stream.
    stream: Option<String>,
    /// Only subjects that it matches; all where nothing is said.
    filter: Option<String>,
    /// Entries at most, 1 to 1,000; 100 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Where the list goes on: the `cursor` of the answer before.
    cursor: Option<String>,
}

/// A subject, and how many messages of it a stream holds.
#[derive(Serialize, ToSchema)]
pub struct SubjectEntry {
    stream: String,
    subject: String,
    messages: u64,
}

/// Subjects in the order of streams and subjects.
#[derive(Serialize, ToSchema)]
pub struct SubjectPage {
    subjects: Vec<SubjectEntry>,
    /// Asks for the next page, where there is one.
    cursor: Option<String>,
}

/// Lists subjects that hold messages.
#[utoipa::path(get, path = "/api/v1/broker/subjects", tag = "messages", params(Subjects),
    responses((status = 200, body = Envelope<SubjectPage>), (status = "default", body = ErrorEnvelope)))]
async fn subjects(
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Query(asked): Query<Subjects>,
) -> Result<Envelope<SubjectPage>, Problem> {
    let stream = asked.stream.map(|name| names::checked("stream", name)).transpose()?;
    let filter = filter("filter", asked.filter.as_deref().unwrap_or(">"))?;
    let paging = Paging { limit: asked.limit, cursor: asked.cursor };
    let (limit, from) = (paging.limit()?, place(&paging)?);
    let found = broker.subjects(stream.as_deref(), &filter, from, limit, deadline).await;
    let (subjects, next) = found.map_err(failed)?;
    let subjects = subjects.into_iter();
    let subjects =
        subjects.map(|one| SubjectEntry { stream: one.stream, subject: one.subject, messages: one.messages });
    let data = SubjectPage { subjects: subjects.collect(), cursor: next.as_ref().and_then(names::cursor) };
    Ok(Envelope::of("Subjects retrieved successfully", data))
}

/// A cursor comes from the client, and its name goes into a request.
fn place(paging: &Paging) -> Result<Option<Place>, Problem> {
    let place = paging.after::<Place>()?;
    if let Some(place) = &place {
        names::checked("stream", place.stream.clone())?;
    }
    Ok(place)
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Last {
    /// Whose last messages; wildcards are welcome.
    subject: String,
    /// Gives pages of so many subjects, 1 to 1,024. Without it all come at once, and more than 1,024 are 413.
    #[param(minimum = 1, maximum = 1024)]
    limit: Option<usize>,
    /// Where the list goes on: the `cursor` of the answer before.
    cursor: Option<String>,
}

/// The last message of each subject.
#[derive(Serialize, ToSchema)]
pub struct LastMessages {
    messages: Vec<Message>,
    /// Asks for the next page, where there is one.
    cursor: Option<String>,
}

/// The last message of every subject that matches, of every stream that stores it.
#[utoipa::path(get, path = "/api/v1/broker/last", tag = "messages", params(Last),
    responses((status = 200, body = Envelope<LastMessages>), (status = "default", body = ErrorEnvelope)))]
async fn last(
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Query(Last { subject, limit, cursor }): Query<Last>,
) -> Result<Envelope<LastMessages>, Problem> {
    let filter = filter("subject", &subject)?;
    let found = match (limit, &cursor) {
        (None, None) => broker.last(&filter, deadline).await.map(|messages| (messages, None)),
        _ => {
            let limit = names::limited("limit", limit, MOST_LAST, MOST_LAST)?;
            let from = place(&Paging { limit: None, cursor })?;
            broker.last_page(&filter, from, limit, deadline).await
        }
    };
    let (messages, next) = found.map_err(failed)?;
    let messages = messages.into_iter().map(Message::from).collect();
    let data = LastMessages { messages, cursor: next.as_ref().and_then(names::cursor) };
    Ok(Envelope::of("Messages retrieved successfully", data))
}

pub fn routes() -> utoipa_axum::router::OpenApiRouter<Api> {
    utoipa_axum::router::OpenApiRouter::new()
        .routes(utoipa_axum::routes!(by_sequence))
        .routes(utoipa_axum::routes!(by_subject))
        .routes(utoipa_axum::routes!(subjects))
        .routes(utoipa_axum::routes!(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_payload_is_json_where_it_is_json() {
        let read = |payload: &[u8]| serde_json::to_value(Payload::of(payload)).unwrap();
        assert_eq!(read(b"{\"a\": 1}"), json!({"message": {"a": 1}, "encoding": "json"}));
        assert_eq!(read(b" 5 "), json!({"message": 5, "encoding": "json"}));
        assert_eq!(read(b"Hello"), json!({"message": "SGVsbG8=", "encoding": "base64"}));
        assert_eq!(read(b"\"\xff\""), json!({"message": "Iv8i", "encoding": "base64"}));
        assert_eq!(read(b""), json!({"message": "", "encoding": "base64"}));
        let exact = serde_json::to_string(&Payload::of(b"{\"n\":1.10,\"n\":12345678901234567890123}")).unwrap();
        assert!(exact.contains(r#"{"n":1.10,"n":12345678901234567890123}"#), "{exact}");
    }

    #[test]
    fn headers_that_stand_several_times_are_lists() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let map = headers(vec![pair("a", "1"), pair("b", "2"), pair("a", "3"), pair("a", "4")]);
        assert_eq!(Value::from(map), json!({"a": ["1", "3", "4"], "b": "2"}));
    }
}
