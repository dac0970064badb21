//! Every processor busy with something else: slow is not hung. An hour of it is measured by
//! `scripts/bench.sh --hour`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::{Run, Shape, dose};

/// Longer than HEALTH_HANG_TIMEOUT by default.
const ROUND: Duration = Duration::from_secs(20);
/// Busy threads for each processor, beside the broker and its clients.
const OVERCOMMITMENT: usize = 2;

#[test]
fn cpu_load_restarts_nothing() {
    let mut run = Run::of("cpu_load_restarts_nothing");
    run.start().load(Shape::default());
    let server = run.broker.server_pid();
    for _ in 0..dose(1, 15) {
        run.injected();
        let over = AtomicBool::new(false);
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..processors * OVERCOMMITMENT {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::hint::spin_loop()
                    }
                });
            }
            std::thread::sleep(ROUND);
            over.store(true, Ordering::Relaxed);
        });
        let (now, restarts) = (run.broker.server_pid(), run.restarts());
        run.require(now == server, || format!("restarted under load: {restarts:?} restarts"));
    }
    run.wait_until_ready(Duration::from_secs(15));
    run.wait_for_acknowledged(100);
    run.finish();
}
