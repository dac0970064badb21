//! The harness proves itself: a ledger that is written before the store must be found out.

use nix::sys::signal::{Signal, kill};

use crate::harness::{Findings, Load, Records, Run, Shape, read_stream, wait_within};
use crate::support::PATIENCE;

/// Stops the server, lets producers send, kills the server, and compares what the ledger claims.
fn lost_with(name: &'static str, records: Records) -> (Run, Findings) {
    let mut run = Run::of(name);
    run.start();
    let shape = Shape { records, ..Shape::default() };
    let load = Load::start(vec![run.broker.url()], shape, run.choices.u64(..), run.broker.path("ledger"));
    let progress = load.progress.clone();
    wait_within(PATIENCE, || (progress.count() >= 100).then_some(())).expect("the producers work");
    let server = run.broker.server_pid();
    kill(server, Signal::SIGSTOP).unwrap();
    let sent = progress.count() + 100;
    match records {
        Records::Sent => wait_within(PATIENCE, || (progress.count() >= sent).then_some(())).expect("100 are sent"),
        Records::Acknowledged => wait_within(PATIENCE, || progress.view().blocked_since).map(drop).expect("they wait"),
    }
    kill(server, Signal::SIGKILL).unwrap();
    run.injected();
    run.wait_for_another_server(server, PATIENCE);
    let ledger = load.stop();
    let found = Findings::of(&ledger, &read_stream(&run.broker));
    run.note("lost_as_meant", found.lost);
    (run, found)
}

#[test]
fn control_finds_a_ledger_that_lies() {
    let (mut run, found) = lost_with("control_finds_a_ledger_that_lies", Records::Sent);
    let told = !found.violations.is_empty() && found.lost > 0;
    run.require(told, || format!("messages that were never stored went unnoticed: {found:?}"));
    run.finish();
}

#[test]
fn control_believes_an_honest_ledger() {
    let (mut run, found) = lost_with("control_believes_an_honest_ledger", Records::Acknowledged);
    run.require(found.violations.is_empty() && found.acknowledged > 0, || format!("{found:?}"));
    run.finish();
}
