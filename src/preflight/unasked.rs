use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::start_error::StartError;
use super::store::{Store, ask};
use crate::domain::Generation;
use crate::supervisor::{ExecutableError, Reaper, Snapshot, State};

/// A nats-server that is launched over a store that nobody has written, before its version is known. It is
/// asked for that when it has been taken into service, or fails to be.
pub struct Unasked {
    executable: PathBuf,
    store: Arc<Store>,
    reaper: Reaper,
}

/// How far the question stands back behind the first clients.
const NICENESS: i32 = 5;
/// The server that is launched unasked.
const FIRST: Generation = Generation(1);

impl Unasked {
    pub(super) fn new(executable: &Path, store: &Arc<Store>, reaper: &Reaper) -> Self {
        Self { executable: executable.to_owned(), store: store.clone(), reaper: reaper.clone() }
    }

    /// Asks in its time; the answer is an error where the server must not go on.
    pub async fn ask(self, mut snapshots: watch::Receiver<Snapshot>) -> Result<(), StartError> {
        let is_over = |snapshot: &Snapshot| match snapshot.state {
            State::Preparing { next: generation, .. }
            | State::Starting { generation }
            | State::Provisioning { generation } => generation != FIRST,
            _ => true,
        };
        // Without a supervisor it is over as well.
        let state = snapshots.wait_for(is_over).await.map(|snapshot| snapshot.state.clone());
        if state.as_ref().is_ok_and(|state| state.is_stopping() && !matches!(state, State::Failed(_))) {
            return Ok(());
        }
        let was_in_service = state.is_ok_and(|state| state.is_in_use());
        let (answer, answered) = oneshot::channel();
        let work = move || {
            let _ = rustix::process::nice(NICENESS);
            // Nobody may wait any more.
            let _ = answer.send(self.judge());
        };
        let asking = std::thread::Builder::new().name("ask-version".into()).spawn(work);
        match (asking, answered.await) {
            (Ok(_), Ok(Err(StartError::Executable(ExecutableError::NotRunnable { reason, .. })))) if was_in_service => {
                // A machine that is too busy; the next start asks again.
                tracing::debug!("nats-server does not tell its version: {reason}");
                Ok(())
            }
            (Ok(_), Ok(answer)) => answer,
            // Without a thread the next start asks.
            _ => Ok(()),
        }
    }

    fn judge(&self) -> Result<(), StartError> {
        let asked = ask(&self.executable, &self.reaper)?;
        self.store.admit(&asked)?;
        self.store.note_version(asked.version);
        Ok(())
    }
}
