//! Plans against real servers of every version: what is applied is there, and nothing is left to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use unified_nats::settings::Settings;
use unified_nats::streams::{Applied, Desired, Existing, apply, plan, unheard};

use crate::reload::logged;
use crate::support::*;

/// Options of streams, each with values that can follow each other.
const STREAM_OPTIONS: &[(&str, &[&str])] = &[
    ("description", &["one", "'two'"]),
    ("retention", &["limits", "interest", "workqueue"]),
    ("discard", &["old", "new"]),
    ("storage", &["file", "memory"]),
    ("max_consumers", &["7", "-1"]),
    ("max_msgs", &["100", "200", "-1"]),
    ("max_bytes", &["1MB", "2MB", "-1"]),
    ("max_age", &["1m", "2h", "0"]),
    ("max_msgs_per_subject", &["1", "5"]),
    ("max_msg_size", &["1KB", "-1"]),
    ("replicas", &["1"]),
    ("duplicate_window", &["1s", "30s"]),
    ("compression", &["s2", "none"]),
    ("no_ack", &["true", "false"]),
    ("deny_delete", &["true", "false"]),
    ("allow_direct", &["true", "false"]),
    ("allow_rollup_hdrs", &["true", "false"]),
    ("first_seq", &["10"]),
    ("subject_transform", &["{src: 'SUBJECT.>', dest: 'to.SUBJECT.>'}"]),
    (
        "republish",
        &["{src: 'SUBJECT.>', dest: 're.SUBJECT.>'}", "{src: 'SUBJECT.>', dest: 'x.SUBJECT.>', headers_only: true}"],
    ),
    ("sources", &["[{name: ORIGIN}]", "[{name: ORIGIN, filter_subject: origin.a, opt_start_seq: 5}]"]),
    ("consumer_limits", &["{max_ack_pending: 5}", "{inactive_threshold: 5m, max_ack_pending: 50}"]),
    ("metadata", &["{a: b}", "{a: c, d: e}"]),
    ("allow_msg_ttl", &["true"]),
    ("allow_atomic", &["true", "false"]),
    ("allow_batched", &["true"]),
];

const CONSUMER_OPTIONS: &[(&str, &[&str])] = &[
    ("description", &["one", "two"]),
    ("deliver_policy", &["all", "new", "last_per_subject"]),
    ("ack_policy", &["explicit", "all", "none"]),
    ("ack_wait", &["10s", "30s"]),
    ("max_deliver", &["5", "-1"]),
    ("filter_subjects", &["[SUBJECT.a]", "[SUBJECT.a, SUBJECT.b]"]),
    ("replay_policy", &["instant", "original"]),
    ("sample_freq", &["50%", "100"]),
    ("max_waiting", &["7"]),
    ("max_ack_pending", &["1000", "-1", "7"]),
    ("headers_only", &["true", "false"]),
    ("max_batch", &["5"]),
    ("max_expires", &["5s"]),
    ("max_bytes", &["1MB", "-1"]),
    ("inactive_threshold", &["10m", "0"]),
    ("mem_storage", &["true", "false"]),
    ("metadata", &["{a: b}"]),
    ("backoff", &["[1s, 2s]"]),
];

fn options(random: &mut fastrand::Rng, of: &[(&str, &[&str])], share: f64, subject: &str) -> Vec<String> {
    let mut lines = vec![];
    for (name, values) in of {
        if random.f64() < share {
            lines.push(format!("{name}: {}", values[random.usize(..values.len())].replace("SUBJECT", subject)));
        }
    }
    lines
}

