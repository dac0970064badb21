use std::net::TcpListener;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::broker::Links;
use crate::http::{Bounds, DataSide, Routes};
use crate::supervisor::{Handle, State};

/// Connections of a port beside the API's: few ask there, and often.
const OF_OTHERS: Bounds = Bounds { busy: 32, waiting: 64 };

/// The API port, and what is behind it.
pub struct ApiPort {
    pub listener: TcpListener,
    /// Workers.
    pub threads: usize,
    pub routes: Routes,
    pub bounds: Bounds,
    /// The connections that requests use.
    pub links: Links,
    /// Other ports, served by the same workers.
    pub others: Vec<(TcpListener, Routes)>,
    /// What runs beside requests, for as long as there are workers.
    pub work: Vec<BoxFuture<'static, ()>>,
    /// Cancelled when the port closes.
    pub shutdown: CancellationToken,
}

impl ApiPort {
    /// Serves it from threads of its own, until a stop has it closed. Ends when it cannot.
    pub async fn serve(self, handle: Handle, patience: Duration) {
        let Self { listener, threads, routes, bounds, links, others, work, shutdown } = self;
        let started = DataSide::start(threads, shutdown).and_then(|mut side| {
            side.run(links.run());
            work.into_iter().for_each(|work| side.run(work));
            side.open(listener, routes, bounds)?;
            for (listener, routes) in others {
                side.open(listener, routes, OF_OTHERS)?;
            }
            Ok(side)
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
