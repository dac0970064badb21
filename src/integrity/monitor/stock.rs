//! The time in which no server runs: signs of life and an account of the files before it, and what is
//! found after it.

use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::files::write_atomically;
use crate::integrity::acknowledgement;
use crate::integrity::handle::IntegrityHandle;
use crate::integrity::inventory::{self, Inventory};
use crate::integrity::ledger::IntegrityLedger;
use crate::integrity::view::log_loss;

impl IntegrityHandle {
    /// Writes down what the server has left, once it is gone for good.
    pub async fn write_down(&self, patience: Duration) {
        let store = self.directory.in_hand();
        let work = spawn_blocking(move || inventory::write_down(store.as_ref()));
        let written = tokio::time::timeout(patience, work).await;
        if !matches!(written, Ok(Ok(Ok(())))) {
            tracing::debug!("what the server left is not written down");
        }
    }
}

/// Finds out what has happened to the files since the last server, before the next one changes them.
pub(super) fn take_stock(store: &Path, clustered: bool, ledger: &mut IntegrityLedger) {
    if !clustered {
        let now = Inventory::of(store);
        let on_disk = ledger.baselines.iter().filter(|(_, baseline)| baseline.config.terms.is_on_disk);
        let known: Vec<_> = on_disk.map(|(name, _)| name.as_str()).collect();
        let meanwhile = inventory::meanwhile(store, &known, &now);
        for loss in ledger.note_meanwhile(meanwhile, &now) {
            log_loss(&loss);
        }
        // A start that is killed must not take what it has found with it.
        let written =
            serde_json::to_vec(ledger).map(|text| write_atomically(&acknowledgement::ledger_file(store), &text));
        if !matches!(written, Ok(Ok(()))) {
            tracing::debug!("what was found about the store is not written down");
        }
    }
    inventory::beat(store);
    inventory::forget(store);
}
