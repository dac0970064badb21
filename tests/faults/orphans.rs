//! A thousand orphans for process 1, and what `docker exec` leaves behind.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::container::Container;
use crate::harness::{Run, Shape, dose, open_descriptors, strangers_below, wait_within};
use crate::support::{cannot_run, children_of, comm, is_root};

const ORPHANS: usize = 1_000;

#[test]
fn a_thousand_orphans() {
    const TEST: &str = "a_thousand_orphans";
    if !is_root() {
        return cannot_run(TEST, "a process namespace needs root");
    }
    let mut run = Run::of(TEST);
    run.launch_through("unshare", &["--pid", "--fork", "--kill-child", "--"]);
    run.broker.wait_until_ready();
    let init = children_of(run.broker.pid())[0];
    assert_eq!(comm(init), "unified-nats");
    let descriptors = open_descriptors(init);
    run.load(Shape::default());
    for _ in 0..dose(1, 10) {
        // A shell inside the namespace leaves children behind, which the namespace's process 1 adopts.
        let script = format!("for i in $(seq {ORPHANS}); do (exit 7) & done; sleep 0.01 & exit 0");
        let mut entered = Command::new("nsenter");
        entered.args(["--target", &init.to_string(), "--pid", "--", "sh", "-c", &script]);
        assert!(entered.status().unwrap().success());
        run.injected();
        expect_nobody_below(&mut run, init);
        // Among so many deaths that of the server is its own.
        let restarts = run.restarts();
        kill(children_of(init)[0], Signal::SIGKILL).unwrap();
        let restarted = wait_within(Duration::from_secs(30), || (run.restarts() == restarts + 1).then_some(()));
        run.require(restarted.is_some(), || "the killed server was not restarted".into());
        run.wait_until_ready(Duration::from_secs(30));
    }
    run.settle();
    let now = open_descriptors(init);
    run.require(now <= descriptors + 3, || format!("{now} descriptors are open, {descriptors} at first"));
    kill(init, Signal::SIGTERM).unwrap();
    let code = run.broker.wait();
    run.require(code == Some(0), || format!("the stop ended with {code:?}"));
    run.finish_stopped();
}

fn expect_nobody_below(run: &mut Run, init: Pid) {
    let buried = wait_within(Duration::from_secs(15), || strangers_below(init).is_empty().then_some(()));
    run.require(buried.is_some(), || format!("{} processes are not buried", strangers_below(init).len()));
}

#[test]
fn docker_exec_leaves_no_zombies() {
    const TEST: &str = "docker_exec_leaves_no_zombies";
    let mut run = Run::of(TEST);
    let Some(container) = Container::start(TEST, &run, &[]) else { return };
    run.wait_until_ready(Duration::from_secs(60));
    run.load(Shape::default());
    let init = container.init();
    for _ in 0..dose(1, 10) {
        for _ in 0..10 {
            let script = format!("for i in $(seq {}); do (exit 7) & done; sleep 0.01 & exit 0", ORPHANS / 10);
            container.exec(&["sh", "-c", &script]);
        }
        // One that is ended half-way.
        let mut check = container.start_exec(&["sh", "-c", "sleep 0.2 & sleep 0.1 & kill -9 $$"]);
        run.pause(0..=50);
        let _ = check.kill();
        check.wait().unwrap();
        run.injected();
        expect_nobody_below(&mut run, init);
    }
    run.settle();
    let code = container.stop();
    run.require(code == Some(0), || format!("the stop ended with {code:?}"));
    run.finish_stopped();
}
