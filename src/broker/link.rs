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
use crate::nats::{Connection, Connector, Connectors};
use crate::status::BrokerStatus;

/// Between two attempts to connect; doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LAST_PAUSE: Duration = Duration::from_millis(250);
/// Time for one attempt.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection, for as long as it lasts.
#[derive(Clone)]
pub struct Session {
    client: Client,
    gone: CancellationToken,
}

impl Session {
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether it has broken. What is on its way over it gets no answer any more.
    pub fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Waits until it breaks.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

/// The session of a role, made once somebody asks for it.
#[derive(Clone)]
pub(super) struct Sessions {
    session: watch::Receiver<Option<Session>>,
    wanted: Arc<watch::Sender<bool>>,
}

impl Sessions {
    /// The one that there is, unless it has broken.
    pub fn now(&self) -> Option<Session> {
        self.session.borrow().clone().filter(|session| !session.is_gone())
    }

    /// Waits for one.
    pub async fn next(&self) -> Option<Session> {
        self.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        let is_usable = |session: &Option<Session>| session.as_ref().is_some_and(|session| !session.is_gone());
        self.session.clone().wait_for(is_usable).await.ok()?.clone()
    }
}

/// Keeps a connection for each role that the data side needs, from when it is first needed.
pub struct Links {
    connectors: watch::Receiver<Connectors>,
    status: watch::Receiver<Arc<BrokerStatus>>,
    data: (watch::Sender<Option<Session>>, Sessions),
    control: (watch::Sender<Option<Session>>, Sessions),
    failed_connects: Arc<AtomicU64>,
}

impl Links {
    pub(super) fn new(connectors: watch::Receiver<Connectors>, status: watch::Receiver<Arc<BrokerStatus>>) -> Self {
        let sessions = || {
            let (sender, session) = watch::channel(None);
            (sender, Sessions { session, wanted: Arc::new(watch::channel(false).0) })
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
    sessions: watch::Sender<Option<Session>>,
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
            let Ok(generation) = self.launched().await else { return };
            let mut status = self.status.clone();
            tokio::select! {
                () = self.hold() => {}
                gone = status.wait_for(|status| status.generation != Some(generation)) => {
                    if gone.is_err() {
                        return;
                    }
                }
            }
            self.sessions.send_replace(None);
        }
    }

    /// Waits for a server that runs.
    async fn launched(&mut self) -> Result<Generation, watch::error::RecvError> {
        let status = self.status.wait_for(|status| status.generation.is_some()).await?;
        Ok(status.generation.unwrap_or_default())
    }

    /// Connects, and lends the connection until it breaks or others are asked for.
    async fn hold(&mut self) {
        let connection = self.connect().await;
        let gone = CancellationToken::new();
        // Whatever ends this, who has the session hears of it.
        let _guard: DropGuard = gone.clone().drop_guard();
        self.sessions.send_replace(Some(Session { client: connection.client.clone(), gone }));
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
