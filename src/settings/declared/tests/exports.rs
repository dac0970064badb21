//! What the tools of NATS write, and what only looks like it.

use super::*;

#[test]
fn what_is_not_a_map_of_streams_is_refused() {
    for text in ["streams: [a]", "streams: {A: 5}", "5", "[streams]", "streams: {A: [x]}"] {
        assert!(bad(text)[0].contains("must be a map"), "{text}: {:?}", bad(text));
    }
    let many: String = (0..=MOST_STREAMS).map(|i| format!("  S{i}: {{subjects: [s{i}]}}\n")).collect();
    assert!(bad(&format!("streams:\n{many}"))[0].contains("must not be more than 10000"));
}

/// As nats-server and its tools write them.
const EXPORTED_STREAM: &str = r#"{"name": "ORDERS", "subjects": ["orders.*"], "retention": "limits", "max_consumers": -1,
    "max_msgs_per_subject": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 3600000000000, "max_msg_size": -1,
    "storage": "file", "discard": "old", "num_replicas": 1, "duplicate_window": 120000000000, "sealed": false,
    "deny_delete": false, "deny_purge": false, "allow_rollup_hdrs": false, "allow_direct": true, "mirror_direct": false,
    "consumer_limits": {}, "metadata": {"_nats.level": "1", "team": "x"}}"#;
const EXPORTED_CONSUMER: &str = r#"{"name": "NEW", "durable_name": "NEW", "deliver_policy": "all", "ack_policy": "explicit",
    "ack_wait": 30000000000, "max_deliver": 20, "backoff": [1000000000, 1500000], "max_ack_pending": 1000,
    "max_waiting": 512, "replay_policy": "instant", "num_replicas": 0, "filter_subject": "orders.received",
    "direct": false, "deliver_subject": "", "inactive_threshold": 0}"#;

fn exported_info() -> [String; 2] {
    let stream = format!(
        r#"{{"type": "io.nats.jetstream.api.v1.stream_info_response", "total": 0, "offset": 0, "limit": 0,
        "config": {EXPORTED_STREAM}, "created": "2026-01-01T00:00:00Z", "state": {{"messages": 5}}, "cluster": {{}},
        "ts": "x"}}"#
    );
    let consumer = format!(
        r#"{{"stream_name": "ORDERS", "name": "NEW", "created": "x", "config": {EXPORTED_CONSUMER},
        "delivered": {{"consumer_seq": 1}}, "ack_floor": {{}}, "num_ack_pending": 0, "num_redelivered": 0,
        "num_waiting": 0, "num_pending": 3, "ts": "x"}}"#
    );
    [stream, consumer]
}

