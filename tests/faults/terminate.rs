//! SIGTERM under full load: nothing that was acknowledged is lost, and the end is clean and in time.

use std::time::{Duration, Instant};

use crate::harness::{Run, Shape, dose};

const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);

#[test]
fn terminate_under_load() {
    let mut run = Run::of("terminate_under_load");
    run.broker.set("SHUTDOWN_TIMEOUT", SHUTDOWN_TIMEOUT.as_secs());
    run.start().load(Shape { rate: 4_000, ..Shape::default() });
    for _ in 0..dose(10, 100) {
        run.pause(500..=2_000);
        run.check_processes();
        let asked = Instant::now();
        let code = run.broker.stop();
        let took = asked.elapsed();
        run.note_longest("longest_stop_ms", took);
        run.injected();
        run.require(code == Some(0), || format!("the exit code is {code:?}"));
        run.require(took < SHUTDOWN_TIMEOUT, || format!("the stop took {took:?}"));
        run.start();
        run.wait_for_acknowledged(100);
    }
    run.finish();
}
