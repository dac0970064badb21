//! Messages of which nothing was heard: they are sent again only while their stream recognises them.

use futures_util::StreamExt;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::rest_calls::{Api, Whole, refused};
use super::rest_publish::state;
use super::support::{Broker, CURRENT, JetStream, PATIENCE, block_on, wait_for};

const PUBLISH: &str = "/api/v1/broker/publish";
const BATCH: &str = "/api/v1/broker/publish/batch";
const JSON: (&str, &str) = ("content-type", "application/json");

/// Streams that store and do not say so, with what their configurations have besides.
fn silent_streams(broker: &Broker, streams: &[(&str, Value)]) {
    configure(broker, "CREATE", streams, true);
}

/// Nobody shall find out why they are silent, as if an answer had got lost on its way.
fn hide_why(broker: &Broker, streams: &[(&str, Value)]) {
    configure(broker, "UPDATE", streams, false);
}

fn configure(broker: &Broker, how: &str, streams: &[(&str, Value)], is_silent: bool) {
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        for (name, changes) in streams {
            let mut config = json!({ "name": name, "subjects": [format!("{name}.>")], "no_ack": is_silent });
            for (field, value) in changes.as_object().unwrap() {
                config[field] = value.clone();
            }
            let made = jetstream.ask(&format!("$JS.API.STREAM.{how}.{name}"), config).await;
            assert!(made["error"].is_null(), "{made}");
        }
    });
}

fn body(stream: &str) -> Value {
    json!({ "subject": format!("{stream}.a"), "message": 1, "msg_id": "id" })
}

fn unconfirmed(answer: Whole) {
    let (status, body) = answer.answer();
    let details = match &body["details"]["results"] {
        Value::Null => &body["details"],
        results => &results[0]["details"],
    };
    assert_eq!((&details["may_have_been_stored"], &details["msg_id"]), (&json!(true), &json!("id")), "{body}");
    let words = refused((status, body), 504, "TIMEOUT");
    assert!(words.contains("may have been stored"), "{words}");
}

#[test]
fn a_message_is_sent_again_only_within_the_window() {
    let mut broker = Broker::new();
    broker.set("API_REQUEST_TIMEOUT", "2s").set("STREAMS_DEFAULTS", "none").start();
    let api = Api::of(&broker);
    silent_streams(&broker, &[("short", json!({ "duplicate_window": 100_000_000 })), ("long", json!({}))]);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (short, long) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (counts, url) = ([short.clone(), long.clone()], broker.url());
    // Somebody who answers in place of the streams, later than the short window.
    let service = std::thread::spawn(move || {
        block_on(async {
            let client = async_nats::connect(url).await.unwrap();
            let mut asked = client.subscribe("*.a").await.unwrap();
            client.flush().await.unwrap();
            ready.send(()).unwrap();
            let answering = async {
                while let Some(message) = asked.next().await {
                    counts[usize::from(message.subject.as_str() == "long.a")].fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
                    if let Some(reply) = message.reply {
                        client.publish(reply, "mine".into()).await.unwrap();
                    }
                }
            };
            tokio::select! { () = answering => {}, _ = stopped => {} }
        });
    });
    is_ready.recv_timeout(PATIENCE).unwrap();
    unconfirmed(api.post_with(PUBLISH, &[JSON], body("short").to_string()));
    unconfirmed(api.post_with(PUBLISH, &[JSON], body("long").to_string()));
    assert_eq!(short.load(Ordering::Relaxed), 1, "it would not be recognised");
    assert!(long.load(Ordering::Relaxed) > 1, "it is recognised");
    for stream in ["short", "long"] {
        assert_eq!(state(&broker, stream)["messages"], 1, "{stream}");
    }
    let _ = stop.send(());
    service.join().unwrap();
}

#[test]
fn what_a_new_server_does_not_remember_is_not_sent_again() {
    for version in [CURRENT, "2.10.26"] {
        let mut broker = Broker::with_server(version);
        broker.set("API_REQUEST_TIMEOUT", "5s").set("STREAMS_DEFAULTS", "none").start();
        let streams = [
            ("kept", json!({})),
            ("batched", json!({})),
            ("brief", json!({ "duplicate_window": 100_000_000 })),
            ("brief_batched", json!({ "duplicate_window": 100_000_000 })),
            ("queue", json!({ "retention": "workqueue" })),
            ("newest", json!({ "max_msgs_per_subject": 1 })),
        ];
        silent_streams(&broker, &streams);
        let asked: Vec<_> = streams
            .iter()
            .map(|(stream, _)| {
                let (api, body) = (Api::of(&broker), body(stream));
                let is_batch = stream.ends_with("batched");
                std::thread::spawn(move || match is_batch {
                    true => api.post_with(BATCH, &[JSON], json!([body]).to_string()),
                    false => api.post_with(PUBLISH, &[JSON], body.to_string()),
                })
            })
            .collect();
        for (stream, _) in &streams {
            wait_for("it is stored", || (state(&broker, stream)["messages"] == 1).then_some(()));
        }
        hide_why(&broker, &streams);
        // Somebody takes the one, and another supersedes the other, before anybody hears of them.
        block_on(async {
            let jetstream = JetStream(broker.client().await);
            let taken = jetstream.ask("$JS.API.STREAM.MSG.DELETE.queue", json!({ "seq": 1 })).await;
            assert_eq!(taken["success"], true, "{taken}");
            jetstream.0.publish("newest.a", "newer".into()).await.unwrap();
            jetstream.0.flush().await.unwrap();
        });
        wait_for("another", || (state(&broker, "newest")["last_seq"] == 2).then_some(()));
        kill(broker.server_pid(), Signal::SIGKILL).unwrap();
        for (answer, (stream, _)) in asked.into_iter().zip(&streams) {
            let answer = answer.join().unwrap();
            let is_kept = matches!(*stream, "kept" | "batched");
            // What the stream holds it recognises, if it was asked in time.
            match answer.status {
                200 if is_kept => assert!(answer.text.contains("\"duplicate\":true"), "{}", answer.text),
                _ => unconfirmed(answer),
            }
        }
        broker.wait_until_ready();
        for (stream, _) in &streams {
            let last = if *stream == "newest" { 2 } else { 1 };
            assert_eq!(state(&broker, stream)["last_seq"], last, "{version}: {stream} stores nothing twice");
        }
    }
}
