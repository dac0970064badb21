//! Alerts of every kind that a broker can be brought to: each comes once, is told to be over, and a supervisor
//! that takes over neither repeats nor forgets it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::cluster::{nodes_of, start_in_order};
use crate::metrics::{scrape, value};
use crate::receivers::Webhook;
use crate::reload::logged;
use crate::security::with_tls;
use crate::storage::filled;
use crate::support::*;

fn tell(broker: &mut Broker, webhook: &Webhook) {
    broker.set("ALERT_WEBHOOK_URL", webhook.url("t")).set("ALERT_MIN_INTERVAL", "0");
    broker.set("HEALTH_CHECK_INTERVAL", "200ms");
}

/// What was told of that kind: what it was about, and whether it is over.
fn of_kind(webhook: &Webhook, kind: &str) -> Vec<(String, String)> {
    let text = |body: &Value, key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let bodies = webhook.bodies().into_iter().filter(|body| body["of"] == kind);
    bodies.map(|body| (text(&body, "object"), text(&body, "status"))).collect()
}

fn once(object: &str) -> Vec<(String, String)> {
    ["firing", "resolved"].map(|status| (object.to_owned(), status.to_owned())).to_vec()
}

/// Kills the supervisor once it has noted that the alert was taken.
fn kill_supervisor(broker: &mut Broker, kind: &str) {
    let record = broker.store().join(".unified-nats-alerts.json");
    wait_for("it is written down", || {
        let text = std::fs::read_to_string(&record).unwrap_or_default();
        (text.contains(&format!("\"{kind}\"")) && text.contains(r#""waiting":{"webhook":[]}"#)).then_some(())
    });
    broker.signal(Signal::SIGKILL);
    broker.wait();
}

#[test]
fn a_server_that_hung_is_told_once_and_so_is_its_recovery() {
    let webhook = Webhook::start();
    let mut broker = Broker::new();
    tell(&mut broker, &webhook);
    broker.set("HEALTH_PROBE_INTERVAL", "50ms").set("HEALTH_HANG_TIMEOUT", "1s").start();
    kill(broker.server_pid(), Signal::SIGSTOP).unwrap();
    let told = webhook.wait_for_kind("hung", "hung");
    assert_eq!(told["severity"], "critical", "{told}");
    let over = webhook.wait_for_kind("recovered", "hung");
    assert_eq!(over["fingerprint"], told["fingerprint"]);
    // Again, and the supervisor goes before it is over.
    kill(broker.server_pid(), Signal::SIGSTOP).unwrap();
    wait_for("it is told again", || (of_kind(&webhook, "hung").len() == 3).then_some(()));
    kill_supervisor(&mut broker, "hung");
    broker.start();
    wait_for("it is over", || (of_kind(&webhook, "hung").len() == 4).then_some(()));
    assert_eq!(broker.stop(), Some(0));
    assert_eq!(of_kind(&webhook, "hung"), [once(""), once("")].concat());
}

#[test]
fn storage_that_is_nearly_used_up_is_told_until_there_is_room() {
    let webhook = Webhook::start();
    let mut broker = Broker::new();
    tell(&mut broker, &webhook);
    broker.set("JETSTREAM_MAX_FILE", "2MB").set("STREAM_MAX_BYTES", "2MB").set("ALERT_DISK_RATIO", "0.5");
    broker.start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        for _ in 0..24 {
            jetstream.publish(SUBJECTS[1], &"x".repeat(48 * 1024)).await;
        }
    });
    let told = webhook.wait_for_kind("store_full", "store_full");
    assert_eq!((&told["object"], &told["severity"]), (&"storage".into(), &"warning".into()), "{told}");
    kill_supervisor(&mut broker, "store_full");
    broker.start();
    block_on(async { JetStream(broker.client().await).ask("$JS.API.STREAM.PURGE.MARKET_DATA", json!({})).await });
    webhook.wait_for_kind("recovered", "store_full");
    assert_eq!(broker.stop(), Some(0));
    assert_eq!(of_kind(&webhook, "store_full"), once("storage"));
}

#[test]
fn a_disk_that_is_full_is_told_until_it_can_be_written() {
    const TEST: &str = "a_disk_that_is_full_is_told_until_it_can_be_written";
    if !is_root() {
        return cannot_run(TEST, "mounting a small file system needs root");
    }
    let webhook = Webhook::start();
    let mut broker = Broker::new();
    tell(&mut broker, &webhook);
    let store = Mounted::tmpfs(broker.store(), "48m");
    filled(&mut broker, &store);
    let told = webhook.wait_for_kind("store_full", "store_full");
    assert_eq!((&told["object"], &told["severity"]), (&"disk".into(), &"critical".into()), "{told}");
    store.make_room();
    webhook.wait_for_kind("recovered", "store_full");
    broker.wait_until_ready();
    assert_eq!(broker.stop(), Some(0));
    assert_eq!(of_kind(&webhook, "store_full"), once("disk"));
}

