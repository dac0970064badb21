//! What could not be done, as clients hear it.

use axum::http::StatusCode;
use serde_json::json;

use crate::broker::{Difference, Failure};
use crate::http::envelope::{Code, Problem};
use crate::nats::ApiError;

/// What an operation was about; a refusal of JetStream means something else for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Message,
    Stream,
    Other,
}

/// Seconds after which a server that restarts is usually there again.
const SOON: u64 = 1;

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        of(failure, About::Other)
    }
}

pub fn of(failure: Failure, about: About) -> Problem {
    use StatusCode as S;
    let message = failure.to_string();
    let problem = |status, code| Problem::new(status, code, message.clone());
    match failure {
        Failure::NotConnected { .. } => problem(S::SERVICE_UNAVAILABLE, Code::NatsConnectionError).retry_after(SOON),
        Failure::NotReady(_) => problem(S::SERVICE_UNAVAILABLE, Code::ServiceUnavailable).retry_after(SOON),
        Failure::NotCaptured { subject } | Failure::NotHeld { subject, .. } => {
            problem(S::NOT_FOUND, Code::StreamNotFound).with_details(json!({ "subject": subject }))
        }
        Failure::NoStream(stream) => {
            problem(S::NOT_FOUND, Code::StreamNotFound).with_details(json!({ "stream": stream }))
        }
        Failure::NoConsumer { stream, consumer } => {
            problem(S::NOT_FOUND, Code::NotFound).with_details(json!({ "stream": stream, "consumer": consumer }))
        }
        Failure::NoMessage(_) => problem(S::NOT_FOUND, Code::NotFound),
        Failure::Unconfirmed { subject, msg_id } => problem(S::GATEWAY_TIMEOUT, Code::Timeout)
            .with_details(json!({ "subject": subject, "msg_id": msg_id, "may_have_been_stored": true })),
        Failure::NeverAcknowledged { stream, subject, was_sent } => problem(S::CONFLICT, Code::MessagePublishError)
            .with_details(json!({ "stream": stream, "subject": subject, "may_have_been_stored": was_sent })),
        Failure::Late(_) => problem(S::GATEWAY_TIMEOUT, Code::Timeout),
        Failure::Denied(violation) => {
            problem(S::FORBIDDEN, Code::Forbidden).with_details(json!({ "subject": violation.subject }))
        }
        Failure::NotLetIn => problem(S::UNAUTHORIZED, Code::Unauthorized),
        Failure::Busy(_) => problem(S::SERVICE_UNAVAILABLE, Code::ServiceUnavailable).retry_after(SOON),
        Failure::TooLarge { size, most } => {
            problem(S::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge).with_details(json!({ "size": size, "limit": most }))
        }
        Failure::Invalid(_) => problem(S::BAD_REQUEST, invalid(about)),
        Failure::Conflict(_) => problem(S::CONFLICT, Code::StreamCreationError),
        Failure::Differs { differences, .. } => {
            let one = |Difference { field, now, wanted, .. }: Difference| json!({ "field": field, "now": now, "wanted": wanted });
            let differences: Vec<_> = differences.into_iter().map(one).collect();
            problem(S::CONFLICT, Code::StreamCreationError).with_details(json!({ "differences": differences }))
        }
        Failure::NoRoom(_) => problem(S::INSUFFICIENT_STORAGE, Code::InsufficientStorage),
        Failure::TooMuch(_) => problem(S::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge),
        Failure::Refused(ApiError::Refused { code, err_code, .. }) => {
            let (status, code) = refused(code, err_code, about);
            let problem = problem(status, code).with_details(json!({ "jetstream_error": err_code }));
            if status == S::SERVICE_UNAVAILABLE { problem.retry_after(SOON) } else { problem }
        }
        Failure::Refused(_) | Failure::Server(_) => problem(S::INTERNAL_SERVER_ERROR, Code::NatsServerError),
    }
}

fn invalid(about: About) -> Code {
    match about {
        About::Message => Code::InvalidMessageData,
        About::Stream => Code::InvalidStreamData,
        About::Other => Code::InvalidParameters,
    }
}

/// By the number of the error (server/errors.json of nats-server).
fn refused(code: u16, err_code: u64, about: About) -> (StatusCode, Code) {
    use StatusCode as S;
    match err_code {
        // The last sequence, message id or stream is another than was expected.
        10060 | 10070 | 10071 | 10164 => (S::PRECONDITION_FAILED, Code::PreconditionFailed),
        // The message is longer than its stream takes.
        10054 | 10097 => (S::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge),
        // Memory, storage, or a stream that discards new messages are full.
        10023 | 10028 | 10047 | 10077 | 10122 => (S::INSUFFICIENT_STORAGE, Code::InsufficientStorage),
        10037 => (S::NOT_FOUND, Code::NotFound),
        10014 | 10149 => (S::NOT_FOUND, Code::NotFound),
        10059 => (S::NOT_FOUND, Code::StreamNotFound),
        // A name in use, with another configuration; subjects that overlap.
        10058 | 10065 | 10148 | 10013 => (S::CONFLICT, Code::StreamCreationError),
        10008 => (S::SERVICE_UNAVAILABLE, Code::ServiceUnavailable),
        // A time to live that cannot be read, is too short, or is not for this stream.
        10165 | 10166 if about == About::Message => (S::BAD_REQUEST, Code::InvalidMessageData),
        // What an atomic batch may not hold.
        10174 | 10175 | 10177 | 10179 | 10199 | 10200 | 10201 => (S::BAD_REQUEST, Code::InvalidMessageData),
        // An atomic batch that was not kept: too many were open. Nothing of it was stored.
        10176 | 10210 | 10211 => (S::SERVICE_UNAVAILABLE, Code::ServiceUnavailable),
        // Filters of a work queue that overlap; more consumers than there may be.
        10099 | 10100 | 10026 => (S::CONFLICT, Code::StreamCreationError),
        // The request is none that this server takes; two of those it calls its own fault.
        10052 | 10074 => (S::BAD_REQUEST, invalid(about)),
        _ if code == 400 && about != About::Message => (S::BAD_REQUEST, invalid(about)),
        _ => match about {
            About::Message => (S::INTERNAL_SERVER_ERROR, Code::MessagePublishError),
            About::Stream | About::Other => (S::INTERNAL_SERVER_ERROR, Code::JetStreamError),
        },
    }
}
