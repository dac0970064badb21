//! Sees to it that a node of a cluster is not waited for any longer than it leads something.

use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::sleep;

use crate::health::cluster::{self, Depth};
use crate::nats::Monitor;
use crate::supervisor::{Handle, Notice, State};

/// Between two looks at who leads what.
const PAUSE: Duration = Duration::from_millis(25);
/// For one look.
const DEADLINE: Duration = Duration::from_secs(1);

/// Waits for the server to hand over, and tells the supervisor when it has. Runs for ever.
///
/// The leaders move within a tenth of a second (measured on 2.10 and 2.15), which `/jsz` shows;
/// nats-server itself waits a whole one, and says in its log when that is over.
pub async fn watch(handle: Handle, monitor: Option<Monitor>) {
    let mut snapshots = handle.watch();
    let handing_over = snapshots.wait_for(|s| matches!(s.state, State::HandingOver { .. })).await;
    if let Some(generation) = handing_over.ok().and_then(|s| s.state.generation()) {
        // From now on: an earlier server may have said the same when it was replaced.
        let mut notices = handle.notices();
        tokio::select! {
            () = leads_nothing(monitor.as_ref()) => tracing::info!("what this node led is with other nodes"),
            () = says_so(&mut notices) => tracing::info!("this node has given up what it led"),
        }
        handle.handed_over(generation).await;
    }
    std::future::pending().await
}

async fn leads_nothing(monitor: Option<&Monitor>) {
    let Some(monitor) = monitor else { return std::future::pending().await };
    loop {
        if cluster::inspect(monitor, Depth::Copies, DEADLINE).await.is_ok_and(|cluster| cluster.leads_nothing()) {
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn says_so(notices: &mut broadcast::Receiver<Notice>) {
    loop {
        match notices.recv().await {
            Ok(Notice::HandedOver) => return,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}
