//! What runs on the thread that sends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivered, Delivery};
use super::launches::{Launch, Launches};
use super::metrics::{Starts, requests};
use super::sender::Sender;
use super::spans::{request, resource};
use super::wire::Message;
use super::{Shared, Sources};
use crate::metrics::Metrics;
use crate::settings::Url;
use crate::spans::{COUNTS, Kind, Recorder, Span, Status, Value, recorder};
use crate::supervisor::{Handle, Transition};

pub struct Exporter {
    sources: Sources,
    shared: Arc<Shared>,
}

impl Exporter {
    pub fn new(sources: Sources, shared: Arc<Shared>) -> Self {
        Self { sources, shared }
    }

    /// Sends until the program ends, and what waits then.
    pub async fn run(self) {
        let Self { sources: Sources { export, resource: attributes, transitions, handle, metrics, started }, shared } =
            self;
        let sender = match Sender::new(&export) {
            Ok(sender) => sender,
            Err(reason) => {
                return tracing::error!("cannot send traces and metrics to the OpenTelemetry collector: {reason}");
            }
        };
        let (resource, stop) = (resource(&attributes), shared.stop.clone());
        let delivery = |what, url: &Url, counts| Delivery::new(what, url.clone(), sender.clone(), counts, stop.clone());
        let traces = async {
            if let (Some(recorder), Some(url)) = (recorder(), &export.traces) {
                let delivery = delivery("traces", url, &COUNTS.traces);
                tokio::join!(
                    follow(transitions, recorder, started, stop.clone()),
                    send_spans(delivery, recorder, &resource, (export.spans.delay, shared.stopping.clone())),
                );
            }
        };
        let numbers = async {
            if let Some(url) = &export.metrics {
                let delivery = delivery("metrics", url, &COUNTS.metrics);
                send_metrics(delivery, &metrics, &resource, export.metric_interval, started).await;
            }
        };
        tokio::join!(traces, numbers, notice_stop(handle, &shared));
    }
}

/// Notes when a stop begins: from then on there is only so much time.
async fn notice_stop(handle: Handle, shared: &Shared) {
    let mut snapshots = handle.watch();
    tokio::select! {
        _ = snapshots.wait_for(|snapshot| snapshot.state.is_stopping()) => {}
        () = shared.stop.cancelled() => {}
    }
    shared.stopping();
}

/// Records the starts of servers.
async fn follow(
    mut transitions: broadcast::Receiver<Transition>,
    recorder: &'static Recorder,
    started: SystemTime,
    stop: CancellationToken,
) {
    let mut launches = Launches::new(started);
    loop {
        let transition = tokio::select! {
            transition = transitions.recv() => transition,
            () = stop.cancelled() => return,
        };
        match transition {
            Ok(transition) => {
                if let Some(launch) = launches.enter(&transition) {
                    record(launch, recorder);
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn record(launch: Launch, recorder: &Recorder) {
    let Launch { name, generation, began, ended, reason, waited, failure } = launch;
    if let Some((since, until)) = waited {
        recorder.record_phase(generation, "wait", since, until.duration_since(since).unwrap_or_default());
    }
    let mut span = Span::new(recorder.launch(generation), None, name, Kind::Internal, began);
    span.ended = ended;
    span.attributes.push(("unified_nats.generation", generation.into()));
    if let Some(reason) = reason {
        span.attributes.push(("unified_nats.restart.reason", Value::from(reason)));
    }
    if let Some(failure) = failure {
        span.status = Status::Error(failure);
    }
    recorder.record(span);
}

/// Sends spans as they come, many at a time. They wait for others so long, and not once a stop has begun.
async fn send_spans(
    mut delivery: Delivery,
    recorder: &'static Recorder,
    resource: &Message,
    (delay, stopping): (Duration, CancellationToken),
) {
    let (queue, stop) = (&recorder.queue, delivery.stop.clone());
    loop {
        let batch = async {
            queue.some().await;
            tokio::select! {
                () = sleep(delay) => {}
                () = queue.full() => {}
                () = stopping.cancelled() => {}
            }
        };
        tokio::select! {
            () = batch => {}
            () = stop.cancelled() => {}
        }
        while !queue.is_empty() && !delivery.is_given_up() {
            let spans = queue.take();
            let count = spans.len() as u64;
            let rejected = match delivery.deliver(&request(resource, &spans), None).await {
                Delivered::Taken { rejected } => rejected.min(count),
                Delivered::Lost => count,
            };
            COUNTS.spans_refused.add(rejected);
            COUNTS.spans_sent.add(count - rejected);
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// Sends all metrics every `interval`. One that is lost is not made up for: the next has all of it.
async fn send_metrics(
    mut delivery: Delivery,
    metrics: &Metrics,
    resource: &Message,
    interval: Duration,
    started: SystemTime,
) {
    let (mut starts, stop) = (Starts::new(started), delivery.stop.clone());
    let mut ticks = interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let families = tokio::select! {
            at = ticks.tick() => Some((metrics.gather().await, at + interval)),
            () = stop.cancelled() => None,
        };
        // At the end no server is asked any more; what the broker knows of itself is.
        let (families, by) = match families {
            Some((families, by)) => (families, Some(by)),
            None if delivery.is_given_up() => return,
            None => (metrics.own().with_samples().cloned().collect(), None),
        };
        for request in requests(resource, &families, &mut starts, SystemTime::now()) {
            delivery.deliver(&request, by).await;
        }
        if by.is_none() {
            return;
        }
    }
}