#[test]
fn a_file_that_was_not_taken_over_is_drift_until_it_is() {
    let webhook = Webhook::start();
    let mut broker = Broker::new();
    tell(&mut broker, &webhook);
    let file = broker.path("streams.yml");
    let declare =
        |most: u32| std::fs::write(&file, format!("streams: {{S: {{subjects: [s], max_msgs: {most}}}}}")).unwrap();
    declare(10);
    broker.set("STREAMS_FILE", file.display()).set("STREAMS_RECONCILE_INTERVAL", "1").start();
    declare(20);
    let told = webhook.wait_for_kind("stream_drift", "stream_drift");
    broker.signal(Signal::SIGHUP);
    let over = webhook.wait_for_kind("recovered", "stream_drift");
    assert_eq!(over["fingerprint"], told["fingerprint"]);
    declare(30);
    wait_for("it is told again", || (of_kind(&webhook, "stream_drift").len() == 3).then_some(()));
    kill_supervisor(&mut broker, "stream_drift");
    // Who starts reads the file.
    broker.start();
    wait_for("it is over", || (of_kind(&webhook, "stream_drift").len() == 4).then_some(()));
    assert_eq!(broker.stop(), Some(0));
    assert_eq!(of_kind(&webhook, "stream_drift"), [once(""), once("")].concat());
}

#[test]
fn a_stream_that_cannot_become_as_declared_is_told_until_it_can() {
    let webhook = Webhook::start();
    let mut broker = Broker::new();
    tell(&mut broker, &webhook);
    let file = broker.path("streams.yml");
    let declare = |storage: &str| {
        std::fs::write(&file, format!("streams: {{S: {{subjects: [s], storage: {storage}}}}}")).unwrap()
    };
    declare("file");
    broker.set("STREAMS_FILE", file.display()).start();
    assert_eq!(broker.stop(), Some(0));
    declare("memory");
    broker.start();
    let told = webhook.wait_for_kind("stream_conflict", "stream_conflict");
    assert_eq!((&told["object"], &told["severity"]), (&"S".into(), &"warning".into()), "{told}");
    kill_supervisor(&mut broker, "stream_conflict");
    broker.start();
    wait_for("it is looked at again", || {
        (value(&scrape(&broker), "unified_nats_stream_conflicts") == Some(1.0)).then_some(())
    });
    declare("file");
    broker.signal(Signal::SIGHUP);
    webhook.wait_for_kind("recovered", "stream_conflict");
    assert_eq!(broker.stop(), Some(0));
    assert_eq!(of_kind(&webhook, "stream_conflict"), once("S"));
}

#[test]
fn certificates_that_expire_are_told_until_others_are_in_place() {
    const DAY: f64 = 86_400.0;
    let webhook = Webhook::start();
    let (mut broker, authority) = with_tls("127.0.0.1", 5);
    tell(&mut broker, &webhook);
    let ca = broker.path("clients.pem");
    let vouch = |days: u64| {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let now = std::time::SystemTime::now();
        let span = Duration::from_secs(days * 86_400);
        (params.not_before, params.not_after) = ((now - span).into(), (now + span).into());
        std::fs::write(&ca, params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()).unwrap();
    };
    vouch(2);
    broker.set("NATS_TLS_CA", ca.display()).start();
    let cert = broker.path("server.crt").display().to_string();
    let ca = ca.display().to_string();
    let severity = |object: &str| {
        wait_for(&format!("{object} is told"), || {
            let bodies = webhook.bodies();
            let told = bodies.iter().find(|body| body["kind"] == "cert_expiring" && body["object"] == *object)?;
            told["severity"].as_str().map(str::to_owned)
        })
    };
    assert_eq!((severity(&cert).as_str(), severity(&ca).as_str()), ("warning", "critical"));
    let left = |file: &str| {
        wait_for("the metric is there", || {
            value(&scrape(&broker), &format!("unified_nats_tls_cert_expiry_seconds{{file=\"{file}\"}}"))
        })
    };
    assert!((4.9 * DAY..=5.0 * DAY).contains(&left(&cert)) && (1.9 * DAY..=2.0 * DAY).contains(&left(&ca)));
    kill_supervisor(&mut broker, "cert_expiring");
    broker.start();
    authority.issue(broker.directory.path(), "server", "127.0.0.1", rcgen::ExtendedKeyUsagePurpose::ServerAuth, 29);
    vouch(100);
    broker.signal(Signal::SIGHUP);
    for file in [&cert, &ca] {
        wait_for("it is over", || {
            of_kind(&webhook, "cert_expiring").contains(&(file.clone(), "resolved".into())).then_some(())
        });
    }
    assert_eq!(broker.stop(), Some(0));
    let told = of_kind(&webhook, "cert_expiring");
    for file in [&cert, &ca] {
        let of_file: Vec<_> = told.iter().filter(|(object, _)| object == file).cloned().collect();
        assert_eq!(of_file, once(file));
    }
}

