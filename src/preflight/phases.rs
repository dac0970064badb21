use std::time::{Duration, Instant, SystemTime};

use crate::settings::Settings;

/// How long each part of a start took.
#[derive(Clone, Debug)]
pub struct Phases {
    started: Instant,
    last: Instant,
    taken: Vec<Phase>,
    /// Steps within phases.
    steps: Vec<Phase>,
}

#[derive(Clone, Copy, Debug)]
struct Phase {
    name: &'static str,
    began: Instant,
    took: Duration,
}

impl Phases {
    pub fn begin(started: Instant) -> Self {
        Self { started, last: started, taken: vec![], steps: vec![] }
    }

    /// Notes that `phase` has just ended.
    pub fn reached(&mut self, name: &'static str) {
        let now = Instant::now();
        self.taken.push(Phase { name, began: self.last, took: now - self.last });
        self.last = now;
    }

    /// Notes a step that began then and took so long, as traces show it.
    pub fn step(&mut self, name: &'static str, began: Instant, took: Duration) {
        self.steps.push(Phase { name, began, took });
    }

    /// Notes a step that began with the phase which goes on, and has just ended.
    pub fn step_ended(&mut self, name: &'static str) {
        self.step(name, self.last, self.last.elapsed());
    }

    /// When the first one began.
    pub fn started(&self) -> SystemTime {
        SystemTime::now() - self.started.elapsed()
    }

    /// Phases and steps, each with when it began and how long it took.
    pub fn times(&self) -> impl Iterator<Item = (&'static str, SystemTime, Duration)> {
        let (now, today) = (Instant::now(), SystemTime::now());
        let all = self.taken.iter().chain(&self.steps);
        all.map(move |phase| (phase.name, today - (now - phase.began), phase.took))
    }

    /// One line with all phases; gives them in seconds, and forgets them.
    pub fn log(&mut self, settings: &Settings) -> Vec<(&'static str, f64)> {
        let taken = std::mem::take(&mut self.taken);
        self.steps.clear();
        let phases: Vec<_> = taken.iter().map(|phase| format!("{} {} ms", phase.name, millis(phase.took))).collect();
        let nats = match &settings.external {
            Some(external) => external.redacted_urls(),
            None => format!("{}:{}", settings.server.host.as_str(), settings.server.port),
        };
        let total = millis(self.last - self.started);
        tracing::info!(nats, millis = total, phases = phases.join(", "), "ready");
        taken.iter().map(|phase| (phase.name, millis(phase.took) / 1e3)).collect()
    }
}

fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e4).round() / 10.0
}
