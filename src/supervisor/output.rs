//! What nats-server prints, line by line.

use std::collections::VecDeque;

use tracing::Level;

/// One line that nats-server printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLine<'a> {
    pub level: Level,
    /// Without process id, time and level.
    pub message: &'a str,
}

impl<'a> ServerLine<'a> {
    /// Reads `[7] 2026/11/21 06:22:57.724291 [INF] message`, with or without the time. Lines of
    /// another form, such as a Go stack trace, are errors in full.
    pub fn parse(line: &'a str) -> Self {
        for (mark, level) in [
            ("[INF]", Level::INFO),
            ("[WRN]", Level::WARN),
            ("[ERR]", Level::ERROR),
            ("[FTL]", Level::ERROR),
            ("[DBG]", Level::DEBUG),
            ("[TRC]", Level::TRACE),
        ] {
            // The mark comes right after process id and time; further on it is part of a message.
            if let Some((before, message)) = line.split_once(mark)
                && is_prefix(before)
            {
                return Self { level, message: message.trim_start() };
            }
        }
        Self { level: Level::ERROR, message: line }
    }
}

/// A line that means something to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The server has accepted its configuration and begins to start.
    Announced,
    /// Clients can connect.
    Ready,
    /// A new configuration is in force.
    Reloaded,
    /// A new configuration was refused, and why.
    ReloadRefused(String),
    /// The store could not be written.
    StorageFailed(String),
    /// A route was refused: the node at its other end has the same name.
    NameTaken,
    /// A stream is there again with so many messages, and no client has come yet.
    Restored { stream: String, messages: u64 },
    /// In lame duck mode: what the server led has moved to other nodes, or had its time for that.
    HandedOver,
}

/// What the kernel says when a disk is full, broken, read-only or out of bounds.
const STORAGE_FAULTS: [&str; 5] = [
    "no space left on device",
    "read-only file system",
    "input/output error",
    "disk quota exceeded",
    "permission denied",
];

/// Whether an account of JetStream names what the kernel says of such a disk.
pub fn names_storage_fault(account: &str) -> bool {
    STORAGE_FAULTS.iter().any(|fault| account.contains(fault))
}

/// Whether a line of nats-server tells of a store that cannot be written. The kernel says the same of
/// connections, certificates and log files: so the line must be one of the store's own, by how nats-server
/// begins it or by a path below the directory that nats-server makes in its store.
fn is_of_failing_store(message: &str) -> bool {
    const OF_THE_STORE: [&str; 6] =
        ["JetStream ", "Filestore", "RAFT ", "Consumer '", "Stream '", "Critical write error"];
    const OF_CONNECTIONS: [&str; 5] = ["dial ", "connect: ", "listen ", "accept ", "bind: "];
    let own = OF_THE_STORE.iter().any(|beginning| message.starts_with(beginning)) || message.contains("/jetstream/");
    let fails = message.contains("Critical write error") || names_storage_fault(message);
    own && fails && !OF_CONNECTIONS.iter().any(|mark| message.contains(mark))
}

impl Notice {
    /// Of the lines that nats-server 2.10 to 2.15 print.
    pub fn of(line: &ServerLine) -> Option<Self> {
        match line.message {
            "Starting nats-server" => Some(Self::Announced),
            "Server is ready" => Some(Self::Ready),
            "Initiating JetStream Shutdown..." => Some(Self::HandedOver),
            // With the digest behind it from 2.11 on.
            message if message.starts_with("Reloaded server configuration") => Some(Self::Reloaded),
            message => {
                if let Some(reason) = message.strip_prefix("Failed to reload server configuration: ") {
                    return Some(Self::ReloadRefused(reason.to_owned()));
                }
                if let Some((stream, messages)) = restored(message) {
                    return Some(Self::Restored { stream: stream.to_owned(), messages });
                }
                if message.contains(" - rid:") && message.contains("Router connection closed: Duplicate Server Name") {
                    return Some(Self::NameTaken);
                }
                // Lines about a client hold words of its own.
                let of_client = [" - cid:", " - rid:", " - lid:", " - mid:", " - wid:"];
                let ours = !of_client.iter().any(|mark| message.contains(mark));
                let storage = ours && line.level == Level::ERROR && is_of_failing_store(message);
                storage.then(|| Self::StorageFailed(message.to_owned()))
            }
        }
    }
}

/// Reads `Restored 1,234 messages for stream '$G > A' in 3ms`, with the time from 2.11 on.
fn restored(message: &str) -> Option<(&str, u64)> {
    let (count, of) = message.strip_prefix("Restored ")?.split_once(" messages for stream '$G > ")?;
    let (stream, rest) = of.rsplit_once('\'')?;
    let is_whole = rest.is_empty() || rest.starts_with(" in ");
    Some((stream, count.replace(',', "").parse().ok()?)).filter(|_| is_whole)
}

