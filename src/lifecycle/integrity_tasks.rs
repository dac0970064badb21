//! Tasks about messages that may be missing: one keeps the ledger, one looks at every stream again and
//! again, one hears what clients delete and restore, one what a server finds when it starts, one reads each
//! stream through after each start of the server.

use std::time::Duration;

use async_nats::{Client, SubscribeError};
use futures_util::StreamExt;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::domain::Generation;
use crate::integrity::{IntegrityHandle, IntegrityMonitor};
use crate::nats::{API_ADVISORIES, JetStream, RESTORE_BEGINS, RESTORE_ENDS};
use crate::supervisor::{ConditionKind, Handle, Notice, RestartReason, Snapshot, State};
use crate::ticks;

/// The connection to the server that runs now.
pub type Connected = watch::Receiver<Option<(Generation, Client)>>;

/// Looking at every stream takes at most that share of the time.
const LOOK_SHARE: u32 = 50;
/// Time for one request. A cluster that waits for a node takes four seconds to list its streams.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two attempts to read the streams through.
const RETRY: Duration = Duration::from_secs(30);

/// Keeps the ledger, and tells the supervisor what is missing as soon as that is known. Runs for ever, and
/// nobody else reports that condition.
pub async fn keep_ledger(monitor: IntegrityMonitor, handle: Handle) {
    let report = |generation, missing: Option<String>| {
        let handle = handle.clone();
        async move {
            match missing {
                Some(missing) => handle.report_failed(generation, ConditionKind::Integrity, missing).await,
                None => handle.report_ok(generation, ConditionKind::Integrity).await,
            }
        }
    };
    monitor.run(report).await;
}

/// Looks at every stream again and again, and before its time when something has happened. Runs for ever.
pub async fn check_streams(client: Connected, integrity: IntegrityHandle, period: Duration) {
    loop {
        let connection = client.borrow().clone();
        let began = Instant::now();
        if let Some((generation, client)) = connection {
            let jetstream = JetStream::new(client, DEADLINE);
            // What cannot be asked is not known, and whether the server answers is for others to say.
            let _ = integrity.check_streams(&jetstream, generation).await;
        }
        tokio::select! {
            () = sleep_until(ticks::by(began + period.max(began.elapsed() * LOOK_SHARE), period)) => {}
            () = integrity.wants_a_look() => {}
        }
    }
}

/// Hears what clients delete and restore, over each connection as soon as it is lent. Runs for ever.
pub async fn listen(mut client: Connected, integrity: IntegrityHandle) {
    loop {
        let connection = client.borrow_and_update().clone();
        let heard = async {
            if let Some((_, client)) = connection {
                // Who may not hear it, or is not connected any more, hears nothing.
                let _ = hear(&client, &integrity).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = heard => {}
            changed = client.changed() => if changed.is_err() { return std::future::pending().await },
        }
    }
}

/// Until the connection ends.
async fn hear(client: &Client, integrity: &IntegrityHandle) -> Result<(), SubscribeError> {
    let mut api = client.subscribe(API_ADVISORIES).await?;
    let mut begins = client.subscribe(RESTORE_BEGINS).await?;
    let mut ends = client.subscribe(RESTORE_ENDS).await?;
    integrity.listens_to_restores().await;
    loop {
        tokio::select! {
            // The begin of a restore comes before its end.
            biased;
            Some(advisory) = begins.next() => integrity.hear_restore(&advisory.payload).await,
            Some(advisory) = ends.next() => integrity.hear_restore(&advisory.payload).await,
            Some(advisory) = api.next() => integrity.hear(&advisory.payload).await,
            else => return Ok(()),
        }
    }
}

/// Hears how many messages a server finds in each stream when it starts. Runs for ever.
pub async fn hear_counted(mut notices: broadcast::Receiver<Notice>, integrity: IntegrityHandle) {
    loop {
        match notices.recv().await {
            Ok(Notice::Restored { stream, messages }) => integrity.note_counted(stream, messages).await,
            // What was not heard is left to the look.
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// Has the streams read through once after each start of the server, when it is in service. Runs for
/// ever.
pub async fn read_through(handle: Handle, client: Connected, integrity: IntegrityHandle) {
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
    integrity: &IntegrityHandle,
    generation: Generation,
) -> bool {
    let lent = client.wait_for(|lent| lent.as_ref().is_some_and(|(of, _)| *of == generation)).await;
    let Some((_, client)) = lent.ok().and_then(|lent| lent.clone()) else { return false };
    match integrity.read_through(&JetStream::new(client, DEADLINE)).await {
        Ok(suspicious) if suspicious.is_empty() => !integrity.has_failed_to_read(),
        Ok(suspicious) => {
            let streams = suspicious.join(", ");
            let reason = format!("a fresh start may bring back messages of {streams}");
            handle.restart(generation, RestartReason::Recovery, reason).await;
            true
        }
        Err(error) => {
            tracing::warn!("cannot read the streams through, trying again: {error}");
            false
        }
    }
}
