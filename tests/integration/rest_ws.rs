//! GET /api/v1/broker/ws: subscriptions, credits, messages and acknowledgements on one connection.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::support::{Broker, CURRENT, JetStream, http_client, wait_for};
use crate::ws_client::{Got, Ws};

const SUBJECT: &str = "trade-data.binance.spot.BTCUSDT";
/// For something not to happen.
const SHORT: Duration = Duration::from_millis(200);

fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work);
}

async fn make_consumer(jetstream: &JetStream, name: &str) {
    let config = json!({
        "stream_name": "MARKET_DATA",
        "config": { "durable_name": name, "ack_policy": "explicit", "filter_subject": "trade-data.>" },
    });
    let made = jetstream.ask(&format!("$JS.API.CONSUMER.DURABLE.CREATE.MARKET_DATA.{name}"), config).await;
    assert!(made["error"].is_null(), "{made}");
}

async fn kill_and_wait(broker: &Broker) {
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    let ready = || (broker.restarts() == Some(1) && broker.state() == "ready").then_some(());
    tokio::task::block_in_place(|| wait_for("it is back", ready));
}

fn credits_bound_what_comes(version: &str) {
    let mut broker = Broker::with_server(version);
    broker.start();
    run(async {
        let js = JetStream(broker.client().await);
        for at in 1..=5 {
            js.publish(SUBJECT, &at.to_string()).await;
        }
        let mut ws = Ws::open(broker.ports.api).await;
        ws.send(json!({ "type": "subscribe", "id": "a", "subject": "trade-data.>", "from": 1, "credits": 2 })).await;
        assert_eq!(ws.expect("subscribed").await["stream"], "MARKET_DATA");
        let first = ws.expect("message").await;
        assert_eq!((&first["id"], &first["sequence"], &first["message"]), (&json!("a"), &json!(1), &json!(1)));
        assert_eq!(ws.sequences(1).await, [2]);
        assert_eq!(ws.next_within(SHORT).await, Got::Nothing, "there are no more credits");
        tokio::task::block_in_place(|| kill(broker.server_pid(), Signal::SIGKILL).unwrap());
        ws.send(json!({ "type": "credits", "id": "a", "n": 100 })).await;
        assert_eq!(ws.sequences(3).await, [3, 4, 5]);
        let ready = || (broker.restarts() == Some(1) && broker.state() == "ready").then_some(());
        tokio::task::block_in_place(|| wait_for("it is back", ready));
        let js = JetStream(broker.client().await);
        js.publish(SUBJECT, "6").await;
        assert_eq!(ws.sequences(1).await, [6]);

        ws.send(json!({ "type": "subscribe", "id": "b", "subject": "*.>", "snapshot": "last" })).await;
        ws.expect("subscribed").await;
        let last = ws.expect("message").await;
        assert_eq!((&last["id"], &last["sequence"]), (&json!("b"), &json!(6)));
        ws.send(json!({ "type": "unsubscribe", "id": "b" })).await;
        assert_eq!(ws.expect("end").await["reason"], "unsubscribed");
        let position = first["position"].as_str().unwrap();
        ws.send(json!({ "type": "unsubscribe", "id": "a" })).await;
        ws.expect("end").await;
        ws.send(json!({ "type": "subscribe", "id": "c", "subject": "trade-data.>", "resume": position })).await;
        ws.expect("subscribed").await;
        assert_eq!(ws.sequences(5).await, [2, 3, 4, 5, 6]);
        broker.signal(Signal::SIGTERM);
        match ws.next_within(crate::support::PATIENCE).await {
            Got::Closed(1001, reason) => assert!(reason.contains("stops"), "{reason}"),
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(broker.wait(), Some(0));
    assert!(!broker.log().contains("still under way"), "{}", broker.log());
}

#[test]
fn credits_bound_what_a_subscription_sends() {
    credits_bound_what_comes(CURRENT);
}

#[test]
fn credits_bound_what_a_subscription_sends_with_the_oldest_server() {
    credits_bound_what_comes("2.10.26");
}

#[test]
fn messages_of_a_consumer_are_settled_on_the_connection() {
    let mut broker = Broker::new();
    broker.start();
    run(async {
        let js = JetStream(broker.client().await);
        make_consumer(&js, "worker").await;
        for at in 1..=4 {
            js.publish(SUBJECT, &at.to_string()).await;
        }
        let mut ws = Ws::open(broker.ports.api).await;
        let subscribe =
            json!({ "type": "subscribe", "id": "w", "stream": "MARKET_DATA", "consumer": "worker", "credits": 3 });
        ws.send(subscribe).await;
        ws.expect("subscribed").await;
        let mut messages = vec![];
        for _ in 0..3 {
            messages.push(ws.expect("message").await);
        }
        assert_eq!(ws.next_within(SHORT).await, Got::Nothing, "there are no more credits");
        ws.send(json!({ "type": "ack", "id": "w", "message": messages[0]["ack"] })).await;
        assert_eq!(ws.expect("acked").await["message"], messages[0]["ack"]);
        ws.send(json!({ "type": "ack", "id": "w", "message": messages[0]["ack"] })).await;
        assert_eq!(ws.expect("error").await["error_code"], "INVALID_PARAMETERS", "it is settled already");
        ws.send(json!({ "type": "ack", "id": "w", "message": messages[1]["ack"], "action": "term" })).await;
        ws.expect("acked").await;
        kill_and_wait(&broker).await;
        ws.send(json!({ "type": "ack", "id": "w", "message": messages[2]["ack"], "action": "nak" })).await;
        ws.expect("acked").await;
        ws.send(json!({ "type": "credits", "id": "w", "n": 2 })).await;
        let mut sequences = ws.sequences(2).await;
        sequences.sort_unstable();
        assert_eq!(sequences, [3, 4], "what was given back comes again");
        ws.send(json!({ "type": "subscribe", "id": "x", "stream": "MARKET_DATA", "consumer": "nobody" })).await;
        assert_eq!(ws.expect("error").await["error_code"], "NOT_FOUND");
    });
}

#[test]
fn what_is_no_frame_is_answered_and_what_is_too_much_ends_the_connection() {
    let mut broker = Broker::new();
    broker.set("API_TOKEN", "full").set("API_READ_TOKEN", "read");
    broker.start();
    run(async {
        let plain = http_client().get(broker.api("/api/v1/broker/ws")).header("Authorization", "Bearer read");
        let answer = plain.send().await.unwrap();
        assert_eq!(answer.status(), 400);
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["error_code"], "INVALID_PARAMETERS");

        let mut ws = Ws::open_as(broker.ports.api, "read").await;
        for (frame, code) in [
            ("no json", "INVALID_PARAMETERS"),
            ("[1]", "INVALID_PARAMETERS"),
            (r#"{"type":"publish","id":"a"}"#, "INVALID_PARAMETERS"),
            (r#"{"type":"subscribe","id":"a"}"#, "INVALID_PARAMETERS"),
            (r#"{"type":"subscribe","id":"a","subject":"a b"}"#, "INVALID_PARAMETERS"),
            (r#"{"type":"subscribe","id":"a","subject":"a.>","resume":"x"}"#, "INVALID_PARAMETERS"),
            (r#"{"type":"subscribe","id":"a","subject":"nobody.captures"}"#, "STREAM_NOT_FOUND"),
            (r#"{"type":"subscribe","id":"a","stream":"MARKET_DATA","consumer":"c"}"#, "FORBIDDEN"),
            (r#"{"type":"credits","id":"a","n":1}"#, "INVALID_PARAMETERS"),
            (r#"{"type":"unsubscribe","id":"a"}"#, "INVALID_PARAMETERS"),
            (r#"{"type":"ack","id":"a","message":1}"#, "INVALID_PARAMETERS"),
        ] {
            ws.send_text(frame).await;
            let error = ws.expect("error").await;
            assert_eq!(error["error_code"], code, "{frame}: {error}");
        }
        for at in 0..64 {
            ws.send(json!({ "type": "subscribe", "id": at.to_string(), "subject": "trade-data.>" })).await;
            ws.expect("subscribed").await;
        }
        ws.send(json!({ "type": "subscribe", "id": "64", "subject": "trade-data.>" })).await;
        assert_eq!(ws.expect("error").await["error_code"], "RATE_LIMITED");
        ws.send(json!({ "type": "subscribe", "id": "1", "subject": "trade-data.>" })).await;
        assert_eq!(ws.expect("error").await["error_code"], "INVALID_PARAMETERS", "there is one already");
        ws.try_send_text("x".repeat(1 << 20)).await;
        match ws.next_within(crate::support::PATIENCE).await {
            Got::Closed(1009 | 0, _) => {}
            other => panic!("{other:?}"),
        }
        // And the broker goes on.
        let mut other = Ws::open_as(broker.ports.api, "full").await;
        other.send(json!({ "type": "subscribe", "id": "a", "subject": "trade-data.>" })).await;
        other.expect("subscribed").await;
    });
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_close_is_answered_and_costs_nothing() {
    let mut broker = Broker::new();
    broker.start();
    run(async {
        let mut ws = Ws::open(broker.ports.api).await;
        ws.send(json!({ "type": "subscribe", "id": "a", "subject": "trade-data.>" })).await;
        ws.expect("subscribed").await;
        let before = processor_time(&broker);
        ws.close(1000, "enough").await;
        assert_eq!(ws.next_within(crate::support::PATIENCE).await, Got::Closed(1000, "enough".into()));
        assert_eq!(
            ws.next_within(crate::support::PATIENCE).await,
            Got::Closed(0, String::new()),
            "and that is the end"
        );
        let used = processor_time(&broker) - before;
        assert!(used < Duration::from_millis(500), "{used:?} for a farewell");
    });
}

/// What the broker itself has used of the processors.
fn processor_time(broker: &Broker) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", broker.pid())).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
fn names_that_nats_server_takes_are_taken_here() {
    let mut broker = Broker::new();
    broker.start();
    run(async {
        let js = JetStream(broker.client().await);
        for (number, name) in ["a\"b", "ü日", "it's", "a=b&c"].into_iter().enumerate() {
            let subject = format!("odd{number}.x");
            let made =
                js.ask(&format!("$JS.API.STREAM.CREATE.{name}"), json!({ "name": name, "subjects": [subject] })).await;
            assert!(made["error"].is_null(), "{made}");
            let config = json!({ "stream_name": name, "config": { "durable_name": name, "ack_policy": "explicit" } });
            let made = js.ask(&format!("$JS.API.CONSUMER.DURABLE.CREATE.{name}.{name}"), config).await;
            assert!(made["error"].is_null(), "{made}");
            js.publish(&subject, "1").await;
            let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let url = broker.api(&format!("/api/v1/broker/tail?subject=odd{number}.>&stream={encoded}&from=1"));
            let mut tail = crate::sse::Sse::open(&url, None).await.unwrap();
            assert_eq!(tail.messages(1).await[0]["stream"], name);
            let id = tail.last_id.clone();
            js.publish(&subject, "2").await;
            let mut resumed = crate::sse::Sse::open(&url, Some(&id)).await.unwrap();
            assert_eq!(resumed.messages(1).await[0]["sequence"], 2, "{id}");
            let mut ws = Ws::open(broker.ports.api).await;
            ws.send(json!({ "type": "subscribe", "id": "s", "subject": ">", "stream": name, "resume": id })).await;
            assert_eq!(ws.expect("subscribed").await["stream"], name);
            assert_eq!(ws.expect("message").await["sequence"], 2);
            ws.send(json!({ "type": "subscribe", "id": "c", "stream": name, "consumer": name })).await;
            ws.expect("subscribed").await;
            assert_eq!(ws.sequences(2).await, [1, 2]);
        }
    });
}

#[test]
fn a_consumer_that_cannot_be_worked_for_is_told() {
    for version in [CURRENT, "2.12.8", "2.11.11"] {
        let mut broker = Broker::with_server(version);
        broker.start();
        run(async {
            let js = JetStream(broker.client().await);
            let make = async |name: &str, more: Value| {
                let mut config = json!({ "name": name, "durable_name": name, "ack_policy": "explicit" });
                config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                let request = json!({ "stream_name": "MARKET_DATA", "config": config });
                let made = js.ask(&format!("$JS.API.CONSUMER.CREATE.MARKET_DATA.{name}"), request).await;
                assert!(made["error"].is_null(), "{made}");
            };
            make("grouped", json!({ "priority_groups": ["g"], "priority_policy": "overflow" })).await;
            make("pushed", json!({ "deliver_subject": "elsewhere" })).await;
            js.publish(SUBJECT, "1").await;
            let mut ws = Ws::open(broker.ports.api).await;
            for (name, word) in [("grouped", "priority groups"), ("pushed", "nobody can pull")] {
                ws.send(json!({ "type": "subscribe", "id": name, "stream": "MARKET_DATA", "consumer": name })).await;
                let error = ws.expect("error").await;
                let words = error["message"].as_str().unwrap();
                assert!(error["error_code"] == "INVALID_PARAMETERS" && words.contains(word), "{version}: {error}");
            }
            // One that gets groups later ends with the same words.
            make("later", json!({})).await;
            ws.send(
                json!({ "type": "subscribe", "id": "l", "stream": "MARKET_DATA", "consumer": "later", "credits": 1 }),
            )
            .await;
            ws.expect("subscribed").await;
            assert_eq!(ws.sequences(1).await, [1]);
            js.ask("$JS.API.CONSUMER.DELETE.MARKET_DATA.later", Value::Null).await;
            make("later", json!({ "priority_groups": ["g"], "priority_policy": "overflow" })).await;
            ws.send(json!({ "type": "credits", "id": "l", "n": 1 })).await;
            let error = ws.expect("error").await;
            assert!(error["message"].as_str().unwrap().contains("priority groups"), "{version}: {error}");
            assert_eq!(ws.expect("end").await["reason"], "failed");
        });
    }
}

#[test]
fn what_a_request_cannot_take_is_refused() {
    let mut broker = Broker::new();
    broker.start();
    let api = crate::rest_calls::Api::of(&broker);
    for path in [
        "ws?foo=1",
        "tail?subject=trade-data.>&from=0",
        "replay?subject=trade-data.>&to=0",
        "replay?subject=trade-data.>&from=00",
    ] {
        let words = crate::rest_calls::refused(api.get(&format!("/api/v1/broker/{path}")), 400, "INVALID_PARAMETERS");
        assert!(words.contains("foo") || words.contains("is 0, and sequences begin at 1"), "{path}: {words}");
    }
    run(async {
        let mut ws = Ws::open(broker.ports.api).await;
        ws.send(json!({ "type": "subscribe", "id": "a", "subject": "trade-data.>", "from": 0 })).await;
        assert!(ws.expect("error").await["message"].as_str().unwrap().contains("sequences begin at 1"));
    });
    let stream = "/api/v1/broker/streams/MARKET_DATA";
    for path in [
        "/api/v1/broker/status?a=1",
        "/api/v1/broker/health?a=1",
        &format!("{stream}?a=1"),
        &format!("{stream}/messages/1?a=1"),
        &format!("{stream}/consumers/c?a=1"),
    ] {
        let words = crate::rest_calls::refused(api.get(path), 400, "INVALID_PARAMETERS");
        assert!(words.contains("unknown parameter \"a\""), "{path}: {words}");
    }
    let message = json!({ "subject": SUBJECT, "message": 1 });
    crate::rest_calls::refused(api.post("/api/v1/broker/publish?atomic=true", message), 400, "INVALID_PARAMETERS");
}
