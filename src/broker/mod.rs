//! What clients ask of the server, whichever way they come: operations with a deadline each, over
//! connections that belong to the data side.
//!
//! [`Broker`] is the handle. Its connections follow the server that runs ([`link`]); an operation takes a
//! [`Session`] with the one that runs now, and hears when that is gone. What an operation could not do is
//! a [`Failure`], in words for the client.

mod ack_tokens;
mod asking;
mod atomic;
mod captured;
mod changes;
mod consumer;
mod consumers;
mod delivery;
mod failure;
mod feed;
mod holdings;
mod hub;
mod link;
mod memory;
mod messages;
mod overview;
mod pipeline;
mod point;
mod position;
mod publish;
mod publishing;
mod pull;
mod record;
mod replay;
mod ring;
mod silence;
mod streams;
mod tail;
mod users;
mod waiting;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

pub use ack_tokens::{AckTokens, ConsumerId, TokenError};
pub use atomic::LARGEST as LARGEST_ATOMIC_BATCH;
pub use failure::Failure;
pub use hub::End;
pub use link::{Links, Session};
pub use memory::TIME_TO_LIVE;
pub use messages::{MOST_LAST, Place, SubjectCount};
pub use overview::Overview;
pub use pipeline::{Sent, Within};
pub use point::{Nanos, Point, PointError, Range, UpsideDown};
pub use position::{Position, PositionError};
pub use publish::{Expectations, Message, Stored};
pub use pull::{Ack, Delivery, DeliveryPlace, Pull, ack_wait, id_of};
pub use record::Record;
pub use replay::{Replay, ReplayRequest, Speed};
pub use ring::Event;
pub use streams::{Difference, Page, Provisioned};
pub use tail::{From, Output, Tail, TailRequest};
pub use users::Users;
pub use work::{Piece, Settlement, Work};

use changes::Changes;
use link::{NotLetIn, Sessions};
use overview::LastOverview;
use silence::SilentStreams;

use crate::nats::{Connectors, JetStream};
use crate::status::BrokerStatus;

/// Operations on the server that runs. Each request has a handle of its own: a clone costs one count.
#[derive(Clone)]
pub struct Broker(Arc<Shared>);

/// What all handles have in common.
struct Shared {
    data: Sessions,
    control: Sessions,
    status: watch::Receiver<Arc<BrokerStatus>>,
    last_overview: LastOverview,
    transforming: captured::LastTransforming,
    failed_connects: Arc<AtomicU64>,
    changes: Changes,
    silent: SilentStreams,
    hubs: Arc<hub::Hubs>,
    replays: Arc<Semaphore>,
}

/// What the brokers of users have in common with that of everybody else.
#[derive(Clone)]
struct OfAll {
    status: watch::Receiver<Arc<BrokerStatus>>,
    changes: Changes,
    silent: SilentStreams,
    /// Bounds those of all users together.
    replays: Arc<Semaphore>,
}

impl Broker {
    /// The handle, and the connections that somebody has to keep ([`Links::run`]). `changed` hears of each stream
    /// and consumer that is changed over it.
    pub fn new(
        connectors: watch::Receiver<Connectors>,
        status: watch::Receiver<Arc<BrokerStatus>>,
        changed: Arc<Notify>,
    ) -> (Self, Links) {
        let links = Links::new(connectors, status.clone());
        let (hubs, replays) = (hub::Hubs::new(), Arc::new(Semaphore::new(replay::REPLAYS)));
        let shared = Shared {
            data: links.data(),
            control: links.control(),
            status,
            last_overview: LastOverview::default(),
            transforming: Default::default(),
            failed_connects: links.failed_connects(),
            changes: Changes::new(changed),
            silent: SilentStreams::default(),
            hubs,
            replays,
        };
        (Self(Arc::new(shared)), links)
    }

    /// The handle of a user, who has one connection for everything.
    fn of_user(sessions: Sessions, of_all: &OfAll) -> Self {
        let OfAll { status, changes, silent, replays } = of_all.clone();
        Self(Arc::new(Shared {
            data: sessions.clone(),
            control: sessions,
            status,
            last_overview: LastOverview::default(),
            transforming: Default::default(),
            failed_connects: Arc::default(),
            changes,
            silent,
            hubs: hub::Hubs::new(),
            replays,
        }))
    }

    /// Whoever else acts on the same server, as users of it.
    pub fn users(&self, connectors: watch::Receiver<Connectors>) -> Users {
        let Shared { status, changes, silent, replays, .. } = &*self.0;
        let (status, changes, silent, replays) = (status.clone(), changes.clone(), silent.clone(), replays.clone());
        Users::new(connectors, OfAll { status, changes, silent, replays })
    }

    /// Connections to the server that could not be made since the program started.
    pub fn failed_connects(&self) -> u64 {
        self.0.failed_connects.load(Ordering::Relaxed)
    }

    pub fn status(&self) -> Arc<BrokerStatus> {
        self.0.status.borrow().clone()
    }

    fn is_ready(&self) -> bool {
        self.0.status.borrow().is_ready
    }

    /// The connection that publishes and consumes, as soon as there is one.
    pub async fn data(&self, deadline: Instant) -> Result<Session, Failure> {
        self.session(&self.0.data, deadline).await
    }

    /// The connection that may change streams, as soon as there is one.
    pub async fn control(&self, deadline: Instant) -> Result<Session, Failure> {
        self.session(&self.0.control, deadline).await
    }

    /// The API of JetStream over the connection that may change streams, until the deadline.
    pub async fn jetstream(&self, deadline: Instant) -> Result<JetStream, Failure> {
        let session = self.control(deadline).await?;
        let patience = deadline.saturating_duration_since(Instant::now());
        Ok(session.jetstream(patience))
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
        let status = self.0.status.borrow();
        Failure::NotConnected { state: status.state, reason: status.reason.clone() }
    }
}
