//! Streams that dwindle by themselves, whose files were touched after a stop in order: what is gone by
//! design is no loss, and what is damaged is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::StreamExt;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::*;

const MESSAGES: usize = 500;
const VERSIONS: [&str; 3] = ["2.10.26", "2.12.8", CURRENT];

/// A stream of a client with messages of 1 KB, and its broker at rest.
fn at_rest(version: &str, more: Value, consumer: bool, headers: &[(&str, &str)]) -> Broker {
    let mut broker = Broker::with_server(version);
    broker.start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let mut config = json!({ "name": "OWN", "subjects": ["own.>"], "storage": "file" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = jetstream.ask("$JS.API.STREAM.CREATE.OWN", config).await;
        assert!(made["error"].is_null(), "{made}");
        if consumer {
            let request = json!({ "stream_name": "OWN", "config": { "durable_name": "d", "ack_policy": "explicit", "max_ack_pending": 10_000 } });
            let made = jetstream.ask("$JS.API.CONSUMER.DURABLE.CREATE.OWN.d", request).await;
            assert!(made["error"].is_null(), "{made}");
        }
        let mut map = async_nats::HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        for number in 0..MESSAGES {
            let subject = format!("own.{}", number % 7);
            let message = jetstream.0.request_with_headers(subject, map.clone(), "x".repeat(1_000).into());
            let answer = message.await.unwrap();
            assert!(!String::from_utf8_lossy(&answer.payload).contains("error"), "{answer:?}");
        }
    });
    wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
    assert_eq!(broker.stop(), Some(0));
    broker
}

fn files(broker: &Broker) -> PathBuf {
    broker.store().join("jetstream/$G/streams/OWN/msgs")
}

/// Puts a copy that does not preserve times in the place of the store.
fn copy_in_place(broker: &Broker) {
    let away = broker.path("away");
    fs::rename(broker.store(), &away).unwrap();
    assert!(Command::new("cp").arg("-r").args([&away, &broker.store()]).status().unwrap().success());
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x55;
    fs::write(path, bytes).unwrap();
}

fn told(broker: &Broker) -> String {
    broker.health()["checks"]["integrity"]["detail"].as_str().unwrap_or_default().to_owned()
}

/// Healthy, and everything was read through.
fn expect_whole(broker: &mut Broker, case: &str) {
    broker.start();
    wait_for(&format!("{case}: all was read"), || told(broker).contains("read through").then_some(()));
    wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
    assert!(!broker.log().contains("messages are missing"), "{case}: {}", broker.log());
}

/// The line of the loss, and the state that follows from it.
fn one_line_and_the_state(broker: &Broker, case: &str) {
    let lines = || -> Vec<_> {
        let log = broker.log();
        log.lines().filter(|line| line.contains("stream OWN: ")).map(str::to_owned).collect()
    };
    // The log is written a little later.
    wait_for("the state is logged", || lines().iter().any(|line| line.contains("acknowledge-loss")).then_some(()));
    let count = |level: &str| lines().iter().filter(|line| line.contains(&format!("\"level\":\"{level}\""))).count();
    assert_eq!((count("ERROR"), count("WARN")), (1, 1), "{case}: {:#?}", lines());
}

