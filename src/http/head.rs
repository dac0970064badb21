//! The head of the first request on a connection: whether it is whole, and whom it is for.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};

/// Time for the head of a request, the wait for it included.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// A head that is longer is refused.
pub const LONGEST: usize = 16 << 10;
/// A head with more header lines is refused; the parser that comes after takes no more.
pub const MOST_LINES: usize = 100;
/// Read at a time; most heads are shorter.
const PIECE: usize = 1 << 10;

/// What came of reading a head.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// All that came; the head is whole, or cannot become one.
    Come(Vec<u8>),
    TooLong,
    /// The client has gone before its end.
    Gone,
}

/// Reads until the head is whole, or cannot become one. Empty lines before it are not a part of it.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Head> {
    let mut bytes = Vec::new();
    loop {
        let seen = bytes.len();
        if read_piece(stream, &mut bytes).await? == 0 {
            return Ok(Head::Gone);
        }
        if seen == 0 {
            let empty = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            bytes.drain(..empty);
        }
        let Some(first) = bytes.first() else { continue };
        // The end may have begun in what came before.
        let is_whole = has_empty_line(&bytes[seen.saturating_sub(3)..]);
        if is_whole || !first.is_ascii_uppercase() {
            return Ok(Head::Come(bytes));
        }
        if bytes.len() >= LONGEST {
            return Ok(Head::TooLong);
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

/// The path that is asked for, without its query, and without the authority that a proxy sends before it.
pub fn path(head: &[u8]) -> Option<&str> {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (_method, target) = (words.next()?, words.next()?);
    let target = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => &rest[rest.find('/')?..],
        _ => target,
    };
    target.split('?').next()
}

/// Why the parser that comes after would refuse a head, which it does without a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    NoUrl,
    TooManyLines,
    NotHttp(String),
}

/// What is wrong with a head. One that is not whole has no fault yet.
pub fn fault(head: &[u8]) -> Option<Fault> {
    if has_bad_target(head) {
        return Some(Fault::NoUrl);
    }
    let mut lines = [httparse::EMPTY_HEADER; MOST_LINES];
    let mut request = httparse::Request::new(&mut lines);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => return Some(Fault::TooManyLines),
        Err(error) => return Some(Fault::NotHttp(error.to_string())),
    }
    let values = |name: &'static str| {
        let lines = request.headers.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
        lines.map(|line| line.value.trim_ascii())
    };
    let not_http = |reason: &str| Some(Fault::NotHttp(reason.to_owned()));
    let mut lengths = values("content-length");
    let first = lengths.next();
    let is_length = |value: &[u8]| {
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<u64>().ok()).is_some_and(|length| length < u64::MAX - 1)
    };
    if first.is_some_and(|first| !is_length(first)) || lengths.any(|other| Some(other) != first) {
        return not_http("Content-Length is no number of bytes, or several");
    }
    match values("transfer-encoding").next_back() {
        Some(_) if request.version == Some(0) => not_http("HTTP/1.0 has no Transfer-Encoding"),
        Some(last) if !is_chunked(last) => not_http("Transfer-Encoding does not end with chunked"),
        _ => None,
    }
}

