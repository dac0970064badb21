//! What was asked and answered, counted.
//!
//! The labels are bounded: paths go by the template of their route, methods and statuses by their class.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::{Method, StatusCode};

/// Upper bounds of how long answers took, in seconds.
pub const BOUNDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 2.5, 10.0];

/// What requests of one kind have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKind {
    /// The template, as `/api/v1/broker/streams/{name}`; `-` for a path that nobody serves.
    pub route: Arc<str>,
    pub method: &'static str,
    /// `2xx` and the like.
    pub status: &'static str,
}

/// How many of them there were, and how long their answers took to begin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answered {
    pub count: u64,
    /// Seconds, all together.
    pub seconds: f64,
    /// How many were within each of [`BOUNDS`], and not within the one before.
    pub within: [u64; BOUNDS.len()],
}

/// Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<RwLock<HashMap<RequestKind, Counter>>>);

#[derive(Debug, Default)]
struct Counter {
    count: AtomicU64,
    micros: AtomicU64,
    within: [AtomicU64; BOUNDS.len()],
}

impl Traffic {
    pub fn count(&self, route: Option<&str>, method: &Method, status: StatusCode, took: Duration) {
        let kind = RequestKind { route: route.unwrap_or("-").into(), method: word(method), status: class(status) };
        if let Some(counter) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&kind) {
            return counter.count(took);
        }
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default().count(took);
    }

    /// So far, in order.
    pub fn so_far(&self) -> Vec<(RequestKind, Answered)> {
        let counters = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = counters.iter().map(|(kind, counter)| (kind.clone(), counter.read())).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}

impl Counter {
    fn count(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        if let Some(at) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.within[at].fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        // Last, so that no reader sees more within the bounds than there are.
        self.count.fetch_add(1, Ordering::Release);
    }

    fn read(&self) -> Answered {
        let within = self.within.each_ref().map(|within| within.load(Ordering::Relaxed));
        let count = self.count.load(Ordering::Acquire).max(within.iter().sum());
        Answered { count, seconds: self.micros.load(Ordering::Relaxed) as f64 / 1e6, within }
    }
}

/// One of few words for it.
pub fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        // Clients may make up any.
        _ => "other",
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_kind() {
        let traffic = Traffic::default();
        let count = |route, method, status, millis| {
            traffic.clone().count(route, &method, StatusCode::from_u16(status).unwrap(), Duration::from_millis(millis));
        };
        count(Some("/a/{b}"), Method::GET, 200, 1);
        count(Some("/a/{b}"), Method::GET, 204, 30);
        count(Some("/a/{b}"), Method::GET, 404, 20_000);
        count(None, Method::from_bytes(b"BREW").unwrap(), 418, 3);
        count(None, Method::from_bytes(b"DRINK").unwrap(), 405, 3);
        let all = traffic.so_far();
        let kinds: Vec<_> = all.iter().map(|(k, a)| (&*k.route, k.method, k.status, a.count)).collect();
        assert_eq!(kinds, [("-", "other", "4xx", 2), ("/a/{b}", "GET", "2xx", 2), ("/a/{b}", "GET", "4xx", 1)]);
        let well = &all[1].1;
        assert_eq!((well.within[0], well.within[5], well.within.iter().sum::<u64>()), (1, 1, 2));
        assert!((well.seconds - 0.031).abs() < 1e-9);
        assert_eq!(all[2].1.within.iter().sum::<u64>(), 0, "beyond every bound");
    }
}
