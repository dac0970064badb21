//! The connections of the data side. Each server that runs gets new ones, so that nothing that was
//! meant for one server reaches the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::Client;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::domain::Generation;
use crate::nats::{Connection, Connector, Connectors, Denials, JetStream, PermissionViolations, Violation};
use crate::status::BrokerStatus;

/// Between two attempts to connect; doubles up to the last.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(2);
pub(super) const LAST_PAUSE: Duration = Duration::from_millis(250);
/// Time for one attempt.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A connection, for as long as it lasts.
#[derive(Clone)]
pub struct Session(Arc<Lent>);

struct Lent {
    client: Client,
    gone: CancellationToken,
    violations: PermissionViolations,
}

impl Session {
    /// The connection, until what is given beside it is dropped.
    pub(super) fn lend(connection: &Connection) -> (Self, DropGuard) {
        let gone = CancellationToken::new();
        let lent = Lent { client: connection.client.clone(), gone: gone.clone(), violations: connection.refused() };
        (Self(Arc::new(lent)), gone.drop_guard())
    }

    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// The API of JetStream, over this connection. What the user may not do is heard at once.
    pub fn jetstream(&self, deadline: Duration) -> JetStream {
        JetStream::new(self.0.client.clone(), deadline).heeding(self.0.violations.clone())
    }

    /// Whether it has broken. What is on its way over it gets no answer any more.
    pub fn is_gone(&self) -> bool {
        self.0.gone.is_cancelled()
    }

    /// Waits until it breaks.
    pub async fn gone(&self) {
        self.0.gone.cancelled().await;
    }

    /// What nats-server has told of what its user may not do.
    pub fn violations(&self) -> &PermissionViolations {
        &self.0.violations
    }

    /// Listens for what nats-server refuses to do for its user from now on. To be called before anything is
    /// asked; where no answer can be heard nothing may be.
    pub fn listen(&self) -> Result<Denials, Violation> {
        self.0.violations.deaf().map_or_else(|| Ok(self.0.violations.watch()), Err)
    }
}

/// Where a session comes from.
#[derive(Clone)]
pub(super) enum Link {
    /// There is none, and there may be one later.
    Away,
    Up(Box<Session>),
    /// nats-server does not let the user in.
    Refused,
}

impl Link {
    fn session(&self) -> Option<&Session> {
        match self {
            Self::Up(session) if !session.is_gone() => Some(session),
            Self::Up(_) | Self::Away | Self::Refused => None,
        }
    }
}

/// nats-server does not let the user in.
pub(super) struct NotLetIn;

/// The session of a role, made once somebody asks for it.
#[derive(Clone)]
pub(super) struct Sessions {
    link: watch::Receiver<Link>,
    wanted: Arc<watch::Sender<bool>>,
}

impl Sessions {
    pub fn new(link: watch::Receiver<Link>) -> Self {
        Self { link, wanted: Arc::new(watch::channel(false).0) }
    }

    /// The one that there is, unless it has broken.
    pub fn now(&self) -> Option<Session> {
        self.link.borrow().session().cloned()
    }

    /// Waits for one; [`None`] once nobody makes any more.
    pub async fn next(&self) -> Result<Option<Session>, NotLetIn> {
        self.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        let is_decided = |link: &Link| matches!(link, Link::Refused) || link.session().is_some();
        match self.link.clone().wait_for(is_decided).await.as_deref() {
            Ok(Link::Refused) => Err(NotLetIn),
            Ok(link) => Ok(link.session().cloned()),
            Err(_) => Ok(None),
        }
    }
}

/// Keeps a connection for each role that the data side needs, from when it is first needed.
pub struct Links {
    connectors: watch::Receiver<Connectors>,
    status: watch::Receiver<Arc<BrokerStatus>>,
    data: (watch::Sender<Link>, Sessions),
    control: (watch::Sender<Link>, Sessions),
    failed_connects: Arc<AtomicU64>,
}

impl Links {
    pub(super) fn new(connectors: watch::Receiver<Connectors>, status: watch::Receiver<Arc<BrokerStatus>>) -> Self {
        let sessions = || {
            let (sender, link) = watch::channel(Link::Away);
            (sender, Sessions::new(link))
        };
        Self { connectors, status, data: sessions(), control: sessions(), failed_connects: Arc::default() }
    }

    pub(super) fn data(&self) -> Sessions {
        self.data.1.clone()
    }

    pub(super) fn control(&self) -> Sessions {
        self.control.1.clone()
    }

    pub(super) fn failed_connects(&self) -> Arc<AtomicU64> {
        self.failed_connects.clone()
    }

    /// Follows the server that runs, until the program ends.
    pub async fn run(self) {
        let keep = |(sender, sessions): (_, Sessions), connector: fn(&Connectors) -> &Connector| Keep {
            connectors: self.connectors.clone(),
            status: self.status.clone(),
            sessions: sender,
            wanted: sessions.wanted.subscribe(),
            failed_connects: self.failed_connects.clone(),
            connector,
        };
        tokio::join!(
            keep(self.data, |connectors| &connectors.data).run(),
            keep(self.control, |connectors| &connectors.control).run()
        );
    }
}

/// Keeps one connection.
struct Keep {
    connectors: watch::Receiver<Connectors>,
    status: watch::Receiver<Arc<BrokerStatus>>,
    sessions: watch::Sender<Link>,
    wanted: watch::Receiver<bool>,
    connector: fn(&Connectors) -> &Connector,
    failed_connects: Arc<AtomicU64>,
}

impl Keep {
    async fn run(mut self) {
        if self.wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        loop {
            let Ok(generation) = launched(&mut self.status).await else { return };
            let mut status = self.status.clone();
            tokio::select! {
                () = self.hold() => {}
                gone = status.wait_for(|status| status.generation != Some(generation)) => {
                    if gone.is_err() {
                        return;
                    }
                }
            }
            self.sessions.send_replace(Link::Away);
        }
    }

    /// Connects, and lends the connection until it breaks or others are asked for.
    async fn hold(&mut self) {
        let connection = self.connect().await;
        // Whatever ends this, who has the session hears of it.
        let (session, _guard) = Session::lend(&connection);
        self.sessions.send_replace(Link::Up(Box::new(session)));
        tokio::select! {
            () = connection.broken() => {}
            _ = self.connectors.changed() => {}
        }
    }

    async fn connect(&mut self) -> Connection {
        let mut pause = FIRST_PAUSE;
        let mut complained = false;
        loop {
            let connector = (self.connector)(&self.connectors.borrow_and_update()).clone();
            match connector.connect(PATIENCE).await {
                Ok(connection) => return connection,
                Err(error) if error.is_refusal() && !complained => {
                    complained = true;
                    tracing::warn!("clients of the API cannot be served: {error}");
                }
                Err(error) => tracing::debug!("{error}"),
            }
            self.failed_connects.fetch_add(1, Ordering::Relaxed);
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

/// Waits for a server that runs.
pub(super) async fn launched(
    status: &mut watch::Receiver<Arc<BrokerStatus>>,
) -> Result<Generation, watch::error::RecvError> {
    let status = status.wait_for(|status| status.generation.is_some()).await?;
    Ok(status.generation.unwrap_or_default())
}
