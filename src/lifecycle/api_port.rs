use std::net::TcpListener;
use std::time::Duration;

use crate::http::{Bounds, DataSide, Routes};
use crate::supervisor::{Handle, State};

/// Serves the API port from threads of its own, until a stop has it closed. Ends when it cannot.
pub async fn serve(
    listener: TcpListener,
    threads: usize,
    routes: Routes,
    bounds: Bounds,
    handle: Handle,
    patience: Duration,
) {
    let started = DataSide::start(threads).and_then(|mut side| side.open(listener, routes, bounds).map(|()| side));
    let mut side = match started {
        Ok(side) => side,
        Err(error) => return tracing::error!("cannot start the threads of the API port: {error}"),
    };
    let mut snapshots = handle.watch();
    tokio::select! {
        () = side.failed() => return,
        // The supervisor may have ended without one.
        _ = snapshots.wait_for(|s| matches!(s.state, State::Closing { .. })) => {}
    }
    side.close(patience).await;
    handle.closed().await;
    std::future::pending().await
}
