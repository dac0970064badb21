//! The disk of the store is full and free again; a start on a disk that is nearly full.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::disk::SmallDisk;
use crate::harness::{Records, Run, Shape, dose, wait_within};
use crate::support::{cannot_run, is_root};

/// Little data, so that the small disk lasts for every cycle.
const TRICKLE: Shape = Shape { producers: 8, rate: 300, length: 200, records: Records::Acknowledged };

/// 30 s are promised.
const HEALED_WITHIN: Duration = Duration::from_secs(35);

#[test]
fn disk_full_and_free_again() {
    const TEST: &str = "disk_full_and_free_again";
    if !is_root() {
        return cannot_run(TEST, "mounting a small file system needs root");
    }
    let mut run = Run::of(TEST);
    let disk = SmallDisk::mount(&run.broker.store(), 48);
    run.start().load(TRICKLE);
    for _ in 0..dose(3, 20) {
        disk.resize(run.choices.u64(48..=128));
        run.pause(1_000..=3_000);
        if !fill_and_free(&mut run, &disk) {
            // Filling a disk on which nothing goes on any more shows nothing new.
            break;
        }
    }
    run.finish();
}

/// False when the broker did not get over it.
fn fill_and_free(run: &mut Run, disk: &SmallDisk) -> bool {
    let restarts = run.restarts();
    disk.fill_up_to(0);
    run.injected();
    let full = Instant::now();
    let blocked = wait_within(Duration::from_secs(60), || run.is_blocked_for(Duration::from_millis(500)).then_some(()));
    run.require(blocked.is_some(), || "the disk is full and messages are acknowledged all the same".into());
    run.note_longest("blocked_after_ms", full.elapsed());

    // 5 s are promised.
    let store = run.broker.store().to_str().unwrap().to_owned();
    let told = wait_within(Duration::from_secs(8), || {
        let server = &run.broker.health()["checks"]["nats_server"];
        let reason = server["reason"].as_str().unwrap_or_default().to_lowercase();
        let names_disk = ["disk", "space"].iter().any(|word| reason.contains(word));
        (server["state"] == "degraded" && reason.contains(&store.to_lowercase()) && names_disk).then_some(())
    });
    run.require(told.is_some(), || "a full disk is not told as the reason".into());
    if told.is_none() {
        let told = run.told();
        run.note("told_while_full", told);
    }

    run.pause(3_000..=8_000);
    let while_full = run.restarts() - restarts;
    run.require(while_full <= 1, || format!("{while_full} restarts while the disk was full"));
    disk.make_room();
    let free = Instant::now();
    let healed = run.wait_until_ready(HEALED_WITHIN) && run.wait_for_acknowledged(100);
    run.note_longest("healed_after_ms", free.elapsed());
    healed
}

#[test]
fn restart_on_a_nearly_full_disk() {
    const TEST: &str = "restart_on_a_nearly_full_disk";
    if !is_root() {
        return cannot_run(TEST, "mounting a small file system needs root");
    }
    let mut run = Run::of(TEST);
    let disk = SmallDisk::mount(&run.broker.store(), 64);
    run.start().load(TRICKLE);
    for round in 0..dose(2, 20) {
        run.pause(1_000..=2_000);
        disk.fill_up_to(run.choices.u64(0..=128) * 4096);
        if round % 2 == 0 {
            let code = run.broker.stop();
            run.require(code == Some(0), || format!("the stop ended with {code:?}"));
        } else {
            run.broker.signal(Signal::SIGKILL);
            run.broker.wait();
        }
        run.injected();
        run.broker.launch();
        // It says something, whatever that is; refusing the start is no way to heal.
        let answers = wait_within(Duration::from_secs(30), || run.broker.health().is_object().then_some(()));
        let lives = answers.is_some() && !run.broker.has_ended();
        run.require(lives, || "no start on a disk that is nearly full".into());
        run.pause(2_000..=4_000);
        disk.make_room();
        run.wait_until_ready(HEALED_WITHIN);
        run.remember_descriptors();
        run.wait_for_acknowledged(100);
    }
    run.finish();
}
