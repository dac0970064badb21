//! Serving the API port so that nobody can use up our descriptors: so many connections at most,
//! and none that idles.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Time for the head of a request, the wait for it included.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Between two attempts to accept where none can succeed, as without descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two complaints about too many connections.
const SILENCE: Duration = Duration::from_secs(60);

/// Serves at most so many `connections` at a time, for ever. More wait in the listener's queue.
pub async fn serve(listener: TcpListener, router: Router, connections: usize) {
    let permits = Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS)));
    let mut complained: Option<Instant> = None;
    loop {
        if permits.available_permits() == 0 && complained.is_none_or(|at| at.elapsed() > SILENCE) {
            complained = Some(Instant::now());
            tracing::warn!(
                "the API port holds {connections} connections, and more wait: API_MAX_CONNECTIONS or the limit of open \
                 descriptors allows no more"
            );
        }
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let stream = accept(&listener).await;
        tokio::spawn(serve_connection(stream, router.clone(), permit));
    }
}

async fn serve_connection(stream: TcpStream, router: Router, permit: OwnedSemaphorePermit) {
    let service = TowerToHyperService::new(router);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!("a connection to the API port ended: {error}");
    }
    drop(permit);
}

/// The next connection, whatever it takes.
async fn accept(listener: &TcpListener) -> TcpStream {
    let mut complained = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // The client has gone before its turn.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                if !complained {
                    tracing::warn!("cannot accept connections to the API port: {error}; trying on");
                }
                complained = true;
                // The listener stays readable, so that without a pause this would spin.
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    async fn serving(connections: usize) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", axum::routing::get(|| async { "here" }));
        tokio::spawn(serve(listener, router, connections));
        address
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"here") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn more_connections_than_allowed_wait_for_their_turn() {
        let address = serving(1).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        ask(&mut first).await;
        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(timeout(Duration::from_millis(50), ask(&mut second)).await.is_err());
        drop(first);
        let mut third = TcpStream::connect(address).await.unwrap();
        drop(second);
        assert!(ask(&mut third).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_idles_is_closed() {
        let address = serving(8).await;
        for sent in [&b""[..], b"GET / HTTP/1.1\r\nHost: x\r\n"] {
            let mut idle = TcpStream::connect(address).await.unwrap();
            idle.write_all(sent).await.unwrap();
            let mut answer = Vec::new();
            let closed = timeout(HEAD_DEADLINE * 2, idle.read_to_end(&mut answer)).await;
            assert!(closed.is_ok(), "{answer:?}");
        }
        let mut used = TcpStream::connect(address).await.unwrap();
        ask(&mut used).await;
        let closed = timeout(HEAD_DEADLINE * 2, used.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "one that was used is not kept for ever, either");
    }
}
