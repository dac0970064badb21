use std::time::Duration;

use crate::settings::Settings;
use crate::supervisor::Timing;

/// The times that the supervisor keeps.
pub fn timing(settings: &Settings) -> Timing {
    let supervision = &settings.supervision;
    Timing {
        drain_delay: supervision.drain_delay,
        close: close_within(supervision.shutdown_timeout),
        kill_after: kill_after(supervision.shutdown_timeout),
        lame_duck: settings.server.lame_duck_duration + settings.server.lame_duck_grace + LAME_DUCK_MARGIN,
        hand_over: settings.clusters_jetstream().then(|| hand_over_within(supervision.shutdown_timeout)),
    }
}

/// What lame duck mode may take beyond what it is configured to.
const LAME_DUCK_MARGIN: Duration = Duration::from_secs(10);

/// Time for what is under way over the API when a stop begins.
fn close_within(shutdown_timeout: Duration) -> Duration {
    (shutdown_timeout / 4).min(Duration::from_secs(5))
}

/// Time for handing over; nats-server gives itself a second for it.
fn hand_over_within(shutdown_timeout: Duration) -> Duration {
    (shutdown_timeout / 2).min(Duration::from_secs(5))
}

/// Leaves a little of the shutdown time for our own end after the server was killed.
fn kill_after(shutdown_timeout: Duration) -> Duration {
    shutdown_timeout.mul_f64(0.9).max(shutdown_timeout.saturating_sub(Duration::from_secs(1)))
}
