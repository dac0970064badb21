//! A connection of which some bytes have been read already, and whose client must take what it asked for.
//!
//! What it gives is whole heads of requests, each of which has been looked at, and their bodies. Where a head is
//! refused nothing follows; its client hears why once it has been answered everything before.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::framing::{Framing, Next};
use super::half_closed::Farewell;
use super::refusal::{LINGER, MOST_DRAINED, faulty};
use super::turn::Turn;

/// Time for a client to take some of its answer; one that takes nothing would keep its place for ever.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Read of a head at a time; most are shorter.
const PIECE: usize = 1 << 10;

/// Gives those bytes first, then the rest. It has no end, unless a head is refused: that is told by its farewell.
pub struct Prefixed {
    /// What has been read and not looked at.
    prefix: Vec<u8>,
    /// A head that has been looked at, and how much of it has been given.
    head: (Vec<u8>, usize),
    framing: Framing,
    turn: Turn,
    /// What the client is told at the end, and how much of it has been written.
    refusal: Option<(Vec<u8>, usize)>,
    /// Behind that: until when what the client still sends is taken, and how much of it.
    lingers: Option<(Pin<Box<Sleep>>, usize)>,
    stream: TcpStream,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Is told when the client sends no more, and of each piece that it takes then.
    farewell: Farewell,
}

impl Prefixed {
    pub fn new(prefix: Vec<u8>, stream: TcpStream) -> Self {
        Self {
            prefix,
            head: (Vec::new(), 0),
            framing: Framing::default(),
            turn: Turn::default(),
            refusal: None,
            lingers: None,
            stream,
            stalled: None,
            farewell: Farewell::default(),
        }
    }

    /// For who waits until the client has gone.
    pub fn farewell(&self) -> Farewell {
        self.farewell.clone()
    }

    /// Whether a request is being answered, which begins with its head; who answers says when it ends.
    pub fn turn(&self) -> Turn {
        self.turn.clone()
    }

