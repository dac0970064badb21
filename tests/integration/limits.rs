//! Limits of a server that others run, and of its account.

use crate::bare::{BareServer, JETSTREAM};
use crate::external::{command, serving, until_state};
use crate::support::*;

#[test]
fn limits_of_the_server_apply_to_what_nobody_declares() {
    for version in ["2.10.26", CURRENT] {
        let conf = "jetstream { store_dir: \"STORE\", limits { duplicate_window: 60s, max_ack_pending: 200, max_request_batch: 50 } }\n";
        let mut server = BareServer::new(version, conf);
        server.start();
        let mut broker = serving(&server);
        let file = broker.path("streams.yml");
        let text = "streams:\n  F2:\n    subjects: [\"f2.>\"]\n    consumers: {c: {}}\nkey_value: {K: {}}\n";
        std::fs::write(&file, text).unwrap();
        broker.set("STREAMS_FILE", file.display()).set("STREAMS_RECONCILE_INTERVAL", "50ms").start();
        let (code, text) = command(&broker, &["streams", "plan", "--exit-code"]);
        assert_eq!(code, Some(0), "{version}: {text}");
        block_on(async {
            let jetstream = server.jetstream().await;
            for stream in ["F2", "KV_K", "MARKET_DATA"] {
                assert_eq!(jetstream.info(stream).await["config"]["duplicate_window"], 60_000_000_000_u64, "{stream}");
            }
            let consumer = jetstream.ask("$JS.API.CONSUMER.INFO.F2.c", serde_json::Value::Null).await;
            assert_eq!(consumer["config"]["max_ack_pending"], 200, "{consumer}");
        });
        assert_eq!(broker.health()["checks"]["drift"]["repaired"], 0, "{}", broker.log());
        assert_eq!(broker.stop(), Some(0));
    }
}

#[test]
fn limits_of_the_account_are_told_with_the_way_out() {
    let account = |limits: &str| {
        format!(
            "{JETSTREAM}accounts: {{ A: {{ jetstream: {{ {limits} }}, users: [ {{ user: u, password: p }} ] }} }}\n"
        )
    };
    for (limits, told) in [
        (
            "max_consumers: 20",
            &[
                "max_consumers is 50 (the default of STREAM_MAX_CONSUMERS), and the account allows 20",
                "set STREAM_MAX_CONSUMERS to 20",
            ][..],
        ),
        (
            "max_file: 100MB",
            &["max_bytes 1GB (the default of STREAM_MAX_BYTES) has no room", "of the 100MB that the account allows"],
        ),
        ("max_bytes_required: true", &["asks for a limit of each stream: set max_bytes"]),
        ("max_streams: 1", &["stream SECOND: conflict: the account allows 1 streams"]),
        ("disk_max_stream_bytes: 1MB", &["the account allows 1MB: set STREAM_MAX_BYTES to 1MB at most"]),
    ] {
        let mut server = BareServer::new(CURRENT, &account(limits));
        server.start();
        let mut broker = serving(&server);
        let file = broker.path("streams.yml");
        std::fs::write(&file, "streams: {SECOND: {subjects: [second]}}").unwrap();
        broker.set("STREAMS_FILE", file.display()).set("NATS_AUTH_USERNAME", "u").set("NATS_AUTH_PASSWORD", "p");
        let (code, text) = command(&broker, &["streams", "plan"]);
        assert_eq!(code, Some(1), "{limits}: {text}");
        broker.launch();
        for part in told {
            assert!(text.contains(part.trim_start_matches("stream SECOND: ")), "{limits}: {part}\n{text}");
            until_state(&broker, "degraded", part);
        }
    }
    // The streams serve without a consumer that cannot be; what is missing is told.
    let mut server = BareServer::new(CURRENT, &account("max_ack_pending: 200"));
    server.start();
    let mut broker = serving(&server);
    let file = broker.path("streams.yml");
    std::fs::write(&file, "streams: {S: {subjects: [s], consumers: {c: {max_ack_pending: 500}, d: {}}}}").unwrap();
    broker.set("STREAMS_FILE", file.display()).set("NATS_AUTH_USERNAME", "u").set("NATS_AUTH_PASSWORD", "p").start();
    let told = "max_ack_pending is 500 (";
    let (code, text) = command(&broker, &["streams", "plan"]);
    assert!(code == Some(1) && text.contains(told) && text.contains("and the account allows 200"), "{text}");
    wait_for("the conflict is told", || broker.log().contains(told).then_some(()));
    assert!(!text.contains("consumer d"), "it is there: {text}");
    // With limits that leave room all is well.
    let roomy = "max_consumers: 50, max_file: 2GB, max_streams: 2, disk_max_stream_bytes: 1GB";
    let mut server = BareServer::new(CURRENT, &account(roomy));
    server.start();
    let mut broker = serving(&server);
    broker.set("NATS_AUTH_USERNAME", "u").set("NATS_AUTH_PASSWORD", "p").start();
    assert_eq!(command(&broker, &["streams", "plan", "--exit-code"]).0, Some(0));
}

/// What only the server knows is told when it refuses.
#[test]
fn limits_of_the_server_are_told_with_the_way_out() {
    for version in ["2.10.26", CURRENT] {
        let conf = "jetstream { store_dir: \"STORE\", limits { duplicate_window: 60s, max_ack_pending: 200, max_request_batch: 50 } }\n";
        let mut server = BareServer::new(version, conf);
        server.start();
        for (options, told) in [
            ("duplicate_window: 2m", ["server limit of 1m0s", "; shorten duplicate_window"]),
            ("consumers: {c: {max_ack_pending: 500}}", ["system limit of 200", "; lower max_ack_pending"]),
            ("consumers: {c: {max_batch: 100}}", ["server limit of 50", "; lower max_batch"]),
        ] {
            let mut broker = serving(&server);
            let file = broker.path("streams.yml");
            std::fs::write(&file, format!("streams: {{S: {{subjects: [s], {options}}}}}")).unwrap();
            broker.set("STREAMS_FILE", file.display());
            let (code, text) = command(&broker, &["streams", "apply"]);
            assert_eq!(code, Some(1), "{version} {options}: {text}");
            for part in told {
                assert!(text.contains(part), "{version} {options}: {part}\n{text}");
            }
        }
    }
}
