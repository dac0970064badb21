//! Stores whose files were damaged while nobody looked: never healthy with messages missing.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use unified_nats::domain::Generation;
use unified_nats::files::HeldDirectory;
use unified_nats::integrity::{Integrity, IntegrityHandle, IntegrityMonitor, LookError, Reading};
use unified_nats::settings::Settings;

use crate::support::*;

const MESSAGES: u64 = 200;

/// A store with messages of 8 KB and a consumer that has seen ten of them, at rest.
fn at_rest(version: &str) -> Broker {
    let mut broker = Broker::with_server(version);
    broker.start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let payload = "x".repeat(8000);
        for number in 0..MESSAGES {
            jetstream.publish(SUBJECTS[number as usize % 8], &payload).await;
        }
        let config = serde_json::json!({ "durable_name": "d", "ack_policy": "explicit", "deliver_policy": "all" });
        let request = serde_json::json!({ "stream_name": "MARKET_DATA", "config": config });
        let made = jetstream.ask("$JS.API.CONSUMER.DURABLE.CREATE.MARKET_DATA.d", request).await;
        assert!(made["error"].is_null(), "{made}");
    });
    wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
    assert_eq!(broker.stop(), Some(0));
    broker
}

fn flip(path: &Path, at: u64) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0x55]).unwrap();
}

fn integrity(broker: &Broker) -> (String, String) {
    let health = broker.health();
    let check = &health["checks"]["integrity"];
    let text = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
    (text("status"), text("detail"))
}

fn expect_loss(broker: &mut Broker, what: &str) {
    broker.launch();
    wait_for("the loss is told", || (integrity(broker).0 == "fail").then_some(()));
    assert!(integrity(broker).1.contains(what), "{:?}", integrity(broker));
    wait_for("unready", || (http_get(&broker.api("/readyz")).0 == 503).then_some(()));
    assert_ne!(broker.health()["status"], "healthy");
    let checked = broker.output(&["health-check", "full"]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("FAIL  integrity"), "{checked:?}");
}

#[test]
fn a_message_damaged_in_place_is_found_by_reading_and_stays_told_until_acknowledged() {
    let mut broker = at_rest(CURRENT);
    flip(&broker.stream_directory().join("msgs/1.blk"), 800_000);
    expect_loss(&mut broker, "1 messages cannot be read, the first of them at sequence 99");
    assert_eq!(broker.stop(), Some(0));
    expect_loss(&mut broker, "at sequence 99");
    assert_eq!(broker.restarts(), Some(0), "what is told already is no reason for a fresh start");
    let acknowledged = broker.output(&["streams", "acknowledge-loss"]);
    assert!(acknowledged.status.success(), "{acknowledged:?}");
    assert!(String::from_utf8_lossy(&acknowledged.stdout).contains("sequence 99"));
    broker.wait_until_ready();
    wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
    let nothing = broker.output(&["streams", "acknowledge-loss", "--json"]);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&nothing.stdout).unwrap()["acknowledged"],
        serde_json::json!([])
    );
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn files_that_were_cut_or_removed_are_told_with_every_version() {
    for version in ["2.10.26", "2.12.8", CURRENT] {
        let cut = |broker: &Broker| {
            let path = broker.stream_directory().join("msgs/1.blk");
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        };
        let removed = |broker: &Broker| fs::remove_file(broker.stream_directory().join("msgs/1.blk")).unwrap();
        let rebuilt = |broker: &Broker| {
            flip(&broker.stream_directory().join("msgs/1.blk"), 800_000);
            fs::remove_file(broker.stream_directory().join("msgs/index.db")).unwrap();
        };
        let gone = |broker: &Broker| fs::remove_dir_all(broker.stream_directory()).unwrap();
        let damages: [fn(&Broker); 4] = [cut, removed, rebuilt, gone];
        for (name, damage) in ["cut", "removed", "rebuilt", "gone"].iter().zip(damages) {
            let mut broker = at_rest(version);
            damage(&broker);
            eprintln!("{version} {name}");
            expect_loss(&mut broker, "messages");
        }
    }
}

