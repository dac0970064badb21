//! What changes while the broker runs.

use async_nats::ConnectOptions;
use nix::sys::signal::{Signal, kill};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

use crate::security::{admits, is_healthy, with_tls};
use crate::support::*;

fn with_token(token: &str) -> ConnectOptions {
    ConnectOptions::with_token(token.into())
}

/// Waits until the log says so. A thread of its own writes it, which a busy machine may leave behind what is
/// seen elsewhere.
pub fn logged(broker: &Broker, words: &str) {
    wait_for(words, || broker.log().contains(words).then_some(()));
}

/// A broker that asks for a token in a file.
fn token_broker(version: &str) -> (Broker, std::path::PathBuf) {
    let mut broker = Broker::with_server(version);
    let file = broker.path("token");
    std::fs::write(&file, "first").unwrap();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_TOKEN_FILE", file.display()).start();
    (broker, file)
}

#[test]
fn a_new_token_is_taken_over_with_every_version_and_the_broker_stays_ready() {
    for version in ["2.10.26", "2.11.11", "2.12.8", "2.14.6", CURRENT] {
        let (mut broker, file) = token_broker(version);
        let server = broker.server_pid();
        std::fs::write(&file, "second").unwrap();
        broker.signal(Signal::SIGHUP);
        logged(&broker, "reloaded; changed: NATS_AUTH_TOKEN");
        assert!(admits(&broker, with_token("second")), "{version}");
        assert!(!admits(&broker, with_token("first")), "{version}");
        wait_for("our own connection is back", || (broker.state() == "ready").then_some(()));
        is_healthy(&broker);
        assert!(!broker.log().contains("async_nats"), "{version}: our own connections know better: {}", broker.log());
        kill(server, Signal::SIGKILL).unwrap();
        wait_for("another server", || (broker.restarts() == Some(1) && broker.state() == "ready").then_some(()));
        assert!(admits(&broker, with_token("second")), "{version}: after a restart");
        assert_eq!(broker.stop(), Some(0));
        assert!(!broker.log().contains("second"), "{version}: {}", broker.log());
    }
}

#[test]
fn settings_that_are_invalid_change_nothing() {
    let (broker, file) = token_broker(CURRENT);
    let settings = || broker.health()["checks"]["settings"].clone();
    assert!(settings().is_null());
    std::fs::write(&file, "").unwrap();
    broker.signal(Signal::SIGHUP);
    logged(&broker, "cannot reload, and the old configuration stays in force");
    wait_for("/health says so", || settings()["detail"].as_str()?.contains("NATS_AUTH_TOKEN").then_some(()));
    std::fs::write(&file, "first").unwrap();
    broker.signal(Signal::SIGHUP);
    wait_for("and that it is over", || settings().is_null().then_some(()));
    assert!(admits(&broker, with_token("first")));
    assert_eq!((broker.state().as_str(), broker.restarts()), ("ready", Some(0)));
}

