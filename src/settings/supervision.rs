//! Starting, restarting, watching and stopping the server.

use std::time::Duration;

use super::reader::Reader;
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

impl SupervisionSettings {
    pub fn read(reader: &mut Reader) -> Self {
        let settings = Self {
            init_timeout: reader.span(&INIT_TIMEOUT),
            connect_timeout: reader.span(&NATS_CONNECT_TIMEOUT),
            max_reconnects: usize::try_from(reader.number(&NATS_MAX_RECONNECT)).ok(),
            shutdown_timeout: reader.span(&SHUTDOWN_TIMEOUT),
            drain_delay: reader.span(&SHUTDOWN_DRAIN_DELAY),
            backoff_min: reader.span(&RESTART_BACKOFF_MIN),
            backoff_max: reader.span(&RESTART_BACKOFF_MAX),
            restart_max: reader.number(&RESTART_MAX) as usize,
            restart_window: reader.span(&RESTART_WINDOW),
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
        let interval = reader.span(&HEALTH_CHECK_INTERVAL);
        Self {
            interval: enabled.then_some(interval),
            timeout: reader.span(&HEALTH_CHECK_TIMEOUT),
            probe_interval: reader.span(&HEALTH_PROBE_INTERVAL),
            failure_threshold: reader.number(&HEALTH_FAILURE_THRESHOLD) as u32,
            hang_timeout: reader.span(&HEALTH_HANG_TIMEOUT),
        }
    }
}
