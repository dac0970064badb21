//! What the broker lives on is replaced while it runs: its store, and nats-server itself. Nothing is
//! launched over or with what is there then, and all is as before when the right one is back.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::harness::{Run, Shape, dose, wait_within};
use crate::support::{http_get, nats_server};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until no server is launched, for that reason.
fn require_hindered(run: &mut Run, reason: &str) {
    let told = wait_within(PATIENCE, || {
        let health = run.broker.health();
        let server = &health["checks"]["nats_server"];
        let names = server["reason"].as_str().is_some_and(|told| told.contains(reason));
        (names && server["pid"].is_null()).then_some(())
    });
    run.require(told.is_some(), || format!("{reason:?} is not told"));
    let ready = http_get(&run.broker.api("/readyz")).0;
    run.require(ready == 503, || format!("/readyz answers {ready} without a server"));
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.unwrap().success());
}

#[test]
fn another_store() {
    let mut run = Run::of("another_store");
    run.broker.set("RESTART_BACKOFF_MAX", "200ms");
    run.start().load(Shape::default());
    let (place, away, other) = (run.broker.store(), run.broker.path("away"), run.broker.path("other"));
    for round in 0..dose(5, 200) {
        run.pause(500..=2_000);
        let server = run.broker.server_pid();
        let restarts = run.restarts();
        // What a server writes into a copy that is taken away again is lost, whoever looks after it.
        kill(server, Signal::SIGSTOP).unwrap();
        let reason = match round % 5 {
            0 => {
                fs::create_dir(&other).unwrap();
                "no marker"
            }
            1 => {
                copy(&place, &other);
                let marker = other.join(".unified-nats-store.json");
                fs::write(marker, r#"{"id":"another","launches":1000000}"#).unwrap();
                "another store"
            }
            2 => {
                // As it was before the last launch.
                copy(&place, &other);
                let marker = other.join(".unified-nats-store.json");
                let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&marker).unwrap()).unwrap();
                text["launches"] = 0.into();
                fs::write(marker, text.to_string()).unwrap();
                "an older copy"
            }
            3 => {
                // As it was before the last messages.
                copy(&place, &other);
                run.pause(0..=200);
                "it is a copy"
            }
            _ => "no marker",
        };
        fs::rename(&place, &away).unwrap();
        if other.exists() {
            fs::rename(&other, &place).unwrap();
        }
        run.injected();
        kill(server, Signal::SIGKILL).unwrap();
        require_hindered(&mut run, reason);
        if place.exists() {
            let made = place.join("jetstream/$G/streams/MARKET_DATA").exists();
            run.require(!made || round % 5 != 0, || "streams were made in the empty directory".into());
            fs::remove_dir_all(&place).unwrap();
        }
        fs::rename(&away, &place).unwrap();
        if !run.wait_for_another_server(server, PATIENCE) {
            break;
        }
        let now = run.restarts();
        run.require(now == restarts + 1, || format!("waiting for the store cost {} restarts", now - restarts));
        run.wait_for_acknowledged(100);
    }
    run.finish();
}

#[test]
fn another_server() {
    let mut run = Run::of("another_server");
    let (link, next) = (run.broker.path("nats-server"), run.broker.path("next"));
    let switch = |version: &str| {
        symlink(nats_server(version), &next).unwrap();
        fs::rename(&next, &link).unwrap();
    };
    let usual = crate::harness::server();
    switch(&usual);
    run.broker.set("RESTART_BACKOFF_MAX", "200ms").set("NATS_SERVER_BIN", link.display());
    run.start().load(Shape::default());
    let older = ["2.10.26", "2.11.11", "2.12.8", "2.14.6"];
    for _ in 0..dose(3, 200) {
        run.pause(500..=2_000);
        let server = run.broker.server_pid();
        let version = older[run.choices.usize(..older.len())];
        switch(version);
        run.injected();
        kill(server, Signal::SIGKILL).unwrap();
        require_hindered(&mut run, &format!("nats-server {version}"));
        switch(&usual);
        if !run.wait_for_another_server(server, PATIENCE) {
            break;
        }
        run.wait_for_acknowledged(100);
    }
    run.finish();
}

#[test]
fn signals_at_start() {
    let mut run = Run::of("signals_at_start");
    for _ in 0..dose(20, 1_000) {
        run.broker.launch();
        // Before its first instruction nobody can be prepared.
        let status = format!("/proc/{}/status", run.broker.pid());
        let holds = |field: &str| {
            let status = fs::read_to_string(&status).unwrap_or_default();
            let mask = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("0").trim().to_owned();
            u64::from_str_radix(&mask, 16).is_ok_and(|mask| mask & (1 << (Signal::SIGTERM as i32 - 1)) != 0)
        };
        while !holds("SigBlk:") && !holds("SigCgt:") {}
        for _ in 0..run.choices.usize(0..5) {
            let signals = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGCHLD];
            run.broker.signal(signals[run.choices.usize(..3)]);
            run.injected();
            std::thread::sleep(Duration::from_micros(run.choices.u64(0..5_000)));
        }
        run.broker.signal(Signal::SIGTERM);
        run.injected();
        let code = run.broker.wait();
        run.require(code == Some(0), || format!("a stop at the start ended with {code:?}"));
    }
    run.finish_stopped();
}
