//! The composition root: the only place that knows everyone. [`prepare`] does everything that can
//! refuse a start; [`Prepared::run`] runs the tasks until one of them ends.

mod bring_up;
mod directories;
mod phases;
mod ports;
mod progress;
mod resources;
mod signals;
mod watch;

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_nats::Client;
use tokio::sync::watch::{Receiver, channel};
use tokio::task::JoinSet;

use crate::api::{self, Views};
use crate::health::{Examined, HealthMonitor};
use crate::integrity::Keeper;
use crate::logging::Log;
use crate::nats::{JetStream, Link, OwnCertificate};
use crate::nats_conf::{self, Secrets, Surroundings};
use crate::settings::{Problems, Settings, variables};
use crate::supervisor::{
    Concern, Ending, Executable, ExecutableError, Failure, Generation, Handle, LogFile, NatsServer, Reaper,
    RestartPolicy, Snapshot, State, Supervisor, Timing,
};
use bring_up::BringUp;
pub use directories::config_file_candidates;
use phases::Phases;
use ports::PortError;
use resources::Resources;
use signals::LastLook;
pub use signals::Signals;
use watch::Watch;

/// Why a start was refused or the broker ended other than by a stop.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Settings(#[from] Problems),
    #[error(transparent)]
    Executable(#[from] ExecutableError),
    #[error(transparent)]
    Port(#[from] PortError),
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

/// Everything a start needs, ready to run.
pub struct Prepared {
    settings: Settings,
    listener: TcpListener,
    server: NatsServer,
    link: Link,
    log_file: Option<LogFile>,
    phases: Phases,
    reaper: Reaper,
    resources: Resources,
}

/// Proves directories, ports and the executable, and renders nats.conf. Must be called from the
/// main thread, within a runtime.
pub fn prepare(settings: Settings, started: Instant) -> Result<Prepared, Fault> {
    let mut phases = Phases::begin(started);
    nats_conf::check_fragment(&settings).map_err(nats_conf_fault)?;
    phases.reached("settings");
    // Asking nats-server for its version takes as long as all the rest.
    let (executable, rest) = std::thread::scope(|scope| {
        let search_path = std::env::var("PATH").unwrap_or_default();
        let name = &settings.server.executable;
        let executable = scope.spawn(move || Executable::find(name, &search_path));
        let rest = prepare_surroundings(&settings);
        (executable.join(), rest)
    });
    let executable = executable.map_err(|_| anyhow::anyhow!("the search for nats-server ended in a panic"))?;
    let Surrounded { listener, config_file, rendered, link } = rest?;
    let executable = executable?;
    let resources = Resources::secure(&settings);
    for warning in resources.warnings(&settings) {
        tracing::warn!("{warning}");
    }
    phases.reached("preparation");

    // Opened last: nothing is written to it by a start that is refused.
    let log_file = settings.logs.server_log.as_ref().and_then(|server_log| {
        let opened = LogFile::open(server_log);
        opened.inspect_err(|error| tracing::warn!("cannot open {}: {error}", server_log.path.display())).ok()
    });
    let reaper = Reaper::default();
    let memory_limit = resources.go_memory_limit(settings.server.memory_limit.as_ref());
    let environment = memory_limit.into_iter().map(|limit| (variables::GOMEMLIMIT.name, limit.text));
    let server = NatsServer {
        executable: executable.path,
        config_file,
        config: rendered,
        environment: environment.collect(),
        reaper: reaper.clone(),
    };
    Ok(Prepared { settings, listener, server, link, log_file, phases, reaper, resources })
}

struct Surrounded {
    listener: TcpListener,
    config_file: PathBuf,
    rendered: String,
    link: Link,
}

fn prepare_surroundings(settings: &Settings) -> Result<Surrounded, Fault> {
    for full in directories::prepare(settings)? {
        tracing::warn!("the disk of {} is full: starting all the same", full.display());
    }
    if settings.jetstream.enabled {
        directories::check_store_mode(settings)?;
    }
    let listener = ports::bind_api(settings)?;
    ports::try_server_ports(settings)?;
    let config_file = directories::choose_config_file(settings)?;
    let own_certificate = renew_own_certificate(settings, &config_file)?;
    let surroundings =
        Surroundings { host_name: host_name(), ca_bundle: own_certificate.as_ref().map(|own| own.bundle.clone()) };
    let rendered = nats_conf::render(settings, &surroundings, Secrets::Written).map_err(nats_conf_fault)?;
    let link = Link::new(settings, own_certificate);
    Ok(Surrounded { listener, config_file, rendered, link })
}

/// What is wrong with a fragment is a problem of the settings; everything else is ours.
fn nats_conf_fault(error: nats_conf::RenderError) -> Fault {
    match error.as_problem() {
        Some(problem) => Fault::Settings(Problems::from(vec![problem])),
        None => Fault::Internal(error.into()),
    }
}

fn renew_own_certificate(settings: &Settings, config_file: &std::path::Path) -> Result<Option<OwnCertificate>, Fault> {
    let Some(ca) = settings.tls.as_ref().filter(|tls| tls.verify).and_then(|tls| tls.ca.as_ref()) else {
        return Ok(None);
    };
    let own = OwnCertificate::beside(config_file.parent().unwrap_or(std::path::Path::new("/")));
    own.renew(ca).map_err(anyhow::Error::from)?;
    Ok(Some(own))
}

/// The name of this machine, as other nodes of a cluster tell it apart by.
pub fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A task that has ended: its name, and how supervision ended if it was the supervisor.
type Ended = (&'static str, Option<Ending>);

impl Prepared {
    /// Runs the broker until it is stopped or cannot go on.
    pub async fn run(self, signals: Signals, log: Log) -> Result<(), Fault> {
        let Self { settings, listener, server, link, log_file, phases, reaper, resources } = self;
        let supervision = &settings.supervision;
        let timing = Timing {
            drain_delay: supervision.drain_delay,
            kill_after: kill_after(supervision.shutdown_timeout),
            lame_duck: settings.server.lame_duck_duration + settings.server.lame_duck_grace + LAME_DUCK_MARGIN,
        };
        let policy = RestartPolicy::new(supervision);
        let (supervisor, handle) = Supervisor::new(server, policy, timing, log, log_file);
        let (client, client_view) = channel(None);
        let (reports, reports_view) = channel(None);
        let keeper = Keeper::open(&settings);
        let views = Views {
            supervisor: handle.watch(),
            health: reports_view,
            integrity: settings.jetstream.enabled.then(|| keeper.watch()),
            environment: settings.api.environment,
        };
        let listener = tokio::net::TcpListener::from_std(listener).map_err(anyhow::Error::from)?;
        for door in &settings.open_doors {
            tracing::warn!("{}", door.describe());
        }

        let mut tasks: JoinSet<Ended> = JoinSet::new();
        tasks.spawn(async move { ("supervisor", Some(supervisor.run().await)) });
        let last_look = LastLook { keeper: keeper.clone(), client: client_view.clone() };
        tasks.spawn(name("signals", signals.run(handle.clone(), reaper, last_look)));
        let watch =
            Watch::new(settings.clone(), link.address.clone(), handle.clone(), client_view.clone(), keeper.clone());
        tasks.spawn(name("watch", watch.run()));
        if settings.jetstream.enabled {
            tasks.spawn(name("read-through", read_through(handle.clone(), client_view.clone(), keeper.clone())));
        }
        let (_link, link_view) = channel(link);
        let bring_up = BringUp {
            settings: settings.clone(),
            link: link_view,
            notices: handle.notices(),
            handle: handle.clone(),
            keeper: keeper.clone(),
            client,
            phases,
        };
        tasks.spawn(name("bring-up", bring_up.run_until_over()));
        let monitor = HealthMonitor { settings: settings.clone(), client: client_view, reports };
        tasks.spawn(name("health", monitor.run()));
        tasks.spawn(name("verdicts", relay_verdicts(views.health.clone(), handle.clone())));
        let connections = resources.api_connections(settings.api.max_connections);
        tasks.spawn(name("api", api::serve(listener, api::router(views), connections)));
        let outcome = supervise_tasks(tasks, &handle).await;
        keeper.flush(LAST_WRITE).await;
        outcome
    }
}

/// Time for what is known about the streams to be written at the end.
const LAST_WRITE: Duration = Duration::from_millis(250);

async fn name(task: &'static str, work: impl Future<Output = ()>) -> Ended {
    work.await;
    (task, None)
}

/// Waits for the supervisor. Every other task runs as long as it does; one that ends takes the
/// broker down in order, because nobody would notice what is missing.
async fn supervise_tasks(mut tasks: JoinSet<Ended>, handle: &Handle) -> Result<(), Fault> {
    let mut internal = None;
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok((_, Some(ending))) => {
                return match internal {
                    Some(error) => Err(Fault::Internal(error)),
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
    Err(Fault::Internal(internal.unwrap_or_else(|| anyhow::anyhow!("no task is left"))))
}

fn into_result(ending: Ending) -> Result<(), Fault> {
    let Ending::Failed { failure, last_lines } = ending else {
        return Ok(());
    };
    let last_lines = last_lines.join("\n");
    Err(match failure {
        Failure::PortTaken => Fault::ServerPort(last_lines),
        Failure::ConfigurationRefused => Fault::Refused(last_lines),
        Failure::CrashLoop { reason } => Fault::CrashLoop { reason, last_lines },
    })
}

/// What lame duck mode may take beyond what it is configured to.
const LAME_DUCK_MARGIN: Duration = Duration::from_secs(10);

/// Leaves a little of the shutdown time for our own end after the server was killed.
fn kill_after(shutdown_timeout: Duration) -> Duration {
    shutdown_timeout.mul_f64(0.9).max(shutdown_timeout.saturating_sub(Duration::from_secs(1)))
}

/// Has the streams read through once after each start of the server, when it is in service.
async fn read_through(handle: Handle, client: Receiver<Option<(Generation, Client)>>, keeper: Keeper) {
    /// Time for one request; one that waits behind clients is tried again.
    const DEADLINE: Duration = Duration::from_secs(10);
    let mut snapshots = handle.watch();
    let mut done = Generation::default();
    loop {
        // What is missing already does not keep it from finding more.
        let missing = || !keeper.watch().borrow().losses.is_empty();
        let in_service = |s: &Snapshot| {
            let up = s.state.is_ready() || (matches!(s.state, State::Degraded { .. }) && missing());
            up && s.state.generation().is_some_and(|generation| generation > done)
        };
        let Ok(generation) = snapshots.wait_for(in_service).await.map(|s| s.state.generation()) else {
            return std::future::pending().await;
        };
        let connection = client.borrow().clone().filter(|(of, _)| Some(*of) == generation);
        let Some((generation, client)) = connection else {
            // Between two connections.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let jetstream = JetStream::new(client, DEADLINE);
        let mut watching = handle.watch();
        let read = tokio::select! {
            read = keeper.read_through(&jetstream) => read,
            // Its end comes with the next server.
            _ = watching.wait_for(|s| s.state.generation() != Some(generation)) => continue,
        };
        match read {
            Ok(()) => done = generation,
            Err(error) => {
                tracing::warn!("cannot read the streams through, trying again: {error}");
                tokio::time::sleep(DEADLINE).await;
            }
        }
    }
}

/// Tells the supervisor what the examinations find.
async fn relay_verdicts(mut reports: Receiver<Option<Examined>>, handle: Handle) {
    while reports.changed().await.is_ok() {
        let Some(Examined { generation, report, .. }) = reports.borrow_and_update().clone() else { continue };
        match report.failure() {
            None => handle.sound(generation, Concern::Examination).await,
            Some(failure) => handle.impaired(generation, Concern::Examination, failure).await,
        }
    }
}

#[cfg(test)]
mod tests;
