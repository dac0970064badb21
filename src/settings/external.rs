//! A server that others run: where it is, and how we get in.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use super::certificates::{Role, can_sign, unchecked_authorities};
use super::reader::Reader;
use super::redaction::redact_urls;
use super::tls::{check_authorities, check_pair};
use super::variables::*;

/// External mode.
#[derive(Clone)]
pub struct ExternalServer {
    /// At least one; they may hold credentials.
    pub urls: Vec<String>,
    /// The address of its HTTP monitoring.
    pub monitor: Option<String>,
    /// A JWT and the seed that signs for it.
    pub credentials_file: Option<PathBuf>,
    pub certificate: Option<ClientCertificate>,
    /// Authorities for the server's certificate instead of those of the system.
    pub authorities: Option<PathBuf>,
    /// Nothing is said without TLS.
    pub requires_tls: bool,
}

/// What we show to a server that asks for a certificate.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl fmt::Debug for ExternalServer {
    /// Without the credentials in URLs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { urls, monitor, credentials_file, certificate, authorities, requires_tls } = self;
        f.debug_struct("ExternalServer")
            .field("urls", &redact_urls(&urls.join(",")))
            .field("monitor", &monitor.as_deref().map(redact_urls))
            .field("credentials_file", credentials_file)
            .field("certificate", certificate)
            .field("authorities", authorities)
            .field("requires_tls", requires_tls)
            .finish()
    }
}

const SCHEMES: [&str; 4] = ["nats", "tls", "ws", "wss"];

impl ExternalServer {
    /// [`None`] in embedded mode, where what is set is looked at all the same.
    pub fn read(reader: &mut Reader) -> Option<Self> {
        let external = reader.choice(&NATS_MODE, &[("embedded", false), ("external", true)]);
        let mut urls = reader.urls(&NATS_URL, &SCHEMES);
        let preferred = reader.urls(&MARKETPRISM_NATS_URL, &SCHEMES);
        if !preferred.is_empty() {
            urls = preferred;
        }
        let monitor = reader.url(&NATS_MONITOR_URL, &["http", "https"]).map(|url| url.as_str().to_owned());
        let [credentials_file, cert, key] =
            [&NATS_CREDS_FILE, &NATS_TLS_CLIENT_CERT, &NATS_TLS_CLIENT_KEY].map(|v| reader.readable_file(v));
        if !external {
            warn_about_a_remote_url(reader, &urls);
            return None;
        }
        if reader.is_set(&NATS_TLS_CLIENT_CERT) != reader.is_set(&NATS_TLS_CLIENT_KEY) {
            reader.refuse_half(&NATS_TLS_CLIENT_CERT, &NATS_TLS_CLIENT_KEY);
        }
        let asks_for_tls = reader.bool(&NATS_TLS_ENABLED);
        if asks_for_tls && urls.iter().any(|url| url.starts_with("ws://")) {
            reader.problems.add(
                "NATS_TLS_ENABLED, NATS_URL",
                "true with a ws:// URL",
                "WebSockets over TLS have wss:// URLs",
                "write wss://, or set NATS_TLS_ENABLED=false",
            );
        }
        if distinct_credentials(&urls) > 1 {
            reader.problems.add(
                "NATS_URL",
                "URLs with different credentials",
                "all servers are shown the same ones",
                "give the servers a user in common, and name it in one URL or by NATS_AUTH_USERNAME",
            );
        }
        let websockets = urls.iter().filter(|url| url.starts_with("ws")).count();
        if (1..urls.len()).contains(&websockets) {
            reader.problems.add(
                "NATS_URL",
                "WebSocket URLs beside others",
                "all servers must be reached in one way",
                "name nats:// and tls:// URLs, or ws:// and wss:// URLs",
            );
        }
        // Servers that a server names are known by their addresses alone.
        let requires_tls = asks_for_tls || (!urls.is_empty() && urls.iter().all(|url| url.starts_with("tls://")));
        let certificate = cert.zip(key).map(|(cert, key)| ClientCertificate { cert, key });
        if let Some(ClientCertificate { cert, key }) = &certificate {
            let variables = [&NATS_TLS_CLIENT_CERT, &NATS_TLS_CLIENT_KEY];
            if check_pair(reader, variables, cert, key, Role::Client).is_some()
                && let Err(reason) = can_sign(key)
            {
                reader.refuse(&NATS_TLS_CLIENT_KEY, &reason);
            }
        }
        let authorities = reader.readable_file(&NATS_TLS_CA);
        check_authorities(reader, authorities.as_ref());
        reader.warnings.extend(authorities.iter().flat_map(|path| unchecked_authorities(path)));
        Some(Self { urls, monitor, credentials_file, certificate, authorities, requires_tls })
    }

    /// The URLs for messages to people, without credentials.
    pub fn redacted_urls(&self) -> String {
        redact_urls(&self.urls.join(","))
    }
}

/// How many users or tokens the URLs name.
fn distinct_credentials(urls: &[String]) -> usize {
    let credentials = |url: &String| Some(url.split_once("://")?.1.rsplit_once('@')?.0.to_owned());
    urls.iter().filter_map(credentials).collect::<BTreeSet<_>>().len()
}

/// A server elsewhere that nobody would ever connect to.
fn warn_about_a_remote_url(reader: &mut Reader, urls: &[String]) {
    if let Some(url) = urls.iter().find(|url| !is_local(url)) {
        reader.warnings.push(format!(
            "NATS_URL names {}, which is not this machine, and is unused here: this is embedded mode with a \
             nats-server of its own; is NATS_MODE=external meant?",
            without_credentials(url)
        ));
    }
}

fn is_local(url: &str) -> bool {
    let address = without_credentials(url);
    let address = address.split_once("://").map_or(address.as_str(), |(_, rest)| rest);
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    // A container's own service name in compose files of this project counts as local, too.
    ["localhost", "[::1]", "0.0.0.0", "nats-unified"].contains(&host) || host.starts_with("127.")
}

fn without_credentials(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, address))) => format!("{scheme}://{address}"),
        _ => url.to_owned(),
    }
}
