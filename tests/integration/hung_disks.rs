//! Files on disks that hang or have no room, where the store is not concerned.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;

use crate::security::with_tls;
use crate::support::*;

#[test]
fn a_certificate_that_cannot_be_read_to_its_end_holds_nobody_up() {
    let (mut broker, _) = with_tls("localhost", 20);
    broker.start();
    // A pipe in its place, of which whoever reads it sees no end: as a file on a network that is away.
    let key = broker.path("server.key");
    let pipe = broker.path("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    fs::rename(&pipe, &key).unwrap();
    let nonblocking = nix::libc::O_NONBLOCK;
    let hold = || fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(&key).ok();
    let mut writer = wait_for("it is read", hold);
    writer.write_all(b"-----BEGIN").unwrap();
    for probe in ["/livez", "/readyz", "/health"].repeat(5) {
        assert_eq!(http_get(&broker.api(probe)).0, 200, "{probe}");
    }
    // And a reload, which reads it as well.
    broker.signal(Signal::SIGHUP);
    wait_for("the reload is refused", || broker.log().contains("cannot reload").then_some(()));
    assert_eq!(http_get(&broker.api("/readyz")).0, 200);
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

#[test]
fn nats_conf_waits_for_room_at_the_start_and_while_running() {
    if !is_root() {
        return cannot_run("nats_conf_waits_for_room", "mounting a small file system needs root");
    }
    let mut broker = Broker::new();
    let disk = Mounted::tmpfs(broker.path("run"), "64k");
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_USERNAME", "u").set("NATS_AUTH_PASSWORD", "p");
    let held = |broker: &Broker| {
        wait_for("no room, and where", || {
            let reason = broker.health()["checks"]["nats_server"]["reason"].as_str().unwrap_or_default().to_owned();
            (reason.contains("make room there") && reason.contains("/run/")).then_some(())
        });
        assert_eq!((broker.state().as_str(), http_get(&broker.api("/readyz")).0), ("degraded", 503));
        assert_eq!(http_get(&broker.api("/livez")).0, 200);
    };
    disk.fill();
    broker.launch();
    held(&broker);
    disk.make_room();
    broker.wait_until_ready();
    assert_eq!(broker.restarts(), Some(0));

    // What is written as it should be already needs no room.
    disk.fill();
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    wait_for("the death is noticed", || (broker.restarts() == Some(1)).then_some(()));
    broker.wait_until_ready();
    fs::write(broker.path("run/nats.conf"), "").unwrap();
    disk.fill();
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    held(&broker);
    disk.make_room();
    broker.wait_until_ready();
    assert_eq!((broker.restarts(), broker.stop()), (Some(2), Some(0)), "{}", broker.log());
}

#[test]
fn what_killed_starts_have_left_is_removed() {
    let mut broker = Broker::new();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_USERNAME", "u").set("NATS_AUTH_PASSWORD", "p");
    broker.start();
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    broker.signal(Signal::SIGKILL);
    let port = broker.ports.nats;
    let gone = broker.pid();
    assert_eq!(broker.wait(), None);
    let leftovers = [
        format!("run/nats.conf.{gone}.tmp"),
        format!("run/nats.conf.candidate.{gone}.tmp"),
        format!("run/own-user-{port}.json.{gone}.tmp"),
        format!("run/client-ca-{port}.pem.{gone}.tmp"),
        "run/nats.conf.candidate".to_owned(),
        format!("store/.unified-nats-mode.{gone}.tmp"),
        format!("store/.unified-nats-store.json.{gone}.tmp"),
        format!("store/.unified-nats-integrity.json.{gone}.tmp"),
        format!("store/.unified-nats-acknowledge-loss.{gone}.tmp"),
    ];
    for name in &leftovers {
        fs::write(broker.path(name), "password").unwrap();
    }
    let others = ["run/other.conf.1.tmp", "run/nats.conf.old", "store/notes.tmp"];
    for name in others {
        fs::write(broker.path(name), "").unwrap();
    }
    broker.start();
    for name in &leftovers {
        assert!(!broker.path(name).exists(), "{name}");
    }
    for name in others {
        assert!(broker.path(name).exists(), "{name}");
    }
    assert_eq!(broker.stop(), Some(0));
}
