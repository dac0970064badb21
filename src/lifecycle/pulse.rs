//! Shows that the control side turns: whatever keeps its thread keeps the pulse from being given.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::ticks;

/// Between two signs. The probe of the server is due then as well, so that this wakes nobody.
const PERIOD: Duration = Duration::from_secs(1);

/// Gives it for ever.
pub async fn give(pulse: watch::Sender<Instant>) {
    let mut ticks = ticks::every(PERIOD);
    loop {
        ticks.tick().await;
        pulse.send_replace(Instant::now());
    }
}
