//! Plans carried out while others do something, too, or a server refuses a part.

use std::time::Duration;

use unified_nats::nats::{ApiError, JetStream as Ours};
use unified_nats::streams::{apply, unheard};

use crate::plans::{desired, failures, leaves_nothing_to_do};
use crate::support::*;

#[test]
fn two_at_once_end_in_the_same_state() {
    let mut broker = Broker::new();
    broker.set("STREAMS_DEFAULTS", "none").set("STREAMS_RECONCILE_INTERVAL", 0).start();
    let directory = tempfile::tempdir().unwrap();
    let streams: String = (0..50)
        .map(|i| format!("  S{i}: {{subjects: [s{i}.>], max_msgs: 9, consumers: {{c: {{max_deliver: 3}}}}}}\n"))
        .collect();
    let desired = desired(directory.path(), &format!("streams:\n{streams}")).unwrap();
    block_on(async {
        let client = async || Ours::new(broker.client().await, Duration::from_secs(10));
        let (one, other) = (client().await, client().await);
        let (first, second) = tokio::join!(apply(&one, &desired, &unheard), apply(&other, &desired, &unheard));
        for applied in [first.unwrap(), second.unwrap()] {
            assert_eq!(failures(&applied), Vec::<String>::new());
        }
        leaves_nothing_to_do(&one, &desired, "").await;
    });
}

#[test]
fn what_others_change_between_a_look_and_a_change_is_looked_at_again() {
    let mut broker = Broker::new();
    broker.set("STREAMS_DEFAULTS", "none").set("STREAMS_RECONCILE_INTERVAL", 0).start();
    let directory = tempfile::tempdir().unwrap();
    let text = "streams: {A: {subjects: [a], max_msgs: 9, consumers: {c: {max_deliver: 3}}}}";
    let mut desired = desired(directory.path(), text).unwrap();
    desired.prune = true;
    let stream = |max_msgs: u32| serde_json::json!({ "name": "A", "subjects": ["a"], "max_msgs": max_msgs });
    let consumer = serde_json::json!({
        "stream_name": "A", "config": { "name": "c", "durable_name": "c", "ack_policy": "explicit", "max_deliver": 7 },
    });
    let (create, delete) = ("$JS.API.STREAM.CREATE.A", "$JS.API.STREAM.DELETE.A");
    let (create_consumer, delete_consumer) = ("$JS.API.CONSUMER.CREATE.A.c", "$JS.API.CONSUMER.DELETE.A.c");
    let nothing = serde_json::Value::Null;
    // What is there, what somebody does after it was read, and how the server refuses what we do then.
    let cases = [
        (vec![], (create, stream(5)), ApiError::STREAM_NAME_EXISTS),
        (vec![(create, stream(5))], (delete, nothing.clone()), ApiError::STREAM_NOT_FOUND),
        (vec![(create, stream(9))], (create_consumer, consumer.clone()), ApiError::CONSUMER_EXISTS),
        (
            vec![(create, stream(9)), (create_consumer, consumer)],
            (delete_consumer, nothing.clone()),
            ApiError::CONSUMER_NOT_FOUND,
        ),
    ];
    let ask = |(subject, request): (&str, serde_json::Value)| {
        let answer = block_on(async { JetStream(broker.client().await).ask(subject, request).await });
        assert!(answer["error"].is_null(), "{subject}: {answer}");
        answer
    };
    // We hear of a stream that is about to be deleted after everything was read, and before anything is done.
    let old = serde_json::json!({ "name": "OLD", "subjects": ["old"], "metadata": { "managed-by": "unified-nats" } });
    for (before, meanwhile, code) in cases {
        ask(("$JS.API.STREAM.CREATE.OLD", old.clone()));
        before.into_iter().for_each(|request| _ = ask(request));
        let applied = block_on(async {
            let jetstream = Ours::new(broker.client().await, Duration::from_secs(10));
            let meddle = |stream: String| {
                // The callback blocks this thread's runtime, so that it needs another one.
                std::thread::scope(|scope| _ = scope.spawn(|| ask(meanwhile.clone())).join().unwrap());
                unheard(stream)
            };
            apply(&jetstream, &desired, &meddle).await.unwrap()
        });
        assert_eq!(failures(&applied), Vec::<String>::new(), "{code}");
        assert_eq!(ask(("$JS.API.STREAM.INFO.A", nothing.clone()))["config"]["max_msgs"], 9, "{code}");
        assert_eq!(ask(("$JS.API.CONSUMER.INFO.A.c", nothing.clone()))["config"]["max_deliver"], 3, "{code}");
        ask((delete, nothing.clone()));
    }
}

