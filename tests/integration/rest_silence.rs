//! Publishes of which nothing is heard: to a stream that acknowledges nothing, and to a server that hangs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::bare::{BareServer, JETSTREAM};
use super::external::serving;
use super::rest_calls::{Api, refused};
use super::rest_publish::state;
use super::support::{Broker, CURRENT, JetStream, PATIENCE, SUBJECTS, block_on, freeze, wait_for};

const PUBLISH: &str = "/api/v1/broker/publish";
const BATCH: &str = "/api/v1/broker/publish/batch";
const STREAMS: &str = "/api/v1/broker/streams";

#[test]
fn a_stream_that_acknowledges_nothing_is_told_at_once() {
    for version in [CURRENT, "2.12.8", "2.10.26"] {
        let mut broker = Broker::with_server(version);
        broker.set("API_REQUEST_TIMEOUT", "20s").start();
        let api = Api::of(&broker);
        let ask = |subject: &str, request: Value| {
            let answer = block_on(async { JetStream(broker.client().await).ask(subject, request).await });
            assert!(answer["error"].is_null(), "{answer}");
        };
        // One of somebody else: it is found out by the first message.
        ask("$JS.API.STREAM.CREATE.DEAF", json!({ "name": "DEAF", "subjects": ["deaf.>"], "no_ack": true }));
        let one = |subject: &str| json!({ "subject": subject, "message": 1 });
        let began = Instant::now();
        let sent = |answer: (u16, Value), was_sent: bool| {
            assert_eq!(answer.1["details"]["may_have_been_stored"], was_sent, "{version}: {}", answer.1);
            let words = refused(answer, 409, "MESSAGE_PUBLISH_ERROR");
            assert!(words.contains("acknowledges no message (no_ack)"), "{words}");
        };
        sent(api.post(PUBLISH, one("deaf.a")), true);
        sent(api.post(PUBLISH, one("deaf.b")), false);
        sent(api.post_with("/api/v1/broker/subjects/deaf.c", &[], "x").answer(), false);
        wait_for("the first is stored, and no other", || (state(&broker, "DEAF")["last_seq"] == 1).then_some(()));
        let batch = json!([one("deaf.a"), one(SUBJECTS[1]), one("deaf.b")]);
        let (status, answer) = api.post(BATCH, batch);
        let results = &answer["data"]["results"];
        assert_eq!((status, &answer["data"]["published"], &results[0]["http_status"]), (207, &json!(1), &json!(409)));
        assert_eq!((&results[1]["status"], &results[2]["http_status"]), (&json!("success"), &json!(409)), "{answer}");

        // Where a batch is the first to find out.
        ask("$JS.API.STREAM.CREATE.MUTE", json!({ "name": "MUTE", "subjects": ["mute.>"], "no_ack": true }));
        let (status, answer) = api.post(BATCH, json!([one("mute.a"), one("mute.b"), one(SUBJECTS[1])]));
        assert_eq!((status, &answer["data"]["published"]), (207, &json!(1)), "{answer}");
        for index in [0, 1] {
            assert_eq!(answer["data"]["results"][index]["http_status"], 409, "{answer}");
        }
        // One that was made over the API is known before.
        api.data(api.post(STREAMS, json!({ "name": "OURS", "subjects": ["ours.>"], "no_ack": true })));
        sent(api.post(PUBLISH, one("ours.a")), false);
        assert_eq!(state(&broker, "OURS")["last_seq"], 0);
        // And once a stream acknowledges again it is believed.
        ask("$JS.API.STREAM.UPDATE.DEAF", json!({ "name": "DEAF", "subjects": ["deaf.>"], "no_ack": false }));
        api.data(api.post(PUBLISH, one("deaf.d")));
        assert!(began.elapsed() < Duration::from_secs(15), "nobody waits for the deadline: {:?}", began.elapsed());
    }
}

