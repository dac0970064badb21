//! The streams of a server: bringing them in place, and keeping them so.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_nats::Client;
use futures_util::FutureExt;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::{BringUp, FIRST_PAUSE, LAST_APPLY_PAUSE, LAST_PAUSE, LOOK_DEADLINE, REQUEST_DEADLINE};
use crate::domain::Generation;
use crate::errors::{in_one_line, in_one_sentence};
use crate::nats::{Connection, JetStream};
use crate::settings::ReadFile;
use crate::spans::{self, Kind};
use crate::streams::apply::Done;
use crate::streams::{Applied, ApplyError, Desired, Remark, apply};
use crate::supervisor::ConditionKind;

/// For the files that say which streams should be.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// For a look at the directory of the store.
const STORE_DEADLINE: Duration = Duration::from_secs(2);

impl BringUp {
    /// Until the streams are in place, however long that takes.
    pub(super) async fn provision(&mut self, generation: Generation, connection: &Connection) {
        let Some(recorder) = spans::recorder() else { return self.bring_in_place(generation, connection).await };
        let launch = self.is_launching(generation).then(|| recorder.launch(generation.0));
        let span = recorder.begin(launch, "provision", Kind::Internal);
        span.scope(self.bring_in_place(generation, connection)).await;
        span.end();
    }

    async fn bring_in_place(&mut self, generation: Generation, connection: &Connection) {
        let refused = connection.refused();
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let reason = match self.apply(&connection.client, Prune::AsDeclared).await {
                Ok(_) => return,
                Err(ProvisionError::Transient(reason)) if started.elapsed() < self.patience() && !refused.is_any() => {
                    tracing::debug!("trying again: {reason}");
                    sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                    continue;
                }
                Err(ProvisionError::Transient(reason) | ProvisionError::Permanent(reason)) => reason,
            };
            self.handle.report_failed(generation, ConditionKind::Service, refused.explain(reason)).await;
            sleep(pause).await;
            pause = (pause * 2).min(LAST_APPLY_PAUSE);
        }
    }

    /// Looks again and again whether the streams are as they should be, for ever.
    pub(super) async fn repair_drift(&mut self, generation: Generation, client: &Client, interval: Duration) {
        let (mut has_failed, mut looking) = (false, None);
        self.drift.send_if_modified(|drift| drift.suspended.take().is_some());
        loop {
            sleep(interval).await;
            let desired = self.desired.borrow().clone();
            // What an operator may have applied by hand is not to be undone.
            if let Some(reason) = changed_file(&desired.files, &mut looking).await {
                self.suspend(reason);
                continue;
            }
            self.drift.send_if_modified(|drift| drift.suspended.take().is_some());
            match self.apply(client, Prune::Never).await {
                Ok(done) => {
                    if let Some(last) = done.last() {
                        let last = (SystemTime::now(), format!("stream {} {}", last.stream, last.what));
                        self.drift.send_modify(|drift| {
                            drift.repaired += done.len() as u64;
                            drift.last = Some(last);
                        });
                        tracing::warn!("drift repaired: {} changes", done.len());
                        self.recheck.notify_one();
                    }
                    if std::mem::take(&mut has_failed) {
                        self.handle.report_ok(generation, ConditionKind::Service).await;
                    }
                }
                // Whether the server answers is for others to say.
                Err(ProvisionError::Transient(reason)) => tracing::debug!("cannot look for drift: {reason}"),
                Err(ProvisionError::Permanent(reason)) => {
                    self.handle.report_failed(generation, ConditionKind::Service, reason).await;
                    has_failed = true;
                }
            }
        }
    }

    fn suspend(&self, reason: String) {
        if self.drift.borrow().suspended.as_ref() != Some(&reason) {
            tracing::warn!("{reason}");
            self.drift.send_modify(|drift| drift.suspended = Some(reason));
        }
    }

    /// Makes the streams as they should be, as far as that goes; what was done, or why one of them
    /// cannot do its work.
    async fn apply(&mut self, client: &Client, prune: Prune) -> Result<Vec<Done>, ProvisionError> {
        let mut desired = self.desired.borrow().clone();
        if desired.prune && prune == Prune::Never {
            Arc::make_mut(&mut desired).prune = false;
        }
        self.integrity.declare(desired.streams.iter().map(|stream| stream.name.clone())).await;
        if self.settings.may_be_clustered() {
            // Without a leader nothing answers, and this is the question with the shortest deadline.
            let probe = JetStream::new(client.clone(), REQUEST_DEADLINE).answers().await;
            probe.map_err(|error| ProvisionError::Transient(error.to_string()))?;
        }
        self.store_is_there().await?;
        let jetstream = JetStream::new(client.clone(), LOOK_DEADLINE);
        let integrity = self.integrity.clone();
        let deleting = |stream: String| {
            let integrity = integrity.clone();
            async move { integrity.will_delete(stream).await }.boxed()
        };
        let applied = match apply(&jetstream, &desired, &deleting).await {
            Ok(applied) => applied,
            Err(error) if error.is_transient() => return Err(ProvisionError::Transient(in_one_line(&error))),
            Err(error) => return Err(ProvisionError::Permanent(in_one_line(&error))),
        };
        let done = applied.done.clone();
        self.judge(applied, &desired).map(|()| done)
    }

    /// Refuses to make streams in what stands in the place of the store: nats-server writes by its path,
    /// and who watches the disk may not have noticed yet.
    async fn store_is_there(&mut self) -> Result<(), ProvisionError> {
        let Some(store) = self.store.clone() else { return Ok(()) };
        match self.at_store.run(STORE_DEADLINE, move || store.is_there()).await {
            Some(is_there) => is_there.map_err(ProvisionError::Permanent),
            None => {
                let seconds = STORE_DEADLINE.as_secs();
                Err(ProvisionError::Transient(format!("the disk of the store does not answer within {seconds} s")))
            }
        }
    }

    fn judge(&mut self, applied: Applied, desired: &Desired) -> Result<(), ProvisionError> {
        let unfit: Vec<_> = desired.streams.iter().filter(|stream| !applied.serves(stream)).collect();
        let transient = applied.failed.iter().any(ApplyError::is_transient) || applied.some_do_not_answer;
        let failed = applied.failed.into_iter().map(|error| in_one_line(&error));
        let of_streams = |of: Vec<(String, Remark)>| -> Vec<String> {
            of.into_iter().map(|(stream, remark)| format!("stream {stream}: {remark}")).collect()
        };
        let (conflicts, kept) = applied.remarks.into_iter().partition(|(_, remark)| remark.is_conflict());
        let mut reasons = distinct(failed.chain(of_streams(conflicts)));
        self.drift.send_if_modified(|drift| {
            let differs = drift.remaining != reasons;
            drift.remaining.clone_from(&reasons);
            differs
        });
        reasons.extend(of_streams(kept));
        if !unfit.is_empty() {
            let names = unfit.iter().map(|stream| format!("stream {} is not in place", stream.name));
            // What stands in the way says more than that something does.
            let sentences: Vec<_> = if reasons.is_empty() { names.collect() } else { reasons };
            let more = sentences.len().saturating_sub(MOST_NAMED);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            let reason = in_one_sentence(sentences.iter().take(MOST_NAMED).map(String::as_str)) + &more;
            return Err(if transient { ProvisionError::Transient(reason) } else { ProvisionError::Permanent(reason) });
        }
        // What was told before is no news.
        for reason in reasons.iter().filter(|reason| !self.told.contains(reason)) {
            tracing::warn!("{reason}");
        }
        self.told = reasons;
        Ok(())
    }
}

