//! Disks that fill up, turn read-only, and come back.

use crate::support::*;

/// A broker over a small disk, filled until nothing is acknowledged any more; gives what was.
pub fn filled(broker: &mut Broker, store: &Mounted) -> u64 {
    store.ballast("20m");
    broker.start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let mut last = 0;
        for _ in 0..10_000 {
            match jetstream.try_publish(SUBJECTS[0], vec![b'x'; 32 * 1024]).await {
                Ok(seq) => last = seq,
                Err(_) => return last,
            }
        }
        panic!("the disk does not get full");
    })
}

fn messages(broker: &Broker) -> u64 {
    block_on(async {
        JetStream(broker.client().await).info("MARKET_DATA").await["state"]["messages"].as_u64().unwrap()
    })
}

fn heals_after_a_full_disk(version: &str) {
    let mut broker = Broker::with_server(version);
    let store = Mounted::tmpfs(broker.store(), "48m");
    let acknowledged = filled(&mut broker, &store);
    wait_for("degraded, and why", || {
        let reason = broker.health()["checks"]["nats_server"]["reason"].as_str().unwrap_or_default().to_owned();
        let told = reason.contains("is full") || reason.contains("no space left");
        (reason.contains(broker.store().to_str().unwrap()) && told).then_some(())
    });
    assert_eq!(http_get(&broker.api("/readyz")).0, 503);
    let restarts = broker.restarts();
    store.make_room();
    broker.wait_until_ready();
    assert!(broker.restarts() <= restarts.map(|restarts| restarts + 1), "{}", broker.log());
    assert!(messages(&broker) >= acknowledged, "{version}: {}", broker.log());
    block_on(async { JetStream(broker.client().await).publish(SUBJECTS[1], "again").await });
    wait_for("healthy", || (broker.health()["status"] == "healthy").then_some(()));
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_disk_that_was_full_heals_with_every_version() {
    const TEST: &str = "a_disk_that_was_full_heals_with_every_version";
    if !is_root() {
        return cannot_run(TEST, "mounting a small file system needs root");
    }
    for version in ["2.10.26", "2.12.8", "2.14.6", CURRENT] {
        eprintln!("{version}");
        heals_after_a_full_disk(version);
    }
}

#[test]
fn no_server_is_restarted_while_the_disk_is_full() {
    const TEST: &str = "no_server_is_restarted_while_the_disk_is_full";
    if !is_root() {
        return cannot_run(TEST, "mounting a small file system needs root");
    }
    let mut broker = Broker::new();
    let store = Mounted::tmpfs(broker.store(), "48m");
    broker.set("HEALTH_PROBE_INTERVAL", "10ms");
    filled(&mut broker, &store);
    wait_for("degraded", || (broker.state() == "degraded").then_some(()));
    let server = broker.server_pid();
    // Long enough for a hundred probes: the dose of the test.
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!((broker.server_pid(), broker.restarts()), (server, Some(0)), "{}", broker.log());
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_store_that_turned_read_only_heals() {
    const TEST: &str = "a_store_that_turned_read_only_heals";
    if !is_root() {
        return cannot_run(TEST, "mounting a small file system needs root");
    }
    let mut broker = Broker::new();
    let store = Mounted::tmpfs(broker.store(), "48m");
    broker.start();
    block_on(async { JetStream(broker.client().await).publish(SUBJECTS[0], "x").await });
    // The kernel refuses while a file is open for writing: the server has to be between two starts.
    let bind = Mounted::bind(&broker.store());
    bind.remount("ro,bind");
    wait_for("read-only is told", || {
        let reason = broker.health()["checks"]["nats_server"]["reason"].as_str().unwrap_or_default().to_owned();
        reason.contains("read-only").then_some(())
    });
    bind.remount("rw,bind");
    broker.wait_until_ready();
    block_on(async { JetStream(broker.client().await).publish(SUBJECTS[0], "y").await });
    assert_eq!(broker.stop(), Some(0));
    drop(bind);
    drop(store);
}
