//! What takes time, as spans that belong to traces.
//!
//! Whoever does something worth a span asks for the [`recorder`]: there is one while traces are sent, and
//! none otherwise, so that a program without a collector looks at one word in memory and goes on. A span
//! that has ended waits in a bounded queue; nobody waits for its way to the collector.

mod context;
mod counts;
mod queue;
mod recorder;
mod sampler;
mod span;

use std::sync::OnceLock;

pub use context::{SpanContext, SpanId, TraceId};
pub use counts::{Count, Counts, ExportCounts};
pub use recorder::{Current, Open, Recorder, current};
pub use sampler::Sampler;
pub use span::{Kind, Span, Status, Value};

static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// Of the program.
pub static COUNTS: Counts = Counts::new();

/// The one that records, if traces are sent.
pub fn recorder() -> Option<&'static Recorder> {
    RECORDER.get()
}

/// Has traces recorded from now on, for as long as the program runs. Only the first one counts.
pub fn install(recorder: Recorder) -> &'static Recorder {
    RECORDER.get_or_init(|| recorder)
}
