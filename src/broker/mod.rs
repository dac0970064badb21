//! What clients ask of the server, whichever way they come: operations with a deadline each, over
//! connections that belong to the data side.
//!
//! [`Broker`] is the handle. Its connections follow the server that runs ([`link`]); an operation takes a
//! [`Session`] with the one that runs now, and hears when that is gone. What an operation could not do is
//! a [`Failure`], in words for the client.

mod captured;
mod consumer;
mod delivery;
mod failure;
mod feed;
mod hub;
mod link;
mod point;
mod position;
mod publish;
mod record;
mod replay;
mod ring;
mod tail;
mod work;

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

pub use failure::Failure;
pub use hub::End;
pub use link::{Links, Session};
pub use point::{Nanos, Point, PointError, Range, UpsideDown};
pub use position::{Position, PositionError};
pub use publish::{Expectations, Message, Stored};
pub use record::Record;
pub use replay::{Replay, ReplayRequest, Speed};
pub use ring::Event;
pub use tail::{From, Output, Tail, TailRequest};
pub use work::{Piece, Settlement, Work};

use crate::nats::{Connectors, JetStream};
use crate::status::BrokerStatus;

/// Operations on the server that runs.
#[derive(Clone)]
pub struct Broker {
    data: watch::Receiver<Option<Session>>,
    control: watch::Receiver<Option<Session>>,
    status: watch::Receiver<Arc<BrokerStatus>>,
    hubs: Arc<hub::Hubs>,
    replays: Arc<Semaphore>,
}

impl Broker {
    /// The handle, and the connections that somebody has to keep ([`Links::run`]).
    pub fn new(connectors: watch::Receiver<Connectors>, status: watch::Receiver<Arc<BrokerStatus>>) -> (Self, Links) {
        let links = Links::new(connectors, status.clone());
        let (hubs, replays) = (hub::Hubs::new(), Arc::new(Semaphore::new(replay::REPLAYS)));
        (Self { data: links.data(), control: links.control(), status, hubs, replays }, links)
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
        Ok(JetStream::new(session.client().clone(), deadline.saturating_duration_since(Instant::now())))
    }

    async fn session(&self, of: &watch::Receiver<Option<Session>>, deadline: Instant) -> Result<Session, Failure> {
        let is_usable = |session: &Option<Session>| session.as_ref().is_some_and(|session| !session.is_gone());
        if let Some(session) = of.borrow().clone().filter(|session| !session.is_gone()) {
            return Ok(session);
        }
        let mut sessions = of.clone();
        let found = match timeout_at(deadline, sessions.wait_for(is_usable)).await {
            Ok(Ok(session)) => session.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        found.ok_or_else(|| self.not_connected())
    }

    fn not_connected(&self) -> Failure {
        let status = self.status.borrow();
        Failure::NotConnected { state: status.state, reason: status.reason.clone() }
    }
}
