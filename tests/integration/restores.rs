//! Streams that are restored from snapshots while the broker runs, over the JetStream API.

use std::fs;

use serde_json::{Value, json};

use crate::support::*;

const MARKET_DATA: &str = "MARKET_DATA";
const VERSIONS: [&str; 3] = ["2.10.26", "2.12.8", CURRENT];
const HALF: u64 = 50;
/// Of a client, which may delete it.
const OWN: &str = "OWN";

async fn publish(jetstream: &JetStream) {
    let payload = "x".repeat(8000);
    for _ in 0..HALF {
        jetstream.publish(SUBJECTS[0], &payload).await;
        jetstream.publish("own.x", &payload).await;
    }
}

/// Puts the stream of the snapshot in the place of the one of that name.
fn restore(broker: &Broker, stream: &str, snapshot: &(Value, Vec<Vec<u8>>)) {
    let restored = block_on(async {
        let jetstream = JetStream(broker.client().await);
        jetstream.ask(&format!("$JS.API.STREAM.DELETE.{stream}"), Value::Null).await;
        jetstream.restore(stream, snapshot).await
    });
    assert_eq!(restored["state"]["messages"], HALF, "{restored}");
}

/// How often that stream was restored, as `/health` shows it.
fn restored(broker: &Broker, stream: &str) -> usize {
    let health = broker.health();
    let events = health["events"].as_array().cloned().unwrap_or_default();
    events.iter().filter(|event| event["kind"] == "stream_restored" && event["what"] == stream).count()
}

/// Waits until a restore was heard of, and holds that nothing is missing.
fn expect_whole(broker: &Broker, stream: &str, times: usize) {
    wait_for("the restore is told", || (restored(broker, stream) == times).then_some(()));
    wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
    assert_eq!(broker.health()["checks"]["integrity"]["status"], "pass");
}

#[test]
fn what_an_older_snapshot_does_not_hold_is_no_loss_and_what_is_lost_later_is() {
    for version in VERSIONS {
        let mut broker = Broker::with_server(version);
        broker.start();
        let older = block_on(async {
            let jetstream = JetStream(broker.client().await);
            let config = json!({ "name": OWN, "subjects": ["own.>"], "storage": "file", "num_replicas": 1 });
            jetstream.ask("$JS.API.STREAM.CREATE.OWN", config).await;
            publish(&jetstream).await;
            let older = [jetstream.snapshot(OWN).await, jetstream.snapshot(MARKET_DATA).await];
            publish(&jetstream).await;
            older
        });
        wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
        restore(&broker, OWN, &older[0]);
        expect_whole(&broker, OWN, 1);
        assert!(!broker.log().contains("messages are missing"), "{version}: {}", broker.log());
        // One that must exist is gone for a moment, which may be told until it is back.
        restore(&broker, MARKET_DATA, &older[1]);
        expect_whole(&broker, MARKET_DATA, 1);
        assert_eq!(broker.health()["counters"]["streams_restored"], 2);
        assert_eq!(broker.stop(), Some(0));
        broker.start();
        wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
        assert_eq!(broker.stop(), Some(0));

        // Restored blocks need not begin with the first number.
        let files = fs::read_dir(broker.stream_directory().join("msgs")).unwrap();
        let mut paths = files.map(|file| file.unwrap().path());
        let block = paths.find(|path| path.extension().is_some_and(|extension| extension == "blk")).unwrap();
        let file = fs::OpenOptions::new().write(true).open(block).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        broker.launch();
        let told = || broker.health()["checks"]["integrity"]["detail"].as_str().map(str::to_owned);
        let missing = wait_for("the loss is told", || told().filter(|detail| detail.contains("messages are missing")));
        assert!(missing.contains("stream MARKET_DATA"), "{version}: {missing}");
        assert_eq!(broker.stop(), Some(0));
    }
}
