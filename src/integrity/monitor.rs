//! The one owner of the ledger of the store: it compares what others have seen, and tells what is
//! missing. It asks no server and waits for no disk, so that it always answers.

mod pages;
mod stock;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use super::acknowledgement;
use super::baselines::{Circumstances, MOST_HOLES};
use super::commands::{Basis, Command, Compared, Knowledge, Look};
use super::handle::IntegrityHandle;
use super::ledger::IntegrityLedger;
use super::losses::{Loss, LossKind};
use super::restores::Restore;
use super::view::{Integrity, Reading, log_loss, reason};
use crate::domain::{Generation, ServerVersion};
use crate::files::HeldDirectory;
use crate::nats::SeenStreams;
use crate::settings::Settings;
use crate::streams::Desired;
use pages::Pages;
use stock::take_stock;

/// Servers before that may come back from a kill with an earlier end (measured).
const REMEMBERS_ITS_END: ServerVersion = (2, 11);
/// Commands that wait at most; who has another one waits.
const WAITING: usize = 256;
/// How long somebody may still acknowledge what has been acknowledged: the ledger on disk, in which losses
/// are looked up, follows when the disk has time.
const AGAIN: Duration = Duration::from_secs(60);

/// Keeps what each stream was seen to hold, and compares. Everybody else has a handle.
pub struct IntegrityMonitor {
    commands: mpsc::Receiver<Command>,
    pages: Pages,
    directory: Arc<HeldDirectory>,
    clustered: bool,
    /// Streams that must exist; others may be deleted by who made them.
    declared: Vec<String>,
    /// Streams that were or are to be deleted on purpose.
    pruned: Vec<String>,
    /// Messages that are being deleted; each gives its stream.
    deleting: FuturesUnordered<oneshot::Receiver<String>>,
    /// Who has a look to compare and waits for these.
    delayed: Vec<oneshot::Sender<Compared>>,
    /// An acknowledgement that is being looked for, on another thread, because a disk may stall.
    requested: Option<JoinHandle<Option<Vec<Loss>>>>,
    /// When one was taken up last.
    acknowledged: Option<Instant>,
    /// Who waits until all is on disk.
    flushing: Vec<oneshot::Sender<()>>,
    /// What was reported last, and of which server.
    told: Option<(Generation, Option<String>)>,
    view: watch::Sender<Integrity>,
    look_soon: Arc<Notify>,
}

impl IntegrityMonitor {
    /// Opens the ledger of the store, before a server changes anything in it.
    pub fn open(settings: &Settings, directory: Arc<HeldDirectory>) -> (Self, IntegrityHandle) {
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
        let clustered = settings.cluster.is_some();
        if settings.looks_after_messages() {
            take_stock(&store, clustered, &mut ledger);
        }
        let (sender, commands) = mpsc::channel(WAITING);
        let (view, watch) = watch::channel(Integrity { losses: ledger.losses.clone(), ..Integrity::default() });
        let look_soon = Arc::new(Notify::new());
        let handle = IntegrityHandle {
            commands: sender,
            view: watch,
            look_soon: look_soon.clone(),
            store,
            directory: directory.clone(),
            clustered,
        };
        let monitor = Self {
            commands,
            pages: Pages { ledger, ..Pages::default() },
            directory,
            clustered,
            declared,
            pruned: vec![],
            deleting: FuturesUnordered::new(),
            delayed: vec![],
            requested: None,
            acknowledged: None,
            flushing: vec![],
            told: None,
            view,
            look_soon,
        };
        (monitor, handle)
    }

    /// Runs for ever. `report` tells the supervisor what is missing of the streams of a server, or that
    /// nothing is, and nobody else does.
    pub async fn run<R: Future<Output = ()>>(mut self, report: impl Fn(Generation, Option<String>) -> R) {
        loop {
            let mut answer = None;
            tokio::select! {
                biased;
                Some(stream) = self.deleting.next() => self.take_back(stream.ok()),
                arrived = finished(&mut self.pages.saving) => self.note_saved(arrived.unwrap_or_default()),
                seen = finished(&mut self.requested) => self.acknowledge(seen.flatten()),
                command = self.commands.recv() => match command {
                    Some(command) => answer = self.carry_out(command),
                    // Nobody is left who could see or ask anything.
                    None => return std::future::pending().await,
                },
            }
            self.publish();
            let missing = reason(&self.pages.ledger.losses);
            // Before the first look nothing is known of any server.
            let news = Some((self.pages.seen, missing));
            if self.pages.seen > Generation::default() && self.told != news {
                self.told = news;
                if let Some((generation, missing)) = self.told.clone() {
                    report(generation, missing).await;
                }
            }
            // Who is told that nothing is missing calls the server ready.
            if let Some((asker, compared)) = answer {
                let _ = asker.send(compared);
            }
        }
    }

