//! Bounds of the REST API: sizes, rates, times, and what HTTP leaves open.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::support::*;

const PUBLISH: &str = "/api/v1/broker/publish";

fn limited(settings: &[(&str, &str)]) -> Broker {
    let mut broker = Broker::new();
    for (name, value) in settings {
        broker.set(name, value);
    }
    broker.start();
    broker
}

/// A publish of a message with so many bytes.
fn message(bytes: usize) -> Vec<u8> {
    json!({ "subject": SUBJECTS[1], "message": "a".repeat(bytes) }).to_string().into_bytes()
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    async fn of(request: reqwest::RequestBuilder) -> Self {
        let answer = request.timeout(PATIENCE).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Self { status, headers, text: String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned() }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{}: {error}", self.text))
    }

    /// Holds it to be that error, in the envelope.
    fn is(&self, status: u16, code: &str) {
        let body = self.json();
        assert_eq!(
            (self.status, &body["error_code"], &body["status"]),
            (status, &json!(code), &json!("error")),
            "{body}"
        );
        assert!(body["data"].is_null() && body["timestamp"].is_string() && body["message"].is_string(), "{body}");
        assert!(self.headers.contains_key("x-request-id"), "{:?}", self.headers);
    }
}

async fn post(broker: &Broker, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = http_client().post(broker.api(PUBLISH)).header("content-type", "application/json").body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request).await
}

/// What comes back for these bytes until the connection closes, or as long as nothing more comes.
fn raw(broker: &Broker, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", broker.ports.api)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The broker may close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = gzip.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = gzip.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

/// A frame of so many blocks of 128 KiB, each of one byte over and over.
fn zstd_bomb(blocks: u32) -> Vec<u8> {
    // Magic, no checksum or size, a window of 1 MiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50];
    for number in 1..=blocks {
        let header = (128 << 10) << 3 | 1 << 1 | u32::from(number == blocks);
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(b' ');
    }
    frame
}

#[test]
fn a_body_is_bounded_before_and_after_it_is_decompressed() {
    let broker = limited(&[("API_MAX_BODY", "64KB")]);
    block_on(async {
        assert_eq!(post(&broker, &[], message(60 << 10)).await.status, 200);
        post(&broker, &[], message(64 << 10)).await.is(413, "PAYLOAD_TOO_LARGE");
        let pieces = (0..100).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[b' '; 1024]))));
        let chunked = reqwest::Body::wrap(StreamBody::new(futures_util::stream::iter(pieces)));
        let request = http_client().post(broker.api(PUBLISH)).header("content-type", "application/json").body(chunked);
        Answer::of(request).await.is(413, "PAYLOAD_TOO_LARGE");

        let compressed = [("content-encoding", "gzip")];
        assert_eq!(post(&broker, &compressed, gzip(&message(1000))).await.status, 200);
        let before = memory(&broker);
        post(&broker, &compressed, gzip(&vec![b' '; 64 << 20])).await.is(413, "PAYLOAD_TOO_LARGE");
        post(&broker, &[("content-encoding", "zstd")], zstd_bomb(8000)).await.is(413, "PAYLOAD_TOO_LARGE");
        assert!(memory(&broker) < before + (16 << 20), "a gigabyte takes no memory");
        // Blocks that hold nothing, one after the other.
        let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        let nothing = [&header[..], &[0, 0, 0, 0xff, 0xff].repeat(300_000)].concat();
        post(&broker, &compressed, nothing).await.is(413, "PAYLOAD_TOO_LARGE");
        // Files that were appended to are several members, one after the other.
        let whole = message(1000);
        let (first, second) = whole.split_at(whole.len() / 2);
        let members = [gzip(first), gzip(second)].concat();
        assert_eq!(post(&broker, &compressed, members).await.status, 200);
        let first_is_whole = [gzip(&whole), b"and something else".to_vec()].concat();
        post(&broker, &compressed, first_is_whole).await.is(400, "INVALID_PARAMETERS");
        post(&broker, &compressed, b"no gzip at all".to_vec()).await.is(400, "INVALID_PARAMETERS");
        for unknown in ["br", "deflate", "gzip, gzip", "x"] {
            post(&broker, &[("content-encoding", unknown)], message(1)).await.is(415, "UNSUPPORTED_MEDIA_TYPE");
        }
        assert_eq!(post(&broker, &[("content-encoding", "identity")], message(1)).await.status, 200);
        let request = http_client().post(broker.api(PUBLISH)).header("content-type", "text/plain").body(message(1));
        Answer::of(request).await.is(415, "UNSUPPORTED_MEDIA_TYPE");
    });
}

