//! Begins spans, and keeps those that have ended until somebody sends them.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::futures::TaskLocalFuture;

use super::context::{SpanContext, SpanId, TraceId};
use super::queue::Queue;
use super::sampler::Sampler;
use super::span::{Kind, Span, Status, Value, cut};

tokio::task_local! {
    static CURRENT: Current;
}

/// The span that the work of this task is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    pub context: SpanContext,
    /// The one above it, which may be of another program.
    pub parent: Option<SpanId>,
}

/// Of the task that asks.
pub fn current() -> Option<Current> {
    CURRENT.try_with(|current| *current).ok()
}

/// What spans come to. There is one while traces are sent, and none otherwise ([`super::recorder`]).
pub struct Recorder {
    sampler: Sampler,
    pub queue: Queue,
    /// What the ids of launches are made of.
    seed: u128,
}

impl Recorder {
    pub fn new(sampler: Sampler, most_waiting: usize, batch: usize) -> Self {
        let (queue, seed) = (Queue::new(most_waiting, batch), fastrand::u128(..));
        Self { sampler, queue, seed }
    }

    /// Begins a span below `parent`, or a trace where there is none.
    pub fn begin(&'static self, parent: Option<SpanContext>, name: impl Into<Cow<'static, str>>, kind: Kind) -> Open {
        let trace = parent.map_or_else(TraceId::random, |parent| parent.trace);
        let sampled = self.sampler.samples(trace, parent);
        let context = SpanContext { trace, span: SpanId::random(), sampled };
        let parent = parent.map(|parent| parent.span);
        let span = sampled.then(|| Box::new(Span::new(context, parent, name, kind, SystemTime::now())));
        Open { recorder: self, context, parent, began: Instant::now(), span }
    }

    /// The same below the span that this task works for.
    pub fn begin_here(&'static self, name: impl Into<Cow<'static, str>>, kind: Kind) -> Open {
        self.begin(current().map(|current| current.context), name, kind)
    }

    /// The span of the launch of one server, from its cause until it is ready. Its ids follow from the
    /// generation, so that all who take part know it before anybody has recorded it.
    pub fn launch(&self, generation: u64) -> SpanContext {
        let trace = TraceId::new(self.seed ^ scattered(generation));
        let span = SpanId::new(scattered(generation ^ self.seed as u64) as u64);
        SpanContext { trace, span, sampled: self.sampler.samples(trace, None) }
    }

    /// Keeps a span whose times others have taken; not one of a trace that is not sampled.
    pub fn record(&self, span: Span) {
        if span.context.sampled {
            self.queue.push(span);
        }
    }

    /// A part of the launch of a server that is over.
    pub fn record_phase(&self, generation: u64, name: &'static str, began: SystemTime, took: Duration) {
        let launch = self.launch(generation);
        let context = SpanContext { span: SpanId::random(), ..launch };
        let span = Span::new(context, Some(launch.span), name, Kind::Internal, began);
        self.record(Span { ended: began + took, ..span });
    }
}

/// Numbers that have nothing in common, by the constants of splitmix64.
fn scattered(number: u64) -> u128 {
    let mix = |number: u64| {
        let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    };
    let step = |times: u64| mix(number.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(times)));
    (u128::from(step(1)) << 64) | u128::from(step(2))
}

/// A span that is not over. It ends with [`Open::end`] or [`Open::fail`]; where whoever works on it is
/// dropped, that is how it ends.
pub struct Open {
    recorder: &'static Recorder,
    pub context: SpanContext,
    parent: Option<SpanId>,
    began: Instant,
    /// [`None`] where its trace is not sampled, and once it is over.
    span: Option<Box<Span>>,
}

impl Open {
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.span {
            span.attributes.push((key, value.into()));
        }
    }

    /// It went well.
    pub fn end(mut self) {
        self.finish(Status::Unset);
    }

    /// It failed; `kind` is one of few words, `reason` says it to people.
    pub fn fail(mut self, kind: impl Into<Value>, reason: impl Into<String>) {
        self.set("error.type", kind);
        self.finish(Status::Error(cut(reason.into())));
    }

    /// Work that is a part of it.
    pub fn scope<F: Future>(&self, work: F) -> TaskLocalFuture<Current, F> {
        CURRENT.scope(Current { context: self.context, parent: self.parent }, work)
    }

    fn finish(&mut self, status: Status) {
        if let Some(mut span) = self.span.take() {
            span.ended = span.began + self.began.elapsed();
            span.status = status;
            self.recorder.queue.push(*span);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.set("error.type", "abandoned");
        self.finish(Status::Error("it was given up before its end".into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder(parent_based: bool, ratio: f64) -> &'static Recorder {
        Box::leak(Box::new(Recorder::new(Sampler::new(parent_based, ratio), 8, 8)))
    }

    fn remote(sampled: bool) -> SpanContext {
        SpanContext { trace: TraceId::new(5), span: SpanId::new(6), sampled }
    }

    #[tokio::test]
    async fn spans_know_what_they_are_a_part_of() {
        let recorder = recorder(true, 0.0);
        let server = recorder.begin(Some(remote(true)), "server", Kind::Server);
        let (below, seen) = server.scope(async { (recorder.begin_here("below", Kind::Producer), current()) }).await;
        assert_eq!(seen.unwrap().parent, Some(remote(true).span));
        assert_eq!(current(), None);
        let (context, above) = (below.context, server.context.span);
        below.fail("late", "no answer");
        server.end();
        let spans = recorder.queue.take();
        assert_eq!((spans[0].parent, spans[0].context), (Some(above), context));
        assert_eq!(spans[0].attributes, [("error.type", Value::from("late"))]);
        assert_eq!(spans[0].status, Status::Error("no answer".into()));
        assert_eq!((spans[1].parent, &spans[1].status), (Some(remote(true).span), &Status::Unset));
        assert!(spans.iter().all(|span| span.context.trace == remote(true).trace && span.ended >= span.began));
    }

    #[test]
    fn what_is_not_sampled_is_not_kept_and_passes_that_on() {
        let recorder = recorder(true, 1.0);
        let mut open = recorder.begin(Some(remote(false)), "x", Kind::Server);
        open.set("a", "b");
        assert!(!open.context.sampled && open.context.trace == remote(false).trace);
        open.fail("x", "y");
        assert!(recorder.queue.is_empty());
    }

    #[test]
    fn what_is_dropped_was_given_up() {
        let recorder = recorder(true, 1.0);
        drop(recorder.begin(None, "x", Kind::Internal));
        let spans = recorder.queue.take();
        assert_eq!(spans[0].status, Status::Error("it was given up before its end".into()));
    }

    #[test]
    fn launches_have_ids_that_everybody_knows_and_nobody_shares() {
        let recorder = recorder(true, 1.0);
        let all: std::collections::HashSet<_> = (0..1000).map(|n| recorder.launch(n).trace).collect();
        assert_eq!(all.len(), 1000);
        assert_eq!(recorder.launch(3), recorder.launch(3));
        recorder.record_phase(3, "server", SystemTime::UNIX_EPOCH, Duration::from_millis(7));
        let span = recorder.queue.take().remove(0);
        assert_eq!((span.parent, span.context.trace), (Some(recorder.launch(3).span), recorder.launch(3).trace));
        assert_eq!(span.ended, SystemTime::UNIX_EPOCH + Duration::from_millis(7));
    }
}
