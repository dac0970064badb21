//! What every answer looks like: a success carries its data, an error its code, in one envelope. Who
//! asks for `application/problem+json` gets errors as RFC 9457 has them, with the same facts.

use std::borrow::Cow;
use std::time::SystemTime;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::logging::timestamp;

/// A success. `timestamp` is RFC 3339, UTC, with milliseconds.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Envelope<T> {
    #[schema(value_type = String, example = "success")]
    status: &'static str,
    #[schema(value_type = String)]
    message: Cow<'static, str>,
    data: T,
    #[schema(example = "2026-06-29T05:32:44.123Z")]
    timestamp: String,
}

pub fn now() -> String {
    timestamp(SystemTime::now()).to_string()
}

impl<T> Envelope<T> {
    pub fn of(message: impl Into<Cow<'static, str>>, data: T) -> Self {
        Self { status: "success", message: message.into(), data, timestamp: now() }
    }
}

impl<T: Serialize> IntoResponse for Envelope<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

/// What went wrong, as clients tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    NatsConnectionError,
    NatsServerError,
    StreamNotFound,
    StreamCreationError,
    MessagePublishError,
    InvalidStreamData,
    InvalidMessageData,
    #[serde(rename = "JETSTREAM_ERROR")]
    JetStreamError,
    InvalidParameters,
    ServiceUnavailable,
    InternalError,
    NotFound,
    MethodNotAllowed,
    Unauthorized,
    Forbidden,
    PayloadTooLarge,
    UnsupportedMediaType,
    PreconditionFailed,
    RateLimited,
    Timeout,
    InsufficientStorage,
}

/// An answer that is no success.
#[derive(Clone, Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub code: Code,
    pub message: String,
    /// Which field, which limit, the nearest match.
    pub details: Option<Value>,
    /// Seconds after which the same request may succeed.
    pub retry_after: Option<u64>,
}

/// An error as it goes out.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorEnvelope {
    #[schema(value_type = String, example = "error")]
    status: &'static str,
    error_code: Code,
    message: String,
    /// Always null.
    #[schema(value_type = Option<Object>)]
    data: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
    timestamp: String,
}

impl Problem {
    pub fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: None, retry_after: None }
    }

    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// What goes out to somebody who takes it in that form.
    pub fn render(self, form: ErrorForm, request_id: &str) -> Response {
        let mut headers = HeaderMap::new();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer, Basic realm=\"unified-nats\""));
        }
        if matches!(form, ErrorForm::Problem) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
            let problem = json!({
                "type": "about:blank",
                "title": self.status.canonical_reason().unwrap_or_default(),
                "status": self.status.as_u16(),
                "detail": self.message,
                "instance": format!("urn:request:{request_id}"),
                "error_code": self.code,
                "details": self.details,
                "timestamp": now(),
            });
            return (self.status, headers, problem.to_string()).into_response();
        }
        let status = self.status;
        (status, headers, Json(self.into_envelope())).into_response()
    }

    fn into_envelope(self) -> ErrorEnvelope {
        ErrorEnvelope {
            status: "error",
            error_code: self.code,
            message: self.message,
            data: None,
            details: self.details,
            timestamp: now(),
        }
    }

    /// All that goes over a connection that is closed without having been served.
    pub(super) fn into_last_answer(self) -> String {
        let status = self.status;
        let retry = self.retry_after.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
        let body = serde_json::to_string(&self.into_envelope()).unwrap_or_default();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{retry}connection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

const PROBLEM_JSON: &str = "application/problem+json";

/// How a client wants to be told of errors.
#[derive(Clone, Copy, Debug)]
pub enum ErrorForm {
    Envelope,
    /// RFC 9457.
    Problem,
}

impl ErrorForm {
    /// As the headers of the request say.
    pub fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        match accept.is_some_and(|accept| accept.contains(PROBLEM_JSON)) {
            true => Self::Problem,
            false => Self::Envelope,
        }
    }
}

/// Carries the problem to the one place that renders it ([`super::exchange`]), which knows what the client
/// accepts.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_spelled_as_clients_know_them() {
        for (code, word) in [
            (Code::NatsConnectionError, "NATS_CONNECTION_ERROR"),
            (Code::JetStreamError, "JETSTREAM_ERROR"),
            (Code::InvalidParameters, "INVALID_PARAMETERS"),
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), word);
        }
    }
}