#[test]
fn a_damaged_description_is_made_anew_with_all_messages_and_consumers() {
    for version in ["2.10.26", "2.12.8", CURRENT] {
        for (name, removed) in [("meta.inf", false), ("meta.sum", false), ("meta.inf", true), ("meta.sum", true)] {
            let mut broker = at_rest(version);
            let path = broker.stream_directory().join(name);
            if removed {
                fs::remove_file(&path).unwrap()
            } else {
                flip(&path, 3)
            }
            broker.start();
            let info = block_on(async { JetStream(broker.client().await).info("MARKET_DATA").await });
            assert_eq!(info["state"]["messages"], MESSAGES, "{version} {name}: {info}");
            let consumer = block_on(async {
                let jetstream = JetStream(broker.client().await);
                jetstream.ask("$JS.API.CONSUMER.INFO.MARKET_DATA.d", serde_json::Value::Null).await
            });
            assert_eq!(consumer["num_pending"], MESSAGES, "{version} {name}: {consumer}");
            wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
            assert!(fs::read_dir(broker.store().join(".unified-nats-set-aside")).unwrap().count() > 0);
            assert_eq!(broker.stop(), Some(0));
            broker.start();
            assert_eq!(broker.restarts(), Some(0), "the new description holds");
            assert_eq!(broker.stop(), Some(0));
        }
    }
}

/// A stream of a client with subjects and limits of its own, and its broker at rest.
fn with_a_stream_of_a_client(version: &str, declared: bool) -> Broker {
    let mut broker = Broker::with_server(version);
    if declared {
        let file = broker.path("streams.yml");
        fs::write(&file, "streams: {OWN: {subjects: [own.>]}}").unwrap();
        broker.set("STREAMS_FILE", file.display());
    }
    broker.start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let config = serde_json::json!({
            "name": "OWN", "subjects": ["own.>", "other.*"], "storage": "file", "max_msgs": 777,
            "max_msgs_per_subject": 50, "num_replicas": 1,
        });
        let action = if declared { "UPDATE" } else { "CREATE" };
        let made = jetstream.ask(&format!("$JS.API.STREAM.{action}.OWN"), config).await;
        assert!(made["error"].is_null(), "{made}");
        for number in 0..20 {
            jetstream.publish(&format!("other.{number}"), "x").await;
        }
    });
    wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
    assert_eq!(broker.stop(), Some(0));
    broker
}

#[test]
fn a_description_that_can_be_read_is_used_where_nothing_was_seen_and_the_source_is_told() {
    const LAST_SEEN: &str = "made anew as it was last seen";
    const DESCRIPTION: &str = "from what the damaged description says";
    const DECLARATION: &str = "as it is declared";
    for version in ["2.10.26", "2.12.8", CURRENT] {
        for (declared, seen, readable, source) in [
            (false, true, false, Some(LAST_SEEN)),
            (false, true, true, Some(LAST_SEEN)),
            (false, false, true, Some(DESCRIPTION)),
            (true, false, true, Some(DESCRIPTION)),
            (true, false, false, Some(DECLARATION)),
            (false, false, false, None),
        ] {
            let case = format!("{version} declared {declared} seen {seen} readable {readable}");
            let mut broker = with_a_stream_of_a_client(version, declared);
            let directory = broker.store().join("jetstream/$G/streams/OWN");
            if !seen {
                fs::remove_file(broker.store().join(".unified-nats-integrity.json")).unwrap();
            }
            if readable {
                flip(&directory.join("meta.sum"), 3);
            } else {
                flip(&directory.join("meta.inf"), 0);
            }
            broker.launch();
            let Some(source) = source else {
                wait_for("it is told", || integrity(&broker).1.contains("cannot recover it").then_some(()));
                assert!(directory.join("meta.inf").is_file(), "{case}: untouched");
                assert_eq!(broker.stop(), Some(0));
                continue;
            };
            wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
            let info = block_on(async { JetStream(broker.client().await).info("OWN").await });
            assert_eq!(info["state"]["messages"], 20, "{case}: {info}");
            if source != DECLARATION {
                // A file's limits are brought about again; subjects beyond it stay.
                assert_eq!(info["config"]["subjects"][1], "other.*", "{case}: {info}");
                let limit = if declared { -1 } else { 777 };
                assert_eq!(info["config"]["max_msgs"], limit, "{case}: {info}");
            }
            assert!(broker.log().contains(source), "{case}: {}", broker.log());
            assert_eq!(broker.stop(), Some(0));
        }
    }
}

