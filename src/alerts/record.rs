//! What outlives the program: alerts that are open, and what receivers have not taken yet.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alert::Notification;
use super::ledger::Written;
use super::sinks::SinkKind;
use crate::files::{HeldDirectory, write_atomically};
use crate::off_thread::OffThread;
use crate::store_layout::ALERTS;

/// A disk that takes longer hangs, and nothing waits for it.
const DEADLINE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    pub ledger: Written,
    /// In the order in which they are to be taken.
    pub waiting: BTreeMap<SinkKind, Vec<Notification>>,
}

/// The file with the record, in the directory of the store.
pub struct RecordFile {
    directory: Arc<HeldDirectory>,
    reading: OffThread<io::Result<Record>>,
    writing: OffThread<io::Result<()>>,
    /// What it holds; [`None`] where that is not known.
    held: Option<Record>,
    has_failed: bool,
}

impl RecordFile {
    pub fn new(directory: Arc<HeldDirectory>) -> Self {
        let (reading, writing) = (OffThread::default(), OffThread::default());
        Self { directory, reading, writing, held: None, has_failed: false }
    }

    fn path(directory: &HeldDirectory) -> PathBuf {
        directory.in_hand().as_ref().join(ALERTS)
    }

    /// What it holds; nothing where it is not there or cannot be read.
    pub async fn read(&mut self) -> Record {
        let directory = self.directory.clone();
        let read = move || {
            let bytes = match std::fs::read(Self::path(&directory)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
                bytes => bytes?,
            };
            serde_json::from_slice(&bytes).map_err(io::Error::from)
        };
        let reason = match self.reading.run(DEADLINE, read).await {
            Some(Ok(record)) => {
                self.held = Some(record.clone());
                return record;
            }
            Some(Err(error)) => error.to_string(),
            None => format!("no answer within {} s", DEADLINE.as_secs()),
        };
        tracing::warn!("cannot read {ALERTS} in the store: {reason}; alerts that are open are sent once more");
        Record::default()
    }

    /// Makes it hold that; false where that has to be tried again.
    pub async fn write(&mut self, record: &Record) -> bool {
        if self.held.as_ref() == Some(record) {
            return true;
        }
        // A disk that has not answered yet is not asked again.
        if self.writing.is_waiting() {
            return false;
        }
        let (directory, bytes) = (self.directory.clone(), serde_json::to_vec(record).unwrap_or_default());
        let write = move || write_atomically(&Self::path(&directory), &bytes);
        let failure = match self.writing.run(DEADLINE, write).await {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.to_string()),
            None => Some(format!("no answer within {} s", DEADLINE.as_secs())),
        };
        self.held = failure.is_none().then(|| record.clone());
        // Once, until it works again. Where no store was made there is nothing that could be mended.
        if let Some(reason) = &failure
            && !self.has_failed
        {
            tracing::warn!(
                "cannot write {ALERTS} to the store: {reason}; until it can be, a restart sends alerts that are open once more"
            );
        }
        self.has_failed = failure.is_some();
        failure.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        serde_json::from_str(text).unwrap()
    }

    #[tokio::test]
    async fn holds_what_was_written_and_survives_what_it_cannot_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = || RecordFile::new(Arc::new(HeldDirectory::hold(directory.path().into())));
        assert_eq!(file().read().await, Record::default());
        let written = record(r#"{"ledger":{"boot":"b","sent":{"f":5}},"waiting":{"slack":[],"email":[]}}"#);
        let mut first = file();
        assert!(first.write(&written).await);
        assert_eq!(file().read().await, written);
        std::fs::remove_file(directory.path().join(ALERTS)).unwrap();
        assert!(first.write(&written).await);
        assert_eq!(file().read().await, Record::default(), "what it holds is not written again");
        std::fs::write(directory.path().join(ALERTS), r#"{"ledger": 7}"#).unwrap();
        assert_eq!(file().read().await, Record::default());
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_no_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = RecordFile::new(Arc::new(HeldDirectory::hold(directory.path().join("none"))));
        assert_eq!(file.read().await, Record::default());
        assert!(!file.write(&record(r#"{"ledger":{"boot":"b"}}"#)).await);
    }
}
