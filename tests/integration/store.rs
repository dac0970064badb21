//! Stores that are not there, are others than before, or were written by another server.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::{Signal, kill};

use crate::support::*;

fn publish_some(broker: &Broker) -> u64 {
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let mut last = 0;
        for index in 0..50 {
            last = jetstream.publish(SUBJECTS[index % 8], "x").await;
        }
        last
    })
}

fn messages(broker: &Broker) -> u64 {
    block_on(async {
        JetStream(broker.client().await).info("MARKET_DATA").await["state"]["messages"].as_u64().unwrap()
    })
}

/// Waits until no server is started, for a reason with all these words.
fn held(broker: &Broker, words: &[&str]) {
    wait_for("it is degraded, and why", || {
        let reason = broker.health()["checks"]["nats_server"]["reason"].as_str().unwrap_or_default().to_owned();
        words.iter().all(|word| reason.contains(word)).then_some(())
    });
    assert_eq!(broker.state(), "degraded");
    let (status, body) = http_get(&broker.api("/readyz"));
    assert_eq!(status, 503, "{body}");
    assert!(broker.servers().is_empty(), "nothing was launched");
}

/// Kills the server, has the store be replaced meanwhile, and expects it to be waited for.
fn is_waited_for(broker: &mut Broker, take_away: impl FnOnce(), difference: &str, bring_back: impl FnOnce()) {
    let acknowledged = publish_some(broker);
    let restarts = broker.restarts();
    // It must not come back before the store is away.
    kill(broker.server_pid(), Signal::SIGSTOP).unwrap();
    take_away();
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    let place = broker.store();
    held(broker, &[place.to_str().unwrap(), difference]);
    bring_back();
    broker.wait_until_ready();
    assert_eq!(messages(broker), acknowledged, "{}", broker.log());
    assert_eq!(broker.restarts(), restarts.map(|restarts| restarts + 1), "waiting costs no restart");
    assert!(!broker.log().contains("messages are missing"), "{}", broker.log());
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn an_unmounted_store_is_waited_for_and_nothing_made_in_its_place() {
    if !is_root() {
        return cannot_run("an_unmounted_store_is_waited_for", "mounting needs root");
    }
    let mut broker = Broker::new();
    let (place, volume) = (broker.store(), broker.path("volume"));
    for path in [&place, &volume] {
        fs::create_dir_all(path).unwrap();
    }
    let mount = || {
        let status = std::process::Command::new("mount").arg("--bind").args([&volume, &place]).status();
        assert!(status.unwrap().success());
    };
    let unmount = || {
        let status = std::process::Command::new("umount").arg("-l").arg(&place).status();
        assert!(status.unwrap().success());
    };
    mount();
    broker.start();
    is_waited_for(&mut broker, unmount, "not mounted", mount);
    unmount();
    assert!(!place.join("jetstream").exists(), "no stream was made in the empty directory");
}

/// Puts the other store in the place of the one that is used, and back again.
fn exchange(place: &Path, away: &Path, other: &Path) -> (impl Fn(), impl Fn()) {
    let [place, away, other] = [place, away, other].map(Path::to_owned);
    let back = [place.clone(), away.clone(), other.clone()];
    let take_away = move || {
        fs::rename(&place, &away).unwrap();
        fs::rename(&other, &place).unwrap();
    };
    let bring_back = move || {
        let [place, away, other] = &back;
        fs::rename(place, other).unwrap();
        fs::rename(away, place).unwrap();
    };
    (take_away, bring_back)
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.unwrap().success());
}

#[test]
fn an_empty_another_and_an_older_store_are_not_taken_for_the_one_that_was() {
    for (kind, difference) in [("empty", "no marker"), ("another", "another store"), ("older", "an older copy")] {
        let mut broker = Broker::new();
        let (place, away, other) = (broker.store(), broker.path("away"), broker.path("other"));
        match kind {
            "empty" => fs::create_dir(&other).unwrap(),
            "another" => {
                let mut before = Broker::new();
                before.start();
                assert_eq!(before.stop(), Some(0));
                copy(&before.store(), &other);
            }
            _ => {
                broker.start();
                publish_some(&broker);
                assert_eq!(broker.stop(), Some(0));
                copy(&place, &other);
            }
        }
        broker.start();
        let (take_away, bring_back) = exchange(&place, &away, &other);
        if kind == "older" {
            // The messages of the first run count as well.
            let acknowledged = publish_some(&broker);
            assert_eq!(acknowledged, 100);
        }
        is_waited_for(&mut broker, take_away, difference, bring_back);
    }
}

#[test]
fn a_copy_of_the_store_as_it_was_is_not_taken_for_it() {
    let mut broker = Broker::new();
    broker.start();
    let (place, away, other) = (broker.store(), broker.path("away"), broker.path("other"));
    // Made since the last launch, so that its marker is the same; the end comes later.
    publish_some(&broker);
    copy(&place, &other);
    let (take_away, bring_back) = exchange(&place, &away, &other);
    is_waited_for(&mut broker, take_away, "it is a copy", bring_back);
}

