use std::time::Instant;

use crate::settings::Settings;

/// How long each part of a start took.
#[derive(Clone, Debug)]
pub struct Phases {
    started: Instant,
    last: Instant,
    /// Milliseconds.
    taken: Vec<(&'static str, f64)>,
}

impl Phases {
    pub fn begin(started: Instant) -> Self {
        Self { started, last: started, taken: Vec::new() }
    }

    /// Notes that `phase` has just ended.
    pub fn reached(&mut self, phase: &'static str) {
        let now = Instant::now();
        self.taken.push((phase, millis(now - self.last)));
        self.last = now;
    }

    /// One line with all of them; gives them in seconds.
    pub fn log(&mut self, settings: &Settings) -> Vec<(&'static str, f64)> {
        let seconds = self.taken.iter().map(|(name, taken)| (*name, taken / 1e3)).collect();
        let phases: Vec<_> = self.taken.drain(..).map(|(name, taken)| format!("{name} {taken} ms")).collect();
        let nats = match &settings.external {
            Some(external) => external.redacted_urls(),
            None => format!("{}:{}", settings.server.host.as_str(), settings.server.port),
        };
        let total = millis(self.last - self.started);
        tracing::info!(nats, millis = total, phases = phases.join(", "), "ready");
        seconds
    }
}

fn millis(span: std::time::Duration) -> f64 {
    (span.as_secs_f64() * 1e4).round() / 10.0
}
