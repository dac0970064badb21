//! HTTP/1.1 at its edges: heads that are refused, wherever they stand, and bodies that are not asked for.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use super::support::{Broker, PATIENCE, SUBJECTS};

const PUBLISH: &str = "/api/v1/broker/publish";
const LAST: &str = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// What comes back until the connection ends.
fn raw(broker: &Broker, request: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", broker.ports.api)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_ref()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn statuses(answers: &str) -> Vec<&str> {
    let lines = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]);
    lines.filter(|status| status.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

/// Requests whose body is framed in each way.
fn before() -> [String; 4] {
    let body = format!(r#"{{"subject":"{}","message":1}}"#, SUBJECTS[1]);
    let post = format!("POST {PUBLISH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
    let (length, chunk) = (body.len(), format!("{:x}", body.len()));
    [
        "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".into(),
        "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".into(),
        format!("{post}Content-Length: {length}\r\n\r\n{body}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunk};a=b\r\n{body}\r\n0\r\nX: y\r\n\r\n"),
    ]
}

#[test]
fn a_head_that_is_refused_is_told_why_behind_any_other_request() {
    let mut broker = Broker::new();
    broker.start();
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n", "a".repeat(16 << 10));
    let refused = [
        ("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "400", "write > as %3E"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"), "431", "more than 100 header lines"),
        (long, "431", "longer than"),
        ("{\"a\":1}\r\n\r\n".into(), "400", "no request of HTTP/1.1"),
        ("GET / HTTP/1.1\r\n\r\n".into(), "400", "asks for the header Host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), "400", "more than once"),
        (format!("POST {PUBLISH} HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n"), "400", "Content-Length"),
    ];
    for (bad, status, word) in &refused {
        for first in std::iter::once(String::new()).chain(before()) {
            let answers = raw(&broker, format!("{first}{bad}"));
            let expected = if first.is_empty() { vec![*status] } else { vec!["200", *status] };
            assert_eq!(statuses(&answers), expected, "{first:?} {bad:?}: {answers}");
            assert!(answers.contains("\"INVALID_PARAMETERS\"") && answers.contains(word), "{bad:?}: {answers}");
            assert!(answers.contains("connection: close"), "{answers}");
        }
    }
    // One after the other, each once the answer before has come, and with a client that closes its side.
    for first in before() {
        for halves in [false, true] {
            let mut stream = TcpStream::connect(("127.0.0.1", broker.ports.api)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(first.as_bytes()).unwrap();
            let mut seen = vec![0; 1];
            stream.read_exact(&mut seen).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
            stream.write_all(b"\r\n").unwrap();
            if halves {
                stream.shutdown(Shutdown::Write).unwrap();
            }
            stream.read_to_end(&mut seen).unwrap();
            let answers = String::from_utf8_lossy(&seen).into_owned();
            assert_eq!(statuses(&answers), ["200", "400"], "{first:?} {halves}: {answers}");
        }
    }
}

#[test]
fn requests_follow_each_other_whatever_their_bodies() {
    let mut broker = Broker::new();
    broker.start();
    let all = before().concat();
    let answers = raw(&broker, format!("{all}{all}\r\n{LAST}"));
    assert_eq!(statuses(&answers), ["200"; 9], "{answers}");
    // Byte by byte as well.
    let mut stream = TcpStream::connect(("127.0.0.1", broker.ports.api)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for byte in format!("{all}{LAST}").as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(statuses(&answers), ["200"; 5], "{answers}");
}

#[test]
fn a_transfer_coding_that_nobody_reads_is_not_stored() {
    let mut broker = Broker::new();
    broker.start();
    let path = format!("/api/v1/broker/subjects/{}", SUBJECTS[1]);
    for (coding, status) in [
        ("gzip, chunked", "501"),
        ("gzip\r\nTransfer-Encoding: chunked", "501"),
        ("chunked, chunked", "400"),
        ("gzip", "400"),
        ("identity", "400"),
    ] {
        for first in ["", "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let request = format!(
                "{first}POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            );
            let answers = raw(&broker, request);
            assert_eq!(statuses(&answers).last(), Some(&status), "{coding}: {answers}");
            assert!(answers.contains("\"INVALID_PARAMETERS\""), "{answers}");
        }
    }
    assert_eq!(super::rest_publish::state(&broker, "MARKET_DATA")["messages"], 0);
}

#[test]
fn a_body_that_is_too_large_is_not_asked_for() {
    let mut broker = Broker::new();
    broker.set("API_MAX_BODY", "1KB").set("NATS_MAX_PAYLOAD", "2KB").start();
    let post = |path: &str, length: usize, more: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: {length}\r\n");
        raw(&broker, format!("{head}{more}Connection: close\r\n\r\n"))
    };
    let raw_path = format!("/api/v1/broker/subjects/{}", SUBJECTS[1]);
    for (path, length, more) in [
        (PUBLISH, 1025, "Content-Type: application/json\r\n"),
        (PUBLISH, 1 << 40, ""),
        (&raw_path, 2049, ""),
        (PUBLISH, 1 << 20, "Content-Encoding: gzip\r\n"),
    ] {
        let answers = post(path, length, more);
        assert_eq!(statuses(&answers), ["413"], "{path} {length}: {answers}");
        assert!(answers.contains("\"PAYLOAD_TOO_LARGE\""), "{answers}");
    }
    // One that is not is asked for, and waited for.
    let mut stream = TcpStream::connect(("127.0.0.1", broker.ports.api)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "POST {raw_path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
}
