//! What JetStream tells of by itself, counted by kind. No system account is needed to hear it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::select_all;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::exposition::{Families, Kind, Labels};
use crate::broker::{Broker, Session};
use crate::nats::COUNTED_ADVISORIES;

/// Time for a connection; a server that is away is waited for again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to listen.
const PAUSE: Duration = Duration::from_secs(1);

type Counts = [AtomicU64; COUNTED_ADVISORIES.len()];

/// Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Advisories {
    counts: Arc<Counts>,
    wanted: Arc<Notify>,
}

impl Advisories {
    /// Somebody wants to know: it is listened from now on.
    pub fn want(&self) {
        self.wanted.notify_one();
    }

    /// Listens to each server that runs, once somebody wants to know.
    pub async fn run(self, broker: Broker) {
        self.wanted.notified().await;
        loop {
            // None while no server runs.
            if let Ok(session) = broker.control(Instant::now() + PATIENCE).await {
                tokio::select! {
                    () = self.listen(&session) => {}
                    () = session.gone() => {}
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn listen(&self, session: &Session) {
        let subscribed = COUNTED_ADVISORIES.map(|(_, subject)| session.client().subscribe(subject));
        let subscriptions = match try_join_all(subscribed).await {
            Ok(subscriptions) => subscriptions,
            Err(error) => return tracing::debug!("cannot listen to advisories of JetStream: {error}"),
        };
        let numbered = subscriptions.into_iter().enumerate().map(|(at, heard)| heard.map(move |_| at));
        let mut heard = select_all(numbered);
        while let Some(at) = heard.next().await {
            self.counts[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn add(&self, families: &mut Families) {
        let help = "What JetStream has told of by itself since the first scrape";
        let mut metric = families.metric("unified_nats_js_advisories_total", Kind::Counter, help);
        for ((kind, _), count) in COUNTED_ADVISORIES.iter().zip(self.counts.iter()) {
            metric.add(&Labels::none().with("kind", kind), count.load(Ordering::Relaxed) as f64);
        }
    }
}
