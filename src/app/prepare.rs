//! Everything that can refuse a start, before anything is spawned.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::phases::Phases;
use super::reload::Reread;
use super::resources::Resources;
use super::{Fault, directories, lock, ports};
use crate::files::remove_leftovers;
use crate::integrity::acknowledgement;
use crate::nats::{Link, Own, OwnCertificate, OwnUser};
use crate::nats_conf::{self, Secrets, Surroundings};
use crate::settings::{Authentication, Effective, Problems, Settings, variables};
use crate::supervisor::{Executable, LogFile, NatsServer, Reaper};

/// Everything a start needs, ready to run.
pub struct Prepared {
    pub(super) settings: Settings,
    pub(super) listener: TcpListener,
    pub(super) server: Server,
    pub(super) link: Link,
    pub(super) log_file: Option<LogFile>,
    pub(super) phases: Phases,
    pub(super) reaper: Reaper,
    pub(super) resources: Resources,
    pub(super) effective: Vec<Effective>,
    pub(super) reread: Reread,
}

/// Whom to supervise.
pub enum Server {
    Own(NatsServer, Option<OwnUser>),
    /// One that others run.
    Elsewhere,
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
) -> Result<Prepared, Fault> {
    let mut phases = Phases::begin(started);
    if settings.remote.is_some() {
        phases.reached("settings");
        return prepare_elsewhere(settings, effective, reread, phases);
    }
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
    let Surrounded { listener, config_file, rendered, lock } = rest?;
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
        config: rendered.conf,
        environment: environment.collect(),
        reaper: reaper.clone(),
        inherited: lock,
    };
    let (server, link) = (Server::Own(server, rendered.own_user), rendered.link);
    Ok(Prepared { settings, listener, server, link, log_file, phases, reaper, resources, effective, reread })
}

/// With a server that others run nothing is spawned and nothing written.
fn prepare_elsewhere(
    settings: Settings,
    effective: Vec<Effective>,
    reread: Reread,
    mut phases: Phases,
) -> Result<Prepared, Fault> {
    let listener = ports::bind_api(&settings)?;
    let (link, resources) = (Link::new(&settings, Own::default()), Resources::secure(&settings));
    phases.reached("preparation");
    Ok(Prepared {
        settings,
        listener,
        server: Server::Elsewhere,
        link,
        log_file: None,
        phases,
        reaper: Reaper::default(),
        resources,
        effective,
        reread,
    })
}

struct Surrounded {
    listener: TcpListener,
    config_file: PathBuf,
    rendered: Rendered,
    lock: Option<OwnedFd>,
}

fn prepare_surroundings(settings: &Settings) -> Result<Surrounded, Fault> {
    for full in directories::prepare(settings)? {
        tracing::warn!("the disk of {} is full: starting all the same", full.display());
    }
    let mut lock = None;
    if settings.jetstream.enabled {
        // Before the ports: it waits for the server of a supervisor that was killed.
        lock = lock::take(&settings.jetstream.store_dir)?;
        directories::check_store_mode(settings)?;
    }
    let listener = ports::bind_api(settings)?;
    ports::try_server_ports(settings)?;
    let config_file = directories::choose_config_file(settings)?;
    remove_leftovers(&config_file);
    remove_leftovers(&acknowledgement::book_file(&settings.jetstream.store_dir));
    let rendered = render(settings, &config_file, None)?;
    Ok(Surrounded { listener, config_file, rendered, lock })
}

/// A configuration, and how to reach a server that runs with it.
pub(super) struct Rendered {
    pub conf: String,
    pub link: Link,
    /// Whom we connect as, where users are asked for.
    pub own_user: Option<OwnUser>,
}

/// `own_user` is the one that we are already.
pub(super) fn render(settings: &Settings, config_file: &Path, own_user: Option<OwnUser>) -> Result<Rendered, Fault> {
    let directory = config_file.parent().unwrap_or(Path::new("/"));
    let certificate = renew_own_certificate(settings, directory)?;
    let own_user = match (&settings.authentication, own_user) {
        (Authentication::Users(_), None) => Some(OwnUser::make().map_err(anyhow::Error::from)?),
        (_, own_user) => own_user,
    };
    if let Some(user) = &own_user {
        user.write(directory, settings.server.port).map_err(anyhow::Error::from)?;
    }
    let surroundings = Surroundings {
        host_name: host_name(),
        ca_bundle: certificate.as_ref().map(|own| own.bundle.clone()),
        own_user: own_user.clone(),
    };
    let conf = nats_conf::render(settings, &surroundings, Secrets::Written).map_err(nats_conf_fault)?;
    let link = Link::new(settings, Own { certificate, user: own_user.clone() });
    Ok(Rendered { conf, link, own_user })
}

/// What is wrong with a fragment is a problem of the settings; everything else is ours.
fn nats_conf_fault(error: nats_conf::RenderError) -> Fault {
    match error.as_problem() {
        Some(problem) => Fault::Settings(Problems::from(vec![problem])),
        None => Fault::Internal(error.into()),
    }
}

fn renew_own_certificate(settings: &Settings, directory: &Path) -> Result<Option<OwnCertificate>, Fault> {
    let Some(ca) = settings.tls.as_ref().filter(|tls| tls.verify).and_then(|tls| tls.ca.as_ref()) else {
        return Ok(None);
    };
    let own = OwnCertificate::beside(directory, settings.server.port);
    own.renew(ca).map_err(anyhow::Error::from)?;
    Ok(Some(own))
}

/// The name of this machine, as other nodes of a cluster tell it apart by.
pub fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