/// Anonymous memory of the broker, in bytes.
fn memory(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_large_body_is_taken_where_it_is_allowed() {
    let broker = limited(&[("API_MAX_BODY", "8MB"), ("NATS_MAX_PAYLOAD", "4MB")]);
    block_on(async {
        assert_eq!(post(&broker, &[], message(3 << 20)).await.status, 200);
        post(&broker, &[], message(5 << 20)).await.is(413, "PAYLOAD_TOO_LARGE");
    });
}

#[test]
fn a_body_that_stalls_is_given_up() {
    let broker = limited(&[("API_REQUEST_TIMEOUT", "300ms")]);
    let head = format!("POST {PUBLISH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
    for stalled in ["Transfer-Encoding: chunked\r\n\r\n5\r\n{\"sub", "Content-Length: 100\r\n\r\n{\"sub"] {
        let answer = raw(&broker, format!("{head}{stalled}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"TIMEOUT\""), "{answer}");
    }
}

#[test]
fn so_many_requests_a_second_and_probes_besides() {
    let broker = limited(&[("API_RATE_LIMIT", "3")]);
    block_on(async {
        let status = || Answer::of(http_client().get(broker.api("/api/v1/nowhere")));
        let mut refused = None;
        for _ in 0..20 {
            refused = Some(status().await).filter(|answer| answer.status == 429).or(refused);
        }
        let refused = refused.expect("more than three a second");
        refused.is(429, "RATE_LIMITED");
        assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
        for path in ["/livez", "/readyz", "/startupz", "/health"].iter().cycle().take(40) {
            assert_eq!(Answer::of(http_client().get(broker.api(path))).await.status, 200, "{path}");
        }
        // Over one connection, too.
        let client = http_client();
        for _ in 0..20 {
            assert_eq!(Answer::of(client.get(broker.api("/readyz"))).await.status, 200);
        }
        wait_until_served(&broker).await;
    });
}

async fn wait_until_served(broker: &Broker) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while Answer::of(http_client().get(broker.api("/api/v1/nowhere"))).await.status != 404 {
        assert!(std::time::Instant::now() < deadline);
    }
}

async fn browser(broker: &Broker, preflight: bool, origin: &'static str) -> Answer {
    let headers: HeaderMap = [("origin", origin), ("access-control-request-method", "POST")]
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .into_iter()
        .collect();
    let method = if preflight { reqwest::Method::OPTIONS } else { reqwest::Method::POST };
    Answer::of(http_client().request(method, broker.api(PUBLISH)).headers(headers)).await
}

#[test]
fn browsers_are_told_which_pages_may_ask() {
    let broker = limited(&[("API_CORS_ORIGINS", "https://a.example,http://b.example:3000"), ("API_TOKEN", "t")]);
    block_on(async {
        let allowed = |answer: &Answer| {
            answer.headers.get("access-control-allow-origin").map(|value| value.to_str().unwrap().to_owned())
        };
        for origin in ["https://a.example", "http://b.example:3000"] {
            let asked = browser(&broker, true, origin).await;
            assert_eq!((asked.status, allowed(&asked).as_deref()), (200, Some(origin)));
            let headers = asked.headers["access-control-allow-headers"].to_str().unwrap();
            assert!(headers.contains("authorization") && headers.contains("idempotency-key"), "{headers}");
            let refused = browser(&broker, false, origin).await;
            refused.is(401, "UNAUTHORIZED");
            assert_eq!(allowed(&refused).as_deref(), Some(origin), "a page may read an error, too");
        }
        let other = browser(&broker, true, "https://other.example").await;
        assert_eq!(allowed(&other), None);
    });
    let everybody = limited(&[("API_CORS_ORIGINS", "*")]);
    let nobody = limited(&[]);
    block_on(async {
        let asked = browser(&everybody, true, "https://a.example").await;
        assert_eq!(asked.headers["access-control-allow-origin"], "*");
        let asked = browser(&nobody, true, "https://a.example").await;
        asked.is(405, "METHOD_NOT_ALLOWED");
        assert!(!asked.headers.contains_key("access-control-allow-origin"));
    });
}

#[test]
fn answers_are_compressed_for_who_can_read_that() {
    let broker = limited(&[]);
    block_on(async {
        for (accepted, expected) in [("gzip", Some("gzip")), ("zstd", Some("zstd")), ("br", None), ("", None)] {
            let request = http_client().get(broker.api("/api/v1/status")).header("accept-encoding", accepted);
            let answer = Answer::of(request).await;
            let encoding = answer.headers.get("content-encoding").map(|value| value.to_str().unwrap());
            assert_eq!((answer.status, encoding), (200, expected), "{accepted}");
        }
        let request = http_client().get(broker.api("/assets/icon.svg")).header("accept-encoding", "gzip");
        let answer = Answer::of(request).await;
        assert!(!answer.headers.contains_key("content-encoding"), "what is small is not worth it");
        assert_eq!(answer.headers["content-type"], "image/svg+xml");
    });
}

#[test]
fn every_error_comes_in_the_envelope_or_as_a_problem() {
    let broker = limited(&[]);
    let closed = limited(&[("API_ENABLED", "false")]);
    block_on(async {
        let client = http_client();
        Answer::of(client.get(broker.api("/nowhere"))).await.is(404, "NOT_FOUND");
        Answer::of(client.get(broker.api("/api/v1/broker/%00%2f%ff"))).await.is(404, "NOT_FOUND");
        let wrong = Answer::of(client.delete(broker.api(PUBLISH))).await;
        wrong.is(405, "METHOD_NOT_ALLOWED");
        assert_eq!(wrong.headers["allow"], "POST");
        for path in ["/livez", "/health", "/"] {
            Answer::of(client.post(broker.api(path))).await.is(405, "METHOD_NOT_ALLOWED");
        }
        Answer::of(client.get(closed.api("/api/v1/status"))).await.is(404, "NOT_FOUND");
        Answer::of(client.post(closed.api("/readyz"))).await.is(405, "METHOD_NOT_ALLOWED");
        assert_eq!(Answer::of(client.get(closed.api("/health"))).await.status, 200);
        let request = client.get(broker.api("/nowhere")).header("accept", "application/problem+json");
        let problem = Answer::of(request.header("x-request-id", "mine-1")).await;
        assert_eq!(problem.headers["content-type"], "application/problem+json");
        assert_eq!(problem.headers["x-request-id"], "mine-1");
        let body = problem.json();
        assert_eq!((&body["status"], &body["error_code"]), (&json!(404), &json!("NOT_FOUND")));
        assert_eq!(body["instance"], "urn:request:mine-1");
    });
}

#[test]
fn http_as_others_speak_it() {
    let broker = limited(&[]);
    let old = raw(&broker, b"GET /api/v1/status HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200 ") && old.contains("\"success\""), "{old}");
    let close = "Host: x\r\nConnection: close\r\n\r\n";
    let head = raw(&broker, format!("HEAD /api/v1/status HTTP/1.1\r\n{close}").as_bytes());
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let body = String::from_utf8(message(10)).unwrap();
    let publish = |more: &str| {
        let length = body.len();
        format!("POST {PUBLISH} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}")
    };
    let expecting = raw(&broker, format!("{}{close}{body}", publish("Expect: 100-continue\r\n")).as_bytes());
    assert!(expecting.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 "), "{expecting}");
    let unknown = "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n";
    let pipelined = format!("{}Host: x\r\n\r\n{body}{unknown}GET /livez HTTP/1.1\r\n{close}", publish(""));
    let answers = raw(&broker, pipelined.as_bytes());
    let statuses: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "404", "200"], "{answers}");
    for refused in ["GET /api/v1/broker/tail?subject=trade-data.> HTTP/1.1\r\n", "GET /a b HTTP/1.1\r\n"] {
        let refused = raw(&broker, format!("{refused}{close}").as_bytes());
        assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("INVALID_PARAMETERS"), "{refused}");
        assert!(refused.contains("write > as %3E"), "{refused}");
    }
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let refused = raw(&broker, format!("GET /api/v1/status HTTP/1.1\r\n{many}{close}").as_bytes());
    assert!(refused.starts_with("HTTP/1.1 431 "), "{refused}");
    assert!(refused.contains("\"INVALID_PARAMETERS\"") && refused.contains("more than 100 header lines"), "{refused}");
    let probe = raw(&broker, format!("GET /livez HTTP/1.1\r\n{many}{close}").as_bytes());
    assert!(probe.starts_with("HTTP/1.1 431 ") && probe.contains("more than 100 header lines"), "{probe}");
    for junk in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"{\"a\":1}\n", b"GET /\x01 x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"]
    {
        let refused = raw(&broker, junk);
        assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("\"INVALID_PARAMETERS\""), "{refused}");
    }
    let long = raw(&broker, format!("GET /{} HTTP/1.1\r\n{close}", "a".repeat(64 << 10)).as_bytes());
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 431 "), "{long}");
    for smuggled in ["Content-Length: 5\r\nContent-Length: 6\r\n", "Transfer-Encoding: x\r\n"] {
        let refused = raw(&broker, format!("POST {PUBLISH} HTTP/1.1\r\n{smuggled}{close}").as_bytes());
        assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("\"INVALID_PARAMETERS\""), "{refused}");
    }
}

