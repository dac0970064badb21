//! GET /api/v1/broker/replay: a range of the past, and whether it is whole.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Broker, CURRENT, JetStream, http_client};

const SUBJECT: &str = "trade-data.binance.spot.BTCUSDT";

fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work);
}

async fn get(broker: &Broker, query: &str) -> (u16, String) {
    let answer = http_client().get(broker.api(&format!("/api/v1/broker/replay?{query}"))).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The lines but the last, and what that says.
async fn replay(broker: &Broker, query: &str) -> (Vec<Value>, Value) {
    let (status, text) = get(broker, query).await;
    assert_eq!(status, 200, "{query}: {text}");
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let end = lines.pop().unwrap();
    assert!(end["end"].is_object(), "{end}");
    (lines, end["end"].clone())
}

async fn sequences(broker: &Broker, query: &str) -> Vec<u64> {
    let (lines, end) = replay(broker, query).await;
    assert_eq!((&end["complete"], &end["messages"]), (&json!(true), &json!(lines.len())), "{query}: {end}");
    lines.iter().map(|line| line["sequence"].as_u64().unwrap()).collect()
}

fn ranges(version: &str) {
    let mut broker = Broker::with_server(version);
    broker.start();
    run(async {
        let js = JetStream(broker.client().await);
        assert_eq!(sequences(&broker, "subject=trade-data.>").await, [0; 0], "nothing at all");
        for at in 1..=3 {
            js.publish(SUBJECT, &at.to_string()).await;
            js.publish("orderbook-data.x", "0").await;
            // So that times tell them apart.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(sequences(&broker, "subject=trade-data.>").await, [1, 3, 5]);
        assert_eq!(sequences(&broker, "subject=*.>&from=2&to=4").await, [2, 3, 4]);
        assert_eq!(sequences(&broker, "subject=trade-data.>&from=3&to=3").await, [3]);
        assert_eq!(sequences(&broker, "subject=trade-data.>&from=4&to=4").await, [0; 0]);
        assert_eq!(sequences(&broker, "subject=trade-data.>&from=7&to=900").await, [0; 0]);
        assert_eq!(sequences(&broker, "subject=trade-data.nobody").await, [0; 0]);
        let (lines, _) = replay(&broker, "subject=trade-data.>").await;
        let time = |at: usize| lines[at]["time"].as_str().unwrap().to_owned();
        assert_eq!(sequences(&broker, &format!("subject=trade-data.>&from={}", time(1))).await, [3, 5]);
        assert_eq!(sequences(&broker, &format!("subject=trade-data.>&to={}", time(1))).await, [1, 3]);
        let range = format!("subject=trade-data.>&from={}&to={}", time(1), time(1));
        assert_eq!(sequences(&broker, &range).await, [3]);
        assert_eq!(sequences(&broker, "subject=trade-data.>&from=2100-01-01T00:00:00Z").await, [0; 0]);
        assert_eq!(sequences(&broker, "subject=trade-data.>&to=2000-01-01T00:00:00Z").await, [0; 0]);

        // Their own rhythm: 200 ms from the first to the last, twice and half as fast.
        for (speed, least) in [("2", 95), ("1", 195), ("0.5", 390)] {
            let began = Instant::now();
            assert_eq!(sequences(&broker, &format!("subject=trade-data.>&speed={speed}")).await, [1, 3, 5]);
            assert!(began.elapsed() >= Duration::from_millis(least), "{speed}: {:?}", began.elapsed());
        }

        let purged = js.ask("$JS.API.STREAM.PURGE.MARKET_DATA", json!({ "seq": 3 })).await;
        assert_eq!(purged["success"], true);
        let (lines, end) = replay(&broker, "subject=trade-data.>&from=1").await;
        assert_eq!(lines[0], json!({ "gap": { "from": 1, "to": 2, "reason": "removed" } }));
        assert_eq!((lines.len(), &end["complete"]), (3, &json!(true)));

        for (query, status, code) in [
            ("subject=trade-data.>&from=5&to=4", 400, "INVALID_PARAMETERS"),
            ("subject=trade-data.>&from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 400, "INVALID_PARAMETERS"),
            ("subject=trade-data.>&from=x", 400, "INVALID_PARAMETERS"),
            ("subject=trade-data.>&to=2026-13-01T00:00:00Z", 400, "INVALID_PARAMETERS"),
            ("subject=trade-data.>&speed=0", 400, "INVALID_PARAMETERS"),
            ("subject=trade-data.>&speed=fast", 400, "INVALID_PARAMETERS"),
            ("subject=trade-data.>&sped=1", 400, "INVALID_PARAMETERS"),
            ("subject=a..b", 400, "INVALID_PARAMETERS"),
            ("subject=nobody.captures", 404, "STREAM_NOT_FOUND"),
        ] {
            let (got, text) = get(&broker, query).await;
            let body: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((got, body["error_code"].as_str()), (status, Some(code)), "{query}: {body}");
        }
    });
}

#[test]
fn ranges_are_replayed_whole() {
    ranges(CURRENT);
}

#[test]
fn ranges_are_replayed_whole_by_the_oldest_server() {
    ranges("2.10.26");
}

#[test]
fn what_goes_while_it_is_replayed_is_told() {
    const BIG: u64 = 200;
    let mut broker = Broker::new();
    broker.start();
    run(async {
        let js = JetStream(broker.client().await);
        js.publish(SUBJECT, "1").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        // More behind it than is on its way at a time.
        let big = "x".repeat(64 << 10);
        for _ in 0..BIG {
            js.publish(SUBJECT, &big).await;
        }
        let url = broker.api("/api/v1/broker/replay?subject=trade-data.>&speed=0.05");
        let mut answer = http_client().get(url).send().await.unwrap();
        // It waits for seconds before the second.
        let mut text = answer.chunk().await.unwrap().unwrap().to_vec();
        let purged = js.ask("$JS.API.STREAM.PURGE.MARKET_DATA", json!({ "keep": 2 })).await;
        assert_eq!(purged["success"], true);
        while let Some(piece) = answer.chunk().await.unwrap() {
            text.extend_from_slice(&piece);
        }
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let at = lines.iter().position(|line| line["gap"].is_object()).expect("a gap");
        let gap = &lines[at]["gap"];
        let before = lines[at - 1]["sequence"].as_u64().unwrap();
        assert_eq!(*gap, json!({ "from": before + 1, "to": BIG - 1, "reason": "removed" }));
        let rest: Vec<_> = lines[at + 1..].iter().filter_map(|line| line["sequence"].as_u64()).collect();
        assert_eq!(rest, [BIG, BIG + 1]);
        let end = &lines.last().unwrap()["end"];
        assert_eq!((&end["complete"], &end["reason"]), (&json!(false), &json!("removed")), "{end}");
    });
}

/// Its messages belong to its consumers.
#[test]
fn a_work_queue_is_neither_replayed_nor_followed() {
    let mut broker = Broker::new();
    broker.start();
    run(async {
        let js = JetStream(broker.client().await);
        let config = json!({ "name": "WORK", "subjects": ["work.>"], "retention": "workqueue" });
        let made = js.ask("$JS.API.STREAM.CREATE.WORK", config).await;
        assert!(made["error"].is_null(), "{made}");
        js.publish("work.a", "1").await;
        for path in ["replay?subject=work.a", "tail?subject=work.a", "tail?subject=work.a&snapshot=last"] {
            let answer = http_client().get(broker.api(&format!("/api/v1/broker/{path}"))).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 400, "{path}");
            let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            assert!(body["message"].as_str().unwrap().contains("stream WORK is a work queue"), "{body}");
        }
    });
}

#[test]
fn a_replay_is_compressed_as_the_client_accepts_and_flushed_as_it_goes() {
    let mut broker = Broker::new();
    broker.start();
    run(async {
        let js = JetStream(broker.client().await);
        js.publish(SUBJECT, "1").await;
        // Apart, so that at that speed the second is not due before the test is over.
        tokio::time::sleep(Duration::from_millis(100)).await;
        js.publish(SUBJECT, "2").await;
        for (encoding, magic) in [("gzip", &[0x1f, 0x8b][..]), ("zstd", &[0x28, 0xb5, 0x2f, 0xfd])] {
            let url = broker.api("/api/v1/broker/replay?subject=trade-data.>&speed=0.001");
            let mut answer = http_client().get(url).header("Accept-Encoding", encoding).send().await.unwrap();
            assert_eq!(answer.headers()["content-encoding"], encoding);
            let first = answer.chunk().await.unwrap().unwrap();
            assert!(first.starts_with(magic), "{first:?}");
            // More than a head of the format: the first message.
            let mut early = first.len();
            while early < 60 {
                early += answer.chunk().await.unwrap().unwrap().len();
            }
        }
    });
}