#[test]
fn a_port_for_metrics_that_is_open_is_told_and_strict_settings_refuse_it() {
    let webhook = Webhook::start();
    let mut broker = Broker::new();
    tell(&mut broker, &webhook);
    let port = broker.ports.cluster;
    broker.set("PROMETHEUS_ENABLED", "true").set("PROMETHEUS_HOST", "0.0.0.0").set("PROMETHEUS_PORT", port).start();
    let told = webhook.wait_for_kind("insecure", "insecure");
    assert_eq!(told["object"], "metrics");
    logged(&broker, "the port for metrics answers anybody");
    assert_eq!(value(&scrape(&broker), "unified_nats_insecure{what=\"metrics\"}"), Some(1.0));
    assert_eq!(broker.stop(), Some(0));
    broker.set("SECURITY_STRICT", "true").set("NATS_HTTP_HOST", "127.0.0.1");
    let refused = broker.output(&["run"]);
    let text = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{text}");
    assert!(text.contains("SECURITY_STRICT") && text.contains("PROMETHEUS_HOST=127.0.0.1"), "{text}");
    broker.set("PROMETHEUS_HOST", "127.0.0.1").start();
    webhook.wait_for_kind("recovered", "insecure");
    assert_eq!(broker.stop(), Some(0));
    assert_eq!(of_kind(&webhook, "insecure"), once("metrics"));
}

#[test]
fn of_a_cluster_the_node_that_leads_the_stream_tells_of_a_silent_family() {
    let webhook = Webhook::start();
    let mut nodes = nodes_of(CURRENT);
    for node in &mut nodes {
        tell(node, &webhook);
        node.set("FAMILY_STALE_AFTER", "trade=2s");
    }
    start_in_order(&mut nodes);
    // How often each node has said so.
    let told = |status: &str| {
        let mut times = BTreeMap::<String, usize>::new();
        for body in webhook.bodies() {
            if body["of"] == "family_stale" && body["status"] == status {
                *times.entry(body["server"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
        times
    };
    // Messages come until each that told says that it is over.
    let is_heard = || {
        let fired = told("firing");
        block_on(async {
            let client = nodes[0].client().await;
            let mut each = tokio::time::interval(Duration::from_millis(200));
            let over = async {
                while !fired.iter().all(|(node, times)| told("resolved").get(node) >= Some(times)) {
                    each.tick().await;
                    client.publish(SUBJECTS[1], "x".into()).await.unwrap();
                }
            };
            tokio::time::timeout(Duration::from_secs(30), over).await.expect("each says that it is over");
        });
        fired
    };
    // On a busy machine another one may lead at any time: each that does may tell, and nobody else.
    let check_tellers = |nodes: &[Broker]| {
        let changes: usize = nodes.iter().map(|node| node.log().matches("new stream leader for").count()).sum();
        assert!(told("firing").len() <= 1 + changes, "{:?} told, {changes} changes", told("firing"));
    };
    // Silent, heard and silent again: by then each node has seen all of it.
    wait_for("it is told", || (!told("firing").is_empty()).then_some(()));
    let fired = is_heard();
    wait_for("it is told again", || (told("firing").values().sum::<usize>() > fired.values().sum()).then_some(()));
    check_tellers(&nodes);
    // Who leads next tells as well, and both say that it is over.
    let mut asked = None::<Instant>;
    wait_for("the next one tells", || {
        if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(3)) {
            block_on(async {
                let jetstream = JetStream(nodes[0].client().await);
                jetstream.0.publish("$JS.API.STREAM.LEADER.STEPDOWN.MARKET_DATA", "".into()).await.unwrap();
                jetstream.0.flush().await.unwrap();
            });
            asked = Some(Instant::now());
        }
        (told("firing").len() >= 2).then_some(())
    });
    assert!(is_heard().len() >= 2);
    check_tellers(&nodes);
    for node in &mut nodes {
        assert_eq!(node.stop(), Some(0), "{}", node.log());
    }
}
