//! The door: it takes every connection in at once, and waits for the head of its first request. What
//! begins with a probe is served here, with a thread to itself, so that no load keeps a probe waiting.
//! Everything else goes to the workers, so many connections at a time.
//!
//! A connection that is kept alive keeps its buffers. So that many of them do not add up, those beyond
//! a number give theirs back at the workers, and are closed after their answer at the door.
//!
//! Whoever opens connections and sends nothing, or half a request, takes none of those places. They
//! wait in a room of their own; when that is full the one that came first has to leave.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::head::{self, HEAD_DEADLINE, Head};
use super::prefixed::Prefixed;
use super::refusal::{busy, faulty, refuse, too_long};
use super::serving::{self, Peer, Place, Served};
use super::turn::Ending;
use super::workers::Workers;

/// Connections at the workers that keep their buffers, about 9 KB, while they wait for their next request;
/// others make them anew.
const WARM: usize = 384;
/// Connections that are kept alive at the door, with their buffers.
const KEPT_HERE: usize = 64;
/// Between two attempts to accept where none can succeed, as without descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two complaints about too many connections.
const SILENCE: Duration = Duration::from_secs(60);

/// What is answered, and where.
#[derive(Clone)]
pub struct Routes {
    /// Answers at the door, at once, and never waits.
    pub probes: Router,
    pub probe_paths: &'static [&'static str],
    /// Answers everything on the workers, the probes included.
    pub all: Router,
}

/// Connections at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At the workers.
    pub busy: usize,
    /// At the door: waiting for a request, or asking for probes only.
    pub waiting: usize,
}

/// What everybody at the door shares.
struct Desk {
    routes: Routes,
    places: Arc<Semaphore>,
    warm: Arc<Semaphore>,
    kept_here: Arc<Semaphore>,
    workers: Workers,
    /// Connections at the workers.
    served: TaskTracker,
    shutdown: CancellationToken,
}

/// Takes connections in until `shutdown`, and ends when the last of them has.
pub(super) async fn receive(
    listener: TcpListener,
    routes: Routes,
    bounds: Bounds,
    workers: Workers,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(bounds.busy.clamp(1, Semaphore::MAX_PERMITS)));
    let desk = Arc::new(Desk {
        routes,
        places,
        warm: Arc::new(Semaphore::new(WARM)),
        kept_here: Arc::new(Semaphore::new(KEPT_HERE)),
        workers,
        served: TaskTracker::new(),
        shutdown,
    });
    let mut visitors = Visitors::default();
    let mut complained: Option<Instant> = None;
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = desk.shutdown.cancelled() => break,
            Some(ended) = visitors.tasks.join_next() => {
                visitors.note_end(ended.ok());
                continue;
            }
            accepted = accept(&listener) => accepted,
        };
        if desk.places.available_permits() == 0 && complained.is_none_or(|at| at.elapsed() > SILENCE) {
            complained = Some(Instant::now());
            tracing::warn!(
                "the API port serves {} connections, and more wait: API_MAX_CONNECTIONS or the limit of open \
                 descriptors allows no more",
                bounds.busy
            );
        }
        visitors.make_room(bounds.waiting);
        visitors.admit(desk.clone().attend(stream, peer));
    }
    drop(listener);
    while visitors.tasks.join_next().await.is_some() {}
    desk.served.close();
    desk.served.wait().await;
}

/// The connections at the door, in the order in which they came.
#[derive(Default)]
struct Visitors {
    tasks: JoinSet<u64>,
    inside: BTreeMap<u64, AbortHandle>,
    next: u64,
}

impl Visitors {
    fn admit(&mut self, visit: impl Future<Output = ()> + Send + 'static) {
        let number = self.next;
        self.next += 1;
        let task = self.tasks.spawn(async move {
            visit.await;
            number
        });
        self.inside.insert(number, task);
    }

    /// A visit that was ended or has panicked does not say which it was.
    fn note_end(&mut self, ended: Option<u64>) {
        match ended {
            Some(number) => _ = self.inside.remove(&number),
            None => self.inside.retain(|_, task| !task.is_finished()),
        }
    }

    /// Ends the oldest visits where no more than `most` may be inside with the next one.
    fn make_room(&mut self, most: usize) {
        while self.inside.len() >= most.max(1) {
            let Some((_, oldest)) = self.inside.pop_first() else { return };
            oldest.abort();
        }
    }
}