/// Takes messages and acknowledges them as fast as it can, from the first moment on.
struct Worker {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start(url: String) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let flag = over.clone();
        let work = async move {
            let options = async_nats::ConnectOptions::new()
                .retry_on_initial_connect()
                .reconnect_delay_callback(|_| Duration::from_millis(1));
            let client = options.connect(&url).await.unwrap();
            let inbox = client.new_inbox();
            let mut messages = client.subscribe(inbox.clone()).await.unwrap();
            let request = json!({ "batch": 100, "expires": 200_000_000 }).to_string();
            while !flag.load(Ordering::Relaxed) {
                let next = "$JS.API.CONSUMER.MSG.NEXT.OWN.d";
                let _ = client.publish_with_reply(next, inbox.clone(), request.clone().into()).await;
                let batch = async {
                    while let Some(message) = messages.next().await {
                        let Some(reply) = message.reply else { break };
                        let _ = client.publish(reply, "+ACK".into()).await;
                    }
                };
                let _ = tokio::time::timeout(Duration::from_millis(300), batch).await;
            }
        };
        Self { over, thread: std::thread::spawn(move || block_on(work)) }
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

#[test]
fn busy_consumers_of_a_copy_are_no_loss() {
    for version in VERSIONS {
        for with_index in [true, false] {
            let case = format!("{version} {with_index}");
            let mut broker = at_rest(version, json!({ "retention": "workqueue" }), true, &[]);
            copy_in_place(&broker);
            if !with_index {
                fs::remove_file(files(&broker).join("index.db")).unwrap();
            }
            let worker = Worker::start(broker.url());
            expect_whole(&mut broker, &case);
            wait_for("the work is done", || {
                let info = block_on(async { JetStream(broker.client().await).info("OWN").await });
                (info["state"]["messages"] == 0).then_some(())
            });
            worker.end();
            assert_eq!(broker.stop(), Some(0));
        }
    }
}

#[test]
fn what_expired_before_the_next_start_is_no_loss() {
    for version in VERSIONS {
        let mut ways = vec![(json!({ "max_age": 2_000_000_000_u64 }), vec![])];
        if version > "2.11" {
            ways.push((json!({ "allow_msg_ttl": true }), vec![("Nats-TTL", "2s")]));
        }
        for (config, headers) in ways {
            for with_index in [true, false] {
                let case = format!("{version} {config} {with_index}");
                let mut broker = at_rest(version, config.clone(), false, &headers);
                copy_in_place(&broker);
                if !with_index {
                    fs::remove_file(files(&broker).join("index.db")).unwrap();
                }
                let newest = fs::metadata(broker.path("away").join(".unified-nats-left.json")).unwrap();
                let expired = || newest.modified().unwrap().elapsed().is_ok_and(|age| age > Duration::from_secs(2));
                wait_for("all are too old", || expired().then_some(()));
                expect_whole(&mut broker, &case);
                assert_eq!(broker.stop(), Some(0));
            }
        }
    }
}

#[test]
fn what_is_damaged_is_told_though_such_streams_dwindle() {
    for version in VERSIONS {
        for (config, consumer) in [
            (json!({ "retention": "workqueue" }), true),
            (json!({ "retention": "interest" }), true),
            (json!({ "max_age": 3_600_000_000_000_u64, "max_msgs_per_subject": 100 }), false),
            (json!({ "allow_msg_ttl": version > "2.11", "allow_rollup_hdrs": true }), false),
        ] {
            let mut broker = at_rest(version, config.clone(), consumer, &[]);
            let block = files(&broker).join("1.blk");
            flip(&block, fs::metadata(&block).unwrap().len() as usize / 2);
            fs::remove_file(files(&broker).join("index.db")).unwrap();
            broker.launch();
            wait_for(&format!("{version} {config}: the loss is told"), || {
                told(&broker).contains("stream OWN: ").then_some(())
            });
            let reason = || broker.health()["checks"]["nats_server"]["reason"].to_string();
            wait_for("the state follows", || reason().contains("messages are missing").then_some(()));
            assert!(broker.state() == "degraded" && http_get(&broker.api("/readyz")).0 == 503);
            one_line_and_the_state(&broker, &format!("{version} {config}"));
            assert_eq!(broker.stop(), Some(0));
        }
    }
}

#[test]
fn the_end_of_a_bucket_that_only_its_server_had_seen_is_missed() {
    for version in ["2.10.26", CURRENT] {
        for (with_index, config) in [
            (false, json!({ "max_msgs_per_subject": 1, "allow_rollup_hdrs": true, "max_age": 3_600_000_000_000_u64 })),
            (true, json!({ "retention": "interest" })),
        ] {
            let consumer = config["retention"].is_string();
            let mut broker = at_rest(version, config, consumer, &[]);
            // The next look is far away, and lame duck mode waits for none.
            broker.set("HEALTH_PROBE_INTERVAL", "60s").start();
            block_on(async {
                let jetstream = JetStream(broker.client().await);
                for number in 0..30 {
                    jetstream.publish(&format!("own.more.{number}"), &"x".repeat(1_000)).await;
                }
            });
            broker.signal(Signal::SIGUSR2);
            assert_eq!(broker.wait(), Some(0));
            let blocks = files(&broker);
            let block = fs::read_dir(&blocks).unwrap().flatten().map(|entry| entry.path());
            let block = block.filter(|path| path.extension().is_some_and(|end| end == "blk")).max().unwrap();
            // The last five of them, as a disk leaves them that has not written everything.
            let mut bytes = fs::read(&block).unwrap();
            let length = bytes.len();
            bytes[length - 5 * 1_050..].fill(0);
            fs::write(&block, bytes).unwrap();
            match with_index {
                true => flip(&blocks.join("index.db"), 30),
                false => fs::remove_file(blocks.join("index.db")).unwrap(),
            }
            broker.launch();
            wait_for(&format!("{version}: the loss is told"), || told(&broker).contains("stream OWN: ").then_some(()));
            assert_eq!(broker.stop(), Some(0));
        }
    }
}

#[test]
fn a_loss_is_told_in_one_line_and_in_the_state() {
    let cut = |messages: &Path| {
        let file = fs::OpenOptions::new().write(true).open(messages.join("1.blk")).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    let removed = |messages: &Path| fs::remove_file(messages.join("1.blk")).unwrap();
    let damaged = |messages: &Path| {
        let block = messages.join("1.blk");
        flip(&block, fs::metadata(&block).unwrap().len() as usize / 2);
        fs::remove_file(messages.join("index.db")).unwrap();
    };
    let gone = |messages: &Path| fs::remove_dir_all(messages.parent().unwrap()).unwrap();
    let damages: [(_, fn(&Path)); 4] = [("cut", cut), ("removed", removed), ("damaged", damaged), ("gone", gone)];
    for version in VERSIONS {
        for config in [json!({}), json!({ "max_bytes": 1 << 20 }), json!({ "max_msgs_per_subject": 200 })] {
            for (name, damage) in damages {
                let mut broker = at_rest(version, config.clone(), false, &[]);
                damage(&files(&broker));
                broker.launch();
                let reason =
                    || broker.health()["checks"]["nats_server"]["reason"].as_str().unwrap_or_default().to_owned();
                wait_for("the state follows", || reason().contains("messages are missing: stream OWN").then_some(()));
                one_line_and_the_state(&broker, &format!("{version} {config} {name}"));
                assert_eq!(broker.stop(), Some(0));
            }
        }
    }
}
