//! Who keeps the ledger of the store: looks, compares, and tells what is missing.

mod pages;
mod stock;
mod view;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use super::acknowledgement;
use super::baselines::{Circumstances, is_on_disk, lost};
use super::deletions;
use super::ledger::IntegrityLedger;
use super::losses::{Loss, LossKind};
use super::ranges::{Ranges, without};
use super::suspected_losses::SuspectedLosses;
use crate::domain::{Generation, ServerVersion};
use crate::files::HeldDirectory;
use crate::nats::{ApiError, JetStream, StreamInfo, Streams};
use crate::settings::Settings;
use crate::streams::Desired;
use pages::Pages;
use stock::take_stock;
pub use view::{Integrity, Reading};
use view::{log_loss, reason};

/// Servers before that may come back from a kill with an earlier end (measured).
const REMEMBERS_ITS_END: ServerVersion = (2, 11);
/// A stream with more holes than that is not asked for all of them.
pub(super) const MOST_HOLES: u64 = 200_000;

/// Keeps what each stream was seen to hold, and compares. Clones keep the same ledger.
#[derive(Clone)]
pub struct IntegrityMonitor(Arc<Shared>);

struct Shared {
    store: PathBuf,
    /// The store that was used last, for what is written there: another one may stand in its place.
    directory: Arc<HeldDirectory>,
    clustered: bool,
    /// Streams that must exist; others may be deleted by who made them.
    declared: std::sync::RwLock<Vec<String>>,
    /// Streams that were or are to be deleted on purpose.
    deleted: std::sync::Mutex<Vec<String>>,
    ledger: Mutex<Pages>,
    /// Held while a message is deleted, and while a look is compared.
    deleting: Mutex<()>,
    /// Looking for an acknowledgement, which a disk may keep from coming back.
    requested: Mutex<Option<JoinHandle<Option<Vec<Loss>>>>>,
    /// Streams that were made known again since the program started; once is enough.
    rescued: Mutex<BTreeSet<String>>,
    view: watch::Sender<Integrity>,
}

impl IntegrityMonitor {
    /// Opens the ledger of the store.
    pub fn open(settings: &Settings, directory: Arc<HeldDirectory>) -> Self {
        let store = settings.jetstream.store_dir.clone();
        let declared: Vec<_> = Desired::of(settings).streams.into_iter().map(|stream| stream.name).collect();
        let mut ledger = acknowledgement::read_ledger(&store).unwrap_or_else(|reason| {
            acknowledgement::set_aside_ledger(&store);
            let mut ledger = IntegrityLedger::default();
            for stream in &declared {
                let loss = Loss::found_now(stream, LossKind::Memory { reason: reason.clone() });
                log_loss(&loss);
                ledger.note(loss);
            }
            ledger
        });
        if settings.looks_after_messages() {
            take_stock(&store, settings.cluster.is_some(), &mut ledger);
        }
        let view = watch::Sender::new(Integrity { losses: ledger.losses.clone(), reading: Reading::NotYet });
        let pages = Pages { ledger, ..Pages::default() };
        Self(Arc::new(Shared {
            store,
            directory,
            clustered: settings.cluster.is_some(),
            declared: std::sync::RwLock::new(declared),
            deleted: std::sync::Mutex::default(),
            ledger: Mutex::new(pages),
            deleting: Mutex::new(()),
            requested: Mutex::new(None),
            rescued: Mutex::new(BTreeSet::new()),
            view,
        }))
    }

    /// Says which streams must exist from now on.
    pub fn declare(&self, streams: impl Iterator<Item = String>) {
        if let Ok(mut declared) = self.0.declared.write() {
            *declared = streams.collect();
        }
    }

    /// A stream is about to be deleted because it is not declared any more: the next look forgets it.
    pub fn will_delete(&self, stream: &str) {
        if let Ok(mut deleted) = self.0.deleted.lock() {
            deleted.push(stream.to_owned());
        }
    }

    pub fn watch(&self) -> watch::Receiver<Integrity> {
        self.0.view.subscribe()
    }

    pub(super) fn store(&self) -> &Path {
        &self.0.store
    }

