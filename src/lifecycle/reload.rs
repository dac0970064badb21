//! Reading the settings again while the broker runs: on SIGHUP, and when certificate files change.
//!
//! A reload that cannot be confirmed did not happen: the old configuration is put back, and what
//! stood in the way is told.

mod check;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::files::FileContent;
use crate::identity::{Identity, login_as_operator};
use crate::nats::{Connectors, Monitor};
use crate::nats_conf;
use crate::off_thread::OffThread;
use crate::preflight::{Rendered, Reread, StartError, render};
use crate::settings::variables::*;
use crate::settings::{Effective, Loaded, Problems, Settings};
use crate::status::Reloads;
use crate::streams::Desired;
use crate::supervisor::{Handle, Installed, NatsServer, Notice, Reaper};
use crate::ticks;

pub struct Reload {
    pub reread: Reread,
    pub effective: Vec<Effective>,
    /// For everybody who acts on settings that a reload may change; `effective` says the same in text.
    pub in_force: watch::Sender<Arc<Settings>>,
    /// [`None`] for a server that others run.
    pub own: Option<EmbeddedServer>,
    pub handle: Handle,
    /// For who connects to the server.
    pub connectors: watch::Sender<Connectors>,
    /// For who looks after the streams.
    pub desired: watch::Sender<Arc<Desired>>,
    pub requests: mpsc::Receiver<()>,
    /// Why the last reload did not happen, until one does.
    pub reloaded: watch::Sender<Reloads>,
    /// What is read and written goes through a disk that may hang.
    pub disk: ReloadFiles,
}

/// Reading and writing for a reload.
#[derive(Default)]
pub struct ReloadFiles {
    settings: OffThread<Result<Loaded, Problems>>,
    rendered: OffThread<Result<Rendered, StartError>>,
    written: OffThread<io::Result<()>>,
    files: OffThread<u64>,
}

/// The server that we run, as it is configured.
pub struct EmbeddedServer {
    /// What is in force, nats.conf last.
    files: Vec<FileContent>,
    config_file: PathBuf,
    executable: PathBuf,
    reaper: Reaper,
    identity: Identity,
}

impl EmbeddedServer {
    pub fn config_file(&self) -> &Path {
        &self.config_file
    }

    pub fn new(server: &NatsServer, rendered: Rendered, reaper: Reaper) -> Self {
        Self {
            files: rendered.files,
            config_file: server.config_file.clone(),
            executable: server.executable.clone(),
            reaper,
            identity: rendered.identity,
        }
    }

    /// How we reach it while these settings are in force.
    fn connectors(&self, settings: &Settings) -> Connectors {
        let directory = self.config_file.parent().unwrap_or(Path::new("/"));
        Connectors::new(settings, |role| self.identity.login(role, settings, directory))
    }
}

/// Files that were refused are tried again after that long, or when they change.
const RETRY: Duration = Duration::from_secs(60);
/// Between two looks at the certificate files.
const FILES_INTERVAL: Duration = Duration::from_secs(2);
/// Time for a server to come up that could reload.
const SERVER_DEADLINE: Duration = Duration::from_secs(10);
/// Time for the server to say what became of a reload.
const CONFIRMATION_DEADLINE: Duration = Duration::from_secs(10);
/// Time for one look at what is in force.
const VARZ_DEADLINE: Duration = Duration::from_secs(2);
const CONFIRMATION_POLL: Duration = Duration::from_millis(50);
/// Time for reading and writing files. A secret may come from a network.
const DISK_DEADLINE: Duration = Duration::from_secs(10);
/// The same for a look at the certificate files, which is made again and again.
const FILES_DEADLINE: Duration = Duration::from_secs(2);
/// What is looked at of a certificate file at most.
const MAX_FILE: u64 = 1 << 20;

