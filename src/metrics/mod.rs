//! Metrics for Prometheus: what nats-server's monitoring says under the names that existing dashboards ask
//! for ([`exporter`]), and what the broker knows of itself ([`own`]).
//!
//! Everything is found out when somebody scrapes. One task ([`Collector`]) asks nats-server, however many
//! scrape, and an answer stands within a second whatever the server does: with `unified_nats_up 0` and what
//! is known without it.

mod advisories;
mod asking;
mod bounds;
mod collect;
mod consumers;
mod counting;
mod exporter;
mod exposition;
mod families;
mod history;
mod ingest;
mod losses;
mod monitored;
mod own;
mod streams;
mod subjects;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;

use crate::alerts::AlertCounts;
use crate::broker::Broker;
use crate::http::envelope::{Code, Problem};
use crate::http::traffic::Traffic;
use crate::http::{Routes, exchange};
use crate::settings::Settings;
use crate::spans;
use crate::status::BrokerStatus;
use crate::streams::Drift;
use crate::supervisor::Snapshot;
use collect::Latest;
pub use collect::{Collector, Observation};
use exposition::Format;
pub use exposition::{Distribution, Families, Family, Kind, Labels, Value};
pub use history::{Held, History, Row};
use own::{Facts, Process};

/// Whom metrics are had from.
#[derive(Clone)]
pub struct Sources {
    pub status: watch::Receiver<Arc<BrokerStatus>>,
    pub supervisor: watch::Receiver<Snapshot>,
    /// Others after a reload.
    pub settings: watch::Receiver<Arc<Settings>>,
    pub drift: watch::Receiver<Drift>,
    /// How long each part of the last start took, in seconds.
    pub start_phases: watch::Receiver<Vec<(&'static str, f64)>>,
    pub alerts: AlertCounts,
    pub broker: Broker,
    pub traffic: Traffic,
}

/// Answers scrapes.
#[derive(Clone)]
pub struct Metrics {
    sources: Sources,
    latest: Latest,
}

impl Metrics {
    /// The metrics, and the task that somebody has to run for them.
    pub fn new(sources: Sources) -> (Self, Collector) {
        let (collector, latest) = Collector::new(sources.settings.clone(), sources.broker.clone());
        (Self { sources, latest }, collector)
    }

    /// All of it, in the format that the headers ask for.
    pub async fn answer(&self, headers: &HeaderMap) -> Response {
        let accept: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let format = Format::wanted(&accept.join(","));
        let collected = self.latest.get().await;
        let text = format!("{}{}{}", self.own().write(format), collected.text(format), format.end());
        ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
    }

    /// The same as values, for who sends them elsewhere; within the time of a scrape.
    pub async fn gather(&self) -> Vec<Family> {
        let collected = self.latest.get().await;
        let own = self.own();
        own.with_samples().chain(collected.families().with_samples()).cloned().collect()
    }

    /// What nats-server monitors, as values; within the time of a scrape.
    pub async fn observe(&self) -> Observation {
        self.latest.get().await.observation().clone()
    }

    /// Gives what `read` makes of the last 24 hours; it must not take long.
    pub fn read_history<T>(&self, read: impl FnOnce(&History) -> T) -> T {
        read(&self.latest.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known without asking anybody.
    pub fn own(&self) -> Families {
        let Sources { status, supervisor, settings, drift, start_phases, alerts, broker, traffic } = &self.sources;
        let (status, settings) = (status.borrow().clone(), settings.borrow().clone());
        let (drift, start_phases) = (drift.borrow().clone(), start_phases.borrow().clone());
        let restarts_ago: Vec<_> = supervisor.borrow().recent_restarts.iter().map(Instant::elapsed).collect();
        let mut families = Families::default();
        let facts = Facts {
            status: &status,
            settings: &settings,
            drift: settings.jetstream.enabled.then_some(&drift),
            restarts_ago: &restarts_ago,
            start_phases: &start_phases,
            traffic: &traffic.so_far(),
            process: &Process::now(status.pid),
            alerts: &alerts.totals(),
            failed_connects: broker.failed_connects(),
            exports: settings.telemetry.export.is_some().then(|| {
                let dropped = spans::recorder().map_or(0, |recorder| recorder.queue.dropped());
                (&spans::COUNTS, dropped)
            }),
        };
        own::add(&facts, &mut families);
        families
    }
}

/// Time for a scrape on the port of its own; it takes none of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the port for metrics answers.
pub fn routes(metrics: Metrics) -> Routes {
    let traffic = metrics.sources.traffic.clone();
    let all = Router::new()
        .route("/metrics", get(scrape))
        .fallback(nothing)
        .with_state(metrics)
        .layer(CatchPanicLayer::new())
        .layer(from_fn(move |request: Request, next: Next| exchange(PATIENCE, traffic.clone(), request, next)));
    Routes { probes: Router::new(), probe_paths: &[], all }
}

async fn scrape(State(metrics): State<Metrics>, headers: HeaderMap) -> Response {
    metrics.answer(&headers).await
}

async fn nothing(request: Request) -> Problem {
    let message = format!("there is nothing at {}; this port has /metrics", request.uri().path());
    Problem::new(StatusCode::NOT_FOUND, Code::NotFound, message)
}
