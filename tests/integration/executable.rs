//! NATS_SERVER_BIN while the broker runs: what stands there may be exchanged, and something else may
//! come to stand there.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::signal::{Signal, kill};
use serde_json::json;

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

/// A broker whose nats-server is exchanged while it runs.
fn broker_with_place(settings: &[(&str, &str)]) -> (Broker, PathBuf) {
    let mut broker = Broker::new();
    put(&broker, real);
    let place = broker.path("nats-server");
    broker.set("NATS_SERVER_BIN", place.display());
    for (name, value) in settings {
        broker.set(name, value);
    }
    broker.start();
    (broker, place)
}

/// The program in a version of its own: the text that it tells, everywhere in the file.
fn in_version(path: &Path, version: &str) {
    let mut bytes = fs::read(path).unwrap();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(CURRENT.len()).position(|piece| piece == CURRENT.as_bytes()) {
        at += found;
        bytes[at..at + CURRENT.len()].copy_from_slice(version.as_bytes());
    }
    // In its place, so that the file stays the same one.
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all(&bytes).unwrap();
}

/// A copy of nats-server at a place of its own, whose file has settled.
fn settled_copy(broker: &Broker) -> PathBuf {
    let place = broker.path("nats-server");
    fs::copy(nats_server(CURRENT), &place).unwrap();
    wait_for("the file is old enough to be known again", || {
        let changed = fs::metadata(&place).unwrap().ctime();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        (now > changed as u64 + 3).then_some(())
    });
    place
}

fn marker(broker: &Broker) -> Option<serde_json::Value> {
    serde_json::from_slice(&fs::read(broker.store().join(".unified-nats-store.json")).ok()?).ok()
}

fn newest(broker: &Broker) -> Option<serde_json::Value> {
    marker(broker).map(|marker| marker["newest_server"].clone()).filter(|newest| !newest.is_null())
}

/// The exit code and the words of a start that is refused.
fn refused(broker: &Broker) -> (Option<i32>, String) {
    let output = broker.output(&["run", "--log-format", "text"]);
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn a_program_that_the_store_knows_is_not_asked_and_one_that_was_changed_in_place_is() {
    let mut broker = Broker::new();
    let place = settled_copy(&broker);
    broker.set("NATS_SERVER_BIN", place.display()).start();
    wait_for("its version is noted", || newest(&broker).filter(|version| *version == json!([2, 15, 1])));
    assert_eq!(broker.stop(), Some(0));
    // A version that no program tells: only the marker can be where it comes from.
    let mut known = marker(&broker).unwrap();
    assert_eq!(known["program"]["version"], json!([2, 15, 1]), "{known}");
    known["program"]["version"] = json!([2, 15, 77]);
    fs::write(broker.store().join(".unified-nats-store.json"), known.to_string()).unwrap();
    broker.start();
    assert_eq!(newest(&broker), Some(json!([2, 15, 77])));
    assert_eq!(broker.stop(), Some(0));

    let before = fs::metadata(&place).unwrap();
    in_version(&place, "2.15.0");
    fs::File::options().write(true).open(&place).unwrap().set_modified(before.modified().unwrap()).unwrap();
    let after = fs::metadata(&place).unwrap();
    let identity = |of: &fs::Metadata| (of.ino(), of.len(), of.mtime(), of.mtime_nsec());
    assert_eq!(identity(&after), identity(&before));
    let (code, text) = refused(&broker);
    assert_eq!(code, Some(78), "{text}");
    for part in ["which is version 2.15.0", "was written by version 2.15.77", "NATS_SERVER_ALLOW_DOWNGRADE"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_is_launched_unasked_over_an_empty_store_is_refused_in_the_same_words() {
    for (version, told) in
        [(Some("2.09.1"), "it is version 2.9.1, and at least 2.10 is needed"), (None, "answers --version with")]
    {
        let mut broker = Broker::new();
        let place = broker.path("nats-server");
        match version {
            Some(version) => {
                fs::copy(nats_server(CURRENT), &place).unwrap();
                in_version(&place, version);
            }
            None => _ = fs::copy("/bin/true", &place).unwrap(),
        }
        broker.set("NATS_SERVER_BIN", place.display());
        let (code, text) = refused(&broker);
        assert_eq!(code, Some(69), "{text}");
        assert!(text.contains(told) && text.contains("NATS_SERVER_BIN"), "{told}: {text}");
        assert_eq!(newest(&broker), None, "it is not said to have written the store");
        // What it has written is asked about by the next start, which has somebody to ask.
        broker.set("NATS_SERVER_BIN", nats_server(CURRENT).display()).start();
        wait_for("the version is noted", || newest(&broker));
        assert_eq!(broker.stop(), Some(0));
    }
}

#[test]
fn what_is_no_nats_server_any_more_is_named_and_waited_out() {
    let (mut broker, place) = broker_with_place(&[("RESTART_BACKOFF_MAX", "100ms")]);
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
    let (mut broker, place) = broker_with_place(&[("JETSTREAM_ENABLED", "false")]);
    fs::remove_file(&place).unwrap();
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    held(&broker, &["No such file", "NATS_SERVER_BIN", place.to_str().unwrap()]);
    put(&broker, real);
    broker.wait_until_ready();
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_reload_names_what_it_cannot_ask() {
    let (mut broker, place) = broker_with_place(&[]);
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