/// Why a reload did not happen.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Settings(#[from] Problems),
    #[error("{} cannot be changed while the broker runs; restart it to apply that, or take the change back", .0.join(", "))]
    NotReloadable(Vec<&'static str>),
    #[error(transparent)]
    Prepare(#[from] StartError),
    #[error("nats-server would not accept it: {0}")]
    Invalid(String),
    #[error(
        "the files that the settings name cannot be read within {} s: see to the disk that they are on", .0.as_secs()
    )]
    Unreadable(Duration),
    #[error("cannot have nats-server check it")]
    Check(#[source] io::Error),
    #[error("no nats-server answers that could take it over")]
    NoServer,
    #[error("cannot put it in place")]
    Write(#[source] io::Error),
    #[error("nats-server refused it: {0}")]
    Refused(String),
    #[error("nats-server did not confirm it within {} s", .0.as_secs())]
    NotConfirmed(Duration),
    #[error("nats-server ended meanwhile")]
    Ended,
}

/// What tells one configuration in force from another.
#[derive(Default)]
struct InForce {
    load_time: Option<String>,
    digest: Option<String>,
}

impl InForce {
    /// Whether this was loaded after `before`, and is what was meant. 2.10 has no digest.
    fn follows(&self, before: &Self, digest: Option<&str>) -> bool {
        let meant = match (self.digest.as_deref(), digest) {
            (Some(is), Some(meant)) => is == meant,
            _ => true,
        };
        self.load_time.is_some() && self.load_time != before.load_time && meant
    }
}

impl Reload {
    /// Runs for ever.
    pub async fn run(mut self) {
        let mut ticks = ticks::every(FILES_INTERVAL);
        let mut in_force = self.files().await;
        let mut seen = in_force;
        // Files that were refused, and when.
        let mut failed = None;
        loop {
            tokio::select! {
                Some(()) = self.requests.recv() => {}
                _ = ticks.tick(), if self.in_force.borrow().tls.is_some() => {
                    // Of files that cannot be read nobody knows whether they have changed.
                    let now = self.files().await.or(seen);
                    // Certificate and key are two files: only what stays the same for a while is whole.
                    let settled = now == std::mem::replace(&mut seen, now);
                    let just_refused =
                        failed.is_some_and(|(files, at): (Option<u64>, Instant)| files == now && at.elapsed() < RETRY);
                    if !settled || now == in_force || just_refused {
                        continue;
                    }
                    tracing::info!("certificate files have changed: reloading");
                }
            }
            let files = self.files().await;
            match self.reload().await {
                Ok(changed) => {
                    in_force = files;
                    failed = None;
                    self.reloaded.send_modify(|reloads| {
                        reloads.taken += 1;
                        reloads.refusal = None;
                    });
                    match changed.as_slice() {
                        [] => tracing::info!("reloaded; no variable had changed"),
                        changed => tracing::info!("reloaded; changed: {}", changed.join(", ")),
                    }
                }
                Err(refusal) => {
                    failed = Some((files, Instant::now()));
                    let refusal = format!("{:#}", anyhow::Error::from(refusal));
                    tracing::error!("cannot reload, and the old configuration stays in force: {refusal}");
                    self.reloaded.send_modify(|reloads| {
                        reloads.refused += 1;
                        reloads.refusal = Some(refusal);
                    });
                }
            }
        }
    }

    /// Gives the variables that changed.
    async fn reload(&mut self) -> Result<Vec<&'static str>, Refusal> {
        let reread = self.reread.clone();
        let loaded = self.disk.settings.run(DISK_DEADLINE, move || reread()).await;
        let Loaded { settings, warnings, effective, .. } = loaded.ok_or(Refusal::Unreadable(DISK_DEADLINE))??;
        for warning in warnings.into_iter().chain(nats_conf::warnings(&settings)) {
            tracing::warn!("{warning}");
        }
        let changed = changed(&self.effective, &effective);
        let is_external = self.own.is_none();
        let is_fixed =
            |name: &&str| Variable::named(name).is_none_or(|variable| !variable.reloads.take_over(is_external));
        let fixed: Vec<_> = changed.iter().copied().filter(is_fixed).collect();
        if !fixed.is_empty() {
            return Err(Refusal::NotReloadable(fixed));
        }
        let connectors = match self.own.take() {
            Some(own) => {
                let rendered = self.reload_server(&own, &settings).await;
                let Ok(Rendered { files, connectors, identity }) = rendered else {
                    self.own = Some(own);
                    return Err(rendered.err().unwrap_or(Refusal::NoServer));
                };
                self.own = Some(EmbeddedServer { files, identity, ..own });
                connectors
            }
            None => Connectors::new(&settings, |_| login_as_operator(&settings)),
        };
        self.effective = effective;
        self.desired.send_replace(Arc::new(Desired::of(&settings)));
        self.in_force.send_replace(Arc::new(settings));
        // Whoever connects does so anew, and brings the streams up to date.
        self.connectors.send_replace(connectors);
        Ok(changed)
    }

    /// Has our own server take the settings over, and gives what is in force then.
    async fn reload_server(&mut self, own: &EmbeddedServer, settings: &Settings) -> Result<Rendered, Refusal> {
        let (wanted, config_file, identity) = (settings.clone(), own.config_file.clone(), own.identity.clone());
        let work = move || render(&wanted, &config_file, identity);
        let rendered = self.disk.rendered.run(DISK_DEADLINE, work).await;
        let rendered = rendered.ok_or(Refusal::Unreadable(DISK_DEADLINE))??;
        let digest = match own.check(&rendered.files, settings, &mut self.disk).await {
            Ok(digest) => digest,
            Err(refusal) => {
                // What nats.conf names was put in place for the check.
                let files = own.files.clone();
                let _ = self.disk.write(move || files.iter().try_for_each(FileContent::put)).await;
                return Err(refusal);
            }
        };
        self.wait_for_server().await?;

        let monitor = Monitor::new(settings);
        let before = in_force(monitor.as_ref()).await;
        if monitor.is_some() && before.load_time.is_none() {
            // What it says later could not be told from what it said before.
            return Err(Refusal::NoServer);
        }
        let notices = self.handle.notices();
        // The server sends those away that came with old credentials, and they come back at once.
        let old = self.connectors.borrow().clone();
        let kept = own.connectors(&self.in_force.borrow());
        old.take_credentials_of(&rendered.connectors);
        let installed = match self.handle.install(rendered.files.clone()).await {
            Ok(installed) => installed,
            Err(error) => {
                old.take_credentials_of(&kept);
                return Err(Refusal::Write(error));
            }
        };
        if let Err(refusal) = self.confirm(installed, monitor.as_ref(), &before, digest, notices).await {
            old.take_credentials_of(&kept);
            self.put_back(own).await;
            return Err(refusal);
        }
        Ok(rendered)
    }

    /// Puts the configuration in force back, also for a server that was started with the new one.
    async fn put_back(&self, own: &EmbeddedServer) {
        match self.handle.install(own.files.clone()).await {
            Ok(Installed::Signalled(_)) => return,
            Ok(Installed::ForTheNextLaunch) => {}
            Err(error) => return tracing::error!("cannot put the old nats.conf back: {error}"),
        }
        if self.wait_for_server().await.is_ok()
            && let Err(error) = self.handle.install(own.files.clone()).await
        {
            tracing::error!("cannot put the old nats.conf back: {error}");
        }
    }

    async fn wait_for_server(&self) -> Result<(), Refusal> {
        let mut snapshots = self.handle.watch();
        let answering = snapshots.wait_for(|s| {
            use crate::supervisor::State::{Degraded, Provisioning, Ready};
            matches!(s.state, Provisioning { .. } | Ready { .. } | Degraded { .. })
        });
        match timeout(SERVER_DEADLINE, answering).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refusal::NoServer),
        }
    }

    /// Waits until the server says that the configuration is in force, or that it is not.
    async fn confirm(
        &self,
        installed: Installed,
        monitor: Option<&Monitor>,
        before: &InForce,
        digest: Option<String>,
        mut notices: broadcast::Receiver<Notice>,
    ) -> Result<(), Refusal> {
        let Installed::Signalled(generation) = installed else { return Err(Refusal::NoServer) };
        let deadline = Instant::now() + CONFIRMATION_DEADLINE;
        let mut reloaded = false;
        while Instant::now() < deadline {
            tokio::select! {
                notice = notices.recv() => match notice {
                    Ok(Notice::ReloadRefused(reason)) => return Err(Refusal::Refused(reason)),
                    Ok(Notice::Reloaded) => reloaded = true,
                    _ => continue,
                },
                () = sleep(CONFIRMATION_POLL) => {}
            }
            if self.handle.watch().borrow().state.generation() != Some(generation) {
                return Err(Refusal::Ended);
            }
            let confirmed = match monitor {
                // Without monitoring its word has to do.
                None => reloaded,
                Some(_) => in_force(monitor).await.follows(before, digest.as_deref()),
            };
            if confirmed {
                return Ok(());
            }
        }
        Err(Refusal::NotConfirmed(CONFIRMATION_DEADLINE))
    }

    /// What tells the certificate files as they are now from others; [`None`] where that cannot be said.
    async fn files(&mut self) -> Option<u64> {
        let paths: Vec<_> = match &self.in_force.borrow().tls {
            Some(tls) => [&tls.cert, &tls.key].into_iter().chain(&tls.ca).cloned().collect(),
            None => return Some(0),
        };
        if self.disk.files.is_waiting() {
            return None;
        }
        self.disk.files.run(FILES_DEADLINE, move || fingerprint(&paths)).await
    }
}

