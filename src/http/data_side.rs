//! The threads of the data side.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::reception::{Bounds, Routes, receive};
use super::workers::{THREADS, Workers};

/// Workers, and a door for each port.
pub struct DataSide {
    workers: Workers,
    /// Nobody waits for workers that hang.
    _end_of_workers: DropGuard,
    /// What each door says when it has ended.
    doors: Vec<oneshot::Receiver<()>>,
    shutdown: CancellationToken,
}

impl DataSide {
    /// Starts so many workers.
    ///
    /// Closing it cancels `shutdown`.
    pub fn start(threads: usize, shutdown: CancellationToken) -> io::Result<Self> {
        let end = CancellationToken::new();
        let guard = end.clone().drop_guard();
        let workers = Workers::start(threads.max(1), &end)?;
        Ok(Self { workers, _end_of_workers: guard, doors: vec![], shutdown })
    }

    /// Runs that on a worker, for as long as it is there.
    pub fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.workers.next().spawn(work);
    }

    /// Serves that port from now on.
    pub fn open(&mut self, listener: TcpListener, routes: Routes, bounds: Bounds) -> io::Result<()> {
        let workers = self.workers.clone();
        let shutdown = self.shutdown.clone();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let work = move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                receive(listener, routes, bounds, workers, shutdown).await;
                io::Result::Ok(())
            });
            if let Err(error) = served {
                tracing::error!("cannot serve the API port: {error}");
            }
            drop(end);
        };
        std::thread::Builder::new().name(format!("{THREADS}door")).spawn(work)?;
        self.doors.push(ended);
        Ok(())
    }

    /// Waits until a door has ended though nobody has closed it.
    pub async fn failed(&mut self) {
        match self.doors.is_empty() {
            true => std::future::pending().await,
            false => _ = select_all(&mut self.doors).await,
        }
    }

    /// Closes the ports and lets what is under way finish, for `patience` at most.
    pub async fn close(mut self, patience: Duration) {
        self.shutdown.cancel();
        let ended = futures_util::future::join_all(std::mem::take(&mut self.doors));
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::warn!("requests to the API port are still under way after {} s", patience.as_secs_f64());
        }
    }
}

impl Drop for DataSide {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Whether the thread that asks belongs to the data side: a panic there costs a request and no more.
pub fn is_here() -> bool {
    std::thread::current().name().is_some_and(|name| name.starts_with(THREADS))
}

#[cfg(test)]
mod tests {
    use super::super::workers::WORKER_NICENESS;
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    async fn names_its_thread() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    /// How far the thread that asks stands back, as the kernel counts it.
    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    fn answer(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[tokio::test]
    async fn requests_are_served_by_threads_of_its_own_until_it_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let mut side = DataSide::start(2, CancellationToken::new()).unwrap();
        let router = Router::new().route("/probe", get(names_its_thread)).route("/", get(names_its_thread));
        let routes = Routes { probes: router.clone(), probe_paths: &["/probe"], all: router };
        side.open(listener, routes, Bounds { busy: 8, waiting: 8 }).unwrap();
        assert!(answer(address, "/").ends_with("api-worker"));
        assert!(answer(address, "/probe").ends_with("api-door"));
        assert!(!is_here(), "this is another thread");
        side.close(Duration::from_secs(20)).await;
        assert!(TcpStream::connect(address).is_err());
    }

    #[tokio::test]
    async fn workers_stand_back_and_nobody_else_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let before = niceness();
        let mut side = DataSide::start(2, CancellationToken::new()).unwrap();
        let of_thread = || get(async || niceness().to_string());
        let router = Router::new().route("/probe", of_thread()).route("/", of_thread());
        let routes = Routes { probes: router.clone(), probe_paths: &["/probe"], all: router };
        side.open(listener, routes, Bounds { busy: 8, waiting: 8 }).unwrap();
        let of_worker = (before + WORKER_NICENESS).min(19).to_string();
        assert!(answer(address, "/").ends_with(&format!("\r\n{of_worker}")));
        assert!(answer(address, "/probe").ends_with(&format!("\r\n{before}")), "probes come first");
        assert_eq!(niceness(), before);
        side.close(Duration::from_secs(20)).await;
    }

    #[tokio::test]
    async fn a_door_that_cannot_open_is_noticed() {
        let mut side = DataSide::start(1, CancellationToken::new()).unwrap();
        // One that blocks is refused.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let routes = Routes { probes: Router::new(), probe_paths: &[], all: Router::new() };
        side.open(listener, routes, Bounds { busy: 1, waiting: 1 }).unwrap();
        let noticed = tokio::time::timeout(Duration::from_secs(20), side.failed()).await;
        assert!(noticed.is_ok());
    }
}