#[test]
fn a_store_that_is_unmounted_under_a_running_server_is_told_at_once() {
    if !is_root() {
        return cannot_run("a_store_that_is_unmounted", "mounting needs root");
    }
    let mut broker = Broker::new();
    let (place, volume) = (broker.store(), broker.path("volume"));
    for path in [&place, &volume] {
        fs::create_dir_all(path).unwrap();
    }
    let run = |arguments: &[&std::ffi::OsStr], program: &str| {
        assert!(std::process::Command::new(program).args(arguments).status().unwrap().success());
    };
    let mount = || run(&["--bind".as_ref(), volume.as_ref(), place.as_ref()], "mount");
    mount();
    broker.start();
    let acknowledged = publish_some(&broker);
    run(&["-l".as_ref(), place.as_ref()], "umount");
    wait_for("unready, and why", || {
        let reason = broker.health()["checks"]["nats_server"]["reason"].as_str().unwrap_or_default().to_owned();
        reason.contains("is not the one that this broker has used").then_some(())
    });
    assert_eq!(http_get(&broker.api("/readyz")).0, 503);
    mount();
    broker.wait_until_ready();
    assert_eq!(messages(&broker), acknowledged, "{}", broker.log());
    assert_eq!(broker.stop(), Some(0));
    run(&["-l".as_ref(), place.as_ref()], "umount");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "nothing was written into the directory below");
}

#[test]
fn no_stream_is_made_by_a_reload_in_what_stands_in_the_place_of_the_store() {
    let mut broker = Broker::new();
    let (file, place, away) = (broker.path("streams.yml"), broker.store(), broker.path("away"));
    let declare = |names: &[&str]| {
        let streams = names.iter().map(|name| format!("  {name}: {{subjects: [{name}.x]}}\n"));
        fs::write(&file, format!("streams:\n{}", streams.collect::<String>())).unwrap();
    };
    declare(&["ONE"]);
    // Who watches the disk looks too late.
    broker.set("STREAMS_FILE", file.display()).set("HEALTH_PROBE_INTERVAL", "60s").start();
    let acknowledged = publish_some(&broker);
    fs::rename(&place, &away).unwrap();
    fs::create_dir(&place).unwrap();
    declare(&["ONE", "TWO"]);
    broker.signal(Signal::SIGHUP);
    wait_for("it is degraded, and why", || {
        let reason = broker.health()["checks"]["nats_server"]["reason"].as_str().unwrap_or_default().to_owned();
        reason.contains("is not the one that this broker has used").then_some(())
    });
    assert!(!place.join("jetstream").exists(), "no stream was made in the other directory");
    fs::remove_dir_all(&place).unwrap();
    fs::rename(&away, &place).unwrap();
    broker.wait_until_ready();
    assert!(place.join("jetstream/$G/streams/TWO/meta.inf").exists());
    assert_eq!(messages(&broker), acknowledged);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_store_that_must_have_been_used_is_not_made() {
    let mut broker = Broker::new();
    broker.set("JETSTREAM_REQUIRE_MARKER", "true").launch();
    assert_eq!(broker.wait(), Some(78));
    assert!(broker.log().contains("JETSTREAM_REQUIRE_MARKER=false"), "{}", broker.log());
    assert!(!broker.store().exists(), "nothing was made");
    broker.set("JETSTREAM_REQUIRE_MARKER", "false").start();
    assert_eq!(broker.stop(), Some(0));
    broker.set("JETSTREAM_REQUIRE_MARKER", "true").start();
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn an_older_server_is_refused_at_the_start_unless_it_is_meant() {
    let mut broker = Broker::new();
    broker.start();
    let acknowledged = publish_some(&broker);
    assert_eq!(broker.stop(), Some(0));
    for version in ["2.14.6", "2.12.8", "2.10.26"] {
        broker.set("NATS_SERVER_BIN", nats_server(version).display()).launch();
        assert_eq!(broker.wait(), Some(78), "{version}");
        let log = broker.log();
        for part in [version, CURRENT, "NATS_SERVER_ALLOW_DOWNGRADE=true"] {
            assert!(log.contains(part), "{part}: {log}");
        }
    }
    let marker = broker.store().join(".unified-nats-store.json");
    fs::remove_file(&marker).unwrap();
    broker.launch();
    assert_eq!(broker.wait(), Some(78), "another file knows of it");
    assert!(broker.log().contains("2.15.0"), "{}", broker.log());
    assert!(!marker.exists(), "a start that is refused leaves the store as it is");
    broker.set("NATS_SERVER_ALLOW_DOWNGRADE", "true").start();
    assert_eq!(messages(&broker), acknowledged);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn an_older_server_is_not_launched_while_running_and_a_newer_one_is() {
    let mut broker = Broker::new();
    let link = broker.path("nats-server");
    let switch = |version: &str| {
        let next = broker.path("next");
        symlink(nats_server(version), &next).unwrap();
        fs::rename(next, &link).unwrap();
    };
    switch("2.14.6");
    broker.set("NATS_SERVER_BIN", link.display()).start();
    let acknowledged = publish_some(&broker);
    let replaced_by = |broker: &Broker, version: &str| {
        let next = broker.path("next");
        symlink(nats_server(version), &next).unwrap();
        fs::rename(next, broker.path("nats-server")).unwrap();
        kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    };
    replaced_by(&broker, "2.12.8");
    held(&broker, &["nats-server 2.12.8", "2.14.6"]);
    let next = broker.path("next");
    symlink(nats_server(CURRENT), &next).unwrap();
    fs::rename(next, &link).unwrap();
    broker.wait_until_ready();
    assert_eq!(messages(&broker), acknowledged);
    // The newest one that wrote it counts from now on.
    replaced_by(&broker, "2.14.6");
    held(&broker, &["nats-server 2.14.6", CURRENT]);
    assert_eq!(broker.stop(), Some(0));
}
