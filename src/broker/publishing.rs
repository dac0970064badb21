//! The spans of publishing, and how messages carry them on. Nothing of it happens where no traces are sent.

use super::{Failure, Message, Stored};
use crate::spans::{self, Current, Kind, SpanContext};

/// Carries the context of a trace.
const TRACEPARENT: &str = "traceparent";

/// A message, or many of one request, on their way into streams.
pub(super) struct Publishing {
    span: spans::Open,
    /// What messages bear; [`None`] where the trace is not recorded, so that they keep what they have.
    header: Option<String>,
    /// The span of the request.
    request: Option<Current>,
    stored: u64,
    failed: u64,
    /// The first failure.
    failure: Option<(&'static str, String)>,
}

impl Publishing {
    /// A message alone. Its span stands below the one that the message names, or that of the request.
    pub fn one(message: &Message) -> Option<Self> {
        let recorder = spans::recorder()?;
        let request = spans::current();
        let parent = named_by(message)
            .filter(|named| !came_with(request, *named))
            .or_else(|| request.map(|request| request.context));
        let mut this = Self::begin(recorder.begin(parent, "publish", Kind::Producer), request);
        this.span.set("messaging.destination.name", message.subject.as_str());
        this.span.set("messaging.message.body.size", message.payload.len());
        if let Some(id) = &message.msg_id {
            this.span.set("messaging.message.id", id.as_str());
        }
        Some(this)
    }

    /// Many messages of one request.
    pub fn many() -> Option<Self> {
        let recorder = spans::recorder()?;
        Some(Self::begin(recorder.begin_here("publish", Kind::Producer), spans::current()))
    }

    /// Names of the semantic conventions of OpenTelemetry for messaging.
    fn begin(mut span: spans::Open, request: Option<Current>) -> Self {
        span.set("messaging.system", "nats");
        span.set("messaging.operation.name", "publish");
        span.set("messaging.operation.type", "send");
        let header = span.context.sampled.then(|| span.context.to_string());
        Self { span, header, request, stored: 0, failed: 0, failure: None }
    }

    /// What a message that stands for this span bears in the place of its own `traceparent`.
    pub fn header(&self) -> TraceHeader<'_> {
        TraceHeader(self.header.as_deref())
    }

    /// The same for one of many: those that belong to traces of their own stay there.
    pub fn header_of(&self, message: &Message) -> TraceHeader<'_> {
        let is_of_another = named_by(message).is_some_and(|named| !came_with(self.request, named));
        TraceHeader(self.header.as_deref().filter(|_| !is_of_another))
    }

    /// What became of one of many; `failure` is why it is none of those that are stored.
    pub fn count(&mut self, failure: Option<(&'static str, String)>) {
        match failure {
            None => self.stored += 1,
            Some(failure) => {
                self.failed += 1;
                self.failure.get_or_insert(failure);
            }
        }
    }

    /// All of them are answered.
    pub fn end_all(mut self) {
        self.span.set("messaging.batch.message_count", self.stored + self.failed);
        self.span.set("unified_nats.failed_messages", self.failed);
        match self.failure {
            None => self.span.end(),
            Some((kind, reason)) => self.span.fail(kind, reason),
        }
    }

    /// So many messages were stored, the last of them like that, or none.
    pub fn end(mut self, count: usize, outcome: &Result<Stored, Failure>) {
        if count > 1 {
            self.span.set("messaging.batch.message_count", count);
        }
        match outcome {
            Ok(stored) => {
                self.span.set("unified_nats.stream", stored.stream.as_str());
                self.span.set("unified_nats.sequence", stored.sequence);
                self.span.set("unified_nats.duplicate", stored.duplicate);
                self.span.end();
            }
            Err(failure) => self.span.fail(failure.word(), failure.to_string()),
        }
    }
}

/// The `traceparent` of a message, where another one than the client's stands in its place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TraceHeader<'a>(Option<&'a str>);

impl TraceHeader<'_> {
    pub fn is_there(self) -> bool {
        self.0.is_some()
    }

    pub fn put(self, headers: &mut async_nats::HeaderMap) {
        if let Some(header) = self.0 {
            headers.insert(TRACEPARENT, header);
        }
    }
}

fn named_by(message: &Message) -> Option<SpanContext> {
    SpanContext::parse(message.headers.get(TRACEPARENT)?.as_str())
}

/// Whether a message names what the request came with: then the span of the request stands between.
fn came_with(request: Option<Current>, named: SpanContext) -> bool {
    request.is_some_and(|request| request.context.trace == named.trace && request.parent == Some(named.span))
}
