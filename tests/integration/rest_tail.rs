//! GET /api/v1/broker/tail: live messages, exactly.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::sse::Sse;
use crate::support::{Broker, CURRENT, JetStream, PATIENCE, cannot_run, http_client, wait_for};
use crate::ws_client::Ws;

const SUBJECT: &str = "trade-data.binance.spot.BTCUSDT";

async fn jetstream(broker: &Broker) -> JetStream {
    JetStream(broker.client().await)
}

fn tail_of(broker: &Broker, query: &str) -> String {
    broker.api(&format!("/api/v1/broker/tail?{query}"))
}

fn sequences(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["sequence"].as_u64().unwrap()).collect()
}

/// The consumers of MARKET_DATA.
async fn consumers(jetstream: &JetStream) -> Vec<String> {
    let answer = jetstream.ask("$JS.API.CONSUMER.NAMES.MARKET_DATA", Value::Null).await;
    let names = answer["consumers"].as_array().cloned().unwrap_or_default();
    names.into_iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        // A poll, not a guess: the condition decides.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn delete_and_make_anew(jetstream: &JetStream, stream: &str) {
    let config = jetstream.info(stream).await["config"].clone();
    let deleted = jetstream.ask(&format!("$JS.API.STREAM.DELETE.{stream}"), Value::Null).await;
    assert_eq!(deleted["success"], true, "{deleted}");
    let made = jetstream.ask(&format!("$JS.API.STREAM.CREATE.{stream}"), config).await;
    assert!(made["error"].is_null(), "{made}");
}

fn a_tail_goes_on_over_a_restart_and_resumes_where_it_was(version: &str) {
    let mut broker = Broker::with_server(version);
    broker.set("RESTART_BACKOFF_MAX", "200ms");
    broker.start();
    run(async {
        let js = jetstream(&broker).await;
        js.publish(SUBJECT, "\"before\"").await;
        let mut live = Sse::open(&tail_of(&broker, "subject=trade-data.>"), None).await.unwrap();
        let mut past = Sse::open(&tail_of(&broker, "subject=trade-data.>&from=1"), None).await.unwrap();
        js.publish(SUBJECT, "{\"price\": 1.50}").await;
        js.publish(SUBJECT, "no json").await;
        let messages = live.messages(2).await;
        assert_eq!(sequences(&messages), [2, 3]);
        assert_eq!((&messages[0]["message"], &messages[0]["encoding"]), (&json!({ "price": 1.5 }), &json!("json")));
        assert_eq!((&messages[1]["message"], &messages[1]["encoding"]), (&json!("bm8ganNvbg=="), &json!("base64")));
        assert_eq!((&messages[0]["subject"], &messages[0]["stream"]), (&json!(SUBJECT), &json!("MARKET_DATA")));
        assert_eq!(sequences(&past.messages(3).await), [1, 2, 3]);

        kill(broker.server_pid(), Signal::SIGKILL).unwrap();
        let js = {
            let ready = || (broker.restarts() == Some(1) && broker.state() == "ready").then_some(());
            tokio::task::block_in_place(|| wait_for("it is back", ready));
            jetstream(&broker).await
        };
        js.publish(SUBJECT, "4").await;
        assert_eq!(sequences(&live.messages(1).await), [4], "the connection has survived");
        assert_eq!(sequences(&past.messages(1).await), [4]);

        let id = live.last_id.clone();
        drop(live);
        js.publish(SUBJECT, "5").await;
        js.publish("orderbook-data.x", "6").await;
        js.publish(SUBJECT, "7").await;
        // What the id says goes before everything else.
        let url = tail_of(&broker, "subject=trade-data.>&snapshot=last");
        let mut resumed = Sse::open(&url, Some(&id)).await.unwrap();
        js.publish(SUBJECT, "8").await;
        assert_eq!(sequences(&resumed.messages(3).await), [5, 7, 8]);

        // As a browser says it that has to begin anew.
        let url = tail_of(&broker, &format!("subject=trade-data.>&snapshot=last&resume={id}"));
        let mut in_the_query = Sse::open(&url, None).await.unwrap();
        assert_eq!(sequences(&in_the_query.messages(3).await), [5, 7, 8]);
        let mut by_the_header = Sse::open(&url, Some(&in_the_query.last_id)).await.unwrap();
        js.publish(SUBJECT, "8").await;
        assert_eq!(sequences(&by_the_header.messages(1).await), [9], "the header is newer");
        drop((in_the_query, by_the_header));

        let mut snapshot = Sse::open(&tail_of(&broker, "subject=*.>&snapshot=last"), None).await.unwrap();
        assert_eq!(sequences(&snapshot.messages(2).await), [6, 9]);
        js.publish(SUBJECT, "9").await;
        assert_eq!(sequences(&snapshot.messages(1).await), [10]);
        drop((resumed, snapshot, past));
        until("consumers go with their readers", async || consumers(&js).await.is_empty()).await;
    });
}

fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work);
}

#[test]
fn a_tail_goes_on_over_a_restart() {
    a_tail_goes_on_over_a_restart_and_resumes_where_it_was(CURRENT);
}

#[test]
fn a_tail_goes_on_over_a_restart_of_the_oldest_server() {
    a_tail_goes_on_over_a_restart_and_resumes_where_it_was("2.10.26");
}

#[test]
fn gaps_are_told_and_ids_of_others_refused() {
    let mut broker = Broker::new();
    broker.start();
    run(async {
        let js = jetstream(&broker).await;
        for at in 0..5 {
            js.publish(SUBJECT, &at.to_string()).await;
        }
        let mut tail = Sse::open(&tail_of(&broker, "subject=trade-data.>&from=1"), None).await.unwrap();
        tail.messages(5).await;
        let old = tail.last_id.clone();
        delete_and_make_anew(&js, "MARKET_DATA").await;
        js.publish(SUBJECT, "1").await;
        let gap = tail.next().await;
        assert_eq!((gap.kind.as_str(), &gap.data["reason"]), ("gap", &json!("stream_recreated")));
        assert_eq!((&gap.data["from"], &gap.data["to"]), (&json!(6), &Value::Null));
        assert_eq!(sequences(&tail.messages(1).await), [1], "on from the beginning of the new one");

        let mut resumed = Sse::open(&tail_of(&broker, "subject=trade-data.>"), Some(&old)).await.unwrap();
        assert_eq!(resumed.next().await.data["reason"], "stream_recreated");
        let behind_the_gap = resumed.last_id.clone();
        assert_eq!(sequences(&resumed.messages(1).await), [1]);
        let mut again = Sse::open(&tail_of(&broker, "subject=trade-data.>"), Some(&behind_the_gap)).await.unwrap();
        assert_eq!(sequences(&again.messages(1).await), [1], "the gap is not told again");

        for at in 0..4 {
            js.publish(SUBJECT, &at.to_string()).await;
        }
        let seen = tail.last_id.clone();
        drop((tail, resumed, again));
        // What a hub still holds it would deliver.
        until("the readers have gone", async || consumers(&js).await.is_empty()).await;
        let purged = js.ask("$JS.API.STREAM.PURGE.MARKET_DATA", json!({ "seq": 4 })).await;
        assert_eq!(purged["success"], true);
        let mut behind = Sse::open(&tail_of(&broker, "subject=trade-data.>"), Some(&seen)).await.unwrap();
        let gap = behind.next().await;
        assert_eq!(gap.data, json!({ "stream": "MARKET_DATA", "from": 2, "to": 3, "reason": "removed" }));
        assert_eq!(sequences(&behind.messages(2).await), [4, 5]);

        let config = json!({ "name": "OTHER", "subjects": ["other.>"] });
        js.ask("$JS.API.STREAM.CREATE.OTHER", config).await;
        let refused = async |query: &str, id: Option<&str>| {
            let (status, body) = Sse::open(&tail_of(&broker, query), id).await.err().expect(query);
            (status, body["error_code"].as_str().unwrap_or_default().to_owned())
        };
        let invalid = (400, "INVALID_PARAMETERS".to_owned());
        let garbled = behind.last_id.replace(".5.", ".6.");
        for (query, id) in [
            ("subject=other.>", Some(behind.last_id.as_str())),
            ("subject=trade-data.>", Some(garbled.as_str())),
            ("subject=trade-data.>", Some("nonsense")),
            ("subject=trade-data.>", Some("MARKET_DATA.1.5.00000000")),
            ("subject=trade-data.>&resume=nonsense", None),
            ("subject=trade-data.>&from=99", None),
            ("subject=trade-data.>&from=yesterday", None),
            ("subject=trade-data.>&from=1&snapshot=last", None),
            ("subject=trade-data.>&snapshot=first", None),
            ("subject=trade-data.>&form=1", None),
            ("subject=*.>", None),
            ("subject=trade-data.>&stream=a.b", None),
            ("subject=", None),
            ("subject=a%20b", None),
            ("subject=.a", None),
            ("subject=a.>.b", None),
            ("", None),
        ] {
            assert_eq!(refused(query, id).await, invalid, "{query} {id:?}");
        }
        let (status, body) = Sse::open(&tail_of(&broker, "subject=*.>"), None).await.err().unwrap();
        assert!(status == 400 && body["message"].as_str().unwrap().contains("stream="), "{body}");
        let not_found = (404, "STREAM_NOT_FOUND".to_owned());
        for query in
            ["subject=nobody.captures", "subject=trade-data.>&stream=NONE", "subject=trade-data.>&stream=OTHER"]
        {
            assert_eq!(refused(query, None).await, not_found, "{query}");
        }
        let mut named = Sse::open(&tail_of(&broker, "subject=*.>&stream=OTHER&snapshot=last"), None).await.unwrap();
        js.publish("other.x", "1").await;
        assert_eq!(named.messages(1).await[0]["subject"], "other.x");
        let deleted = js.ask("$JS.API.STREAM.DELETE.OTHER", Value::Null).await;
        assert_eq!(deleted["success"], true);
        let end = named.next().await;
        assert_eq!((end.kind.as_str(), &end.data["reason"]), ("end", &json!("stream_deleted")));
        assert_eq!(named.next_within(PATIENCE).await, None, "and the answer is over");

        broker.signal(Signal::SIGTERM);
        let end = behind.next().await;
        assert_eq!((end.kind.as_str(), &end.data["reason"]), ("end", &json!("shutting_down")));
    });
    assert_eq!(broker.wait(), Some(0));
}

