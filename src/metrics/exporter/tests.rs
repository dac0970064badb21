use super::*;
use crate::metrics::exposition::Format;
use crate::metrics::monitored::Named;

/// What servers of several versions answered, with three streams (one a mirror, one with a source), a durable
/// consumer and one without a name.
fn recorded(version: &str) -> Monitored {
    let read = |name: &str| {
        let path = format!("{}/src/metrics/recorded/{version}/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    Monitored {
        url: "http://127.0.0.1:8222".into(),
        varz: Some(read("varz")),
        named: Named::of(&read("varz")),
        connections: Some(Connections {
            num_connections: 1,
            total: 1,
            limit: 1024,
            in_msgs: 12,
            ..Connections::default()
        }),
        jsz: Some(serde_json::from_value(read("jsz")).unwrap()),
        names_consumers: true,
        health: [Some("ok".into()), Some("unavailable".into()), None],
        routez: Some(read("routez")),
        subsz: Some(read("subsz")),
    }
}

fn naming(prefix: Option<&str>, server_id: ServerIdLabel) -> Naming {
    Naming { prefix: prefix.map(str::to_owned), server_id }
}

fn lines(monitored: &Monitored, naming: &Naming) -> Vec<String> {
    let mut families = Families::default();
    add(monitored, naming, &mut families);
    families.write(Format::Text).lines().map(str::to_owned).collect()
}

/// What `-varz -connz -healthz -healthz_js_enabled_only -healthz_js_server_only -routez -subz` gives: the names
/// that collector/collector.go, connz.go and healthz.go of prometheus-nats-exporter v0.20.2 make.
const CORE: &[&str] = &[
    "varz_server_id",
    "varz_server_name",
    "varz_version",
    "varz_start",
    "varz_config_load_time",
    "varz_mem",
    "varz_cpu",
    "varz_connections",
    "varz_total_connections",
    "varz_in_msgs",
    "varz_out_msgs",
    "varz_in_bytes",
    "varz_out_bytes",
    "varz_slow_consumers",
    "varz_subscriptions",
    "varz_max_payload",
    "varz_jetstream_config_max_memory",
    "varz_jetstream_config_max_storage",
    "varz_jetstream_config_domain",
    "varz_jetstream_stats_storage",
    "varz_jetstream_stats_api_total",
    "varz_jetstream_stats_api_errors",
    "connz_num_connections",
    "connz_total",
    "connz_offset",
    "connz_limit",
    "connz_pending_bytes",
    "connz_subscriptions",
    "connz_in_bytes",
    "connz_out_bytes",
    "connz_in_msgs",
    "connz_out_msgs",
    "healthz_status",
    "healthz_status_value",
    "healthz_js_enabled_only_status",
    "healthz_js_enabled_only_status_value",
    "healthz_js_server_only_status_value",
    "routez_num_routes",
    "subsz_num_subscriptions",
    "subsz_num_cache",
    "subsz_num_inserts",
    "subsz_num_removes",
    "subsz_num_matches",
    "subsz_cache_hit_rate",
    "subsz_max_fanout",
    "subsz_avg_fanout",
    "subsz_total",
    "subsz_offset",
    "subsz_limit",
];

/// What `-jsz=all` gives: the 33 names in collector/jsz.go of v0.20.2.
const JETSTREAM: &[&str] = &[
    "server_jetstream_disabled",
    "server_total_streams",
    "server_total_consumers",
    "server_total_messages",
    "server_total_message_bytes",
    "server_max_memory",
    "server_max_storage",
    "account_max_memory",
    "account_max_storage",
    "account_memory_used",
    "account_storage_used",
    "stream_total_messages",
    "stream_total_bytes",
    "stream_first_seq",
    "stream_last_seq",
    "stream_consumer_count",
    "stream_subject_count",
    "stream_limit_bytes",
    "stream_limit_messages",
    "stream_source_lag",
    "stream_source_active_duration_ns",
    "stream_mirror_lag",
    "stream_mirror_active_duration_ns",
    "consumer_delivered_consumer_seq",
    "consumer_delivered_stream_seq",
    "consumer_num_ack_pending",
    "consumer_num_redelivered",
    "consumer_num_waiting",
    "consumer_num_pending",
    "consumer_ack_floor_stream_seq",
    "consumer_ack_floor_consumer_seq",
    "consumer_last_delivery_seconds",
    "consumer_last_ack_seconds",
];

#[test]
fn names_are_those_of_the_exporter_on_old_and_new_servers() {
    for version in ["2.10.26", "2.15.1"] {
        let lines = lines(&recorded(version), &naming(None, ServerIdLabel::Url));
        // Not every server says everything.
        let is_said =
            |name: &&&str| version != "2.10.26" || !["subsz_total", "subsz_offset", "subsz_limit"].contains(*name);
        for name in CORE
            .iter()
            .filter(is_said)
            .map(|name| format!("gnatsd_{name}"))
            .chain(JETSTREAM.iter().map(|name| format!("jetstream_{name}")))
        {
            assert!(lines.iter().any(|line| line.starts_with(&format!("{name}{{"))), "{version}: {name}\n{lines:#?}");
            let kind = if name.contains("connz_in_") || name.contains("connz_out_") { "counter" } else { "gauge" };
            assert!(lines.contains(&format!("# TYPE {name} {kind}")), "{version}: {name}");
        }
        // Booleans, other texts, and what is skipped there.
        for absent in ["uptime", "git_commit", "store_dir", "_leaf_", "compress_ok"] {
            assert!(!lines.iter().any(|line| line.contains(absent)), "{version}: {absent}");
        }
        assert!(!lines.iter().any(|line| line.starts_with("gnatsd_healthz_js_server_only_status{")));
    }
}

#[test]
fn values_and_labels_are_those_of_the_server() {
    let lines = lines(&recorded("2.15.1"), &naming(None, ServerIdLabel::Url));
    let url = "server_id=\"http://127.0.0.1:8222\"";
    let server =
        format!("{url},server_name=\"quote\\\"d\",cluster=\"\",domain=\"d1\",meta_leader=\"\",is_meta_leader=\"true\"");
    let stream = format!(
        "{server},account=\"$G\",account_name=\"$G\",account_id=\"$G\",stream_name=\"S\",\
         stream_leader=\"quote\\\"d\",is_stream_leader=\"true\",stream_raft_group=\"\""
    );
    let durable = format!(
        "{stream},consumer_name=\"C\",consumer_leader=\"\",is_consumer_leader=\"true\",\
         consumer_desc=\"say \\\"hi\\\"\\nline2\\\\\""
    );
    let folded =
        format!("{stream},consumer_name=\"*\",consumer_leader=\"\",is_consumer_leader=\"true\",consumer_desc=\"\"");
    for line in [
        format!("gnatsd_varz_version{{{url},value=\"2.15.1\"}} 1"),
        format!("gnatsd_varz_server_name{{{url},value=\"quote\\\"d\"}} 1"),
        format!("gnatsd_varz_start{{{url}}} 1795743781463"),
        format!("gnatsd_varz_in_msgs{{{url}}} 12"),
        format!("gnatsd_connz_in_msgs{{{url}}} 12"),
        format!("gnatsd_healthz_status{{{url}}} 0"),
        format!("gnatsd_healthz_status_value{{{url},value=\"ok\"}} 1"),
        format!("gnatsd_healthz_js_enabled_only_status{{{url}}} 1"),
        format!("gnatsd_healthz_js_server_only_status_value{{{url},value=\"unreachable\"}} 0"),
        format!("jetstream_server_total_streams{{{server}}} 3"),
        format!("jetstream_stream_total_messages{{{stream}}} 5"),
        format!("jetstream_stream_limit_messages{{{stream}}} 1000"),
        format!("jetstream_consumer_num_pending{{{durable}}} 4"),
        format!("jetstream_consumer_ack_floor_stream_seq{{{durable}}} 1"),
        format!("jetstream_consumer_num_pending{{{folded}}} 5"),
    ] {
        assert!(lines.contains(&line), "{line}\n{lines:#?}");
    }
    assert!(
        !lines.iter().any(|line| line.starts_with("jetstream_consumer_last_ack_seconds") && line.contains("\"*\""))
    );
    assert!(lines.iter().any(|line| line.starts_with("jetstream_stream_mirror_lag")
        && line.contains("mirror_name=\"S\",mirror_api=\"\",mirror_deliver=\"\"")));
}

#[test]
fn a_prefix_takes_the_place_of_both_and_the_label_is_as_chosen() {
    let text = lines(&recorded("2.15.1"), &naming(Some("nats"), ServerIdLabel::Name)).join("\n");
    assert!(!text.contains("gnatsd_") && !text.contains("\njetstream_"));
    assert!(text.contains("\nnats_varz_mem{server_id=\"quote\\\"d\"}"));
    assert!(text.contains("\nnats_stream_total_bytes{server_id=\"quote\\\"d\""));
    let text = lines(&recorded("2.15.1"), &naming(None, ServerIdLabel::Id)).join("\n");
    assert!(text.contains("gnatsd_varz_mem{server_id=\"NA4JJ5XNJYDI5WIURFU3TEAESDBJ34YYL63UHBKPJ22J7A5GS7PPGJDM\"}"));
}

#[test]
fn of_a_server_that_does_not_answer_its_health_is_known() {
    let silent = Monitored { url: "http://h:1".into(), ..Monitored::default() };
    assert!(!silent.is_answered());
    let lines = lines(&silent, &naming(None, ServerIdLabel::Id));
    let samples: Vec<_> = lines.iter().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(samples.len(), 3, "{samples:#?}");
    assert!(samples.iter().all(|line| line.ends_with("{server_id=\"http://h:1\",value=\"unreachable\"} 0")));
}

#[test]
fn a_server_that_says_a_part_in_time_answers() {
    let health = [None, Some("ok".to_owned()), None];
    let parts = [
        Monitored { varz: Some(Value::Null), ..Monitored::default() },
        Monitored { jsz: Some(Jsz::default()), ..Monitored::default() },
        Monitored { subsz: Some(Value::Null), ..Monitored::default() },
        Monitored { health, ..Monitored::default() },
    ];
    assert!(parts.iter().all(Monitored::is_answered));
}

#[test]
fn a_server_whose_names_are_late_keeps_them() {
    let mut monitored = recorded("2.15.1");
    let known = monitored.name_as(None);
    assert!(known.is_some());
    (monitored.varz, monitored.named) = (None, None);
    assert_eq!((monitored.name_as(known.clone()), &monitored.named), (known.clone(), &known));
    let text = lines(&monitored, &naming(None, ServerIdLabel::Name)).join("\n");
    let name = &known.as_ref().unwrap().name;
    assert!(
        text.contains(&format!("jetstream_server_total_streams{{server_id={name:?},server_name={name:?}")),
        "{text}"
    );
    let jsz = monitored.jsz.as_mut().unwrap();
    jsz.rest.insert("server_id".into(), "another".into());
    assert_eq!((monitored.name_as(known.clone()), &monitored.named), (known, &None));
}

#[test]
fn in_a_cluster_the_leaders_are_named() {
    let mut monitored = recorded("2.15.1");
    let jsz = monitored.jsz.as_mut().unwrap();
    jsz.meta_cluster = Some(serde_json::from_value(serde_json::json!({ "name": "C1", "leader": "n2" })).unwrap());
    let text = lines(&monitored, &naming(None, ServerIdLabel::Url)).join("\n");
    assert!(text.contains("cluster=\"C1\",domain=\"d1\",meta_leader=\"n2\",is_meta_leader=\"false\"} 3"), "{text}");
}

#[test]
fn answers_in_other_shapes_break_nothing() {
    let odd =
        serde_json::json!({ "a/b": 1, "c": [1], "d": { "e": null, "f": true, "g": 2.5 }, "start": "soon", "name": 7 });
    let monitored =
        Monitored { varz: Some(odd), subsz: Some(Value::Null), jsz: Some(Jsz::default()), ..Monitored::default() };
    let text = lines(&monitored, &naming(None, ServerIdLabel::Url)).join("\n");
    assert!(text.contains("gnatsd_varz_a_b{server_id=\"\"} 1") && text.contains("gnatsd_varz_d_g{server_id=\"\"} 2.5"));
    assert!(text.contains("gnatsd_varz_name{server_id=\"\"} 7"), "{text}");
    assert!(text.contains("gnatsd_varz_start{server_id=\"\",value=\"soon\"} 1"), "{text}");
}

/// As `fqName` and `objectToMetrics` of collector/collector.go at v0.20.2 make them.
#[test]
fn keys_become_names_as_there_and_none_comes_twice() {
    let varz = serde_json::json!({
        "http_req_stats": { "/": 1, "/varz": 2, "/jsz": 3 },
        "_odd__key_": 4,
        "leaf": { "port": 5 },
        "leafnodes": 6,
        "cluster": { "name": "C", "cluster_port": 7, "auth_timeout": 8, "tls_timeout": 9, "pool_size": 10 },
        "gateway": { "name": "G", "port": 11, "auth_timeout": 12, "tls_timeout": 13, "connect_retries": 14 },
        "trusted_operators_claim": { "iat": 15 },
        "config_load_time": "2026-11-27T00:00:00Z",
        "metadata": { "name": "2026-11-27T00:00:00.5Z" },
        "a_b": 16, "a/b": 17,
    });
    let monitored = Monitored { varz: Some(varz), ..Monitored::default() };
    let lines = lines(&monitored, &naming(None, ServerIdLabel::Url));
    let mut told: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("gnatsd_varz_")).collect();
    told.sort_unstable();
    let expected = [
        "a_b{server_id=\"\"} 16",
        "cluster_name{server_id=\"\",value=\"C\"} 1",
        "cluster_pool_size{server_id=\"\"} 10",
        "config_load_time{server_id=\"\"} 1795737600000",
        "gateway_name{server_id=\"\",value=\"G\"} 1",
        "http_req_stats_jsz{server_id=\"\"} 3",
        "http_req_stats_varz{server_id=\"\"} 2",
        "http_req_stats{server_id=\"\"} 1",
        "leafnodes{server_id=\"\"} 6",
        "metadata_name{server_id=\"\"} 1795737600500",
        "odd_key{server_id=\"\"} 4",
    ];
    assert_eq!(told, expected);
}

