//! Everything that can refuse a start, before anything is spawned: directories, the store and its lock,
//! ports, the executable, nats.conf.

mod directories;
mod lock;
mod phases;
mod ports;
mod rendering;
mod resources;
mod start_error;
mod store;
mod unasked;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::files::remove_leftovers;
use crate::identity::{self, Identity, login_as_operator};
use crate::nats::Connectors;
use crate::nats_conf;
use crate::settings::{Effective, Loaded, Problems, Settings, variables};
use crate::supervisor::{Condition, ConfigFiles, Executable, LogFile, NatsServer, Reaper};
pub use directories::config_file_candidates;
pub use phases::Phases;
use rendering::nats_conf_fault;
pub use rendering::{Rendered, candidate, host_name, render};
pub use resources::Resources;
pub use start_error::StartError;
use store::Asked;
pub use store::Store;
pub use unasked::Unasked;

/// Reads the settings from where they came from.
pub type Reread = Arc<dyn Fn() -> Result<Loaded, Problems> + Send + Sync>;

/// Everything a start needs, ready to run.
pub struct Prepared {
    pub settings: Settings,
    /// [`None`] where there is no store of ours.
    pub store: Option<Arc<Store>>,
    pub listener: TcpListener,
    /// Of the port for metrics, where there is one.
    pub metrics_listener: Option<TcpListener>,
    pub server: Server,
    pub connectors: Connectors,
    pub log_file: Option<LogFile>,
    pub phases: Phases,
    pub reaper: Reaper,
    pub resources: Resources,
    pub effective: Vec<Effective>,
    pub reread: Reread,
    /// A server that is launched before its version is known.
    pub unasked: Option<Unasked>,
}

/// Whom to supervise.
pub enum Server {
    Embedded(Box<(NatsServer, Rendered)>),
    /// One that others run.
    External,
}

/// Proves directories, ports and the executable, and renders nats.conf. Must be called from the
/// main thread, within a runtime.
///
/// `reread` gives the settings again when a reload is asked for.
pub fn prepare(
    settings: Settings,
    effective: Vec<Effective>,
    reread: Reread,
    started: Instant,
) -> Result<Prepared, StartError> {
    let mut phases = Phases::begin(started);
    if settings.external.is_some() {
        phases.reached("settings");
        return prepare_external(settings, effective, reread, phases);
    }
    nats_conf::check_fragment(&settings).map_err(nats_conf_fault)?;
    phases.reached("settings");
    let reaper = Reaper::default();
    let search_path = std::env::var("PATH").unwrap_or_default();
    let executable = Executable::locate(&settings.server.executable, &search_path);
    // Asking nats-server for its version takes longer than all the rest.
    let to_ask = executable.as_deref().ok().filter(|path| must_be_asked(&settings, path));
    let (asked, rest) = std::thread::scope(|scope| {
        let asking = to_ask.map(|path| scope.spawn(|| store::ask(path, &reaper)));
        let rest = prepare_surroundings(&settings);
        (asking.map(|asking| asking.join()), rest)
    });
    let Surrounded { listener, metrics_listener, config_file, rendered, rendering, lock, store } = rest?;
    phases.step("render", rendering.0, rendering.1);
    let executable = executable?;
    let asked = asked.transpose().map_err(|_| anyhow::anyhow!("a question for the version ended in a panic"))?;
    let (condition, unasked) = launch_condition(store.clone(), &executable, asked.transpose()?, &reaper)?;
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
    let memory_limit = resources.go_memory_limit(settings.server.memory_limit.as_ref());
    let environment = memory_limit.into_iter().map(|limit| (variables::GOMEMLIMIT.name, limit.text));
    let server = NatsServer {
        executable,
        config_file,
        files: ConfigFiles::new(rendered.files.clone()),
        condition,
        environment: environment.collect(),
        reaper: reaper.clone(),
        inherited: lock,
    };
    let connectors = rendered.connectors.clone();
    let server = Server::Embedded(Box::new((server, rendered)));
    Ok(Prepared {
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
    })
}