/// Each of them once, as they come.
fn distinct(sentences: impl Iterator<Item = String>) -> Vec<String> {
    let mut told = vec![];
    for sentence in sentences {
        if !told.contains(&sentence) {
            told.push(sentence);
        }
    }
    told
}

/// Whether streams that are not declared any more may be deleted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prune {
    AsDeclared,
    /// Another node of a cluster may have been told about them already.
    Never,
}

/// Why a stream cannot do its work.
enum ProvisionError {
    /// A little later it may.
    Transient(String),
    Permanent(String),
}

/// Why drift cannot be repaired: one of the files is not what was read, or nobody knows. They are read
/// on a thread of their own, because a disk may hang; `looking` is one that has not come back.
async fn changed_file(files: &[ReadFile], looking: &mut Option<JoinHandle<Option<PathBuf>>>) -> Option<String> {
    if files.is_empty() {
        return None;
    }
    let mut look = looking.take().unwrap_or_else(|| {
        let files = files.to_vec();
        spawn_blocking(move || files.into_iter().find(ReadFile::has_changed).map(|file| file.path))
    });
    match timeout(READ_DEADLINE, &mut look).await {
        Ok(changed) => {
            let path = changed.ok().flatten()?;
            Some(format!("{} has changed: drift is not repaired until SIGHUP has it taken over", path.display()))
        }
        Err(_) => {
            *looking = Some(look);
            let paths: Vec<_> = files.iter().map(|file| file.path.display().to_string()).collect();
            let seconds = READ_DEADLINE.as_secs();
            Some(format!("{} cannot be read within {seconds} s: drift is not repaired until then", paths.join(", ")))
        }
    }
}

/// Streams and reasons named in one sentence at most.
const MOST_NAMED: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[tokio::test(start_paused = true)]
    async fn files_on_a_disk_that_hangs_suspend_the_repair_until_they_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.yml");
        std::fs::write(&path, "streams: {A: {subjects: [a]}}").unwrap();
        let pairs = [("STREAMS_FILE", path.to_str().unwrap())];
        let files = Settings::load(&pairs, &[]).unwrap().settings.streams.files;
        let (comes_back, hangs) = tokio::sync::oneshot::channel::<()>();
        let mut looking = Some(tokio::spawn(async move {
            let _ = hangs.await;
            None
        }));
        for _ in 0..2 {
            let reason = changed_file(&files, &mut looking).await.unwrap();
            assert!(reason.contains("s.yml cannot be read within 5 s: drift is not repaired"), "{reason}");
            assert!(looking.is_some(), "nobody asks a disk again that has not answered");
        }
        comes_back.send(()).unwrap();
        assert_eq!(changed_file(&files, &mut looking).await, None);
        assert!(looking.is_none());
        std::fs::write(&path, "streams: {}").unwrap();
        let reason = changed_file(&files, &mut looking).await.unwrap();
        assert!(reason.contains("s.yml has changed"), "{reason}");
    }
}
