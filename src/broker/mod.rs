//! What clients ask of the server, whichever way they come: operations with a deadline each, over
//! connections that belong to the data side.
//!
//! [`Broker`] is the handle. Its connections follow the server that runs ([`link`]); an operation takes a
//! [`Session`] with the one that runs now, and hears when that is gone. What an operation could not do is
//! a [`Failure`], in words for the client.

mod failure;
mod link;
mod overview;
mod publish;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

pub use failure::Failure;
pub use link::{Links, Session};
pub use overview::Overview;
pub use publish::{Expectations, Message, Stored};
pub use users::Users;

use link::{NotLetIn, Sessions};
use overview::LastOverview;

use crate::nats::{Connectors, JetStream};
use crate::status::BrokerStatus;

/// Operations on the server that runs.
#[derive(Clone)]
pub struct Broker {
    data: Sessions,
    control: Sessions,
    status: watch::Receiver<Arc<BrokerStatus>>,
    last_overview: LastOverview,
    failed_connects: Arc<AtomicU64>,
    /// Held by each handle, so that it shows whether there are any.
    handles: Arc<()>,
}

impl Broker {
    /// The handle, and the connections that somebody has to keep ([`Links::run`]).
    pub fn new(connectors: watch::Receiver<Connectors>, status: watch::Receiver<Arc<BrokerStatus>>) -> (Self, Links) {
        let links = Links::new(connectors, status.clone());
        let broker = Self {
            data: links.data(),
            control: links.control(),
            status,
            last_overview: LastOverview::default(),
            failed_connects: links.failed_connects(),
            handles: Arc::default(),
        };
        (broker, links)
    }

    /// The handle of a user, who has one connection for everything.
    fn of_user(sessions: Sessions, status: watch::Receiver<Arc<BrokerStatus>>) -> Self {
        Self {
            data: sessions.clone(),
            control: sessions,
            status,
            last_overview: LastOverview::default(),
            failed_connects: Arc::default(),
            handles: Arc::default(),
        }
    }

    /// Connections to the server that could not be made since the program started.
    pub fn failed_connects(&self) -> u64 {
        self.failed_connects.load(Ordering::Relaxed)
    }

    pub fn status(&self) -> Arc<BrokerStatus> {
        self.status.borrow().clone()
    }

    /// The connection that publishes and consumes, as soon as there is one.
    pub async fn data(&self, deadline: Instant) -> Result<Session, Failure> {
        self.session(&self.data, deadline).await
    }

    /// The connection that may change streams, as soon as there is one.
    pub async fn control(&self, deadline: Instant) -> Result<Session, Failure> {
        self.session(&self.control, deadline).await
    }

    /// The API of JetStream over the connection that may change streams, until the deadline.
    pub async fn jetstream(&self, deadline: Instant) -> Result<JetStream, Failure> {
        let session = self.control(deadline).await?;
        let patience = deadline.saturating_duration_since(Instant::now());
        Ok(JetStream::new(session.client().clone(), patience).heeding(session.violations().clone()))
    }

    async fn session(&self, sessions: &Sessions, deadline: Instant) -> Result<Session, Failure> {
        if let Some(session) = sessions.now() {
            return Ok(session);
        }
        match timeout_at(deadline, sessions.next()).await {
            Ok(Ok(Some(session))) => Ok(session),
            Ok(Err(NotLetIn)) => Err(Failure::NotLetIn),
            Ok(Ok(None)) | Err(_) => Err(self.not_connected()),
        }
    }

    fn not_connected(&self) -> Failure {
        let status = self.status.borrow();
        Failure::NotConnected { state: status.state, reason: status.reason.clone() }
    }
}
