//! What JetStream tells of by itself, counted by kind. No system account is needed to hear it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::select_all;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::consumers::Name;
use super::exposition::{Families, Kind, Labels};
use crate::broker::{Broker, Session};
use crate::nats::COUNTED_ADVISORIES;

/// Time for a connection; a server that is away is waited for again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to listen.
const PAUSE: Duration = Duration::from_secs(1);

/// Why nats-server gives up a message that a consumer was sent and has not acknowledged, in its words: a limit,
/// its age, a newer one or a deletion has removed it (2.10 to 2.15).
const REMOVED: &str = "Unacknowledged message was deleted";
/// The kind that tells of that.
const TERMINATED: &str = "terminated";
/// Consumers that are counted between two scrapes at most.
const MOST_CONSUMERS: usize = 4096;

type Counts = [AtomicU64; COUNTED_ADVISORIES.len()];

/// Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Advisories {
    counts: Arc<Counts>,
    removed: Arc<Mutex<HashMap<Name, u64>>>,
}

/// What tells that a message is given up.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Terminated {
    stream: String,
    consumer: String,
    reason: String,
}

impl Advisories {
    /// Listens to each server that runs.
    pub async fn run(self, broker: Broker) {
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
        let numbered = subscriptions.into_iter().enumerate().map(|(at, heard)| heard.map(move |message| (at, message)));
        let mut heard = select_all(numbered);
        while let Some((at, message)) = heard.next().await {
            self.counts[at].fetch_add(1, Ordering::Relaxed);
            if COUNTED_ADVISORIES[at].0 == TERMINATED {
                self.terminated(&message.payload);
            }
        }
    }

    fn terminated(&self, payload: &[u8]) {
        let Terminated { stream, consumer, reason } = serde_json::from_slice(payload).unwrap_or_default();
        if reason != REMOVED {
            return;
        }
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        let name = Name { stream, consumer };
        if removed.len() < MOST_CONSUMERS || removed.contains_key(&name) {
            *removed.entry(name).or_default() += 1;
        }
    }

    /// How many messages were removed since the last time that a consumer had been sent and had not
    /// acknowledged.
    pub fn take_removed(&self) -> HashMap<Name, u64> {
        std::mem::take(&mut self.removed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn add(&self, families: &mut Families) {
        let help = "What JetStream has told of by itself since the broker started";
        let mut metric = families.metric("unified_nats_js_advisories_total", Kind::Counter, help);
        for ((kind, _), count) in COUNTED_ADVISORIES.iter().zip(self.counts.iter()) {
            metric.add(&Labels::none().with("kind", kind), count.load(Ordering::Relaxed) as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_removed_counts_as_lost() {
        let advisories = Advisories::default();
        for payload in [
            r#"{"stream":"S","consumer":"C","reason":"Unacknowledged message was deleted","stream_seq":3}"#,
            r#"{"stream":"S","consumer":"C","reason":"Unacknowledged message was deleted","stream_seq":4}"#,
            r#"{"stream":"S","consumer":"C","reason":"I do not want it"}"#,
            r#"{"stream":"S","consumer":"C"}"#,
            "nothing",
        ] {
            advisories.terminated(payload.as_bytes());
        }
        let name = Name { stream: "S".into(), consumer: "C".into() };
        assert_eq!(advisories.take_removed(), HashMap::from([(name, 2)]));
        assert!(advisories.take_removed().is_empty(), "once");
    }
}