    /// What of it nobody has used, behind these bytes, which were given; and the connection.
    pub fn into_parts(self, given: &[u8]) -> (Vec<u8>, TcpStream) {
        let (head, at) = &self.head;
        let unused = [given, &head[*at..], &self.framing.into_begun(), &self.prefix].concat();
        (unused, self.stream)
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

    /// Reads from the client. Its end is no end of this.
    fn poll_client(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() == before && buffer.remaining() > 0 {
            // Hyper would drop the request that is under way.
            self.farewell.note_end();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads on until a head is whole or refused.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.framing.next() == Next::Head {
            let taken = if self.prefix.is_empty() {
                let mut piece = [MaybeUninit::uninit(); PIECE];
                let mut piece = ReadBuf::uninit(&mut piece);
                ready!(self.poll_client(context, &mut piece))?;
                self.framing.take(piece.filled())
            } else {
                self.framing.take(&std::mem::take(&mut self.prefix))
            };
            match taken {
                Ok(None) => {}
                Ok(Some((head, behind))) => {
                    (self.head, self.prefix) = ((head, 0), behind);
                    self.turn.begin();
                    return Poll::Ready(Ok(()));
                }
                Err(fault) => self.refusal = Some((faulty(fault).into_last_answer().into_bytes(), 0)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives of the body that comes, and nothing of what is behind it.
    fn poll_body(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let most = self.prefix.len().min(buffer.remaining());
            let passed = self.framing.pass(&self.prefix[..most]);
            buffer.put_slice(&self.prefix[..passed]);
            self.prefix.drain(..passed);
            if self.prefix.is_empty() {
                self.prefix = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(self.poll_client(context, buffer))?;
        let passed = self.framing.pass(&buffer.filled()[before..]);
        self.prefix.extend_from_slice(&buffer.filled()[before + passed..]);
        buffer.set_filled(before + passed);
        Poll::Ready(Ok(()))
    }

    /// Tells the client why it is not served any more, if that is so.
    fn poll_refuse(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((text, at)) = &mut self.refusal {
            let write = Pin::new(&mut self.stream).poll_write(context, &text[*at..]);
            if let Poll::Ready(Ok(written)) = write {
                *at += written;
                if *at == text.len() || written == 0 {
                    self.refusal = None;
                    self.lingers = Some((Box::pin(sleep(LINGER)), MOST_DRAINED));
                }
                continue;
            }
            ready!(self.until_deadline(context, write))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Prefixed {
    /// Takes what the client still sends: closed over that, the connection would be reset, and the client would
    /// lose the answer that it has not read yet.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some((end, left)) = &mut self.lingers else { return Poll::Ready(()) };
        let mut piece = [MaybeUninit::uninit(); PIECE];
        while *left > 0 && end.as_mut().poll(context).is_pending() {
            let mut piece = ReadBuf::uninit(&mut piece);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece)) {
                Ok(()) if !piece.filled().is_empty() => *left = left.saturating_sub(piece.filled().len()),
                Ok(()) | Err(_) => break,
            }
        }
        self.lingers = None;
        Poll::Ready(())
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.head.0.is_empty() {
            ready!(this.poll_head(context))?;
        }
        let (head, at) = &mut this.head;
        if !head.is_empty() {
            let now = (head.len() - *at).min(buffer.remaining());
            buffer.put_slice(&head[*at..*at + now]);
            *at += now;
            if *at == head.len() {
                this.head = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        match this.framing.next() {
            // The end, once what came before is answered.
            Next::Nothing if this.turn.is_ours_still(context.waker()) => Poll::Pending,
            Next::Nothing | Next::Head => Poll::Ready(Ok(())),
            Next::Body => this.poll_body(context, buffer),
        }
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
        let this = self.get_mut();
        // Hyper has written everything that it had to.
        ready!(this.poll_refuse(context))?;
        ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        this.poll_linger(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const HEAD: &str = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n";

    #[tokio::test]
    async fn what_was_read_comes_first_and_then_the_rest() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let prefix = format!("{HEAD}first ").into_bytes();
        let mut server = Prefixed::new(prefix, listener.accept().await.unwrap().0);
        client.write_all(b"then").await.unwrap();
        client.shutdown().await.unwrap();
        let mut piece = [0; 4];
        server.read_exact(&mut piece).await.unwrap();
        assert_eq!(&piece, b"POST", "in pieces that the reader chooses");
        assert!(server.turn().is_ours());
        let mut rest = vec![0; HEAD.len() + 6];
        server.read_exact(&mut rest).await.unwrap();
        assert_eq!(rest, [&HEAD.as_bytes()[4..], b"first then"].concat());
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

    #[tokio::test]
    async fn a_head_that_is_refused_is_the_end_once_it_is_its_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut server =
            Prefixed::new(format!("{HEAD}0123456789{{no request").into_bytes(), listener.accept().await.unwrap().0);
        let mut request = vec![0; HEAD.len() + 10];
        server.read_exact(&mut request).await.unwrap();
        assert_eq!(request, format!("{HEAD}0123456789").into_bytes());
        let turn = server.turn();
        let mut more = [0; 8];
        let mut end = std::pin::pin!(server.read(&mut more));
        assert!(futures_util::poll!(end.as_mut()).is_pending(), "the request before is still being answered");
        turn.end();
        assert_eq!(tokio::time::timeout(WRITE_DEADLINE, end).await.unwrap().unwrap(), 0);
        server.write_all(b"answer ").await.unwrap();
        server.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("answer HTTP/1.1 400 ") && answer.contains("INVALID_PARAMETERS"), "{answer}");
    }

    #[tokio::test]
    async fn what_nobody_has_used_is_given_back_in_its_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let next = "GET / HTTP/1.1\r\nHo";
        let mut server =
            Prefixed::new(format!("{HEAD}0123456789{next}").into_bytes(), listener.accept().await.unwrap().0);
        let mut request = vec![0; HEAD.len() + 8];
        server.read_exact(&mut request).await.unwrap();
        let (unused, stream) = server.into_parts(b"67");
        assert_eq!(unused, format!("6789{next}").into_bytes());
        let mut server = Prefixed::new(next.into(), stream);
        assert!(futures_util::poll!(std::pin::pin!(server.read(&mut request))).is_pending());
        assert_eq!(server.into_parts(b"").0, next.as_bytes());
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
