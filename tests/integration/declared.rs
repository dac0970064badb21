//! Files of streams against real servers: what is derived, exported, contradicted.

use std::time::Duration;

use unified_nats::streams::{Existing, apply, plan, unheard};

use crate::plans::{desired, failures, leaves_nothing_to_do, printed, with_file};
use crate::support::*;

#[test]
fn what_the_server_derives_is_not_repaired() {
    for version in ["2.12.8", CURRENT] {
        let mut broker = Broker::with_server(version);
        let path = broker.path("streams.yml");
        let text = "streams:\n  ORIGIN: {subjects: [\"origin.>\"], allow_direct: true}\n  PLAIN_MIRROR: {mirror: {name: ORIGIN}}\n  \
                    MARKED: {subjects: [\"marked.>\"], allow_msg_ttl: true, subject_delete_marker_ttl: 1h}\n  \
                    PINNED:\n    subjects: [\"pinned.>\"]\n    consumers:\n      \
                    c: {priority_groups: [a], priority_policy: pinned_client}\n";
        std::fs::write(&path, text).unwrap();
        broker.set("STREAMS_FILE", path.display()).set("STREAMS_RECONCILE_INTERVAL", "50ms").start();
        let (code, text) = printed(&broker, &["streams", "plan", "--exit-code"]);
        assert_eq!(code, Some(0), "{version}: {text}");
        // Drift that is one shows that it is looked for.
        block_on(async {
            let jetstream = JetStream(broker.client().await);
            let mut config = jetstream.info("MARKED").await["config"].clone();
            config["max_msgs"] = 7.into();
            assert!(jetstream.ask("$JS.API.STREAM.UPDATE.MARKED", config).await["error"].is_null());
        });
        let drift = || broker.health()["checks"]["drift"].clone();
        wait_for("a repair", || (drift()["repaired"] == 1).then_some(()));
        let (code, text) = printed(&broker, &["streams", "plan", "--exit-code"]);
        assert_eq!(code, Some(0), "{version}: {text}");
        assert_eq!(drift()["repaired"], 1, "{}", broker.log());
        assert_eq!(broker.stop(), Some(0));
    }
}

