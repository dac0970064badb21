//! Takes each server that is launched from its first answer to streams in place.

mod streams;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_nats::Client;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::sleep;

use crate::domain::Generation;
use crate::errors::in_one_line;
use crate::health::cluster;
use crate::integrity::{IntegrityHandle, LookError, StreamRecovery};
use crate::nats::{ApiError, Connection, Connectors, JetStream, Monitor};
use crate::off_thread::OffThread;
use crate::preflight::{Phases, Store};
use crate::settings::Settings;
use crate::spans;
use crate::streams::{Desired, DesiredStream, Drift};
use crate::supervisor::{ConditionKind, Handle, Notice, RestartReason, State};

pub struct BringUp {
    /// What was in force when the server was connected to.
    pub settings: Arc<Settings>,
    /// Others after a reload.
    pub in_force: watch::Receiver<Arc<Settings>>,
    /// The streams that should be; others after a reload.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// How to reach the server; another one after a reload.
    pub connectors: watch::Receiver<Connectors>,
    pub handle: Handle,
    pub integrity: IntegrityHandle,
    pub recovery: StreamRecovery,
    /// Of our own server: nothing is created in any other.
    pub store: Option<Arc<Store>>,
    /// Looking whether it is in its place.
    pub at_store: OffThread<Result<(), String>>,
    /// What the server prints, from before the first one was launched.
    pub notices: broadcast::Receiver<Notice>,
    /// The connection to the server that runs now, for everybody who needs one.
    pub client: watch::Sender<Option<(Generation, Client)>>,
    /// Asks for a health check, when one that was made before does not hold any more.
    pub recheck: Arc<Notify>,
    pub phases: Phases,
    /// How long each part of the last start took, in seconds.
    pub start_phases: watch::Sender<Vec<(&'static str, f64)>>,
    /// The last server that became ready: what is done for it since is no part of its launch.
    pub launched: Generation,
    /// What repairing drift has come to.
    pub drift: watch::Sender<Drift>,
    /// What the operator was told about streams that are not as declared.
    pub told: Vec<String>,
}

/// The first wait between two attempts to connect; doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(250);
/// The longest wait between two attempts to bring the streams in place.
const LAST_APPLY_PAUSE: Duration = Duration::from_secs(5);
/// Time for one request to JetStream. A cluster without a leader answers none, so it is short; a
/// change that takes longer is found done by the next attempt.
const REQUEST_DEADLINE: Duration = Duration::from_secs(2);
/// The same for a list of all streams, for which a cluster waits four seconds for a node that is away.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

impl BringUp {
    /// Runs as long as the program does: from the stop on it only waits.
    pub async fn run_until_over(mut self) {
        self.run().await;
        std::future::pending().await
    }

    async fn run(&mut self) {
        let mut snapshots = self.handle.watch();
        let mut done = Generation::default();
        loop {
            let generation = {
                let launched = snapshots.wait_for(|s| {
                    s.state.is_stopping() || (s.running && s.state.generation().is_some_and(|g| g > done))
                });
                match launched.await.map(|s| (s.state.is_stopping(), s.state.generation())) {
                    Ok((false, Some(generation))) => generation,
                    _ => break,
                }
            };
            self.phases.step_ended("launch");
            let mut watching = self.handle.watch();
            tokio::select! {
                () = self.serve(generation) => {}
                _ = watching.wait_for(|s| s.state.is_stopping() || s.state.generation() != Some(generation)) => {}
            }
            self.start_over();
            done = generation;
        }
    }

    /// Brings one server into service and holds the connection to it, for ever.
    async fn serve(&mut self, generation: Generation) {
        // No client has asked it for anything yet.
        let launched = SystemTime::now();
        loop {
            let connection = self.connect(generation).await;
            self.settings = self.in_force.borrow_and_update().clone();
            self.handle.answers(generation).await;
            self.phases.reached("server");
            let mut connectors = self.connectors.clone();
            let lost = tokio::select! {
                () = self.hold(generation, &connection, launched) => false,
                () = connection.lost() => true,
                // What came back may be another server, or the same one with other streams.
                () = connection.reconnected(), if self.settings.external.is_some() => false,
                _ = connectors.changed() => false,
            };
            self.start_over();
            if lost {
                let reason = "our own connection to nats-server was lost".to_owned();
                self.handle.report_failed(generation, ConditionKind::Service, reason).await;
            }
        }
    }

    /// Takes the connection back, and times what follows afresh.
    fn start_over(&mut self) {
        self.client.send_replace(None);
        self.phases = Phases::begin(Instant::now());
    }

    /// Puts the streams in place, then lends the connection to whoever needs one, for ever.
    async fn hold(&mut self, generation: Generation, connection: &Connection, launched: SystemTime) {
        let client = &connection.client;
        if self.settings.looks_after_messages() {
            self.recover_streams(generation, client, launched).await;
        }
        if self.settings.jetstream.enabled {
            self.provision(generation, connection).await;
        }
        if self.settings.looks_after_messages() {
            self.check_integrity(generation, client).await;
            self.catch_up(client).await;
        }
        self.phases.reached("streams");
        self.client.send_replace(Some((generation, client.clone())));
        self.handle.report_ok(generation, ConditionKind::Service).await;
        if self.settings.external.is_some() {
            // A health check may have found it gone, and no new generation makes that void.
            self.recheck.notify_one();
        }
        self.announce(generation).await;
        match self.settings.streams.reconcile_interval.filter(|_| self.settings.jetstream.enabled) {
            Some(interval) => self.repair_drift(generation, client, interval).await,
            None => std::future::pending().await,
        }
    }

