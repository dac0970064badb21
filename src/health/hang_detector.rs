//! When a server that does not answer counts as hung. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// HTTP monitoring answered something, or why not; without monitoring, the NATS port.
    pub http: Result<(), String>,
    /// NATS itself answered: a request over our own connection, or its greeting where there is none.
    pub in_band: Result<(), String>,
}

/// What follows from the probes so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Responsiveness {
    Answers,
    /// Clients notice, and it may be over in a moment.
    Silent(String),
    /// It will not answer any more.
    Hung(String),
}

/// Counts the probes in a row that nothing answered.
#[derive(Debug)]
pub struct HangDetector {
    /// So many in a row mean hung …
    threshold: u32,
    /// … over at least so long.
    patience: Duration,
    failures: u32,
    since: Option<Instant>,
}

impl HangDetector {
    pub fn new(threshold: u32, patience: Duration) -> Self {
        Self { threshold, patience, failures: 0, since: None }
    }

    /// Takes in a probe that began at `began` and ended at `now`. `progress` says that a server that
    /// has not answered yet is at work, as one that recovers a large store is.
    pub fn after(&mut self, probe: Probe, began: Instant, now: Instant, progress: bool) -> Responsiveness {
        let (http, in_band) = match (probe.http, probe.in_band) {
            (Ok(()), Ok(())) => {
                self.reset();
                return Responsiveness::Answers;
            }
            // One that answers anything at all is not hung.
            (Err(reason), Ok(())) | (Ok(()), Err(reason)) => {
                self.reset();
                return Responsiveness::Silent(reason);
            }
            (Err(http), Err(in_band)) => (http, in_band),
        };
        if progress {
            self.reset();
            return Responsiveness::Silent(in_band);
        }
        self.failures += 1;
        let since = *self.since.get_or_insert(began);
        let reason = format!("{in_band}; {http}");
        if self.failures >= self.threshold && now - since >= self.patience {
            let (failures, seconds) = (self.failures, (now - since).as_secs_f32());
            return Responsiveness::Hung(format!("{failures} probes in a row failed over {seconds:.1} s: {reason}"));
        }
        Responsiveness::Silent(reason)
    }

    /// Starts over, for another server or after an answer.
    pub fn reset(&mut self) {
        self.failures = 0;
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(http: bool, in_band: bool) -> Probe {
        let result = |ok: bool, what: &str| if ok { Ok(()) } else { Err(what.to_owned()) };
        Probe { http: result(http, "http"), in_band: result(in_band, "nats") }
    }

    /// Verdicts over probes that come every second and take as long.
    fn verdicts(probes: &[(bool, bool)], progress: bool) -> Vec<&'static str> {
        let mut silence = HangDetector::new(3, Duration::from_secs(10));
        let start = Instant::now();
        let verdict = |(second, (http, in_band)): (usize, &(bool, bool))| {
            let began = start + Duration::from_secs(second as u64);
            match silence.after(probe(*http, *in_band), began, began + Duration::from_secs(1), progress) {
                Responsiveness::Answers => "answers",
                Responsiveness::Silent(_) => "silent",
                Responsiveness::Hung(_) => "hung",
            }
        };
        probes.iter().enumerate().map(verdict).collect()
    }

    #[test]
    fn hung_is_silence_on_both_ways_often_enough_and_long_enough() {
        let seen = verdicts(&[(false, false); 11], false);
        assert_eq!(seen[..9], ["silent"; 9]);
        assert_eq!(seen[9..], ["hung"; 2]);
    }

    #[test]
    fn one_way_that_answers_is_enough_to_live() {
        assert_eq!(verdicts(&[(true, false); 30], false), ["silent"; 30]);
        assert_eq!(verdicts(&[(false, true); 30], false), ["silent"; 30]);
        assert_eq!(verdicts(&[(true, true)], false), ["answers"]);
    }

    #[test]
    fn any_answer_starts_over() {
        let mut probes = vec![(false, false); 9];
        probes.push((true, false));
        probes.extend([(false, false); 9]);
        assert!(!verdicts(&probes, false).contains(&"hung"));
    }

    #[test]
    fn a_server_at_work_is_not_hung() {
        assert_eq!(verdicts(&[(false, false); 100], true), ["silent"; 100]);
    }

    #[test]
    fn a_supervisor_that_slept_does_not_take_one_late_probe_for_a_hang() {
        let mut silence = HangDetector::new(3, Duration::from_secs(10));
        let began = Instant::now();
        let verdict = silence.after(probe(false, false), began, began + Duration::from_secs(3600), false);
        assert!(matches!(verdict, Responsiveness::Silent(_)));
        assert_eq!(silence.after(probe(true, true), began, began, false), Responsiveness::Answers);
    }
}
