//! Which spans the states of the supervisor make: one for each start of a server, from its cause until it is
//! ready. Pure.

use std::time::SystemTime;

use crate::supervisor::Transition;

/// Follows the states.
#[derive(Debug)]
pub struct Launches {
    open: Option<Launch>,
    generation: u64,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// `start` or `restart`.
    pub name: &'static str,
    /// Of the server that was launched last.
    pub generation: u64,
    pub began: SystemTime,
    pub ended: SystemTime,
    /// Why there had to be another server.
    pub reason: Option<String>,
    /// How long the server before was being ended, and the next one waited for its turn.
    pub waited: Option<(SystemTime, SystemTime)>,
    /// Why no server became ready.
    pub failure: Option<String>,
}

impl Launches {
    /// `started` is when the program did.
    pub fn new(started: SystemTime) -> Self {
        let open = Some(Launch::new("start", started, None));
        Self { open, generation: 1, state: "starting" }
    }

    /// The launch that is over with this state, if one is.
    pub fn enter(&mut self, Transition { at, state, reason, generation }: &Transition) -> Option<Launch> {
        let before = std::mem::replace(&mut self.state, state);
        let waited = self.open.as_mut().filter(|_| before == "restarting").and_then(|open| open.waited.as_mut());
        if let Some(waited) = waited {
            waited.1 = *at;
        }
        let over = match *state {
            "ready" => self.close(*at, generation.map(|generation| generation.0), None),
            "draining" | "stopped" | "failed" => {
                let reason = reason.clone().unwrap_or_else(|| "stopped before a server was ready".into());
                self.close(*at, generation.map(|generation| generation.0), Some(reason))
            }
            // Another server has to come, unless it is the one whose turn has come: of that nothing is told.
            "restarting" | "starting" if before != "restarting" && (reason.is_some() || self.open.is_none()) => {
                let over = self.close(*at, None, Some(reason.clone().unwrap_or_else(|| "another one follows".into())));
                let mut launch = Launch::new("restart", *at, reason.clone());
                launch.waited = (*state == "restarting").then_some((*at, *at));
                self.open = Some(launch);
                over
            }
            _ => None,
        };
        self.generation = generation.map_or(self.generation, |generation| generation.0);
        over
    }

    fn close(&mut self, at: SystemTime, generation: Option<u64>, failure: Option<String>) -> Option<Launch> {
        let launch = self.open.take()?;
        Some(Launch { ended: at, generation: generation.unwrap_or(self.generation), failure, ..launch })
    }
}

impl Launch {
    fn new(name: &'static str, began: SystemTime, reason: Option<String>) -> Self {
        Self { name, generation: 1, began, ended: began, reason, waited: None, failure: None }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::Generation;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// What is over with each of the states, which come a second apart.
    fn follow(states: &[(&'static str, Option<u64>, Option<&str>)]) -> Vec<Launch> {
        let mut launches = Launches::new(at(0));
        let enter = |(second, (state, generation, reason)): (usize, &(&'static str, Option<u64>, Option<&str>))| {
            let (reason, generation) = (reason.map(str::to_owned), generation.map(Generation));
            launches.enter(&Transition { at: at(second as u64 + 1), state, reason, generation })
        };
        states.iter().enumerate().filter_map(enter).collect()
    }

    #[test]
    fn a_start_is_one_launch_until_the_first_server_is_ready() {
        let over =
            follow(&[("provisioning", Some(1), None), ("degraded", Some(1), Some("x")), ("ready", Some(1), None)]);
        assert_eq!(over, [Launch { ended: at(3), ..Launch::new("start", at(0), None) }]);
    }

    #[test]
    fn a_death_begins_a_restart_that_ends_with_the_next_server() {
        let died = Some("nats-server ended with signal SIGKILL");
        let at_once = follow(&[
            ("provisioning", Some(1), None),
            ("ready", Some(1), None),
            ("starting", Some(2), died),
            ("provisioning", Some(2), None),
            ("ready", Some(2), None),
        ]);
        let restart = Launch { generation: 2, ended: at(5), ..Launch::new("restart", at(3), died.map(str::to_owned)) };
        assert_eq!(at_once[1], restart);
        let later = follow(&[
            ("ready", Some(1), None),
            ("restarting", Some(1), died),
            ("starting", Some(2), None),
            ("provisioning", Some(2), None),
            ("ready", Some(2), None),
        ]);
        let restart = Launch::new("restart", at(2), died.map(str::to_owned));
        assert_eq!(later[1], Launch { generation: 2, ended: at(5), waited: Some((at(2), at(3))), ..restart });
    }

    #[test]
    fn what_never_becomes_ready_is_a_failure_with_its_reason() {
        let over = follow(&[
            ("provisioning", Some(1), None),
            ("starting", Some(2), Some("died")),
            ("restarting", Some(2), Some("died again")),
            ("starting", Some(3), None),
            ("failed", None, Some("gave up")),
            ("stopped", None, None),
        ]);
        let told: Vec<_> = over.iter().map(|l| (l.name, l.generation, l.failure.as_deref())).collect();
        assert_eq!(
            told,
            [("start", 1, Some("died")), ("restart", 2, Some("died again")), ("restart", 3, Some("gave up"))]
        );
        let stopped = follow(&[("draining", Some(1), None), ("stopped", None, None)]);
        assert_eq!(stopped[0].failure.as_deref(), Some("stopped before a server was ready"));
        assert_eq!(follow(&[("ready", Some(1), None), ("draining", Some(1), None)]).len(), 1);
    }
}
