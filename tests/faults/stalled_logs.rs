//! Nobody reads standard output any more; the disk of the log file stalls. The data goes on.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::harness::disk::StallingDisk;
use crate::harness::{Run, Shape, dose, resident_kilobytes, wait_within};
use crate::support::{cannot_run, is_root};

/// More than a supervisor may gain by lines that nobody takes.
const MEMORY_GAIN: u64 = 64 << 10;

/// Every message in nats-server's log: thousands of lines per second.
fn talkative(run: &mut Run) {
    run.broker.set("NATS_DEBUG", true).set("NATS_TRACE", true).set("LOG_LEVEL", "DEBUG");
}

/// Load while lines cannot go anywhere, and a server that dies meanwhile.
fn work_while_stalled(run: &mut Run) {
    let before = resident_kilobytes(run.broker.pid());
    run.wait_for_acknowledged(5_000);
    run.kill_server();
    run.wait_for_acknowledged(2_000);
    let gain = resident_kilobytes(run.broker.pid()).saturating_sub(before);
    run.require(gain < MEMORY_GAIN, || format!("the supervisor grew by {gain} kB"));
    run.note("memory_gain_kilobytes", gain);
}

#[test]
fn stalled_stdout_reader() {
    let mut run = Run::of("stalled_stdout_reader");
    talkative(&mut run);
    let pipe = run.broker.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut reader = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&pipe).unwrap();
    run.launch_through("sh", &["-c", "exec \"$@\" >pipe", "sh"]);
    run.broker.wait_until_ready();
    run.remember_descriptors();
    run.load(Shape::default());
    for _ in 0..dose(1, 10) {
        run.injected();
        work_while_stalled(&mut run);
        // The reader wakes up: lines come again.
        let mut chunk = vec![0; 1 << 20];
        let mut total = 0;
        let flows = wait_within(Duration::from_secs(10), || {
            total += reader.read(&mut chunk).unwrap_or_default();
            (total > 1 << 20).then_some(())
        });
        run.require(flows.is_some(), || format!("{total} bytes came out after the stall"));
    }
    // It stalls again, and the stop must not wait for it.
    run.wait_for_acknowledged(2_000);
    run.finish();
}

#[test]
fn stalled_log_disk() {
    const TEST: &str = "stalled_log_disk";
    if !is_root() {
        return cannot_run(TEST, "mounting a file system needs root");
    }
    let mut run = Run::of(TEST);
    talkative(&mut run);
    let logs = run.broker.path("logs");
    let Some(disk) = StallingDisk::mount(&logs, &run.broker.path("disk.img")) else {
        return cannot_run(TEST, "there is no loop device");
    };
    run.broker.set("NATS_LOG_FILE", logs.join("nats.log").display()).set("NATS_LOG_MAX_SIZE", "4MB");
    run.broker.set("NATS_LOG_MAX_FILES", 2);
    run.start().load(Shape::default());
    for _ in 0..dose(1, 10) {
        disk.stall();
        run.injected();
        work_while_stalled(&mut run);
        disk.go_on();
        run.wait_for_acknowledged(1_000);
    }
    run.finish();
}