fn is_prefix(text: &str) -> bool {
    text.starts_with('[') && text.bytes().all(|b| b.is_ascii_digit() || b"[] /:.+-Z".contains(&b))
}

/// The longest line that is handed out in one piece.
const MAX_LINE: usize = 16 * 1024;

/// A line, or a piece of one that is very long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<T = String> {
    pub text: T,
    /// The line begins with it.
    pub begins: bool,
    /// The line ends with it.
    pub ends: bool,
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
pub struct Lines {
    partial: Vec<u8>,
    /// A piece of the line has been handed out.
    begun: bool,
}

impl Lines {
    /// Calls `each` with every line that `bytes` completes, or piece that has grown long enough.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Piece<&str>)) {
        for chunk in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, complete) = match chunk.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (chunk, false),
            };
            let mut rest = text;
            // A line that is just full waits for what comes next.
            while self.partial.len() + rest.len() > MAX_LINE {
                let (now, later) = rest.split_at(MAX_LINE - self.partial.len());
                self.partial.extend_from_slice(now);
                rest = later;
                self.hand_out_piece(&mut each);
            }
            self.partial.extend_from_slice(rest);
            if complete {
                self.finish(&mut each);
            }
        }
    }

    /// Hands out what is left when the stream has ended.
    pub fn finish(&mut self, mut each: impl FnMut(Piece<&str>)) {
        let line = String::from_utf8_lossy(&self.partial);
        let text = line.trim_end();
        if self.begun || !text.is_empty() {
            each(Piece { text, begins: !self.begun, ends: true });
        }
        self.partial.clear();
        self.begun = false;
    }

    /// A character whose end is still to come waits for it.
    fn hand_out_piece(&mut self, each: &mut impl FnMut(Piece<&str>)) {
        let whole = match std::str::from_utf8(&self.partial) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // Bytes that are no text come out as replacement characters.
            _ => self.partial.len() - trailing_start(&self.partial),
        };
        each(Piece { text: &String::from_utf8_lossy(&self.partial[..whole]), begins: !self.begun, ends: false });
        self.partial.drain(..whole);
        self.begun = true;
    }
}

/// How many bytes at the end begin a character that is not complete.
fn trailing_start(bytes: &[u8]) -> usize {
    let last = &bytes[bytes.len().saturating_sub(3)..];
    let incomplete = |from: &usize| {
        std::str::from_utf8(&last[*from..]).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
    };
    (0..last.len()).find(incomplete).map_or(0, |from| last.len() - from)
}

/// The last lines that were printed, for messages about a server that died.
#[derive(Clone, Debug, Default)]
pub struct Recent(VecDeque<String>);

impl Recent {
    const KEPT: usize = 20;

