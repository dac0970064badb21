//! MARKET_DATA that is there already.

use serde_json::json;

use crate::reload::logged;
use crate::support::*;

/// Starts a broker, does something to its server, stops it.
fn prepared(broker: &mut Broker, work: impl AsyncFnOnce(JetStream)) {
    broker.start();
    block_on(async { work(JetStream(broker.client().await)).await });
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

#[test]
fn other_limits_are_taken_over_without_touching_messages() {
    let mut broker = Broker::new();
    prepared(&mut broker, async |jetstream| {
        for subject in SUBJECTS {
            jetstream.publish(subject, "x").await;
        }
    });
    broker.set("STREAM_MAX_MSGS", "2000000").set("STREAM_SUBJECT_STYLE", "both").set("STREAM_MAX_AGE", "3h").start();
    block_on(async {
        let info = JetStream(broker.client().await).info("MARKET_DATA").await;
        assert_eq!(info["state"]["messages"], 8);
        assert_eq!(info["config"]["max_msgs"], 2_000_000);
        assert_eq!(info["config"]["max_age"], 10_800_000_000_000u64);
        assert_eq!(info["config"]["subjects"].as_array().unwrap().len(), 16);
        assert_eq!(info["config"]["metadata"]["managed-by"], "unified-nats");
    });
}

#[test]
fn a_stream_made_by_somebody_else_is_brought_up_to_date() {
    let mut broker = Broker::new();
    broker.set("STREAM_NAME", "OTHER").set("STREAM_SUBJECT_STYLE", "plain");
    prepared(&mut broker, async |jetstream| {
        let config = json!({
            "name": "MARKET_DATA", "subjects": ["trade-data.>", "custom.>"], "storage": "file",
            "description": "made by hand", "max_msgs": 77,
        });
        let made = jetstream.ask("$JS.API.STREAM.CREATE.MARKET_DATA", config).await;
        assert!(made["error"].is_null(), "{made}");
        jetstream.publish("custom.x", "kept").await;
        jetstream.publish(SUBJECTS[1], "kept").await;
    });
    broker.set("STREAM_NAME", "MARKET_DATA").set("STREAM_SUBJECT_STYLE", "suffixed").start();
    block_on(async {
        let info = JetStream(broker.client().await).info("MARKET_DATA").await;
        assert_eq!(info["state"]["messages"], 2);
        assert_eq!(info["config"]["description"], "made by hand");
        assert_eq!(info["config"]["max_msgs"], 1_000_000);
        assert_eq!(info["config"]["subjects"].as_array().unwrap().len(), 9);
    });
}

#[test]
fn what_cannot_change_is_told_and_the_families_are_served() {
    let mut broker = Broker::new();
    prepared(&mut broker, async |jetstream| {
        jetstream.publish(SUBJECTS[0], "x").await;
    });
    broker.set("STORAGE_TYPE", "memory").start();
    let log = broker.log();
    assert!(log.contains("storage is \\\"file\\\" and cannot become \\\"memory\\\""), "{log}");
    block_on(async {
        let info = JetStream(broker.client().await).info("MARKET_DATA").await;
        assert_eq!((&info["state"]["messages"], &info["config"]["storage"]), (&json!(1), &json!("file")));
    });
    let output = broker.output(&["health-check", "full"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("warn  settings      MARKET_DATA: conflict: storage"), "{text}");
}

#[test]
fn a_default_does_not_cost_messages_that_are_there() {
    let mut broker = Broker::new();
    broker.set("STREAM_NAME", "OTHER").set("STREAM_SUBJECT_STYLE", "plain");
    prepared(&mut broker, async |jetstream| {
        let config = json!({ "name": "MARKET_DATA", "subjects": ["trade-data.>", "x.>"], "storage": "file" });
        jetstream.ask("$JS.API.STREAM.CREATE.MARKET_DATA", config).await;
        jetstream.publish("x.old", "old").await;
    });
    broker.set("STREAM_NAME", "MARKET_DATA").set("STREAM_SUBJECT_STYLE", "").start();
    block_on(async {
        let info = JetStream(broker.client().await).info("MARKET_DATA").await;
        assert_eq!((&info["config"]["max_age"], &info["state"]["messages"]), (&json!(0), &json!(1)));
    });
    logged(&broker, "max_age stays 0: the default");
    assert_eq!(broker.stop(), Some(0));
    // Declared, it is applied.
    broker.set("STREAM_MAX_AGE", "7200").start();
    block_on(async {
        let info = JetStream(broker.client().await).info("MARKET_DATA").await;
        assert_eq!(info["config"]["max_age"], json!(7_200_000_000_000u64));
    });
}

#[test]
fn an_overlap_degrades_and_names_the_other_stream() {
    let mut broker = Broker::new();
    prepared(&mut broker, async |jetstream| {
        jetstream.publish(SUBJECTS[0], "x").await;
    });
    broker.set("STREAM_NAME", "SECOND").launch();
    // It tries again and again, so that what is seen may be an attempt.
    wait_for("degraded, and why", || {
        let (status, body) = http_get(&broker.api("/readyz"));
        (status == 503 && body.contains("belongs to stream MARKET_DATA already")).then_some(())
    });
    logged(&broker, "SECOND");
    // Once the other stream gives the subjects up, the broker becomes ready by itself.
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let mut config = jetstream.info("MARKET_DATA").await["config"].clone();
        config["subjects"] = json!(["somewhere.else"]);
        let answer = jetstream.ask("$JS.API.STREAM.UPDATE.MARKET_DATA", config).await;
        assert!(answer["error"].is_null(), "{answer}");
    });
    broker.wait_until_ready();
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn without_jetstream_there_are_no_streams_and_it_is_ready() {
    let mut broker = Broker::new();
    broker.set("JETSTREAM_ENABLED", "false").start();
    let output = broker.output(&["health-check", "full"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(!broker.store().exists());
}
