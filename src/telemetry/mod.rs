//! Traces and metrics for an OpenTelemetry collector, over OTLP.
//!
//! A thread of its own sends them, which belongs to the data side: a collector that hangs, refuses or is
//! gone delays nobody. Spans come out of the bounded queue of [`crate::spans`]; metrics are those of
//! `/metrics`. Without a collector there is no thread, and no span is begun.

mod delivery;
mod launches;
mod metrics;
mod sender;
mod spans;
mod task;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Builder;
use tokio::sync::{OnceCell, broadcast};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::http::{THREADS, step_back};
use crate::metrics::Metrics;
use crate::settings::{OtlpExport, Settings};
use crate::spans::{Recorder, Sampler};
use crate::supervisor::{Handle, Transition};
use task::Exporter;

/// From the beginning of a stop on there is so much time for what waits.
const LAST_EXPORT: Duration = Duration::from_secs(1);
/// The same at the very end of a stop that took longer, for what it has left.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Reaches the thread that sends.
#[derive(Clone)]
pub struct Telemetry(Arc<Shared>);

struct Shared {
    stop: CancellationToken,
    done: CancellationToken,
    /// A stop has begun: nothing waits for more to come.
    stopping: CancellationToken,
    /// When it did.
    since: OnceCell<Instant>,
}

impl Shared {
    fn new() -> Self {
        let token = CancellationToken::new;
        Self { stop: token(), done: token(), stopping: token(), since: OnceCell::new() }
    }

    fn stopping(&self) {
        // The first one counts.
        let _ = self.since.set(Instant::now());
        self.stopping.cancel();
    }
}

/// Has traces recorded from now on, if settings say where they go.
pub fn record(settings: &Settings) -> Option<&'static Recorder> {
    let telemetry = &settings.telemetry;
    let export = telemetry.export.as_ref()?;
    export.traces.as_ref()?;
    let sampler = Sampler::new(telemetry.sampler.parent_based, telemetry.sampler.ratio.get());
    Some(crate::spans::install(Recorder::new(sampler, export.spans.most, export.spans.batch)))
}

/// What traces and metrics say of this service: what the settings say, and else who we are and where.
pub fn resource(settings: &Settings) -> Vec<(String, String)> {
    let mut attributes = settings.telemetry.resource_attributes.clone();
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    // Names of the semantic conventions of OpenTelemetry. The instance is the same after a restart, so that its
    // metrics go on.
    for (key, value) in [
        ("service.version", version.clone()),
        ("service.instance.id", format!("{host}:{}", settings.api.port)),
        ("host.name", host),
        ("telemetry.sdk.language", "rust".into()),
        ("telemetry.sdk.name", "unified-nats".into()),
        ("telemetry.sdk.version", version),
    ] {
        if !attributes.iter().any(|(known, _)| known == key) {
            attributes.push((key.to_owned(), value));
        }
    }
    attributes
}

/// What the thread that sends needs.
pub struct Sources {
    pub export: OtlpExport,
    /// What is said of this service.
    pub resource: Vec<(String, String)>,
    /// From the first one on.
    pub transitions: broadcast::Receiver<Transition>,
    pub handle: Handle,
    pub metrics: Metrics,
    /// When the program was started.
    pub started: SystemTime,
}

impl Telemetry {
    /// Starts the thread that sends. Where that cannot be done the broker goes on without it.
    pub fn start(sources: Sources) -> Option<Self> {
        let shared = Arc::new(Shared::new());
        let of_thread = shared.clone();
        let work = move || {
            let _done = of_thread.done.clone().drop_guard();
            step_back();
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    runtime.block_on(Exporter::new(sources, of_thread).run());
                    // A name that is being looked up keeps nobody waiting.
                    runtime.shutdown_background();
                }
                Err(error) => tracing::error!("cannot send traces and metrics to the OpenTelemetry collector: {error}"),
            }
        };
        match std::thread::Builder::new().name(format!("{THREADS}otlp")).spawn(work) {
            Ok(_) => Some(Self(shared)),
            Err(error) => {
                tracing::error!("cannot send traces and metrics to the OpenTelemetry collector: {error}");
                None
            }
        }
    }

    /// Has what waits sent, for about a second at most since the stop began. Nobody waits for a collector that
    /// is known to take nothing.
    pub async fn finish(&self) {
        self.0.stopping();
        self.0.stop.cancel();
        let took = self.0.since.get().map(Instant::elapsed).unwrap_or_default();
        let left = LAST_EXPORT.saturating_sub(took).max(LAST_WORDS);
        let _ = timeout(left, self.0.done.cancelled()).await;
    }
}
