use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, ServerError};
use rustls::pki_types::CertificateDer;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::credentials::{self, Identity};
use super::pinned::client_config;
use super::violations::PermissionViolations;
use crate::domain::{Role, Secret};
use crate::settings::{ClientCertificate, Credentials, ExternalServer, Settings, redact_urls};

/// Where answers to requests of users go: what is commonly granted to those who make requests.
const INBOX_OF_USERS: &str = "_INBOX";

/// How to reach the server that this program serves.
#[derive(Clone)]
pub struct Connector {
    /// Addresses or URLs; any of them will do.
    servers: Vec<String>,
    /// Asked each time a connection is made, so that one that outlives a change of credentials does
    /// not try old ones again and again.
    identity: Arc<RwLock<Identity>>,
    tls: Tls,
    /// Where answers to requests go.
    inbox: String,
    /// Whether what is refused to it is the operator's business.
    is_ours: bool,
    /// Whether servers that a server names are connected to as well.
    discovers: bool,
    timeout: Duration,
    max_reconnects: Option<usize>,
}

#[derive(Clone)]
enum Tls {
    /// As the URL says.
    None,
    /// Our own server, whose certificate we know.
    Own {
        /// The certificate that the server was started with.
        leaf: CertificateDer<'static>,
        /// Where it lies; a renewed one is expected as soon as it lies there.
        path: PathBuf,
        certificate: Option<ClientCertificate>,
    },
    /// A server that authorities vouch for.
    Remote { required: bool, authorities: Option<PathBuf>, certificate: Option<ClientCertificate> },
}

/// As whom a connection logs in.
#[derive(Clone, Debug)]
pub struct Login {
    /// What a server of our own is shown.
    pub credentials: Option<Credentials>,
    /// For a server of our own that asks for one.
    pub certificate: Option<ClientCertificate>,
    /// Prefix of the subjects that answers to requests go to.
    pub inbox: String,
}

/// A client, and how to learn what became of it.
pub struct Connection {
    pub client: Client,
    disconnected: Arc<Notify>,
    reconnected: Arc<Notify>,
    refused: PermissionViolations,
}

impl Connection {
    /// Waits until the client has given up reconnecting: it will never work again.
    pub async fn lost(&self) {
        loop {
            self.disconnected.notified().await;
            // Waits for the reconnection; fails when nobody is left to reconnect.
            if self.client.flush().await.is_err() {
                return;
            }
        }
    }

    /// Waits until the connection breaks, whether it comes back or not.
    pub async fn broken(&self) {
        self.disconnected.notified().await;
    }

    /// Waits until the connection was lost and is there again.
    pub async fn reconnected(&self) {
        self.reconnected.notified().await;
    }

    pub fn refused(&self) -> PermissionViolations {
        self.refused.clone()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect to NATS at {address}")]
    Connect { address: String, source: async_nats::ConnectError },
    #[error("cannot connect to NATS at {address}: no answer within {} s", .timeout.as_secs_f32())]
    Timeout { address: String, timeout: Duration },
    #[error("cannot prepare TLS for our own connection: {0}")]
    Tls(String),
}

impl ConnectError {
    /// Whether the server said no, so that trying again with the same credentials is in vain.
    pub fn is_refusal(&self) -> bool {
        use async_nats::ConnectErrorKind::{Authentication, AuthorizationViolation};
        match self {
            Self::Connect { source, .. } => {
                matches!(source.kind(), Authentication | AuthorizationViolation)
            }
            _ => false,
        }
    }
}

/// A connector for each role that connects from this process.
#[derive(Clone)]
pub struct Connectors {
    /// Provisions, watches, and changes streams for clients of ours.
    pub control: Connector,
    /// Publishes and consumes for clients of ours.
    pub data: Connector,
}

impl Connectors {
    /// To the server of the settings, logging in as `login` says for each role.
    pub fn new(settings: &Settings, login: impl Fn(Role) -> Login) -> Self {
        let connector = |role| Connector::new(settings, login(role));
        Self { control: connector(Role::Control), data: connector(Role::Data) }
    }

