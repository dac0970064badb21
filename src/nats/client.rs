use std::io;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_nats::{Auth, Client, ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::own_certificate::OwnCertificate;
use crate::domain::Secret;
use crate::settings::{Authentication, Settings, redact_urls};

/// How to reach the server that this machine runs.
#[derive(Clone)]
pub struct Link {
    pub address: String,
    /// What a connection asks for each time it is made, so that one that outlives a change of
    /// credentials does not try old ones again and again.
    authentication: Arc<RwLock<Authentication>>,
    tls: Option<Tls>,
    timeout: Duration,
    max_reconnects: Option<usize>,
}

#[derive(Clone)]
struct Tls {
    /// The certificate that the server was started with.
    leaf: CertificateDer<'static>,
    /// Where it lies; a renewed one is expected as soon as it lies there.
    path: PathBuf,
    own_certificate: Option<OwnCertificate>,
}

/// A client, and how to learn that it has given up.
pub struct Connection {
    pub client: Client,
    disconnected: Arc<Notify>,
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

impl Link {
    /// `own_certificate` is needed where the server asks clients for one.
    pub fn new(settings: &Settings, own_certificate: Option<OwnCertificate>) -> Self {
        Self {
            address: format!("{}:{}", settings.server.host.to_reach(), settings.server.port),
            authentication: Arc::new(RwLock::new(settings.authentication.clone())),
            tls: settings.tls.as_ref().map(|tls| Tls {
                leaf: tls.leaf.clone(),
                path: tls.cert.clone(),
                own_certificate,
            }),
            timeout: settings.supervision.connect_timeout,
            max_reconnects: settings.supervision.max_reconnects,
        }
    }

    /// A server somewhere else, by its URL, which may hold credentials; else those of the settings hold.
    pub fn elsewhere(url: &str, settings: &Settings) -> Self {
        let here = Self::new(settings, None);
        let authentication = match credentials_in(url) {
            Some(credentials) => Arc::new(RwLock::new(credentials)),
            None => here.authentication.clone(),
        };
        Self { address: url.to_owned(), authentication, tls: None, ..here }
    }

    /// Has connections that are made over `self` ask for what `other` asks for from now on.
    pub fn take_credentials_of(&self, other: &Self) {
        // Without a panic no lock is poisoned.
        if let (Ok(mut ours), Ok(theirs)) = (self.authentication.write(), other.authentication.read()) {
            ours.clone_from(&theirs);
        }
    }

    /// Connects, within at most `patience` and the time allowed for a connection attempt.
    pub async fn connect(&self, patience: Duration) -> Result<Connection, ConnectError> {
        let patience = patience.min(self.timeout);
        let disconnected = Arc::new(Notify::new());
        let notify = disconnected.clone();
        let authentication = self.authentication.clone();
        let credentials = move |_| std::future::ready(Ok(as_auth(&authentication)));
        let mut options = ConnectOptions::with_auth_callback(credentials)
            .name("unified-nats")
            .connection_timeout(patience)
            // async-nats takes 0 for "for ever".
            .max_reconnects(self.max_reconnects.map(|most| most.max(1)))
            .event_callback(move |event| {
                if event == async_nats::Event::Disconnected {
                    notify.notify_one();
                }
                std::future::ready(())
            })
            // Addresses that a cluster advertises may not be reachable, and only our own server counts.
            .ignore_discovered_servers();
        if let Some(tls) = &self.tls {
            options = options.require_tls(true).tls_client_config(client_config(tls)?);
        }
        match timeout(patience, options.connect(&self.address)).await {
            Ok(Ok(client)) => Ok(Connection { client, disconnected }),
            Ok(Err(source)) => Err(ConnectError::Connect { address: redact_urls(&self.address), source }),
            Err(_) => Err(ConnectError::Timeout { address: redact_urls(&self.address), timeout: patience }),
        }
    }
}

/// `nats://user:password@host` or `nats://token@host`; what would end a part is percent-encoded.
fn credentials_in(url: &str) -> Option<Authentication> {
    let address: ServerAddr = url.parse().ok()?;
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let name = decoded(address.username()?);
    Some(match address.password() {
        Some(password) => Authentication::User { name, password: Secret::new(decoded(password)) },
        None => Authentication::Token(Secret::new(name)),
    })
}

fn as_auth(authentication: &RwLock<Authentication>) -> Auth {
    let mut auth = Auth::new();
    match authentication.read().map(|authentication| authentication.clone()) {
        Ok(Authentication::User { name, password }) => {
            auth.username = Some(name);
            auth.password = Some(password.expose().to_owned());
        }
        Ok(Authentication::Token(token)) => auth.token = Some(token.expose().to_owned()),
        Ok(Authentication::Open) | Err(_) => {}
    }
    auth
}

/// Reads the greeting that a nats-server sends to every connection before anything else: enough to
/// know that the port answers, whatever credentials it would ask for.
pub async fn greeting(address: &str, patience: Duration) -> io::Result<()> {
    let read = async {
        let mut stream = TcpStream::connect(address).await?;
        let mut start = [0u8; 5];
        stream.read_exact(&mut start).await?;
        if &start == b"INFO " { Ok(()) } else { Err(io::Error::other("something else than a nats-server answers")) }
    };
    timeout(patience, read).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn client_config(tls: &Tls) -> Result<ClientConfig, ConnectError> {
    let on_disk = CertificateDer::from_pem_file(&tls.path).ok();
    let expected = on_disk.into_iter().chain([tls.leaf.clone()]).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(ExactCertificate { expected, provider: provider.clone() });
    let failed = |error: &dyn std::fmt::Display| ConnectError::Tls(error.to_string());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(own) = &tls.own_certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&own.cert).map_err(|e| failed(&e))?.collect();
    let key = PrivateKeyDer::from_pem_file(&own.key).map_err(|e| failed(&e))?;
    builder.with_client_auth_cert(chain.map_err(|e| failed(&e))?, key).map_err(|e| failed(&e))
}

/// Accepts exactly the certificate that the settings name. We dial a loopback address, which the
/// certificate does not bear, but we know the very certificate the server must show.
#[derive(Debug)]
struct ExactCertificate {
    expected: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ExactCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.expected.iter().any(|expected| expected == end_entity) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("the server does not show the certificate of NATS_TLS_CERT".into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
