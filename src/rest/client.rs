//! How our own commands ask a broker that runs.

use std::time::Duration;

use reqwest::Client;
use reqwest::header::HeaderValue;
use serde::de::DeserializeOwned;

use super::health::{Health, State};
use crate::nats::{direct_client, get, get_as};
use crate::settings::Settings;

/// Asks the API port that the settings name.
pub struct ApiClient {
    client: Client,
    base: String,
    /// Where metrics are had; [`None`] where they are not served.
    metrics: Option<String>,
    deadline: Duration,
}

impl ApiClient {
    pub fn new(settings: &Settings, deadline: Duration) -> Self {
        let Settings { api, metrics, .. } = settings;
        let base = format!("http://{}:{}", api.host.to_reach(), api.port);
        let own_port = metrics.enabled.then(|| format!("http://{}:{}", metrics.host.to_reach(), metrics.port));
        // The port of their own asks nobody who he is.
        let metrics = own_port.or_else(|| api.enabled.then(|| base.clone()));
        Self { client: direct_client(), base, metrics, deadline }
    }

    /// Whether traffic may come, or why not.
    pub async fn readyz(&self) -> Result<(), String> {
        let (url, status, state) = self.ask::<State>("/readyz").await?;
        if status == 200 {
            return Ok(());
        }
        let state = state.map_err(|error| format!("{url} answers {status}, and {error}"))?;
        let reason = state.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        Err(format!("{url} answers {status}, {}{reason}", state.state))
    }

    pub async fn health(&self) -> Result<Health, String> {
        let (url, _, health) = self.ask("/health").await?;
        health.map_err(|error| format!("{url}: {error}"))
    }

    /// All metrics as text, from the API port or from the port of their own. `shown` lets in, where somebody
    /// has to be.
    pub async fn metrics(&self, shown: Option<HeaderValue>) -> Result<String, String> {
        let base =
            self.metrics.as_ref().ok_or("metrics are not served: set API_ENABLED or PROMETHEUS_ENABLED to true")?;
        let url = format!("{base}/metrics");
        let answer = match shown {
            Some(shown) => get_as(&self.client, url, shown, self.deadline).await,
            None => get(&self.client, url, self.deadline).await,
        };
        let (url, status, body) = answer.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&body).into_owned();
        if status == 200 {
            return Ok(text);
        }
        let problem = serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default();
        let message = problem["message"].as_str().map(|message| format!(": {message}")).unwrap_or_default();
        Err(format!("{url} answers {status}{message}"))
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<(String, u16, Result<T, String>), String> {
        let answer = get(&self.client, format!("{}{path}", self.base), self.deadline).await;
        let (url, status, body) = answer.map_err(|error| error.to_string())?;
        let read = serde_json::from_slice(&body).map_err(|error| format!("its answer cannot be read: {error}"));
        Ok((url, status, read))
    }
}