impl Desk {
    /// One connection, from its first byte until it ends or goes to the workers.
    async fn attend(self: Arc<Self>, mut stream: TcpStream, peer: Peer) {
        let deadline = tokio::time::Instant::now() + HEAD_DEADLINE;
        let head = tokio::select! {
            head = timeout_at(deadline, head::read(&mut stream)) => head,
            () = self.shutdown.cancelled() => return,
        };
        let head = match head {
            Ok(Ok(Head::Come(head))) => head,
            Ok(Ok(Head::TooLong)) => return refuse(stream, too_long()).await,
            Ok(Ok(Head::Gone) | Err(_)) | Err(_) => return,
        };
        if head::path(&head).is_some_and(|path| self.is_probe(path)) {
            if let Some(fault) = head::fault(&head) {
                return refuse(stream, faulty(fault)).await;
            }
            // On the heap: those that only wait shall stay small.
            return Box::pin(self.serve_here(Prefixed::new(head, stream), peer)).await;
        }
        let place = tokio::select! {
            place = timeout_at(deadline, self.places.clone().acquire_owned()) => place,
            () = self.shutdown.cancelled() => return,
        };
        let Ok(Ok(place)) = place else { return refuse(stream, busy()).await };
        // Each runtime waits for its own connections.
        let Ok(stream) = stream.into_std() else { return };
        let served = Served {
            router: self.routes.all.clone(),
            peer,
            place: Place::new(place, self.served.token()),
            warm: self.warm.clone(),
            shutdown: self.shutdown.clone(),
        };
        let serving = async move {
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            // Whether it can be written is not known yet; found out later it would take hyper's buffers for
            // as many as come at once.
            if stream.writable().await.is_ok() {
                serving::serve(head, stream, served).await;
            }
        };
        self.served.spawn_on(serving, self.workers.next());
    }

    fn is_probe(&self, path: &str) -> bool {
        self.routes.probe_paths.contains(&path)
    }

    /// A connection that began with a probe stays at the door. What else it asks for is done by the
    /// workers.
    async fn serve_here(self: Arc<Self>, stream: Prefixed, peer: Peer) {
        let shutdown = self.shutdown.clone();
        let kept = self.kept_here.clone().try_acquire_owned().ok();
        let turn = stream.turn();
        let service = service_fn(move |request: Request<Incoming>| {
            let (desk, turn) = (self.clone(), turn.clone());
            async move {
                let response = if desk.is_probe(request.uri().path()) {
                    answer(desk.routes.probes.clone(), peer, request).await
                } else {
                    let work = desk.workers.next().spawn(answer(desk.routes.all.clone(), peer, request));
                    let answer = AbortOnDropHandle::new(work).await;
                    answer.unwrap_or_else(|_| Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response()))
                };
                response.map(|response| response.map(|body| Ending::new(body, turn)))
            }
        });
        serve(stream, service, kept.is_some(), shutdown).await;
    }
}

async fn answer(router: Router, peer: Peer, mut request: Request<Incoming>) -> Result<Response, Infallible> {
    request.extensions_mut().insert(peer);
    TowerToHyperService::new(router).call(request).await
}

/// Serves requests until the client has no more, or to the end of the one under way after `shutdown` or
/// once the client has closed its side; only one of a connection that is not kept alive.
async fn serve<S>(stream: Prefixed, service: S, is_kept: bool, shutdown: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<Ending<Body>>, Error = Infallible>,
    S::Future: Send,
{
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).keep_alive(is_kept);
    // A head, and what was sent behind it; much more is hyper's default, for each connection.
    server.max_buf_size(2 * head::LONGEST);
    let farewell = stream.farewell();
    let connection = server.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => Some(served),
        () = shutdown.cancelled() => None,
        () = farewell.begins() => None,
    };
    let served = match served {
        Some(served) => served,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                served = connection => served,
                () = farewell.is_over() => return,
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!("a connection to the API port ended: {error}");
    }
}

/// The next connection, whatever it takes.
async fn accept(listener: &TcpListener) -> (TcpStream, Peer) {
    let mut complained = false;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return (stream, Peer(address.ip())),
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
mod tests;
