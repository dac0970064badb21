//! What counts where: our own server and one that others run, clusters, flags.

use super::*;
use crate::domain::Secret;

#[test]
fn strict_refuses_every_open_door() {
    assert_eq!(problems(&[("SECURITY_STRICT", "true")]).len(), 3);
    let with_metrics = problems(&[("SECURITY_STRICT", "true"), ("PROMETHEUS_ENABLED", "true")]);
    assert_eq!(with_metrics.len(), 4);
    let closed = load(&[
        ("SECURITY_STRICT", "true"),
        ("NATS_AUTH_ENABLED", "true"),
        ("NATS_AUTH_TOKEN", "t"),
        ("NATS_HTTP_HOST", "127.0.0.1"),
        ("PROMETHEUS_ENABLED", "true"),
        ("PROMETHEUS_HOST", "127.0.0.1"),
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
