use super::*;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);

/// A door whose workers run on the runtime of the test.
struct Door {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    /// `/slow` is answered once it is told to be.
    go: Arc<Notify>,
    /// Requests for `/slow` that have come.
    slow: Arc<AtomicU32>,
}

impl Door {
    async fn open(busy: usize, waiting: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (go, slow) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
        let (waits, counts) = (go.clone(), slow.clone());
        let answer_slowly = move || async move {
            counts.fetch_add(1, Ordering::SeqCst);
            waits.notified().await;
            "slow"
        };
        let probes = Router::new().route("/probe", get(async || "probe"));
        let all = Router::new()
            .route("/probe", get(async || "worker"))
            .route("/", get(async || "here"))
            .route("/read", get(async |_: axum::body::Bytes| "here"))
            .route("/panic", get(panics))
            .route("/long", get(async || vec![0u8; 64 << 20]))
            .route("/slow", get(answer_slowly));
        let routes = Routes { probes, probe_paths: &["/probe"], all };
        let shutdown = CancellationToken::new();
        let bounds = Bounds { busy, waiting };
        let task = tokio::spawn(receive(listener, routes, bounds, Workers::of(Handle::current()), shutdown.clone()));
        Self { address, shutdown, task, go, slow }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn wait_for_slow(&self, requests: u32) {
        let come = async {
            while self.slow.load(Ordering::SeqCst) < requests {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, come).await.unwrap();
    }
}

async fn panics() -> &'static str {
    panic!("in a handler")
}

async fn send(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// The next answer; [`None`] where the connection is closed first.
async fn answer(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let read = async {
        loop {
            let end = text.windows(4).position(|four| four == b"\r\n\r\n");
            let (head, body) = text.split_at(end.map_or(text.len(), |end| end + 4));
            let head = String::from_utf8_lossy(head).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if end.is_some() && length.is_some_and(|length: usize| body.len() >= length) {
                return Some(head + &String::from_utf8_lossy(body));
            }
            if stream.read_buf(&mut text).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    };
    timeout(LONG, read).await.unwrap()
}

async fn ask(stream: &mut TcpStream, path: &str) -> Option<String> {
    send(stream, path).await;
    answer(stream).await
}

fn is(answer: &Option<String>, status: u16, body: &str) -> bool {
    answer.as_ref().is_some_and(|text| text.starts_with(&format!("HTTP/1.1 {status}")) && text.ends_with(body))
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let door = Door::open(1, 8).await;
    let mut first = door.connect().await;
    assert!(is(&ask(&mut first, "/").await, 200, "here"));
    let mut second = door.connect().await;
    send(&mut second, "/").await;
    assert!(timeout(Duration::from_millis(50), answer(&mut second)).await.is_err());
    drop(first);
    assert!(is(&answer(&mut second).await, 200, "here"));
}

#[tokio::test(start_paused = true)]
async fn one_that_waited_in_vain_is_told_so() {
    let door = Door::open(1, 8).await;
    let mut first = door.connect().await;
    send(&mut first, "/slow").await;
    door.wait_for_slow(1).await;
    let mut second = door.connect().await;
    let refused = ask(&mut second, "/").await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 1"), "{refused}");
    assert!(refused.contains("\"error_code\":\"SERVICE_UNAVAILABLE\""), "{refused}");
}

#[tokio::test]
async fn probes_are_answered_though_every_place_is_taken() {
    let door = Door::open(2, 8).await;
    let mut busy = vec![];
    for _ in 0..2 {
        let mut stream = door.connect().await;
        send(&mut stream, "/slow").await;
        busy.push(stream);
    }
    door.wait_for_slow(2).await;
    let mut probing = door.connect().await;
    for _ in 0..2 {
        assert!(is(&ask(&mut probing, "/probe").await, 200, "probe"), "again over the same connection");
    }
    assert!(is(&ask(&mut probing, "/").await, 200, "here"), "and so is what else it asks for");
    assert!(is(&ask(&mut probing, "/nowhere").await, 404, ""));
    door.go.notify_waiters();
    for stream in &mut busy {
        assert!(is(&answer(stream).await, 200, "slow"));
    }
}

#[tokio::test]
async fn who_sends_half_a_request_takes_no_place_and_leaves_for_others() {
    let door = Door::open(1, 4).await;
    let mut idle = vec![];
    for sent in [&b""[..], b"GET ", b"GET /probe HTTP/1.1\r\nHost: x\r\n"].iter().cycle().take(20) {
        let mut stream = door.connect().await;
        stream.write_all(sent).await.unwrap();
        idle.push(stream);
        let mut other = door.connect().await;
        assert!(is(&ask(&mut other, "/").await, 200, "here"));
        let mut probing = door.connect().await;
        assert!(is(&ask(&mut probing, "/probe").await, 200, "probe"));
    }
    let mut first = idle.swap_remove(0);
    // Long before its own time is over.
    let closed = timeout(HEAD_DEADLINE / 2, first.read_to_end(&mut vec![])).await;
    assert!(closed.is_ok(), "the oldest has left");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_idles_is_closed() {
    let door = Door::open(8, 8).await;
    for sent in [&b""[..], b"GET / HTTP/1.1\r\nHost: x\r\n"] {
        let mut idle = door.connect().await;
        idle.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        let closed = timeout(HEAD_DEADLINE * 2, idle.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "{answer:?}");
    }
    for path in ["/", "/probe"] {
        let mut used = door.connect().await;
        assert!(ask(&mut used, path).await.is_some());
        let closed = timeout(HEAD_DEADLINE * 2, used.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "one that was used is not kept for ever, either: {path}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_at_once() {
    let door = Door::open(8, 8).await;
    for junk in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"hello\r\n\r\n", b"get / http/1.1\r\n\r\n"] {
        let mut stream = door.connect().await;
        stream.write_all(junk).await.unwrap();
        let mut text = String::new();
        timeout(HEAD_DEADLINE / 2, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    }
    let mut stream = door.connect().await;
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(1 << 20));
    // The server may close while the rest is on its way.
    let _ = stream.write_all(long.as_bytes()).await;
    let mut text = vec![];
    let _ = timeout(LONG, stream.read_to_end(&mut text)).await.unwrap();
    assert!(text.is_empty() || text.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&text));
}

#[tokio::test]
async fn a_stop_closes_the_port_and_finishes_what_is_under_way() {
    let door = Door::open(8, 8).await;
    let (mut idle, mut kept, mut probing) = (door.connect().await, door.connect().await, door.connect().await);
    assert!(ask(&mut kept, "/").await.is_some());
    assert!(ask(&mut probing, "/probe").await.is_some());
    let mut slow = [door.connect().await, door.connect().await];
    send(&mut slow[0], "/slow").await;
    assert!(ask(&mut slow[1], "/probe").await.is_some());
    send(&mut slow[1], "/slow").await;
    door.wait_for_slow(2).await;
    door.shutdown.cancel();
    for stream in [&mut idle, &mut kept, &mut probing] {
        assert!(timeout(LONG, stream.read_to_end(&mut vec![])).await.is_ok(), "nobody waits for these");
    }
    assert!(TcpStream::connect(door.address).await.is_err(), "the port is closed");
    assert!(!door.task.is_finished());
    door.go.notify_waiters();
    for stream in &mut slow {
        assert!(is(&answer(stream).await, 200, "slow"));
    }
    timeout(LONG, door.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_are_kept_at_the_workers_and_some_at_the_door() {
    const KEPT: usize = WARM + 64;
    let door = Door::open(KEPT, KEPT_HERE + 8).await;
    let mut streams = vec![];
    for number in 0..KEPT_HERE + 4 {
        let mut stream = door.connect().await;
        let answer = ask(&mut stream, "/probe").await.unwrap();
        assert_eq!(answer.contains("connection: close"), number >= KEPT_HERE, "{number}");
        streams.push(stream);
    }
    let (mut first, mut last) = (streams.swap_remove(0), streams.pop().unwrap());
    assert!(ask(&mut first, "/probe").await.is_some());
    assert!(timeout(LONG, last.read_to_end(&mut vec![])).await.is_ok(), "it was closed");
    let mut streams = vec![];
    for _ in 0..KEPT {
        let mut stream = door.connect().await;
        assert!(is(&ask(&mut stream, "/").await, 200, "here"));
        streams.push(stream);
    }
    for path in ["/", "/probe", "/nowhere", "/"] {
        for stream in &mut streams {
            assert!(!ask(stream, path).await.unwrap().contains("connection: close"), "{path}");
        }
    }
}

/// A door at which every connection gives its buffers back while it waits.
async fn door_without_buffers() -> (Door, Vec<TcpStream>) {
    let door = Door::open(WARM + 8, 8).await;
    let mut warm = vec![];
    for _ in 0..WARM {
        let mut stream = door.connect().await;
        assert!(ask(&mut stream, "/").await.is_some());
        warm.push(stream);
    }
    (door, warm)
}

#[tokio::test]
async fn a_connection_without_buffers_serves_what_others_do() {
    let (door, _warm) = door_without_buffers().await;
    let mut stream = door.connect().await;
    for _ in 0..3 {
        assert!(is(&ask(&mut stream, "/").await, 200, "here"));
    }
    // Several at once, in pieces, and with bodies that look like requests.
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let with_body = "GET /read HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nGET ";
    let chunked = "GET /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n0\r\n\r\n";
    let all = [request, with_body, request, chunked, request].concat();
    for size in [1, 7, 40, all.len()] {
        let mut text = String::new();
        for piece in all.as_bytes().chunks(size) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        while text.matches("here").count() < 5 {
            let mut piece = [0; 4096];
            let read = timeout(LONG, stream.read(&mut piece)).await.unwrap().unwrap();
            assert!(read > 0, "in pieces of {size}: {text}");
            text += std::str::from_utf8(&piece[..read]).unwrap();
        }
        assert_eq!(text.matches("HTTP/1.1 200").count(), 5, "{text}");
    }
    // A body that nobody reads is no request either: it is passed over, or ends the connection.
    stream.write_all(with_body.replace("/read", "/").as_bytes()).await.unwrap();
    assert!(is(&answer(&mut stream).await, 200, "here"));
    stream.write_all(&with_body.replace("/read", "/").as_bytes()[..47]).await.unwrap();
    assert!(is(&answer(&mut stream).await, 200, "here"));
    stream.write_all(b"ET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap_or_default();
    assert_eq!(answer(&mut stream).await, None);
    for last in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n"] {
        let mut stream = door.connect().await;
        assert!(is(&ask(&mut stream, "/").await, 200, "here"));
        stream.write_all(last.as_bytes()).await.unwrap();
        let mut text = String::new();
        timeout(HEAD_DEADLINE / 2, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        assert!(text.ends_with("here"), "{text}");
    }
    let mut stream = door.connect().await;
    assert!(is(&ask(&mut stream, "/").await, 200, "here"));
    door.shutdown.cancel();
    let closed = timeout(HEAD_DEADLINE / 2, stream.read_to_end(&mut vec![])).await;
    assert!(closed.is_ok(), "nobody waits for one that idles");
}

#[tokio::test]
async fn a_connection_without_buffers_is_closed_when_it_idles() {
    let (door, _warm) = door_without_buffers().await;
    let mut stream = door.connect().await;
    assert!(ask(&mut stream, "/").await.is_some());
    tokio::time::pause();
    let closed = timeout(HEAD_DEADLINE * 2, stream.read_to_end(&mut vec![])).await;
    assert!(closed.is_ok());
}

#[tokio::test]
async fn a_panic_in_a_handler_costs_that_request() {
    let door = Door::open(1, 8).await;
    let (mut direct, mut probing) = (door.connect().await, door.connect().await);
    assert_eq!(ask(&mut direct, "/panic").await, None);
    assert!(is(&ask(&mut probing, "/probe").await, 200, "probe"));
    assert!(is(&ask(&mut probing, "/panic").await, 500, ""), "the door has it done elsewhere");
    assert!(is(&ask(&mut probing, "/probe").await, 200, "probe"));
    let mut other = door.connect().await;
    assert!(is(&ask(&mut other, "/").await, 200, "here"), "its place is free");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_takes_its_request_along() {
    let door = Door::open(1, 8).await;
    let mut first = door.connect().await;
    send(&mut first, "/slow").await;
    door.wait_for_slow(1).await;
    drop(first);
    let mut second = door.connect().await;
    assert!(is(&ask(&mut second, "/").await, 200, "here"), "its place is free");
}

#[tokio::test]
async fn neither_empty_lines_nor_a_long_head_take_a_place() {
    let door = Door::open(1, 8).await;
    let long = format!("GET /{}", "a".repeat(head::LONGEST));
    for sent in [&b"\r\n"[..], b"\n", long.as_bytes()] {
        let mut idle = door.connect().await;
        idle.write_all(sent).await.unwrap();
        let mut other = door.connect().await;
        let answer = timeout(HEAD_DEADLINE / 2, ask(&mut other, "/")).await;
        assert!(answer.is_ok_and(|answer| is(&answer, 200, "here")), "behind {} bytes", sent.len());
        idle.write_all(b"\r\n").await.unwrap_or_default();
    }
    let mut early = door.connect().await;
    early.write_all(b"\r\n").await.unwrap();
    assert!(is(&ask(&mut early, "/").await, 200, "here"), "an empty line before a request does no harm");
}

#[tokio::test]
async fn no_connection_keeps_more_than_a_head() {
    let door = Door::open(8, 8).await;
    for path in ["/", "/probe"] {
        let mut stream = door.connect().await;
        assert!(ask(&mut stream, path).await.is_some());
        let long = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(8 * head::LONGEST));
        // The server may close while the rest is on its way.
        let _ = stream.write_all(long.as_bytes()).await;
        let answered = answer(&mut stream).await;
        assert!(!is(&answered, 200, ""), "{path}: {answered:?}");
    }
}

#[tokio::test]
async fn a_client_that_closes_its_side_gets_its_answer() {
    let door = Door::open(8, 8).await;
    for (path, expected) in [("/", "here"), ("/probe", "probe"), ("/nowhere", "")] {
        let mut stream = door.connect().await;
        send(&mut stream, path).await;
        stream.shutdown().await.unwrap();
        assert!(is(&answer(&mut stream).await, if expected.is_empty() { 404 } else { 200 }, expected), "{path}");
        let closed = timeout(HEAD_DEADLINE / 2, stream.read_to_end(&mut vec![])).await;
        assert!(closed.is_ok(), "{path}: nothing more can come of it");
    }
    // The end is there before the answer.
    let mut late = door.connect().await;
    send(&mut late, "/slow").await;
    late.shutdown().await.unwrap();
    door.wait_for_slow(1).await;
    timeout(Duration::from_millis(50), late.readable()).await.unwrap_err();
    door.go.notify_waiters();
    assert!(is(&answer(&mut late).await, 200, "slow"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_its_side_and_takes_nothing_is_let_go() {
    let door = Door::open(1, 8).await;
    let mut first = door.connect().await;
    send(&mut first, "/long").await;
    first.shutdown().await.unwrap();
    let mut second = door.connect().await;
    send(&mut second, "/").await;
    assert!(is(&answer(&mut second).await, 200, "here"), "its place is free");
    drop(first);
}
