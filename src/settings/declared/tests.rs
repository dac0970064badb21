mod buckets;
mod exports;

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
