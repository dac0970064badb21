//! The composition root: the only place that knows everyone. [`prepare`] does everything that can
//! refuse a start; [`Prepared::run`] runs the tasks until one of them ends.

mod bring_up;
mod directories;
mod external_probe;
mod hand_over;
mod integrity_tasks;
mod liveness_probe;
mod lock;
mod phases;
mod ports;
mod prepare;
mod progress;
mod pulse;
mod reload;
mod rendering;
mod resources;
pub mod signals;
mod store;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::watch::{Receiver, channel};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::api::{self, Views};
use crate::files::HeldDirectory;
use crate::health::{HealthMonitor, HealthReport};
use crate::http::{Bounds, DataSide, Routes};
use crate::integrity::{IntegrityMonitor, SignOfLife};
use crate::logging::Log;
use crate::nats::Monitor;
use crate::nats_conf;
use crate::off_thread::OffThread;
use crate::settings::{Problems, Settings};
use crate::status::{self, Reloads, Sources};
use crate::streams::{Desired, Drift};
use crate::supervisor::{
    ConditionKind, Ending, ExecutableError, External, Failure, Handle, Launch, RestartPolicy, State, Supervisor, Timing,
};
use bring_up::BringUp;
pub use directories::config_file_candidates;
use liveness_probe::LivenessProbe;
use lock::StoreTaken;
use ports::PortError;
use prepare::Server;
pub use prepare::{Prepared, prepare};
pub use reload::Reread;
use reload::{EmbeddedServer, Reload};
pub use rendering::host_name;
use signals::LastLook;
pub use signals::Signals;

/// Why a start was refused or the broker ended other than by a stop.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Settings(#[from] Problems),
    #[error(transparent)]
    Executable(#[from] ExecutableError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Store(#[from] StoreTaken),
    #[error("nats-server could not listen on one of its ports; its last lines were:\n{0}")]
    ServerPort(String),
    #[error("nats-server refuses its configuration (see `unified-nats config validate`):\n{0}")]
    Refused(String),
    #[error(
        "gave up: {reason}, and the restart budget (RESTART_MAX, RESTART_WINDOW) is spent; its last lines were:\n{last_lines}"
    )]
    CrashLoop { reason: String, last_lines: String },
    #[error("internal error: {0}")]
    Internal(#[from] anyhow::Error),
}