/// A file with three streams at most, and one that others take messages from.
fn file(random: &mut fastrand::Rng) -> String {
    let mut text = "streams:\n  ORIGIN: {subjects: [origin.>]}\n".to_owned();
    for (name, subject) in [("A", "a"), ("B", "b"), ("C", "c")] {
        if random.f64() < 0.2 {
            continue;
        }
        let extra = if random.bool() { format!(", {subject}{subject}.x") } else { String::new() };
        text += &format!("  {name}:\n    subjects: [{subject}.>{extra}]\n");
        let lines = options(random, STREAM_OPTIONS, 0.25, subject);
        for line in &lines {
            text += &format!("    {line}\n");
        }
        // These restrict consumers in ways of their own.
        if lines.iter().any(|line| line.starts_with("consumer_limits") || line.ends_with("workqueue")) {
            continue;
        }
        text += "    consumers:\n";
        for consumer in ["one", "two"] {
            if random.bool() {
                continue;
            }
            text += &format!("      {consumer}:\n        description: c\n");
            for line in options(random, &CONSUMER_OPTIONS[1..], 0.2, subject) {
                text += &format!("        {line}\n");
            }
        }
        text = text.trim_end_matches("    consumers:\n").to_owned();
    }
    text
}

pub fn desired(directory: &std::path::Path, text: &str) -> Option<Desired> {
    let path = directory.join("random.yml");
    std::fs::write(&path, text).unwrap();
    let environment = [("STREAMS_DEFAULTS", "none"), ("STREAMS_FILE", path.to_str().unwrap())];
    // Some combinations contradict themselves, and are refused before anybody asks a server.
    Settings::load(&environment.as_slice(), &[]).ok().map(|loaded| Desired::of(&loaded.settings))
}

pub fn failures(applied: &Applied) -> Vec<String> {
    applied.failed.iter().map(|error| format!("{error}: {}", error.source)).collect()
}

pub async fn leaves_nothing_to_do(jetstream: &unified_nats::nats::JetStream, desired: &Desired, context: &str) {
    let existing = Existing::read(jetstream, desired).await.unwrap();
    let left = plan(desired, &existing);
    let to_do = left.streams.iter().filter(|stream| !stream.is_nothing()).collect::<Vec<_>>();
    assert!(to_do.is_empty(), "{context}\nleft to do: {to_do:?}");
}

fn random_files_on(version: &str) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let rounds = if std::env::var_os("UNIFIED_NATS_FULL").is_some() { 400 } else { 40 };
    let mut broker = Broker::with_server(version);
    broker.set("STREAMS_DEFAULTS", "none").set("STREAMS_RECONCILE_INTERVAL", 0).start();
    let directory = tempfile::tempdir().unwrap();
    let (mut changed, mut refused) = (0, 0);
    block_on(async {
        let jetstream = unified_nats::nats::JetStream::new(broker.client().await, Duration::from_secs(10));
        for _ in 0..rounds {
            let texts = [file(&mut random), file(&mut random)];
            let Some([first, second]) = texts
                .each_ref()
                .map(|text| desired(directory.path(), text))
                .into_iter()
                .collect::<Option<Vec<_>>>()
                .map(|both| <[_; 2]>::try_from(both).unwrap())
            else {
                continue;
            };
            let context = format!("{version}, seed {seed}\n{}\n{}", texts[0], texts[1]);
            for desired in [&first, &second] {
                let applied = apply(&jetstream, desired, &unheard).await.unwrap();
                if !applied.failed.is_empty() {
                    refused += 1;
                    println!("{:#?}\n{context}", failures(&applied));
                    continue;
                }
                changed += applied.done.len();
                leaves_nothing_to_do(&jetstream, desired, &context).await;
            }
            for stream in ["A", "B", "C", "ORIGIN"] {
                jetstream.delete_stream(stream).await.unwrap();
            }
        }
    });
    println!("{changed} changes, {refused} refused");
    assert!(changed > rounds * 2 && refused * 2 < rounds, "{changed} changes, {refused} refused");
}

#[test]
fn what_is_applied_is_there_on_2_10() {
    random_files_on("2.10.26");
}

#[test]
fn what_is_applied_is_there_on_2_11() {
    random_files_on("2.11.11");
}

#[test]
fn what_is_applied_is_there_on_2_12() {
    random_files_on("2.12.8");
}

#[test]
fn what_is_applied_is_there_on_2_14() {
    random_files_on("2.14.6");
}

