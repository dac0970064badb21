//! How our own commands ask a broker that runs.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::health::{Health, State};
use crate::nats::{direct_client, get};
use crate::settings::ApiSettings;

/// Asks the API port that the settings name.
pub struct ApiClient {
    base: String,
    deadline: Duration,
}

impl ApiClient {
    pub fn new(settings: &ApiSettings, deadline: Duration) -> Self {
        Self { base: format!("http://{}:{}", settings.host.to_reach(), settings.port), deadline }
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

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<(String, u16, Result<T, String>), String> {
        let answer = get(&direct_client(), format!("{}{path}", self.base), self.deadline).await;
        let (url, status, body) = answer.map_err(|error| error.to_string())?;
        let read = serde_json::from_slice(&body).map_err(|error| format!("its answer cannot be read: {error}"));
        Ok((url, status, read))
    }
}