/// A task that has ended: its name, and how supervision ended if it was the supervisor.
type Ended = (&'static str, Option<Ending>);

impl Prepared {
    /// Runs the broker until it is stopped or cannot go on.
    pub async fn run(self, signals: Signals, log: Log) -> Result<(), StartError> {
        let Self { settings, store, listener, server, link, log_file, phases, reaper, resources, effective, reread } =
            self;
        let supervision = &settings.supervision;
        let timing = Timing {
            drain_delay: supervision.drain_delay,
            close: close_within(supervision.shutdown_timeout),
            kill_after: kill_after(supervision.shutdown_timeout),
            lame_duck: settings.server.lame_duck_duration + settings.server.lame_duck_grace + LAME_DUCK_MARGIN,
            hand_over: settings.clusters_jetstream().then(|| hand_over_within(supervision.shutdown_timeout)),
        };
        let policy = RestartPolicy::new(supervision);
        let config_file = match &server {
            Server::Embedded(own) => Some(own.0.config_file.clone()),
            Server::External => None,
        };
        let mut tasks: JoinSet<Ended> = JoinSet::new();
        let (handle, own) = match server {
            Server::Embedded(own) => {
                let (server, rendered) = *own;
                let own = EmbeddedServer::new(&server, rendered, reaper.clone());
                (spawn(&mut tasks, Supervisor::new(server, policy, timing, log, log_file)), Some(own))
            }
            Server::External => {
                let server = External::default();
                (spawn(&mut tasks, Supervisor::new(server, policy, timing, log, log_file)), None)
            }
        };
        let (client, client_view) = channel(None);
        let (reports, reports_view) = channel(None);
        let hold = || Arc::new(HeldDirectory::hold(settings.jetstream.store_dir.clone()));
        let directory = store.as_ref().map_or_else(hold, |store| store.held());
        let integrity = IntegrityMonitor::open(&settings, directory.clone());
        let looks_after_messages = settings.looks_after_messages();
        let (drift, drift_view) = channel(Drift::default());
        let (reloaded, reloads_view) = channel(Reloads::default());
        let mut sources = Sources::new(
            &handle,
            reports_view.clone(),
            looks_after_messages.then(|| integrity.watch()),
            settings.jetstream.enabled.then_some(drift_view),
            reloads_view,
        );
        let status = sources.publish();
        let (pulse, pulse_view) = channel(Instant::now());
        let views = Views { status: status.subscribe(), pulse: pulse_view, environment: settings.api.environment };
        tasks.spawn(name("pulse", pulse::give(pulse)));
        tasks.spawn(name("status", status::keep(sources, status)));
        for door in &settings.unauthenticated_listeners {
            tracing::warn!("{}", door.describe());
        }

        let look = Arc::new(Notify::new());
        let (reloads, requests) = mpsc::channel(1);
        let last_look = LastLook { integrity: integrity.clone(), client: client_view.clone() };
        tasks.spawn(name("signals", signals.run(handle.clone(), reaper.clone(), last_look, reloads)));
        if settings.external.is_none() {
            let (link, connected) = (link.clone(), client_view.clone());
            let store = store.clone();
            let watch = LivenessProbe::new(settings.clone(), link, handle.clone(), connected, integrity.clone(), store);
            tasks.spawn(name("watch", watch.run()));
        } else {
            let (period, jetstream) = (settings.health.probe_interval, settings.jetstream.enabled);
            tasks.spawn(name(
                "watch",
                external_probe::probe(handle.clone(), client_view.clone(), look.clone(), period, jetstream),
            ));
        }
        if settings.clusters_jetstream() {
            tasks.spawn(name("hand-over", hand_over::watch(handle.clone(), Monitor::new(&settings))));
        }
        if looks_after_messages {
            // A list of all streams is the most that an idle broker does.
            let period = settings.health.probe_interval * 2;
            tasks.spawn(name(
                "look",
                integrity_tasks::look(handle.clone(), client_view.clone(), integrity.clone(), period),
            ));
            let read_through = integrity_tasks::read_through(handle.clone(), client_view.clone(), integrity.clone());
            tasks.spawn(name("read-through", read_through));
            tasks.spawn(name("listen", integrity_tasks::listen(client_view.clone(), integrity.clone())));
            tasks.spawn(name("restored", integrity_tasks::hear_restored(handle.notices(), integrity.clone())));
        }
        let sign_of_life = looks_after_messages.then(|| SignOfLife::give(directory));
        let sign_of_life = sign_of_life.transpose().context("cannot start a thread")?;
        let (link, link_view) = channel(link);
        let (desired, desired_view) = channel(Arc::new(Desired::of(&settings)));
        let in_force = Arc::new(settings.clone());
        let (settings_in_force, in_force_view) = channel(in_force.clone());
        let at_the_end = in_force_view.clone();
        let bring_up = BringUp {
            settings: in_force,
            in_force: in_force_view.clone(),
            desired: desired_view.clone(),
            link: link_view,
            notices: handle.notices(),
            handle: handle.clone(),
            integrity: integrity.clone(),
            store,
            at_store: OffThread::default(),
            client,
            look: look.clone(),
            drift,
            phases,
            told: vec![],
        };
        tasks.spawn(name("bring-up", bring_up.run_until_over()));
        let reload = Reload {
            reread,
            effective,
            in_force: settings_in_force,
            own,
            handle: handle.clone(),
            link,
            desired,
            requests,
            reloaded,
            disk: reload::Disk::default(),
        };
        tasks.spawn(name("reload", reload.run()));
        let monitor =
            HealthMonitor { in_force: in_force_view, desired: desired_view, client: client_view, reports, look };
        tasks.spawn(name("health", monitor.run()));
        tasks.spawn(name("health-reports", forward_health_reports(reports_view, handle.clone())));
        let bounds = resources.api_bounds(settings.api.max_connections);
        let api = serve_api(listener, settings.api.threads, api::routes(views), bounds, handle.clone(), timing.close);
        tasks.spawn(name("api", api));
        let outcome = supervise_tasks(tasks, &handle).await;
        drop(sign_of_life);
        integrity.flush(LAST_WRITE).await;
        if looks_after_messages && !matches!(outcome, Err(StartError::Internal(_))) {
            integrity.write_down(LAST_WRITE).await;
        }
        match (outcome, config_file) {
            (Err(StartError::Refused(last_lines)), Some(file)) => {
                let settings = at_the_end.borrow().clone();
                Err(StartError::Refused(located(last_lines, file, settings).await))
            }
            (outcome, _) => outcome,
        }
    }
}

/// What nats-server says of its configuration, with the operator's own lines where it means those.
async fn located(last_lines: String, file: PathBuf, settings: Arc<Settings>) -> String {
    let read = {
        let file = file.clone();
        move || std::fs::read_to_string(file)
    };
    let Some(Ok(text)) = OffThread::default().run(LAST_WRITE, read).await else { return last_lines };
    let name = file.display().to_string();
    nats_conf::located(&last_lines, &name, &name, &text, &settings)
}

/// Time for what is known about the streams to be written at the end.
const LAST_WRITE: Duration = Duration::from_millis(250);

fn spawn<L: Launch + Send + 'static>(tasks: &mut JoinSet<Ended>, made: (Supervisor<L>, Handle)) -> Handle {
    let (supervisor, handle) = made;
    tasks.spawn(async move { ("supervisor", Some(supervisor.run().await)) });
    handle
}

