use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use super::acknowledgement;
use super::marks::{Book, Circumstances, Loss, Missing, Ranges};
use crate::files::write_atomically;
use crate::nats::{ApiError, JetStream, StreamInfo};
use crate::settings::Settings;
use crate::supervisor::Generation;

/// What is known about the store, for everybody to see.
#[derive(Clone, Debug, Default)]
pub struct Integrity {
    /// What is missing and not acknowledged.
    pub losses: Vec<Loss>,
    pub reading: Reading,
}

/// How far the streams have been read through since the server started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    #[default]
    NotYet,
    Under {
        stream: String,
        seq: u64,
        last_seq: u64,
    },
    Done {
        messages: u64,
        /// Streams that could not be read through, and why.
        left_out: Vec<String>,
    },
}

/// Keeps what each stream was seen to hold, and compares. Clones keep the same book.
#[derive(Clone)]
pub struct Keeper(Arc<Shared>);

struct Shared {
    store: PathBuf,
    clustered: bool,
    declared: Vec<String>,
    book: Mutex<Pages>,
    view: watch::Sender<Integrity>,
}

struct Pages {
    book: Book,
    /// The server that was looked at last.
    seen: Option<Generation>,
    /// What is on disk, or on its way there.
    saved: Book,
    saving: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Opens the book of the store.
    pub fn open(settings: &Settings) -> Self {
        let store = settings.jetstream.store_dir.clone();
        let book = acknowledgement::read_book(&store).unwrap_or_else(|reason| {
            tracing::error!("what the streams held before is not known, and starts over: {reason}");
            Book::default()
        });
        let view = watch::Sender::new(Integrity { losses: book.losses.clone(), reading: Reading::NotYet });
        let pages = Pages { saved: book.clone(), book, seen: None, saving: None };
        Self(Arc::new(Shared {
            store,
            clustered: settings.cluster.is_some(),
            declared: vec![settings.market_data.name.to_string()],
            book: Mutex::new(pages),
            view,
        }))
    }

    pub fn watch(&self) -> watch::Receiver<Integrity> {
        self.0.view.subscribe()
    }

    pub(super) fn store(&self) -> &std::path::Path {
        &self.0.store
    }

    pub(super) fn is_clustered(&self) -> bool {
        self.0.clustered
    }

    /// Looks at every stream of that server, compares it with what it held before, and gives what is
    /// missing, as one sentence, until it is acknowledged.
    pub async fn look(&self, jetstream: &JetStream, generation: Generation) -> Result<Option<String>, ApiError> {
        let streams = jetstream.streams().await?;
        let mut pages = self.0.book.lock().await;
        let streams = self.with_those_not_listed(jetstream, streams, &pages.book).await?;
        let restarted = pages.seen != Some(generation);
        let circumstances = Circumstances { restarted, clustered: self.0.clustered, now: SystemTime::now() };
        let declared: Vec<_> = self.0.declared.iter().map(String::as_str).collect();
        pages.seen = Some(generation);
        if restarted {
            self.show_reading(Reading::NotYet);
        }
        for loss in pages.book.compare(&streams, &declared, circumstances) {
            tell(&loss);
        }
        self.take_acknowledgement(&mut pages.book);
        self.publish(&pages.book);
        self.save(&mut pages);
        Ok(reason(&pages.book.losses))
    }

    /// Notes what was found missing in some other way.
    pub(super) async fn note(&self, stream: &str, missing: Missing) {
        let mut pages = self.0.book.lock().await;
        let found_at = crate::logging::timestamp(SystemTime::now()).to_string();
        let loss = Loss { stream: stream.to_owned(), missing, found_at };
        if pages.book.note(loss.clone()) {
            tell(&loss);
        }
        self.publish(&pages.book);
        self.save(&mut pages);
    }

    /// Takes back that messages of a stream cannot be read, after they have been.
    pub(super) async fn note_readable(&self, stream: &str) {
        let mut pages = self.0.book.lock().await;
        if pages.book.is_readable(stream) {
            tracing::info!(stream, "the messages of stream {stream} that could not be read can be read again");
            self.publish(&pages.book);
            self.save(&mut pages);
        }
    }

