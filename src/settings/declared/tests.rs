use serde_json::json;

use super::*;
use crate::settings::{Problems, read_streams};

fn read(text: &str) -> (Vec<DeclaredStream>, Vec<String>) {
    let mut problems = Problems::default();
    let streams = read_streams("s.yml", text, &mut problems);
    (streams, problems.list.iter().map(ToString::to_string).collect())
}

fn good(text: &str) -> Vec<DeclaredStream> {
    let (streams, problems) = read(text);
    assert_eq!(problems, Vec::<String>::new());
    streams
}

fn bad(text: &str) -> Vec<String> {
    let (_, problems) = read(text);
    assert!(!problems.is_empty(), "{text}");
    problems
}

/// Of a stream A with these lines.
fn stream(lines: &str) -> String {
    format!("streams:\n  A:\n    subjects: [a]\n    {}\n", lines.replace('\n', "\n    "))
}

#[test]
fn a_stream_with_consumers() {
    let streams = good(
        r#"
streams:
  CUSTOM_ANALYTICS:
    subjects: ["analytics.>", "metrics.>"]
    retention: WorkQueue
    storage: memory
    max_age: 86400
    max_msgs: 1000000
    max_bytes: 1GB
    replicas: 3
    metadata: {team: research, year: 2026}
    consumers:
      writer: {durable: true, ack_policy: explicit, ack_wait: 30s, max_deliver: 5, filter_subjects: ["analytics.>"]}
      tail: {durable: false, inactive_threshold: 1h, sample_freq: 50%, backoff: [1s, 500ms], filter_subject: metrics.>}
"#,
    );
    let [stream] = &streams[..] else { panic!("{streams:?}") };
    assert_eq!(stream.name.as_str(), "CUSTOM_ANALYTICS");
    assert_eq!(
        Value::Object(stream.config.clone()),
        json!({
            "subjects": ["analytics.>", "metrics.>"], "retention": "workqueue", "storage": "memory",
            "max_age": 86_400_000_000_000_i64, "max_msgs": 1_000_000, "max_bytes": 1_073_741_824, "num_replicas": 3,
            "metadata": { "team": "research", "year": "2026" },
        })
    );
    assert_eq!((stream.line, stream.lines["num_replicas"]), (3, 10));
    let [writer, tail] = &stream.consumers[..] else { panic!("{:?}", stream.consumers) };
    assert_eq!(
        Value::Object(writer.config.clone()),
        json!({
            "ack_policy": "explicit", "ack_wait": 30_000_000_000_i64, "max_deliver": 5,
            "filter_subjects": ["analytics.>"], "durable_name": "writer",
        })
    );
    assert_eq!(tail.config["sample_freq"], "50");
    assert!(!tail.config.contains_key("durable_name"));
}

#[test]
fn every_shape_is_read() {
    let streams = "streams: {A: {subjects: [a]}}";
    for text in [
        streams.to_owned(),
        format!("nats: {{{streams}}}"),
        format!("message-broker-service: {{nats: {{{streams}}}}}"),
        format!("services: {{message-broker: {{{streams}}}}}"),
    ] {
        assert_eq!(good(&text).len(), 1, "{text}");
    }
    let strict = good("streams: {A: {subjects: [a]}}\nnats_client: {nats_url: 'nats://x', strict_subjects: true}");
    assert!(strict[0].strict_subjects);
}

#[test]
fn limits_sizes_and_spans() {
    let streams =
        good(&stream("max_msgs: -1\nmax_bytes: 512MB\nmax_age: 0\nduplicate_window: 1h30m\nmax_msg_size: -1"));
    let config = &streams[0].config;
    assert_eq!((&config["max_msgs"], &config["max_age"], &config["max_msg_size"]), (&json!(-1), &json!(0), &json!(-1)));
    assert_eq!(config["duplicate_window"], 5_400_000_000_000_i64);
}

