//! nats-server's HTTP monitoring.

mod answers;

use std::path::Path;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, RequestBuilder};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;

use crate::settings::{Settings, redact_urls};
use answers::Healthz;
pub use answers::{AccountDetail, Connz, ConsumerDetail, Jsz, RaftGroup, RaftPeer, Routez, StreamDetail, Varz};

#[derive(Clone)]
pub struct Monitor {
    client: Client,
    base: String,
}

#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: String, reason: String },
    /// The server answered that something is wrong.
    #[error("{url} answers {status}: {error}")]
    Unhealthy { url: String, status: u16, error: String },
    #[error("the answer of {url} cannot be read: {reason}")]
    Unreadable { url: String, reason: String },
}

/// The longest answer that is read.
const MAX_ANSWER: usize = 8 << 20;

impl Monitor {
    /// [`None`] where the settings switch monitoring off, or do not say where it is.
    pub fn new(settings: &Settings) -> Option<Self> {
        if let Some(external) = &settings.external {
            let client = |url: &str| client_for(url, external.authorities.as_deref());
            return external.monitor.as_deref().map(|url| Self { client: client(url), base: without_slash(url) });
        }
        let monitoring = settings.server.monitoring.as_ref()?;
        let base = format!("http://{}:{}", monitoring.host.to_reach(), monitoring.port);
        Some(Self { client: direct_client(), base })
    }

    /// A server somewhere else, by the address of its monitoring: `http://host:8222`.
    pub fn at(url: &str) -> Self {
        Self { client: client_for(url, None), base: without_slash(url) }
    }

    /// The full `/healthz`: every stream and consumer is looked at.
    pub async fn healthz(&self, deadline: Duration) -> Result<(), MonitorError> {
        self.health("/healthz", deadline).await
    }

    /// The form of `/healthz` that never looks at JetStream.
    pub async fn answers(&self, deadline: Duration) -> Result<(), MonitorError> {
        self.health("/healthz?js-server-only=true", deadline).await
    }

    async fn health(&self, path: &str, deadline: Duration) -> Result<(), MonitorError> {
        let (url, status, body) = self.get(path, deadline).await?;
        parse_healthz(url, status, &body)
    }

    pub async fn varz(&self, deadline: Duration) -> Result<Varz, MonitorError> {
        self.json("/varz", deadline).await
    }

    /// The clients' connections, the first thousand of them.
    pub async fn connz(&self, deadline: Duration) -> Result<Connz, MonitorError> {
        self.json("/connz?limit=1000", deadline).await
    }

    pub async fn jsz(&self, deadline: Duration) -> Result<Jsz, MonitorError> {
        self.json("/jsz", deadline).await
    }

    /// With the streams and consumers that this server has a copy of, and who leads them.
    pub async fn jsz_of_streams(&self, deadline: Duration) -> Result<Jsz, MonitorError> {
        self.json("/jsz?streams=true&consumers=true", deadline).await
    }

    /// The routes to other nodes.
    pub async fn routez(&self, deadline: Duration) -> Result<Routez, MonitorError> {
        self.json("/routez", deadline).await
    }

    /// The address that is asked, as it may be shown.
    pub fn address(&self) -> String {
        redact_urls(&self.base)
    }

    /// Any other document.
    pub async fn read<T: DeserializeOwned>(&self, path: &str, deadline: Duration) -> Result<T, MonitorError> {
        self.json(path, deadline).await
    }

    /// What a form of `/healthz` calls the server's health, such as `ok`; [`None`] where it does not say.
    pub async fn health_status(&self, path: &str, deadline: Duration) -> Option<String> {
        let (_, _, body) = self.get(path, deadline).await.ok()?;
        let health: Healthz = serde_json::from_slice(&body).ok()?;
        Some(health.status).filter(|status| !status.is_empty())
    }

    async fn json<T: DeserializeOwned>(&self, path: &str, deadline: Duration) -> Result<T, MonitorError> {
        let (url, status, body) = self.get(path, deadline).await?;
        parse_json(url, status, &body)
    }

    async fn get(&self, path: &str, deadline: Duration) -> Result<(String, u16, Vec<u8>), MonitorError> {
        get(&self.client, format!("{}{path}", self.base), deadline).await
    }
}

/// What an answer of `/healthz` says. Public for the fuzz target `monitoring`.
pub fn parse_healthz(url: String, status: u16, body: &[u8]) -> Result<(), MonitorError> {
    if status == 200 {
        return Ok(());
    }
    let health: Healthz = serde_json::from_slice(body).unwrap_or_default();
    let error = if health.error.is_empty() { health.status } else { health.error };
    Err(MonitorError::Unhealthy { url, status, error })
}

/// The document in any other answer. Public for the fuzz target `monitoring`.
pub fn parse_json<T: DeserializeOwned>(url: String, status: u16, body: &[u8]) -> Result<T, MonitorError> {
    if status != 200 {
        let error = String::from_utf8_lossy(body).chars().take(200).collect();
        return Err(MonitorError::Unhealthy { url, status, error });
    }
    serde_json::from_slice(body).map_err(|e| MonitorError::Unreadable { url, reason: e.to_string() })
}

/// A client that talks to this machine, without TLS: a proxy of the environment has no business
/// between, and reading the authorities of the system would take longer than all the rest of a start.
pub fn direct_client() -> Client {
    let provider = crate::signatures::provider();
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let trusting_nobody = config.map(|c| c.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    let builder = Client::builder().no_proxy();
    let builder = match trusting_nobody {
        Ok(config) => builder.tls_backend_preconfigured(config),
        Err(_) => builder,
    };
    builder.build().unwrap_or_default()
}

/// A client for that address; `authorities` are trusted instead of those of the system.
fn client_for(url: &str, authorities: Option<&Path>) -> Client {
    if !url.starts_with("https://") {
        return direct_client();
    }
    let read = |path: &Path| reqwest::Certificate::from_pem_bundle(&std::fs::read(path).ok()?).ok();
    let builder = Client::builder().no_proxy();
    let builder = match authorities.and_then(read) {
        Some(authorities) => builder.tls_certs_only(authorities),
        None => builder,
    };
    // Without it there is no TLS, and each request says so.
    builder.build().unwrap_or_else(|_| direct_client())
}

fn without_slash(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

/// One GET with a deadline for everything and a bound on the answer's length. Gives the URL as it may be
/// shown, too.
pub async fn get(client: &Client, url: String, deadline: Duration) -> Result<(String, u16, Vec<u8>), MonitorError> {
    let shown_url = redact_urls(&url);
    answer_of(client.get(&url), shown_url, deadline).await
}

/// The same where somebody has to be let in: with that header Authorization.
pub async fn get_as(
    client: &Client,
    url: String,
    authorization: HeaderValue,
    deadline: Duration,
) -> Result<(String, u16, Vec<u8>), MonitorError> {
    let shown_url = redact_urls(&url);
    answer_of(client.get(&url).header(AUTHORIZATION, authorization), shown_url, deadline).await
}

async fn answer_of(
    request: RequestBuilder,
    url: String,
    deadline: Duration,
) -> Result<(String, u16, Vec<u8>), MonitorError> {
    let request = request.timeout(deadline);
    let unreachable = |error: reqwest::Error| MonitorError::Unreachable { url: url.clone(), reason: explain(&error) };
    let mut answer = request.send().await.map_err(unreachable)?;
    let status = answer.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            return Err(MonitorError::Unreadable { url, reason: "it is longer than 8 MiB".into() });
        }
    }
    Ok((url, status, body))
}

/// The innermost cause says what happened; the outer ones repeat the URL.
fn explain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