    /// Gives what is answered to a look once everybody knows.
    fn carry_out(&mut self, command: Command) -> Option<(oneshot::Sender<Compared>, Compared)> {
        match command {
            Command::Declare(streams) => self.declared = streams,
            Command::WillDelete(stream) => self.pruned.push(stream),
            Command::Begin(asker) => {
                self.look_for_an_acknowledgement();
                let _ = asker.send(self.basis());
            }
            Command::Compare(_, asker) if !self.deleting.is_empty() => self.delayed.push(asker),
            Command::Compare(look, asker) => return Some((asker, self.compare(look))),
            Command::Deleting { ends, heard } => {
                self.deleting.push(ends);
                let _ = heard.send(());
            }
            Command::Heard(stream, heard) => {
                if let Some(baseline) = self.pages.ledger.baselines.get_mut(&stream) {
                    baseline.is_deleted_from = true;
                    self.pages.ledger.deleted.entry(stream).or_default().add(&heard);
                }
            }
            Command::Restore(restore) => self.hear_restore(restore),
            Command::Listening => self.end_restores(),
            Command::Counted { stream, messages } if self.pages.ledger.left.contains_key(&stream) => {
                if let Some(loss) = self.pages.ledger.note_restored(&stream, messages, SystemTime::now()) {
                    log_loss(&loss);
                }
                self.save();
            }
            Command::Counted { .. } => {}
            Command::About(stream, asker) => _ = asker.send(self.about(&stream)),
            Command::Note(stream, missing) => {
                let loss = Loss::found_now(&stream, missing);
                if self.pages.ledger.note(loss.clone()) {
                    log_loss(&loss);
                }
                self.save();
            }
            Command::Readable(stream) => {
                if self.pages.ledger.is_readable(&stream) {
                    tracing::info!(stream, "the messages of stream {stream} that could not be read can be read again");
                    self.save();
                }
            }
            Command::Suspect(stream, ranges) if ranges.is_empty() => _ = self.pages.suspects.remove(&stream),
            Command::Suspect(stream, ranges) => _ = self.pages.suspects.insert(stream, ranges),
            Command::MadeAnew(info) => {
                if let Some(baseline) = self.pages.ledger.baselines.get_mut(info.name()) {
                    baseline.created.clone_from(&info.created);
                }
                self.pages.rescued.insert(info.name().to_owned());
            }
            Command::Reading(reading, asker) => {
                self.view.send_modify(|view| view.reading = reading);
                let _ = asker.send(());
            }
            Command::Flush(asker) => {
                self.flushing.push(asker);
                self.save();
                self.answer_when_flushed(true);
            }
        }
        None
    }

    fn basis(&self) -> Basis {
        let Pages { ledger, looks, suspected, .. } = &self.pages;
        let known = ledger.baselines.keys().cloned().collect();
        Basis { looks: *looks, known, doubtful: suspected.marked(ledger), heard: ledger.deleted.clone() }
    }

    fn compare(&mut self, mut look: Box<Look>) -> Compared {
        if look.basis != self.pages.looks {
            return Compared::Again;
        }
        if !look.is_detailed {
            let names = self.to_be_asked_for(&look);
            if !names.is_empty() {
                return Compared::Details(look, names);
            }
        }
        let Look { generation, version, resolved, heard, ref mut streams, .. } = *look;
        self.pages.looks += 1;
        for stream in std::mem::take(&mut self.pruned) {
            self.pages.ledger.forget(&stream);
        }
        if generation < self.pages.seen {
            // An answer of a server that is gone.
            return Compared::Done(reason(&self.pages.ledger.losses));
        }
        let restarted = generation > self.pages.seen;
        let forgetful = version < REMEMBERS_ITS_END;
        let circumstances = Circumstances { restarted, clustered: self.clustered, forgetful, now: SystemTime::now() };
        self.pages.seen = generation;
        self.pages.ledger.server = Some(version);
        if restarted {
            self.view.send_modify(|view| view.reading = Reading::NotYet);
            // A restore ends with its server.
            self.end_restores();
            self.pages.believe(streams);
        }
        self.settle_restores(streams);
        self.pages.disbelieve(streams);
        if self.clustered {
            let Pages { ledger, suspected, .. } = &mut self.pages;
            for (stream, missing) in suspected.sort(streams, ledger, resolved, Instant::now()) {
                let loss = Loss::found_now(&stream, missing);
                if ledger.note(loss.clone()) {
                    log_loss(&loss);
                }
            }
        }
        let declared: Vec<_> = self.declared.iter().map(String::as_str).collect();
        for loss in self.pages.ledger.compare(streams, &declared, circumstances) {
            log_loss(&loss);
        }
        self.pages.ledger.forget_heard(heard);
        self.save();
        Compared::Done(reason(&self.pages.ledger.losses))
    }

