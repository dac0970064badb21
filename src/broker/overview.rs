//! The server and what its streams hold, for people and dashboards. It is made at most once a second,
//! however many ask.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::ServerInfo;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::{Broker, Failure};
use crate::nats::{ConsumerInfo, JetStream, Monitor, StreamInfo, Varz};
use crate::settings::Settings;

/// For how long an overview is given to whoever asks.
const FRESH: Duration = Duration::from_secs(1);
/// Lists of consumers that are asked for at a time.
const AT_A_TIME: usize = 32;

/// What was seen at one moment.
#[derive(Clone, Debug)]
pub struct Overview {
    pub server: ServerInfo,
    /// [`None`] where there is no monitoring.
    pub monitored: Option<Varz>,
    pub streams: Vec<StreamInfo>,
    /// Messages that JetStream has stored since each stream was made.
    pub published: u64,
    /// Deliveries that consumers have acknowledged.
    pub consumed: u64,
}

/// The last overview.
#[derive(Default)]
pub(super) struct LastOverview {
    /// Whoever comes while one is being made waits for that one.
    making: Mutex<()>,
    made: std::sync::Mutex<Option<Made>>,
}

#[derive(Clone)]
struct Made {
    at: Instant,
    /// How many changes the broker had made by then.
    changes: u64,
    overview: Arc<Overview>,
}

impl LastOverview {
    fn made(&self) -> MutexGuard<'_, Option<Made>> {
        // It is replaced as a whole.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// The server and its streams, as of at most a second ago, and with everything that was changed over this
    /// broker before.
    pub async fn overview(&self, settings: &Settings, deadline: Instant) -> Result<Arc<Overview>, Failure> {
        let late = || Failure::Late("the server and its streams were not described in time".to_owned());
        let last = &self.0.last_overview;
        let _turn = timeout_at(deadline, last.making.lock()).await.map_err(|_| late())?;
        let changes = self.0.changes.count();
        if let Some(made) = &*last.made()
            && made.at.elapsed() < FRESH
            && made.changes == changes
        {
            return Ok(made.overview.clone());
        }
        let described = timeout_at(deadline, self.describe(settings, deadline)).await.unwrap_or_else(|_| Err(late()));
        let overview = Arc::new(described?);
        *last.made() = Some(Made { at: Instant::now(), changes, overview: overview.clone() });
        Ok(overview)
    }

    /// The last overview that there was, and how old it is, whatever has become of the server since.
    pub fn last_overview(&self) -> Option<(Duration, Arc<Overview>)> {
        self.0.last_overview.made().clone().map(|made| (made.at.elapsed(), made.overview))
    }

    async fn describe(&self, settings: &Settings, deadline: Instant) -> Result<Overview, Failure> {
        let session = self.control(deadline).await?;
        let patience = deadline.saturating_duration_since(Instant::now());
        let monitored = async {
            match Monitor::new(settings) {
                Some(monitor) => monitor.varz(patience).await.ok(),
                None => None,
            }
        };
        if !settings.jetstream.enabled {
            let (server, monitored) = (session.client().server_info(), monitored.await);
            return Ok(Overview { server, monitored, streams: vec![], published: 0, consumed: 0 });
        }
        let jetstream = self.jetstream(deadline).await?;
        let (monitored, streams) = tokio::join!(monitored, jetstream.streams());
        let streams = streams?.known;
        let consumed = consumed(&jetstream, &streams).await;
        let published = streams.iter().map(|stream| stream.state.last_seq).sum();
        Ok(Overview { server: session.client().server_info(), monitored, streams, published, consumed })
    }
}

async fn consumed(jetstream: &JetStream, streams: &[StreamInfo]) -> u64 {
    let read = streams.iter().filter(|stream| stream.state.consumer_count > 0);
    let lists: Vec<_> = read.map(|stream| jetstream.consumers(stream.name())).collect();
    let mut lists = stream::iter(lists).buffer_unordered(AT_A_TIME);
    let mut consumed = 0;
    while let Some(consumers) = lists.next().await {
        // A stream may have gone meanwhile.
        consumed += consumers.iter().flat_map(|list| &list.known).map(acknowledged).sum::<u64>();
    }
    consumed
}

fn acknowledged(consumer: &ConsumerInfo) -> u64 {
    consumer.state.get("ack_floor").and_then(|floor| floor.get("consumer_seq")).and_then(Value::as_u64).unwrap_or(0)
}
