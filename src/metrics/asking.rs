//! What nats-server's monitoring is asked for, which is bounded whatever there is.

use futures_util::future::join_all;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::counting::FIRST;
use super::monitored::{Connections, HEALTH, Monitored, Named};
use crate::json::Plain;
use crate::nats::{Jsz, Monitor, MonitorError};

/// Connections in an answer of `/connz`, as many as it gives by itself, and answers that are read.
const PAGE: u64 = 1024;
const MOST_PAGES: u64 = 10;

/// Everything at once; what does not answer in time is missing.
pub async fn ask(monitor: &Monitor) -> Monitored {
    let [varz, routez, subsz] = ["/varz", "/routez", "/subsz"].map(|path| document(monitor, path));
    let health = HEALTH.map(|(path, _)| monitor.health_status(path, FIRST));
    let connections = async { timeout(FIRST, connections(monitor)).await.ok().flatten() };
    let (varz, (jsz, names_consumers), connections, health, routez, subsz) =
        tokio::join!(varz, jsz(monitor), connections, join_all(health), routez, subsz);
    let mut statuses = health.into_iter();
    let health = [(); HEALTH.len()].map(|()| statuses.next().flatten());
    let named = varz.as_ref().and_then(Named::of);
    Monitored { url: monitor.address(), varz, named, connections, jsz, names_consumers, health, routez, subsz }
}

pub async fn read<T: DeserializeOwned>(monitor: &Monitor, path: &str) -> Option<T> {
    monitor.read(path, FIRST).await.inspect_err(|error| tracing::debug!("{error}")).ok()
}

async fn document(monitor: &Monitor, path: &str) -> Option<Value> {
    read::<Plain>(monitor, path).await.map(|document| document.0)
}

/// Streams and consumers that an answer may name: nats-server takes about a millisecond for thirty of them, and
/// a kilobyte for each.
const MOST_NAMED: u64 = 5000;

/// How much of `/jsz` may be asked for, and whether that names consumers.
const FORMS: [(&str, bool); 2] =
    [("/jsz?consumers=true&config=true&raft=true", true), ("/jsz?streams=true&config=true&raft=true", false)];

/// What is asked for where there are so many, and then where that answer is too long; nothing where the totals
/// are enough.
fn forms(streams: u64, consumers: u64) -> &'static [(&'static str, bool)] {
    match (streams, consumers) {
        _ if streams + consumers <= MOST_NAMED => &FORMS,
        _ if streams <= MOST_NAMED => &FORMS[1..],
        _ => &[],
    }
}

/// With streams and consumers, or with fewer of them where they are too many; and whether it names consumers.
async fn jsz(monitor: &Monitor) -> (Option<Jsz>, bool) {
    let asked = async {
        let totals: Jsz = read(monitor, "/jsz").await?;
        for (path, names_consumers) in forms(totals.streams, totals.consumers) {
            match monitor.read(path, FIRST).await {
                Ok(jsz) => return Some((jsz, *names_consumers)),
                Err(MonitorError::Unreadable { .. }) => {}
                Err(error) => {
                    tracing::debug!("{error}");
                    return None;
                }
            }
        }
        Some((totals, false))
    };
    let (jsz, names_consumers) = timeout(FIRST, asked).await.ok().flatten().unzip();
    (jsz, names_consumers.unwrap_or_default())
}

async fn connections(monitor: &Monitor) -> Option<Connections> {
    #[derive(Deserialize)]
    struct Page {
        total: u64,
        connections: Option<Vec<Connection>>,
    }
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Connection {
        pending_bytes: u64,
        subscriptions: u64,
        in_bytes: u64,
        out_bytes: u64,
        in_msgs: u64,
        out_msgs: u64,
    }
    let mut sum = Connections { limit: PAGE, ..Connections::default() };
    for page in 0..MOST_PAGES {
        let path = format!("/connz?limit={PAGE}&offset={}", page * PAGE);
        let answer: Page = read(monitor, &path).await?;
        sum.total = answer.total;
        for connection in answer.connections.iter().flatten() {
            sum.num_connections += 1;
            sum.pending_bytes += connection.pending_bytes;
            sum.subscriptions += connection.subscriptions;
            sum.in_bytes += connection.in_bytes;
            sum.out_bytes += connection.out_bytes;
            sum.in_msgs += connection.in_msgs;
            sum.out_msgs += connection.out_msgs;
        }
        if (page + 1) * PAGE >= sum.total {
            break;
        }
    }
    sum.omitted = sum.total.saturating_sub(MOST_PAGES * PAGE);
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_bounded_whatever_there_is() {
        for (streams, consumers, asked) in [
            (0, 0, &FORMS[..]),
            (1000, 4000, &FORMS),
            (1000, 4001, &FORMS[1..]),
            (5000, 50_000, &FORMS[1..]),
            (5001, 0, &[]),
        ] {
            assert_eq!(forms(streams, consumers), asked, "{streams} {consumers}");
        }
    }
}