fn is_chunked(encodings: &[u8]) -> bool {
    let last = encodings.rsplit(|byte| *byte == b',').next().unwrap_or_default();
    last.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// Whether what is asked for is no URL to the parser that comes after.
fn has_bad_target(head: &[u8]) -> bool {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let words: Vec<_> = line.splitn(2, |byte| *byte == b' ').collect();
    let [method, rest] = words[..] else { return false };
    let Some(end) = rest.windows(6).rposition(|six| six == b" HTTP/") else { return false };
    method.iter().all(u8::is_ascii_uppercase) && axum::http::Uri::try_from(&rest[..end]).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    /// What is read of `pieces`, which come one after the other.
    fn read_of(pieces: &[&[u8]]) -> Head {
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
        assert_eq!(read_of(&[head]), Head::Come(head.to_vec()));
        assert_eq!(read_of(&[b"GET / HTTP/1.0\n\n"]), Head::Come(b"GET / HTTP/1.0\n\n".to_vec()));
        assert_eq!(read_of(&[&head[..head.len() - 1]]), Head::Gone);
        assert_eq!(read_of(&[]), Head::Gone);
    }

    #[test]
    fn empty_lines_before_it_begin_no_head() {
        let head = b"GET /livez HTTP/1.1\r\n\r\n";
        for empty in [&b"\r\n"[..], b"\r", b"\n\n", b"\r\n\r\n\r\n"] {
            assert_eq!(read_of(&[&[empty, head].concat()]), Head::Come(head.to_vec()), "{empty:?}");
            assert_eq!(read_of(&[empty, empty, head]), Head::Come(head.to_vec()), "{empty:?}");
            assert_eq!(read_of(&[empty]), Head::Gone, "{empty:?}");
        }
    }

    #[test]
    fn what_cannot_become_a_head_is_given_at_once() {
        for junk in [&b"\x16\x03\x01"[..], b"{", "é".as_bytes()] {
            assert_eq!(read_of(&[junk]), Head::Come(junk.to_vec()));
        }
        let long = [b"GET /", "a".repeat(LONGEST).as_bytes()].concat();
        assert_eq!(read_of(&[&long]), Head::TooLong);
    }

    #[test]
    fn the_path_stands_in_the_first_line() {
        assert_eq!(path(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"), Some("/livez"));
        assert_eq!(path(b"HEAD /readyz?verbose=1 HTTP/1.1\r\n\r\n"), Some("/readyz"));
        assert_eq!(path(b"GET http://broker:8086/livez?x HTTP/1.1\r\n\r\n"), Some("/livez"));
        assert_eq!(path(b"GET http://broker:8086 HTTP/1.1\r\n\r\n"), None);
        assert_eq!(path(b"GET /to?url=http://x/livez HTTP/1.1\r\n\r\n"), Some("/to"));
        assert_eq!(path(b"GET\r\n\r\n"), None);
        assert_eq!(path(b"\xff /livez HTTP/1.1\r\n\r\n"), None);
        assert_eq!(path(b""), None);
    }

    #[test]
    fn what_no_url_may_hold_is_found() {
        for (head, is_bad) in [
            (&b"GET /tail?subject=trade-data.> HTTP/1.1\r\nHost: x\r\n\r\n"[..], true),
            (b"GET /tail?subject=trade-data.%3E HTTP/1.1\r\nHost: >\r\n\r\n", false),
            (b"GET /a b HTTP/1.1\r\n\r\n", true),
            (b"POST /\xff HTTP/1.1\r\n\r\n", true),
            (b"OPTIONS * HTTP/1.1\r\n\r\n", false),
            (b"GET http://broker:8086/livez?x HTTP/1.1\r\n\r\n", false),
            (b"PRI * HTTP/2.0\r\n\r\n", false),
            // For the parser to say what it is.
            (b"GET\r\n\r\n", false),
            (b"{ \" HTTP/", false),
            (b"", false),
        ] {
            assert_eq!(has_bad_target(head), is_bad, "{:?}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn faults_are_found_before_the_parser_that_comes_after() {
        let not_http = |head: &[u8]| matches!(fault(head), Some(Fault::NotHttp(_)));
        let lines = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert_eq!(fault(lines(MOST_LINES).as_bytes()), None);
        assert_eq!(fault(lines(MOST_LINES + 1).as_bytes()), Some(Fault::TooManyLines));
        assert_eq!(fault(b"GET /a b HTTP/1.1\r\n\r\n"), Some(Fault::NoUrl));
        for head in [
            &b"\x16\x03\x01\x02"[..],
            b"{",
            b"GET\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\n",
            b"GET / HTTP/1.1\r\na b\r\n\r\n",
            b"GET / HTTP/1.1\r\na\0: b\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 18446744073709551614\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(not_http(head), "{:?}", String::from_utf8_lossy(head));
        }
        for head in [
            &b""[..],
            b"GET /",
            b"GET / HTTP/1.1\r\nHost: x",
            b"GET / HTTP/1.0\n\n",
            b"POST / HTTP/1.1\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\n{}",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n",
        ] {
            assert_eq!(fault(head), None, "{:?}", String::from_utf8_lossy(head));
        }
    }

    proptest! {
        #[test]
        fn no_head_is_beyond_judgement(head in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = fault(&head);
        }

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
            prop_assert_eq!(read_of(&pieces), Head::Come(head.to_vec()));
        }
    }
}