impl ReloadFiles {
    async fn write(&mut self, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        self.written.run(DISK_DEADLINE, work).await.unwrap_or_else(|| {
            let words = format!(
                "the disk of nats.conf does not answer within {} s: see to the directory of NATS_CONFIG_FILE",
                DISK_DEADLINE.as_secs()
            );
            Err(io::Error::new(io::ErrorKind::TimedOut, words))
        })
    }
}

fn fingerprint(paths: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in paths {
        let size = fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default();
        let content = if size > MAX_FILE { None } else { fs::read(path).ok() };
        (size, content).hash(&mut hasher);
    }
    hasher.finish()
}

fn changed(before: &[Effective], after: &[Effective]) -> Vec<&'static str> {
    let differs = |(before, after): &(&Effective, &Effective)| before.differs_from(after);
    before.iter().zip(after).filter(differs).map(|(_, after)| after.name).collect()
}

async fn in_force(monitor: Option<&Monitor>) -> InForce {
    let Some(monitor) = monitor else { return InForce::default() };
    let Ok(varz) = monitor.varz(VARZ_DEADLINE).await else { return InForce::default() };
    InForce { load_time: varz.config_load_time, digest: varz.config_digest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(at: &str, digest: Option<&str>) -> InForce {
        InForce { load_time: Some(at.into()), digest: digest.map(Into::into) }
    }

    #[test]
    fn only_what_was_loaded_anew_and_is_what_was_meant_is_confirmed() {
        let before = loaded("1", Some("a"));
        assert!(loaded("2", Some("b")).follows(&before, Some("b")));
        assert!(loaded("2", Some("a")).follows(&before, Some("a")), "certificates only");
        assert!(loaded("2", None).follows(&loaded("1", None), None), "2.10");
        assert!(!loaded("1", Some("a")).follows(&before, Some("a")), "not loaded yet");
        assert!(!loaded("2", Some("c")).follows(&before, Some("b")), "something else");
        assert!(!InForce::default().follows(&before, Some("b")), "no answer");
    }
}
