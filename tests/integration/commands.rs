//! Commands against a broker that runs, and without one.

use serde_json::Value;

use crate::support::*;

fn json(broker: &Broker, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = broker.output(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}")))
}

const KINDS: [&str; 7] = ["quick", "full", "connectivity", "http", "jetstream", "stream", "datatypes"];

#[test]
fn every_health_check_passes_on_a_sound_broker_and_fails_without_one() {
    let mut broker = Broker::new();
    for kind in KINDS {
        let (code, report) = json(&broker, &["health-check", kind, "--json"]);
        assert_eq!((code, &report["healthy"]), (Some(1), &Value::Bool(false)), "{kind}");
    }
    broker.start();
    for kind in KINDS {
        let (code, report) = json(&broker, &["health-check", kind, "--json"]);
        assert_eq!((code, &report["healthy"]), (Some(0), &Value::Bool(true)), "{kind}: {report}");
        assert!(!report["checks"].as_array().unwrap().is_empty());
        let output = broker.output(&["health-check", kind]);
        assert!(String::from_utf8(output.stdout).unwrap().ends_with("healthy\n"));
    }
}

#[test]
fn checks_see_a_stream_that_is_gone_or_lost_a_family() {
    let mut broker = Broker::new();
    // The broker itself would mend or report it; here only the command looks.
    broker.set("HEALTH_CHECK_ENABLED", "false").start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let mut config = jetstream.info("MARKET_DATA").await["config"].clone();
        config["subjects"].as_array_mut().unwrap().remove(1);
        jetstream.ask("$JS.API.STREAM.UPDATE.MARKET_DATA", config).await;
    });
    let output = broker.output(&["health-check", "datatypes"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("does not capture trade-data.>"), "{text}");
    assert_eq!(broker.output(&["health-check", "stream"]).status.code(), Some(0));
    block_on(async { JetStream(broker.client().await).ask("$JS.API.STREAM.DELETE.MARKET_DATA", Value::Null).await });
    assert_eq!(broker.output(&["health-check", "stream"]).status.code(), Some(1));
    assert_eq!(broker.output(&["health-check", "jetstream"]).status.code(), Some(0));
}

#[test]
fn a_server_that_hangs_fails_the_check_in_time() {
    let mut broker = Broker::new();
    broker.start();
    let server = broker.server_pid();
    nix::sys::signal::kill(server, nix::sys::signal::Signal::SIGSTOP).unwrap();
    for kind in KINDS {
        let output = broker.output(&["health-check", kind, "--timeout", "300ms"]);
        assert_eq!(output.status.code(), Some(1), "{kind}");
    }
}

#[test]
fn without_monitoring_health_uses_nats() {
    let mut broker = Broker::new();
    broker.set("MONITORING_ENABLED", "false").set("HEALTH_CHECK_INTERVAL", "50ms").start();
    for kind in KINDS {
        assert_eq!(broker.output(&["health-check", kind]).status.code(), Some(0), "{kind}");
    }
    assert_eq!(http_get(&format!("http://127.0.0.1:{}/healthz", broker.ports.http)).0, 0);
    wait_for("the periodic check passes", || {
        (broker.health()["checks"]["jetstream"]["status"] == "pass").then_some(())
    });
}

#[test]
fn rendered_and_validated() {
    let mut broker = Broker::new();
    let file = broker.path("out.conf");
    let output = broker.output(&["config", "render", "--output", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(&format!("port: {}", broker.ports.nats)));
    let shown = String::from_utf8(broker.output(&["config", "render"]).stdout).unwrap();
    assert_eq!(shown, text, "there is no secret to redact");

    let (code, verdict) = json(&broker, &["config", "validate", "--json"]);
    assert_eq!((code, &verdict["nats_server"]["accepted"]), (Some(0), &Value::Bool(true)), "{verdict}");

    // nats-server knows what we do not: it refuses the fragment.
    let fragment = broker.path("extra.conf");
    std::fs::write(&fragment, "no_such_key: 5\n").unwrap();
    broker.set("NATS_EXTRA_CONFIG", fragment.display());
    let (code, verdict) = json(&broker, &["config", "validate", "--json"]);
    assert_eq!(code, Some(78), "{verdict}");
    assert!(verdict["nats_server"]["answer"].as_str().unwrap().contains("no_such_key"), "{verdict}");

    std::fs::write(&fragment, "port: 5\n").unwrap();
    let (code, verdict) = json(&broker, &["config", "validate", "--json"]);
    assert_eq!((code, &verdict["problems"][0]["variable"]), (Some(78), &"NATS_EXTRA_CONFIG".into()));
    assert_eq!(broker.output(&["run"]).status.code(), Some(78));
    assert!(!broker.store().exists(), "nothing is written for a fragment that is refused");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let broker = Broker::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = broker.command(&["config", "show"]).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

/// A disk that is full.
fn full() -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap()
}

#[test]
fn an_answer_that_cannot_be_written_is_no_success() {
    let broker = Broker::new();
    let commands: [&[&str]; 4] =
        [&["config", "show"], &["config", "render"], &["config", "reference", "--env"], &["completions", "bash"]];
    for arguments in commands {
        let output = broker.command(arguments).stdout(full()).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complaint}");
        assert!(complaint.starts_with("cannot write all of the answer: No space left"), "{arguments:?}: {complaint}");
    }
}

