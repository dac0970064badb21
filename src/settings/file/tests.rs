use super::*;
use crate::settings::{Effective, Loaded, Settings};

fn read(text: &str) -> (Vec<(&'static str, String)>, Vec<String>, Vec<String>) {
    let mut problems = Problems::default();
    let file = SettingsFile::of("s.yml", text, Path::new("/etc/nats"), &mut problems);
    let variables = file.variables.into_iter().map(|(name, value, _)| (name, value)).collect();
    let streams = file.streams.into_iter().map(|stream| stream.name.to_string()).collect();
    (variables, streams, problems.list.iter().map(ToString::to_string).collect())
}

fn good(text: &str) -> (Vec<(&'static str, String)>, Vec<String>) {
    let (variables, streams, problems) = read(text);
    assert_eq!(problems, Vec::<String>::new());
    (variables, streams)
}

fn pairs(expected: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    expected.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

#[test]
fn a_broker_service_with_a_server_of_its_own() {
    let (variables, streams) = good(
        "
message-broker-service:
  port: 8085
  auto_start_nats: true
  auto_create_streams: true
  nats:
    nats_port: 4333
    jetstream_enabled: true
    jetstream_max_memory: \"1GB\"
    jetstream_max_storage: \"10GB\"
    nats_url: \"nats://localhost:4222\"
    data_dir: \"data/nats\"
    write_deadline: \"2s\"
    max_pings_out: 2
    cluster_name: \"marketprism-cluster\"
    cluster_listen: \"0.0.0.0:6333\"
    cluster_routes:
      - \"nats-route://node2:6222\"
      - \"nats-route://node3:6222\"
    tls: {cert_file: certs/a.pem, key_file: /k.pem, verify: true}
    streams:
      CUSTOM_STREAM: {subjects: [\"custom.>\"], retention: \"limits\", max_age: 7200}
",
    );
    assert_eq!(streams, ["CUSTOM_STREAM"]);
    assert_eq!(
        variables,
        pairs(&[
            ("API_PORT", "8085"),
            ("NATS_PORT", "4333"),
            ("JETSTREAM_ENABLED", "true"),
            ("JETSTREAM_MAX_MEMORY", "1GB"),
            ("JETSTREAM_MAX_FILE", "10GB"),
            ("NATS_URL", "nats://localhost:4222"),
            ("JETSTREAM_STORE_DIR", "/etc/nats/data/nats"),
            ("NATS_WRITE_DEADLINE", "2s"),
            ("NATS_PING_MAX", "2"),
            ("NATS_CLUSTER_NAME", "marketprism-cluster"),
            ("NATS_CLUSTER_HOST", "0.0.0.0"),
            ("NATS_CLUSTER_PORT", "6333"),
            ("NATS_CLUSTER_ENABLED", "true"),
            ("NATS_CLUSTER_ROUTES", "nats-route://node2:6222,nats-route://node3:6222"),
            ("NATS_TLS_CERT", "/etc/nats/certs/a.pem"),
            ("NATS_TLS_KEY", "/k.pem"),
            ("NATS_TLS_VERIFY", "true"),
            ("NATS_TLS_ENABLED", "true"),
            ("STREAMS_DEFAULTS", "broker"),
        ])
    );
}

#[test]
fn what_is_switched_off_is_another_mode() {
    let (variables, _) = good("message-broker-service: {auto_start_nats: false, auto_create_streams: no}");
    assert_eq!(variables, pairs(&[("NATS_MODE", "external"), ("STREAMS_DEFAULTS", "none")]));
    let (variables, _) = good("nats: {client_urls: [nats://a:4222, nats://b:4222]}");
    assert_eq!(variables, pairs(&[("NATS_URL", "nats://a:4222,nats://b:4222"), ("NATS_MODE", "external")]));
}

#[test]
fn a_service_among_others() {
    let (variables, streams) = good(
        "
services:
  message-broker:
    port: 8086
    host: \"0.0.0.0\"
    nats_server: {port: 4222, cluster_port: 6222, http_port: 8222}
    nats_client: {url: \"nats://localhost:4222\", timeout: 10}
    streams: {market_data: {subjects: [\"market.>\"], max_msgs: 1000000}}
",
    );
    assert_eq!(streams, ["market_data"]);
    assert!(variables.contains(&("NATS_CONNECT_TIMEOUT", "10".into())));
    assert!(!variables.iter().any(|(name, _)| *name == "NATS_MODE"), "it has a server: {variables:?}");
}

#[test]
fn a_client_without_a_server_is_external() {
    let (variables, streams) = good(
        "
nats_client:
  nats_url: \"nats://localhost:4222\"
  client_name: unified-message-broker
  strict_subjects: true
  max_reconnect_attempts: -1
service: {name: x, port: 9000}
monitoring: {metrics_port: 7777, health_check_interval: 30, alerts: {max_memory_usage: 0.7, max_connection_count: 9}}
logging: {level: INFO, file: logs/n.log, max_files: 3}
streams: {MARKET_DATA: {subjects: [\"orderbook.>\"]}}
",
    );
    assert_eq!(streams, ["MARKET_DATA"]);
    for pair in pairs(&[
        ("NATS_MODE", "external"),
        ("NATS_MAX_RECONNECT", "-1"),
        ("PROMETHEUS_ENABLED", "true"),
        ("ALERT_MEMORY_RATIO", "0.7"),
        ("NATS_LOG_FILE", "/etc/nats/logs/n.log"),
        ("API_PORT", "9000"),
    ]) {
        assert!(variables.contains(&pair), "{pair:?}: {variables:?}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, problem) in [
        (
            "nats: {nats_prt: 1}",
            "s.yml:1:8: nats.nats_prt: cannot use \"nats_prt\": is not a key that may stand here; did you mean nats_port?",
        ),
        (
            "nats: {nats_port: [1]}",
            "s.yml:1:19: nats.nats_port: cannot use a list: must be a port, 1 to 65535, used once; correct it, or leave it out",
        ),
        ("nats: 5", "s.yml:1:7: nats: cannot use a text: must be a map; write `key: value` lines below it"),
        ("nats: {cluster_listen: 6222}", "must be an address and a port"),
        ("message-broker-service: {auto_start_nats: maybe}", "must be true or false"),
        ("strict_subjects: maybe", "must be true or false"),
        ("nonsense: 1", "s.yml:1:1: nonsense"),
        ("a: [1", "this is not YAML that can be used"),
    ] {
        let (_, _, problems) = read(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(problem), "{problems:?}");
    }
}

#[test]
fn nothing_is_shown_of_texts_that_may_be_secrets() {
    for text in [
        "NATS_AUTH_PASSWORD=tell",
        "NATS_AUTH_USERNAME=bob\nNATS_AUTH_PASSWORD=tell\n",
        "NATS_AUTH_PASSWORD=tell: x",
        "nats: {\"password=tell\": 1}",
        "tell",
        "users: bob:tell",
        "users: [\"bob:tell\"]",
    ] {
        let (_, _, problems) = read(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(!problems[0].contains("tell"), "{text}: {problems:?}");
    }
}

fn load(text: &str, pairs: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("settings.yml");
    std::fs::write(&path, text).unwrap();
    let mut pairs = pairs.to_vec();
    pairs.push(("CONFIG_FILE", path.to_str().unwrap()));
    Settings::load(&pairs.as_slice(), &[])
}

#[test]
fn what_is_set_wins_over_the_file() {
    let text = "nats: {nats_port: 4333, http_port: 8333}\nstreams: {A: {subjects: [a]}}";
    let loaded = load(text, &[("NATS_HTTP_PORT", "8444")]).unwrap();
    let settings = &loaded.settings;
    assert_eq!(settings.server.port.get(), 4333);
    assert_eq!(settings.server.monitoring.as_ref().unwrap().port.get(), 8444);
    assert_eq!(settings.streams.declared.len(), 1);
    let origin = |name: &str| {
        let entry: &Effective = loaded.effective.iter().find(|entry| entry.name == name).unwrap();
        entry.origin.clone()
    };
    assert!(origin("NATS_PORT").ends_with("settings.yml:1"), "{}", origin("NATS_PORT"));
    assert_eq!(origin("NATS_HTTP_PORT"), "environment");
}

#[test]
fn a_value_that_breaks_its_rule_is_told_with_its_line() {
    let problems = load("nats:\n  nats_port: 99999\n", &[]).unwrap_err().to_string();
    assert!(
        problems.contains("NATS_PORT (") && problems.contains("settings.yml:2): cannot use \"99999\""),
        "{problems}"
    );
}

#[test]
fn a_stream_is_declared_in_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("streams.yml");
    std::fs::write(&path, "streams: {A: {subjects: [b]}}").unwrap();
    let problems = load("streams: {A: {subjects: [a]}}", &[("STREAMS_FILE", path.to_str().unwrap())]);
    let problems = problems.unwrap_err().to_string();
    assert!(problems.contains("streams.yml:1: A") && problems.contains("settings.yml:1 already"), "{problems}");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.yml");
    std::fs::write(&path, "streams: {}").unwrap();
    let condition = || Condition::of(&std::fs::File::open(&path).unwrap()).unwrap();
    let before = condition();
    assert!(condition().is_whole(&before, 11));
    assert!(!condition().is_whole(&before, 10), "half of it");
    std::fs::write(&path, "streams: {} ").unwrap();
    assert!(!condition().is_whole(&before, 12), "it has grown");
    assert!(read_text(Path::new("/proc/self/mounts")).is_ok(), "it has no length");
}

#[test]
fn files_are_read_within_bounds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.yml");
    let problem = |path: &Path| {
        let mut problems = Problems::default();
        SettingsFile::read(path, &STREAMS_FILE, &mut problems);
        problems.to_string()
    };
    std::fs::write(&path, vec![b'#'; 50 << 20]).unwrap();
    assert!(problem(&path).contains("it is larger than 4 MiB"));
    std::fs::write(&path, b"a: \xff").unwrap();
    assert!(problem(&path).contains("it is not UTF-8 text from byte 3 on"));
    assert!(problem(directory.path()).contains("it is not a regular file"));
    assert!(problem(&directory.path().join("missing")).contains("No such file"));
}

#[test]
fn nothing_that_may_be_a_password_is_shown_wherever_it_stands() {
    let in_user = |text: &str| format!("users: [{{user: a, password: {text}}}]");
    let mut texts: Vec<String> = [
        "tell-nobody",
        "- tell-nobody",
        "- {a: b}\n- tell-nobody",
        "nats: tell-nobody",
        "nats: [tell-nobody]",
        "nats: {tls: tell-nobody}",
        "message-broker-service: tell-nobody",
        "users: tell-nobody",
        "users: [tell-nobody]",
        "users: [{user: a, password: b, permissions: tell-nobody}]",
        "streams: tell-nobody",
        "streams: [tell-nobody]",
        "consumers: [tell-nobody]",
        "streams: {A: tell-nobody}",
        "streams: {A: {mirror: tell-nobody}}",
        "streams: {A: {sources: tell-nobody}}",
        "streams: {A: {sources: [tell-nobody]}}",
        "streams: {A: {metadata: tell-nobody}}",
        "streams: {A: {metadata: {a: [tell-nobody]}}}",
        "streams: {A: {consumers: tell-nobody}}",
        "streams: {A: {consumers: [tell-nobody]}}",
        "streams: {A: {consumers: {c: tell-nobody}}}",
        "key_value: {A: tell-nobody}",
        "object_store: tell-nobody",
        "strict_subjects: nats://u:tell-nobody@h",
        "'nats://u:tell-nobody@h': 1",
        "NATS_AUTH_PASSWORD=tell-nobody: 1",
        "streams: {A: {max_age: '-----BEGIN PRIVATE KEY-----tell-nobody'}}",
    ]
    .map(str::to_owned)
    .into();
    // Passwords that begin with what means something to YAML.
    for first in ["!", "!!", "*", "@", "%", "`", "|", ">", "{", "[", "'", "\"", "\"\\z", "!a ", "&", "- ", "? "] {
        texts.push(in_user(&format!("{first}tell-nobody")));
        texts.push(format!("users:\n  - user: a\n    password: {first}tell-nobody\n"));
    }
    for text in texts {
        let (_, _, problems) = read(&text);
        assert!(!problems.iter().any(|problem| problem.contains("tell-nobody")), "{text}: {problems:#?}");
    }
}
