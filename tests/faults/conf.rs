//! nats.conf damaged while the server runs, and a supervisor that is killed while it writes it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::harness::{Run, Shape, dose, is_full, millis, servers_of, wait_within};
use crate::support::{cannot_run, children_of, is_root};

/// Little load: what is tested is the file.
const TRICKLE: Shape = Shape { producers: 4, rate: 100, length: 200, records: crate::harness::Records::Acknowledged };

fn conf_file(run: &Run) -> PathBuf {
    run.broker.path("run/nats.conf")
}

#[test]
fn conf_truncated_at_every_byte() {
    let mut run = Run::of("conf_truncated_at_every_byte");
    run.broker.set("RESTART_BACKOFF_MIN", 0).set("RESTART_BACKOFF_MAX", 0);
    run.start().load(TRICKLE);
    let conf = conf_file(&run);
    let whole = fs::read(&conf).unwrap();
    for length in 0..whole.len() {
        OpenOptions::new().write(true).open(&conf).unwrap().set_len(length as u64).unwrap();
        run.injected();
        let back = run.kill_server();
        let now = fs::read(&conf).unwrap();
        run.require(now == whole, || format!("cut to {length} bytes, nats.conf is not what it was"));
        if !back {
            break;
        }
    }
    run.note("offsets", whole.len());
    run.finish();
}

/// As process 1, every supervisor has the same temporary file.
#[test]
fn conf_leftover_of_process_1() {
    const TEST: &str = "conf_leftover_of_process_1";
    if !is_root() {
        return cannot_run(TEST, "a process namespace needs root");
    }
    let mut run = Run::of(TEST);
    run.start();
    let conf = conf_file(&run);
    let whole = fs::read(&conf).unwrap();
    assert_eq!(run.broker.stop(), Some(0));
    let leftover = conf.with_file_name("nats.conf.1.tmp");
    let lengths = if is_full() { 0..whole.len() } else { 0..8 };
    for round in lengths {
        let length = if is_full() { round } else { run.choices.usize(0..whole.len()) };
        fs::write(&leftover, &whole[..length]).unwrap();
        // Of somebody careless: the secrets in the new file must not inherit it.
        fs::set_permissions(&leftover, fs::Permissions::from_mode(0o644)).unwrap();
        fs::remove_file(&conf).unwrap();
        run.injected();
        run.launch_through("unshare", &["--pid", "--fork", "--kill-child", "--"]);
        run.broker.wait_until_ready();
        let mode = fs::metadata(&conf).unwrap().permissions().mode() & 0o777;
        let same = fs::read(&conf).unwrap() == whole;
        run.require(same && mode == 0o600, || format!("nats.conf is whole: {same}, mode {mode:o}"));
        run.require(!leftover.exists(), || "the leftover is still there".into());
        kill(children_of(run.broker.pid())[0], Signal::SIGTERM).unwrap();
        let code = run.broker.wait();
        run.require(code == Some(0), || format!("the stop ended with {code:?}"));
    }
    run.finish_stopped();
}

#[test]
fn conf_supervisor_killed_while_it_starts() {
    let mut run = Run::of("conf_supervisor_killed_while_it_starts");
    run.start();
    let conf = conf_file(&run);
    let whole = fs::read(&conf).unwrap();
    assert_eq!(run.broker.stop(), Some(0));
    for _ in 0..dose(100, 1_000) {
        let _ = fs::remove_file(&conf);
        run.broker.launch();
        // A start takes about this long; nats.conf is written somewhere in it.
        std::thread::sleep(millis(&mut run.choices, 0..=20));
        run.broker.signal(Signal::SIGKILL);
        run.broker.wait();
        run.injected();
        let torn = fs::read(&conf).is_ok_and(|now| now != whole);
        run.require(!torn, || "half of a nats.conf is in its place".into());
    }
    let directory = run.broker.directory.path().to_owned();
    wait_within(Duration::from_secs(5), || servers_of(&directory).is_empty().then_some(()));
    let left = fs::read_dir(conf.parent().unwrap()).unwrap().flatten().map(|entry| entry.file_name());
    let left: Vec<_> = left.map(|name| name.to_string_lossy().into_owned()).collect();
    run.note("left_beside_nats_conf", left);
    run.start();
    let now = fs::read(&conf).unwrap();
    run.require(now == whole, || "nats.conf is not what it was".into());
    run.finish();
}
