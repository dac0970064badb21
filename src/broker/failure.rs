use super::streams::Difference;
use crate::nats::{ApiError, Violation};

/// Why an operation was not done, or is not known to have been.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing was sent.
    #[error("not connected to nats-server, which is {state}{}", .reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default())]
    NotConnected { state: &'static str, reason: Option<String> },
    /// Nothing was sent that could have been done.
    #[error("nats-server is not ready yet: {0}")]
    NotReady(String),
    /// No stream captures the subject, so that the message was not stored.
    #[error("no stream captures the subject {subject}: nothing was stored")]
    NotCaptured { subject: String },
    /// Nobody captures the subject, or stores messages under it, so that there are none to read.
    #[error("no stream captures {subject} or stores messages under it{hint}")]
    NotHeld { subject: String, hint: String },
    #[error("there is no stream {0}")]
    NoStream(String),
    #[error("stream {stream} has no consumer {consumer}")]
    NoConsumer { stream: String, consumer: String },
    #[error("{0}")]
    NoMessage(String),
    /// Whatever became of the message, nobody will say so.
    #[error(
        "stream {stream} acknowledges no message (no_ack), so that nobody can know what it stores: the message to \
         {subject} {}",
        if *.was_sent { "may have been stored" } else { "was not sent" }
    )]
    NeverAcknowledged { stream: String, subject: String, was_sent: bool },
    /// It was sent, and nothing was heard of it.
    #[error("{}", unconfirmed(.subject, .msg_id.as_deref()))]
    Unconfirmed { subject: String, msg_id: Option<String> },
    /// A request that changes nothing, or that may be repeated.
    #[error("no answer in time: {0}")]
    Late(String),
    /// nats-server does not let the user do that.
    #[error("nats-server does not let this user {0}")]
    Denied(Violation),
    /// The user is nobody whom nats-server knows, or shows another password.
    #[error("nats-server does not let that user in: no such user, or another password")]
    NotLetIn,
    #[error("{0}")]
    Busy(String),
    #[error("the message takes {size} bytes with its headers, and nats-server takes {most} at most (NATS_MAX_PAYLOAD)")]
    TooLarge { size: usize, most: usize },
    #[error("{0}")]
    Invalid(String),
    /// What is there, or was planned, does not go together with it.
    #[error("{0}")]
    Conflict(String),
    /// It exists, and is not the same.
    #[error("{object} exists with another configuration: {}", joined(.differences))]
    Differs { object: String, differences: Vec<Difference> },
    /// Streams reserve more than there is.
    #[error("{0}")]
    NoRoom(String),
    /// More than is answered at a time.
    #[error("{0}")]
    TooMuch(String),
    /// nats-server says no.
    #[error("{0}")]
    Refused(ApiError),
    #[error("{0}")]
    Server(ApiError),
}

impl Failure {
    /// Which one it is, in a word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotConnected { .. } => "not_connected",
            Self::NotReady(_) => "not_ready",
            Self::NotCaptured { .. } => "not_captured",
            Self::NotHeld { .. } => "not_held",
            Self::NoStream(_) => "no_stream",
            Self::NoConsumer { .. } => "no_consumer",
            Self::NoMessage(_) => "no_message",
            Self::NeverAcknowledged { .. } => "never_acknowledged",
            Self::Unconfirmed { .. } => "unconfirmed",
            Self::Late(_) => "late",
            Self::Denied(_) => "denied",
            Self::NotLetIn => "not_let_in",
            Self::Busy(_) => "busy",
            Self::TooLarge { .. } => "too_large",
            Self::Invalid(_) => "invalid",
            Self::Conflict(_) => "conflict",
            Self::Differs { .. } => "differs",
            Self::NoRoom(_) => "no_room",
            Self::TooMuch(_) => "too_much",
            Self::Refused(_) => "refused",
            Self::Server(_) => "server",
        }
    }
}

fn joined(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ")
}

fn unconfirmed(subject: &str, msg_id: Option<&str>) -> String {
    let way_out = match msg_id {
        Some(id) => format!("send it again with the same message id {id:?}, then it is stored once"),
        None => "it had no message id, so that sending it again may store it twice".to_owned(),
    };
    format!("no acknowledgement of the message to {subject} came in time; it may have been stored: {way_out}")
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Refused { .. } => Self::Refused(error),
            ApiError::Timeout { .. } => Self::Late(error.to_string()),
            ApiError::NoResponders { .. } => Self::NotReady(error.to_string()),
            ApiError::Denied(violation) => Self::Denied(violation),
            ApiError::Transport { .. } | ApiError::Unreadable { .. } => Self::Server(error),
        }
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self::Denied(violation)
    }
}