#[test]
fn what_is_applied_is_there_on_2_15() {
    random_files_on(CURRENT);
}

/// A broker with that file of streams.
pub fn with_file(text: &str) -> Broker {
    let mut broker = Broker::new();
    let path = broker.path("streams.yml");
    std::fs::write(&path, text).unwrap();
    broker.set("STREAMS_FILE", path.display());
    broker
}

#[test]
fn drift_is_repaired() {
    let mut broker = with_file(
        "streams:\n  ORDERS: {subjects: [orders.>], max_msgs: 10, consumers: {desk: {max_deliver: 3}}}\n\
         key_value: {SYMBOLS: {history: 5}}\n",
    );
    broker.set("STREAMS_RECONCILE_INTERVAL", "200ms").set("HEALTH_CHECK_INTERVAL", "1h").start();
    assert!(broker.health()["checks"]["checked_at"].is_null(), "no examination before its time");
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let mut config = jetstream.info("ORDERS").await["config"].clone();
        config["max_msgs"] = 99.into();
        config["subjects"] = serde_json::json!(["elsewhere"]);
        assert!(jetstream.ask("$JS.API.STREAM.UPDATE.ORDERS", config).await["error"].is_null());
        jetstream.ask("$JS.API.CONSUMER.DELETE.ORDERS.desk", serde_json::Value::Null).await;
    });
    let info = |subject: &str| {
        block_on(async { JetStream(broker.client().await).ask(subject, serde_json::Value::Null).await })
    };
    wait_for("stream and consumer as they were", || {
        let stream = info("$JS.API.STREAM.INFO.ORDERS");
        let consumer = info("$JS.API.CONSUMER.INFO.ORDERS.desk");
        let captured = stream["config"]["subjects"].as_array().unwrap().iter().any(|subject| subject == "orders.>");
        (stream["config"]["max_msgs"] == 10 && captured && consumer["config"]["max_deliver"] == 3).then_some(())
    });
    wait_for("a line about it", || broker.log().contains("max_msgs: 99 → 10").then_some(()));
    assert_eq!(broker.state(), "ready");
    let drift = broker.health()["checks"]["drift"].clone();
    assert!(drift["repaired"].as_u64() >= Some(2) && drift["status"] == "pass", "{drift}");
    // What was examined before does not hold any more.
    wait_for("an examination", || broker.health()["checks"]["checked_at"].is_string().then_some(()));
    // So is a bucket that somebody deletes.
    info("$JS.API.STREAM.DELETE.KV_SYMBOLS");
    wait_for("the bucket is there", || info("$JS.API.STREAM.INFO.KV_SYMBOLS")["error"].is_null().then_some(()));
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn what_was_applied_by_hand_is_not_undone_before_a_reload() {
    let mut broker = with_file("streams: {ONE: {subjects: [one], max_msgs: 10}}");
    broker.set("STREAMS_RECONCILE_INTERVAL", "100ms").start();
    std::fs::write(broker.path("streams.yml"), "streams: {ONE: {subjects: [one], max_msgs: 1000}}").unwrap();
    assert!(broker.output(&["streams", "apply"]).status.success());
    wait_for("a word about it", || {
        broker.log().contains("streams.yml has changed: drift is not repaired").then_some(())
    });
    assert_eq!(broker.health()["checks"]["drift"]["status"], "warn");
    let limit = || block_on(async { JetStream(broker.client().await).info("ONE").await })["config"]["max_msgs"].clone();
    assert_eq!(limit(), 1000);
    broker.signal(nix::sys::signal::Signal::SIGHUP);
    wait_for("a reload", || broker.log().contains("reloaded;").then_some(()));
    wait_for("drift is looked after again", || (broker.health()["checks"]["drift"]["status"] == "pass").then_some(()));
    assert_eq!(limit(), 1000);
    assert_eq!(broker.log().matches("stream ONE changed").count(), 0, "{}", broker.log());
    // A file that is as it was read again is as good as a reload.
    let path = broker.path("streams.yml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    wait_for("no file, no repair", || (broker.health()["checks"]["drift"]["status"] == "warn").then_some(()));
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let mut config = jetstream.info("ONE").await["config"].clone();
        config["max_msgs"] = 5.into();
        assert!(jetstream.ask("$JS.API.STREAM.UPDATE.ONE", config).await["error"].is_null());
    });
    std::fs::write(&path, text).unwrap();
    wait_for("a repair", || (limit() == 1000).then_some(()));
    assert_eq!(broker.health()["checks"]["drift"]["status"], "pass");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn nothing_is_pruned_without_a_file_that_declares_something() {
    for text in [None, Some("streams: {}")] {
        let mut broker = text.map_or_else(Broker::new, with_file);
        broker.set("STREAMS_PRUNE", "true").launch();
        assert_eq!(broker.wait(), Some(78));
        assert!(broker.log().contains("every stream with our mark would be deleted"), "{}", broker.log());
    }
}