    /// Streams of which the server has to say what it has lost: all when it is seen first, later those
    /// that hold less.
    fn to_be_asked_for(&self, look: &Look) -> Vec<String> {
        let is_first = look.generation > self.pages.seen;
        let fewer = self.pages.ledger.with_fewer(&look.streams.known, SystemTime::now());
        let asked = look.streams.known.iter().filter(|info| {
            let asked = (is_first && info.config.terms.is_on_disk) || fewer.iter().any(|name| name == info.name());
            asked && info.state.num_deleted < MOST_HOLES
        });
        asked.map(|info| info.name().to_owned()).collect()
    }

    /// A message that this program has published is gone, or nobody knows.
    fn take_back(&mut self, stream: Option<String>) {
        if let Some(baseline) = stream.and_then(|stream| self.pages.ledger.baselines.get_mut(&stream)) {
            baseline.num_deleted += 1;
        }
        // What was asked meanwhile may count it or not.
        self.pages.looks += 1;
        self.save();
        if self.deleting.is_empty() {
            for asker in self.delayed.drain(..) {
                let _ = asker.send(Compared::Again);
            }
        }
    }

    fn about(&self, stream: &str) -> Knowledge {
        let Pages { ledger, suspects, called_lost, rescued, .. } = &self.pages;
        let unreadable = ledger.losses.iter().find_map(|loss| match &loss.missing {
            LossKind::Unreadable { ranges } if loss.stream == stream => Some(ranges.clone()),
            _ => None,
        });
        Knowledge {
            config: ledger.baselines.get(stream).and_then(|baseline| baseline.config.fields()),
            accepted: ledger.accepted.get(stream).cloned().unwrap_or_default(),
            unreadable: unreadable.unwrap_or_default(),
            suspects: suspects.get(stream).cloned(),
            called_lost: called_lost.get(stream).cloned().unwrap_or_default(),
            is_rescued: rescued.contains(stream),
        }
    }

    fn hear_restore(&mut self, Restore { stream, known }: Restore) {
        tracing::debug!(stream, "a restore of stream {stream} {}", if known.has_ended { "ends" } else { "begins" });
        if known.has_ended {
            self.look_soon.notify_one();
        }
        self.pages.ledger.restores.insert(stream, known);
        // What was asked before may be the old stream.
        self.pages.looks += 1;
        self.save();
    }

    /// Nobody will hear of the end of those that are under way.
    fn end_restores(&mut self) {
        self.pages.ledger.restores.values_mut().for_each(|restore| restore.has_ended = true);
    }

    fn settle_restores(&mut self, streams: &mut SeenStreams) {
        for stream in self.pages.ledger.settle_restores(streams) {
            tracing::info!(
                stream,
                "stream {stream} was restored from a snapshot, and what that does not hold is no loss"
            );
            self.pages.forget(&stream);
            self.view.send_modify(|view| view.restored.add(SystemTime::now(), stream));
        }
    }

    /// Takes up what an operator has acknowledged, if there is something to acknowledge.
    fn look_for_an_acknowledgement(&mut self) {
        let may_come = !self.pages.ledger.losses.is_empty() || self.acknowledged.is_some_and(|at| at.elapsed() < AGAIN);
        if self.requested.is_none() && may_come {
            let store = self.directory.in_hand();
            self.requested = Some(spawn_blocking(move || acknowledgement::take(store.as_ref())));
        }
    }

    fn acknowledge(&mut self, seen: Option<Vec<Loss>>) {
        let Some(seen) = seen else { return };
        let forgotten = self.pages.ledger.acknowledge(&seen);
        for loss in &forgotten {
            tracing::warn!(stream = loss.stream, "loss acknowledged: stream {}: {}", loss.stream, loss.missing);
        }
        if forgotten.is_empty() {
            tracing::warn!("a loss was acknowledged that is not known, or was acknowledged before");
        }
        self.acknowledged = Some(Instant::now());
        self.save();
    }

    fn save(&mut self) {
        self.pages.save(&self.directory);
    }

    fn note_saved(&mut self, arrived: bool) {
        if arrived {
            self.pages.saved = self.pages.written.take();
            // What has come meanwhile. A disk that refuses is asked again with the next change.
            self.save();
        }
        self.answer_when_flushed(arrived);
    }

    fn answer_when_flushed(&mut self, arrived: bool) {
        if self.pages.saving.is_none() || !arrived {
            for asker in self.flushing.drain(..) {
                let _ = asker.send(());
            }
        }
    }

    fn publish(&self) {
        self.view.send_if_modified(|view| {
            let changed = view.losses != self.pages.ledger.losses;
            if changed {
                view.losses.clone_from(&self.pages.ledger.losses);
            }
            changed
        });
    }
}

/// Waits for the end of work on another thread, if there is any; [`None`] where it panicked.
async fn finished<T>(work: &mut Option<JoinHandle<T>>) -> Option<T> {
    let Some(running) = work else { return std::future::pending().await };
    let result = running.await;
    *work = None;
    result.ok()
}

#[cfg(test)]
mod tests;
