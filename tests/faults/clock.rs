//! The clock jumps by minutes to years while the broker runs: nothing is restarted, nothing expires.
//!
//! Only the supervisor sees the jumps: nats-server is a static Go program that asks the kernel
//! itself, and its environment is cleared anyway. Setting the machine's clock would disturb others.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::harness::{Run, Shape, dose, wait_within};
use crate::support::cannot_run;

#[test]
fn clock_jumps() {
    const TEST: &str = "clock_jumps";
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    if !Path::new(&library).exists() {
        return cannot_run(TEST, "libfaketime is not installed");
    }
    let mut run = Run::of(TEST);
    let clock = run.broker.path("clock");
    let jump = |seconds: i64| fs::write(&clock, format!("{seconds:+}\n")).unwrap();
    jump(0);
    run.broker.set("LD_PRELOAD", library).set("FAKETIME_TIMESTAMP_FILE", clock.display());
    // As with a real jump, the monotonic clock goes on.
    run.broker.set("FAKETIME_DONT_FAKE_MONOTONIC", 1).set("FAKETIME_NO_CACHE", 1);
    run.broker.set("HEALTH_CHECK_INTERVAL", "500ms");
    run.start().load(Shape::default());
    for _ in 0..dose(1, 20) {
        let before = run.broker.health()["timestamp"].clone();
        // At least a year at times: whatever counts in wall-clock time is off by far.
        let days = run.choices.i64(1..=400);
        let forth = if run.choices.bool() { days } else { -days };
        jump(forth * 86_400);
        run.injected();
        let day = |timestamp: &serde_json::Value| timestamp.as_str().map(|text| text[..10].to_owned());
        let seen = wait_within(Duration::from_secs(5), || {
            (day(&run.broker.health()["timestamp"]) != day(&before)).then_some(())
        });
        run.require(seen.is_some(), || "the supervisor did not see the clock jump: this proves nothing".into());
        run.pause(2_000..=4_000);
        jump(run.choices.i64(-300..=300));
        run.pause(2_000..=4_000);
        let (restarts, ready) = (run.restarts(), run.is_ready());
        run.require(restarts == 0 && ready, || format!("{restarts} restarts, ready: {ready}"));
    }
    run.finish();
}
