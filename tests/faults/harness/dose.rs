//! How much of a fault is injected, and which choices are made while doing so.

use std::ops::RangeInclusive;
use std::time::Duration;

use fastrand::Rng;

/// The small dose runs in CI, the full one gives the figures in RELIABILITY.md.
pub fn is_full() -> bool {
    std::env::var_os("UNIFIED_NATS_FULL").is_some_and(|full| full == "1")
}

/// How often a fault is injected.
pub fn dose(ci: usize, full: usize) -> usize {
    match std::env::var("UNIFIED_NATS_FAULTS_DOSE") {
        Ok(dose) if !dose.is_empty() => dose.parse().expect("UNIFIED_NATS_FAULTS_DOSE is a number"),
        _ if is_full() => full,
        _ => ci,
    }
}

/// How the dose is called in a report.
pub fn name_of_dose() -> String {
    match std::env::var("UNIFIED_NATS_FAULTS_DOSE") {
        Ok(dose) if !dose.is_empty() => format!("{dose} times"),
        _ if is_full() => "full".into(),
        _ => "ci".into(),
    }
}

/// The version of nats-server; UNIFIED_NATS_FAULTS_SERVER names another one than the product ships with.
pub fn server() -> String {
    let named = std::env::var("UNIFIED_NATS_FAULTS_SERVER").ok().filter(|version| !version.is_empty());
    named.unwrap_or_else(|| crate::support::CURRENT.to_owned())
}

/// The seed of this run: given, so that an earlier run is replayed, or drawn.
pub fn seed() -> u64 {
    match std::env::var("UNIFIED_NATS_SEED") {
        Ok(seed) if !seed.is_empty() => seed.parse().expect("UNIFIED_NATS_SEED is a number"),
        _ => u64::from(fastrand::u32(..)),
    }
}

/// The choices of one test. Each test has a sequence of its own, so that it replays alone as well.
pub fn choices(seed: u64, test: &str) -> Rng {
    // FNV-1a: the sequence must be the same with every version of Rust.
    let mixed = test
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    Rng::with_seed(mixed)
}

/// A length of time from `range`, in milliseconds.
pub fn millis(choices: &mut Rng, range: RangeInclusive<u64>) -> Duration {
    Duration::from_millis(choices.u64(range))
}

#[test]
fn a_seed_makes_the_same_choices_again() {
    let draw = |seed, test| choices(seed, test).u64(..);
    assert_eq!(draw(7, "kill"), draw(7, "kill"));
    assert_ne!(draw(7, "kill"), draw(8, "kill"));
    assert_ne!(draw(7, "kill"), draw(7, "stop"));
}
