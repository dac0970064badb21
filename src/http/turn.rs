//! Whose turn it is on a connection: the client's, or ours while a request of it is being answered.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use axum::body::Bytes;
use futures_util::task::AtomicWaker;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// Whether a request is being answered. Clones are of the same connection.
#[derive(Clone, Default)]
pub struct Turn(Arc<State>);

#[derive(Default)]
struct State {
    is_ours: AtomicBool,
    waits: AtomicWaker,
}

impl Turn {
    /// The head of a request has come.
    pub fn begin(&self) {
        self.0.is_ours.store(true, Ordering::Release);
    }

    /// Its answer has been made, to its last byte.
    pub fn end(&self) {
        self.0.is_ours.store(false, Ordering::Release);
        self.0.waits.wake();
    }

    pub fn is_ours(&self) -> bool {
        self.0.is_ours.load(Ordering::Acquire)
    }

    /// Whether it is ours; who is told so is woken at its end.
    pub fn is_ours_still(&self, waker: &Waker) -> bool {
        self.0.waits.register(waker);
        self.is_ours()
    }
}

/// The body of an answer, which ends the turn with it, whether it was sent or not.
pub struct Ending<B> {
    body: B,
    turn: Turn,
}

impl<B> Ending<B> {
    pub fn new(body: B, turn: Turn) -> Self {
        Self { body, turn }
    }
}

impl<B> Drop for Ending<B> {
    fn drop(&mut self) {
        self.turn.end();
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Ending<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
