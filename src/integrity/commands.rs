//! What the task that keeps the ledger is asked for, and what it answers.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::deletions::Heard;
use super::losses::LossKind;
use super::ranges::Ranges;
use super::restores::Restore;
use super::suspected_losses::Resolved;
use super::view::Reading;
use crate::domain::{Generation, ServerVersion};
use crate::nats::{SeenStreams, StreamInfo};

/// Asked for in the order in which they come.
pub enum Command {
    /// These streams must exist from now on.
    Declare(Vec<String>),
    /// A stream is about to be deleted because it is not declared any more.
    WillDelete(String),
    /// A look at the streams begins.
    Begin(oneshot::Sender<Basis>),
    Compare(Box<Look>, oneshot::Sender<Compared>),
    /// A message that this program has published is about to be deleted. No look is compared before the
    /// other end gives the stream, or is gone.
    Deleting {
        ends: oneshot::Receiver<String>,
        heard: oneshot::Sender<()>,
    },
    /// Clients have had messages of a stream deleted.
    Heard(String, Heard),
    /// What nats-server tells about the restore of a stream.
    Restore(Restore),
    /// Who hears of restores has begun to listen: what ended before that is not heard of.
    Listening,
    /// A server has counted the messages of a stream before it let any client in.
    Counted {
        stream: String,
        messages: u64,
    },
    About(String, oneshot::Sender<Knowledge>),
    Note(String, LossKind),
    /// All messages of a stream could be read.
    Readable(String),
    /// What could not be read, to be read again from another server; nothing once that was done.
    Suspect(String, Ranges),
    /// A stream was made known again.
    MadeAnew(Box<StreamInfo>),
    Reading(Reading, oneshot::Sender<()>),
    /// Answered when what is known is on disk, or cannot be written.
    Flush(oneshot::Sender<()>),
}

/// What a look needs to know before it asks the server.
#[derive(Debug)]
pub struct Basis {
    /// Looks that were compared so far.
    pub looks: u64,
    /// Streams that were seen.
    pub known: Vec<String>,
    /// Stream, last sequence and its time, where a leader may have answered too early.
    pub doubtful: Vec<(String, u64, String)>,
    pub heard: BTreeMap<String, Heard>,
}

/// What the streams of a server hold.
#[derive(Debug)]
pub struct Look {
    pub generation: Generation,
    pub version: ServerVersion,
    pub basis: u64,
    pub streams: SeenStreams,
    pub resolved: Vec<Resolved>,
    /// What had been heard before the server was asked.
    pub heard: BTreeMap<String, Heard>,
    /// What the server says to have lost was asked for.
    pub is_detailed: bool,
}

#[derive(Debug)]
pub enum Compared {
    /// What is missing, as one sentence.
    Done(Option<String>),
    /// Something else was faster: an older answer must not be compared after a newer one.
    Again,
    /// Of these streams the server has to be asked what it has lost.
    Details(Box<Look>, Vec<String>),
}

/// What is known about one stream.
#[derive(Debug, Default)]
pub struct Knowledge {
    /// The configuration that it was last seen with.
    pub config: Option<Map<String, Value>>,
    /// What cannot be read, as somebody knows.
    pub accepted: Ranges,
    /// What is told to be unreadable.
    pub unreadable: Ranges,
    /// What could not be read from the server before.
    pub suspects: Option<Ranges>,
    /// What the server said to have lost when it was seen first, and had been deleted.
    pub called_lost: Ranges,
    /// It was made known again since the program started; once is enough.
    pub is_rescued: bool,
}
