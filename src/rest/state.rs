use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::FromRef;
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::probes::Views;
use crate::broker::{AckTokens, Broker, Users};
use crate::http::traffic::Traffic;
use crate::settings::Settings;
use crate::streams::Desired;

/// What handlers have to do with. Each request takes some clones, which cost one count each.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

pub struct Parts {
    pub broker: Broker,
    /// The broker as users of nats-server may use it.
    pub users: Users,
    pub views: Views,
    pub started: Instant,
    /// Others after a reload.
    pub settings: watch::Receiver<Arc<Settings>>,
    pub declared: Declared,
    pub ack_tokens: Arc<AckTokens>,
    /// Counts what is asked.
    pub traffic: Traffic,
    /// Answers `GET /metrics`.
    pub scrape: Scrape,
    pub home: Home,
    /// The port closes: answers that have no end come to it.
    pub shutdown: CancellationToken,
}

impl std::ops::Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Api {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.settings.borrow().clone()
    }
}

/// Metrics as text, in the format that the `Accept` header asks for.
pub type Scrape = Arc<dyn Fn(HeaderMap) -> BoxFuture<'static, Response> + Send + Sync>;

/// The dashboard.
pub struct Home {
    /// Answers `GET /`, with data or without.
    pub page: Arc<dyn Fn(bool) -> BoxFuture<'static, Response> + Send + Sync>,
    /// Answers with what changes.
    pub live: Arc<dyn Fn() -> Response + Send + Sync>,
    /// What the page loads.
    pub assets: Router,
}

/// What settings say about streams.
#[derive(Clone)]
pub struct Declared {
    /// Others after a reload.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// Hears of each stream before it is deleted.
    pub deleting: Arc<dyn Fn(String) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Declared {
    pub fn desired(&self) -> Arc<Desired> {
        self.desired.borrow().clone()
    }
}

/// The broker as the one who asks may use it. `admit` puts it into each request, so that no handler can
/// act as somebody else.
#[derive(Clone)]
pub struct Acting(pub Broker);

impl FromRef<Api> for Views {
    fn from_ref(api: &Api) -> Self {
        api.views.clone()
    }
}
