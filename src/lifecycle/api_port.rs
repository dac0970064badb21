use std::net::TcpListener;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broker::Links;
use crate::http::{Bounds, DataSide, Routes};
use crate::supervisor::{Handle, State};

/// The API port, and what is behind it.
pub struct ApiPort {
    pub listener: TcpListener,
    /// Workers.
    pub threads: usize,
    pub routes: Routes,
    pub bounds: Bounds,
    /// The connections that requests use.
    pub links: Links,
    /// Cancelled when the port closes.
    pub shutdown: CancellationToken,
}

impl ApiPort {
    /// Serves it from threads of its own, until a stop has it closed. Ends when it cannot.
    pub async fn serve(self, handle: Handle, patience: Duration) {
        let Self { listener, threads, routes, bounds, links, shutdown } = self;
        let started = DataSide::start(threads, shutdown).and_then(|mut side| {
            side.run(links.run());
            side.open(listener, routes, bounds).map(|()| side)
        });
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
}