#[test]
fn exports_are_taken_as_they_are() {
    let [stream, consumer] = exported_info();
    let with_consumers_of =
        |consumers: &str| format!(r#"{}, "consumers": {consumers}}}"#, EXPORTED_STREAM.strip_suffix('}').unwrap());
    let with_consumers = with_consumers_of(&format!(r#"{{"NEW": {EXPORTED_CONSUMER}}}"#));
    let listed = with_consumers_of(&format!("[{consumer}]"));
    let beside = format!(r#"{}, "consumers": [{EXPORTED_CONSUMER}]}}"#, stream.strip_suffix('}').unwrap());
    let list = |what: &str, items: &str| {
        format!(r#"{{"type": "x", "total": 1, "offset": 0, "limit": 256, "{what}": [{items}]}}"#)
    };
    for (text, consumers) in [
        (EXPORTED_STREAM.to_owned(), 0),
        (stream.clone(), 0),
        (format!("[{stream}]"), 0),
        (list("streams", &stream), 0),
        (format!("[{consumer}, {stream}]"), 1),
        (format!("[{EXPORTED_STREAM}, {consumer}]"), 1),
        (format!(r#"{{"streams": {{"ORDERS": {stream}}}}}"#), 0),
        (format!(r#"{{"streams": {{"ORDERS": {with_consumers}}}}}"#), 1),
        // Consumers that stand within what is told of their stream, or beside it.
        (with_consumers.clone(), 1),
        (listed.clone(), 1),
        (with_consumers_of(&format!("[{EXPORTED_CONSUMER}]")), 1),
        (beside.clone(), 1),
        (list("streams", &listed), 1),
        (list("streams", &beside), 1),
        (format!(r#"{{"streams": {{"ORDERS": {listed}}}}}"#), 1),
        (format!(r#"{{"streams": {{"ORDERS": {beside}}}}}"#), 1),
        (format!(r#"{{"streams": [{stream}], "consumers": [{consumer}]}}"#), 1),
        // One after another, in every way that tools print them.
        (format!("{stream}{consumer}"), 1),
        (format!("{stream}\n{consumer}\n"), 1),
        (format!("{consumer}\n---\n{stream}\n---\n{{}}\n"), 1),
        (format!("[{stream}]\n[]\n[{consumer}]"), 1),
    ] {
        let streams = good(&text);
        assert_eq!(streams.len(), 1, "{text}");
        assert_eq!(
            Value::Object(streams[0].config.clone()),
            json!({
                "subjects": ["orders.*"], "retention": "limits", "max_consumers": -1, "max_msgs_per_subject": -1,
                "max_msgs": -1, "max_bytes": -1, "max_age": 3_600_000_000_000_i64, "max_msg_size": -1,
                "storage": "file", "discard": "old", "num_replicas": 1, "duplicate_window": 120_000_000_000_i64,
                "allow_direct": true, "metadata": { "team": "x" },
            }),
            "{text}"
        );
        assert_eq!(streams[0].consumers.len(), consumers, "{text}");
        for consumer in &streams[0].consumers {
            assert_eq!(
                Value::Object(consumer.config.clone()),
                json!({
                    "durable_name": "NEW", "deliver_policy": "all", "ack_policy": "explicit",
                    "ack_wait": 30_000_000_000_i64, "max_deliver": 20, "backoff": [1_000_000_000, 1_500_000],
                    "max_ack_pending": 1000, "max_waiting": 512, "replay_policy": "instant",
                    "filter_subjects": ["orders.received"], "inactive_threshold": 0,
                })
            );
        }
    }
    let (_, problems) = read(&format!(r#"{{"strict_subjects": "maybe", "streams": [{stream}], "more": 1}}"#));
    assert_eq!(problems.len(), 2, "the rest of a settings file counts: {problems:?}");
    // Without its stream it is for one that is declared elsewhere, or for nobody.
    let (streams, _) = read(&list("consumers", &consumer));
    assert_eq!((streams.len(), streams[0].consumers.len(), streams[0].config.len()), (1, 1, 0));
}

#[test]
fn what_is_given_instead_of_a_stream_is_told() {
    let [stream, consumer] = exported_info();
    for (text, told) in [
        (
            EXPORTED_CONSUMER.to_owned(),
            "1:1: cannot use the configuration of consumer \"NEW\" alone: must say which stream",
        ),
        (
            "[A, B]".into(),
            "1:2: cannot use a list with a text as item 1: must be a map, or a list of whole configurations",
        ),
        (format!("[{stream}, {{\"name\": \"x\"}}]"), "cannot use a list with a map as item 2"),
        (format!("{stream}\nstreams: {{}}"), "did not find"),
        (
            format!("{stream}\n---\nstreams: {{A: {{subjects: [a]}}}}"),
            "a second document: the one that begins in line 1 says",
        ),
        (
            "a: 1\n---\nb: 2".into(),
            "s.yml:3:1: cannot use a second document: the one that begins in line 1 says something",
        ),
        (
            format!("streams: {{OTHER: {{subjects: [o], consumers: [{consumer}]}}}}"),
            "OTHER.consumers.NEW: cannot use a consumer of stream \"ORDERS\": must belong to stream OTHER",
        ),
        (format!("{stream}{consumer}{consumer}"), "ORDERS.consumers.NEW: cannot use \"NEW\": stands in line"),
        (
            "streams: {A: {subjects: [a], consumers: [x, y]}}".into(),
            "streams.A.consumers: cannot use a list: must be a map",
        ),
    ] {
        let problems = bad(&text);
        assert!(problems.len() == 1 && problems[0].contains(told), "{text}: {problems:?}");
        assert!(!problems[0].contains("not YAML") || told == "did not find", "{problems:?}");
    }
    // Consumers may be listed by hand as well.
    let streams =
        good("streams:\n  A:\n    subjects: [a]\n    consumers:\n    - name: c\n      ack_wait: 5s\n    - name: d\n");
    let names: Vec<_> = streams[0].consumers.iter().map(|consumer| (consumer.name.as_str(), consumer.line)).collect();
    assert_eq!(names, [("c", 5), ("d", 7)]);
    for empty in ["{}", "{}\n---\n[]\n", "streams: {A: {subjects: [a]}}\n---\n{}\n"] {
        assert_eq!(good(empty).len(), usize::from(empty.len() > 15), "{empty}");
    }
}

#[test]
fn what_somebody_wrote_is_no_export() {
    let nanoseconds = r#"{"streams": {"ORDERS": {"subjects": ["orders.>"], "consumers": {
        "NEW": {"durable_name": "NEW", "ack_policy": "explicit", "ack_wait": 1000000000, "max_deliver": 20,
        "backoff": [1000000000, 5000000000], "replay_policy": "instant"}}}}}"#;
    let problems = bad(nanoseconds);
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.contains("nanoseconds are not taken, so write")), "{problems:?}");
    assert!(problems[0].contains("ack_wait") && problems[0].contains("31 years") && problems[0].contains("write 1s"));
    for field in ["max_age", "duplicate_window", "subject_delete_marker_ttl"] {
        assert!(bad(&stream(&format!("{field}: 7200000000000")))[0].contains("write 2h for them"), "{field}");
    }
    assert!(bad("key_value: {A: {ttl: 3600000000000}}")[0].contains("write 1h for them"));
    // Seconds below a stream that is an export, and what an export cannot hold.
    let edited = EXPORTED_STREAM.replace("3600000000000", "3600");
    assert!(bad(&edited)[0].contains("in an export it is nanoseconds"), "{:?}", bad(&edited));
    let with_units = EXPORTED_STREAM.replace("3600000000000", "\"2h\"");
    assert_eq!(good(&with_units)[0].config["max_age"], 7_200_000_000_000_i64);
    let own = format!(
        r#"{{"streams": {{"ORDERS": {}, "consumers": {{"c": {{"ack_wait": 30}}}}}}}}}}"#,
        EXPORTED_STREAM.trim_end_matches('}').to_owned() + "}"
    );
    assert_eq!(good(&own)[0].consumers[0].config["ack_wait"], 30_000_000_000_i64);
    let sealed = EXPORTED_STREAM.replace("\"sealed\": false", "\"sealed\": true");
    assert!(bad(&sealed)[0].contains("ORDERS.sealed"), "{:?}", bad(&sealed));
    assert_eq!(good(&stream("sealed: false")).len(), 1);
}