#[test]
fn a_complaint_that_cannot_be_written_changes_no_exit_code() {
    let mut broker = Broker::new();
    let code = |broker: &Broker, arguments: &[&str]| broker.command(arguments).stderr(full()).status().unwrap().code();
    assert_eq!(code(&broker, &["streams", "check", "--timeout", "1s"]), Some(69));
    broker.set("NATS_PORT", "x");
    for arguments in [&["run"][..], &["config", "validate"], &["health-check"]] {
        assert_eq!(code(&broker, arguments), Some(78), "{arguments:?}");
    }
}

#[test]
fn a_proxy_of_the_environment_is_not_asked() {
    let mut broker = Broker::new();
    broker.set("http_proxy", "http://127.0.0.1:9").set("HTTP_PROXY", "http://127.0.0.1:9").start();
    let output = broker.output(&["health-check", "full"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_missing_server_fails_validation_with_69() {
    let mut broker = Broker::new();
    broker.set("NATS_SERVER_BIN", "/nonexistent/nats-server");
    assert_eq!(broker.output(&["config", "validate"]).status.code(), Some(69));
}

#[test]
fn the_effective_settings_tell_where_they_come_from() {
    let mut broker = Broker::new();
    broker.set("APP_ENV", "staging");
    let (_, entries) = json(&broker, &["--log-level", "debug", "config", "show", "--json"]);
    let entry = |name: &str| entries.as_array().unwrap().iter().find(|e| e["name"] == name).unwrap().clone();
    assert_eq!(entry("NATS_PORT")["origin"], "environment");
    assert_eq!(entry("STREAM_NAME")["origin"], "default");
    assert_eq!(entry("ENVIRONMENT")["origin"], "environment (APP_ENV)");
    assert_eq!(entry("LOG_LEVEL")["origin"], "command line");
}

#[test]
fn version_help_and_completions() {
    let broker = Broker::new();
    let text = |arguments: &[&str]| String::from_utf8(broker.output(arguments).stdout).unwrap();
    let version = text(&["--version"]);
    assert!(version.starts_with(concat!("unified-nats ", env!("CARGO_PKG_VERSION"), " (")), "{version}");
    for command in [&["--help"][..], &["run", "--help"], &["health-check", "--help"], &["config", "--help"]] {
        assert!(text(command).contains("Usage:"), "{command:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&["completions", shell]).contains("health-check"), "{shell}");
    }
}

#[test]
fn old_names_work() {
    use std::os::unix::fs::symlink;
    let mut broker = Broker::new();
    for name in ["health_check", "health_check.sh", "config_renderer.py", "python3"] {
        symlink(PROGRAM, broker.path(name)).unwrap();
    }
    broker.start();
    let run = |name: &str, arguments: &[&str]| {
        broker.command_of(broker.path(name), arguments).output().unwrap().status.code()
    };
    assert_eq!(run("health_check", &["full"]), Some(0));
    assert_eq!(run("health_check.sh", &[]), Some(0));
    assert_eq!(run("config_renderer.py", &["--validate"]), Some(0));
    assert_eq!(run("python3", &["/app/scripts/config_renderer.py", "--summary"]), Some(0));
    assert_eq!(run("python3", &["-c", "print(1)"]), Some(64));
}

#[test]
fn who_talks_to_a_broker_needs_no_rights_to_its_files() {
    use std::os::unix::process::CommandExt;
    if !is_root() {
        return cannot_run("who_talks_to_a_broker", "another user needs root");
    }
    let (mut broker, _authority) = crate::security::with_tls("localhost", 20);
    std::fs::set_permissions(broker.path("server.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (fragment, log) = (broker.path("extra.conf"), broker.path("logs/nats.log"));
    std::fs::write(&fragment, "ping_max: 3\n").unwrap();
    std::fs::set_permissions(&fragment, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    broker.set("NATS_LOG_FILE", log.display()).start();
    broker.set("NATS_EXTRA_CONFIG", fragment.display());
    let as_somebody = |arguments: &[&str]| {
        let mut command = broker.command(arguments);
        command.uid(1001).gid(1001).current_dir("/").output().unwrap()
    };
    for arguments in [&["health-check", "quick"][..], &["health-check", "full"], &["selftest"], &["streams", "check"]] {
        let output = as_somebody(arguments);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {text}");
    }
    // Whether a broker could run is another question.
    for arguments in [&["config", "validate"][..], &["run"]] {
        let output = as_somebody(arguments);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(text.contains("JETSTREAM_STORE_DIR") && text.contains("NATS_EXTRA_CONFIG"), "{text}");
    }
}

/// What is set may be looked at by who has no rights on the broker's files.
#[test]
fn what_is_set_is_shown_to_another_user() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if !is_root() {
        return cannot_run("what_is_set_is_shown_to_another_user", "only root may become somebody else");
    }
    let mut broker = Broker::new();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(broker.directory.path(), 0o755);
    // Neither may the program be out of reach.
    let program = broker.path("program");
    std::fs::copy(env!("CARGO_BIN_EXE_unified-nats"), &program).unwrap();
    std::fs::create_dir_all(broker.store()).unwrap();
    open(&broker.store(), 0o700);
    let secret = |name: &str, text: &str| {
        let path = broker.path(name);
        std::fs::write(&path, text).unwrap();
        open(&path, 0o600);
        path
    };
    let (token, users) =
        (secret("token", "tell-nobody"), secret("users.yml", "users: [{user: a, password: tell-nobody}]"));
    let (fragment, key) = (secret("extra.conf", "server_tags: [x]"), secret("tls.key", ""));
    let authority = crate::security::Authority::new();
    authority.issue(broker.directory.path(), "tls", "x", rcgen::ExtendedKeyUsagePurpose::ServerAuth, 20);
    open(&key, 0o600);
    open(&broker.path("tls.crt"), 0o644);
    let as_nobody = |broker: &Broker, arguments: &[&str]| {
        let output = broker.command_of(&program, arguments).uid(65534).gid(65534).current_dir("/").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // The store, a key: nats.conf names them, and that is all.
    let cert = broker.path("tls.crt");
    broker.set("NATS_TLS_ENABLED", "true").set("NATS_TLS_CERT", cert.display()).set("NATS_TLS_KEY", key.display());
    for arguments in [&["config", "show"][..], &["config", "show", "--json"], &["config", "render"]] {
        let (code, shown, warnings) = as_nobody(&broker, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {warnings}");
        assert!(shown.contains(&key.display().to_string()), "{shown}");
        assert!(warnings.contains("for this user") && warnings.contains("JETSTREAM_STORE_DIR"), "{warnings}");
    }
    // Files whose content nats.conf holds.
    for (variable, path) in
        [("NATS_EXTRA_CONFIG", &fragment), ("NATS_USERS_FILE", &users), ("NATS_AUTH_TOKEN_FILE", &token)]
    {
        broker.set("NATS_AUTH_ENABLED", variable != "NATS_EXTRA_CONFIG").set(variable, path.display());
        let (code, _, warnings) = as_nobody(&broker, &["config", "show"]);
        assert_eq!(code, Some(0), "{variable}: {warnings}");
        assert!(warnings.contains(&format!("{variable}: cannot use")), "{variable}: {warnings}");
        let (code, shown, warnings) = as_nobody(&broker, &["config", "render"]);
        assert_eq!((code, shown.as_str()), (Some(78), ""), "{variable}: {warnings}");
        assert!(warnings.contains("run this as the broker's user"), "{variable}: {warnings}");
        broker.set(variable, "");
    }
    broker.set("NATS_AUTH_ENABLED", "false");
    // Whether a broker could run is another question, and what is wrong for everybody stays wrong.
    assert_eq!(as_nobody(&broker, &["config", "validate"]).0, Some(78));
    let written = broker.path("written.conf").display().to_string();
    assert_eq!(as_nobody(&broker, &["config", "render", "--output", &written]).0, Some(78));
    broker.set("NATS_PORT", "x");
    assert_eq!(as_nobody(&broker, &["config", "show"]).0, Some(78));
}
