//! The cheap probe: every half second or so it asks whether the server answers, whether its store can
//! be written and has the supervisor do something about it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use nix::unistd::Pid;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::integrity_tasks::Connected;
use super::progress::Progress;
use crate::domain::Generation;
use crate::health::cluster::{self, Depth};
use crate::health::{Disk, DiskWatch, HangDetector, Probe, Remedy, Responsiveness, StorageWatch, prove_by_writing};
use crate::integrity::IntegrityHandle;
use crate::nats::{ApiError, Connector, JetStream, Monitor, MonitorError, ping};
use crate::preflight::Store;
use crate::settings::Settings;
use crate::supervisor::{ConditionKind, Handle, Notice, RestartReason, State, names_storage_fault};
use crate::ticks;

pub struct LivenessProbe {
    settings: Settings,
    link: Connector,
    handle: Handle,
    /// The connection to the server that runs now.
    client: Connected,
    monitor: Option<Monitor>,
    deadline: Duration,
    silence: HangDetector,
    storage: StorageWatch,
    disk: DiskWatch,
    integrity: IntegrityHandle,
    about: About,
    name_told: Option<Instant>,
}

/// What is known about one server; another one starts over.
#[derive(Default)]
struct About {
    generation: Generation,
    /// It has answered something; until then it may be recovering its store.
    answered: bool,
    progress: Progress,
    /// What the supervisor was told last.
    told: BTreeMap<ConditionKind, Option<String>>,
    /// What the full `/healthz` complains about.
    complaint: Option<String>,
    /// The same, heard once: nats-server complains of a stream that is just being made, too.
    heard: Option<String>,
    next_full: Option<Instant>,
}

impl About {
    /// Takes in what the full form of `/healthz` has said. What it says for the first time is asked about
    /// again with the next probe.
    fn take_in(&mut self, complaint: Option<String>, next_full: Instant) {
        let certain =
            |text: &String| is_about_storage(text) || self.complaint.is_some() || self.heard.as_ref() == Some(text);
        let uncertain = complaint.as_ref().is_some_and(|text| !certain(text));
        self.next_full = (!uncertain).then_some(next_full);
        (self.heard, self.complaint) = if uncertain { (complaint, None) } else { (None, complaint) };
    }
}

/// An answer that takes longer is none: clients would not wait for it either.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(1);
/// Between two full `/healthz`, which look at every stream, and print a line for each complaint.
const FULL_INTERVAL: Duration = Duration::from_secs(2);
/// Between two complaints about the name of this node.
const NAME_TOLD_AGAIN: Duration = Duration::from_secs(60);
/// Time for the write that shows that writing works.
const PROOF_DEADLINE: Duration = Duration::from_secs(2);