#[test]
fn a_bad_value_names_file_line_column_key_and_what_is_allowed() {
    for (lines, problem) in [
        (
            "max_age: -5",
            r#"s.yml:4:14: streams.A.max_age: cannot use "-5": must be a duration such as 30s or 2h, or seconds (it is negative); correct it, or leave it out"#,
        ),
        (
            "retention: forever",
            r#"s.yml:4:16: streams.A.retention: cannot use "forever": must be one of limits, interest, workqueue; correct it, or leave it out"#,
        ),
        (
            "replicas: 2",
            r#"s.yml:4:15: streams.A.replicas: cannot use "2": must be 1, 3 or 5 (an even number of copies cannot outvote a lost one); correct it, or leave it out"#,
        ),
        (
            "max_mgs: 5",
            r#"s.yml:4:5: streams.A.max_mgs: cannot use "max_mgs": is not a key that may stand here; did you mean max_msgs?"#,
        ),
        (
            "deny_purge: maybe",
            r#"s.yml:4:17: streams.A.deny_purge: cannot use "maybe": must be true or false; correct it, or leave it out"#,
        ),
        (
            "max_bytes: 1XB",
            r#"s.yml:4:16: streams.A.max_bytes: cannot use "1XB": must be a size such as 512MB, or -1 for no limit (the unit is not one of KB, MB, GB, TB); correct it, or leave it out"#,
        ),
        (
            "max_msgs: 1e6",
            r#"s.yml:4:15: streams.A.max_msgs: cannot use "1e6": must be a whole number of at least 1, or -1 for no limit (it is not a whole number); correct it, or leave it out"#,
        ),
        (
            "sources: {name: B}",
            r#"s.yml:4:14: streams.A.sources: cannot use a map: must be a list of maps; correct it, or leave it out"#,
        ),
        (
            "placement: {cluser: x}",
            r#"s.yml:4:17: streams.A.placement.cluser: cannot use "cluser": is not a key that may stand here; did you mean cluster?"#,
        ),
        (
            "consumers: {c: {ack_policy: maybe}}",
            r#"s.yml:4:33: streams.A.consumers.c.ack_policy: cannot use "maybe": must be one of none, all, explicit, flow_control; correct it, or leave it out"#,
        ),
    ] {
        assert_eq!(bad(&stream(lines)), [problem], "{lines}");
    }
}

