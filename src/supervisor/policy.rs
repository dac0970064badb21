use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::settings::SupervisionSettings;

/// Decides whether and when a server that died is started again.
///
/// A server that had been healthy for [`SETTLED`] is restarted at once. Further deaths wait,
/// doubling from the least to the longest backoff, until one has been healthy for
/// [`FORGIVEN`]. More restarts in the window than allowed: give up.
#[derive(Debug)]
pub struct RestartPolicy {
    backoff_min: Duration,
    backoff_max: Duration,
    restart_max: usize,
    window: Duration,
    restarts: VecDeque<Instant>,
    /// Deaths that had to wait since the last forgiveness.
    strikes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    RestartAfter(Duration),
    GiveUp,
}

const SETTLED: Duration = Duration::from_secs(5);
const FORGIVEN: Duration = Duration::from_secs(60);

impl RestartPolicy {
    pub fn new(settings: &SupervisionSettings) -> Self {
        Self {
            backoff_min: settings.backoff_min,
            backoff_max: settings.backoff_max,
            restart_max: settings.restart_max,
            window: settings.restart_window,
            restarts: VecDeque::new(),
            strikes: 0,
        }
    }

    /// When servers were started again, as far as that counts against those that are allowed.
    pub fn recent(&self) -> Vec<Instant> {
        self.restarts.iter().copied().collect()
    }

    /// What to do about a death at `now` of a server that had been healthy for `healthy_for`.
    /// `jitter` is from 0 to 1 and shortens a wait by up to a quarter.
    pub fn on_death(&mut self, now: Instant, healthy_for: Duration, jitter: f64) -> Decision {
        while self.restarts.front().is_some_and(|at| now.duration_since(*at) > self.window) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= self.restart_max {
            return Decision::GiveUp;
        }
        self.restarts.push_back(now);
        if healthy_for >= FORGIVEN {
            self.strikes = 0;
        }
        if healthy_for >= SETTLED {
            return Decision::RestartAfter(Duration::ZERO);
        }
        let doubled = self.backoff_min.saturating_mul(1 << self.strikes.min(20));
        self.strikes += 1;
        Decision::RestartAfter(doubled.min(self.backoff_max).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(max: usize) -> RestartPolicy {
        RestartPolicy {
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(30),
            restart_max: max,
            window: Duration::from_secs(300),
            restarts: VecDeque::new(),
            strikes: 0,
        }
    }

    fn wait(millis: u64) -> Decision {
        Decision::RestartAfter(Duration::from_millis(millis))
    }

    #[test]
    fn a_settled_server_comes_back_at_once_and_a_failing_one_waits_longer_each_time() {
        let mut policy = policy(100);
        let now = Instant::now();
        assert_eq!(policy.on_death(now, Duration::from_secs(5), 0.0), wait(0));
        for expected in [50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000] {
            assert_eq!(policy.on_death(now, Duration::ZERO, 0.0), wait(expected));
        }
        assert_eq!(policy.on_death(now, Duration::from_secs(5), 0.0), wait(0));
        assert_eq!(policy.on_death(now, Duration::ZERO, 0.0), wait(30000), "5 s do not forgive");
        assert_eq!(policy.on_death(now, Duration::from_secs(60), 0.0), wait(0));
        assert_eq!(policy.on_death(now, Duration::ZERO, 0.0), wait(50), "60 s do");
    }

    #[test]
    fn jitter_shortens_by_a_quarter_at_most() {
        assert_eq!(
            policy(9).on_death(Instant::now(), Duration::ZERO, 1.0),
            Decision::RestartAfter(Duration::from_micros(37500))
        );
    }

    #[test]
    fn the_budget_is_per_window() {
        let mut policy = policy(2);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_ne!(policy.on_death(at(0), Duration::ZERO, 0.0), Decision::GiveUp);
        assert_ne!(policy.on_death(at(1), Duration::ZERO, 0.0), Decision::GiveUp);
        assert_eq!(policy.on_death(at(2), Duration::ZERO, 0.0), Decision::GiveUp);
        assert_ne!(policy.on_death(at(302), Duration::ZERO, 0.0), Decision::GiveUp);
    }

    #[test]
    fn no_budget_means_no_restart() {
        assert_eq!(policy(0).on_death(Instant::now(), FORGIVEN, 0.0), Decision::GiveUp);
    }
}