impl LivenessProbe {
    pub fn new(
        settings: Settings,
        link: Connector,
        handle: Handle,
        client: Connected,
        integrity: IntegrityHandle,
        store: Option<Arc<Store>>,
    ) -> Self {
        let health = &settings.health;
        let share = health.hang_timeout / health.failure_threshold;
        Self {
            deadline: PROBE_DEADLINE.min(share).max(Duration::from_millis(50)),
            silence: HangDetector::new(health.failure_threshold, health.hang_timeout),
            storage: StorageWatch::default(),
            disk: DiskWatch::new(
                settings.jetstream.store_dir.clone(),
                Arc::new(move || store.as_ref().map_or(Ok(()), |store| store.is_there())),
            ),
            monitor: Monitor::new(&settings),
            about: About::default(),
            name_told: None,
            settings,
            link,
            handle,
            client,
            integrity,
        }
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        let period = self.settings.health.probe_interval;
        // Not at once: a start has something better to do than to answer.
        let mut ticks = ticks::every(period);
        let mut notices = self.handle.notices();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                notice = notices.recv() => match notice {
                    Ok(Notice::NameTaken) => {
                        self.name_is_taken();
                        continue;
                    }
                    Ok(Notice::StorageFailed(message)) if !self.storage.is_in_trouble() => self.storage.note(&message),
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    // The supervisor has ended, and everything with it.
                    Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
                },
            }
            self.probe().await;
        }
    }

    async fn probe(&mut self) {
        let snapshot = self.handle.watch().borrow().clone();
        let (Some(generation), Some(pid), true) =
            (snapshot.state.generation(), snapshot.pid, snapshot.state.is_in_use())
        else {
            return self.silence.reset();
        };
        if generation != self.about.generation {
            self.about = About { generation, ..About::default() };
            self.silence.reset();
        }
        let client = self.client.borrow().clone().filter(|(of, _)| *of == generation).map(|(_, client)| client);
        self.ask(&snapshot.state, pid, client.as_ref()).await;
        if self.settings.jetstream.enabled {
            self.check_storage(client).await;
        }
    }

    /// Whether the server answers at all.
    async fn ask(&mut self, state: &State, pid: Pid, client: Option<&Client>) {
        let began = Instant::now();
        let ((http, complaint), in_band) = tokio::join!(self.ask_http(began), self.ask_in_band(client));
        if let Some(complaint) = complaint {
            self.about.take_in(complaint, began + FULL_INTERVAL);
        }
        if in_band.is_err() {
            // The full form hangs with JetStream, which the other one does not look at.
            self.about.next_full = None;
        }
        self.about.answered |= http.is_ok() || in_band.is_ok();
        let progress = !self.about.answered && self.about.progress.is_made(pid);
        let verdict = self.silence.after(Probe { http, in_band }, began, Instant::now(), progress);
        let in_service = matches!(state, State::Ready { .. } | State::Degraded { .. });
        match verdict {
            Responsiveness::Hung(reason) => {
                self.silence.reset();
                self.handle.restart(self.about.generation, RestartReason::Hung, reason).await;
            }
            Responsiveness::Silent(reason) if in_service => {
                let reason = format!("nats-server does not answer: {reason}");
                let reason = self.quorum_lost().await.unwrap_or(reason);
                self.report(ConditionKind::Answers, Some(reason)).await;
            }
            // A store that cannot be written is told as such.
            Responsiveness::Answers if in_service => {
                let complaint = self.about.complaint.clone().filter(|complaint| !is_about_storage(complaint));
                let complaint = self.quorum_lost().await.or(complaint);
                self.report(ConditionKind::Answers, complaint).await;
            }
            // What is not in place in the middle of a start says nothing about a server that is ready.
            _ if !in_service => {
                self.about.complaint.take_if(|complaint| !is_about_storage(complaint));
            }
            _ => {}
        }
    }

    /// What HTTP monitoring answers, and what the full form complains about where that was asked for.
    async fn ask_http(&self, now: Instant) -> (Result<(), String>, Option<Option<String>>) {
        let Some(monitor) = &self.monitor else {
            return (self.greeting().await, None);
        };
        let full = self.about.next_full.is_none_or(|due| now >= due);
        let answer = if full { monitor.healthz(self.deadline).await } else { monitor.answers(self.deadline).await };
        match answer {
            Ok(()) => (Ok(()), full.then_some(None)),
            Err(error @ MonitorError::Unhealthy { .. }) => (Ok(()), full.then(|| Some(error.to_string()))),
            Err(error) => (Err(error.to_string()), None),
        }
    }

    /// Whether NATS itself answers.
    async fn ask_in_band(&self, client: Option<&Client>) -> Result<(), String> {
        match client {
            Some(client) => answers_in_band(client, self.settings.jetstream.enabled, self.deadline).await,
            None => self.greeting().await,
        }
    }

    async fn greeting(&self) -> Result<(), String> {
        let answer = self.link.greeting(self.deadline).await;
        answer.map_err(|error| format!("{} does not answer: {error}", self.link.address()))
    }

    /// Says so now and then: nats-server tries again all the time.
    fn name_is_taken(&mut self) {
        if self.name_told.is_none_or(|at| at.elapsed() > NAME_TOLD_AGAIN) {
            self.name_told = Some(Instant::now());
            tracing::error!(
                "another node of the cluster has the name of this one, so that the two do not connect to each other: \
                 give each one a NATS_SERVER_NAME of its own"
            );
        }
    }

    /// Why the cluster can decide nothing, where this node is in one. JetStream's API goes on
    /// answering for a while when it has lost its quorum.
    async fn quorum_lost(&self) -> Option<String> {
        let monitor = self.monitor.as_ref().filter(|_| self.settings.clusters_jetstream())?;
        // Who does not answer is told as such.
        cluster::inspect(monitor, Depth::Quorum, self.deadline).await.ok()?.quorum().err()
    }

    async fn check_storage(&mut self, client: Option<Client>) {
        let disk = self.disk.inspect(self.storage.is_in_trouble()).await;
        if matches!(disk, Disk::Broken(_)) {
            // Each complaint is a line in the log, and this one is known.
            self.about.next_full = Some(Instant::now() + FULL_INTERVAL);
        }
        let refuses = self.about.complaint.as_deref().filter(|complaint| is_about_storage(complaint));
        let mut remedy = self.storage.judge(&disk, refuses, Instant::now());
        if remedy == Remedy::Verify {
            // Without a connection the server is on its way, and nothing is known yet.
            let Some(client) = client else { return };
            let jetstream = JetStream::new(client, PROOF_DEADLINE);
            let proof = self.prove_by_writing(&jetstream).await;
            if proof.is_ok()
                && let Disk::Writable { free, .. } = disk
            {
                tracing::info!(free, "the store can be written again: a write was acknowledged");
            }
            remedy = self.storage.verified(proof, Instant::now());
        }
        match remedy {
            Remedy::Nothing | Remedy::Verify => self.report(ConditionKind::Storage, None).await,
            Remedy::Report(reason) => self.report(ConditionKind::Storage, Some(reason)).await,
            Remedy::Restart(reason) => {
                self.report(ConditionKind::Storage, Some(reason.clone())).await;
                let reason = format!("there is room on the disk, but {reason}");
                self.handle.restart(self.about.generation, RestartReason::Recovery, reason).await;
            }
        }
    }

    async fn prove_by_writing(&self, jetstream: &JetStream) -> Result<(), String> {
        let stream = &self.settings.market_data;
        if !self.settings.streams.market_data {
            // There is no stream with a subject that is nobody's data.
            return Ok(());
        }
        if let Some(seq) = prove_by_writing(jetstream, stream).await? {
            self.integrity.take_back(jetstream, stream.name.as_str(), seq).await;
        }
        Ok(())
    }

    /// Tells the supervisor what changed.
    async fn report(&mut self, kind: ConditionKind, failure: Option<String>) {
        if self.about.told.get(&kind) == Some(&failure) {
            return;
        }
        match &failure {
            Some(reason) => self.handle.report_failed(self.about.generation, kind, reason.clone()).await,
            None => self.handle.report_ok(self.about.generation, kind).await,
        }
        self.about.told.insert(kind, failure);
    }
}

