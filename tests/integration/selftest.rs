//! Proving a deployment from end to end, ours and others.

use serde_json::{Value, json};

use crate::support::*;

fn selftest(broker: &Broker, options: &[&str]) -> (Option<i32>, String) {
    let output = broker.output(&[&["selftest"], options].concat());
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn info(broker: &Broker) -> Value {
    block_on(async { JetStream(broker.client().await).info("MARKET_DATA").await })
}

#[test]
fn every_family_is_stored_read_back_and_removed() {
    let mut broker = Broker::new();
    broker.start();
    let (code, text) = selftest(&broker, &[]);
    assert!(code == Some(0) && text.contains("messages of 8 families stored, read back, removed"), "{text}");
    let (code, text) = selftest(&broker, &["--detailed"]);
    assert!(code == Some(0) && text.matches("read back, removed").count() == 8, "{text}");
    assert!(text.contains("ok    volatility_index volatility_index-data.>: stored"), "{text}");
    assert_eq!(selftest(&broker, &["--quiet"]), (Some(0), String::new()));
    let (code, json) = selftest(&broker, &["--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["healthy"]), (Some(0), &json!(true)));
    assert_eq!(info(&broker)["state"]["messages"], 0);
    wait_for("nobody misses what was removed", || (broker.health()["status"] == "healthy").then_some(()));
    assert_eq!(broker.stop(), Some(0));
    let (code, text) = selftest(&broker, &["--quiet"]);
    assert!(code == Some(69) && text.contains("FAIL  connectivity"), "{text}");
}

#[test]
fn what_does_not_work_is_named() {
    let mut broker = Broker::new();
    broker.set("STREAMS_RECONCILE_INTERVAL", 0).start();
    let mut config = info(&broker)["config"].clone();
    config["subjects"].as_array_mut().unwrap().retain(|subject| subject != "trade-data.>");
    let update = async |config: Value| {
        let answer = JetStream(broker.client().await).ask("$JS.API.STREAM.UPDATE.MARKET_DATA", config).await;
        assert!(answer["error"].is_null(), "{answer}");
    };
    block_on(update(config.clone()));
    let (code, text) = selftest(&broker, &[]);
    assert!(code == Some(1) && text.contains("FAIL  trade"), "{text}");
    assert!(text.contains("messages of 7 families"), "{text}");
    // Where a message would be work for somebody nothing is written.
    config["retention"] = "interest".into();
    block_on(update(config));
    let (_, text) = selftest(&broker, &[]);
    assert!(text.contains("nothing is written to stream MARKET_DATA: its messages are work"), "{text}");
}

#[test]
fn another_server_is_tested_by_its_url() {
    let mut other = Broker::new();
    let (name, password) = ("somebody", "a-word@nobody:else/has");
    other.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_USERNAME", name).set("NATS_AUTH_PASSWORD", password).start();
    let here = Broker::new();
    let address = other.url().trim_start_matches("nats://").to_owned();
    let encoded = "a-word%40nobody%3Aelse%2Fhas";
    let url = format!("nats://{name}:{encoded}@{address}");
    let (code, text) = selftest(&here, &["--nats-url", &url]);
    assert!(code == Some(0) && text.contains("messages of 8 families"), "{text}");
    let output = here.output(&["streams", "check", "--nats-url", &url]);
    assert!(output.status.success());
    let wrong = format!("nats://{name}:{encoded}x@{address}");
    let (code, text) = selftest(&here, &["--nats-url", &wrong]);
    assert!(code == Some(69) && !text.contains(password) && !text.contains(encoded), "{text}");
}