#[test]
fn a_reload_applies_the_file_anew() {
    let mut broker = with_file("streams: {ONE: {subjects: [one]}}");
    broker.set("STREAMS_PRUNE", "true").start();
    std::fs::write(broker.path("streams.yml"), "streams: {TWO: {subjects: [one, two]}}").unwrap();
    broker.signal(nix::sys::signal::Signal::SIGHUP);
    let exists = |name: &str| {
        let subject = format!("$JS.API.STREAM.INFO.{name}");
        block_on(async { JetStream(broker.client().await).ask(&subject, serde_json::Value::Null).await })["error"]
            .is_null()
    };
    wait_for("one stream for another", || (exists("TWO") && !exists("ONE")).then_some(()));
    wait_for("ready", || (broker.state() == "ready").then_some(()));
    std::fs::write(broker.path("streams.yml"), "streams: {TWO: {subjects: [two], max_age: -5}}").unwrap();
    broker.signal(nix::sys::signal::Signal::SIGHUP);
    wait_for("a refusal", || broker.log().contains("the old configuration stays in force").then_some(()));
    logged(&broker, "streams.TWO.max_age");
    assert!(exists("TWO"));
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn what_is_pruned_at_a_start_is_no_loss() {
    let mut broker = with_file("streams: {OLD: {subjects: [old]}}");
    broker.start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        jetstream.publish("old", "x").await;
        // Somebody makes one like it, with everything that we have written into it.
        let mut copy = jetstream.info("OLD").await["config"].clone();
        copy["name"] = "COPY".into();
        copy["subjects"] = serde_json::json!(["copy"]);
        assert!(jetstream.ask("$JS.API.STREAM.CREATE.COPY", copy).await["error"].is_null());
    });
    wait_for("its message is known", || {
        let book = std::fs::read_dir(broker.store()).unwrap().flatten();
        let known = book.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        known.into_iter().any(|text| text.contains("OLD")).then_some(())
    });
    assert_eq!(broker.stop(), Some(0));
    // Without being told to, nothing is deleted.
    std::fs::write(broker.path("streams.yml"), "streams: {NEW: {subjects: [new]}}").unwrap();
    broker.start();
    let streams = |broker: &Broker| {
        block_on(async {
            let list = JetStream(broker.client().await).ask("$JS.API.STREAM.NAMES", serde_json::Value::Null).await;
            list["streams"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        })
    };
    assert_eq!(streams(&broker), ["COPY", "MARKET_DATA", "NEW", "OLD"]);
    assert_eq!(broker.stop(), Some(0));
    broker.set("STREAMS_PRUNE", "true").start();
    assert_eq!(streams(&broker), ["COPY", "MARKET_DATA", "NEW"]);
    assert_eq!(broker.health()["status"], "healthy", "{}", broker.health());
    logged(&broker, "stream OLD deleted with its 1 messages");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_file_with_problems_starts_nothing_and_names_all_of_them() {
    let mut broker = with_file("streams:\n  A: {subjects: ['a b'], max_age: -5}\n  B: {retention: x, subjects: [b]}\n");
    broker.launch();
    assert_eq!(broker.wait(), Some(78));
    let log = broker.log();
    for problem in
        ["streams.yml:2:18: streams.A.subjects[0]", "streams.A.max_age", "streams.yml:3:18: streams.B.retention"]
    {
        assert!(log.contains(problem), "{problem}: {log}");
    }
    assert!(!broker.store().exists());
}

pub fn printed(broker: &Broker, arguments: &[&str]) -> (Option<i32>, String) {
    let output = broker.output(arguments);
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn plan_apply_and_check_from_the_command_line() {
    let mut broker = Broker::new();
    broker.set("STREAMS_RECONCILE_INTERVAL", 0).start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        for _ in 0..3 {
            jetstream.publish(SUBJECTS[1], "x").await;
        }
        let foreign = serde_json::json!({ "name": "FOREIGN", "subjects": ["foreign"] });
        jetstream.ask("$JS.API.STREAM.CREATE.FOREIGN", foreign).await;
    });
    let path = broker.path("streams.yml");
    let text = "streams:\n  ORDERS: {subjects: [orders.>], max_msgs: 10, consumers: {desk: {}}}\n  MARKET_DATA: {max_msgs: 2}\n";
    std::fs::write(&path, text).unwrap();
    broker.set("STREAMS_FILE", path.display());
    let expected = "~ stream MARKET_DATA\n~     max_msgs: 1000000 → 2 (drops 1 messages)\n+ stream ORDERS\n\
         +     subjects: [\"orders.>\"]\n+     max_msgs: 10\n\
         +     consumer desk\n  not declared, and left alone: FOREIGN\n\
         2 to create, 1 to update, 0 conflicts\n";
    assert_eq!(printed(&broker, &["streams", "plan"]), (Some(0), expected.to_owned()));
    assert_eq!(printed(&broker, &["streams", "plan", "--exit-code"]).0, Some(2));
    let (code, json) = printed(&broker, &["streams", "plan", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (code, &json["summary"]["create"], &json["streams"][0]["action"]),
        (Some(0), &2.into(), &"update".into())
    );
    let (code, text) = printed(&broker, &["streams", "check", "--quiet"]);
    assert_eq!((code, text.as_str()), (Some(1), "FAIL  ORDERS: it does not exist; consumer desk does not exist\n"));

    let (code, text) = printed(&broker, &["streams", "apply"]);
    assert!(code == Some(0) && text.ends_with("3 changes, 0 failed, 0 in conflict; 2 streams in place\n"), "{text}");
    assert_eq!(printed(&broker, &["streams", "plan", "--exit-code"]).0, Some(0));
    let (code, text) = printed(&broker, &["streams", "check", "--detailed"]);
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "ok    MARKET_DATA: 2 messages",
        "used: 100.0 % of max_msgs",
        "family trade                        2 messages, the last ",
        "family orderbook                    0 messages, none yet",
        "consumer desk: 0 pending, 0 not acknowledged, 0 redelivered, last active never",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (_, json) = printed(&broker, &["streams", "check", "--detailed", "--json"]);
    let detailed: serde_json::Value = serde_json::from_str(&json).unwrap();
    let first_time = |index: usize| detailed["streams"][index]["first_time"].as_str();
    assert!(first_time(0).is_some() && first_time(1).is_none(), "ORDERS never held a message: {detailed}");
    let (_, json) = printed(&broker, &["streams", "check", "--stats", "--json", "--stream", "MARKET_DATA"]);
    let stats: serde_json::Value = serde_json::from_str(&json).unwrap();
    let keys: Vec<_> = stats[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "stream_name",
            "messages",
            "bytes",
            "first_seq",
            "last_seq",
            "consumer_count",
            "subjects",
            "max_msgs",
            "max_bytes",
            "max_age",
            "storage",
            "retention"
        ]
    );
    assert_eq!((&stats[0]["messages"], &stats[0]["first_seq"]), (&2.into(), &2.into()));

    std::fs::write(&path, "streams: {ORDERS: {subjects: [orders.>], storage: memory}}").unwrap();
    let (code, text) = printed(&broker, &["streams", "plan"]);
    assert!(code == Some(1) && text.contains("storage is \"file\" and cannot become \"memory\""), "{text}");
    assert!(text.ends_with("0 to create, 2 to update, 1 conflict\n"), "{text}");
    let (code, text) = printed(&broker, &["streams", "apply"]);
    assert!(code == Some(1) && text.ends_with("2 changes, 0 failed, 1 in conflict; 2 streams in place\n"), "{text}");
    let (code, text) = printed(&broker, &["streams", "check"]);
    assert!(code == Some(1) && text.contains("FAIL  ORDERS") && text.contains("ok    MARKET_DATA"), "{text}");
    assert_eq!(broker.stop(), Some(0));
    let (code, text) = printed(&broker, &["streams", "plan"]);
    assert!(code == Some(69) && text.contains("cannot connect to NATS"), "{text}");
    let (code, _) = printed(&broker, &["streams", "apply", "--wait", "--timeout", "300ms"]);
    assert_eq!(code, Some(69));
}

