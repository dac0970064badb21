//! NATS_SERVER_BIN while the broker runs: what stands there may be exchanged, and something else may
//! come to stand there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::sys::signal::{Signal, kill};

use crate::support::*;

/// Puts something in the place of nats-server at once, as a package manager does.
fn put(broker: &Broker, make: impl FnOnce(&Path)) {
    let next = broker.path("next");
    make(&next);
    fs::rename(next, broker.path("nats-server")).unwrap();
}

fn script(text: &str, mode: u32) -> impl FnOnce(&Path) {
    move |path| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn real(path: &Path) {
    symlink(nats_server(CURRENT), path).unwrap();
}

/// Waits until it is said why no server is started.
fn held(broker: &Broker, parts: &[&str]) {
    wait_for(&format!("{parts:?}"), || {
        let reason = broker.health()["checks"]["nats_server"]["reason"].as_str().unwrap_or_default().to_owned();
        (broker.state() == "degraded" && parts.iter().all(|part| reason.contains(part))).then_some(())
    });
    assert_eq!(http_get(&broker.api("/readyz")).0, 503);
    assert_eq!(http_get(&broker.api("/livez")).0, 200);
}

#[test]
fn what_is_no_nats_server_any_more_is_named_and_waited_out() {
    let mut broker = Broker::new();
    put(&broker, real);
    let place = broker.path("nats-server");
    broker.set("NATS_SERVER_BIN", place.display()).set("RESTART_BACKOFF_MAX", "100ms").start();
    let shell = format!("touch {}\n", broker.path("made-by-a-shell").display());
    let old = "#!/bin/sh\necho nats-server: v2.9.25\n";
    for (number, (text, mode, told)) in [
        (None, 0, "No such file"),
        (Some(shell.as_str()), 0o755, "it is not a program"),
        (Some("\u{7f}ELF nonsense"), 0o755, "not a program for this machine"),
        (Some(old), 0o644, "not executable (mode 0644)"),
        (Some("#!/bin/sh\necho hello\n"), 0o755, "answers --version with \"hello\""),
        (Some(old), 0o755, "it is version 2.9.25"),
        (Some("#!/bin/sh\nexec /bin/sleep 1000\n"), 0o755, "does not answer --version within 4 s"),
    ]
    .into_iter()
    .enumerate()
    {
        match text {
            None => fs::remove_file(&place).unwrap(),
            Some(text) => put(&broker, script(text, mode)),
        }
        kill(broker.server_pid(), Signal::SIGKILL).unwrap();
        held(&broker, &[told, "NATS_SERVER_BIN", place.to_str().unwrap(), "goes on by itself"]);
        put(&broker, real);
        broker.wait_until_ready();
        // It is the deaths that count, and nothing else.
        assert_eq!(broker.restarts(), Some(number as u64 + 1));
    }
    assert!(!broker.path("made-by-a-shell").exists(), "nobody ran it");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn without_a_store_it_is_named_as_well() {
    let mut broker = Broker::new();
    put(&broker, real);
    let place = broker.path("nats-server");
    broker.set("NATS_SERVER_BIN", place.display()).set("JETSTREAM_ENABLED", "false").start();
    fs::remove_file(&place).unwrap();
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    held(&broker, &["No such file", "NATS_SERVER_BIN", place.to_str().unwrap()]);
    put(&broker, real);
    broker.wait_until_ready();
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_reload_names_what_it_cannot_ask() {
    let mut broker = Broker::new();
    put(&broker, real);
    let place = broker.path("nats-server");
    broker.set("NATS_SERVER_BIN", place.display()).start();
    fs::remove_file(&place).unwrap();
    broker.signal(Signal::SIGHUP);
    let settings = || broker.health()["checks"]["settings"]["detail"].as_str().map(str::to_owned);
    let told = wait_for("/health says so", settings);
    assert!(told.contains(&format!("cannot run {}: No such file", place.display())), "{told}");
    put(&broker, real);
    broker.signal(Signal::SIGHUP);
    wait_for("and that it is over", || settings().is_none().then_some(()));
    assert_eq!(broker.stop(), Some(0));
}
