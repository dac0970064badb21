//! A connection at the workers. While it serves requests hyper has it, with its buffers; between two of
//! them it gives those back, so that a connection that is kept alive costs next to nothing.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, Version, header};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::head::{self, HEAD_DEADLINE, Head};
use super::prefixed::Prefixed;
use super::refusal::{faulty, refuse, too_long};
use super::turn::Turn;

/// Whence a request comes; each has that among its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The place of a connection at the workers. Who makes something else of the connection than HTTP keeps
/// it with that: its bound counts it and a graceful end waits for it until it is dropped.
#[derive(Clone, Debug)]
pub struct Place(#[allow(dead_code, reason = "it is held")] Arc<(OwnedSemaphorePermit, TaskTrackerToken)>);

impl Place {
    pub(super) fn new(permit: OwnedSemaphorePermit, token: TaskTrackerToken) -> Self {
        Self(Arc::new((permit, token)))
    }
}

/// What a connection is served with.
pub(super) struct Served {
    pub router: Router,
    pub peer: Peer,
    pub place: Place,
    /// A connection that waits for its next request keeps its buffers while it has one of these.
    pub warm: Arc<Semaphore>,
    pub shutdown: CancellationToken,
}

/// How far the requests of a connection have come. Everything that sets it runs within one poll of the
/// connection or another, so that only order within a thread matters.
#[derive(Default)]
struct Progress {
    /// The last request has come to its end, body and all.
    has_come: AtomicBool,
    /// Its answer is still being made.
    turn: Turn,
    /// Its answer is out, and nothing more is there to read.
    is_waiting: AtomicBool,
    /// Everything that was written of it has gone to the socket.
    is_out: AtomicBool,
    /// The connection ends with that answer.
    is_last: AtomicBool,
}

impl Progress {
    fn new(turn: Turn) -> Self {
        Self { turn, ..Self::default() }
    }

    fn begin(&self, is_last: bool, has_come: bool) {
        for flag in [&self.is_waiting, &self.is_out] {
            flag.store(false, Ordering::Relaxed);
        }
        self.is_last.store(is_last, Ordering::Relaxed);
        self.has_come.store(has_come, Ordering::Relaxed);
    }

    /// Whether it waits for the next request, with nothing left to do for the last.
    fn is_idle(&self) -> bool {
        !self.turn.is_ours()
            && [&self.has_come, &self.is_waiting, &self.is_out].iter().all(|flag| flag.load(Ordering::Relaxed))
            && !self.is_last.load(Ordering::Relaxed)
    }
}

/// Serves requests until the client has no more, or to the end of the one under way after a shutdown.
pub(super) async fn serve(head: Vec<u8>, stream: TcpStream, served: Served) {
    let (mut head, mut stream) = (head, stream);
    loop {
        if let Some(fault) = head::fault(&head) {
            return refuse(stream, faulty(fault)).await;
        }
        // On the heap: it is gone while the connection waits.
        let Some(idle) = Box::pin(serve_while_busy(head, stream, &served)).await else { return };
        let (rest, waiting) = idle;
        stream = waiting;
        if !rest.is_empty() {
            head = rest;
            continue;
        }
        let next = tokio::select! {
            next = timeout(HEAD_DEADLINE, head::read(&mut stream)) => next,
            () = served.shutdown.cancelled() => return,
        };
        head = match next {
            Ok(Ok(Head::Come(head))) => head,
            Ok(Ok(Head::TooLong)) => return refuse(stream, too_long()).await,
            Ok(Ok(Head::Gone) | Err(_)) | Err(_) => return,
        };
    }
}

/// The connection, where it waits for its next request, and what has come of that; [`None`] once it has ended.
async fn serve_while_busy(head: Vec<u8>, stream: TcpStream, served: &Served) -> Option<(Vec<u8>, TcpStream)> {
    let stream = Prefixed::new(head, stream);
    let progress = Arc::new(Progress::new(stream.turn()));
    let farewell = stream.farewell();
    let io = Watched { stream, progress: progress.clone() };
    let (router, peer, place) = (served.router.clone(), served.peer, served.place.clone());
    let of_requests = progress.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        answer(router.clone(), peer, &place, of_requests.clone(), request)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    // A head, and what was sent behind it; much more is hyper's default, for each connection.
    server.max_buf_size(2 * head::LONGEST);
    let mut connection = server.serve_connection(TokioIo::new(io), service).with_upgrades();
    let mut warm = None;
    let idle_or_ended = std::future::poll_fn(|context| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(context) {
            return Poll::Ready(Some(ended));
        }
        if !progress.is_idle() {
            warm = None;
            return Poll::Pending;
        }
        if warm.is_none() {
            warm = served.warm.try_acquire().ok();
        }
        if warm.is_some() { Poll::Pending } else { Poll::Ready(None) }
    });
    let ended = tokio::select! {
        ended = idle_or_ended => Some(ended),
        () = served.shutdown.cancelled() => None,
        () = farewell.begins() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            tokio::select! {
                ended = &mut connection => Some(ended),
                () = farewell.is_over() => return None,
            }
        }
    };
    match ended {
        Some(Ok(())) => None,
        Some(Err(error)) => {
            tracing::debug!("a connection to the API port ended: {error}");
            None
        }
        None => {
            let parts = connection.into_parts()?;
            Some(parts.io.into_inner().stream.into_parts(&parts.read_buf))
        }
    }
}

/// Has the router answer, and notes what becomes of the request.
fn answer(
    router: Router,
    peer: Peer,
    place: &Place,
    progress: Arc<Progress>,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Noted<Body>>, Infallible>> + Send + use<> {
    let is_last = request.version() != Version::HTTP_11 || says_close(request.headers());
    let changes = request.headers().contains_key(header::UPGRADE);
    progress.begin(is_last || changes, request.body().is_end_stream());
    request.extensions_mut().insert(peer);
    if changes {
        request.extensions_mut().insert(place.clone());
    }
    let come = progress.clone();
    let request = request.map(move |body| Noted { body, end: End::OfRequest(come) });
    let mut service = TowerToHyperService::new(router);
    async move {
        let response = HttpService::call(&mut service, request).await?;
        if says_close(response.headers()) {
            progress.is_last.store(true, Ordering::Relaxed);
        }
        Ok(response.map(move |body| Noted { body, end: End::OfAnswer(Answering(progress)) }))
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    let words = headers.get_all(header::CONNECTION).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    words.map(<[u8]>::trim_ascii).any(|word| word.eq_ignore_ascii_case(b"close"))
}

/// A body, and who wants to know of its end.
struct Noted<B> {
    body: B,
    end: End,
}

enum End {
    OfRequest(Arc<Progress>),
    /// When it is dropped, whether it was sent or not.
    OfAnswer(#[allow(dead_code, reason = "it is dropped")] Answering),
}

struct Answering(Arc<Progress>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.is_waiting.store(false, Ordering::Relaxed);
        self.0.is_out.store(false, Ordering::Relaxed);
        self.0.turn.end();
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Noted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let End::OfRequest(progress) = &self.end
            && (matches!(polled, Poll::Ready(None)) || polled.is_ready() && self.body.is_end_stream())
        {
            progress.has_come.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that notes when it has nothing more to write, and nothing to read.
struct Watched {
    stream: Prefixed,
    progress: Arc<Progress>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.progress.is_waiting.store(read.is_pending(), Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.progress.is_out.store(false, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.progress.is_out.store(false, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called once everything before has been written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.progress.is_out.store(flushed.is_ready(), Ordering::Relaxed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