#[test]
fn subjects_are_checked() {
    for (subjects, problem) in [
        (r#"["a b"]"#, "it holds white space or a control character"),
        (r#"["a..b"]"#, "it has an empty token"),
        (r#"["a.>.b"]"#, "it has > before its end"),
        (r#"[""]"#, "it is empty"),
        (r#"["a.>", "a.b"]"#, "a.> and a.b: overlap each other"),
        ("[]", "must name at least one subject"),
    ] {
        let text = format!("streams:\n  A:\n    subjects: {subjects}\n");
        let problems = bad(&text);
        assert!(problems.len() == 1 && problems[0].contains(problem), "{problems:?}");
    }
}

#[test]
fn contradictions_are_found() {
    for (lines, problem) in [
        ("max_age: 50ms", "streams.A.max_age: cannot use a span below 100ms"),
        (
            "max_age: 1m\nduplicate_window: 2m",
            "s.yml:5:3: streams.A.duplicate_window: cannot use a window above max_age",
        ),
        ("discard_new_per_subject: true", "needs discard: new and max_msgs_per_subject"),
        ("mirror: {name: B}", "no subjects and no sources beside it"),
        ("sources: [{filter_subject: b}]", "must name the stream that messages come from"),
        ("replicas: 1\nnum_replicas: 3", "is num_replicas under another name, which stands in line 4 already"),
        ("consumers: {c: {durable: false}}", "needs inactive_threshold"),
        (
            "consumers: {c: {flow_control: true}}",
            "consumers.c.flow_control: cannot use set for a pull consumer: is for push",
        ),
        (
            "retention: workqueue\nconsumers: {a: {}, b: {filter_subject: a}}",
            "consumers.b.filter_subjects: cannot use a filter beside consumer a, which has none",
        ),
        (
            "retention: workqueue\nconsumers: {a: {filter_subject: a}, b: {}}",
            "consumers.b.filter_subjects: cannot use no filter",
        ),
        ("retention: workqueue\nconsumers: {a: {}, b: {}}", "must share no subject with consumer a"),
        ("retention: workqueue\nconsumers: {a: {deliver_policy: new}}", "must be all in a stream with"),
        (
            "retention: workqueue\nconsumers: {a: {ack_policy: none}}",
            "must be explicit in a stream with retention: workqueue",
        ),
        (
            "max_consumers: 1\nconsumers: {a: {}, b: {}}",
            "s.yml:4:3: streams.A.max_consumers: cannot use 1: must not be below the number of declared consumers, which is 2",
        ),
        (
            "consumer_limits: {max_ack_pending: 5}\nconsumers: {a: {max_ack_pending: 6}}",
            "must not be above the consumer_limits of the stream, 5",
        ),
        ("consumers: {a: {num_replicas: 3}}", "must not be above those of the stream, which are 1"),
        ("republish: {src: a, dest: a}", "would come back to this stream"),
        ("subject_transform: {src: 'a.*', dest: 'b.*'}", "write {{wildcard(1)}}"),
        ("sources: [{name: B}, {name: B}]", "must not name a stream twice"),
        ("sources: [{name: A}]", "must not be the stream itself"),
        ("deny_purge: true\nsubject_delete_marker_ttl: 1h", "is taken back by nats-server"),
        ("consumers: {c: {deliver_subject: x, max_waiting: 5}}", "is for pull consumers"),
        ("consumers: {c: {opt_start_seq: 5}}", "goes with deliver_policy: by_start_sequence"),
        ("consumers: {c: {deliver_policy: by_start_time}}", "goes with deliver_policy: by_start_time"),
        ("consumers: {c: {deliver_policy: last_per_subject}}", "needs filter_subjects"),
        ("consumers: {c: {priority_policy: overflow}}", "needs priority_groups"),
        ("consumers: {c: {max_deliver: 1, backoff: [1s, 2s]}}", "must not be longer than max_deliver"),
        ("consumers: {c: {filter_subjects: [a.>, a.b]}}", "a.> and a.b: overlap each other"),
        ("consumers: {c.d: {}}", "must be a name of letters, digits, - and _"),
    ] {
        let problems = bad(&stream(lines));
        assert!(problems[0].contains(problem), "{lines}: {problems:?}");
    }
}

#[test]
fn all_problems_come_at_once() {
    let problems =
        bad("streams:\n  A: {subjects: [a], max_age: -5, retention: x}\n  'B B': {subjects: [b]}\nstrems: {}\n");
    assert_eq!(problems.len(), 4, "{problems:?}");
    let problems = bad("streams:\n  A: {subjects: [a]}\n  A: {subjects: [b]}\n");
    assert_eq!(
        problems,
        [
            r#"s.yml:3:3: cannot use the key "A" stands in line 2 already: this is not YAML that can be used; correct it"#
        ]
    );
}

#[test]
fn key_value_buckets_are_streams_that_clients_know() {
    let streams = good(
        "key_value:\n  SYMBOLS: {history: 5, ttl: 24h, max_value_size: 1KB}\n  COPY: {mirror: {name: SYMBOLS}}\n  \
         ALL: {sources: [{name: SYMBOLS}], limit_marker_ttl: 1m}\n",
    );
    let names: Vec<_> = streams.iter().map(|stream| stream.name.as_str()).collect();
    assert_eq!(names, ["KV_SYMBOLS", "KV_COPY", "KV_ALL"]);
    assert_eq!(
        Value::Object(streams[0].config.clone()),
        json!({
            "max_msgs_per_subject": 5, "max_age": 86_400_000_000_000_i64, "max_msg_size": 1024, "discard": "new",
            "allow_direct": true, "allow_rollup_hdrs": true, "deny_delete": true, "subjects": ["$KV.SYMBOLS.>"],
        })
    );
    let copy = &streams[1].config;
    assert_eq!(copy["mirror"]["name"], "KV_SYMBOLS");
    assert!(!copy.contains_key("subjects") && copy["mirror_direct"] == true);
    let all = &streams[2].config;
    assert_eq!(all["sources"][0]["subject_transforms"][0]["dest"], "$KV.ALL.>");
    assert_eq!((&all["allow_msg_ttl"], &all["subject_delete_marker_ttl"]), (&json!(true), &json!(60_000_000_000_i64)));
    let source = |bucket: &str| good(&format!("key_value: {{K6: {bucket}}}"))[0].config.clone();
    for (source, src, dest) in [
        (source("{sources: [{name: K1}]}"), "$KV.K1.>", "$KV.K6.>"),
        (source("{sources: [{name: K1, filter_subject: $KV.K1.a.>}]}"), "$KV.K1.a.>", "$KV.K6.a.>"),
        (source("{sources: [{name: KV_K1, filter_subject: a.>}]}"), "$KV.K1.a.>", "$KV.K6.a.>"),
        (source("{sources: [{name: K1, filter_subject: $KV.K0.a}]}"), "$KV.K0.a", "$KV.K6.a"),
        (
            source("{sources: [{name: K1, filter_subject: '$KV.K1.*.x.*'}]}"),
            "$KV.K1.*.x.*",
            "$KV.K6.{{wildcard(1)}}.x.{{wildcard(2)}}",
        ),
        (source("{sources: [{name: K1, external: {api: $JS.hub.API}}]}"), "$KV.K1.>", "$KV.K6.>"),
        (source("{sources: [{name: K1, subject_transforms: [{src: a, dest: b}]}]}"), "a", "b"),
    ] {
        let source = &source["sources"][0];
        assert_eq!(source["name"], "KV_K1");
        assert_eq!(source["subject_transforms"], json!([{ "src": src, "dest": dest }]));
        assert!(source.get("filter_subject").is_none(), "{source}");
    }
    let mirror = source("{mirror: {name: K1, filter_subject: $KV.K1.a.>}}");
    assert_eq!(mirror["mirror"]["subject_transforms"][0]["dest"], "$KV.K6.a.>");
    let elsewhere = source("{mirror: {name: K1, external: {api: $JS.hub.API}, filter_subject: $KV.K1.a}}");
    assert_eq!(
        elsewhere["mirror"],
        json!({ "name": "KV_K1", "external": { "api": "$JS.hub.API" }, "filter_subject": "$KV.K1.a" }),
        "clients look there for the keys of the origin"
    );
    let same = source("{sources: [{name: K6, external: {api: $JS.hub.API}, filter_subject: $KV.K6.a}]}");
    assert_eq!(same["sources"][0]["filter_subject"], "$KV.K6.a");
    assert!(bad("key_value: {X: {sources: [{name: X}]}}")[0].contains("must not be the stream itself"));
    let both = "{name: Y, filter_subject: a, subject_transforms: [{src: a, dest: b}]}";
    assert!(bad(&format!("key_value: {{X: {{sources: [{both}]}}}}"))[0].contains("beside subject_transforms"));
    assert!(bad("key_value: {X: {history: 65}}")[0].contains("must be a whole number from 1 to 64"));
    assert!(bad("key_value: {X: {subjects: [a]}}")[0].contains("is not a key that may stand here"));
    assert!(bad("key_value: {X: {ttl: 50ms}}")[0].contains("must be at least 100ms"));
    assert!(bad("key_value: {X: {ttl: 1m, max_age: 1m}}")[0].contains("under another name"));
}

#[test]
fn a_bucket_and_a_stream_do_not_share_a_name() {
    let problems = bad("streams: {KV_X: {subjects: [x]}}\nkey_value: {X: {}}\n");
    assert!(problems[0].contains("KV_X: is declared in line 1 already"), "{problems:?}");
}

#[test]
fn object_buckets_are_streams_that_clients_know() {
    let streams = good("object_store:\n  MODELS: {max_bytes: 1GB}\n");
    assert_eq!(streams[0].name.as_str(), "OBJ_MODELS");
    assert_eq!(
        Value::Object(streams[0].config.clone()),
        json!({
            "max_bytes": 1_073_741_824, "subjects": ["$O.MODELS.C.>", "$O.MODELS.M.>"], "discard": "new",
            "allow_direct": true, "allow_rollup_hdrs": true,
        })
    );
}

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
