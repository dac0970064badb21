//! The composition root: the only place that knows everyone, and decides nothing. [`run`] builds the
//! tasks of a broker and runs them until one of them ends.

mod board;
mod tasks;
mod wires;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::alerts::{Alerts, AlertsHandle};
use crate::files::HeldDirectory;
use crate::integrity::{IntegrityHandle, IntegrityMonitor, SignOfLife};
use crate::lifecycle::{self, ApiPort, EmbeddedServer, LastCheck, LivenessProbe, Signals};
use crate::logging::Log;
use crate::metrics;
use crate::nats::{Connector, Monitor};
use crate::preflight::{Prepared, Server, StartError, Store};
use crate::rest;
use crate::settings::Settings;
use crate::status;
use crate::supervisor::{External, Handle, RestartPolicy, Supervisor};
use crate::telemetry::{self, Telemetry};
use tasks::Tasks;
use wires::Wires;

/// Time for what is known about the streams to be written at the end.
const LAST_WRITE: Duration = Duration::from_millis(250);

/// Runs the broker until it is stopped or cannot go on.
pub async fn run(prepared: Prepared, signals: Signals, log: Log) -> Result<(), StartError> {
    let Prepared {
        settings,
        store,
        listener,
        metrics_listener,
        server,
        connectors,
        log_file,
        phases,
        reaper,
        resources,
        effective,
        reread,
        unasked,
    } = prepared;
    let settings = Arc::new(settings);
    telemetry::record(&settings);
    for listener in &settings.unauthenticated_listeners {
        tracing::warn!("{}", listener.describe());
    }
    let mut tasks = Tasks::default();
    let timing = lifecycle::timing(&settings);
    let policy = RestartPolicy::new(&settings.supervision);
    let (handle, embedded) = match server {
        Server::Embedded(own) => {
            let (server, rendered) = *own;
            let embedded = EmbeddedServer::new(&server, rendered, reaper.clone());
            (tasks.supervise(Supervisor::new(server, policy, timing, log, log_file)), Some(embedded))
        }
        Server::External => {
            (tasks.supervise(Supervisor::new(External::default(), policy, timing, log, log_file)), None)
        }
    };
    // From the first state on.
    let (transitions, started) = (handle.transitions(), phases.started());
    let config_file = embedded.as_ref().map(|embedded| embedded.config_file().to_owned());
    let directory = held(&settings, store.as_deref());
    let (monitor, integrity) = IntegrityMonitor::open(&settings, directory.clone());
    tasks.start("integrity", lifecycle::keep_ledger(monitor, handle.clone()));
    let wires = Wires::new(settings.clone(), connectors.clone());
    let (views, published, sources) = wires.status(&handle, &integrity);
    let (seen, in_force, client) = (published.subscribe(), wires.in_force.1.clone(), wires.client.1.clone());
    let (alerts, alerts_handle) = Alerts::new(seen, in_force, client, directory.clone(), CancellationToken::new());
    tasks.start("alerts", alerts.run());
    tasks.start("status", status::keep(sources, published));
    tasks.start("pulse", lifecycle::give_pulse(wires.pulse.0.clone()));
    let (reloads, requests) = mpsc::channel(1);
    let last_check = LastCheck { integrity: integrity.clone(), client: wires.client.1.clone() };
    tasks.start("signals", signals.run(handle.clone(), reaper, last_check, reloads));
    start_probes(&mut tasks, &wires, &handle, &integrity, connectors.control, store.clone());
    let sign_of_life = start_integrity(&mut tasks, &wires, &handle, &integrity, directory)?;
    let bring_up = wires.bring_up(&handle, &integrity, store, phases);
    tasks.start("bring-up", bring_up.run_until_over());
    let reload = wires.reload(&handle, reread, effective, embedded, requests);
    tasks.start("reload", reload.run());
    tasks.start("health", wires.health_monitor().run());
    tasks.start("health-reports", lifecycle::forward_health_reports(wires.reports.1.clone(), handle.clone()));
    let bounds = resources.api_bounds(settings.api.max_connections);
    let (api, links, metrics, collector, sampler) = wires.api(views, &handle, &integrity, &alerts_handle)?;
    let (threads, shutdown) = (settings.api.threads, api.shutdown.clone());
    let telemetry = settings.telemetry.export.clone().and_then(|export| {
        let (resource, handle, metrics) = (telemetry::resource(&settings), handle.clone(), metrics.clone());
        Telemetry::start(telemetry::Sources { export, resource, transitions, handle, metrics, started })
    });
    let others = metrics_listener.map(|listener| (listener, metrics::routes(metrics)));
    let (others, work) = (others.into_iter().collect(), vec![collector.run().boxed(), sampler.run().boxed()]);
    let port = ApiPort { listener, threads, routes: rest::routes(api), bounds, links, others, work, shutdown };
    tasks.start("api", port.serve(handle.clone(), timing.close));

    let refusal = unasked.map(|unasked| unasked.ask(handle.watch()));
    let outcome = tasks.until_over_or_refused(&handle, refusal).await;
    drop(sign_of_life);
    // The task that keeps the ledger is still there.
    integrity.flush(LAST_WRITE).await;
    tokio::join!(finish_alerts(&alerts_handle, &outcome), finish_telemetry(telemetry.as_ref()));
    drop(tasks);
    if settings.looks_after_messages() && !matches!(outcome, Err(StartError::Internal(_))) {
        integrity.write_down(LAST_WRITE).await;
    }
    match (outcome, config_file) {
        (Err(StartError::Refused(last_lines)), Some(file)) => {
            let settings = wires.in_force.1.borrow().clone();
            Err(StartError::Refused(lifecycle::located(last_lines, file, settings).await))
        }
        (outcome, _) => outcome,
    }
}