/// The label lists of `newJszCollector` in collector/jsz.go at v0.20.2, in their order.
const SERVER_LABELS: &[&str] = &["server_id", "server_name", "cluster", "domain", "meta_leader", "is_meta_leader"];
const ACCOUNT_LABELS: &[&str] = &["account", "account_name", "account_id"];
const STREAM_LABELS: &[&str] = &["stream_name", "stream_leader", "is_stream_leader", "stream_raft_group"];
const CONSUMER_LABELS: &[&str] = &["consumer_name", "consumer_leader", "is_consumer_leader", "consumer_desc"];

#[test]
fn labels_are_those_of_the_exporter_and_nothing_of_jetstream_is_told_beside_them() {
    for version in ["2.10.26", "2.15.1"] {
        let lines = lines(&recorded(version), &naming(None, ServerIdLabel::Url));
        for line in lines.iter().filter(|line| line.starts_with("jetstream_")) {
            let (name, rest) = line.split_once('{').unwrap();
            let name = name.strip_prefix("jetstream_").unwrap();
            assert!(JETSTREAM.contains(&name), "{version}: {line}");
            let more: &[&[&str]] = match name {
                _ if name.starts_with("server_") => &[],
                _ if name.starts_with("account_") => &[ACCOUNT_LABELS],
                _ if name.starts_with("stream_source_") => {
                    &[ACCOUNT_LABELS, STREAM_LABELS, &["source_name", "source_api", "source_deliver"]]
                }
                _ if name.starts_with("stream_mirror_") => {
                    &[ACCOUNT_LABELS, STREAM_LABELS, &["mirror_name", "mirror_api", "mirror_deliver"]]
                }
                _ if name.starts_with("stream_") => &[ACCOUNT_LABELS, STREAM_LABELS],
                _ => &[ACCOUNT_LABELS, STREAM_LABELS, CONSUMER_LABELS],
            };
            let expected: Vec<_> = SERVER_LABELS.iter().chain(more.iter().copied().flatten()).copied().collect();
            // No value here holds what looks like the end of a label.
            let labels: Vec<_> = rest.split("\",").map(|label| label.split_once("=\"").unwrap().0).collect();
            assert_eq!(labels, expected, "{version}: {line}");
        }
    }
}
