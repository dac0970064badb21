//! The connections of the data side. Each server that runs gets new ones, so that nothing that was
//! meant for one server reaches the next.

use std::sync::Arc;
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

type Sessions = (watch::Sender<Option<Session>>, watch::Receiver<Option<Session>>);

/// Keeps a connection for each role that the data side needs.
pub struct Links {
    connectors: watch::Receiver<Connectors>,
    status: watch::Receiver<Arc<BrokerStatus>>,
    data: Sessions,
    control: Sessions,
}

impl Links {
    pub(super) fn new(connectors: watch::Receiver<Connectors>, status: watch::Receiver<Arc<BrokerStatus>>) -> Self {
        Self { connectors, status, data: watch::channel(None), control: watch::channel(None) }
    }

    pub(super) fn data(&self) -> watch::Receiver<Option<Session>> {
        self.data.1.clone()
    }

    pub(super) fn control(&self) -> watch::Receiver<Option<Session>> {
        self.control.1.clone()
    }

    /// Follows the server that runs, until the program ends.
    pub async fn run(self) {
        let keep = |sessions: Sessions, connector: fn(&Connectors) -> &Connector| Keep {
            connectors: self.connectors.clone(),
            status: self.status.clone(),
            sessions: sessions.0,
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
    connector: fn(&Connectors) -> &Connector,
}

impl Keep {
    async fn run(mut self) {
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
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}
