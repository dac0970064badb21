//! What nats-server shows of itself, and how long ago it did where it shows nothing.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::broker::{Broker, Overview};
use crate::nats::StreamState;
use crate::settings::Settings;
use crate::status::BrokerStatus;

#[derive(Serialize, ToSchema)]
pub struct NatsServer {
    pub status: &'static str,
    pub server_info: Value,
}

/// The last figures that the server gave, where it gives none now.
#[derive(Serialize, ToSchema)]
pub struct LastKnown {
    /// How old they are.
    age_seconds: f64,
    streams: usize,
    messages: u64,
    bytes: u64,
    consumers: u64,
    published: u64,
    consumed: u64,
}

/// What the server shows of itself, or how long ago it did.
pub enum Figures {
    Now(Arc<Overview>),
    Unknown(Option<LastKnown>),
}

impl Figures {
    pub async fn of(broker: &Broker, status: &BrokerStatus, settings: &Settings, deadline: Instant) -> Self {
        let overview = match status.generation {
            Some(_) => broker.overview(settings, deadline).await.ok(),
            None => None,
        };
        let last = || broker.last_overview().map(|(age, overview)| LastKnown::of(age, &overview));
        overview.map_or_else(|| Self::Unknown(last()), Self::Now)
    }

    /// [`None`] where the server does not answer.
    pub fn now(&self) -> Option<&Overview> {
        match self {
            Self::Now(overview) => Some(overview),
            Self::Unknown(_) => None,
        }
    }

    pub fn last_known(self) -> Option<LastKnown> {
        match self {
            Self::Now(_) => None,
            Self::Unknown(last) => last,
        }
    }

    /// A sum over all streams; [`None`] where the server does not answer.
    pub fn sum(&self, figure: impl Fn(&StreamState) -> u64) -> Option<u64> {
        self.now().map(|overview| sum(overview, figure))
    }

    /// The word for the server: one that does not answer may run or not.
    pub fn server_word(&self, status: &BrokerStatus) -> &'static str {
        match self {
            Self::Unknown(_) if status.is_ready => "unknown",
            Self::Unknown(_) | Self::Now(_) => word(status),
        }
    }

    pub fn server(&self, status: &BrokerStatus) -> NatsServer {
        let server_info = self.now().map(server_info).unwrap_or(Value::Null);
        NatsServer { status: self.server_word(status), server_info }
    }
}

impl LastKnown {
    fn of(age: Duration, overview: &Overview) -> Self {
        Self {
            age_seconds: (age.as_secs_f64() * 1e3).round() / 1e3,
            streams: overview.streams.len(),
            messages: sum(overview, |state| state.messages),
            bytes: sum(overview, |state| state.bytes),
            consumers: sum(overview, |state| state.consumer_count),
            published: overview.published,
            consumed: overview.consumed,
        }
    }
}

fn sum(overview: &Overview, figure: impl Fn(&StreamState) -> u64) -> u64 {
    overview.streams.iter().map(|stream| figure(&stream.state)).sum()
}

/// In the words of the old services, `running` wherever traffic is served.
pub fn word(status: &BrokerStatus) -> &'static str {
    if status.is_ready { "running" } else { status.state }
}

fn server_info(overview: &Overview) -> Value {
    let server = &overview.server;
    let monitored = overview.monitored.as_ref();
    let of = |key: &str| monitored.and_then(|varz| varz.rest.get(key)).cloned().unwrap_or(Value::Null);
    json!({
        "server_id": server.server_id,
        "server_name": server.server_name,
        "version": server.version,
        "go": server.go,
        "host": server.host,
        "port": server.port,
        "max_connections": of("max_connections"),
        "connections": monitored.map(|varz| varz.connections),
        "total_connections": of("total_connections"),
        "routes": of("routes"),
        "remotes": of("remotes"),
        "in_msgs": monitored.map(|varz| varz.in_msgs),
        "out_msgs": monitored.map(|varz| varz.out_msgs),
        "in_bytes": monitored.map(|varz| varz.in_bytes),
        "out_bytes": monitored.map(|varz| varz.out_bytes),
    })
}
