//! Spans as OTLP has them. Pure.

use std::time::{Duration, SystemTime};

use super::wire::{Field, Message};
use crate::spans::{Span, Status, Value};

/// Nanoseconds since 1970.
pub fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// `KeyValue`.
pub fn attribute(key: impl Into<std::borrow::Cow<'static, str>>, value: &Value) -> Message {
    let value = match value {
        Value::Text(text) => Message::default().text((1, "stringValue"), text.clone()),
        Value::Bool(is_so) => Message::default().with((2, "boolValue"), Field::Bool(*is_so)),
        Value::Int(number) => Message::default().with((3, "intValue"), Field::Int(*number)),
    };
    Message::default().text((1, "key"), key).message((2, "value"), value)
}

/// `Resource`: which service, on which machine.
pub fn resource(attributes: &[(String, String)]) -> Message {
    let attribute = |(key, value): &(String, String)| attribute(key.clone(), &Value::from(value.as_str()));
    Message::default().messages((1, "attributes"), attributes.iter().map(attribute).collect())
}

/// `InstrumentationScope`: ourselves.
pub fn scope() -> Message {
    Message::default().text((1, "name"), "unified-nats").text((2, "version"), env!("CARGO_PKG_VERSION"))
}

/// `ExportTraceServiceRequest`.
pub fn request(resource: &Message, spans: &[Span]) -> Message {
    let of_scope =
        Message::default().message((1, "scope"), scope()).messages((2, "spans"), spans.iter().map(span).collect());
    let of_resource =
        Message::default().message((1, "resource"), resource.clone()).messages((2, "scopeSpans"), vec![of_scope]);
    Message::default().messages((1, "resourceSpans"), vec![of_resource])
}

fn span(span: &Span) -> Message {
    let Span { context, parent, name, kind, began, ended, attributes, status } = span;
    let mut message = Message::default()
        .with((1, "traceId"), Field::Id(context.trace.bytes().into()))
        .with((2, "spanId"), Field::Id(context.span.bytes().into()));
    if let Some(parent) = parent {
        message = message.with((4, "parentSpanId"), Field::Id(parent.bytes().into()));
    }
    let attributes = attributes.iter().map(|(key, value)| attribute(*key, value)).collect();
    message = message
        .text((5, "name"), name.clone())
        .with((6, "kind"), Field::Small(*kind as u32))
        .with((7, "startTimeUnixNano"), Field::Fixed(nanos(*began)))
        .with((8, "endTimeUnixNano"), Field::Fixed(nanos(*ended)))
        .messages((9, "attributes"), attributes);
    match status {
        Status::Unset => message,
        Status::Error(reason) => {
            /// `STATUS_CODE_ERROR`.
            const ERROR: u32 = 2;
            let status = Message::default().text((2, "message"), reason.clone());
            message.message((15, "status"), status.with((3, "code"), Field::Small(ERROR)))
        }
    }
}