#[test]
fn a_subject_is_given_up_only_to_a_stream_that_can_take_it() {
    for version in ["2.10.26", CURRENT] {
        let mut broker = Broker::with_server(version);
        broker.set("STREAMS_DEFAULTS", "none").set("STREAMS_RECONCILE_INTERVAL", 0);
        broker.set("JETSTREAM_MAX_FILE", "100MB").set("STREAM_MAX_BYTES", "10MB").start();
        let directory = tempfile::tempdir().unwrap();
        let streams =
            |lines: &str| desired(directory.path(), &format!("strict_subjects: true\nstreams:\n{lines}")).unwrap();
        block_on(async {
            let client = JetStream(broker.client().await);
            let jetstream = Ours::new(client.0.clone(), Duration::from_secs(10));
            let make = async |lines: &str| apply(&jetstream, &streams(lines), &unheard).await.unwrap();
            let messages =
                async |stream: &str| client.info(stream).await["state"]["messages"].as_u64().unwrap_or_default();
            let made = make("  G: {subjects: [g, x, y]}\n  T: {subjects: [t]}\n").await;
            assert_eq!(failures(&made), Vec::<String>::new());

            // Neither the stream that is to be changed nor the one that is to be created has room.
            let too_large = "  G: {subjects: [g]}\n  T: {subjects: [t, x], max_bytes: 1GB}\n\
                            \x20 N: {subjects: [y], max_bytes: 1GB}\n";
            let failed = failures(&make(too_large).await);
            assert!(failed.len() == 2 && failed.iter().all(|text| text.contains("insufficient")), "{failed:?}");
            client.publish("x", "kept").await;
            client.publish("y", "kept").await;
            assert_eq!(messages("G").await, 2, "{version}");

            let fitting = too_large.replace("1GB", "1MB");
            let applied = make(&fitting).await;
            assert_eq!(failures(&applied), Vec::<String>::new());
            for subject in ["x", "y", "g"] {
                client.publish(subject, "at its place").await;
            }
            assert_eq!((messages("G").await, messages("T").await, messages("N").await), (3, 1, 1), "{version}");
            assert_eq!(client.info("N").await["config"]["subjects"], serde_json::json!(["y"]));
            leaves_nothing_to_do(&jetstream, &streams(&fitting), version).await;
        });
        assert_eq!(broker.stop(), Some(0));
    }
}

#[test]
fn a_stream_is_deleted_only_when_its_successor_is_there() {
    let mut broker = Broker::new();
    broker.set("STREAMS_DEFAULTS", "none").set("STREAMS_RECONCILE_INTERVAL", 0);
    broker.set("JETSTREAM_MAX_FILE", "100MB").set("STREAM_MAX_BYTES", "10MB").start();
    let directory = tempfile::tempdir().unwrap();
    let streams = |lines: &str| {
        let mut desired = desired(directory.path(), &format!("streams:\n{lines}")).unwrap();
        desired.prune = true;
        desired
    };
    block_on(async {
        let client = JetStream(broker.client().await);
        let jetstream = Ours::new(client.0.clone(), Duration::from_secs(10));
        let make = async |lines: &str| apply(&jetstream, &streams(lines), &unheard).await.unwrap();
        make("  OLD: {subjects: [x.>, y]}\n").await;
        client.publish("x.1", "kept").await;
        let failed = failures(&make("  NEW: {subjects: [x.>], max_bytes: 1GB}\n").await);
        assert!(failed.len() == 1 && failed[0].contains("insufficient"), "{failed:?}");
        assert_eq!(client.info("OLD").await["state"]["messages"], 1);
        let fitting = "  NEW: {subjects: [x.>], max_bytes: 1MB}\n";
        assert_eq!(failures(&make(fitting).await), Vec::<String>::new());
        client.publish("x.1", "at its place").await;
        assert_eq!(client.info("NEW").await["state"]["messages"], 1);
        assert!(client.info("OLD").await["error"].is_object());
        leaves_nothing_to_do(&jetstream, &streams(fitting), CURRENT).await;
    });
}
