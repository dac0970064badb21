//! So many requests per second for each who asks, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Who is remembered in each of the two halves of the table.
const HALF: usize = 8192;

/// A generic cell rate algorithm: for each who asks there is one moment, at which all that was asked so far
/// would be done at the rate that is allowed.
pub struct RateLimit<K> {
    /// From one request to the next.
    every: Duration,
    /// How far that moment may lie ahead.
    ahead: Duration,
    seen: Mutex<Halves<K>>,
}

/// Who came lately, and who came before. Once the first is full it becomes the second, which is forgotten:
/// the table stays small, however many come, and each is remembered for as long as others leave room.
struct Halves<K> {
    lately: HashMap<K, Instant>,
    before: HashMap<K, Instant>,
}

impl<K: Hash + Eq> RateLimit<K> {
    /// So many a second in the long run, and `burst` at once.
    pub fn new(per_second: f64, burst: u32) -> Self {
        let every = Duration::from_secs_f64(1.0 / per_second);
        let seen = Mutex::new(Halves { lately: HashMap::new(), before: HashMap::new() });
        Self { every, ahead: every * burst.max(1), seen }
    }

    /// So many a second, at once or one after the other.
    pub fn per_second(rate: NonZeroU32) -> Self {
        Self::new(rate.get().into(), rate.get())
    }

    /// Counts a request, or tells how long to wait before the next.
    pub fn check(&self, who: K, now: Instant) -> Result<(), Duration> {
        let mut halves = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = halves.lately.get(&who).or_else(|| halves.before.get(&who));
        let done = known.copied().unwrap_or(now).max(now) + self.every;
        let too_far = (done - now).saturating_sub(self.ahead);
        if !too_far.is_zero() {
            return Err(too_far);
        }
        halves.put(who, done);
        Ok(())
    }

    /// Takes back one that was counted.
    pub fn forgive(&self, who: &K) {
        let mut halves = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Halves { lately, before } = &mut *halves;
        if let Some(done) = lately.get_mut(who).or_else(|| before.get_mut(who)) {
            *done = done.checked_sub(self.every).unwrap_or(*done);
        }
    }
}

impl<K: Hash + Eq> Halves<K> {
    fn put(&mut self, who: K, done: Instant) {
        if self.lately.len() >= HALF && !self.lately.contains_key(&who) {
            self.before = mem::take(&mut self.lately);
        }
        self.lately.insert(who, done);
    }
}

/// Whom an address stands for: the hosts of one IPv6 network are one client.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) >> 64 << 64;
            Ipv6Addr::from(network).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_at_once_or_one_after_the_other() {
        let limit = RateLimit::per_second(NonZeroU32::new(4).unwrap());
        let start = Instant::now();
        for _ in 0..4 {
            assert_eq!(limit.check("a", start), Ok(()));
        }
        assert_eq!(limit.check("a", start), Err(Duration::from_millis(250)));
        assert_eq!(limit.check("b", start), Ok(()), "others are not concerned");
        let later = start + Duration::from_millis(250);
        assert_eq!(limit.check("a", later), Ok(()), "a refusal costs nothing");
        assert!(limit.check("a", later).is_err());
        limit.forgive(&"a");
        assert_eq!(limit.check("a", later), Ok(()));
        let rested = start + Duration::from_secs(60);
        assert_eq!((0..9).filter(|_| limit.check("a", rested).is_ok()).count(), 4, "rest is not saved up");
    }

    #[test]
    fn the_table_is_bounded_and_who_keeps_coming_stays_known() {
        let limit = RateLimit::new(1.0, 1);
        let now = Instant::now();
        assert!(limit.check(0, now).is_ok());
        for other in 1..=HALF {
            assert!(limit.check(other, now).is_ok());
        }
        assert!(limit.check(0, now).is_err(), "still known");
        for other in 0..10 * HALF {
            let _ = limit.check(other, now);
        }
        let seen = limit.seen.lock().unwrap();
        assert!(seen.lately.len() + seen.before.len() <= 2 * HALF);
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let client = |text: &str| client_of(text.parse().unwrap());
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }
}
