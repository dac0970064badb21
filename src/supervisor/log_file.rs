//! nats-server's lines in a file of their own, rotated by size. A thread writes, so that a disk
//! that stalls costs lines, not progress.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::output::Piece;
use crate::line_queue::LineQueue;
use crate::settings::ServerLog;

/// A handle to the thread that writes.
pub struct LogFile(LineQueue<Order>);

enum Order {
    Write(Piece),
    Reopen,
}

impl LogFile {
    /// Opens the file for appending and starts the thread.
    pub fn open(settings: &ServerLog) -> io::Result<Self> {
        let mut rotation = Rotation::open(settings)?;
        let mut failed = false;
        Ok(Self(LineQueue::start("server-log", move |order| {
            let result = match order {
                Order::Write(piece) => rotation.write(&piece),
                Order::Reopen => rotation.reopen(),
            };
            if let (Err(error), false) = (&result, failed) {
                let path = rotation.path.display();
                tracing::warn!("cannot write nats-server's lines to {path} as meant: {error}");
            }
            failed = result.is_err();
        })))
    }

    /// What the thread has no room for is dropped: the log stream has its beginning, too.
    pub fn write(&self, piece: &Piece<&str>) {
        let Piece { text, begins, ends } = *piece;
        self.0.push(Order::Write(Piece { text: text.to_owned(), begins, ends }));
    }

    /// Goes on in a new file after somebody else has renamed the old one.
    pub fn reopen(&self) {
        self.0.push(Order::Reopen);
    }

    /// Waits until everything written so far is in the file, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        self.0.flush(patience);
    }
}

struct Rotation {
    path: PathBuf,
    max_size: u64,
    max_files: usize,
    file: File,
    size: u64,
    /// The end of a line is still to come.
    open: bool,
}

impl Rotation {
    fn open(settings: &ServerLog) -> io::Result<Self> {
        if let Some(directory) = settings.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = open_for_append(&settings.path)?;
        let size = file.metadata()?.len();
        let max_size = settings.max_size.bytes();
        Ok(Self { path: settings.path.clone(), max_size, max_files: settings.max_files, file, size, open: false })
    }

    fn write(&mut self, piece: &Piece) -> io::Result<()> {
        let mut rotated = Ok(());
        let mut bytes = Vec::with_capacity(piece.text.len() + 2);
        if piece.begins {
            // The end of the line before was dropped.
            if std::mem::take(&mut self.open) {
                bytes.push(b'\n');
            }
            // A line stays in one file.
            if self.size > 0 && self.size + piece.text.len() as u64 + 1 > self.max_size {
                // A directory that does not let us rename must not cost the lines.
                rotated = self.rotate();
            }
        }
        bytes.extend_from_slice(piece.text.as_bytes());
        if piece.ends {
            bytes.push(b'\n');
        }
        self.open = !piece.ends;
        self.file.write_all(&bytes)?;
        self.size += bytes.len() as u64;
        rotated
    }

    /// `nats.log` becomes `nats.log.1`, that becomes `nats.log.2`, and so on; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.max_files).rev() {
            let older = numbered(&self.path, number);
            let newer = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
            match fs::rename(newer, older) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.max_files == 1 {
            fs::remove_file(&self.path)?;
        }
        self.reopen()
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = open_for_append(&self.path)?;
        self.size = self.file.metadata()?.len();
        Ok(())
    }
}

fn open_for_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ByteSize;

    fn write(max_files: usize, lines: usize) -> Vec<(String, String)> {
        let directory = tempfile::tempdir().unwrap();
        let settings =
            ServerLog { path: directory.path().join("logs/nats.log"), max_size: ByteSize::new(20), max_files };
        let log = LogFile::open(&settings).unwrap();
        for number in 0..lines {
            log.write(&whole(&format!("line {number:03}")));
        }
        log.flush(Duration::from_secs(10));
        let mut files: Vec<_> = fs::read_dir(directory.path().join("logs"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), fs::read_to_string(e.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    fn whole(text: &str) -> Piece<&str> {
        Piece { text, begins: true, ends: true }
    }

    #[test]
    fn a_long_line_comes_out_whole_and_in_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nats.log");
        let settings = ServerLog { path: path.clone(), max_size: ByteSize::new(10), max_files: 2 };
        let log = LogFile::open(&settings).unwrap();
        log.write(&whole("short"));
        log.write(&Piece { text: "the first of ", begins: true, ends: false });
        log.write(&Piece { text: "many pieces of ", begins: false, ends: false });
        log.write(&Piece { text: "a line", begins: false, ends: true });
        log.flush(Duration::from_secs(10));
        let read = |path| fs::read_to_string(path).unwrap();
        assert_eq!(read(numbered(&path, 1)), "short\n");
        assert_eq!(read(path.clone()), "the first of many pieces of a line\n");
        // Its end was dropped.
        log.write(&Piece { text: "x", begins: true, ends: false });
        log.write(&whole("y"));
        log.flush(Duration::from_secs(10));
        assert_eq!(read(path), "x\ny\n");
    }

    fn file(name: &str, text: &str) -> (String, String) {
        (name.into(), text.into())
    }

    #[test]
    fn rotates_by_size_and_keeps_so_many() {
        assert_eq!(
            write(3, 7),
            [
                file("nats.log", "line 006\n"),
                file("nats.log.1", "line 004\nline 005\n"),
                file("nats.log.2", "line 002\nline 003\n"),
            ]
        );
    }

    #[test]
    fn reopened_it_writes_to_a_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nats.log");
        let settings = ServerLog { path: path.clone(), max_size: ByteSize::new(1 << 20), max_files: 5 };
        let log = LogFile::open(&settings).unwrap();
        log.write(&whole("before"));
        log.flush(Duration::from_secs(10));
        let renamed = directory.path().join("renamed");
        fs::rename(&path, &renamed).unwrap();
        log.reopen();
        log.write(&whole("after"));
        log.flush(Duration::from_secs(10));
        let read = |path| fs::read_to_string(path).unwrap();
        assert_eq!((read(renamed), read(path)), ("before\n".into(), "after\n".into()));
    }

    #[test]
    fn a_single_file_starts_over() {
        assert_eq!(write(1, 3), [file("nats.log", "line 002\n")]);
    }
}