    /// Has connections that are made over `self` ask for what `other` asks for from now on.
    pub fn take_credentials_of(&self, other: &Self) {
        self.control.take_credentials_of(&other.control);
        self.data.take_credentials_of(&other.data);
    }
}

impl Connector {
    /// The server of the settings. One that others run is shown what the settings say of it instead of
    /// the credentials and the certificate of `login`.
    pub fn new(settings: &Settings, login: Login) -> Self {
        match &settings.external {
            Some(external) => Self::remote(external, settings, login.inbox),
            None => Self::own(settings, login),
        }
    }

    fn own(settings: &Settings, login: Login) -> Self {
        let identity = login.credentials.map_or(Identity::Nobody, Identity::Known);
        let tls = settings.tls.as_ref().map(|tls| Tls::Own {
            leaf: tls.leaf.clone(),
            path: tls.cert.clone(),
            certificate: login.certificate,
        });
        Self {
            servers: vec![format!("{}:{}", settings.server.host.to_reach(), settings.server.port)],
            identity: Arc::new(RwLock::new(identity)),
            tls: tls.unwrap_or(Tls::None),
            inbox: login.inbox,
            is_ours: true,
            // Addresses that a cluster advertises may not be reachable, and only our own server counts.
            discovers: false,
            timeout: settings.supervision.connect_timeout,
            max_reconnects: settings.supervision.max_reconnects,
        }
    }

    fn remote(external: &ExternalServer, settings: &Settings, inbox: String) -> Self {
        let known = settings.credentials.clone().map(Identity::Known);
        let file = external.credentials_file.clone().map(Identity::File);
        let identity = known.or(file).or_else(|| external.urls.iter().find_map(|url| Identity::in_url(url)));
        Self {
            servers: external.urls.clone(),
            identity: Arc::new(RwLock::new(identity.unwrap_or(Identity::Nobody))),
            tls: Tls::Remote {
                required: external.requires_tls,
                authorities: external.authorities.clone(),
                certificate: external.certificate.clone(),
            },
            inbox,
            is_ours: true,
            // They come without a scheme, which matters here.
            discovers: !external.urls.iter().any(|url| url.starts_with("ws")),
            timeout: settings.supervision.connect_timeout,
            max_reconnects: settings.supervision.max_reconnects,
        }
    }

    /// A server that a command names, by its URL, which may hold credentials; else those that the one
    /// of the settings is shown hold.
    pub fn elsewhere(url: &str, settings: &Settings, login: Login) -> Self {
        let here = Self::new(settings, login);
        let identity = Identity::in_url(url).map(|identity| Arc::new(RwLock::new(identity)));
        let tls = match here.tls {
            Tls::Own { .. } => Tls::None,
            other => other,
        };
        Self { servers: vec![url.to_owned()], identity: identity.unwrap_or(here.identity), tls, ..here }
    }

    /// The same server, as one of its users.
    pub fn as_user(&self, name: &str, password: Secret) -> Self {
        let identity = Arc::new(RwLock::new(Identity::user(name, password)));
        Self { identity, inbox: INBOX_OF_USERS.to_owned(), is_ours: false, ..self.clone() }
    }

    fn take_credentials_of(&self, other: &Self) {
        // Without a panic no lock is poisoned.
        if let (Ok(mut ours), Ok(theirs)) = (self.identity.write(), other.identity.read()) {
            ours.clone_from(&theirs);
        }
    }

    /// Where it leads, for people.
    pub fn address(&self) -> String {
        redact_urls(&self.servers.join(","))
    }