/// A collector that moves from one subject style to the other when it is told to, and sends each message
/// until it is acknowledged. Gives how many were.
fn collector(url: String, plain: Arc<AtomicBool>, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        block_on(async {
            let (mut acknowledged, mut connection) = (0, None);
            while !stop.load(Ordering::Relaxed) {
                let client = match connection.take() {
                    Some(client) => client,
                    None => match async_nats::ConnectOptions::new().max_reconnects(1).connect(&url).await {
                        Ok(client) => client,
                        Err(_) => continue,
                    },
                };
                let subject =
                    if plain.load(Ordering::Relaxed) { "trade.okx.spot.BTC" } else { "trade-data.okx.spot.BTC" };
                let jetstream = unified_nats::nats::JetStream::new(client.clone(), Duration::from_secs(1));
                if jetstream.publish(subject, &format!("message {acknowledged}"), b"x").await.is_ok() {
                    acknowledged += 1;
                    connection = Some(client);
                }
            }
            acknowledged
        })
    })
}

#[test]
fn collectors_move_from_one_subject_style_to_the_other_and_nothing_is_lost() {
    let mut broker = Broker::new();
    broker.start();
    let (plain, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let collector = collector(broker.url(), plain.clone(), stop.clone());
    let count = |broker: &Broker, filter: &str| {
        block_on(async {
            let jetstream = unified_nats::nats::JetStream::new(broker.client().await, Duration::from_secs(5));
            jetstream.messages_of("MARKET_DATA", filter).await.unwrap()
        })
    };
    wait_for("the old style", || (count(&broker, "trade-data.>") >= 50).then_some(()));
    assert_eq!(broker.stop(), Some(0));
    broker.set("STREAM_SUBJECT_STYLE", "both").start();
    let before = count(&broker, "trade-data.>");
    wait_for("still the old style", || (count(&broker, "trade-data.>") >= before + 50).then_some(()));
    plain.store(true, Ordering::Relaxed);
    wait_for("the new style", || (count(&broker, "trade.>") >= 50).then_some(()));
    assert_eq!(broker.stop(), Some(0));
    broker.set("STREAM_SUBJECT_STYLE", "plain").start();
    let before = count(&broker, "trade.>");
    wait_for("the new style alone", || (count(&broker, "trade.>") >= before + 50).then_some(()));
    stop.store(true, Ordering::Relaxed);
    let acknowledged = collector.join().unwrap();
    assert_eq!(count(&broker, "trade-data.>") + count(&broker, "trade.>"), acknowledged);
    logged(&broker, "stops capturing orderbook-data.>");
    wait_for("the streams are read through", || {
        let integrity = broker.health()["checks"]["integrity"].clone();
        assert_ne!(integrity["status"], "fail", "{integrity}");
        (integrity["status"] == "pass").then_some(())
    });
    assert_eq!(broker.stop(), Some(0));
}
