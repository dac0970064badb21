//! kill -9 nats-server, 3 to 8 s apart, under 1,000 messages per second.

use crate::harness::{Run, Shape, dose};

fn kill_again_and_again(name: &'static str, sync_interval: &str) {
    let mut run = Run::of(name);
    run.broker.set("JETSTREAM_SYNC_INTERVAL", sync_interval);
    // Kills closer than 5 s make the waits longer and longer; what is tested is the return.
    run.broker.set("RESTART_BACKOFF_MAX", "200ms");
    run.start().load(Shape::default());
    for _ in 0..dose(20, 1_000) {
        run.pause(3_000..=8_000);
        run.injected();
        if !run.kill_server() {
            break;
        }
    }
    run.finish();
}

#[test]
fn kill_server_sync_default() {
    kill_again_and_again("kill_server_sync_default", "2m");
}

#[test]
fn kill_server_sync_always() {
    kill_again_and_again("kill_server_sync_always", "always");
}
