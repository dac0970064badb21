//! Tasks about messages that may be missing: one looks at every stream again and again, one hears what
//! clients delete, one what a server finds when it starts, one reads each stream through after each start
//! of the server.

use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::domain::Generation;
use crate::integrity::IntegrityMonitor;
use crate::nats::{API_ADVISORIES, JetStream};
use crate::supervisor::{ConditionKind, Handle, Notice, Replacement, Snapshot, State};
use crate::ticks;

/// The connection to the server that runs now.
pub type Connected = watch::Receiver<Option<(Generation, Client)>>;

/// Looking at every stream takes at most that share of the time.
const LOOK_SHARE: u32 = 50;
/// Time for one request. A cluster that waits for a node takes four seconds to list its streams.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two attempts to read the streams through.
const RETRY: Duration = Duration::from_secs(30);

/// Tells the supervisor what is missing, as soon as it is seen. Runs for ever.
pub async fn check_streams(handle: Handle, client: Connected, integrity: IntegrityMonitor, period: Duration) {
    let mut told = None;
    loop {
        let connection = client.borrow().clone();
        let began = Instant::now();
        if let Some((generation, client)) = connection {
            let jetstream = JetStream::new(client, DEADLINE);
            // What cannot be asked is not known, and whether the server answers is for others to say.
            if let Ok(missing) = integrity.check_streams(&jetstream, generation).await {
                let news = Some((generation, missing));
                if told != news {
                    match news.clone() {
                        Some((_, Some(missing))) => {
                            handle.report_failed(generation, ConditionKind::Integrity, missing).await
                        }
                        _ => handle.report_ok(generation, ConditionKind::Integrity).await,
                    }
                    told = news;
                }
            }
        }
        sleep_until(ticks::by(began + period.max(began.elapsed() * LOOK_SHARE), period)).await;
    }
}

/// Hears what clients delete, over each connection as soon as it is lent. Runs for ever.
pub async fn listen(mut client: Connected, integrity: IntegrityMonitor) {
    loop {
        let connection = client.borrow_and_update().clone();
        let heard = async {
            let Some((_, client)) = connection else { return std::future::pending().await };
            let Ok(mut advisories) = client.subscribe(API_ADVISORIES).await else {
                return std::future::pending().await;
            };
            while let Some(advisory) = advisories.next().await {
                integrity.hear(&advisory.payload).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = heard => {}
            changed = client.changed() => if changed.is_err() { return std::future::pending().await },
        }
    }
}

/// Hears how many messages a server finds in each stream when it starts. Runs for ever.
pub async fn hear_restored(mut notices: broadcast::Receiver<Notice>, integrity: IntegrityMonitor) {
    loop {
        match notices.recv().await {
            Ok(Notice::Restored { stream, messages }) => integrity.note_restored(&stream, messages).await,
            // What was not heard is left to the look.
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// Has the streams read through once after each start of the server, when it is in service. Runs for
/// ever.
pub async fn read_through(handle: Handle, client: Connected, integrity: IntegrityMonitor) {
    let mut snapshots = handle.watch();
    let mut done = Generation::default();
    loop {
        // What is missing already does not keep it from finding more.
        let missing = || !integrity.watch().borrow().losses.is_empty();
        let in_service = |s: &Snapshot| {
            let up = s.state.is_ready() || (matches!(s.state, State::Degraded { .. }) && missing());
            up && s.state.generation().is_some_and(|generation| generation > done)
        };
        let Ok(Some(generation)) = snapshots.wait_for(in_service).await.map(|s| s.state.generation()) else {
            return std::future::pending().await;
        };
        let mut watching = handle.watch();
        let attempt = read_once(&handle, client.clone(), &integrity, generation);
        let read = tokio::select! {
            read = attempt => read,
            // Its end comes with the next server.
            _ = watching.wait_for(|s| s.state.generation() != Some(generation)) => continue,
        };
        if read {
            done = generation;
        } else {
            sleep(RETRY).await;
        }
    }
}

/// Whether everything there is to know about the streams of that server is known.
async fn read_once(
    handle: &Handle,
    mut client: Connected,
    integrity: &IntegrityMonitor,
    generation: Generation,
) -> bool {
    let lent = client.wait_for(|lent| lent.as_ref().is_some_and(|(of, _)| *of == generation)).await;
    let Some((_, client)) = lent.ok().and_then(|lent| lent.clone()) else { return false };
    match integrity.read_through(&JetStream::new(client, DEADLINE)).await {
        Ok(suspicious) if suspicious.is_empty() => !integrity.has_failed_to_read(),
        Ok(suspicious) => {
            let streams = suspicious.join(", ");
            let reason = format!("a fresh start may bring back messages of {streams}");
            handle.replace(generation, Replacement::Mending, reason).await;
            true
        }
        Err(error) => {
            tracing::warn!("cannot read the streams through, trying again: {error}");
            false
        }
    }
}
