//! Files of the store damaged while the broker is down: it may lose what nats-server cannot save,
//! but it never says healthy while something is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::Signal;

use crate::harness::{Acknowledged, Findings, Run, STREAM, Shape, dose, try_read_stream, wait_within};

/// Several blocks of 4 MB.
const MESSAGES: u64 = 6_000;
const LENGTH: usize = 2_000;

/// What the supervisor says about a damaged store.
enum Verdict {
    Healthy,
    /// It says that something is wrong.
    Unhealthy(String),
    Ended(Option<i32>),
    Undecided(String),
}

impl Verdict {
    fn describe(&self) -> String {
        match self {
            Self::Healthy => "healthy".into(),
            Self::Unhealthy(why) => format!("not healthy, {why}"),
            Self::Ended(code) => format!("ended with {code:?}"),
            Self::Undecided(_) => "undecided".into(),
        }
    }
}

#[test]
fn corrupted_store() {
    let mut run = Run::of("corrupted_store");
    run.broker.set("STREAM_MAX_BYTES", "64MB").set("RESTART_MAX", 10).set("HEALTH_CHECK_INTERVAL", "500ms");
    run.start().load(Shape { rate: 20_000, length: LENGTH, ..Shape::default() });
    run.wait_for_acknowledged(MESSAGES);
    let ledger = run.stop_load();
    // The supervisor looks at the stream's end now and then: what was acknowledged right before a
    // kill, and is gone with the file, nobody but the ledger knows.
    run.pause(3_000..=3_000);
    let sound = [run.broker.path("killed"), run.broker.path("stopped")];
    run.broker.signal(Signal::SIGKILL);
    run.broker.wait();
    copy(&run.broker.store(), &sound[0]);
    run.start();
    assert_eq!(run.broker.stop(), Some(0));
    copy(&run.broker.store(), &sound[1]);

    run.note("messages", ledger.len());
    let (mut told, mut harmless) = (0, 0);
    for _ in 0..dose(20, 300) {
        let kind = run.choices.usize(0..sound.len());
        fs::remove_dir_all(run.broker.store()).unwrap();
        copy(&sound[kind], &run.broker.store());
        let damage = damage(&run.broker.store(), &mut run.choices);
        let damage = format!("{}, {damage}", ["killed", "stopped"][kind]);
        run.injected();
        run.broker.launch();
        let verdict = verdict(&mut run);
        println!("{damage}: {}", verdict.describe());
        match judge(&mut run, &ledger, &verdict) {
            Err(problem) => run.violation(format!("{damage}: {problem}")),
            Ok(()) if matches!(verdict, Verdict::Healthy) => harmless += 1,
            Ok(()) => told += 1,
        }
        if !matches!(verdict, Verdict::Ended(_)) {
            let code = run.broker.stop();
            run.require(code == Some(0), || format!("{damage}: the stop ended with {code:?}"));
        }
    }
    run.note("told", told);
    run.note("harmless", harmless);
    run.finish_stopped();
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("--archive").args([from, to]).status().unwrap().success());
}

/// Damages one file; tells what was done.
fn damage(store: &Path, choices: &mut Rng) -> String {
    let stream = store.join("jetstream/$G/streams").join(STREAM);
    let blocks = stream.join("msgs");
    let mut kinds: Vec<Vec<PathBuf>> = vec![
        files(&blocks, |name| name.ends_with(".blk")),
        files(&blocks, |name| name == "index.db"),
        files(&stream, |name| name == "meta.inf"),
        files(&stream, |name| name == "meta.sum"),
    ];
    kinds.retain(|kind| !kind.is_empty());
    let kind = &kinds[choices.usize(..kinds.len())];
    let file = &kind[choices.usize(..kind.len())];
    let mut bytes = fs::read(file).unwrap();
    let at = choices.usize(..bytes.len().max(1));
    let done = match choices.usize(..3) {
        0 => {
            let bit = 1 << choices.u8(..8);
            bytes[at] ^= bit;
            fs::write(file, &bytes).unwrap();
            format!("bit {bit:#x} of byte {at} flipped")
        }
        1 => {
            fs::write(file, &bytes[..at]).unwrap();
            format!("cut to {at} bytes")
        }
        _ => {
            fs::remove_file(file).unwrap();
            "deleted".into()
        }
    };
    format!("{} of {} bytes {done}", file.file_name().unwrap().to_string_lossy(), bytes.len())
}

fn files(directory: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        entries.filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&is_wanted)).collect();
    // The order of a directory is not the seed's.
    files.sort();
    files
}

fn verdict(run: &mut Run) -> Verdict {
    let mut unhealthy_since: Option<Instant> = None;
    let mut last = serde_json::Value::Null;
    let verdict = wait_within(Duration::from_secs(60), || {
        if run.broker.has_ended() {
            return Some(Verdict::Ended(run.broker.wait()));
        }
        let health = run.broker.health();
        let integrity = &health["checks"]["integrity"];
        let state = &health["checks"]["nats_server"]["state"];
        if health["status"] == "healthy" {
            return Some(Verdict::Healthy);
        }
        if integrity["status"] == "fail" {
            return Some(Verdict::Unhealthy(integrity.to_string()));
        }
        // A start is not healthy for a moment; what stays so has been told.
        let impaired = ["degraded", "restarting"].iter().any(|name| state == name);
        let since = unhealthy_since.filter(|_| impaired).unwrap_or_else(Instant::now);
        unhealthy_since = Some(since);
        last = health;
        (since.elapsed() > Duration::from_secs(5))
            .then(|| Verdict::Unhealthy(last["checks"]["nats_server"].to_string()))
    });
    verdict.unwrap_or_else(|| Verdict::Undecided(last.to_string()))
}

fn judge(run: &mut Run, ledger: &[Acknowledged], verdict: &Verdict) -> Result<(), String> {
    match verdict {
        Verdict::Healthy => {
            let found = Findings::of(ledger, &try_read_stream(&run.broker)?);
            if found.lost > 0 { Err(format!("healthy, but {}", found.violations.join("; "))) } else { Ok(()) }
        }
        Verdict::Unhealthy(_) | Verdict::Ended(Some(75 | 78)) => Ok(()),
        Verdict::Ended(code) => Err(format!("the broker ended with {code:?}")),
        Verdict::Undecided(health) => Err(format!("no verdict within a minute: {health}")),
    }
}