/// One answer on a connection that stays open: its status, and its body.
fn answer(stream: &mut TcpStream) -> (u16, Value) {
    let mut text = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "the connection ended: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&piece[..count]);
        let all = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = all.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if length == Some(body.len()) {
            return (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap());
        }
    }
}

#[test]
fn a_server_that_hangs_costs_a_request_and_not_the_connection() {
    let mut broker = Broker::new();
    // Longer than everything else that ends a connection, and nobody mends the server meanwhile.
    broker.set("API_REQUEST_TIMEOUT", "11s").set("HEALTH_PROBE_INTERVAL", "30s").set("HEALTH_INTERVAL", "1h").start();
    let mut client = TcpStream::connect(("127.0.0.1", broker.ports.api)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = json!({ "subject": SUBJECTS[1], "message": 1 }).to_string();
    let mut publish = || {
        write!(
            client,
            "POST {PUBLISH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        answer(&mut client)
    };
    assert_eq!(publish().0, 200);
    let server = broker.server_pid();
    freeze(server);
    let began = Instant::now();
    let late = publish();
    assert!(began.elapsed() >= Duration::from_secs(11), "{:?}", began.elapsed());
    assert_eq!(late.1["details"]["may_have_been_stored"], true, "{}", late.1);
    refused(late, 504, "TIMEOUT");
    kill(server, Signal::SIGCONT).unwrap();
    let after = wait_for("it is served again", || Some(publish()).filter(|(status, _)| *status == 200));
    assert!(after.1["data"]["sequence"].as_u64() >= Some(2), "{}", after.1);
    assert_eq!(broker.server_pid(), server, "it was only waited for");
}

/// Segments with data that have come on a connection, as its kernel counts them (`tcpi_data_segs_in`).
fn segments(stream: &TcpStream) -> u32 {
    const DATA_SEGMENTS: usize = 152;
    let mut info = [0u8; 256];
    let mut length = info.len() as nix::libc::socklen_t;
    #[allow(unsafe_code, reason = "nix has no name for it")]
    // SAFETY: the buffer is as long as it is said to be.
    let done = unsafe {
        let (level, name) = (nix::libc::IPPROTO_TCP, nix::libc::TCP_INFO);
        nix::libc::getsockopt(stream.as_raw_fd(), level, name, info.as_mut_ptr().cast(), &raw mut length)
    };
    assert!(done == 0 && length as usize > DATA_SEGMENTS + 4, "{done} {length}");
    u32::from_ne_bytes(info[DATA_SEGMENTS..DATA_SEGMENTS + 4].try_into().unwrap())
}

/// Stands before a server and hands everything on; gives the clients' sides of its connections.
fn relay(to: u16) -> (u16, mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, clients) = mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
            server.set_nodelay(true).unwrap();
            let both = [(&client, &server), (&server, &client)];
            for (from, to) in both.map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap())) {
                let (mut from, mut to) = (from, to);
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
            if sender.send(client).is_err() {
                return;
            }
        }
    });
    (port, clients)
}

#[test]
fn many_publishes_become_few_writes() {
    const MESSAGES: usize = 2_000;
    let mut server = BareServer::new(CURRENT, JETSTREAM);
    server.start();
    let (port, clients) = relay(server.ports.nats);
    let mut broker = serving(&server);
    broker.set("NATS_URL", format!("nats://127.0.0.1:{port}")).start();
    let api = Api::of(&broker);
    api.publish(SUBJECTS[1], [json!(0)]);
    let clients: Vec<TcpStream> = clients.try_iter().collect();
    let all = || clients.iter().map(segments).sum::<u32>();
    let before = all();
    let batch: Vec<_> = (0..MESSAGES).map(|number| json!({ "subject": SUBJECTS[1], "message": number })).collect();
    assert_eq!(api.data(api.post(BATCH, json!(batch)))["published"], MESSAGES);
    let written = all() - before;
    assert!(written as usize <= MESSAGES / 4, "{written} segments for {MESSAGES} messages");
    println!("{written} segments for {MESSAGES} messages");
}
