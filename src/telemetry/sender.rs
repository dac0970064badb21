//! Hands requests to the collector over HTTP.

use std::error::Error;
use std::time::Duration;

use async_compression::tokio::bufread::GzipEncoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::io::AsyncReadExt;

use super::wire::{Message, rejected};
use crate::domain::Secret;
use crate::settings::{OtlpExport, OtlpProtocol, Url};
use crate::signatures;

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The collector has it, but for so many parts that it never wants.
    Taken { rejected: u64 },
    /// It may take the same later; it says after which time at the earliest, or nothing.
    Failed { reason: String, wait: Option<Duration> },
    /// It never will.
    Refused { reason: String },
}

/// The way to the collector.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    headers: HeaderMap,
    protocol: OtlpProtocol,
    compressed: bool,
    timeout: Duration,
}

/// The longest answer that is read.
const MAX_ANSWER: usize = 64 << 10;
/// The longest wait that a collector may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

impl Sender {
    /// Reads the authorities where TLS is asked for, so that it may wait for a disk.
    ///
    /// # Errors
    /// A sentence that says what cannot be used; no secret stands in it.
    pub fn new(export: &OtlpExport) -> Result<Self, String> {
        let needs_tls = export.traces.iter().chain(&export.metrics).any(|url| url.as_str().starts_with("https:"));
        let config = ClientConfig::builder_with_provider(signatures::provider()).with_safe_default_protocol_versions();
        let config = config.map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let roots = if needs_tls { authorities(export)? } else { RootCertStore::empty() };
        let config = config.with_root_certificates(roots).with_no_client_auth();
        // Who redirects may lead what we send, and the credentials with it, to anybody.
        let client = Client::builder().tls_backend_preconfigured(config).redirect(Policy::none());
        let client = client.user_agent(concat!("unified-nats/", env!("CARGO_PKG_VERSION")));
        let client = client.build().map_err(|_| "the client for HTTP cannot be made".to_owned())?;
        let mut headers = HeaderMap::new();
        for (name, value) in &export.headers {
            let (name, value) = header(name, value).ok_or("OTEL_EXPORTER_OTLP_HEADERS cannot be sent")?;
            headers.append(name, value);
        }
        let kind = match export.protocol {
            OtlpProtocol::HttpProtobuf => "application/x-protobuf",
            OtlpProtocol::HttpJson => "application/json",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if export.compressed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let OtlpExport { protocol, compressed, timeout, .. } = *export;
        Ok(Self { client, headers, protocol, compressed, timeout })
    }

    /// The text of a request, which may be sent again.
    pub async fn encode(&self, request: &Message) -> Vec<u8> {
        let text = match self.protocol {
            OtlpProtocol::HttpProtobuf => request.protobuf(),
            OtlpProtocol::HttpJson => request.json(),
        };
        if !self.compressed {
            return text;
        }
        let mut short = vec![];
        // Memory can always be read and written.
        let _ = GzipEncoder::new(text.as_slice()).read_to_end(&mut short).await;
        short
    }

    /// Sends it once, within the time for an export.
    pub async fn send(&self, url: &Url, text: Vec<u8>) -> Outcome {
        let request = self.client.post(url.as_str()).headers(self.headers.clone()).body(text).timeout(self.timeout);
        match request.send().await {
            Ok(answer) => self.judge(answer).await,
            Err(error) if error.is_builder() => Outcome::Refused { reason: "its address cannot be used".into() },
            Err(error) if error.is_timeout() => {
                let reason = format!("no answer within {} s", self.timeout.as_secs_f64());
                Outcome::Failed { reason, wait: None }
            }
            // The outer causes repeat the address.
            Err(error) => Outcome::Failed { reason: innermost(&error), wait: None },
        }
    }

    async fn judge(&self, mut answer: Response) -> Outcome {
        let status = answer.status();
        let wait = answer.headers().get(RETRY_AFTER).and_then(|value| retry_after(value, OffsetDateTime::now_utc()));
        if let Some(outcome) = failure(status, wait) {
            return outcome;
        }
        let mut text = vec![];
        // It has what we sent, whatever becomes of its answer.
        while let Ok(Some(chunk)) = answer.chunk().await {
            text.extend_from_slice(&chunk);
            if text.len() > MAX_ANSWER {
                break;
            }
        }
        Outcome::Taken { rejected: rejected(&text, self.protocol == OtlpProtocol::HttpJson) }
    }
}

fn header(name: &str, value: &Secret) -> Option<(HeaderName, HeaderValue)> {
    let mut value: HeaderValue = value.expose().parse().ok()?;
    value.set_sensitive(true);
    Some((name.parse().ok()?, value))
}

fn authorities(export: &OtlpExport) -> Result<RootCertStore, String> {
    let Some(path) = &export.authorities else {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let read = CertificateDer::pem_file_iter(path).and_then(|found| found.collect::<Result<Vec<_>, _>>());
    let found = read.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(found) {
        (0, _) => Err(format!("{} holds no certificate of an authority", path.display())),
        _ => Ok(roots),
    }
}

/// What a status means that is no success: which may be tried again the specification of OTLP says.
fn failure(status: StatusCode, wait: Option<Duration>) -> Option<Outcome> {
    let code = status.as_u16();
    match code {
        200..=299 => None,
        429 | 502 | 503 | 504 => Some(Outcome::Failed { reason: format!("it answers {code}"), wait }),
        300..=399 => {
            let reason = format!("it answers {code}, a redirect, which is not followed: give its last address");
            Some(Outcome::Refused { reason })
        }
        _ => Some(Outcome::Refused { reason: format!("it answers {code}") }),
    }
}

/// Seconds, or a date.
fn retry_after(value: &HeaderValue, now: OffsetDateTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Duration::try_from(OffsetDateTime::parse(text, &Rfc2822).ok()? - now).unwrap_or_default(),
    };
    Some(wait.min(LONGEST_WAIT))
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_status_means() {
        let outcome = |code| match failure(StatusCode::from_u16(code).unwrap(), None) {
            None => "taken",
            Some(Outcome::Failed { .. }) => "later",
            Some(_) => "never",
        };
        for (code, expected) in [
            (200, "taken"),
            (202, "taken"),
            (307, "never"),
            (400, "never"),
            (401, "never"),
            (413, "never"),
            (429, "later"),
            (500, "never"),
            (501, "never"),
            (502, "later"),
            (503, "later"),
            (504, "later"),
        ] {
            assert_eq!(outcome(code), expected, "{code}");
        }
    }

    #[test]
    fn a_collector_says_when_to_come_back_in_seconds_or_with_a_date() {
        let now = OffsetDateTime::from_unix_timestamp(784_111_770).unwrap();
        let wait = |text: &str| retry_after(&HeaderValue::from_str(text).unwrap(), now).map(|wait| wait.as_secs());
        assert_eq!((wait("7"), wait("100000"), wait("soon"), wait("-1")), (Some(7), Some(600), None, None));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0), "it is over");
    }
}
