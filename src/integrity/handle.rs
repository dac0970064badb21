//! How others reach the task that keeps the ledger.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::commands::{Basis, Command, Compared, Knowledge, Look};
use super::deletions;
use super::losses::LossKind;
use super::ranges::Ranges;
use super::restores::Restore;
use super::suspected_losses::SuspectedLosses;
use super::view::{Integrity, Reading};
use crate::domain::Generation;
use crate::files::HeldDirectory;
use crate::nats::{ApiError, JetStream, SeenStream, SeenStreams, StreamInfo};

/// For an answer. The task itself waits for nobody but the supervisor, and for a deletion under way.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Sends what was seen to the task that keeps the ledger, and watches what is missing. Once that task has
/// ended the program stops, and nothing is known any more.
#[derive(Clone)]
pub struct IntegrityHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) view: watch::Receiver<Integrity>,
    /// Something has happened that is worth a look before its time.
    pub(super) look_soon: Arc<Notify>,
    pub(super) store: PathBuf,
    /// The store that was used last, for what is written there: another one may stand in its place.
    pub(super) directory: Arc<HeldDirectory>,
    pub(super) clustered: bool,
}

/// Why a look at the streams has come to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("nobody compares what the streams hold: the broker is stopping, or does not get on")]
    Unheard,
}

impl IntegrityHandle {
    /// Says which streams must exist from now on.
    pub async fn declare(&self, streams: impl Iterator<Item = String>) {
        self.send(Command::Declare(streams.collect())).await;
    }

    /// A stream is about to be deleted because it is not declared any more: the next look forgets it.
    pub async fn will_delete(&self, stream: String) {
        self.send(Command::WillDelete(stream)).await;
    }

    pub fn watch(&self) -> watch::Receiver<Integrity> {
        self.view.clone()
    }

    /// Whether the last reading came to no end.
    pub fn has_failed_to_read(&self) -> bool {
        matches!(self.view.borrow().reading, Reading::Failed { .. })
    }

    /// Waits until something has happened that is worth a look before its time.
    pub async fn wants_a_look(&self) {
        self.look_soon.notified().await;
    }

    pub(super) fn store(&self) -> &Path {
        &self.store
    }

    pub(super) fn is_clustered(&self) -> bool {
        self.clustered
    }

    /// Looks at every stream of that server, has it compared with what it held before, and gives what is
    /// missing, as one sentence, until it is acknowledged. The supervisor has heard of it by then.
    pub async fn check_streams(
        &self,
        jetstream: &JetStream,
        generation: Generation,
    ) -> Result<Option<String>, LookError> {
        loop {
            let Basis { looks, known, doubtful, heard } = self.ask(Command::Begin).await.ok_or(LookError::Unheard)?;
            let streams = with_those_not_listed(jetstream, jetstream.see_streams().await?, known).await;
            let resolved = SuspectedLosses::resolve(jetstream, &streams, doubtful).await;
            let version = jetstream.server_version();
            let mut look =
                Box::new(Look { generation, version, basis: looks, streams, resolved, heard, is_detailed: false });
            loop {
                let compared = self.ask(|answer| Command::Compare(look, answer)).await;
                match compared.ok_or(LookError::Unheard)? {
                    Compared::Done(missing) => return Ok(missing),
                    Compared::Again => break,
                    Compared::Details(of, names) => {
                        look = of;
                        ask_for_what_was_lost(jetstream, &mut look.streams, &names).await?;
                        look.is_detailed = true;
                    }
                }
            }
        }
    }

    /// Deletes a message that this program has published, so that the next look does not take that for
    /// a loss, which may come after a restart.
    pub async fn take_back(&self, jetstream: &JetStream, stream: &str, seq: u64) {
        let (end, ends) = oneshot::channel();
        // Without the task there is no look that could miss it.
        let _ = self.ask(|heard| Command::Deleting { ends, heard }).await;
        if let Err(error) = jetstream.delete_message(stream, seq).await {
            // It may be gone all the same.
            tracing::warn!(stream, seq, "cannot delete the message that was written as a proof: {error}");
        }
        let _ = end.send(stream.to_owned());
    }

    /// Takes in what the server tells about a request to its API.
    pub async fn hear(&self, advisory: &[u8]) {
        if let Some((stream, heard)) = deletions::heard_in(advisory) {
            self.send(Command::Heard(stream, heard)).await;
        }
    }

    /// From now on it is heard of restores.
    pub async fn listens_to_restores(&self) {
        self.send(Command::Listening).await;
    }