    /// Until every stream on disk is known to the server, as far as that can be brought about.
    async fn recover_streams(&mut self, generation: Generation, client: &Client, launched: SystemTime) {
        let jetstream = JetStream::new(client.clone(), REQUEST_DEADLINE);
        let desired = self.desired.borrow().clone();
        let fallback = |name: &str| desired.stream(name).map(DesiredStream::without_limits);
        let mut pause = FIRST_PAUSE;
        let rescued = loop {
            match self.recovery.recover(&jetstream, fallback, launched).await {
                Ok(rescued) => break rescued,
                Err(reason) => {
                    // A server that is just starting does not answer everything yet.
                    tracing::debug!("{reason}");
                    if pause >= LAST_PAUSE {
                        self.handle.report_failed(generation, ConditionKind::Service, reason).await;
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        };
        if !rescued.is_empty() {
            let reason = format!("the consumers of {} come back with a fresh start", rescued.join(", "));
            self.handle.restart(generation, RestartReason::Recovery, reason).await;
            std::future::pending().await
        }
    }

    /// Tells what is missing before anybody is told that all is well.
    async fn check_integrity(&self, generation: Generation, client: &Client) {
        let jetstream = JetStream::new(client.clone(), LOOK_DEADLINE);
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            match self.integrity.check_streams(&jetstream, generation).await {
                // The supervisor has heard what is missing.
                Ok(_) => return,
                Err(error @ LookError::Api(ApiError::Refused { .. })) => {
                    let reason = format!("cannot look at the streams: {error}");
                    self.handle.report_failed(generation, ConditionKind::Service, reason).await;
                }
                // In a cluster the streams of other nodes may keep it from answering; the look is repeated.
                Err(error) if self.settings.cluster.is_some() => {
                    return tracing::warn!("what the streams hold is not known yet: {error}");
                }
                Err(error) if started.elapsed() >= self.settings.supervision.init_timeout => {
                    let reason = format!("cannot look at the streams: {error}");
                    self.handle.report_failed(generation, ConditionKind::Service, reason).await;
                }
                Err(error) => tracing::debug!("trying again: {error}"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// A server of our own has just been launched and needs its time; of one that others run it is told
    /// at once what it does not do.
    fn patience(&self) -> Duration {
        match self.settings.external {
            None => self.settings.supervision.init_timeout,
            Some(_) => Duration::ZERO,
        }
    }

    /// Until the copies of a node are up to date: who restarts the nodes one after another takes
    /// readiness for the sign to go on.
    async fn catch_up(&self, client: &Client) {
        if self.settings.cluster.is_none() {
            return;
        }
        let started = Instant::now();
        let (jetstream, monitor) = (JetStream::new(client.clone(), LOOK_DEADLINE), Monitor::new(&self.settings));
        while let Some(reason) = what_is_behind(&jetstream, monitor.as_ref()).await {
            // The watch goes on telling it.
            if started.elapsed() >= self.settings.supervision.init_timeout {
                return tracing::warn!("the copies of this node are not known to be up to date: {reason}");
            }
            tracing::debug!("waiting for copies: {reason}");
            sleep(LAST_PAUSE).await;
        }
    }

    async fn connect(&mut self, generation: Generation) -> Connection {
        let started = Instant::now();
        let patience = self.patience();
        let last_pause = if self.settings.external.is_none() { LAST_PAUSE } else { LAST_APPLY_PAUSE };
        let mut pause = FIRST_PAUSE;
        loop {
            let connector = self.connectors.borrow_and_update().control.clone();
            let error = match connector.connect(self.settings.supervision.connect_timeout).await {
                Ok(connection) => return connection,
                Err(error) => error,
            };
            if started.elapsed() >= patience || error.is_refusal() {
                let reason = match self.settings.external {
                    None => format!("nats-server does not let us in yet: {}", in_one_line(&error)),
                    Some(_) => format!("{}; it is tried again and again", in_one_line(&error)),
                };
                self.handle.report_failed(generation, ConditionKind::Service, reason).await;
            }
            tokio::select! {
                () = ready_line(&mut self.notices) => {}
                _ = self.connectors.changed() => {}
                () = sleep(pause) => pause = (pause * 2).min(last_pause),
            }
        }
    }

    fn is_launching(&self, generation: Generation) -> bool {
        self.launched < generation
    }

    async fn announce(&mut self, generation: Generation) {
        // The state changes when the supervisor has heard; saying so earlier would be a lie.
        let mut snapshots = self.handle.watch();
        let ready = snapshots.wait_for(|s| match &s.state {
            State::Ready { generation: ready, .. } => *ready == generation,
            other => other.generation() != Some(generation),
        });
        if ready.await.is_ok_and(|s| s.state.is_ready()) {
            if let (Some(recorder), true) = (spans::recorder(), self.is_launching(generation)) {
                let phases = self.phases.times();
                phases.for_each(|(name, began, took)| recorder.record_phase(generation.0, name, began, took));
            }
            self.launched = generation;
            self.start_phases.send_replace(self.phases.log(&self.settings));
        }
    }
}

/// The leaders know what they have sent, and `/healthz` whether it is in the store. Either alone
/// is content with a copy that has just begun (measured on 2.15.1).
async fn what_is_behind(jetstream: &JetStream, monitor: Option<&Monitor>) -> Option<String> {
    let node = jetstream.client().server_info().server_name;
    match jetstream.stream_clusters().await {
        Ok(clusters) => {
            if let Some(behind) = cluster::not_up_to_date(&node, &clusters) {
                return Some(behind);
            }
        }
        Err(error) => return Some(error.to_string()),
    }
    monitor?.healthz(LOOK_DEADLINE).await.err().map(|error| error.to_string())
}

/// Waits until the server says that it is ready.
async fn ready_line(notices: &mut broadcast::Receiver<Notice>) {
    loop {
        match notices.recv().await {
            Ok(Notice::Ready) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
