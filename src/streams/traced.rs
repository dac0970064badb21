//! The spans of changes to streams and consumers.

use crate::nats::ApiError;
use crate::spans::{self, Kind};

/// Does a change, with a span where traces are sent: `action` is what is done to the stream, or to the consumer
/// of it.
pub async fn traced<T>(
    action: &'static str,
    stream: &str,
    consumer: Option<&str>,
    change: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let Some(recorder) = spans::recorder() else { return change.await };
    let object = if consumer.is_some() { "consumer" } else { "stream" };
    let mut span = recorder.begin_here(format!("{action} {object}"), Kind::Internal);
    span.set("unified_nats.action", action);
    span.set("unified_nats.stream", stream);
    if let Some(consumer) = consumer {
        span.set("unified_nats.consumer", consumer);
    }
    let outcome = change.await;
    match &outcome {
        Ok(_) => span.end(),
        Err(error) => span.fail(error.word(), error.to_string()),
    }
    outcome
}