#[test]
fn a_stream_that_is_not_served_for_the_sake_of_a_consumer_is_told() {
    // Earlier versions serve the stream without the consumer.
    for version in ["2.12.8", CURRENT] {
        let mut broker = with_a_stream_of_a_client(version, false);
        broker.start();
        block_on(async {
            let jetstream = JetStream(broker.client().await);
            let request = serde_json::json!({ "stream_name": "OWN", "config": { "durable_name": "d", "ack_policy": "explicit" } });
            let made = jetstream.ask("$JS.API.CONSUMER.DURABLE.CREATE.OWN.d", request).await;
            assert!(made["error"].is_null(), "{made}");
        });
        assert_eq!(broker.stop(), Some(0));
        let description = broker.store().join("jetstream/$G/streams/OWN/obs/d/meta.inf");
        flip(&description, 3);
        broker.launch();
        wait_for("it is told", || {
            integrity(&broker).1.contains("stream OWN: nats-server does not serve it").then_some(())
        });
        assert_eq!(broker.stop(), Some(0));
        flip(&description, 3);
        broker.start();
        wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
        assert_eq!(broker.stop(), Some(0));
    }
}

#[test]
fn an_index_that_is_damaged_costs_nothing() {
    let mut broker = at_rest(CURRENT);
    flip(&broker.stream_directory().join("msgs/index.db"), 20);
    broker.start();
    wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
    let (_, detail) = integrity(&broker);
    assert!(detail.contains(&format!("{MESSAGES} messages were read through")), "{detail}");
}

#[test]
fn an_acknowledgement_without_a_broker_waits_for_the_next_one() {
    let mut broker = at_rest(CURRENT);
    fs::remove_file(broker.stream_directory().join("msgs/1.blk")).unwrap();
    expect_loss(&mut broker, "messages");
    assert_eq!(broker.stop(), Some(0));
    let early = broker.output(&["streams", "acknowledge-loss", "MARKET_DATA", "--timeout", "50ms"]);
    assert_eq!(early.status.code(), Some(1), "{early:?}");
    broker.start();
    wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
}

/// A monitor with a book of its own, beside the broker's.
fn another_keeper(book: &tempfile::TempDir) -> IntegrityHandle {
    let (monitor, handle) = open(book);
    tokio::spawn(monitor.run(async |_, _| {}));
    handle
}

fn open(book: &tempfile::TempDir) -> (IntegrityMonitor, IntegrityHandle) {
    let environment = [("JETSTREAM_STORE_DIR", book.path().to_str().unwrap())];
    let settings = Settings::load(&environment.as_slice(), &[]).unwrap().settings;
    let store = HeldDirectory::hold(settings.jetstream.store_dir.clone());
    IntegrityMonitor::open(&settings, std::sync::Arc::new(store))
}

#[test]
fn a_message_that_was_taken_back_is_no_loss_after_a_restart() {
    let mut broker = Broker::with_server(CURRENT);
    broker.start();
    let book = tempfile::tempdir().unwrap();
    block_on(async {
        let monitor = another_keeper(&book);
        let jetstream = unified_nats::nats::JetStream::new(broker.client().await, Duration::from_secs(5));
        let publish = async || jetstream.publish(SUBJECTS[0], &format!("{}", fastrand::u64(..)), b"x").await.unwrap();
        publish().await;
        assert_eq!(monitor.check_streams(&jetstream, Generation(1)).await.unwrap(), None);
        let (proof, other) = (publish().await, publish().await);
        publish().await;
        monitor.take_back(&jetstream, "MARKET_DATA", proof).await;
        assert_eq!(monitor.check_streams(&jetstream, Generation(2)).await.unwrap(), None);
        jetstream.delete_message("MARKET_DATA", other).await.unwrap();
        let missing = monitor.check_streams(&jetstream, Generation(3)).await.unwrap();
        assert_eq!(missing, None, "a client may have deleted it, if only right before the restart");
    });
}