#[test]
fn exports_of_a_server_are_what_it_holds() {
    let mut broker = Broker::new();
    broker.set("STREAMS_DEFAULTS", "none").set("STREAMS_RECONCILE_INTERVAL", 0).start();
    let directory = tempfile::tempdir().unwrap();
    let text = "streams:\n  ORDERS: {subjects: [orders.>], max_age: 2h, allow_direct: true, consumers: {c: {filter_subject: orders.a, \
                backoff: [1s, 5s]}, pinned: {priority_groups: [a], priority_policy: pinned_client}}}\n  \
                COPY: {mirror: {name: ORDERS}}\nkey_value: {K: {ttl: 1h, limit_marker_ttl: 1m}, L: {sources: [{name: K}]}}\n\
                object_store: {O: {max_bytes: 1MB}}\n";
    let written = desired(directory.path(), text).unwrap();
    block_on(async {
        let client = JetStream(broker.client().await);
        let jetstream = unified_nats::nats::JetStream::new(client.0.clone(), Duration::from_secs(10));
        let applied = apply(&jetstream, &written, &unheard).await.unwrap();
        assert_eq!(failures(&applied), Vec::<String>::new());
        let nothing = serde_json::Value::Null;
        let streams = client.ask("$JS.API.STREAM.LIST", nothing.clone()).await;
        let consumers = client.ask("$JS.API.CONSUMER.LIST.ORDERS", nothing.clone()).await;
        let all = |lists: [&serde_json::Value; 2]| lists.map(|list| list.as_array().unwrap().clone()).concat();
        let infos = serde_json::Value::from(all([&streams["streams"], &consumers["consumers"]]));
        for export in [streams, infos] {
            let exported = desired(directory.path(), &export.to_string()).unwrap();
            assert_eq!(exported.streams.len(), 5, "{export}");
            let planned = plan(&exported, &Existing::read(&jetstream, &exported).await.unwrap());
            assert!(planned.is_nothing() && !planned.has_conflicts(), "{export}: {planned:?}");
            // Made anew from it they are the same.
            for stream in ["COPY", "KV_L", "ORDERS", "KV_K", "OBJ_O"] {
                jetstream.delete_stream(stream).await.unwrap();
            }
            let applied = apply(&jetstream, &exported, &unheard).await.unwrap();
            assert_eq!(failures(&applied), Vec::<String>::new());
            leaves_nothing_to_do(&jetstream, &exported, &export.to_string()).await;
            apply(&jetstream, &written, &unheard).await.unwrap();
            leaves_nothing_to_do(&jetstream, &written, &export.to_string()).await;
        }
    });
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn sources_of_buckets_bring_keys_with_them() {
    for version in ["2.10.26", CURRENT] {
        let mut broker = Broker::with_server(version);
        let path = broker.path("streams.yml");
        let text = "key_value:\n  K1: {}\n  K6: {sources: [{name: K1, filter_subject: \"$KV.K1.a.>\"}]}\n  \
                    K7: {sources: [{name: K1, filter_subject: '*.x'}]}\n  K8: {mirror: {name: K1}}\n---\n";
        std::fs::write(&path, text).unwrap();
        broker.set("STREAMS_FILE", path.display()).start();
        assert_eq!(printed(&broker, &["streams", "plan", "--exit-code"]).0, Some(0), "{version}");
        block_on(async {
            let jetstream = JetStream(broker.client().await);
            for key in ["a.x", "a.y.z", "b.x", "b.y"] {
                jetstream.publish(&format!("$KV.K1.{key}"), key).await;
            }
            for (bucket, keys) in
                [("K6", vec!["a.x", "a.y.z"]), ("K7", vec!["a.x", "b.x"]), ("K8", vec!["a.x", "a.y.z", "b.x", "b.y"])]
            {
                let request = serde_json::json!({ "subjects_filter": ">" });
                let wanted: Vec<_> = keys.iter().map(|key| format!("$KV.{bucket}.{key}")).collect();
                let deadline = std::time::Instant::now() + PATIENCE;
                loop {
                    let info = jetstream.ask(&format!("$JS.API.STREAM.INFO.KV_{bucket}"), request.clone()).await;
                    let mut subjects: Vec<_> = info["state"]["subjects"]
                        .as_object()
                        .into_iter()
                        .flatten()
                        .map(|(key, _)| key.clone())
                        .collect();
                    subjects.sort_unstable();
                    if subjects == wanted {
                        break;
                    }
                    assert!(std::time::Instant::now() < deadline, "{version} {bucket}: {subjects:?}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        assert_eq!(broker.stop(), Some(0));
    }
}

#[test]
fn what_contradicts_itself_does_not_start() {
    let work_queue = "streams:\n  J:\n    subjects: [\"j.>\"]\n    retention: workqueue\n    consumers:\n      all: {}\n      eu: {filter_subject: \"j.eu.>\"}\n  \
                      K:\n    subjects: [\"k.>\"]\n    max_consumers: 1\n    consumers: {a: {}, b: {}}\n";
    let too_much = "streams:\n  A: {subjects: [\"a.>\"], max_bytes: 1GB}\n  B: {subjects: [\"b.>\"], max_bytes: 1GB}\n\
                    key_value:\n  K: {max_bytes: 100MB}\n";
    let nanoseconds =
        "{\"streams\": {\"A\": {\"subjects\": [\"a\"], \"consumers\": {\"c\": {\"ack_wait\": 1000000000}}}}}";
    for (text, told) in [
        (
            work_queue,
            &["must share no subject with consumer all", "below the number of declared consumers, which is 2"][..],
        ),
        (too_much, &["2GB for the 2660MB", "512MB (STREAM_MAX_BYTES)", "raise JETSTREAM_MAX_FILE to 2660MB at least"]),
        (nanoseconds, &["31 years", "write 1s for them"]),
    ] {
        let mut broker = with_file(text);
        broker.set("JETSTREAM_MAX_FILE", "2GB").set("STREAM_MAX_BYTES", "512MB");
        let (code, words) = printed(&broker, &["config", "validate"]);
        assert!(code == Some(1) || code == Some(78), "{code:?} {words}");
        broker.launch();
        assert_eq!(broker.wait(), Some(78));
        for part in told {
            assert!(words.contains(part) && broker.log().contains(part), "{part}: {words}\n{}", broker.log());
        }
        assert!(!broker.store().exists());
    }
}
