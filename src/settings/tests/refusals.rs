//! Values and pairs of values that are refused, each with one problem.

use super::*;

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
        ("GRPC_JWT_SECRET_FILE", &["/nonexistent/x", "/dev/null"]),
        ("GRPC_SUBSCRIPTION_IDLE", &["-1", "x"]),
        ("GRPC_TLS_CLIENT_CA", &["/nonexistent/x"]),
        ("MB_ENABLE_AUTH", &["x"]),
        ("PROMETHEUS_ENABLED", &["x"]),
        ("PROMETHEUS_HOST", &["a b"]),
        ("PROMETHEUS_PORT", &["x"]),
        ("PROMETHEUS_PREFIX", &["9a", "a-b"]),
        ("PROMETHEUS_SERVER_ID", &["host"]),
        ("PROMETHEUS_TOP_SUBJECTS", &["-1", "1001"]),
        ("INGEST_TIMESTAMP_FIELDS", &["a,,b", "a\nb", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"]),
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
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &["x", "http://h/?a=1"]),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &["x", "nats://h"]),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &["x", "http://h:0"]),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", &["http"]),
        ("OTEL_EXPORTER_OTLP_HEADERS", &["x", "a b=c", "content-length=1", "a=%C3%A9"]),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", &["0", "10s"]),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", &["zstd"]),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", &["/nonexistent/x", "/etc/hostname"]),
        ("OTEL_TRACES_EXPORTER", &["console"]),
        ("OTEL_METRICS_EXPORTER", &["prometheus"]),
        ("OTEL_METRIC_EXPORT_INTERVAL", &["0", "60s"]),
        ("OTEL_BSP_SCHEDULE_DELAY", &["0", "5s"]),
        ("OTEL_BSP_MAX_QUEUE_SIZE", &["0", "100000"]),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", &["0", "2049"]),
        ("OTEL_TRACES_SAMPLER", &["sometimes"]),
        ("OTEL_TRACES_SAMPLER_ARG", &["2"]),
        ("OTEL_SERVICE_NAME", &["a\nb"]),
        ("OTEL_RESOURCE_ATTRIBUTES", &["x", "a=%zz"]),
        ("OTEL_SDK_DISABLED", &["x"]),
        ("BACKUP_ENABLED", &["x"]),
        ("BACKUP_INTERVAL", &["0"]),
        ("BACKUP_RETENTION_DAYS", &["0"]),
        ("BACKUP_VERIFY_INTERVAL", &["-1", "x"]),
        ("BACKUP_ENCRYPTION_RECIPIENTS", &["x", "age1x", ","]),
        ("BACKUP_S3_BUCKET", &["ab", "Bucket", "a..b", "-ab", "a/b"]),
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
fn a_pipe_in_the_place_of_a_file_is_refused_without_waiting_for_its_writer() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let problems = load(&[("NATS_EXTRA_CONFIG", pipe.to_str().unwrap())]).unwrap_err();
    assert!(problems.list[0].rule.contains("not a regular file"), "{problems}");
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