    pub fn push(&mut self, line: &str) {
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether the last words were about a port that somebody else has.
    pub fn names_taken_port(&self) -> bool {
        self.lines().any(|line| line.contains("address already in use"))
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn levels_are_mapped() {
        for (line, level, message) in [
            ("[7] 2026/11/21 06:22:57.724291 [INF] Server is ready", Level::INFO, "Server is ready"),
            ("[7] 2026/11/21 06:22:57.724291 [INF]   Version:  2.15.1", Level::INFO, "Version:  2.15.1"),
            ("[7] [WRN] x", Level::WARN, "x"),
            ("[7] 2026/11/21 06:22:57.724291 [INF]", Level::INFO, ""),
            ("[7] 2026/11/21 06:22:57 [DBG] 127.0.0.1:5 - [INF] y", Level::DEBUG, "127.0.0.1:5 - [INF] y"),
            ("[7] [FTL] Error listening on port: 0.0.0.0:4222", Level::ERROR, "Error listening on port: 0.0.0.0:4222"),
            ("panic: [INF] boom", Level::ERROR, "panic: [INF] boom"),
            ("", Level::ERROR, ""),
        ] {
            assert_eq!(ServerLine::parse(line), ServerLine { level, message }, "{line}");
        }
    }

    #[test]
    fn lines_that_mean_something_are_noticed() {
        let full = "JetStream failed to store a msg on stream '$G > A': write /s/1.blk: no space left on device";
        for (line, notice) in [
            ("[7] [INF] Server is ready", Some(Notice::Ready)),
            ("[7] [INF] Starting nats-server", Some(Notice::Announced)),
            ("[7] [INF] Initiating JetStream Shutdown...", Some(Notice::HandedOver)),
            ("[7] [INF] Reloaded server configuration", Some(Notice::Reloaded)),
            ("[7] [INF] Reloaded server configuration (sha256:7eff)", Some(Notice::Reloaded)),
            (
                "[7] [ERR] Failed to reload server configuration: config reload not supported for MaxPending",
                Some(Notice::ReloadRefused("config reload not supported for MaxPending".into())),
            ),
            (
                "[7] [INF] 127.0.0.1:58480 - rid:43 - Router connection closed: Duplicate Server Name",
                Some(Notice::NameTaken),
            ),
            (&format!("[7] [ERR] {full}"), Some(Notice::StorageFailed(full.into()))),
            (&format!("[7] [INF] a client said: {full}"), None),
            (
                "[7] [ERR] Critical write error: open /d/2.blk: no such file or directory",
                Some(Notice::StorageFailed("Critical write error: open /d/2.blk: no such file or directory".into())),
            ),
            (
                "[7] [ERR] Error writing term and vote file for \"x\": open /d/jetstream/$SYS/_js_/x/tav.idx: input/output error",
                Some(Notice::StorageFailed(
                    "Error writing term and vote file for \"x\": open /d/jetstream/$SYS/_js_/x/tav.idx: input/output error"
                        .into(),
                )),
            ),
            (
                "[7] [ERR] Error trying to connect as leafnode to remote server \"h:7422\" (attempt 3): dial tcp \
                 198.51.100.7:7422: connect: permission denied",
                None,
            ),
            ("[7] [ERR] Error listening on websocket port: listen tcp :80: bind: permission denied", None),
            ("[7] [ERR] TLS handshake error: open /certs/server.crt: input/output error", None),
            ("[7] [ERR] error opening log file: open /var/log/nats.log: no space left on device", None),
            ("[7] [INF] Server is ready.", None),
            (
                "[7] [INF]   Restored 1,234,567 messages for stream '$G > A'",
                Some(Notice::Restored { stream: "A".into(), messages: 1_234_567 }),
            ),
            (
                "[7] [INF]   Restored 0 messages for stream '$G > KV_it's' in 3ms",
                Some(Notice::Restored { stream: "KV_it's".into(), messages: 0 }),
            ),
            ("[7] [INF]   Restored 5 messages for stream 'OTHER > A' in 3ms", None),
            ("[7] [INF]   Restored many messages for stream '$G > A'", None),
            ("[7] [ERR] 127.0.0.1:5 - cid:12 - \"v1:x:disk quota exceeded\" - maximum payload exceeded", None),
        ] {
            assert_eq!(Notice::of(&ServerLine::parse(line)), notice, "{line}");
        }
    }

    fn pieces(chunks: &[&[u8]]) -> Vec<Piece> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        let own = |piece: Piece<&str>| Piece { text: piece.text.to_owned(), begins: piece.begins, ends: piece.ends };
        for chunk in chunks {
            lines.push(chunk, |piece| seen.push(own(piece)));
        }
        lines.finish(|piece| seen.push(own(piece)));
        seen
    }

    fn cut(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines: Vec<String> = vec![];
        for piece in pieces(chunks) {
            match lines.last_mut() {
                Some(line) if !piece.begins => line.push_str(&piece.text),
                _ => lines.push(piece.text),
            }
        }
        lines
    }

    #[test]
    fn lines_are_cut_where_they_end() {
        assert_eq!(cut(&[b"one\ntw", b"o\n\nthree\r\n", b"four"]), ["one", "two", "three", "four"]);
    }

    #[test]
    fn overlong_lines_come_in_pieces_and_nothing_is_lost() {
        let long = "€x".repeat(MAX_LINE);
        let text = format!("{long}\nnext\n{}\nlast", "y".repeat(MAX_LINE));
        let seen = pieces(&[text.as_bytes()]);
        assert!(seen.iter().all(|piece| piece.text.len() <= MAX_LINE && !piece.text.contains('\u{fffd}')));
        assert!(seen[0].begins && !seen[0].ends && !seen[1].begins);
        assert_eq!(cut(&[text.as_bytes()]), [&long, "next", &"y".repeat(MAX_LINE), "last"]);
        for size in [1, 7, 4096] {
            let chunks: Vec<_> = text.as_bytes().chunks(size).collect();
            assert_eq!(pieces(&chunks), seen, "{size}");
        }
    }

    proptest! {
        #[test]
        fn the_way_it_is_chunked_does_not_matter(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200), at in 0usize..200) {
            let at = at.min(bytes.len());
            prop_assert_eq!(cut(&[&bytes]), cut(&[&bytes[..at], &bytes[at..]]));
        }

        #[test]
        fn no_line_panics(line in ".{0,80}") {
            ServerLine::parse(&line);
        }
    }
}
