use std::sync::Arc;
use std::time::Instant;

use axum::extract::FromRef;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::probes::Views;
use crate::broker::{Broker, Users};
use crate::settings::Settings;

/// What handlers have to do with.
#[derive(Clone)]
pub struct Api {
    pub broker: Broker,
    /// The broker as users of nats-server may use it.
    pub users: Users,
    pub views: Views,
    pub started: Instant,
    /// Others after a reload.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// The port closes: answers that have no end come to it.
    pub shutdown: CancellationToken,
}

impl Api {
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.borrow().clone()
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
