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
pub fn has_empty_line(bytes: &[u8]) -> bool {
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

/// Why a head is refused. The parser that comes after would do so without a word, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    NoUrl,
    TooManyLines,
    TooLong,
    NotHttp(String),
    /// The body comes in a transfer coding that nobody here can read.
    Coding(String),
}

/// A head that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its bytes, the empty line at its end included.
    pub length: usize,
    pub body: BodyLength,
    /// The connection may become something else than HTTP with the answer.
    pub may_change: bool,
    /// No other request follows.
    pub is_last: bool,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    Bytes(u64),
    Chunked,
}

/// What is wrong with a head. One that is not whole has no fault yet.
pub fn fault(head: &[u8]) -> Option<Fault> {
    judge(head).err()
}

/// Reads the head that stands at the beginning; [`None`] while it is not whole.
pub fn judge(head: &[u8]) -> Result<Option<Whole>, Fault> {
    if has_bad_target(head) {
        return Err(Fault::NoUrl);
    }
    let mut lines = [httparse::EMPTY_HEADER; MOST_LINES];
    let mut request = httparse::Request::new(&mut lines);
    let length = match request.parse(head) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooManyLines),
        Err(error) => return Err(Fault::NotHttp(error.to_string())),
    };
    let values = |name: &'static str| {
        let lines = request.headers.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
        lines.map(|line| line.value.trim_ascii())
    };
    let not_http = |reason: &str| Err(Fault::NotHttp(reason.to_owned()));
    match values("host").count() {
        0 if request.version == Some(1) => return not_http("HTTP/1.1 asks for the header Host"),
        0 | 1 => {}
        _ => return not_http("the header Host is there more than once"),
    }
    let mut lengths = values("content-length");
    let first = lengths.next();
    let number = |value: &[u8]| {
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<u64>().ok()).filter(|length| *length < u64::MAX - 1)
    };
    let length_of_body = first.and_then(number);
    if first.is_some() != length_of_body.is_some() || lengths.any(|other| Some(other) != first) {
        return not_http("Content-Length is no number of bytes, or several");
    }
    let codings: Vec<_> = values("transfer-encoding").flat_map(|line| line.split(|byte| *byte == b',')).collect();
    let codings: Vec<_> = codings.into_iter().map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty()).collect();
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let body = match codings.split_last() {
        None if values("transfer-encoding").next().is_some() => return not_http("Transfer-Encoding is empty"),
        None => BodyLength::Bytes(length_of_body.unwrap_or_default()),
        Some(_) if request.version == Some(0) => return not_http("HTTP/1.0 has no Transfer-Encoding"),
        Some((last, _)) if !is_chunked(last) => return not_http("Transfer-Encoding does not end with chunked"),
        Some((_, [])) => BodyLength::Chunked,
        Some((_, others)) if others.iter().any(is_chunked) => {
            return not_http("Transfer-Encoding says chunked more than once");
        }
        Some((_, others)) => {
            let others: Vec<_> = others.iter().map(|coding| String::from_utf8_lossy(coding)).collect();
            return Err(Fault::Coding(others.join(", ")));
        }
    };
    let may_change = values("upgrade").next().is_some() || request.method == Some("CONNECT");
    let says = |word: &str| {
        let words = values("connection").flat_map(|line| line.split(|byte| *byte == b','));
        words.map(<[u8]>::trim_ascii).any(|said| said.eq_ignore_ascii_case(word.as_bytes()))
    };
    let is_last = says("close") || request.version == Some(0) && !says("keep-alive");
    Ok(Some(Whole { length, body, may_change, is_last }))
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
        let lines = |count: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(count - 1));
        assert_eq!(fault(lines(MOST_LINES).as_bytes()), None);
        assert_eq!(fault(lines(MOST_LINES + 1).as_bytes()), Some(Fault::TooManyLines));
        assert_eq!(fault(b"GET /a b HTTP/1.1\r\n\r\n"), Some(Fault::NoUrl));
        let with = |lines: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n").into_bytes();
        for head in [
            &b"\x16\x03\x01\x02"[..],
            b"{",
            b"GET\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n",
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            &with("a b"),
            &with("a\0: b"),
            &with("Content-Length: +1"),
            &with("Content-Length:"),
            &with("Content-Length: 99999999999999999999"),
            &with("Content-Length: 18446744073709551614"),
            &with("Content-Length: 1\r\ncontent-length: 2"),
            &with("Transfer-Encoding: gzip"),
            &with("Transfer-Encoding: identity"),
            &with("Transfer-Encoding:"),
            &with("Transfer-Encoding: chunked, gzip"),
            &with("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip"),
            &with("Transfer-Encoding: chunked, chunked"),
            &with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ] {
            assert!(not_http(head), "{:?}", String::from_utf8_lossy(head));
        }
        for coded in ["gzip, Chunked", "gzip\r\nTransfer-Encoding: chunked", "x, , chunked"] {
            let head = with(&format!("Transfer-Encoding: {coded}"));
            assert!(matches!(fault(&head), Some(Fault::Coding(_))), "{coded}: {:?}", fault(&head));
        }
        for head in [
            &b""[..],
            b"GET /",
            b"GET / HTTP/1.1\r\nHost: x",
            b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
            b"GET / HTTP/1.0\n\n",
            &with("Content-Length: 2\r\ncontent-length: 2"),
            &with("Transfer-Encoding: , Chunked"),
        ] {
            assert_eq!(fault(head), None, "{:?}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn a_head_says_what_follows_it() {
        let judged = |lines: &str, behind: &str| {
            let head = format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
            let whole = judge(format!("{head}{behind}").as_bytes()).unwrap().unwrap();
            assert_eq!(whole.length, head.len());
            (whole.body, whole.may_change)
        };
        assert_eq!(judged("", "GET"), (BodyLength::Bytes(0), false));
        assert_eq!(judged("Content-Length: 7\r\n", "1234567GET"), (BodyLength::Bytes(7), false));
        assert_eq!(judged("transfer-encoding: CHUNKED\r\n", ""), (BodyLength::Chunked, false));
        // What is said of chunks goes before a length, as for the parser that comes after.
        let both = "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(judged(both, ""), (BodyLength::Chunked, false));
        assert_eq!(judged("Upgrade: websocket\r\n", ""), (BodyLength::Bytes(0), true));
        assert_eq!(judge(b"GET / HTTP/1.1\r\nHost: x\r\n"), Ok(None));
        for (head, is_last) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: x, Close\r\n\r\n", true),
            ("GET / HTTP/1.0\r\n\r\n", true),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
        ] {
            assert_eq!(judge(head.as_bytes()).unwrap().unwrap().is_last, is_last, "{head}");
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
