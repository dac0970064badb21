//! Times at which periodic work is due. All of it counts from one moment, so that an idle broker wakes
//! once for everything that is due then, and not for each.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// The last multiple of `period` since that moment that is not after `latest`.
pub fn by(latest: Instant, period: Duration) -> Instant {
    let since = latest.saturating_duration_since(origin());
    let beyond = since.as_nanos().checked_rem(period.as_nanos()).unwrap_or_default();
    latest - Duration::from_nanos(u64::try_from(beyond).unwrap_or_default())
}

/// A tick every `period`, the first within one. What comes too late is not made up for.
pub fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(by(Instant::now() + period, period), period);
    // Late once is not late for ever: the next tick is on time again.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_with_the_same_period_is_due_at_the_same_time() {
        const PERIOD: Duration = Duration::from_millis(500);
        let first = every(PERIOD).tick().await;
        tokio::time::advance(Duration::from_millis(123)).await;
        let second = every(PERIOD).tick().await;
        assert_eq!(second, first + PERIOD);
        let rarer = every(PERIOD * 2).tick().await;
        assert_eq!((rarer - first).as_millis() % PERIOD.as_millis(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_is_brought_forward_by_less_than_a_period() {
        const PERIOD: Duration = Duration::from_secs(1);
        let now = Instant::now();
        for millis in [1000, 1234, 1999, 60_000] {
            let latest = now + Duration::from_millis(millis);
            let at = by(latest, PERIOD);
            assert!(at <= latest && latest < at + PERIOD, "{millis}");
            assert_eq!(at, by(at, PERIOD), "{millis}");
        }
    }
}
