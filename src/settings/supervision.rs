//! Starting, restarting, watching and stopping the server.

use std::time::Duration;

use super::reader::Reader;
use super::server::SOME_TIME;
use super::variables::*;

#[derive(Clone, Debug)]
pub struct SupervisionSettings {
    pub init_timeout: Duration,
    pub connect_timeout: Duration,
    /// [`None`] = for ever.
    pub max_reconnects: Option<usize>,
    pub shutdown_timeout: Duration,
    pub drain_delay: Duration,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    pub restart_max: usize,
    pub restart_window: Duration,
}

#[derive(Clone, Debug)]
pub struct HealthSettings {
    /// [`None`]: no periodic check.
    pub interval: Option<Duration>,
    pub timeout: Duration,
    /// Between two of the cheap probes.
    pub probe_interval: Duration,
    /// So many probes in a row that fail mean hung …
    pub failure_threshold: u32,
    /// … over at least so long.
    pub hang_timeout: Duration,
}

const MAX_COUNT: i64 = i32::MAX as i64;

impl SupervisionSettings {
    pub fn read(reader: &mut Reader) -> Self {
        let settings = Self {
            init_timeout: reader.span(&INIT_TIMEOUT, SOME_TIME),
            connect_timeout: reader.span(&NATS_CONNECT_TIMEOUT, SOME_TIME),
            max_reconnects: usize::try_from(reader.number(&NATS_MAX_RECONNECT, -1..=MAX_COUNT)).ok(),
            shutdown_timeout: reader.span(&SHUTDOWN_TIMEOUT, Duration::from_secs(1)),
            drain_delay: reader.span(&SHUTDOWN_DRAIN_DELAY, Duration::ZERO),
            backoff_min: reader.span(&RESTART_BACKOFF_MIN, Duration::ZERO),
            backoff_max: reader.span(&RESTART_BACKOFF_MAX, Duration::ZERO),
            restart_max: reader.number(&RESTART_MAX, 0..=1_000_000) as usize,
            restart_window: reader.span(&RESTART_WINDOW, SOME_TIME),
        };
        if settings.drain_delay >= settings.shutdown_timeout {
            reader.refuse(&SHUTDOWN_DRAIN_DELAY, "it leaves no time to stop");
        }
        if settings.backoff_min > settings.backoff_max {
            reader.refuse(&RESTART_BACKOFF_MIN, "it is above RESTART_BACKOFF_MAX");
        }
        settings
    }
}

impl HealthSettings {
    pub fn read(reader: &mut Reader) -> Self {
        let enabled = reader.bool(&HEALTH_CHECK_ENABLED);
        let interval = reader.span(&HEALTH_CHECK_INTERVAL, SOME_TIME);
        Self {
            interval: enabled.then_some(interval),
            timeout: reader.span(&HEALTH_CHECK_TIMEOUT, SOME_TIME),
            probe_interval: reader.span(&HEALTH_PROBE_INTERVAL, SOME_TIME),
            failure_threshold: reader.number(&HEALTH_FAILURE_THRESHOLD, 1..=MAX_COUNT) as u32,
            hang_timeout: reader.span(&HEALTH_HANG_TIMEOUT, SOME_TIME),
        }
    }
}
