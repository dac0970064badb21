//! The record of what was acknowledged, kept outside of the broker. A message counts as
//! acknowledged once its line is on disk.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::message::Identity;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Acknowledged {
    pub message: Identity,
    /// Where the server says it is; 0 where nobody said so.
    pub sequence: u64,
}

/// Lines that come within this time share one fsync.
const GROUP: Duration = Duration::from_millis(50);

pub struct Ledger {
    path: PathBuf,
    entries: Sender<Acknowledged>,
    writer: JoinHandle<()>,
}

impl Ledger {
    pub fn create(path: PathBuf) -> Self {
        let file = File::create(&path).unwrap();
        let (entries, received) = channel();
        let writer = std::thread::spawn(move || write(file, &received));
        Self { path, entries, writer }
    }

    pub fn entries(&self) -> Sender<Acknowledged> {
        self.entries.clone()
    }

    /// What is on disk, once everything handed over is. The other senders must be gone.
    pub fn close(self) -> Vec<Acknowledged> {
        drop(self.entries);
        self.writer.join().unwrap();
        read(&self.path)
    }
}

fn write(file: File, entries: &Receiver<Acknowledged>) {
    let mut file = BufWriter::new(file);
    while let Ok(first) = entries.recv() {
        let sync_at = Instant::now() + GROUP;
        let mut next = Ok(first);
        while let Ok(Acknowledged { message: Identity { producer, n }, sequence }) = next {
            writeln!(file, "{producer} {n} {sequence}").unwrap();
            next = entries.recv_timeout(sync_at.saturating_duration_since(Instant::now()));
        }
        file.flush().unwrap();
        file.get_ref().sync_data().unwrap();
        if next == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

fn read(path: &Path) -> Vec<Acknowledged> {
    let text = fs::read_to_string(path).unwrap();
    let number = |field: Option<&str>| field.unwrap().parse::<u64>().unwrap();
    let entry = |line: &str| {
        let mut fields = line.split(' ');
        let message = Identity { producer: number(fields.next()) as u16, n: number(fields.next()) };
        Acknowledged { message, sequence: number(fields.next()) }
    };
    text.lines().map(entry).collect()
}

#[test]
fn what_was_recorded_is_read_back_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::create(directory.path().join("ledger"));
    let entry = |n| Acknowledged { message: Identity { producer: 2, n }, sequence: n + 1 };
    let entries = ledger.entries();
    for n in 0..1000 {
        entries.send(entry(n)).unwrap();
    }
    drop(entries);
    assert_eq!(ledger.close(), (0..1000).map(entry).collect::<Vec<_>>());
}
