//! A server that others run: found, provisioned, watched, never touched.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use serde_json::json;

use crate::bare::{BareServer, JETSTREAM, is_empty};
use crate::security::Authority;
use crate::support::*;

/// A broker of ours that serves it.
pub fn serving(server: &BareServer) -> Broker {
    let mut broker = Broker::new();
    broker.set("NATS_MODE", "external").set("NATS_URL", server.url()).set("HEALTH_PROBE_INTERVAL", "100ms");
    broker
}

pub fn until_state(broker: &Broker, state: &str, reason: &str) {
    wait_for(&format!("{state}: {reason}\n{}", broker.log()), || {
        let health = broker.health();
        let server = &health["checks"]["nats_server"];
        let told = server["reason"].as_str().unwrap_or_default();
        (server["state"] == state && told.contains(reason)).then_some(())
    });
}

pub fn command(broker: &Broker, arguments: &[&str]) -> (Option<i32>, String) {
    let output = broker.output(arguments);
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn streams_are_provisioned_on_every_version_and_nothing_is_spawned_or_written() {
    for version in ["2.10.26", "2.11.11", "2.12.8", "2.14.6", CURRENT] {
        let mut server = BareServer::new(version, JETSTREAM);
        server.start();
        let mut broker = serving(&server);
        broker.set("NATS_MONITOR_URL", format!("http://127.0.0.1:{}", server.ports.http)).start();
        let info = block_on(async { server.jetstream().await.info("MARKET_DATA").await });
        assert_eq!(info["config"]["subjects"].as_array().unwrap().len(), 8, "{version}: {info}");
        assert!(children_of(broker.pid()).is_empty(), "{version}");
        assert!(!broker.store().exists() && is_empty(&broker.path("run")), "{version}");
        for arguments in
            [&["health-check", "quick"][..], &["health-check", "full"], &["selftest"], &["streams", "check"]]
        {
            let (code, text) = command(&broker, arguments);
            assert_eq!(code, Some(0), "{version} {arguments:?}: {text}");
        }
        let (_, full) = command(&broker, &["health-check", "full"]);
        assert!(full.contains("ok    http"), "{version}: {full}");
        assert_eq!(broker.stop(), Some(0), "{version}: {}", broker.log());
        assert!(!broker.log().contains("did not stop in time"), "{version}: {}", broker.log());
        // It has not noticed that we were there.
        assert!(block_on(async { server.jetstream().await.info("MARKET_DATA").await })["error"].is_null());
    }
}

#[test]
fn a_server_that_comes_late_or_goes_away_is_waited_for() {
    let mut server = BareServer::new(CURRENT, JETSTREAM);
    let mut broker = serving(&server);
    broker.set("NATS_MAX_RECONNECT", "2").launch();
    until_state(&broker, "degraded", "it is tried again and again");
    server.start();
    until_state(&broker, "ready", "");
    for _ in 0..2 {
        server.kill();
        until_state(&broker, "degraded", "");
        // Until our own client has given up, too.
        wait_for("the connection is given up", || {
            broker.log().contains("connection to nats-server was lost").then_some(())
        });
        server.start();
        until_state(&broker, "ready", "");
    }
    assert_eq!((broker.restarts(), broker.stop()), (Some(0), Some(0)));
}

#[test]
fn what_comes_back_without_its_streams_gets_them_again() {
    let mut server = BareServer::new(CURRENT, JETSTREAM);
    server.start();
    let mut broker = serving(&server);
    broker.set("STREAMS_RECONCILE_INTERVAL", "0").start();
    server.kill();
    std::fs::remove_dir_all(server.store()).unwrap();
    server.start();
    wait_for("the stream is there again", || {
        let info = block_on(async { server.jetstream().await.info("MARKET_DATA").await });
        info["error"].is_null().then_some(())
    });
    until_state(&broker, "ready", "");
}

#[test]
fn a_server_that_hangs_is_told_and_left_alone() {
    let mut server = BareServer::new(CURRENT, JETSTREAM);
    server.start();
    let mut broker = serving(&server);
    broker.set("HEALTH_HANG_TIMEOUT", "1s").start();
    server.signal(Signal::SIGSTOP);
    until_state(&broker, "degraded", "does not serve: no answer");
    server.signal(Signal::SIGCONT);
    until_state(&broker, "ready", "");
    assert_eq!(broker.restarts(), Some(0));
}

#[test]
fn a_cluster_without_a_leader_is_told_until_it_has_one() {
    let mut nodes = [(); 3].map(|()| BareServer::new(CURRENT, ""));
    let routes = nodes.each_ref().map(|node| format!("\"nats://127.0.0.1:{}\"", node.ports.cluster)).join(", ");
    for (number, node) in nodes.iter_mut().enumerate() {
        let port = node.ports.cluster;
        let cluster = format!("cluster: {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}\n");
        node.configure(&format!("server_name: n{number}\n{JETSTREAM}{cluster}")).start();
    }
    let leader = wait_for("a leader", || {
        let (_, jsz) = http_get(&format!("http://127.0.0.1:{}/jsz", nodes[0].ports.http));
        let jsz: serde_json::Value = serde_json::from_str(&jsz).ok()?;
        jsz["meta_cluster"]["leader"].as_str()?.strip_prefix('n')?.parse::<usize>().ok()
    });
    // Another node misses the leader soon, while the leader itself waits for longer.
    let last = (leader + 1) % nodes.len();
    let mut broker = serving(&nodes[last]);
    broker.set("HEALTH_CHECK_ENABLED", "false").start();
    let mut away: Vec<_> = nodes.iter_mut().enumerate().filter(|(number, _)| *number != last).collect();
    away.iter_mut().for_each(|(_, node)| node.kill());
    until_state(&broker, "degraded", "JetStream system temporarily unavailable");
    away.iter_mut().for_each(|(_, node)| _ = node.start());
    until_state(&broker, "ready", "");
}

#[test]
fn a_password_for_the_monitoring_is_shown_to_nobody() {
    let mut server = BareServer::new(CURRENT, JETSTREAM);
    server.start();
    let mut broker = serving(&server);
    let monitor = format!("http://u:tell-nobody@127.0.0.1:{}", server.ports.cluster);
    broker.set("NATS_MONITOR_URL", monitor).launch();
    until_state(&broker, "degraded", "/healthz");
    let (_, full) = command(&broker, &["health-check", "full"]);
    assert!(full.contains("cannot reach"), "{full}");
    for text in [full, broker.health().to_string(), broker.log()] {
        assert!(!text.contains("tell-nobody"), "{text}");
    }
}

#[test]
fn what_an_examination_found_of_a_silent_server_is_looked_at_again_when_it_answers() {
    let mut server = BareServer::new(CURRENT, JETSTREAM);
    server.start();
    let mut broker = serving(&server);
    broker.set("HEALTH_CHECK_INTERVAL", "10").set("HEALTH_CHECK_TIMEOUT", "1").start();
    server.signal(Signal::SIGSTOP);
    until_state(&broker, "degraded", "does not serve: no answer");
    until_state(&broker, "degraded", "no result within 1 s");
    server.signal(Signal::SIGCONT);
    let back = Instant::now();
    until_state(&broker, "ready", "");
    assert!(back.elapsed() < Duration::from_secs(5), "{}", broker.log());
}

#[test]
fn of_several_urls_the_one_that_answers_serves() {
    let mut away = BareServer::new(CURRENT, JETSTREAM);
    let mut server = BareServer::new(CURRENT, JETSTREAM);
    server.start();
    let mut broker = serving(&server);
    broker.set("NATS_URL", "nats://nowhere.invalid:4222");
    broker.set("MARKETPRISM_NATS_URL", format!("{},{}", away.url(), server.url())).start();
    // And the other one once this one is gone.
    away.start();
    server.kill();
    wait_for("the other server serves", || {
        let info = block_on(async { away.jetstream().await.info("MARKET_DATA").await });
        info["error"].is_null().then_some(())
    });
    until_state(&broker, "ready", "");
}

#[test]
fn credentials_of_every_kind_let_us_in_and_wrong_ones_are_told() {
    let user = "authorization: { user: \"us er\", password: \"p:w@/d\" }\n";
    let token = "authorization: { token: \"t$ken\" }\n";
    for (conf, right, wrong) in [
        (user, [("NATS_AUTH_USERNAME", "us er"), ("NATS_AUTH_PASSWORD", "p:w@/d")], ("NATS_AUTH_PASSWORD", "wrong")),
        (token, [("NATS_AUTH_TOKEN", "t$ken"), ("LOG_LEVEL", "INFO")], ("NATS_AUTH_TOKEN", "wrong")),
    ] {
        let mut server = BareServer::new(CURRENT, &format!("{JETSTREAM}{conf}"));
        server.start();
        let mut broker = serving(&server);
        for (name, value) in right {
            broker.set(name, value);
        }
        broker.start();
        let (code, text) = command(&broker, &["selftest"]);
        assert_eq!(code, Some(0), "{text}");
        let mut stranger = serving(&server);
        for (name, value) in right {
            stranger.set(name, value);
        }
        stranger.set(wrong.0, wrong.1).launch();
        until_state(&stranger, "degraded", "uthorization");
        let (code, text) = command(&stranger, &["streams", "plan"]);
        assert_eq!(code, Some(69), "{text}");
        for log in [broker.log(), stranger.log(), text] {
            assert!(!log.contains("p:w@/d") && !log.contains("t$ken") && !log.contains("wrong"), "{log}");
        }
    }
    // In the URL, too.
    let mut server = BareServer::new(CURRENT, &format!("{JETSTREAM}{user}"));
    server.start();
    let mut broker = serving(&server);
    broker.set("NATS_URL", format!("nats://us%20er:p%3Aw%40%2Fd@127.0.0.1:{}", server.ports.nats)).start();
    assert!(!broker.log().contains("p%3Aw") && !broker.log().contains("p:w@/d"), "{}", broker.log());
}

#[test]
fn what_we_may_not_do_is_told_with_the_subject() {
    let conf = "authorization: { users: [ { user: u, password: p, permissions: {
        publish: { allow: [\"$JS.API.INFO\", \"$JS.API.STREAM.LIST\"] }, subscribe: \"_INBOX.>\" } } ] }\n";
    let mut server = BareServer::new(CURRENT, &format!("{JETSTREAM}{conf}"));
    server.start();
    let mut broker = serving(&server);
    broker.set("NATS_AUTH_USERNAME", "u").set("NATS_AUTH_PASSWORD", "p").launch();
    until_state(&broker, "degraded", "$JS.API.STREAM.CREATE.MARKET_DATA");
    until_state(&broker, "degraded", "grant it to the user that we connect as");
}

#[test]
fn drift_that_may_not_be_repaired_is_told() {
    let conf = "authorization: { users: [ { user: a, password: p }, { user: u, password: p, permissions: { publish: {
        deny: [\"$JS.API.STREAM.UPDATE.>\"] } } } ] }\n";
    let mut server = BareServer::new(CURRENT, &format!("{JETSTREAM}{conf}"));
    server.start();
    let mut broker = serving(&server);
    broker.set("NATS_AUTH_USERNAME", "u").set("NATS_AUTH_PASSWORD", "p").set("STREAMS_RECONCILE_INTERVAL", "1");
    broker.start();
    block_on(async {
        let administrator = async_nats::ConnectOptions::with_user_and_password("a".into(), "p".into());
        let client = JetStream(administrator.connect(server.url()).await.unwrap());
        let mut config = client.info("MARKET_DATA").await["config"].clone();
        config["description"] = "changed by somebody".into();
        config["max_msgs"] = 5.into();
        let answer = client.ask("$JS.API.STREAM.UPDATE.MARKET_DATA", config).await;
        assert!(answer["error"].is_null(), "{answer}");
    });
    let drift = || broker.health()["checks"]["drift"].clone();
    wait_for("it is told", || {
        let drift = drift();
        let detail = drift["detail"].as_str().unwrap_or_default();
        (drift["status"] == "warn" && detail.contains("MARKET_DATA")).then_some(())
    });
}

#[test]
fn what_may_not_be_looked_at_does_not_hide_the_rest() {
    let conf = "authorization: { users: [
        { user: u, password: p, permissions: { publish: { deny: [\"$JS.API.CONSUMER.LIST.MARKET_DATA\"] } } } ] }\n";
    let mut server = BareServer::new(CURRENT, &format!("{JETSTREAM}{conf}"));
    server.start();
    let mut broker = serving(&server);
    broker.set("NATS_AUTH_USERNAME", "u").set("NATS_AUTH_PASSWORD", "p").set("STREAMS_DEFAULTS", "market-data,broker");
    broker.start();
    let (code, text) = command(&broker, &["streams", "check", "--detailed", "--timeout", "1"]);
    assert_eq!((code, text.matches("ok  ").count()), (Some(1), 3), "{text}");
    assert!(text.contains("FAIL  MARKET_DATA") && text.contains("it cannot be looked at closer"), "{text}");
}

#[test]
fn commands_tell_what_they_may_not_do() {
    let conf = "authorization: { users: [ { user: u, password: p, permissions: {
        publish: \"nothing\", subscribe: \"_INBOX.>\" } } ] }\n";
    let mut server = BareServer::new(CURRENT, &format!("{JETSTREAM}{conf}"));
    server.start();
    let mut broker = serving(&server);
    broker.set("NATS_AUTH_USERNAME", "u").set("NATS_AUTH_PASSWORD", "p");
    for arguments in [
        &["streams", "plan"][..],
        &["streams", "check", "--timeout", "1"],
        &["streams", "apply", "--timeout", "2"],
        &["selftest", "--timeout", "1"],
        &["health-check", "jetstream", "--timeout", "2"],
    ] {
        let (code, text) = command(&broker, arguments);
        assert_ne!(code, Some(0), "{arguments:?}: {text}");
        assert!(text.contains("Permissions Violation for Publish to \"$JS.API."), "{arguments:?}: {text}");
    }
}

#[test]
fn a_server_without_jetstream_or_with_too_little_room_is_told() {
    let mut server = BareServer::new(CURRENT, "");
    server.start();
    let mut broker = serving(&server);
    broker.launch();
    until_state(&broker, "degraded", "JetStream");
    // It gets JetStream, but hardly any room.
    server.kill();
    server.configure("jetstream: { store_dir: \"STORE\", max_file: 1048576 }\n").start();
    until_state(&broker, "degraded", "insufficient storage");
    server.kill();
    server.configure(JETSTREAM).start();
    until_state(&broker, "ready", "");
}

/// A bare server that speaks TLS with a certificate of `authority`, and asks for one if `verify`.
fn with_tls(authority: &Authority, verify: bool) -> BareServer {
    let mut server = BareServer::new(CURRENT, JETSTREAM);
    let directory = server.directory.path().to_owned();
    authority.issue(&directory, "server", "127.0.0.1", ServerAuth, 29);
    authority.issue(&directory, "ours", "unified-nats", ClientAuth, 29);
    authority.write(&directory, "ca.pem");
    let path = |name: &str| directory.join(name).display().to_string();
    let (cert, key, ca) = (path("server.crt"), path("server.key"), path("ca.pem"));
    let tls = format!("tls: {{ cert_file: \"{cert}\", key_file: \"{key}\", ca_file: \"{ca}\", verify: {verify} }}\n");
    server.configure(&format!("{JETSTREAM}{tls}")).start();
    server
}

#[test]
fn tls_is_verified_with_the_authorities_named_and_certificates_are_shown() {
    let authority = Authority::new();
    let server = with_tls(&authority, true);
    let mut broker = serving(&server);
    broker.set("NATS_TLS_CA", server.path("ca.pem").display());
    broker.set("NATS_TLS_CLIENT_CERT", server.path("ours.crt").display());
    broker.set("NATS_TLS_CLIENT_KEY", server.path("ours.key").display()).start();
    let (code, text) = command(&broker, &["selftest"]);
    assert_eq!(code, Some(0), "{text}");
    // Without a certificate of ours, and without trust in its authority.
    let mut without = serving(&server);
    without.set("NATS_TLS_CA", server.path("ca.pem").display()).launch();
    until_state(&without, "degraded", "cannot connect");
    let mut stranger = serving(&with_tls(&Authority::new(), false));
    stranger.set("NATS_URL", server.url()).launch();
    until_state(&stranger, "degraded", "cannot connect");
}

#[test]
fn a_server_that_speaks_no_tls_is_no_server_where_tls_is_asked_for() {
    let mut server = BareServer::new(CURRENT, JETSTREAM);
    server.start();
    let mut broker = serving(&server);
    broker.set("NATS_TLS_ENABLED", "true").launch();
    until_state(&broker, "degraded", "cannot connect");
}

#[test]
fn websockets_lead_there_as_well() {
    let mut server = BareServer::new(CURRENT, "");
    let port = server.ports.api;
    server.configure(&format!("{JETSTREAM}websocket: {{ listen: \"127.0.0.1:{port}\", no_tls: true }}\n")).start();
    let mut broker = serving(&server);
    broker.set("NATS_URL", format!("ws://127.0.0.1:{port}")).start();
    for arguments in [&["health-check", "quick"][..], &["selftest"]] {
        let (code, text) = command(&broker, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
    }
}

/// An operator, an account with JetStream and a user of it, as nats-server's memory resolver takes them.
struct Decentral {
    conf: String,
    credentials: String,
}

impl Decentral {
    fn new() -> Self {
        let (operator, user) = (nkeys::KeyPair::new_operator(), nkeys::KeyPair::new_user());
        let [account, system] = [(); 2].map(|()| nkeys::KeyPair::new_account());
        let jetstream = json!({ "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1 });
        let mut limits = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1, "wildcards": true });
        limits.as_object_mut().unwrap().extend(jetstream.as_object().unwrap().clone());
        let of_operator = jwt(&operator, &operator, "op", json!({ "type": "operator", "version": 2 }));
        let of_account = jwt(&operator, &account, "acc", json!({ "type": "account", "version": 2, "limits": limits }));
        let of_system = jwt(&operator, &system, "sys", json!({ "type": "account", "version": 2 }));
        let nats = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {} });
        let of_user = jwt(&account, &user, "us", nats);
        let conf = format!(
            "operator: \"{of_operator}\"\nsystem_account: {sys}\nresolver: MEMORY\n\
             resolver_preload: {{ {}: \"{of_account}\", {sys}: \"{of_system}\" }}\n",
            account.public_key(),
            sys = system.public_key()
        );
        let seed = user.seed().unwrap();
        let credentials = format!(
            "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        Self { conf, credentials }
    }
}

/// A token of NATS: its claims about `subject`, signed by `issuer`.
fn jwt(issuer: &nkeys::KeyPair, subject: &nkeys::KeyPair, name: &str, nats: serde_json::Value) -> String {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
    let claims = json!({
        "jti": "x", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": name,
        "sub": subject.public_key(), "nats": nats,
    });
    let header = BASE64.encode(json!({ "typ": "JWT", "alg": "ed25519-nkey" }).to_string());
    let body = format!("{header}.{}", BASE64.encode(claims.to_string()));
    let signature = BASE64.encode(issuer.sign(body.as_bytes()).unwrap());
    format!("{body}.{signature}")
}

#[test]
fn a_credentials_file_lets_us_in_and_a_new_one_is_taken_over() {
    let (first, second) = (Decentral::new(), Decentral::new());
    let mut server = BareServer::new(CURRENT, &format!("{JETSTREAM}{}", first.conf));
    server.start();
    let mut broker = serving(&server);
    let file = broker.path("user.creds");
    std::fs::write(&file, &first.credentials).unwrap();
    broker.set("NATS_CREDS_FILE", file.display()).start();
    let (code, text) = command(&broker, &["selftest"]);
    assert_eq!(code, Some(0), "{text}");
    // The server trusts another operator, and the file is written anew: nobody tells us.
    server.kill();
    std::fs::remove_dir_all(server.store()).unwrap();
    server.configure(&format!("{JETSTREAM}{}", second.conf)).start();
    until_state(&broker, "degraded", "");
    std::fs::write(&file, &second.credentials).unwrap();
    until_state(&broker, "ready", "");
    assert!(!broker.log().contains("eyJ0"), "{}", broker.log());
}

#[test]
fn another_server_is_taken_over_by_a_reload() {
    let (mut first, mut second) = (BareServer::new(CURRENT, JETSTREAM), BareServer::new(CURRENT, JETSTREAM));
    first.start();
    second.start();
    let mut broker = serving(&first);
    let file = broker.path("settings.yml");
    let write = |server: &BareServer| {
        std::fs::write(&file, format!("nats_client: {{nats_url: \"{}\"}}\n", server.url())).unwrap();
    };
    write(&first);
    broker.set("NATS_URL", "").set("NATS_MODE", "").set("CONFIG_FILE", file.display()).start();
    write(&second);
    broker.signal(Signal::SIGHUP);
    wait_for("reloaded", || broker.log().contains("reloaded; changed: NATS_URL").then_some(()));
    wait_for("the streams are there", || {
        let info = block_on(async { second.jetstream().await.info("MARKET_DATA").await });
        info["error"].is_null().then_some(())
    });
    until_state(&broker, "ready", "");
    wait_for("ready names the other server", || {
        let ready = |line: &str| line.contains("\"message\":\"ready\"") && line.contains(&second.url());
        broker.log().lines().any(ready).then_some(())
    });
}

#[test]
fn authorities_of_monitoring_are_taken_over_by_a_reload() {
    let (right, wrong) = (Authority::new(), Authority::new());
    let mut server = BareServer::new(CURRENT, "");
    right.issue(server.directory.path(), "server", "localhost", ServerAuth, 20);
    let (cert, key, port) = (server.path("server.crt"), server.path("server.key"), server.ports.cluster);
    // HTTPS needs certificates, which clients need not use.
    let tls = format!("tls {{ cert_file: {cert:?}, key_file: {key:?} }}\nallow_non_tls: true\n");
    server.configure(&format!("{JETSTREAM}https: \"127.0.0.1:{port}\"\n{tls}")).start();
    let mut broker = serving(&server);
    let authorities = wrong.write(broker.directory.path(), "ca.pem");
    broker.set("NATS_MONITOR_URL", format!("https://localhost:{port}")).set("NATS_TLS_CA", authorities.display());
    broker.set("HEALTH_CHECK_INTERVAL", "100ms").launch();
    until_state(&broker, "degraded", "https://localhost");
    right.write(broker.directory.path(), "ca.pem");
    broker.signal(Signal::SIGHUP);
    until_state(&broker, "ready", "");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn there_is_no_configuration_to_render_for_it() {
    let broker = serving(&BareServer::new(CURRENT, ""));
    let (code, text) = command(&broker, &["config", "render"]);
    assert!(code == Some(1) && text.contains("NATS_MODE=external"), "{text}");
    let (code, text) = command(&broker, &["config", "validate"]);
    assert!(code == Some(0) && text.contains("valid"), "{text}");
}