/// Has the last alerts sent.
async fn finish_alerts(alerts: &AlertsHandle, outcome: &Result<(), StartError>) {
    let gave_up = match outcome {
        Err(StartError::CrashLoop { reason, .. }) => Some(reason.clone()),
        _ => None,
    };
    alerts.finish(gave_up).await;
}

/// Has what waits for the collector sent.
async fn finish_telemetry(telemetry: Option<&Telemetry>) {
    if let Some(telemetry) = telemetry {
        telemetry.finish().await;
    }
}

/// The store that was opened, or the directory where one would be.
fn held(settings: &Settings, store: Option<&Store>) -> Arc<HeldDirectory> {
    let hold = || Arc::new(HeldDirectory::hold(settings.jetstream.store_dir.clone()));
    store.map_or_else(hold, Store::held)
}

/// The tasks that ask the server whether it answers.
fn start_probes(
    tasks: &mut Tasks,
    wires: &Wires,
    handle: &Handle,
    integrity: &IntegrityHandle,
    connector: Connector,
    store: Option<Arc<Store>>,
) {
    let (settings, client) = (wires.in_force.1.borrow().clone(), wires.client.1.clone());
    if settings.external.is_some() {
        let (period, jetstream) = (settings.health.probe_interval, settings.jetstream.enabled);
        let probe = lifecycle::probe_external(handle.clone(), client, wires.recheck.clone(), period, jetstream);
        tasks.start("liveness", probe);
    } else {
        let settings = Settings::clone(&settings);
        let probe = LivenessProbe::new(settings, connector, handle.clone(), client, integrity.clone(), store);
        tasks.start("liveness", probe.run());
    }
    if settings.clusters_jetstream() {
        tasks.start("hand-over", lifecycle::watch_hand_over(handle.clone(), Monitor::new(&settings)));
    }
}

/// The tasks that look after the messages, where somebody should.
fn start_integrity(
    tasks: &mut Tasks,
    wires: &Wires,
    handle: &Handle,
    integrity: &IntegrityHandle,
    directory: Arc<HeldDirectory>,
) -> anyhow::Result<Option<SignOfLife>> {
    let settings = wires.in_force.1.borrow().clone();
    if !settings.looks_after_messages() {
        return Ok(None);
    }
    // A list of all streams is the most that an idle broker does.
    let period = settings.health.probe_interval * 2;
    let client = || wires.client.1.clone();
    tasks.start("check-streams", lifecycle::check_streams(client(), integrity.clone(), period));
    tasks.start("read-through", lifecycle::read_through(handle.clone(), client(), integrity.clone()));
    tasks.start("listen", lifecycle::listen(client(), integrity.clone()));
    tasks.start("counted", lifecycle::hear_counted(handle.notices(), integrity.clone()));
    SignOfLife::give(directory).map(Some).context("cannot start a thread")
}
