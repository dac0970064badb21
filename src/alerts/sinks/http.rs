use std::error::Error;

use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use rustls::{ClientConfig, RootCertStore};

use super::payload::{slack, webhook};
use super::{SendError, without_secrets};
use crate::alerts::alert::Notification;
use crate::domain::Secret;
use crate::signatures;

/// What a receiver understands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Our own, as docs/observability.md describes it.
    Plain,
    Slack,
}

/// A receiver that takes a POST.
pub struct HttpSink {
    client: Client,
    url: Secret,
    shape: Shape,
}

impl HttpSink {
    pub fn new(url: Secret, shape: Shape, roots: RootCertStore) -> Result<Self, String> {
        let config = ClientConfig::builder_with_provider(signatures::provider()).with_safe_default_protocol_versions();
        let config = config.map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        // Who redirects may lead what we send, and from where, to anybody.
        let client = Client::builder().tls_backend_preconfigured(config).redirect(Policy::none());
        let client = client.user_agent(concat!("unified-nats/", env!("CARGO_PKG_VERSION"))).pool_max_idle_per_host(0);
        let client = client.build().map_err(|_| "the client for HTTP cannot be made".to_owned())?;
        Ok(Self { client, url, shape })
    }

    pub async fn send(&self, notification: &Notification) -> Result<(), SendError> {
        let body = match self.shape {
            Shape::Plain => webhook(notification),
            Shape::Slack => slack(notification),
        };
        let answer = self.client.post(self.url.expose()).json(&body).send().await;
        // What it says beyond the status may repeat the address.
        match answer {
            Ok(answer) => judge(answer.status()),
            Err(error) => Err(SendError::Failed(self.explain(&error))),
        }
    }

    /// The innermost cause; the outer ones repeat the address.
    fn explain(&self, error: &reqwest::Error) -> String {
        let mut cause: &dyn Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let text = if error.is_builder() { "its address cannot be used".to_owned() } else { cause.to_string() };
        without_secrets(&text, &secrets(&self.url))
    }
}

fn judge(status: StatusCode) -> Result<(), SendError> {
    let code = status.as_u16();
    match status {
        _ if status.is_success() => Ok(()),
        _ if status.is_redirection() => Err(SendError::Refused(format!(
            "it answers {code}, a redirect, which is not followed: give its last address"
        ))),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Err(SendError::Failed(format!("it answers {code}")))
        }
        _ if status.is_client_error() => Err(SendError::Refused(format!("it answers {code}"))),
        _ => Err(SendError::Failed(format!("it answers {code}"))),
    }
}

/// What of an address nobody may see: all but scheme, host and port.
fn secrets(url: &Secret) -> Vec<String> {
    let Ok(parsed) = Url::parse(url.expose()) else { return vec![url.expose().to_owned()] };
    let path = parsed.path().trim_start_matches('/').to_owned();
    let parts = [parsed.username(), parsed.password().unwrap_or_default(), parsed.query().unwrap_or_default()];
    [url.expose().to_owned(), path].into_iter().chain(parts.map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_status_means() {
        let outcome = |code| match judge(StatusCode::from_u16(code).unwrap()) {
            Ok(()) => "taken",
            Err(SendError::Failed(_)) => "later",
            Err(SendError::Refused(_)) => "never",
        };
        for (code, expected) in [
            (200, "taken"),
            (204, "taken"),
            (301, "never"),
            (307, "never"),
            (400, "never"),
            (404, "never"),
            (408, "later"),
            (429, "later"),
            (500, "later"),
            (503, "later"),
        ] {
            assert_eq!(outcome(code), expected, "{code}");
        }
    }

    #[test]
    fn the_secret_parts_of_an_address_are_taken_out_of_texts() {
        let url = Secret::new("https://user-a:pass-b@h.example/hook/token-c?key=token-d".into());
        let text = format!("{} user-a pass-b hook/token-c key=token-d h.example", url.expose());
        let shown = without_secrets(&text, &secrets(&url));
        for secret in ["user-a", "pass-b", "token-c", "token-d"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("h.example"), "{shown}");
    }
}
