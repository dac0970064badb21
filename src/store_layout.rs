//! The names inside the store: ours, and those of nats-server that we look at. One place knows them.

use std::path::{Path, PathBuf};

/// A broker holds it while it uses the store.
pub const LOCK: &str = ".unified-nats.lock";
/// In which mode the store was written.
pub const MODE: &str = ".unified-nats-mode";
/// Which store this is, and who has written it.
pub const MARKER: &str = ".unified-nats-store.json";
/// What was seen of the streams, and what is missing.
pub const LEDGER: &str = ".unified-nats-integrity.json";
/// Losses that an operator has seen.
pub const ACKNOWLEDGEMENT: &str = ".unified-nats-acknowledge-loss";
/// What the last server has left when it ended.
pub const LEFT: &str = ".unified-nats-left.json";
/// Alerts that are open, and those that receivers have not taken yet.
pub const ALERTS: &str = ".unified-nats-alerts.json";
/// Touched several times a second while a broker runs.
pub const ALIVE: &str = ".unified-nats-alive";
/// Written and removed again, to see whether that works.
pub const PROBE: &str = ".unified-nats.probe";

/// nats-server keeps everything in there.
const JETSTREAM: &str = "jetstream";
/// The account that streams without an account are in.
const ACCOUNT: &str = "jetstream/$G";
const STREAMS: &str = "jetstream/$G/streams";

/// Of a stream: the description and its checksum.
pub const DESCRIPTION: [&str; 2] = ["meta.inf", "meta.sum"];
/// Of a stream: the directory of its blocks.
pub const MESSAGES: &str = "msgs";
/// Among the blocks: what a server that stops in order writes about them.
pub const INDEX: &str = "index.db";
/// Among the blocks: which messages expire when by themselves.
pub const EXPIRIES: &str = "thw.db";
/// How names of blocks end.
pub const BLOCK: &str = ".blk";

/// The directories of nats-server from the outermost to that of the streams.
pub fn directories(store: &Path) -> [PathBuf; 3] {
    [JETSTREAM, ACCOUNT, STREAMS].map(|path| store.join(path))
}

/// The streams of the account that streams without an account are in, a directory each.
pub fn streams(store: &Path) -> PathBuf {
    store.join(STREAMS)
}

/// The accounts, a directory each, with the directory of streams in it.
pub fn accounts(store: &Path) -> PathBuf {
    store.join(JETSTREAM)
}
