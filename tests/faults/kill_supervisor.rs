//! kill -9 of the supervisor: the server goes with it, the next start is clean.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{Run, Shape, dose, servers_of, wait_within};

#[test]
fn kill_supervisor() {
    let mut run = Run::of("kill_supervisor");
    run.start().load(Shape::default());
    for _ in 0..dose(10, 100) {
        run.pause(200..=2_000);
        run.check_processes();
        run.broker.signal(Signal::SIGKILL);
        run.broker.wait();
        run.injected();
        let directory = run.broker.directory.path().to_owned();
        let gone = wait_within(Duration::from_secs(5), || servers_of(&directory).is_empty().then_some(()));
        run.require(gone.is_some(), || "nats-server outlived its supervisor".into());
        run.start();
        run.wait_for_acknowledged(100);
    }
    run.finish();
}