    /// Streams that were made known again since the program started.
    pub(super) async fn rescued(&self) -> tokio::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.rescued.lock().await
    }

    pub(super) fn is_clustered(&self) -> bool {
        self.0.clustered
    }

    /// Looks at every stream of that server, compares it with what it held before, and gives what is
    /// missing, as one sentence, until it is acknowledged.
    pub async fn check_streams(
        &self,
        jetstream: &JetStream,
        generation: Generation,
    ) -> Result<Option<String>, ApiError> {
        let seen = self.take_acknowledgement().await;
        // An answer that is older must not be compared after one that is newer: it is asked for again
        // when another look was faster. Nobody waits for a look over a connection that is dead.
        let (mut streams, resolved, mut pages, heard, _none_is_deleted) = loop {
            let (looks, known, doubtful, heard) = {
                let pages = self.0.ledger.lock().await;
                let known = pages.ledger.baselines.keys().cloned().collect::<Vec<_>>();
                (pages.looks, known, pages.suspected.marked(&pages.ledger), pages.ledger.deleted.clone())
            };
            let mut streams = with_those_not_listed(jetstream, jetstream.streams().await?, known).await;
            self.with_what_was_lost(jetstream, &mut streams, generation).await?;
            let resolved = SuspectedLosses::resolve(jetstream, &streams, doubtful).await;
            let none_is_deleted = self.0.deleting.lock().await;
            let pages = self.0.ledger.lock().await;
            if pages.looks == looks {
                break (streams, resolved, pages, heard, none_is_deleted);
            }
        };
        pages.looks += 1;
        let deleted = self.0.deleted.lock().map(|mut deleted| std::mem::take(&mut *deleted)).unwrap_or_default();
        for stream in deleted {
            pages.ledger.forget(&stream);
        }
        if generation < pages.seen {
            // An answer of a server that is gone.
            return Ok(reason(&pages.ledger.losses));
        }
        let restarted = generation > pages.seen;
        let forgetful = jetstream.server_version() < REMEMBERS_ITS_END;
        let circumstances = Circumstances { restarted, clustered: self.0.clustered, forgetful, now: SystemTime::now() };
        let declared = self.0.declared.read().map(|names| names.clone()).unwrap_or_default();
        let declared: Vec<_> = declared.iter().map(String::as_str).collect();
        pages.seen = generation;
        pages.ledger.server = Some(jetstream.server_version());
        if restarted {
            self.show_reading(Reading::NotYet);
            pages.believe(&streams);
        }
        pages.disbelieve(&mut streams);
        if self.0.clustered {
            let Pages { ledger, suspected, .. } = &mut *pages;
            for (stream, missing) in suspected.sort(&mut streams, ledger, resolved, Instant::now()) {
                let loss = Loss::found_now(&stream, missing);
                if ledger.note(loss.clone()) {
                    log_loss(&loss);
                }
            }
        }
        for loss in pages.ledger.compare(&streams, &declared, circumstances) {
            log_loss(&loss);
        }
        pages.ledger.forget_heard(heard);
        acknowledge(&mut pages.ledger, seen);
        self.publish(&pages.ledger);
        pages.save(&self.0.directory).await;
        Ok(reason(&pages.ledger.losses))
    }

    /// Deletes a message that this program has published, so that the next look does not take that for
    /// a loss, which may come after a restart.
    pub async fn take_back(&self, jetstream: &JetStream, stream: &str, seq: u64) {
        let _no_look = self.0.deleting.lock().await;
        if let Err(error) = jetstream.delete_message(stream, seq).await {
            // It may be gone all the same.
            tracing::warn!(stream, seq, "cannot delete the message that was written as a proof: {error}");
        }
        let mut pages = self.0.ledger.lock().await;
        if let Some(baseline) = pages.ledger.baselines.get_mut(stream) {
            baseline.num_deleted += 1;
        }
        // What was asked meanwhile may count it or not.
        pages.looks += 1;
        pages.save(&self.0.directory).await;
    }

    /// Takes in what the server tells about a request to its API.
    pub async fn hear(&self, advisory: &[u8]) {
        if let Some((stream, heard)) = deletions::heard_in(advisory) {
            let mut pages = self.0.ledger.lock().await;
            if let Some(baseline) = pages.ledger.baselines.get_mut(&stream) {
                baseline.is_deleted_from = true;
                pages.ledger.deleted.entry(stream).or_default().add(&heard);
            }
        }
    }

    /// Takes in how many messages a server has counted in a stream, before any client could change that.
    pub async fn note_restored(&self, stream: &str, messages: u64) {
        let mut pages = self.0.ledger.lock().await;
        if !pages.ledger.left.contains_key(stream) {
            return;
        }
        if let Some(loss) = pages.ledger.note_restored(stream, messages, SystemTime::now()) {
            log_loss(&loss);
        }
        self.publish(&pages.ledger);
        pages.save(&self.0.directory).await;
    }

    /// Streams on disk that were seen, and how many messages they held.
    pub async fn seen(&self) -> Vec<(String, u64)> {
        let pages = self.0.ledger.lock().await;
        let on_disk = pages.ledger.baselines.iter().filter(|(_, baseline)| is_on_disk(&baseline.config));
        on_disk.map(|(name, baseline)| (name.clone(), baseline.messages)).collect()
    }

    /// A stream was made known again: it is the one that was seen, though it has just been created.
    pub(super) async fn note_made_anew(&self, info: &StreamInfo) {
        if let Some(baseline) = self.0.ledger.lock().await.ledger.baselines.get_mut(info.name()) {
            baseline.created.clone_from(&info.created);
        }
    }

    /// What a server says to have lost of a stream and had not been deleted.
    pub(super) async fn not_called_lost_before(&self, info: &StreamInfo) -> Ranges {
        let pages = self.0.ledger.lock().await;
        let before = pages.called_lost.get(info.name()).map(Vec::as_slice).unwrap_or_default();
        without(&lost(info), before)
    }

    /// Asks for what a server says to have lost: of every stream when it is seen first, later of those
    /// that hold less.
    async fn with_what_was_lost(
        &self,
        jetstream: &JetStream,
        streams: &mut Streams,
        generation: Generation,
    ) -> Result<(), ApiError> {
        let (is_first, fewer) = {
            let pages = self.0.ledger.lock().await;
            (generation > pages.seen, pages.ledger.with_fewer(&streams.known, SystemTime::now()))
        };
        for info in streams.known.iter_mut() {
            let asked = (is_first && is_on_disk(&info.config)) || fewer.iter().any(|name| name == info.name());
            if asked && info.state.num_deleted < MOST_HOLES {
                info.state.lost = match jetstream.stream_info_with_deleted(info.name()).await {
                    Ok(detailed) => detailed.state.lost,
                    // Its owner has just deleted it.
                    Err(error) if error.is(ApiError::STREAM_NOT_FOUND) => None,
                    Err(error) => return Err(error),
                };
            }
        }
        Ok(())
    }

    /// Notes what was found missing in some other way.
    pub(super) async fn note(&self, stream: &str, missing: LossKind) {
        let mut pages = self.0.ledger.lock().await;
        let loss = Loss::found_now(stream, missing);
        if pages.ledger.note(loss.clone()) {
            log_loss(&loss);
        }
        self.publish(&pages.ledger);
        pages.save(&self.0.directory).await;
    }

    /// Takes back that messages of a stream cannot be read, after they have been.
    pub(super) async fn note_readable(&self, stream: &str) {
        let mut pages = self.0.ledger.lock().await;
        if pages.ledger.is_readable(stream) {
            tracing::info!(stream, "the messages of stream {stream} that could not be read can be read again");
            self.publish(&pages.ledger);
            pages.save(&self.0.directory).await;
        }
    }

    /// The configuration that a stream was last seen with.
    pub(super) async fn config_of(&self, stream: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
        self.0.ledger.lock().await.ledger.baselines.get(stream).map(|baseline| baseline.config.clone())
    }

    /// What cannot be read of a stream, as somebody knows.
    pub(super) async fn accepted(&self, stream: &str) -> Ranges {
        self.0.ledger.lock().await.ledger.accepted.get(stream).cloned().unwrap_or_default()
    }

    /// Whether the last reading came to no end.
    pub fn has_failed_to_read(&self) -> bool {
        matches!(self.0.view.borrow().reading, Reading::Failed { .. })
    }

    pub(super) fn show_reading(&self, reading: Reading) {
        self.0.view.send_modify(|view| view.reading = reading);
    }

    /// What is told to be unreadable of a stream.
    pub(super) async fn unreadable(&self, stream: &str) -> Ranges {
        let pages = self.0.ledger.lock().await;
        let told = pages.ledger.losses.iter().find_map(|loss| match &loss.missing {
            LossKind::Unreadable { ranges } if loss.stream == stream => Some(ranges.clone()),
            _ => None,
        });
        told.unwrap_or_default()
    }

    /// Keeps what could not be read, to be read again from another server; gives what was kept before.
    pub(super) async fn suspect(&self, stream: &str, ranges: Ranges) -> Option<Ranges> {
        self.0.ledger.lock().await.suspects.insert(stream.to_owned(), ranges)
    }

    /// What could not be read of a stream before.
    pub(super) async fn suspects(&self, stream: &str) -> Option<Ranges> {
        self.0.ledger.lock().await.suspects.remove(stream)
    }

    /// What an operator has acknowledged since. Read on another thread, because a disk may stall.
    async fn take_acknowledgement(&self) -> Option<Vec<Loss>> {
        const PATIENCE: Duration = Duration::from_millis(500);
        if self.0.view.borrow().losses.is_empty() {
            // Nothing to acknowledge, and a thread less to wake.
            return None;
        }
        let mut requested = self.0.requested.lock().await;
        let mut taking = requested.take().unwrap_or_else(|| {
            let store = self.0.directory.in_hand();
            spawn_blocking(move || acknowledgement::take(store.as_ref()))
        });
        match tokio::time::timeout(PATIENCE, &mut taking).await {
            Ok(taken) => taken.ok().flatten(),
            Err(_) => {
                *requested = Some(taking);
                None
            }
        }
    }

    fn publish(&self, ledger: &IntegrityLedger) {
        self.0.view.send_if_modified(|view| {
            let changed = view.losses != ledger.losses;
            view.losses.clone_from(&ledger.losses);
            changed
        });
    }

    /// Looks once more before the server is asked to stop, so that what is known is as fresh as can be.
    pub async fn take_leave(&self, jetstream: &JetStream, generation: Generation) {
        /// Nobody should wait for a server that hangs.
        const PATIENCE: Duration = Duration::from_millis(200);
        // Without an answer what was seen last has to do.
        let _ = tokio::time::timeout(PATIENCE, self.check_streams(jetstream, generation)).await;
    }

    /// Waits until what is known is on disk, at most `patience`.
    pub async fn flush(&self, patience: Duration) {
        let flush = async {
            let mut pages = self.0.ledger.lock().await;
            for _ in 0..2 {
                pages.settle().await;
                pages.save(&self.0.directory).await;
            }
            pages.settle().await;
        };
        let _ = tokio::time::timeout(patience, flush).await;
    }
}

/// A list may leave streams out. Gone is what the server says to be gone; of others nothing is known.
async fn with_those_not_listed(jetstream: &JetStream, mut streams: Streams, marked: Vec<String>) -> Streams {
    for name in marked {
        let listed = streams.known.iter().any(|info| info.name() == name) || streams.unknown.contains(&name);
        if !listed {
            match jetstream.stream_info(&name).await {
                Ok(info) => streams.known.extend(info),
                Err(_) => streams.unknown.push(name),
            }
        }
    }
    streams
}

fn acknowledge(ledger: &mut IntegrityLedger, seen: Option<Vec<Loss>>) {
    let Some(seen) = seen else { return };
    let forgotten = ledger.acknowledge(&seen);
    for loss in &forgotten {
        tracing::warn!(stream = loss.stream, "loss acknowledged: stream {}: {}", loss.stream, loss.missing);
    }
    if forgotten.is_empty() {
        tracing::warn!("a loss was acknowledged that is not known");
    }
}