/// Memory of the broker itself, which no file backs.
fn anonymous_kilobytes(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A client that asks and reads only when it likes to.
fn ask(broker: &Broker, query: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", broker.ports.api)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let query = query.replace('>', "%3E");
    write!(stream, "GET /api/v1/broker/tail?{query} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream
}

/// Reads until that text has come; fails where the answer ends before.
fn read_until(stream: &mut TcpStream, text: &str) {
    let (mut tail, mut piece) = (String::new(), vec![0; 64 << 10]);
    loop {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "the answer ended before {text:?}");
        tail.push_str(&String::from_utf8_lossy(&piece[..count]));
        if tail.contains(text) {
            return;
        }
        let keep = tail.len().saturating_sub(text.len() + 8);
        tail.drain(..tail.char_indices().map(|(at, _)| at).find(|at| *at >= keep).unwrap_or(keep));
    }
}

#[test]
fn a_thousand_readers_of_a_subject_cost_one_consumer_and_little_memory() {
    const READERS: u64 = 1_000;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if most < 3 * READERS {
        return cannot_run("a_thousand_readers", "the hard limit of descriptors is too low");
    }
    setrlimit(Resource::RLIMIT_NOFILE, 3 * READERS, most).unwrap();
    let mut broker = Broker::new();
    broker.set("API_MAX_CONNECTIONS", READERS + 64);
    broker.start();
    run(async {
        let js = jetstream(&broker).await;
        js.publish(SUBJECT, "0").await;
        let before = anonymous_kilobytes(&broker);
        let mut readers: Vec<_> = (0..READERS).map(|_| ask(&broker, "subject=trade-data.>")).collect();
        tokio::task::block_in_place(|| readers.iter_mut().for_each(|reader| read_until(reader, "retry: 1000")));
        assert_eq!(consumers(&js).await.len(), 1);
        let text = format!("\"{}\"", "x".repeat(200));
        for _ in 0..100 {
            js.publish(SUBJECT, &text).await;
        }
        js.publish(SUBJECT, "\"the last\"").await;
        tokio::task::block_in_place(|| readers.iter_mut().for_each(|reader| read_until(reader, "the last")));
        let more = anonymous_kilobytes(&broker).saturating_sub(before);
        assert_eq!(consumers(&js).await.len(), 1);
        assert!(more <= 64 << 10, "{more} kB more");
        println!("{more} kB more");
        drop(readers);
        until("the consumer has gone with them", async || consumers(&js).await.is_empty()).await;
    });
}

#[test]
fn a_reader_that_takes_nothing_is_dropped_and_costs_no_memory() {
    let mut broker = Broker::new();
    broker.start();
    run(async {
        let js = jetstream(&broker).await;
        let mut stuck = ask(&broker, "subject=trade-data.>");
        tokio::task::block_in_place(|| read_until(&mut stuck, "retry: 1000"));
        let mut reads = Sse::open(&tail_of(&broker, "subject=trade-data.>"), None).await.unwrap();
        let before = anonymous_kilobytes(&broker);
        let text = format!("\"{}\"", "x".repeat(256 << 10));
        let (mut sequence, mut highest) = (0, before);
        for _ in 0..400 {
            sequence += 1;
            assert_eq!(js.publish(SUBJECT, &text).await, sequence);
            assert_eq!(sequences(&reads.messages(1).await), [sequence], "nobody else notices");
            highest = highest.max(anonymous_kilobytes(&broker));
        }
        assert!(highest - before < 64 << 10, "{} kB more", highest - before);
        // What was sent before it was too slow is there still; then it is over.
        let rest = tokio::task::block_in_place(|| {
            let mut rest = vec![];
            let ended = stuck.read_to_end(&mut rest);
            (ended.is_ok(), rest)
        });
        assert!(rest.1.len() < 64 << 20, "{} bytes", rest.1.len());
        let text = String::from_utf8_lossy(&rest.1);
        assert!(
            !rest.0 || text.contains("event: gap") && text.contains("reader_too_slow"),
            "{}",
            &text[text.len() - 200..]
        );
    });
}

/// Between two messages that it reads on the same consumer, not only where it begins.
#[test]
fn what_goes_before_a_reader_has_it_is_a_gap() {
    const BIG: usize = 400;
    let mut broker = Broker::new();
    broker.start();
    run(async {
        let js = jetstream(&broker).await;
        // Much more than fits on the way to a client that takes nothing.
        let big = format!("\"{}\"", "x".repeat(100 << 10));
        for _ in 0..BIG {
            js.publish(SUBJECT, &big).await;
        }
        let mut late = ask(&broker, "subject=trade-data.>&from=1");
        tokio::task::block_in_place(|| read_until(&mut late, "\"sequence\":1,"));
        let purged = js.ask("$JS.API.STREAM.PURGE.MARKET_DATA", json!({ "keep": 2 })).await;
        assert_eq!(purged["success"], true);
        let gap = format!("\"to\":{},\"reason\":\"removed\"", BIG - 2);
        tokio::task::block_in_place(|| read_until(&mut late, &gap));
        tokio::task::block_in_place(|| read_until(&mut late, &format!("\"sequence\":{BIG},")));
    });
}

#[test]
fn readers_need_no_more_than_the_rights_of_the_data_side() {
    for version in ["2.10.26", CURRENT] {
        let mut broker = Broker::with_server(version);
        let users = broker.path("users.yml");
        std::fs::write(&users, "users:\n  - {user: someone, password: secret}\n").unwrap();
        broker.set("NATS_AUTH_ENABLED", "true").set("NATS_USERS_FILE", users.display());
        broker.set("API_TOKEN", "token");
        broker.start();
        run(async {
            let someone = async_nats::ConnectOptions::with_user_and_password("someone".into(), "secret".into());
            let js = JetStream(someone.connect(broker.url()).await.unwrap());
            let durable = json!({
                "stream_name": "MARKET_DATA", "config": { "durable_name": "worker", "ack_policy": "explicit" },
            });
            js.ask("$JS.API.CONSUMER.DURABLE.CREATE.MARKET_DATA.worker", durable).await;
            js.publish(SUBJECT, "1").await;
            let mut past = Sse::open_as(&tail_of(&broker, "subject=trade-data.>&from=1"), "token").await.unwrap();
            let mut last =
                Sse::open_as(&tail_of(&broker, "subject=trade-data.>&snapshot=last"), "token").await.unwrap();
            assert_eq!(sequences(&past.messages(1).await), [1]);
            assert_eq!(sequences(&last.messages(1).await), [1]);
            js.publish(SUBJECT, "2").await;
            assert_eq!(sequences(&past.messages(1).await), [2]);
            assert_eq!(sequences(&last.messages(1).await), [2]);
            let url = broker.api("/api/v1/broker/replay?subject=trade-data.>");
            let replay = http_client().get(url).bearer_auth("token").send().await.unwrap().text().await.unwrap();
            assert!(replay.lines().count() == 3 && replay.contains("\"complete\":true"), "{replay}");
            let mut ws = Ws::open_as(broker.ports.api, "token").await;
            ws.send(json!({ "type": "subscribe", "id": "w", "stream": "MARKET_DATA", "consumer": "worker" })).await;
            ws.expect("subscribed").await;
            assert_eq!(ws.sequences(2).await, [1, 2]);
            ws.send(json!({ "type": "ack", "id": "w", "message": 1 })).await;
            ws.expect("acked").await;
            drop((past, last));
            // Also what cleans up after readers.
            until("only the durable one is left", async || consumers(&js).await == ["worker"]).await;
        });
        assert!(!broker.log().contains("ermissions"), "{version}: {}", broker.log());
    }
}