/// With a server that others run nothing is spawned and nothing written.
fn prepare_external(
    settings: Settings,
    effective: Vec<Effective>,
    reread: Reread,
    mut phases: Phases,
) -> Result<Prepared, StartError> {
    let listener = ports::bind_api(&settings)?;
    let metrics_listener = ports::bind_metrics(&settings)?;
    let connectors = Connectors::new(&settings, |_| login_as_operator(&settings));
    let resources = Resources::secure(&settings);
    phases.reached("preparation");
    Ok(Prepared {
        settings,
        store: None,
        listener,
        metrics_listener,
        server: Server::External,
        connectors,
        log_file: None,
        phases,
        reaper: Reaper::default(),
        resources,
        effective,
        reread,
        unasked: None,
    })
}

struct Surrounded {
    listener: TcpListener,
    metrics_listener: Option<TcpListener>,
    config_file: PathBuf,
    rendered: Rendered,
    /// When that began, and how long it took.
    rendering: (Instant, Duration),
    lock: Option<OwnedFd>,
    store: Option<Arc<Store>>,
}

/// Whether the version has to be known before the launch, and nobody knows it.
fn must_be_asked(settings: &Settings, executable: &Path) -> bool {
    let jetstream = &settings.jetstream;
    // A store that nobody has written is not too new for any server.
    let can_wait = || store::is_unwritten(&jetstream.store_dir) && store::is_program(executable);
    !jetstream.enabled || (store::remembered(settings, executable).is_none() && !can_wait())
}

/// What has to be so before each launch, and what is left to ask after the first; refuses what is not so
/// now.
fn launch_condition(
    store: Option<Arc<Store>>,
    executable: &Path,
    asked: Option<Asked>,
    reaper: &Reaper,
) -> Result<(Condition, Option<Unasked>), StartError> {
    let (path, reaper) = (executable.to_owned(), reaper.clone());
    let Some(store) = store else {
        let condition = move || Executable::at(&path, &reaper).map(drop).map_err(|error| error.hindrance());
        return Ok((Arc::new(condition), None));
    };
    let mut unasked = None;
    match asked.or_else(|| store.remembered(&path)) {
        Some(asked) => store.admit(&asked)?,
        None if store.is_unwritten() => unasked = Some(Unasked::new(&path, &store, &reaper)),
        // The server of another supervisor has written the store meanwhile.
        None => store.admit(&store::ask(&path, &reaper)?)?,
    }
    Ok((Arc::new(move || store.check(&path, &reaper)), unasked))
}

fn prepare_surroundings(settings: &Settings) -> Result<Surrounded, StartError> {
    if settings.jetstream.enabled {
        store::check_marker(settings)?;
    }
    for full in directories::prepare(settings)? {
        tracing::warn!("the disk of {} is full: starting all the same", full.display());
    }
    let (mut lock, mut store) = (None, None);
    if settings.jetstream.enabled {
        // Before the ports: it waits for the server of a supervisor that was killed.
        lock = lock::take(&settings.jetstream.store_dir)?;
        store::check_mode(settings)?;
        store = Some(Arc::new(Store::open(settings)));
    }
    let listener = ports::bind_api(settings)?;
    let metrics_listener = ports::bind_metrics(settings)?;
    ports::try_server_ports(settings)?;
    let config_file = directories::choose_config_file(settings)?;
    clear_leftovers(&config_file);
    let began = Instant::now();
    let rendered = render(settings, &config_file, Identity::default())?;
    let rendering = (began, began.elapsed());
    Ok(Surrounded { listener, metrics_listener, config_file, rendered, rendering, lock, store })
}

/// Removes what earlier starts have left beside nats.conf; some of it may hold passwords.
fn clear_leftovers(config_file: &Path) {
    let (Some(directory), Some(conf)) = (config_file.parent(), config_file.file_name().and_then(|name| name.to_str()))
    else {
        return;
    };
    let conf_candidate = format!("{conf}.candidate");
    remove_leftovers(directory, |name| name == conf || name == conf_candidate || identity::is_file(name));
    // A process that was killed during a check of nats-server's could not remove it.
    let _ = std::fs::remove_file(candidate(config_file));
}