#[test]
fn a_look_that_nobody_compares_says_so_at_once() {
    let mut broker = Broker::with_server(CURRENT);
    broker.start();
    let book = tempfile::tempdir().unwrap();
    block_on(async {
        let (monitor, handle) = open(&book);
        drop(monitor);
        let jetstream = unified_nats::nats::JetStream::new(broker.client().await, Duration::from_secs(5));
        let look = handle.check_streams(&jetstream, Generation(1));
        let found = tokio::time::timeout(Duration::from_secs(1), look).await.expect("an answer");
        assert!(matches!(found, Err(LookError::Unheard)), "{found:?}");
    });
}

#[test]
fn messages_that_are_deleted_while_their_stream_is_read_through_are_not_missed() {
    const MESSAGES: u64 = 10_000;
    for version in ["2.10.26", "2.12.8", CURRENT] {
        let mut broker = Broker::with_server(version);
        broker.start();
        let book = tempfile::tempdir().unwrap();
        block_on(async {
            let monitor = another_keeper(&book);
            let client = broker.client().await;
            for number in 0..MESSAGES {
                client.publish(SUBJECTS[0], number.to_string().into()).await.unwrap();
            }
            let jetstream = unified_nats::nats::JetStream::new(client, Duration::from_secs(5));
            let last = jetstream.publish(SUBJECTS[0], "last", b"x").await.unwrap();
            let mut progress = monitor.watch();
            let delete = async {
                let has_begun = |view: &Integrity| matches!(view.reading, Reading::Under { .. });
                progress.wait_for(has_begun).await.unwrap();
                for seq in [last - 7, last] {
                    jetstream.delete_message("MARKET_DATA", seq).await.unwrap();
                }
            };
            let (suspicious, ()) = tokio::join!(monitor.read_through(&jetstream), delete);
            assert_eq!(suspicious.unwrap(), Vec::<String>::new(), "{version}");
            assert!(matches!(progress.borrow().reading, Reading::Done { .. }), "{version}: {:?}", progress.borrow());
        });
    }
}

#[test]
fn a_stream_that_is_purged_while_it_is_read_through_is_whole() {
    let mut broker = Broker::with_server(CURRENT);
    broker.start();
    let book = tempfile::tempdir().unwrap();
    block_on(async {
        let monitor = another_keeper(&book);
        let client = broker.client().await;
        for number in 0..10_000 {
            client.publish(SUBJECTS[number % 2], number.to_string().into()).await.unwrap();
        }
        let jetstream = unified_nats::nats::JetStream::new(client.clone(), Duration::from_secs(5));
        jetstream.publish(SUBJECTS[0], "last", b"x").await.unwrap();
        let mut progress = monitor.watch();
        let purge = async {
            let has_begun = |view: &Integrity| matches!(view.reading, Reading::Under { .. });
            progress.wait_for(has_begun).await.unwrap();
            let filter = serde_json::json!({ "filter": SUBJECTS[1] });
            JetStream(client).ask("$JS.API.STREAM.PURGE.MARKET_DATA", filter).await
        };
        let (suspicious, purged) = tokio::join!(monitor.read_through(&jetstream), purge);
        assert_eq!(purged["success"], true, "{purged}");
        assert_eq!(suspicious.unwrap(), Vec::<String>::new());
        assert!(matches!(progress.borrow().reading, Reading::Done { .. }), "{:?}", progress.borrow());
    });
}

