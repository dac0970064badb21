//! The head of the first request on a connection: whether it is whole, and whom it is for.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// A head that is longer is for the server to refuse.
const LONGEST: usize = 16 << 10;
/// Read at a time; most heads are shorter.
const PIECE: usize = 1 << 10;

/// Reads until the head is whole, or cannot become one; gives all that came. Empty where the client has
/// gone without a word.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let seen = bytes.len();
        if read_piece(stream, &mut bytes).await? == 0 {
            return Ok(vec![]);
        }
        // The end may have begun in what came before.
        let is_whole = has_empty_line(&bytes[seen.saturating_sub(3)..]);
        if is_whole || bytes.len() >= LONGEST || !bytes[0].is_ascii_uppercase() {
            return Ok(bytes);
        }
    }
}

/// Takes no memory while nothing comes, because many may wait.
async fn read_piece(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|context| {
        let mut piece = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut piece))?;
        bytes.extend_from_slice(piece.filled());
        Poll::Ready(Ok(piece.filled().len()))
    })
    .await
}

/// As lenient about line ends as the parser that comes after.
fn has_empty_line(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

/// The path that is asked for, without its query.
pub fn path(head: &[u8]) -> Option<&str> {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (_method, target) = (words.next()?, words.next()?);
    target.split('?').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    /// What is read of `pieces`, which come one after the other.
    fn read_of(pieces: &[&[u8]]) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut client, mut server) = tokio::io::duplex(1 << 20);
            let send = async {
                for piece in pieces {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                drop(client);
            };
            tokio::join!(send, read(&mut server)).1.unwrap()
        })
    }

    #[test]
    fn a_head_ends_with_an_empty_line() {
        let head = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(read_of(&[head]), head);
        assert_eq!(read_of(&[b"GET / HTTP/1.0\n\n"]), b"GET / HTTP/1.0\n\n");
        let cut = &head[..head.len() - 1];
        assert_eq!(read_of(&[cut]), b"", "the client has gone before its end");
        assert_eq!(read_of(&[]), b"");
    }

    #[test]
    fn what_cannot_become_a_head_is_given_at_once() {
        for junk in [&b"\x16\x03\x01"[..], b"\r\n", b"{", "é".as_bytes()] {
            assert_eq!(read_of(&[junk]), junk);
        }
        let long = [b"GET /", "a".repeat(LONGEST).as_bytes()].concat();
        assert!(read_of(&[&long]).len() >= LONGEST);
    }

    #[test]
    fn the_path_stands_in_the_first_line() {
        assert_eq!(path(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"), Some("/livez"));
        assert_eq!(path(b"HEAD /readyz?verbose=1 HTTP/1.1\r\n\r\n"), Some("/readyz"));
        assert_eq!(path(b"GET\r\n\r\n"), None);
        assert_eq!(path(b"\xff /livez HTTP/1.1\r\n\r\n"), None);
        assert_eq!(path(b""), None);
    }

    proptest! {
        #[test]
        fn a_head_is_found_however_it_is_cut(cuts in proptest::collection::btree_set(1..42usize, 0..6)) {
            let head: &[u8] = b"POST /x HTTP/1.1\r\nHost: a\r\nAccept: b\r\n\r\n";
            let mut pieces = vec![];
            let mut from = 0;
            for cut in cuts.into_iter().filter(|cut| *cut < head.len()) {
                pieces.push(&head[from..cut]);
                from = cut;
            }
            pieces.push(&head[from..]);
            prop_assert_eq!(read_of(&pieces), head);
        }
    }
}
