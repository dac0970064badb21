//! A connection of which some bytes have been read already, and whose client must take what it asked for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::half_closed::Farewell;

/// Time for a client to take some of its answer; one that takes nothing would keep its place for ever.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Gives those bytes first, then the rest. It has no end: that is told by its farewell.
pub struct Prefixed {
    prefix: Vec<u8>,
    /// How many of them have been given.
    given: usize,
    stream: TcpStream,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Is told when the client sends no more, and of each piece that it takes then.
    farewell: Farewell,
}

impl Prefixed {
    pub fn new(prefix: Vec<u8>, stream: TcpStream) -> Self {
        Self { prefix, given: 0, stream, stalled: None, farewell: Farewell::default() }
    }

    /// For who waits until the client has gone.
    pub fn farewell(&self) -> Farewell {
        self.farewell.clone()
    }

    /// That write, for so long as the client may let it wait.
    fn until_deadline<T>(&mut self, context: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.stalled = None;
            self.farewell.note_write();
            return write;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_DEADLINE)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of its answer")))
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let left = &this.prefix[this.given..];
        if left.is_empty() {
            let before = buffer.filled().len();
            let read = ready!(Pin::new(&mut this.stream).poll_read(context, buffer));
            if read.is_ok() && buffer.filled().len() == before && buffer.remaining() > 0 {
                // Hyper would drop the request that is under way.
                this.farewell.note_end();
                return Poll::Pending;
            }
            return Poll::Ready(read);
        }
        let now = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..now]);
        this.given += now;
        if this.given == this.prefix.len() {
            (this.prefix, this.given) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.until_deadline(context, write)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.until_deadline(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn what_was_read_comes_first_and_then_the_rest() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut server = Prefixed::new(b"first ".to_vec(), listener.accept().await.unwrap().0);
        client.write_all(b"then").await.unwrap();
        client.shutdown().await.unwrap();
        let mut piece = [0; 4];
        server.read_exact(&mut piece).await.unwrap();
        assert_eq!(&piece, b"firs", "in pieces that the reader chooses");
        let mut rest = [0; 6];
        server.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"t then");
        let farewell = server.farewell();
        tokio::select! {
            () = farewell.begins() => {}
            more = server.read(&mut rest) => panic!("{more:?}"),
        }
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_the_answer_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut server = Prefixed::new(vec![], listener.accept().await.unwrap().0);
        let sends = async {
            let piece = [0; 1 << 16];
            loop {
                if let Err(error) = server.write_all(&piece).await {
                    return error;
                }
            }
        };
        let error = tokio::time::timeout(WRITE_DEADLINE * 2, sends).await.unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