    /// The configuration that a stream was last seen with.
    pub(super) async fn config_of(&self, stream: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
        self.0.book.lock().await.book.marks.get(stream).map(|mark| mark.config.clone())
    }

    /// What cannot be read of a stream, as somebody knows.
    pub(super) async fn accepted(&self, stream: &str) -> Ranges {
        self.0.book.lock().await.book.accepted.get(stream).cloned().unwrap_or_default()
    }

    pub(super) fn show_reading(&self, reading: Reading) {
        self.0.view.send_modify(|view| view.reading = reading);
    }

    /// A list may leave streams out, such as one that has no leader just now. Gone is what the server
    /// says to be gone.
    async fn with_those_not_listed(
        &self,
        jetstream: &JetStream,
        mut streams: Vec<StreamInfo>,
        book: &Book,
    ) -> Result<Vec<StreamInfo>, ApiError> {
        let unlisted: Vec<_> =
            book.marks.keys().filter(|name| !streams.iter().any(|info| info.name() == name.as_str())).collect();
        for name in unlisted {
            streams.extend(jetstream.stream_info(name).await?);
        }
        Ok(streams)
    }

    fn take_acknowledgement(&self, book: &mut Book) {
        let Some(stream) = acknowledgement::take(&self.0.store) else { return };
        let forgotten = book.acknowledge(stream.as_deref());
        for loss in &forgotten {
            tracing::warn!(stream = loss.stream, "loss acknowledged: stream {}: {}", loss.stream, loss.missing);
        }
        if forgotten.is_empty() {
            tracing::warn!("a loss was acknowledged that is not known");
        }
    }

    fn publish(&self, book: &Book) {
        self.0.view.send_if_modified(|view| {
            let changed = view.losses != book.losses;
            view.losses.clone_from(&book.losses);
            changed
        });
    }

    /// On another thread, because a disk may stall; what comes meanwhile is written the next time.
    fn save(&self, pages: &mut Pages) {
        if pages.saved == pages.book || pages.saving.as_ref().is_some_and(|saving| !saving.is_finished()) {
            return;
        }
        let Ok(bytes) = serde_json::to_vec(&pages.book) else { return };
        let path = acknowledgement::book_file(&self.0.store);
        pages.saved = pages.book.clone();
        pages.saving = Some(spawn_blocking(move || {
            if let Err(error) = write_atomically(&path, &bytes) {
                // A disk that is full is told by who watches it.
                tracing::debug!("cannot write {}: {error}", path.display());
            }
        }));
    }

    /// Looks once more before the server is asked to stop, so that what is known is as fresh as can be.
    pub async fn take_leave(&self, jetstream: &JetStream, generation: Generation) {
        /// Nobody should wait for a server that hangs.
        const PATIENCE: Duration = Duration::from_millis(200);
        // Without an answer what was seen last has to do.
        let _ = tokio::time::timeout(PATIENCE, self.look(jetstream, generation)).await;
    }

    /// Waits until what is known is on disk, at most `patience`.
    pub async fn flush(&self, patience: Duration) {
        let flush = async {
            let mut pages = self.0.book.lock().await;
            for _ in 0..2 {
                if let Some(saving) = pages.saving.take() {
                    let _ = saving.await;
                }
                self.save(&mut pages);
            }
            if let Some(saving) = pages.saving.take() {
                let _ = saving.await;
            }
        };
        let _ = tokio::time::timeout(patience, flush).await;
    }
}

fn tell(loss: &Loss) {
    tracing::error!(stream = loss.stream, "messages are missing: stream {}: {}", loss.stream, loss.missing);
}

fn reason(losses: &[Loss]) -> Option<String> {
    if losses.is_empty() {
        return None;
    }
    let losses: Vec<_> = losses.iter().map(|loss| format!("stream {}: {}", loss.stream, loss.missing)).collect();
    Some(format!(
        "messages are missing: {}; restore them, or accept that with `unified-nats streams acknowledge-loss`",
        losses.join("; ")
    ))
}
