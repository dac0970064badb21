//! What the server prints, from its pipe to all who need it.

use std::future;
use std::io;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::broadcast;
use tokio::task::spawn_blocking;

use super::log_file::LogFile;
use super::output::{Lines, Notice, Piece, Recent, ServerLine};
use crate::logging::Log;

/// Time for the last lines of a server to reach the log file.
const LAST_LINES: Duration = Duration::from_millis(250);

/// What is read at most of a server that has ended.
const MAX_REMAINDER: usize = 1 << 20;

/// The output of the server that runs, or has run last.
pub struct ServerOutput {
    /// Until it has said all.
    pipe: Option<pipe::Receiver>,
    lines: Lines,
    sink: Sink,
}

struct Sink {
    log: Log,
    log_file: Option<LogFile>,
    recent: Recent,
    notices: broadcast::Sender<Notice>,
    /// The server has begun to start: it accepts its configuration.
    announced: bool,
}

impl ServerOutput {
    pub fn new(log: Log, log_file: Option<LogFile>, notices: broadcast::Sender<Notice>) -> Self {
        let sink = Sink { log, log_file, recent: Recent::default(), notices, announced: false };
        Self { pipe: None, lines: Lines::default(), sink }
    }

    /// Another server prints from now on.
    pub fn begin(&mut self, pipe: Option<pipe::Receiver>) {
        (self.pipe, self.lines) = (pipe, Lines::default());
    }

    /// Forgets the server before, as the next one is about to be launched.
    pub fn forget(&mut self) {
        self.sink.recent.clear();
        self.sink.announced = false;
    }

    /// The next bytes; waits for ever where none can come.
    pub async fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        use tokio::io::AsyncReadExt;
        match &mut self.pipe {
            Some(pipe) => pipe.read(chunk).await,
            None => future::pending().await,
        }
    }

    /// Takes what [`Self::read`] gave.
    pub fn take(&mut self, count: io::Result<usize>, chunk: &[u8]) {
        let sink = &mut self.sink;
        match count {
            Ok(count) if count > 0 => self.lines.push(&chunk[..count], |piece| sink.piece(piece)),
            // The end of the stream, or a broken pipe, which means the same.
            _ => {
                self.lines.finish(|piece| sink.piece(piece));
                self.pipe = None;
            }
        }
    }

    /// Takes what a server that has ended left in the pipe. Read from the descriptor itself: the
    /// runtime may not have noticed yet that there is something.
    pub fn take_rest(&mut self) {
        let Some(Ok(descriptor)) = self.pipe.take().map(pipe::Receiver::into_nonblocking_fd) else { return };
        let mut rest = std::fs::File::from(descriptor);
        let mut chunk = [0u8; 4096];
        // More than a pipe holds comes from somebody who still writes.
        for _ in 0..MAX_REMAINDER / chunk.len() {
            let count = io::Read::read(&mut rest, &mut chunk);
            let more = matches!(count, Ok(count) if count > 0);
            self.take(count, &chunk);
            if !more {
                return;
            }
        }
    }

    /// Whether the server has begun to start.
    pub fn is_announced(&self) -> bool {
        self.sink.announced
    }

    /// Whether its last lines say that a port is taken.
    pub fn names_taken_port(&self) -> bool {
        self.sink.recent.names_taken_port()
    }

    pub fn last_lines(&self) -> Vec<String> {
        self.sink.recent.lines().map(str::to_owned).collect()
    }

    pub fn reopen_logs(&self) {
        match &self.sink.log_file {
            Some(log_file) => {
                log_file.reopen();
                tracing::info!("log file reopened");
            }
            None => tracing::info!("there is no log file to reopen: NATS_LOG_FILE is not set"),
        }
    }

    /// Has the log file written, which ends with that.
    pub async fn flush(&mut self) {
        if let Some(log_file) = self.sink.log_file.take() {
            // It may wait for a disk, and others still have something to say.
            let _ = spawn_blocking(move || log_file.flush(LAST_LINES)).await;
        }
    }
}

impl Sink {
    /// The file gets lines of any length; for all else their beginning is enough.
    fn piece(&mut self, piece: Piece<&str>) {
        if let Some(log_file) = &self.log_file {
            log_file.write(&piece);
        }
        if piece.begins {
            self.line(piece.text);
        }
    }

    fn line(&mut self, line: &str) {
        let parsed = ServerLine::parse(line);
        if !parsed.message.is_empty() {
            self.log.foreign(parsed.level, "nats-server", parsed.message);
        }
        self.recent.push(line);
        if let Some(notice) = Notice::of(&parsed) {
            self.announced |= notice == Notice::Announced;
            // Without a reader nobody needs to know.
            let _ = self.notices.send(notice);
        }
    }
}
