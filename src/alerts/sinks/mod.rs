//! Who hears of alerts: a webhook, Slack, a mailbox. Each says with what outcome it took one.
//!
//! The addresses are credentials: they stand in no error.

mod http;
mod mail;
mod payload;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::alert::Notification;
use crate::settings::AlertSettings;
use http::{HttpSink, Shape};
use mail::MailSink;

/// Time for one notification to be taken.
pub const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    Webhook,
    Slack,
    Email,
}

impl SinkKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Slack => "slack",
            Self::Email => "email",
        }
    }
}

impl fmt::Display for SinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a receiver did not take a notification.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It may take it later.
    #[error("{0}")]
    Failed(String),
    /// It never will.
    #[error("{0}")]
    Refused(String),
}

/// One receiver.
#[derive(Clone)]
pub struct Sink {
    pub kind: SinkKind,
    way: Arc<Way>,
}

enum Way {
    Http(HttpSink),
    Mail(Box<MailSink>),
    /// What it needs could not be made.
    Broken(String),
}

impl Sink {
    /// Hands the notification over, within a deadline.
    pub async fn send(&self, notification: &Notification, deadline: Duration) -> Result<(), SendError> {
        let sending = async {
            match &*self.way {
                Way::Http(sink) => sink.send(notification).await,
                Way::Mail(sink) => sink.send(notification).await,
                Way::Broken(reason) => Err(SendError::Failed(reason.clone())),
            }
        };
        let late = |_| Err(SendError::Failed(format!("no answer within {} s", deadline.as_secs_f32())));
        tokio::time::timeout(deadline, sending).await.unwrap_or_else(late)
    }
}

/// The authorities that vouch for receivers: those of browsers, and those of the system, which may know
/// more. It reads files.
pub fn authorities() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

fn root_store(authorities: &[CertificateDer<'static>]) -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.add_parsable_certificates(authorities.iter().cloned());
    roots
}

/// The receivers that the settings name.
pub fn sinks(settings: &AlertSettings, authorities: &[CertificateDer<'static>]) -> Vec<Sink> {
    let sink = |kind, way: Result<Way, String>| {
        let way = Arc::new(way.unwrap_or_else(Way::Broken));
        Sink { kind, way }
    };
    let http = |kind, shape, url: &Option<_>| {
        let url = url.clone()?;
        Some(sink(kind, HttpSink::new(url, shape, root_store(authorities)).map(Way::Http)))
    };
    let mail = settings
        .mail
        .as_ref()
        .map(|mail| sink(SinkKind::Email, MailSink::new(mail, authorities).map(|mail| Way::Mail(Box::new(mail)))));
    let webhook = http(SinkKind::Webhook, Shape::Plain, &settings.webhook);
    let slack = http(SinkKind::Slack, Shape::Slack, &settings.slack);
    webhook.into_iter().chain(slack).chain(mail).collect()
}

/// A text of others without what is secret.
fn without_secrets(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| secret.len() > 1) {
        text = text.replace(secret.as_str(), "(redacted)");
    }
    text
}