async fn name(task: &'static str, work: impl Future<Output = ()>) -> Ended {
    work.await;
    (task, None)
}

/// Waits for the supervisor. Every other task runs as long as it does; one that ends takes the
/// broker down in order, because nobody would notice what is missing.
async fn supervise_tasks(mut tasks: JoinSet<Ended>, handle: &Handle) -> Result<(), StartError> {
    let mut internal = None;
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok((_, Some(ending))) => {
                return match internal {
                    Some(error) => Err(StartError::Internal(error)),
                    None => into_result(ending),
                };
            }
            Ok((task, None)) => internal = Some(anyhow::anyhow!("the task {task:?} ended unexpectedly")),
            Err(error) => internal = Some(anyhow::anyhow!("a task failed: {error}")),
        }
        if handle.is_over() {
            // The supervisor itself is gone, and the server goes with this process.
            break;
        }
        if let Some(error) = &internal {
            tracing::error!("{error}; stopping");
        }
        handle.stop().await;
    }
    Err(StartError::Internal(internal.unwrap_or_else(|| anyhow::anyhow!("no task is left"))))
}

fn into_result(ending: Ending) -> Result<(), StartError> {
    let Ending::Failed { failure, last_lines } = ending else {
        return Ok(());
    };
    let last_lines = last_lines.join("\n");
    Err(match failure {
        Failure::PortTaken => StartError::ServerPort(last_lines),
        Failure::ConfigurationRefused => StartError::Refused(last_lines),
        Failure::CrashLoop { reason } => StartError::CrashLoop { reason, last_lines },
    })
}

/// What lame duck mode may take beyond what it is configured to.
const LAME_DUCK_MARGIN: Duration = Duration::from_secs(10);

/// Time for what is under way over the API when a stop begins.
fn close_within(shutdown_timeout: Duration) -> Duration {
    (shutdown_timeout / 4).min(Duration::from_secs(5))
}

/// Serves the API port from threads of its own, until a stop has it closed. Ends when it cannot.
async fn serve_api(
    listener: TcpListener,
    threads: usize,
    routes: Routes,
    bounds: Bounds,
    handle: Handle,
    patience: Duration,
) {
    let started = DataSide::start(threads).and_then(|mut side| side.open(listener, routes, bounds).map(|()| side));
    let mut side = match started {
        Ok(side) => side,
        Err(error) => return tracing::error!("cannot start the threads of the API port: {error}"),
    };
    let mut snapshots = handle.watch();
    tokio::select! {
        () = side.failed() => return,
        // The supervisor may have ended without one.
        _ = snapshots.wait_for(|s| matches!(s.state, State::Closing { .. })) => {}
    }
    side.close(patience).await;
    handle.closed().await;
    std::future::pending().await
}

/// Time for handing over; nats-server gives itself a second for it.
fn hand_over_within(shutdown_timeout: Duration) -> Duration {
    (shutdown_timeout / 2).min(Duration::from_secs(5))
}

/// Leaves a little of the shutdown time for our own end after the server was killed.
fn kill_after(shutdown_timeout: Duration) -> Duration {
    shutdown_timeout.mul_f64(0.9).max(shutdown_timeout.saturating_sub(Duration::from_secs(1)))
}

/// Tells the supervisor what the examinations find.
async fn forward_health_reports(mut reports: Receiver<Option<HealthReport>>, handle: Handle) {
    while reports.changed().await.is_ok() {
        let Some(HealthReport { generation, report, .. }) = reports.borrow_and_update().clone() else { continue };
        match report.failure() {
            None => handle.report_ok(generation, ConditionKind::HealthCheck).await,
            Some(failure) => handle.report_failed(generation, ConditionKind::HealthCheck, failure).await,
        }
    }
}

#[cfg(test)]
mod tests;