    /// Takes in what the server tells about the restore of a stream.
    pub async fn hear_restore(&self, advisory: &[u8]) {
        if let Some(restore) = Restore::heard_in(advisory) {
            self.send(Command::Restore(restore)).await;
        }
    }

    /// Takes in how many messages a server has counted in a stream, before any client could change that.
    pub async fn note_counted(&self, stream: String, messages: u64) {
        self.send(Command::Counted { stream, messages }).await;
    }

    /// What is known about a stream; nothing where nobody answers.
    pub(super) async fn about(&self, stream: &str) -> Knowledge {
        self.ask(|answer| Command::About(stream.to_owned(), answer)).await.unwrap_or_default()
    }

    /// A stream was made known again: it is the one that was seen, though it has just been created.
    pub(super) async fn note_made_anew(&self, info: StreamInfo) {
        self.send(Command::MadeAnew(Box::new(info))).await;
    }

    /// Notes what was found missing in some other way.
    pub(super) async fn note(&self, stream: &str, missing: LossKind) {
        self.send(Command::Note(stream.to_owned(), missing)).await;
    }

    /// Takes back that messages of a stream cannot be read, after they have been.
    pub(super) async fn note_readable(&self, stream: &str) {
        self.send(Command::Readable(stream.to_owned())).await;
    }

    /// Keeps what could not be read, to be read again from another server; nothing once that was done.
    pub(super) async fn suspect(&self, stream: &str, ranges: Ranges) {
        self.send(Command::Suspect(stream.to_owned(), ranges)).await;
    }

    pub(super) async fn show_reading(&self, reading: Reading) {
        let _ = self.ask(|seen| Command::Reading(reading, seen)).await;
    }

    /// Looks once more before the server is asked to stop, so that what is known is as fresh as can be.
    pub async fn take_leave(&self, jetstream: &JetStream, generation: Generation) {
        /// Nobody should wait for a server that hangs.
        const PATIENCE: Duration = Duration::from_millis(200);
        // Without an answer what was seen last has to do.
        let _ = timeout(PATIENCE, self.check_streams(jetstream, generation)).await;
    }

    /// Waits until what is known is on disk, at most `patience`.
    pub async fn flush(&self, patience: Duration) {
        let _ = timeout(patience, self.ask(Command::Flush)).await;
    }

    /// What nobody hears has nobody left whom it would concern.
    async fn send(&self, command: Command) {
        let _ = timeout(ANSWER_DEADLINE, self.commands.send(command)).await;
    }

    /// [`None`] where nobody answers.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.commands.send(command(answer)).await.ok()?;
            answered.await.ok()
        };
        timeout(ANSWER_DEADLINE, asked).await.ok().flatten()
    }
}

/// A list may leave streams out. Gone is what the server says to be gone; of others nothing is known.
async fn with_those_not_listed(jetstream: &JetStream, mut streams: SeenStreams, known: Vec<String>) -> SeenStreams {
    for name in left_out(&streams, known) {
        match jetstream.see_stream(&name).await {
            Ok(info) => streams.known.extend(info),
            Err(_) => streams.unknown.push(name),
        }
    }
    streams
}

fn left_out(streams: &SeenStreams, known: Vec<String>) -> BTreeSet<String> {
    let mut left_out: BTreeSet<_> = known.into_iter().collect();
    for name in streams.known.iter().map(SeenStream::name).chain(streams.unknown.iter().map(String::as_str)) {
        left_out.remove(name);
    }
    left_out
}

async fn ask_for_what_was_lost(
    jetstream: &JetStream,
    streams: &mut SeenStreams,
    names: &[String],
) -> Result<(), ApiError> {
    for info in streams.known.iter_mut().filter(|info| names.iter().any(|name| name == info.name())) {
        info.state.lost = match jetstream.stream_info_with_deleted(info.name()).await {
            Ok(detailed) => detailed.state.lost,
            // Its owner has just deleted it.
            Err(error) if error.is(ApiError::STREAM_NOT_FOUND) => None,
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_list_has_is_asked_for_by_name() {
        let info = serde_json::json!({ "config": { "name": "B" }, "state": {} });
        let streams = SeenStreams { known: vec![serde_json::from_value(info).unwrap()], unknown: vec!["C".into()] };
        let known = ["D", "C", "B", "A"].map(str::to_owned).to_vec();
        assert!(left_out(&streams, known).iter().eq(["A", "D"]));
    }
}
