//! Whatever happens, in whatever order.

use super::*;
use proptest::prelude::*;

const CONDITIONS: [ConditionKind; 5] = [
    ConditionKind::Integrity,
    ConditionKind::Storage,
    ConditionKind::Answers,
    ConditionKind::Service,
    ConditionKind::HealthCheck,
];

/// What happens, without the generation: news is mostly about the server that runs.
#[derive(Clone, Debug)]
enum Happening {
    Answers(bool),
    ConditionOk(usize, bool),
    ConditionFailed(usize, bool),
    Restart(bool, bool),
    Exit(i32),
    Prepared,
    Hindered,
    LaunchFails,
    BackoffOver,
    DrainOver,
    Closed,
    HandedOver(bool),
    Deadline,
    Stop,
    LameDuck,
    Time(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let current = || prop::bool::weighted(0.8);
    prop_oneof![
        4 => current().prop_map(Happening::Answers),
        6 => (0..5usize, current()).prop_map(|(kind, current)| Happening::ConditionOk(kind, current)),
        3 => (0..5usize, current()).prop_map(|(kind, current)| Happening::ConditionFailed(kind, current)),
        2 => (any::<bool>(), current()).prop_map(|(hung, current)| Happening::Restart(hung, current)),
        4 => (0..3).prop_map(Happening::Exit),
        6 => Just(Happening::Prepared),
        2 => Just(Happening::Hindered),
        1 => Just(Happening::LaunchFails),
        4 => Just(Happening::BackoffOver),
        2 => Just(Happening::DrainOver),
        2 => Just(Happening::Closed),
        2 => current().prop_map(Happening::HandedOver),
        2 => Just(Happening::Deadline),
        1 => Just(Happening::Stop),
        1 => Just(Happening::LameDuck),
        2 => (0..100u64).prop_map(Happening::Time),
    ]
}

/// What the world around the state machine knows: which server really runs.
struct World {
    run: Run,
    /// The one server on the store.
    server: Option<Generation>,
    launches: u64,
    /// Concerns of the server that runs, as last told.
    told: std::collections::BTreeMap<ConditionKind, bool>,
}

impl World {
    fn new(clustered: bool) -> Self {
        Self { run: Run { clustered, ..Run::new(3) }, server: Some(G1), launches: 1, told: Default::default() }
    }

    fn step(&mut self, event: Event) {
        if matches!(event, Event::Exited { .. } | Event::LaunchFailed(_)) {
            self.server = None;
        }
        let in_use = self.run.state.is_in_use();
        match &event {
            Event::ConditionOk(about, kind) if in_use && Some(*about) == self.server => {
                self.told.insert(*kind, true);
            }
            Event::ConditionFailed(about, kind, _) if in_use && Some(*about) == self.server => {
                self.told.insert(*kind, false);
            }
            _ => {}
        }
        for action in self.run.step(event) {
            if action == Action::Launch {
                assert_eq!(self.server, None, "never two servers on one store");
                assert!(!self.run.state.is_stopping(), "never a server after a stop");
                self.launches += 1;
                self.server = Some(Generation(self.launches));
                self.told.retain(|kind, _| matches!(kind, ConditionKind::Integrity | ConditionKind::Storage));
            }
        }
        self.check();
    }

    fn check(&self) {
        let state = &self.run.state;
        if state.is_ready() {
            assert_eq!(self.told.get(&ConditionKind::Service), Some(&true), "never ready without streams");
            assert!(self.told.values().all(|is_ok| *is_ok), "never ready with a failed condition");
            assert!(self.server.is_some(), "never ready without a server");
        }
        if let Some(generation) = state.generation() {
            assert_eq!(self.server, Some(generation), "the state knows the server that runs");
        }
        if matches!(state, State::BackingOff { .. } | State::Preparing { .. }) {
            assert_eq!(self.server, None);
        }
    }

    fn happen(&mut self, happening: &Happening) {
        let about = |current: bool| match self.server {
            Some(server) if current => server,
            other => Generation(other.map_or(self.launches, |server| server.0.wrapping_sub(1))),
        };
        let event = match *happening {
            Happening::Answers(current) => Event::Answers(about(current)),
            Happening::ConditionOk(kind, current) => Event::ConditionOk(about(current), CONDITIONS[kind]),
            Happening::ConditionFailed(kind, current) => {
                Event::ConditionFailed(about(current), CONDITIONS[kind], "x".into())
            }
            Happening::Restart(hung, current) => {
                let why = if hung { RestartReason::Hung } else { RestartReason::Recovery };
                Event::Restart(about(current), why, "x".into())
            }
            // Only what runs can end.
            Happening::Exit(_) | Happening::LaunchFails if self.server.is_none() => return,
            Happening::Prepared => Event::Prepared,
            Happening::Hindered => Event::Hindered("x".into()),
            Happening::Exit(code) => Event::Exited { exit: Exit::Code(code), cause: Cause::Other },
            Happening::LaunchFails => Event::LaunchFailed("x".into()),
            Happening::BackoffOver => Event::BackoffOver,
            Happening::DrainOver => Event::DrainOver,
            Happening::Closed => Event::Closed,
            Happening::HandedOver(current) => Event::HandedOver(about(current)),
            Happening::Deadline => Event::Deadline,
            Happening::Stop => Event::Stop,
            Happening::LameDuck => Event::LameDuck,
            Happening::Time(seconds) => {
                self.run.now += Duration::from_secs(seconds);
                return;
            }
        };
        self.step(event);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_no_promise_is_broken(
        clustered: bool,
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        let mut world = World::new(clustered);
        for happening in &happenings {
            world.happen(happening);
        }
    }

    #[test]
    fn a_stop_always_comes_to_an_end(
        clustered: bool,
        happenings in prop::collection::vec(happening(), 0..40),
    ) {
        let mut world = World::new(clustered);
        for happening in &happenings {
            world.happen(happening);
        }
        world.step(Event::Stop);
        // Nothing but the clock: a drain that ends, a deadline that passes, SIGKILL that does nothing.
        for event in [Event::DrainOver, Event::Deadline, Event::Deadline, Event::Deadline] {
            prop_assert!(world.run.state.is_stopping(), "{:?}", world.run.state);
            world.step(event);
        }
        prop_assert!(world.run.state.is_final(), "{:?}", world.run.state);
    }
}
