//! The ledger while it is kept: what is in memory of it, and what has arrived on disk.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::{JoinHandle, spawn_blocking};

use crate::domain::Generation;
use crate::files::{HeldDirectory, write_atomically};
use crate::integrity::acknowledgement;
use crate::integrity::baselines::lost;
use crate::integrity::ledger::IntegrityLedger;
use crate::integrity::ranges::{Ranges, contains};
use crate::integrity::suspected_losses::SuspectedLosses;
use crate::nats::SeenStreams;

#[derive(Default)]
pub struct Pages {
    pub ledger: IntegrityLedger,
    /// The server that was looked at last.
    pub seen: Generation,
    /// Looks that were compared so far.
    pub looks: u64,
    /// What is on disk.
    pub saved: Option<IntegrityLedger>,
    /// What is on its way there.
    pub written: Option<IntegrityLedger>,
    /// Whether it has arrived.
    pub saving: Option<JoinHandle<bool>>,
    /// Of a node in a cluster: streams that end too early, perhaps only for who answers.
    pub suspected: SuspectedLosses,
    /// What could not be read of each stream, to be read again from another server.
    pub suspects: BTreeMap<String, Ranges>,
    /// What the server called lost of each stream when it was seen first, and had been deleted: with an
    /// index from before a kill it does not know better (measured on 2.10 to 2.12).
    pub called_lost: BTreeMap<String, Ranges>,
    /// Streams that were made known again since the program started; once is enough.
    pub rescued: BTreeSet<String>,
}

impl Pages {
    /// Decides what of the losses that a new server tells was there and is news: all where the last one has
    /// stopped in order and nothing is told yet.
    pub fn believe(&mut self, streams: &SeenStreams) {
        let IntegrityLedger { indexed, told, .. } = &self.ledger;
        let told = streams.known.iter().filter(|info| !indexed.contains(info.name()) || told.contains(info.name()));
        self.called_lost = told.map(|info| (info.name().to_owned(), lost(&info.state))).collect();
    }

    /// Leaves out what was decided to be no loss.
    pub fn disbelieve(&self, streams: &mut SeenStreams) {
        for info in &mut streams.known {
            let before = self.called_lost.get(info.name()).filter(|before| !before.is_empty());
            if let (Some(before), Some(told)) = (before, &mut info.state.lost) {
                let msgs = told.msgs.take().unwrap_or_default();
                told.msgs = Some(msgs.into_iter().filter(|seq| !contains(before, *seq)).collect());
            }
        }
    }

    /// Nothing was known of that stream.
    pub fn forget(&mut self, stream: &str) {
        self.suspects.remove(stream);
        self.called_lost.remove(stream);
    }

    /// On another thread, because a disk may stall; what comes meanwhile is written after that.
    pub fn save(&mut self, directory: &HeldDirectory) {
        if self.saving.is_some() || self.saved.as_ref() == Some(&self.ledger) {
            return;
        }
        let Ok(bytes) = serde_json::to_vec(&self.ledger) else { return };
        let store = directory.in_hand();
        // What is missing must outlive a power cut; what is there is as fresh as the messages, which
        // are not forced to disk either.
        let for_good = self.saved.as_ref().is_none_or(|saved| saved.losses != self.ledger.losses);
        let saving = spawn_blocking(move || {
            let path = acknowledgement::ledger_file(store.as_ref());
            let written = write_atomically(&path, &bytes).and_then(|()| match for_good {
                true => std::fs::File::open(&path)?.sync_all(),
                false => Ok(()),
            });
            if let Err(error) = &written {
                // A disk that is full is told by who watches it.
                tracing::debug!("cannot write {}: {error}", path.display());
            }
            written.is_ok()
        });
        self.written = Some(self.ledger.clone());
        self.saving = Some(saving);
    }
}