#[test]
fn a_trace_goes_through_to_the_message() {
    let broker = limited(&[]);
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    block_on(async {
        let published = post(&broker, &[("traceparent", TRACE), ("tracestate", "a=1")], message(1)).await;
        assert_eq!(published.status, 200, "{}", published.text);
        let jetstream = JetStream(broker.client().await);
        let answer = jetstream.ask("$JS.API.STREAM.MSG.GET.MARKET_DATA", json!({ "seq": 1 })).await;
        use base64::Engine;
        let headers = base64::prelude::BASE64_STANDARD.decode(answer["message"]["hdrs"].as_str().unwrap()).unwrap();
        let headers = String::from_utf8(headers).unwrap();
        assert!(
            headers.contains(&format!("traceparent: {TRACE}\r\n")) && headers.contains("tracestate: a=1"),
            "{headers}"
        );
    });
}

#[test]
fn those_who_dribble_keep_nobody_from_being_served() {
    const DRIBBLING: usize = 1000;
    let broker = limited(&[]);
    let address = ("127.0.0.1", broker.ports.api);
    let head =
        format!("POST {PUBLISH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use tokio::io::AsyncWriteExt;
        for number in 0..DRIBBLING {
            // Half of them have sent a whole head.
            let bytes = if number % 2 == 0 { head.clone() } else { format!("{head}\r\n{{") };
            tokio::spawn(async move {
                let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return };
                for byte in bytes.as_bytes().chunks(if number % 2 == 0 { 1 } else { 200 }) {
                    if stream.write_all(byte).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                std::future::pending::<()>().await;
            });
        }
        let client = http_client();
        for _ in 0..200 {
            let request = client.post(broker.api(PUBLISH)).header("content-type", "application/json").body(message(10));
            assert_eq!(Answer::of(request).await.status, 200);
            assert_eq!(Answer::of(client.get(broker.api("/readyz"))).await.status, 200);
        }
    });
}
