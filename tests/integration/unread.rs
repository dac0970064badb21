//! What consumers lose, against what really happened to their messages.

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::metrics::{scrape, value, wait_for_value};
use crate::support::*;

/// A stream `name` with the subjects `name.>`, a durable consumer `reader` of all of it, one with a filter and one
/// that is through.
async fn make(jetstream: &JetStream, name: &str, limits: Value) {
    let mut config = json!({ "name": name, "subjects": [format!("{name}.>")], "storage": "file" });
    config.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
    let made = jetstream.ask(&format!("$JS.API.STREAM.CREATE.{name}"), config).await;
    assert!(made["error"].is_null(), "{made}");
    for (consumer, filter, policy) in
        [("reader", None, "explicit"), ("filtered", Some(format!("{name}.a")), "explicit"), ("through", None, "none")]
    {
        let config = json!({ "durable_name": consumer, "ack_policy": policy, "filter_subject": filter });
        let request = json!({ "stream_name": name, "config": config });
        let made = jetstream.ask(&format!("$JS.API.CONSUMER.DURABLE.CREATE.{name}.{consumer}"), request).await;
        assert!(made["error"].is_null(), "{made}");
    }
}

/// Takes messages one by one, and says that to each of the first `answered`.
async fn take(jetstream: &JetStream, name: &str, consumer: &str, count: usize, answered: usize, answer: &'static str) {
    let inbox = jetstream.0.new_inbox();
    let mut messages = jetstream.0.subscribe(inbox.clone()).await.unwrap();
    for at in 0..count {
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{name}.{consumer}");
        jetstream.0.publish_with_reply(next, inbox.clone(), "1".into()).await.unwrap();
        let message = tokio::time::timeout(PATIENCE, messages.next()).await.unwrap().unwrap();
        if at < answered {
            jetstream.0.publish(message.reply.unwrap(), answer.into()).await.unwrap();
        }
    }
    jetstream.0.flush().await.unwrap();
}

/// What a consumer has lost.
fn lost(name: &str, consumer: &str) -> String {
    format!("unified_nats_consumer_unread_dropped_total{{stream=\"{name}\",consumer=\"{consumer}\"}}")
}

/// Eight messages, of which the reader was sent four and has acknowledged two. Then some are removed, and it goes
/// on. What it will never be sent counts, and of what it had been sent and not acknowledged as much as nats-server
/// tells: all but what is purged.
#[test]
fn what_is_removed_before_it_was_read_counts_whatever_removes_it() {
    // The stream, its limits, what a request to JetStream removes, and how much is lost.
    let keys = ["LIMIT", "AGE", "NEWER", "PURGE", "KEEP", "SUBJECT", "DELETE"];
    for version in ["2.10.26", "2.12.8", CURRENT] {
        let mut broker = Broker::with_server(version);
        broker.start();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let jetstream = JetStream(runtime.block_on(broker.client()));
        // Whoever listens to JetStream hears of the end of a message.
        runtime.block_on(make(&jetstream, "PROBE", json!({})));
        wait_for("it is listened", || {
            runtime.block_on(async {
                jetstream.publish("PROBE.a", "x").await;
                take(&jetstream, "PROBE", "reader", 1, 1, "+TERM").await;
            });
            let terminated = "unified_nats_js_advisories_total{kind=\"terminated\"}";
            value(&scrape(&broker), terminated).filter(|terminated| *terminated > 0.0)
        });
        runtime.block_on(async {
            for name in keys {
                let limits = match name {
                    "LIMIT" => json!({ "max_msgs": 10 }),
                    "NEWER" => json!({ "max_msgs_per_subject": 1 }),
                    _ => json!({}),
                };
                make(&jetstream, name, limits).await;
                for at in 0..8 {
                    let token = if name == "NEWER" { format!("k{at}") } else { ["a", "b"][at % 2].to_owned() };
                    jetstream.publish(&format!("{name}.{token}"), "x").await;
                }
                take(&jetstream, name, "reader", 4, 2, "+ACK").await;
                take(&jetstream, name, "through", 8, 0, "").await;
            }
        });
        for name in keys {
            wait_for_value(&broker, &lost(name, "reader"), 0.0);
            let pending = format!("stream_name=\"{name}\"");
            wait_for("it is seen where the reader is", || {
                let text = scrape(&broker);
                let line = text.lines().find(|line| {
                    line.starts_with("jetstream_consumer_delivered_stream_seq{")
                        && line.contains(&pending)
                        && line.contains("consumer_name=\"reader\"")
                })?;
                line.ends_with(" 4").then_some(())
            });
        }
        runtime.block_on(async {
            for _ in 0..15 {
                jetstream.publish("LIMIT.a", "x").await;
            }
            for at in [0, 1, 3, 6] {
                jetstream.publish(&format!("NEWER.k{at}"), "x").await;
            }
            let aged = json!({ "name": "AGE", "subjects": ["AGE.>"], "max_age": 100_000_000, "duplicate_window": 100_000_000 });
            jetstream.ask("$JS.API.STREAM.UPDATE.AGE", aged).await;
            jetstream.ask("$JS.API.STREAM.PURGE.PURGE", json!({})).await;
            jetstream.ask("$JS.API.STREAM.PURGE.KEEP", json!({ "keep": 2 })).await;
            jetstream.ask("$JS.API.STREAM.PURGE.SUBJECT", json!({ "filter": "SUBJECT.b" })).await;
            for seq in [1, 2, 4, 7, 8] {
                jetstream.ask("$JS.API.STREAM.MSG.DELETE.DELETE", json!({ "seq": seq })).await;
            }
        });
        // Never sent, and sent but not acknowledged.
        let truth = [
            ("LIMIT", 9 + 2),
            ("AGE", 4 + 2),
            ("NEWER", 1 + 1),
            ("PURGE", 4),
            ("KEEP", 2),
            ("SUBJECT", 2),
            ("DELETE", 2 + 1),
        ];
        for (name, messages) in truth {
            eprintln!("{version} {name}");
            wait_for_value(&broker, &lost(name, "reader"), f64::from(messages));
        }
        runtime.block_on(async {
            for (name, left) in [("LIMIT", 10), ("NEWER", 7), ("KEEP", 2), ("SUBJECT", 2), ("DELETE", 2)] {
                take(&jetstream, name, "reader", left, left, "+ACK").await;
            }
        });
        let text = wait_for("it is through", || {
            let text = scrape(&broker);
            let waiting = text.lines().filter(|line| {
                line.starts_with("jetstream_consumer_num_pending{")
                    && line.contains("consumer_name=\"reader\"")
                    && !line.ends_with(" 0")
            });
            (waiting.count() == 0).then_some(text)
        });
        for (name, messages) in truth {
            assert_eq!(value(&text, &lost(name, "reader")), Some(f64::from(messages)), "{version} {name}: once");
            // It has read the eight and none of what came after that.
            let missed = if name == "LIMIT" { 5.0 } else { 0.0 };
            assert_eq!(value(&text, &lost(name, "through")), Some(missed), "{version} {name}");
            assert_eq!(value(&text, &lost(name, "filtered")), None, "{version} {name}: nobody can say");
        }
        assert_eq!(broker.stop(), Some(0));
    }
}