#[test]
fn what_the_server_cannot_reload_is_named_and_the_old_configuration_stays() {
    let mut broker = Broker::new();
    let fragment = broker.path("extra.conf");
    std::fs::write(&fragment, "max_traced_msg_len: 10\n").unwrap();
    broker.set("NATS_EXTRA_CONFIG", fragment.display()).start();
    let before = std::fs::read_to_string(broker.path("run/nats.conf")).unwrap();
    // nats-server -t accepts it, a running nats-server does not.
    std::fs::write(&fragment, "disable_sublist_cache: true\n").unwrap();
    broker.signal(Signal::SIGHUP);
    logged(&broker, "cannot reload, and the old configuration stays in force");
    logged(&broker, "NoSublistCache");
    assert_eq!(std::fs::read_to_string(broker.path("run/nats.conf")).unwrap(), before);
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    wait_for("another server", || (broker.restarts() == Some(1) && broker.state() == "ready").then_some(()));
    // And one that no nats-server accepts is not even tried.
    std::fs::write(&fragment, "no_such_key: 5\n").unwrap();
    broker.signal(Signal::SIGHUP);
    logged(&broker, "nats-server would not accept it");
    // It names the operator's own file.
    logged(&broker, &format!("{}:1: unknown field", fragment.display()));
    assert!(!broker.log().contains("nats.conf.candidate"), "{}", broker.log());
    assert_eq!(std::fs::read_to_string(broker.path("run/nats.conf")).unwrap(), before);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_disk_of_nats_conf_without_room_is_named_with_the_way_out() {
    if !is_root() {
        return cannot_run("a_disk_of_nats_conf_without_room", "only root may mount");
    }
    let mut broker = Broker::new();
    let disk = Mounted::tmpfs(broker.path("run"), "64k");
    let file = broker.path("token");
    std::fs::write(&file, "first").unwrap();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_TOKEN_FILE", file.display()).start();
    let settings = || broker.health()["checks"]["settings"]["detail"].as_str().map(str::to_owned);
    disk.fill();
    std::fs::write(&file, "second").unwrap();
    broker.signal(Signal::SIGHUP);
    let told = wait_for("/health says so", settings);
    for part in
        ["cannot have nats-server check it: cannot write ", "/run/nats.conf.candidate: No space", "; make room there"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(admits(&broker, with_token("first")));
    // What stays refused stays told.
    broker.signal(Signal::SIGHUP);
    wait_for("refused again", || (broker.log().matches("cannot reload").count() == 2).then_some(()));
    assert!(settings().is_some());
    disk.make_room();
    broker.signal(Signal::SIGHUP);
    wait_for("/health says that it is over", || settings().is_none().then_some(()));
    assert!(admits(&broker, with_token("second")));
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_reload_brings_the_stream_back_as_it_should_be() {
    let mut broker = Broker::new();
    broker.start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let mut config = jetstream.info("MARKET_DATA").await["config"].clone();
        config["subjects"] = serde_json::json!(["trade-data.>"]);
        let changed = jetstream.ask("$JS.API.STREAM.UPDATE.MARKET_DATA", config).await;
        assert!(changed["error"].is_null(), "{changed}");
    });
    broker.signal(Signal::SIGHUP);
    logged(&broker, "reloaded; no variable had changed");
    wait_for("all families", || {
        let info = block_on(async { JetStream(broker.client().await).info("MARKET_DATA").await });
        (info["config"]["subjects"].as_array()?.len() == 8).then_some(())
    });
    assert_eq!(broker.restarts(), Some(0));
}

#[test]
fn certificates_that_change_on_disk_are_served_without_being_asked() {
    let (mut broker, _) = with_tls("127.0.0.1", 29);
    broker.start();
    let (_, authority) = with_tls("127.0.0.1", 29);
    authority.issue(broker.directory.path(), "server", "127.0.0.1", ServerAuth, 29);
    let ca = authority.write(broker.directory.path(), "new-ca.pem");
    let trusting = || ConnectOptions::new().require_tls(true).add_root_certificates(ca.clone());
    wait_for("the new certificate", || admits(&broker, trusting()).then_some(()));
    wait_for("ready", || (broker.state() == "ready").then_some(()));
    is_healthy(&broker);
    assert_eq!(broker.restarts(), Some(0));
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn an_authority_for_clients_that_changes_on_disk_is_taken_over() {
    let (mut broker, first) = with_tls("127.0.0.1", 29);
    let ca = first.write(broker.directory.path(), "ca.pem");
    broker.set("NATS_TLS_CA", ca.display()).set("NATS_TLS_VERIFY", "true").start();
    let (_, second) = with_tls("127.0.0.1", 29);
    second.issue(broker.directory.path(), "client", "collector", ClientAuth, 29);
    let server_ca = first.write(broker.directory.path(), "server-ca.pem");
    let [cert, key] = ["crt", "key"].map(|ending| broker.path(&format!("client.{ending}")));
    let options = || {
        let options = ConnectOptions::new().require_tls(true).add_root_certificates(server_ca.clone());
        options.add_client_certificate(cert.clone(), key.clone())
    };
    assert!(!admits(&broker, options()));
    second.write(broker.directory.path(), "ca.pem");
    wait_for("the new authority", || admits(&broker, options()).then_some(()));
    wait_for("ready", || (broker.state() == "ready").then_some(()));
    is_healthy(&broker);
    assert_eq!(broker.restarts(), Some(0));
}

#[test]
fn half_a_pair_of_files_changes_nothing() {
    let (mut broker, authority) = with_tls("127.0.0.1", 29);
    let ca = authority.write(broker.directory.path(), "ca.pem");
    broker.start();
    let key = std::fs::read(broker.path("server.key")).unwrap();
    authority.issue(broker.directory.path(), "server", "127.0.0.1", ServerAuth, 29);
    std::fs::write(broker.path("server.key"), key).unwrap();
    logged(&broker, "does not belong to the certificate");
    assert!(admits(&broker, ConnectOptions::new().require_tls(true).add_root_certificates(ca)));
    assert_eq!((broker.state().as_str(), broker.restarts()), ("ready", Some(0)));
}

#[test]
fn a_server_that_dies_during_a_reload_comes_back() {
    let (mut broker, file) = token_broker(CURRENT);
    for round in 0..5 {
        std::fs::write(&file, format!("token-{round}")).unwrap();
        broker.signal(Signal::SIGHUP);
        kill(broker.server_pid(), Signal::SIGKILL).unwrap();
        wait_for("ready with one token or the other", || {
            let up = broker.restarts() == Some(round + 1) && broker.state() == "ready";
            up.then_some(())
        });
        broker.signal(Signal::SIGHUP);
        wait_for("the new token", || admits(&broker, with_token(&format!("token-{round}"))).then_some(()));
        wait_for("ready", || (broker.state() == "ready").then_some(()));
    }
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

#[test]
fn what_nats_server_only_warns_of_is_valid_and_reloads() {
    let mut broker = Broker::new();
    let fragment = broker.path("extra.conf");
    let leaf = |seconds: u32| {
        let url = "nats-leaf://127.0.0.1:1";
        std::fs::write(&fragment, format!("leafnodes {{ remotes: [ {{ url: \"{url}\" }} ], reconnect: {seconds} }}\n"))
    };
    leaf(1).unwrap();
    broker.set("NATS_EXTRA_CONFIG", fragment.display());
    assert_eq!(broker.output(&["config", "validate"]).status.code(), Some(0));
    broker.start();
    broker.signal(Signal::SIGHUP);
    wait_for("it reloads", || broker.log().contains("reloaded; no variable had changed").then_some(()));
    assert!(!broker.log().contains("cannot reload"), "{}", broker.log());
    assert_eq!(broker.stop(), Some(0));
}