/// Whether NATS answers over a connection that is there.
async fn answers_in_band(client: &Client, jetstream: bool, deadline: Duration) -> Result<(), String> {
    if !jetstream {
        return ping(client, deadline).await;
    }
    match JetStream::new(client.clone(), deadline).answers().await {
        Ok(_) | Err(ApiError::Refused { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn is_about_storage(complaint: &str) -> bool {
    complaint.contains("write error") || names_storage_fault(complaint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_counts_when_it_is_heard_twice_or_is_about_the_disk() {
        let mut about = About::default();
        let later = Instant::now();
        let mut hear = |complaint: Option<&str>| {
            about.take_in(complaint.map(str::to_owned), later);
            (about.complaint.clone(), about.next_full == Some(later))
        };
        let told = |complaint: &str| (Some(complaint.to_owned()), true);
        assert_eq!(hear(Some("A could not be recovered")), (None, false), "asked again at once");
        assert_eq!(hear(Some("B could not be recovered")), (None, false), "streams are being made");
        assert_eq!(hear(None), (None, true));
        assert_eq!(hear(Some("B could not be recovered")), (None, false));
        assert_eq!(hear(Some("B could not be recovered")), told("B could not be recovered"));
        assert_eq!(hear(Some("C could not be recovered")), told("C could not be recovered"));
        assert_eq!(hear(None), (None, true));
        assert_eq!(hear(Some("no space left on device")), told("no space left on device"));
    }
}