#[test]
fn a_single_message_is_there_or_deleted_or_damaged() {
    for version in ["2.10.26", "2.12.8", CURRENT] {
        let mut broker = at_rest(version);
        flip(&broker.stream_directory().join("msgs/1.blk"), 800_000);
        broker.launch();
        wait_for("the loss is told", || (integrity(&broker).0 == "fail").then_some(()));
        block_on(async {
            let jetstream = unified_nats::nats::JetStream::new(broker.client().await, Duration::from_secs(5));
            jetstream.delete_message("MARKET_DATA", 7).await.unwrap();
            for (seq, there) in [(6, true), (7, false), (99, false), (100, true), (MESSAGES + 1, false)] {
                assert_eq!(jetstream.has_message("MARKET_DATA", seq).await.unwrap(), there, "{version}: {seq}");
            }
        });
        assert_eq!(broker.stop(), Some(0));
    }
}

/// A store of more than one block, at rest, with a length in the first of them damaged: the server starts
/// with what its index says, and finds out when the block is read.
fn damaged_below_its_index(version: &str) -> Broker {
    let mut broker = Broker::with_server(version);
    broker.start();
    block_on(async {
        let client = broker.client().await;
        for _ in 0..1_500 {
            client.publish(SUBJECTS[0], "x".repeat(8000).into()).await.unwrap();
        }
        JetStream(client).publish(SUBJECTS[0], "last").await;
    });
    wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
    assert_eq!(broker.stop(), Some(0));
    let block = broker.stream_directory().join("msgs/1.blk");
    let mut start = 0;
    for _ in 0..100 {
        let mut length = [0; 4];
        let mut file = fs::File::open(&block).unwrap();
        file.seek(SeekFrom::Start(start)).unwrap();
        file.read_exact(&mut length).unwrap();
        start += u64::from(u32::from_le_bytes(length));
    }
    flip(&block, start + 1);
    broker
}

#[test]
fn what_the_server_itself_finds_lost_stays_told_until_acknowledged() {
    // Later versions find it when they start, and then there are holes that were none.
    for (version, told) in [("2.10.26", "nats-server lost"), ("2.12.8", "messages"), (CURRENT, "messages")] {
        let mut broker = damaged_below_its_index(version);
        expect_loss(&mut broker, told);
        assert_eq!(broker.stop(), Some(0));
        expect_loss(&mut broker, told);
        wait_for("healthy once all of it is acknowledged", || {
            // Another server may find that more of the block is damaged.
            let acknowledged = broker.output(&["streams", "acknowledge-loss"]);
            assert!(acknowledged.status.success(), "{acknowledged:?}");
            (broker.health()["status"] == "healthy").then_some(())
        });
        assert_eq!(broker.stop(), Some(0));
    }
}

/// A server that ends with its test, however that ends.
struct Bare(std::process::Child);

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_a_client_makes_the_server_find_lost_is_told_by_the_next_look() {
    let broker = damaged_below_its_index("2.10.26");
    let url = broker.url();
    let port = url.rsplit(':').next().unwrap();
    let server = std::process::Command::new(nats_server("2.10.26"))
        .args(["-js", "-a", "127.0.0.1", "-p", port, "-sd", broker.store().to_str().unwrap()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let _server = Bare(server);
    let book = tempfile::tempdir().unwrap();
    let missing = block_on(async {
        let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
        let client = options.connect(&url).await.unwrap();
        let monitor = another_keeper(&book);
        let jetstream = unified_nats::nats::JetStream::new(client.clone(), Duration::from_secs(10));
        let deadline = std::time::Instant::now() + PATIENCE;
        while jetstream.stream_info("MARKET_DATA").await.is_err() {
            assert!(std::time::Instant::now() < deadline, "JetStream does not answer");
        }
        assert_eq!(monitor.check_streams(&jetstream, Generation(1)).await.unwrap(), None);
        JetStream(client).ask("$JS.API.STREAM.MSG.GET.MARKET_DATA", serde_json::json!({ "seq": 200 })).await;
        loop {
            match monitor.check_streams(&jetstream, Generation(1)).await.unwrap() {
                None => assert!(std::time::Instant::now() < deadline, "nothing is told"),
                Some(missing) => break missing,
            }
        }
    });
    assert!(missing.contains("nats-server lost"), "{missing}");
}
