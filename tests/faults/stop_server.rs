//! SIGSTOP of nats-server: a short stop is sat out, a server that hangs is replaced.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::harness::{Run, Shape, dose, is_full, millis, wait_within};
use crate::support::{http_get, is_alive};

/// HEALTH_HANG_TIMEOUT of this test.
const HANG_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter stops leave no doubt that the server did not hang long enough.
const SURELY_SHORT: Duration = Duration::from_secs(8);
/// SIGTERM, 5 s, SIGKILL, another server; and a margin for a machine that is busy.
const REPLACED_WITHIN: Duration = Duration::from_secs(25);

#[test]
fn stop_server() {
    let mut run = Run::of("stop_server");
    run.broker.set("HEALTH_PROBE_INTERVAL", "500ms").set("HEALTH_FAILURE_THRESHOLD", 3);
    run.broker.set("HEALTH_HANG_TIMEOUT", HANG_TIMEOUT.as_secs());
    run.start().load(Shape::default());
    let longest = if is_full() { 120_000 } else { 20_000 };
    for round in 0..dose(5, 50) {
        // Both kinds in every dose, however small.
        let length = match round % 5 {
            0 => millis(&mut run.choices, 3_000..=7_000),
            1 => millis(&mut run.choices, 16_000..=longest),
            2 | 3 => millis(&mut run.choices, 1_000..=7_500),
            _ => millis(&mut run.choices, 1_000..=longest),
        };
        // A server that has not been healthy for five seconds is not replaced at once, each time later.
        let settled = if length < SURELY_SHORT { 500..=2_000 } else { 6_000..=8_000 };
        run.pause(settled);
        stop_for(&mut run, length);
    }
    run.finish();
}

fn stop_for(run: &mut Run, length: Duration) {
    let server = run.broker.server_pid();
    let restarts = run.restarts();
    kill(server, Signal::SIGSTOP).unwrap();
    let stopped = Instant::now();
    run.injected();
    if length > Duration::from_millis(2_500) {
        let readyz = run.broker.api("/readyz");
        // 2 s are promised.
        let noticed = wait_within(Duration::from_millis(3_500), || (http_get(&readyz).0 == 503).then_some(()));
        run.require(noticed.is_some(), || "a server that has been stopped for 3.5 s counts as ready".into());
    }
    std::thread::sleep(length.saturating_sub(stopped.elapsed()));
    if length < SURELY_SHORT {
        kill(server, Signal::SIGCONT).unwrap();
        run.wait_until_ready(Duration::from_secs(15));
        let now = run.restarts();
        run.require(now == restarts && is_alive(server), || format!("restarted after a stop of {length:?}"));
    } else if length > HANG_TIMEOUT + Duration::from_secs(6) {
        // The dose may be over before the server is due to be replaced; it stays stopped.
        let left = REPLACED_WITHIN.saturating_sub(stopped.elapsed());
        if !run.wait_for_another_server(server, left) {
            let _ = kill(server, Signal::SIGCONT);
        }
    } else {
        // Either is right.
        let _ = kill(server, Signal::SIGCONT);
    }
    run.wait_until_ready(Duration::from_secs(30));
    run.wait_for_acknowledged(100);
}
