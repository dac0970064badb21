//! The API described: `GET /openapi.json`, and `GET /docs` for people. Both say nothing about this broker,
//! and so ask for nothing.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Html;
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

use super::docs;
use super::state::Api;

/// Errors that an answer may be, and what they mean.
const ERRORS: &[(u16, &str)] = &[
    (400, "the request cannot be understood; details name the field, the parameter or the rule"),
    (401, "the port asks for a token or a user"),
    (403, "the caller may not do that; details name the subject"),
    (404, "there is nothing of that name, or no stream captures the subject"),
    (408, "the body did not come in time"),
    (
        409,
        "it exists with another configuration, overlaps with another stream, or is declared in settings; of a message, its \
         stream acknowledges nothing",
    ),
    (412, "the stream's last sequence, message or name is another than was expected"),
    (413, "too long: the body, the message, or what is asked for"),
    (415, "the body is of a type or an encoding that is not read here"),
    (429, "too many requests"),
    (500, "nats-server refused it for a reason that is passed on, or the broker failed"),
    (501, "the body comes in a transfer coding that is not read here"),
    (503, "nats-server is not connected or not ready, or the broker is busy; nothing was done"),
    (504, "no answer of nats-server in time; what was asked for may have been done"),
    (507, "the store is full, or a stream takes no more"),
];

/// Which of the errors an operation may answer with.
fn may_answer(status: u16, method: &str, path: &str) -> bool {
    let (is_write, publishes) = (method != "get", path.contains("/publish") || path.contains("/broker/subjects/"));
    let of_streams = path.starts_with("/api/v1/broker/streams");
    match status {
        404 => {
            let by_subject = ["/subjects", "/last", "/replay", "/tail"];
            publishes || path.contains('{') || by_subject.iter().any(|end| path.ends_with(end))
        }
        408 | 415 | 501 => method == "post" || method == "put",
        409 => is_write && of_streams || publishes,
        412 => publishes,
        413 => method == "post" || method == "put" || path.ends_with("/last") || path.ends_with("/broker/subjects"),
        507 => publishes || (is_write && of_streams),
        _ => true,
    }
}

/// The whole document: the resources, and what is the same for many operations.
pub fn document(resources: &OpenApi) -> Value {
    let mut document = serde_json::to_value(resources).unwrap_or_default();
    document["openapi"] = json!("3.1.0");
    document["servers"] = json!([{ "url": "/" }]);
    document["components"]["securitySchemes"] = json!({
        "token": { "type": "http", "scheme": "bearer", "description": "API_TOKEN, or API_READ_TOKEN for what changes nothing" },
        "user": { "type": "http", "scheme": "basic", "description": "A user of NATS, who acts with the permissions there" },
    });
    // The last one: a port that is open asks for nothing.
    document["security"] = json!([{ "token": [] }, { "user": [] }, {}]);
    let responses = document["components"].as_object_mut().map(|components| components.entry("responses"));
    if let Some(responses) = responses {
        *responses.or_insert_with(|| json!({})) = ERRORS.iter().map(|error| response(*error)).collect();
    }
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            let Some(responses) = operation["responses"].as_object_mut() else { continue };
            complete(responses, method, path);
        }
    }
    widen(&mut document);
    document
}

/// Sequences and sizes go up to 2^64, which what `int64` means does not.
fn widen(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if object.get("format").is_some_and(|format| format == "int64")
                && object.get("minimum").is_some_and(|least| least == 0)
            {
                object.insert("format".into(), "uint64".into());
            }
            object.values_mut().for_each(widen);
        }
        Value::Array(array) => array.iter_mut().for_each(widen),
        _ => {}
    }
}

/// The errors of an operation in the place of what they had in common.
fn complete(responses: &mut Map<String, Value>, method: &str, path: &str) {
    responses.remove("default");
    for (status, _) in ERRORS {
        if may_answer(*status, method, path) {
            let common = json!({ "$ref": format!("#/components/responses/{status}") });
            responses.entry(status.to_string()).or_insert(common);
        }
    }
    if path.ends_with("/batch") {
        answers_lines(responses);
    }
    responses.sort_keys();
}

/// Lines are answered in lines, whatever became of them.
fn answers_lines(responses: &mut Map<String, Value>) {
    for (status, answer) in responses {
        if let Some((_, meaning)) = ERRORS.iter().find(|(other, _)| other.to_string() == *status) {
            *answer = json!({ "description": meaning, "content": { "application/json": { "schema": error() } } });
        }
        answer["content"]["application/x-ndjson"] = json!({ "schema": { "type": "string" } });
    }
}

fn error() -> Value {
    json!({ "$ref": "#/components/schemas/ErrorEnvelope" })
}

fn response((status, meaning): (u16, &str)) -> (String, Value) {
    let mut response = json!({
        "description": meaning,
        "content": {
            "application/json": { "schema": error() },
            "application/problem+json": { "schema": { "type": "object", "required": ["title", "status", "detail", "error_code"] } },
        },
    });
    if matches!(status, 429 | 503) {
        let schema = json!({ "type": "integer", "minimum": 1 });
        response["headers"] = json!({ "Retry-After": { "description": "Seconds to wait", "schema": schema } });
    }
    (status.to_string(), response)
}

/// A page that asks for nothing from elsewhere, and may not.
const POLICY: (HeaderName, HeaderValue) = (
    header::CONTENT_SECURITY_POLICY,
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"),
);

/// Both are made once, when somebody asks for the first time.
pub fn routes(document: fn() -> Value) -> Router<Api> {
    let rendered = Arc::new(LazyLock::new(move || Bytes::from(serde_json::to_vec(&document()).unwrap_or_default())));
    let page = Arc::new(LazyLock::new(move || Bytes::from(docs::page(&document()))));
    let described = async move || ([(header::CONTENT_TYPE, "application/json")], Bytes::clone(&rendered));
    let shown = async move || ([POLICY], Html(Bytes::clone(&page)));
    Router::new().route("/openapi.json", get(described)).route("/docs", get(shown))
}
