use super::*;
use crate::domain::Secret;

pub fn load(pairs: &[(&str, &str)]) -> Result<Loaded, Problems> {
    Settings::load(&pairs, &[])
}

fn problems(pairs: &[(&str, &str)]) -> Vec<Problem> {
    load(pairs).expect_err("these settings should be refused").list
}

#[test]
fn defaults_are_valid() {
    let loaded = load(&[]).unwrap();
    let settings = loaded.settings;
    assert_eq!(settings.server.port.get(), 4222);
    assert_eq!(settings.market_data.max_bytes, Some(1 << 30));
    assert_eq!(settings.supervision.shutdown_timeout.as_secs(), 25);
    assert!(settings.tls.is_none() && settings.cluster.is_none() && settings.authentication.is_open());
    assert_eq!(
        settings.unauthenticated_listeners,
        [UnauthenticatedListener::Nats, UnauthenticatedListener::Monitoring, UnauthenticatedListener::Api]
    );
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn every_default_obeys_its_own_rule_when_set() {
    let pairs: Vec<_> = variables::ALL.iter().filter_map(|v| Some((v.name, v.default.fixed()?))).collect();
    let loaded = load(&pairs).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn empty_means_unset_for_every_variable() {
    let pairs: Vec<_> = variables::ALL.iter().map(|v| (v.name, "")).collect();
    let loaded = load(&pairs).unwrap_or_else(|p| panic!("{p}"));
    assert!(loaded.effective.iter().all(|e| e.origin == "default"));
}

/// For each variable one value of each bad kind that its rule must catch.
#[test]
fn bad_values_are_refused_one_problem_each() {
    let cases: &[(&str, &[&str])] = &[
        ("NATS_MODE", &["both", " embedded", "1"]),
        ("NATS_URL", &["localhost:4222", "http://localhost", "nats://", "nats://a:0"]),
        ("MARKETPRISM_NATS_URL", &["nats//x", ","]),
        ("NATS_MONITOR_URL", &["nats://x", "x"]),
        ("NATS_CREDS_FILE", &["/nonexistent/x"]),
        ("NATS_TLS_CLIENT_CERT", &["/nonexistent/x"]),
        ("NATS_TLS_CLIENT_KEY", &["/nonexistent/x"]),
        ("NATS_SERVER_BIN", &["a\nb", " nats-server"]),
        ("NATS_SERVER_NAME", &["a b", "a\tb", " a"]),
        ("NATS_HOST", &["256.0.0.1", "a b", "host:1", " 0.0.0.0"]),
        ("NATS_PORT", &["0", "65536", "-1", "4222 ", "abc", "4222.0", "0x10", "+4222", "4kB"]),
        ("NATS_HTTP_HOST", &["a/b"]),
        ("NATS_HTTP_PORT", &["70000", "x"]),
        ("NATS_MAX_CONNECTIONS", &["0", "-5", "1k", "99999999999", "1.5"]),
        ("NATS_MAX_SUBSCRIPTIONS", &["-1", "x"]),
        ("NATS_MAX_CONTROL_LINE", &["100", "2MB", "4s"]),
        ("NATS_MAX_PAYLOAD", &["65MB", "0", "-1", "1 MB", "5s"]),
        ("NATS_MAX_PENDING", &["0", "x", "10m0"]),
        ("NATS_WRITE_DEADLINE", &["0", "-1", "10MB", "1.5s"]),
        ("NATS_PING_INTERVAL", &["0", "x"]),
        ("NATS_PING_MAX", &["0", "two"]),
        ("NATS_EXTRA_CONFIG", &["/nonexistent/x", "/"]),
        ("JETSTREAM_ENABLED", &["maybe", "2", " true"]),
        ("JETSTREAM_STORE_DIR", &["/dev/null", "/etc/hostname"]),
        ("JETSTREAM_MAX_MEMORY", &["1XB", "-1", "1.3", "60s"]),
        ("JETSTREAM_MAX_FILE", &["lots", "9999999999T"]),
        ("JETSTREAM_DOMAIN", &["a.b", "a b"]),
        ("JETSTREAM_SYNC_INTERVAL", &["never", "0", "1GB"]),
        ("JETSTREAM_MAX_STREAMS", &["0", "x"]),
        ("JETSTREAM_MAX_CONSUMERS", &["0", "x"]),
        ("STREAM_NAME", &["A.B", "A B", "*"]),
        ("STREAM_SUBJECT_STYLE", &["fancy"]),
        ("STREAM_MAX_CONSUMERS", &["0", "-2", "x"]),
        ("STREAM_MAX_MSGS", &["-2", "1e6", "x"]),
        ("STREAM_MAX_BYTES", &["-2", "x", "60s"]),
        ("STREAM_MAX_AGE", &["-5", "2d", "10ms", "1GB"]),
        ("STREAM_MAX_MSGS_PER_SUBJECT", &["-2", "x"]),
        ("STREAM_MAX_MSG_SIZE", &["-2", "3GB", "x"]),
        ("STREAM_REPLICAS", &["0", "2", "4", "7", "x", "3"]),
        ("STREAM_DUPLICATE_WINDOW", &["-1", "x", "3h"]),
        ("RETENTION_POLICY", &["forever"]),
        ("DISCARD_POLICY", &["oldest"]),
        ("STORAGE_TYPE", &["disk"]),
        ("STREAM_COMPRESSION", &["gzip"]),
        ("STREAMS_FILE", &["/nonexistent/x"]),
        ("STREAMS_DEFAULTS", &["all", "market-data,x"]),
        ("STREAMS_RECONCILE_INTERVAL", &["-1", "x"]),
        ("STREAMS_PRUNE", &["x"]),
        ("NATS_AUTH_ENABLED", &["x", "true"]),
        ("NATS_TLS_ENABLED", &["x"]),
        ("NATS_TLS_CERT", &["/nonexistent/x"]),
        ("NATS_TLS_KEY", &["/nonexistent/x"]),
        ("NATS_TLS_CA", &["/nonexistent/x"]),
        ("NATS_TLS_VERIFY", &["x", "true"]),
        ("NATS_SERVER_ALLOW_DOWNGRADE", &["x"]),
        ("JETSTREAM_REQUIRE_MARKER", &["x"]),
        ("NATS_CLUSTER_ENABLED", &["x", "true"]),
        ("NATS_CLUSTER_NAME", &["a b"]),
        ("NATS_CLUSTER_ROUTES", &["node2:6222", "http://node2"]),
        ("NATS_CLUSTER_PORT", &["0"]),
        ("NATS_CLUSTER_HOST", &["a b"]),
        ("NATS_CLUSTER_ADVERTISE", &["a b:1", "x:0"]),
        ("NATS_CLUSTER_PASSWORD", &["$2a$04$secret"]),
        ("INIT_TIMEOUT", &["0", "x"]),
        ("NATS_CONNECT_TIMEOUT", &["0", "x"]),
        ("NATS_MAX_RECONNECT", &["-2", "x"]),
        ("SHUTDOWN_TIMEOUT", &["0", "500ms", "x"]),
        ("SHUTDOWN_DRAIN_DELAY", &["25", "-1", "x"]),
        ("NATS_LAME_DUCK_DURATION", &["29s", "x"]),
        ("NATS_LAME_DUCK_GRACE", &["0", "30s", "x"]),
        ("RESTART_BACKOFF_MIN", &["31s", "-1"]),
        ("RESTART_BACKOFF_MAX", &["x", "1ms"]),
        ("RESTART_MAX", &["-1", "x"]),
        ("RESTART_WINDOW", &["0", "x"]),
        ("HEALTH_CHECK_ENABLED", &["x"]),
        ("HEALTH_CHECK_INTERVAL", &["0", "x"]),
        ("HEALTH_CHECK_TIMEOUT", &["0", "x"]),
        ("HEALTH_PROBE_INTERVAL", &["0", "x"]),
        ("HEALTH_FAILURE_THRESHOLD", &["0", "x"]),
        ("HEALTH_HANG_TIMEOUT", &["0", "x"]),
        ("MONITORING_ENABLED", &["x"]),
        ("FAMILY_STALE_AFTER", &["trade", "trades=30s", "trade=x"]),
        ("GOMEMLIMIT", &["1GB", "x", "MiB", "9000000TiB"]),
        ("LOG_LEVEL", &["loud"]),
        ("LOG_FORMAT", &["xml"]),
        ("NATS_DEBUG", &["x"]),
        ("NATS_TRACE", &["x"]),
        ("NATS_LOG_TIME", &["x"]),
        ("NATS_LOG_FILE", &["/"]),
        ("NATS_LOG_MAX_SIZE", &["1", "x"]),
        ("NATS_LOG_MAX_FILES", &["0", "x"]),
        ("API_ENABLED", &["x"]),
        ("API_HOST", &["a b"]),
        ("API_PORT", &["0", "4222"]),
        ("API_TOKEN", &["a b"]),
        ("API_READ_TOKEN", &["é"]),
        ("API_MAX_BODY", &["x"]),
        ("API_MAX_CONNECTIONS", &["0"]),
        ("API_THREADS", &["0", "65", "x"]),
        ("API_REQUEST_TIMEOUT", &["0"]),
        ("API_RATE_LIMIT", &["-1"]),
        ("API_CORS_ORIGINS", &["example.org"]),
        ("ENVIRONMENT", &["prod"]),
        ("SECURITY_STRICT", &["x"]),
        ("GRPC_ENABLED", &["x"]),
        ("GRPC_HOST", &["a b"]),
        ("GRPC_PORT", &["x"]),
        ("GRPC_MAX_MESSAGE_SIZE", &["x"]),
        ("GRPC_JWT_PUBLIC_KEY_FILE", &["/nonexistent/x"]),
        ("GRPC_TLS_CLIENT_CA", &["/nonexistent/x"]),
        ("MB_ENABLE_AUTH", &["x"]),
        ("PROMETHEUS_ENABLED", &["x"]),
        ("PROMETHEUS_HOST", &["a b"]),
        ("PROMETHEUS_PORT", &["x"]),
        ("PROMETHEUS_PREFIX", &["9a", "a-b"]),
        ("ALERT_WEBHOOK_URL", &["x"]),
        ("ALERT_SLACK_WEBHOOK", &["ftp://x"]),
        ("ALERT_SMTP_URL", &["http://x"]),
        ("ALERT_EMAIL", &["x", "a@b"]),
        ("ALERT_EMAIL_FROM", &["x"]),
        ("ALERT_MEMORY_RATIO", &["1.1", "-0.1", "80%", "nan"]),
        ("ALERT_DISK_RATIO", &["2"]),
        ("ALERT_CONNECTIONS_RATIO", &["x"]),
        ("ALERT_STREAM_RATIO", &["x"]),
        ("ALERT_CONSUMER_LAG", &["-1"]),
        ("ALERT_MIN_INTERVAL", &["x"]),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &["x"]),
        ("BACKUP_ENABLED", &["x"]),
        ("BACKUP_INTERVAL", &["0"]),
        ("BACKUP_RETENTION_DAYS", &["0"]),
        ("BACKUP_S3_ENDPOINT", &["x"]),
        ("CONFIG_FILE", &["/nonexistent/x"]),
    ];
    // Any text is a valid value of these, or their rule needs a longer test of its own.
    let free_text = [
        "NATS_AUTH_USERNAME",
        "NATS_AUTH_PASSWORD",
        "NATS_AUTH_TOKEN",
        "NATS_USERS_FILE",
        "NATS_CLUSTER_USERNAME",
        "NATS_CONFIG_FILE",
        "GRPC_TLS_CERT",
        "GRPC_TLS_KEY",
        "GRPC_JWT_ISSUER",
        "GRPC_JWT_AUDIENCE",
        "BACKUP_DIR",
        "BACKUP_S3_BUCKET",
        "BACKUP_S3_REGION",
        "BACKUP_S3_PREFIX",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    ];
    let covered: Vec<_> = cases.iter().map(|(variable, _)| *variable).chain(free_text).collect();
    for variable in variables::ALL {
        assert!(covered.contains(&variable.name), "{} has no bad value here", variable.name);
    }
    for (variable, values) in cases {
        for value in *values {
            let found = problems(&[(variable, value)]);
            assert_eq!(found.len(), 1, "{variable}={value:?}: {found:?}");
            let line = found[0].to_string();
            assert!(line.contains(variable), "{line}");
            assert!(!found[0].rule.is_empty() && !found[0].remedy.is_empty(), "{line}");
        }
    }
}

#[test]
fn contradictory_pairs_are_refused() {
    let cases: &[&[(&str, &str)]] = &[
        &[
            ("NATS_AUTH_ENABLED", "true"),
            ("NATS_AUTH_TOKEN", "t"),
            ("NATS_AUTH_USERNAME", "u"),
            ("NATS_AUTH_PASSWORD", "p"),
        ],
        &[("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_USERNAME", "u")],
        &[("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_PASSWORD", "p")],
        &[("NATS_AUTH_ENABLED", "true"), ("NATS_USERS_FILE", "/etc/hostname")],
        &[("STREAM_REPLICAS", "3")],
        &[("NATS_PORT", "5000"), ("NATS_HTTP_PORT", "5000")],
        &[("GRPC_ENABLED", "true"), ("GRPC_PORT", "8086")],
        &[("NATS_MAX_PAYLOAD", "2MB"), ("NATS_MAX_PENDING", "1MB")],
        &[("STREAM_DUPLICATE_WINDOW", "2h"), ("STREAM_MAX_AGE", "1h")],
        &[("STREAM_MAX_BYTES", "11GB")],
        &[("STREAM_MAX_BYTES", "2GB"), ("STORAGE_TYPE", "memory")],
        &[("NATS_CLUSTER_ENABLED", "true"), ("NATS_CLUSTER_ROUTES", "nats://b:6222"), ("NATS_CLUSTER_USERNAME", "u")],
        &[("GRPC_TLS_CERT", "/etc/hostname")],
        &[("AWS_ACCESS_KEY_ID", "x")],
        &[("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_USERNAME", "_unified_nats"), ("NATS_AUTH_PASSWORD", "p")],
        &[("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_USERNAME", "_unified_nats_data"), ("NATS_AUTH_PASSWORD", "p")],
        &[("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_USERNAME", "_unified_nats_backup"), ("NATS_AUTH_PASSWORD", "p")],
        &[("NATS_MODE", "external"), ("NATS_URL", "nats://a:4222,ws://b:80")],
        &[("NATS_MODE", "external"), ("NATS_URL", "nats://u:p@a,nats://c,nats://u:q@b")],
        &[("NATS_MODE", "external"), ("NATS_URL", "ws://a"), ("NATS_TLS_ENABLED", "true")],
        &[("NATS_MODE", "external"), ("NATS_AUTH_TOKEN", "t"), ("NATS_AUTH_USERNAME", "u")],
        &[("NATS_MODE", "external"), ("NATS_AUTH_USERNAME", "u")],
        &[("NATS_MODE", "external"), ("NATS_AUTH_TOKEN", "t"), ("NATS_CREDS_FILE", "/etc/hostname")],
        &[("NATS_MODE", "external"), ("NATS_TLS_CLIENT_CERT", "/etc/hostname")],
        &[("NATS_MODE", "external"), ("JETSTREAM_ENABLED", "maybe")],
    ];
    for pairs in cases {
        let found = problems(pairs);
        assert_eq!(found.len(), 1, "{pairs:?}: {found:?}");
    }
    let long_hash = format!("$2a$10${}", "x".repeat(70));
    for variable in ["NATS_AUTH_PASSWORD", "NATS_AUTH_TOKEN", "NATS_CLUSTER_PASSWORD"] {
        assert_eq!(problems(&[(variable, &long_hash)]).len(), 1, "bcrypt reads 72 bytes of it: {variable}");
    }
    let tls = problems(&[("NATS_TLS_ENABLED", "true")]);
    assert_eq!(tls.len(), 2, "{tls:?}");
}

#[test]
fn warnings_are_told_beside_problems() {
    let refused = load(&[("NATS_PROT", "4333"), ("API_PORT", "4222")]).unwrap_err().to_string();
    assert!(refused.contains("NATS_PORT, API_PORT: cannot use port 4222 twice"), "{refused}");
    assert!(refused.contains("warning: NATS_PROT is not a variable"), "{refused}");
}

#[test]
fn one_fault_is_one_problem() {
    let clash_with_a_default = problems(&[("NATS_PORT", "abc"), ("API_PORT", "4222")]);
    assert_eq!(clash_with_a_default.len(), 1, "{clash_with_a_default:?}");
    let unreadable = problems(&[
        ("NATS_AUTH_ENABLED", "true"),
        ("NATS_AUTH_USERNAME", "u"),
        ("NATS_AUTH_PASSWORD_FILE", "/nonexistent/x"),
    ]);
    assert_eq!(unreadable.len(), 1, "{unreadable:?}");
}

#[test]
fn credentials_that_no_connect_line_holds_are_refused() {
    let long = "\u{1}".repeat(1000);
    let credentials = [("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_TOKEN", long.as_str())];
    assert_eq!(problems(&credentials)[0].variable, "NATS_MAX_CONTROL_LINE");
    load(&[credentials[0], credentials[1], ("NATS_MAX_CONTROL_LINE", "8KB")]).unwrap();
}

#[test]
fn all_problems_come_in_one_answer() {
    let found = problems(&[
        ("NATS_PORT", "99999"),
        ("JETSTREAM_MAX_FILE", "lots"),
        ("STREAM_REPLICAS", "2"),
        ("LOG_LEVEL", "loud"),
        ("NATS_AUTH_PASSWORD_FILE", "/nonexistent/x"),
    ]);
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn secrets_never_appear_in_problems_or_effective_values() {
    let token = "tell-nobody-\u{0}";
    let found = problems(&[("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_TOKEN", token), ("API_TOKEN", "tell nobody")]);
    assert_eq!(found.len(), 2);
    assert!(!Problems::from(found).to_string().contains("nobody"));

    let urls = problems(&[
        ("NATS_CLUSTER_ROUTES", "nats://u:tell-nobody@node:99999"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:tell-nobody@h:0"),
    ]);
    assert_eq!(urls.len(), 2);
    assert!(!Problems::from(urls).to_string().contains("nobody"));

    let loaded = load(&[
        ("NATS_CLUSTER_ENABLED", "true"),
        ("NATS_CLUSTER_ROUTES", "nats://u:tell-nobody@node:6222"),
        ("NATS_AUTH_ENABLED", "true"),
        ("NATS_AUTH_USERNAME", "u"),
        ("NATS_AUTH_PASSWORD", "tell-nobody"),
        ("NATS_URL", "nats://u:tell-nobody@remote:4222"),
    ])
    .unwrap();
    let everything = format!("{loaded:?}");
    assert!(!everything.contains("tell-nobody"), "{everything}");
}

#[test]
fn white_space_in_secrets_is_kept() {
    let loaded =
        load(&[("NATS_AUTH_ENABLED", "yes"), ("NATS_AUTH_USERNAME", "u"), ("NATS_AUTH_PASSWORD", "  p \t")]).unwrap();
    match loaded.settings.authentication {
        Authentication::Users(users) => match &users[0].password {
            Password::Plain(password) => assert_eq!(password.expose(), "  p \t"),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn strict_refuses_every_open_door() {
    assert_eq!(problems(&[("SECURITY_STRICT", "true")]).len(), 3);
    let closed = load(&[
        ("SECURITY_STRICT", "true"),
        ("NATS_AUTH_ENABLED", "true"),
        ("NATS_AUTH_TOKEN", "t"),
        ("NATS_HTTP_HOST", "127.0.0.1"),
    ]);
    assert!(closed.unwrap().settings.unauthenticated_listeners.is_empty());
}

#[test]
fn the_api_is_open_where_nobody_is_asked_for_anything() {
    let is_open = |pairs: &[(&str, &str)]| {
        load(pairs).unwrap().settings.unauthenticated_listeners.contains(&UnauthenticatedListener::Api)
    };
    let external = ("NATS_MODE", "external");
    let user = [("NATS_AUTH_USERNAME", "u"), ("NATS_AUTH_PASSWORD", "p")];
    for open in [&[][..], &[external], &[("NATS_AUTH_ENABLED", "false")]] {
        assert!(is_open(open), "{open:?}");
    }
    let on = ("NATS_AUTH_ENABLED", "true");
    for closed in [
        &[("API_TOKEN", "t")][..],
        &[("API_READ_TOKEN", "t")],
        &[("API_HOST", "127.0.0.1")],
        &[("API_ENABLED", "false")],
        &[on, ("NATS_AUTH_TOKEN", "t")],
        &[on, user[0], user[1]],
        &[external, user[0], user[1]],
        &[external, ("NATS_AUTH_TOKEN", "t")],
    ] {
        assert!(!is_open(closed), "{closed:?}");
    }
}

#[test]
fn tokens_of_the_api_come_before_the_one_of_nats() {
    let keys = |pairs: &[(&str, &str)]| {
        let settings = load(pairs).unwrap().settings;
        let keys = settings.api_keys();
        let text = |key: Option<&Secret>| key.map(|key| key.expose().to_owned());
        (text(keys.full), text(keys.reading), keys.users)
    };
    let some = |text: &str| Some(text.to_owned());
    let nats = [("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_TOKEN", "n")];
    assert_eq!(keys(&nats), (some("n"), None, false));
    assert_eq!(keys(&[&nats[..], &[("API_TOKEN", "a")]].concat()), (some("a"), None, false));
    assert_eq!(keys(&[&nats[..], &[("API_READ_TOKEN", "r")]].concat()), (None, some("r"), false));
}

#[test]
fn what_awaits_its_part_is_named_in_one_warning() {
    let loaded = load(&[("GRPC_ENABLED", "true"), ("BACKUP_ENABLED", "true"), ("API_MAX_BODY", "2MB")]).unwrap();
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("GRPC_ENABLED (the gRPC message bus), BACKUP_ENABLED (backup)"));
}

#[test]
fn what_describes_a_server_of_our_own_does_not_matter_elsewhere() {
    let loaded = load(&[
        ("NATS_MODE", "external"),
        ("MARKETPRISM_NATS_URL", "nats://a:4222,tls://b"),
        ("NATS_PORT", "99999"),
        ("JETSTREAM_STORE_DIR", "/dev/null"),
        ("JETSTREAM_MAX_FILE", "1MB"),
        ("STREAM_REPLICAS", "3"),
        ("NATS_MAX_PAYLOAD", "32MB"),
        ("NATS_CLUSTER_ENABLED", "true"),
        ("NATS_TLS_VERIFY", "true"),
        ("NATS_EXTRA_CONFIG", "/nonexistent"),
        ("API_TOKEN", "t"),
        ("SECURITY_STRICT", "true"),
        ("NATS_HTTP_PORT", "8086"),
    ])
    .unwrap_or_else(|problems| panic!("{problems}"));
    let settings = loaded.settings;
    assert_eq!(settings.external.unwrap().urls, ["nats://a:4222", "tls://b"]);
    assert!(settings.cluster.is_none() && settings.tls.is_none());
    assert_eq!(settings.market_data.replicas, Some(3));
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn tls_is_asked_of_servers_that_are_discovered_where_every_url_asks_for_it() {
    for (urls, expected) in [("tls://a,tls://b", true), ("tls://a,nats://b", false), ("nats://a", false)] {
        let loaded = load(&[("NATS_MODE", "external"), ("NATS_URL", urls)]).unwrap();
        assert_eq!(loaded.settings.external.unwrap().requires_tls, expected, "{urls}");
    }
}

#[test]
fn a_remote_url_asks_whether_external_mode_is_meant() {
    let loaded = load(&[("NATS_URL", "nats://user:pw@nats.example.org:4222")]).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].contains("NATS_MODE=external") && !loaded.warnings[0].contains("pw"));
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_without_waiting_for_its_writer() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let problems = load(&[("NATS_EXTRA_CONFIG", pipe.to_str().unwrap())]).unwrap_err();
    assert!(problems.list[0].rule.contains("not a regular file"), "{problems}");
}

#[test]
fn flags_win_over_the_environment() {
    let flags = [(variables::NATS_PORT.name, "5222".to_owned())];
    let loaded = Settings::load(&[("NATS_PORT", "4333")], &flags).unwrap();
    assert_eq!(loaded.settings.server.port.get(), 5222);
    let shown = loaded.effective.iter().find(|e| e.name == "NATS_PORT").unwrap();
    assert_eq!(shown.origin, "command line");
}

#[test]
fn the_default_server_name_follows_the_host_in_a_cluster() {
    let name = |pairs: &[(&str, &str)]| load(pairs).unwrap().settings.server_name("node1");
    let clustered = [("NATS_CLUSTER_ENABLED", "true"), ("NATS_CLUSTER_ROUTES", "nats://b:6222")];
    assert_eq!(name(&[]), "marketprism-nats-unified");
    assert_eq!(name(&clustered), "marketprism-nats-unified-node1");
    assert_eq!(name(&[clustered[0], clustered[1], ("NATS_SERVER_NAME", "x")]), "x");
}

#[test]
fn secrets_that_were_hardly_meant_are_warned_of_and_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = directory.path().join("secret");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let hash = format!("$2a$04${}", "a".repeat(53));
    for (text, told) in [
        ("tell-nobody\r", "ends with a carriage return"),
        ("tell-nobody ", "white space"),
        ("\u{a0}tell-nobody", "white space"),
        ("\"tell-nobody\"", "is in quotes"),
        ("'tell-nobody'", "is in quotes"),
        ("\u{feff}tell-nobody", "byte order mark"),
        (&hash, "looks like a bcrypt hash and is taken as the secret itself"),
        ("tell \"nobody", ""),
        ("tell's-nobody", ""),
        ("\"", "a quote that has no other"),
        ("'", "a quote that has no other"),
        ("“tell-nobody”", "is in quotes"),
        ("‘tell-nobody’", "is in quotes"),
        ("tell-nobody\u{200b}", "holds an invisible character (U+200B)"),
    ] {
        for variable in ["NATS_AUTH_PASSWORD", "NATS_AUTH_TOKEN", "NATS_CLUSTER_PASSWORD"] {
            // nats-server would take it for a hash, there, so it is refused.
            if variable == "NATS_CLUSTER_PASSWORD" && text == hash {
                continue;
            }
            for from_file in [false, true] {
                let (name, value) = match from_file {
                    // One line end is the file's own.
                    true => (
                        format!("{variable}_FILE"),
                        file(&format!("{text}\n\n").replace("\r\n\n", "\r\r\n").replace("\n\n", "\n")),
                    ),
                    false => (variable.to_owned(), text.to_owned()),
                };
                let mut pairs = vec![(name.as_str(), value.as_str())];
                match variable {
                    "NATS_AUTH_PASSWORD" => pairs.extend([("NATS_AUTH_ENABLED", "true"), ("NATS_AUTH_USERNAME", "u")]),
                    "NATS_AUTH_TOKEN" => pairs.push(("NATS_AUTH_ENABLED", "true")),
                    "NATS_CLUSTER_PASSWORD" => pairs.extend([
                        ("NATS_CLUSTER_ENABLED", "true"),
                        ("NATS_CLUSTER_USERNAME", "u"),
                        ("NATS_CLUSTER_ROUTES", "nats://127.0.0.1:1"),
                    ]),
                    _ => {}
                }
                let warnings = load(&pairs).unwrap_or_else(|problems| panic!("{problems}")).warnings.join("\n");
                let about = warnings.lines().find(|line| line.starts_with(variable)).unwrap_or_default();
                assert_eq!(about.is_empty(), told.is_empty(), "{text:?}: {warnings}");
                assert!(
                    about.contains(told) && !warnings.contains("nobody") && !warnings.contains("aaa"),
                    "{warnings}"
                );
            }
        }
    }
    let path = file("users: [{user: \"'a'\", password: \"tell-nobody\\r\"}]");
    let pairs = [("NATS_AUTH_ENABLED", "true"), ("NATS_USERS_FILE", path.as_str())];
    let warnings = load(&pairs).unwrap_or_else(|problems| panic!("{problems}")).warnings.join("\n");
    assert!(warnings.contains("the name of the user \"'a'\" is in quotes"), "{warnings}");
    assert!(warnings.contains("the password of the user \"'a'\" ends with a carriage return"), "{warnings}");
    assert!(!warnings.contains("nobody"), "{warnings}");
}

#[test]
fn consumers_without_their_stream_are_told_as_that() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.yml");
    std::fs::write(&path, "streams:\n  ORDERS: {consumers: {c: {}, d: {}}}\n  MARKET_DATA: {consumers: {e: {}}}\n")
        .unwrap();
    let problems = load(&[("STREAMS_FILE", path.to_str().unwrap())]).unwrap_err().list;
    assert_eq!(problems.len(), 1, "{problems:?}");
    let told = problems[0].to_string();
    assert!(
        told.contains("c.yml:2: ORDERS: cannot use consumers without their stream: c, d: stream ORDERS must"),
        "{told}"
    );
    assert!(told.contains("`nats stream info ORDERS -j`"), "{told}");
}

#[test]
fn texts_of_any_variable_that_were_hardly_meant_are_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let quoted = directory.path().join("'store'");
    for (variable, value, told) in [
        ("API_TOKEN", "\"tell-nobody\"", "API_TOKEN is in quotes"),
        ("API_READ_TOKEN", "'tell-nobody", "API_READ_TOKEN begins or ends with a quote"),
        ("AWS_SECRET_ACCESS_KEY", "“tell-nobody”", "AWS_SECRET_ACCESS_KEY is in quotes"),
        ("JETSTREAM_STORE_DIR", "\"/data/jetstream\"", "JETSTREAM_STORE_DIR is in quotes"),
        ("JETSTREAM_STORE_DIR", "/data/jet\u{200b}stream", "JETSTREAM_STORE_DIR holds an invisible character"),
        ("JETSTREAM_STORE_DIR", quoted.to_str().unwrap(), "JETSTREAM_STORE_DIR begins or ends with a quote"),
        ("NATS_CLUSTER_USERNAME", "‘u’", "NATS_CLUSTER_USERNAME is in quotes"),
    ] {
        let mut pairs = vec![(variable, value)];
        if variable.starts_with("AWS") {
            pairs.push(("AWS_ACCESS_KEY_ID", "x"));
        }
        let warnings = load(&pairs).unwrap_or_else(|problems| panic!("{problems}")).warnings.join("\n");
        assert_eq!(warnings.matches(told).count(), 1, "{value}: {warnings}");
        assert!(!warnings.contains("nobody\"") && !warnings.contains("tell-"), "{warnings}");
    }
}