    /// Connects, within at most `patience` and the time allowed for a connection attempt.
    pub async fn connect(&self, patience: Duration) -> Result<Connection, ConnectError> {
        let patience = patience.min(self.timeout);
        let (disconnected, reconnected) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let refused = PermissionViolations::new(&self.inbox, self.is_ours);
        let (gone, back, note) = (disconnected.clone(), reconnected.clone(), refused.clone());
        let was_gone = AtomicBool::new(false);
        let identity = self.identity.clone();
        let credentials = move |nonce: Vec<u8>| credentials::answer(identity.clone(), nonce);
        let mut options = ConnectOptions::with_auth_callback(credentials)
            .name("unified-nats")
            .custom_inbox_prefix(&self.inbox)
            .connection_timeout(patience)
            // Who asks says how long; ten seconds of the library would look like a broken connection.
            .request_timeout(None)
            // async-nats takes 0 for "for ever".
            .max_reconnects(self.max_reconnects.map(|most| most.max(1)))
            .event_callback(move |event| {
                match event {
                    async_nats::Event::Disconnected => {
                        was_gone.store(true, Ordering::Relaxed);
                        gone.notify_one();
                    }
                    async_nats::Event::Connected if was_gone.load(Ordering::Relaxed) => back.notify_one(),
                    async_nats::Event::ServerError(ServerError::Other(words)) => note.note(&words),
                    _ => {}
                }
                std::future::ready(())
            });
        if !self.discovers {
            options = options.ignore_discovered_servers();
        }
        let (tls, servers) = (self.tls.clone(), self.servers.clone());
        let connect = async {
            let options = match tls {
                Tls::None => Ok(options),
                // Certificates and keys are read, from a disk that may hang.
                tls => {
                    let required = spawn_blocking(move || tls.require(options)).await;
                    required.unwrap_or_else(|error| Err(ConnectError::Tls(error.to_string())))
                }
            }?;
            Ok(options.connect(&servers[..]).await)
        };
        let connected = match timeout(patience, connect).await {
            Ok(connected) => Ok(connected?),
            Err(late) => Err(late),
        };
        match connected {
            Ok(Ok(client)) => Ok(Connection { client, disconnected, reconnected, refused }),
            Ok(Err(source)) => Err(ConnectError::Connect { address: self.address(), source }),
            Err(_) => Err(ConnectError::Timeout { address: self.address(), timeout: patience }),
        }
    }

    /// Whether a server answers on the port, whatever credentials it would ask for.
    pub async fn greeting(&self, patience: Duration) -> io::Result<()> {
        match self.servers.as_slice() {
            [address] if !address.contains("://") => greeting(address, patience).await,
            // Over WebSocket or with TLS first there is none.
            _ => self.connect(patience).await.map(drop).map_err(io::Error::other),
        }
    }
}

impl Tls {
    fn require(&self, options: ConnectOptions) -> Result<ConnectOptions, ConnectError> {
        match self {
            Self::None => Ok(options),
            Self::Own { leaf, path, certificate } => {
                let config = client_config(leaf, path, certificate.as_ref()).map_err(ConnectError::Tls)?;
                Ok(options.require_tls(true).tls_client_config(config))
            }
            Self::Remote { required, authorities, certificate } => {
                let mut options = options.require_tls(*required);
                if let Some(authorities) = authorities {
                    options = options.add_root_certificates(authorities.clone());
                }
                if let Some(ClientCertificate { cert, key }) = certificate {
                    options = options.add_client_certificate(cert.clone(), key.clone());
                }
                Ok(options)
            }
        }
    }
}

/// A round trip to the server.
pub async fn ping(client: &Client, deadline: Duration) -> Result<(), String> {
    match timeout(deadline, client.flush()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer to a ping".to_owned()),
    }
}

/// Reads the greeting that a nats-server sends to every connection before anything else.
async fn greeting(address: &str, patience: Duration) -> io::Result<()> {
    let read = async {
        let mut stream = TcpStream::connect(address).await?;
        let mut start = [0u8; 5];
        stream.read_exact(&mut start).await?;
        if &start == b"INFO " { Ok(()) } else { Err(io::Error::other("something else than a nats-server answers")) }
    };
    timeout(patience, read).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
