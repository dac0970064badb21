//! Every event in every state.

mod properties;

use super::*;

const G1: Generation = Generation(1);
const G2: Generation = Generation(2);

fn policy(restart_max: usize) -> RestartPolicy {
    let max = restart_max.to_string();
    let settings = crate::settings::Settings::load(&[("RESTART_MAX", max.as_str())], &[]).unwrap().settings;
    RestartPolicy::new(&settings.supervision)
}

fn step(state: State, event: Event) -> (State, Vec<Action>) {
    step_with(state, event, Duration::ZERO, 10, true)
}

fn step_with(state: State, event: Event, drain_delay: Duration, max: usize, ever_ready: bool) -> (State, Vec<Action>) {
    step_in(false, state, event, drain_delay, max, ever_ready)
}

/// A step of a node in a cluster.
fn step_of_node(state: State, event: Event, drain_delay: Duration) -> (State, Vec<Action>) {
    step_in(true, state, event, drain_delay, 10, true)
}

fn step_in(
    clustered: bool,
    state: State,
    event: Event,
    drain_delay: Duration,
    max: usize,
    ever_ready: bool,
) -> (State, Vec<Action>) {
    let mut policy = policy(max);
    let mut conditions = Conditions::default();
    if let State::Degraded { reason, .. } = &state {
        conditions.set(ConditionKind::HealthCheck, reason.clone());
    }
    let context = &mut TransitionContext {
        now: Instant::now(),
        drain_delay,
        clustered,
        policy: &mut policy,
        conditions: &mut conditions,
        jitter: 0.0,
        ever_ready,
    };
    state.after(event, context)
}

fn starting() -> State {
    State::Starting { generation: G1 }
}

/// The second server.
fn preparing(hindrance: Option<&str>) -> State {
    State::Preparing { next: G2, hindrance: hindrance.map(str::to_owned) }
}

fn provisioning() -> State {
    State::Provisioning { generation: G1 }
}

fn ready(for_seconds: u64) -> State {
    State::Ready { generation: G1, since: Instant::now() - Duration::from_secs(for_seconds) }
}

fn degraded() -> State {
    State::Degraded { generation: G1, reason: "x".into(), healthy_for: Duration::ZERO }
}

fn backing_off() -> State {
    State::BackingOff { last: G1, reason: "x".into() }
}

fn restarting(why: RestartReason, killed: bool) -> State {
    State::Restarting { generation: G1, why, reason: "x".into(), healthy_for: Duration::ZERO, killed }
}

fn stopping() -> State {
    State::Stopping { generation: G1, killed: false }
}

fn closing() -> State {
    State::Closing { generation: G1 }
}

fn handing_over() -> State {
    State::HandingOver { generation: G1 }
}

fn every_state() -> Vec<State> {
    vec![
        preparing(None),
        preparing(Some("x")),
        starting(),
        provisioning(),
        ready(1),
        degraded(),
        restarting(RestartReason::Hung, false),
        restarting(RestartReason::Recovery, true),
        backing_off(),
        State::Draining { generation: G1 },
        closing(),
        handing_over(),
        State::LameDuck { generation: G1 },
        stopping(),
        State::Stopping { generation: G1, killed: true },
        State::Stopped,
        State::Failed(Failure::PortTaken),
    ]
}

fn killed() -> Event {
    Event::Exited { exit: Exit::Signal(9), cause: Cause::Other }
}

#[test]
fn a_start_goes_through_provisioning_to_ready() {
    let (state, actions) = step(starting(), Event::Answers(G1));
    assert_eq!((&state, actions), (&provisioning(), vec![]));
    let (state, actions) = step(state, Event::ConditionOk(G1, ConditionKind::Service));
    assert!(state.is_ready() && actions.is_empty());
}

#[test]
fn news_about_another_server_changes_nothing() {
    for state in every_state() {
        for event in [
            Event::Answers(G2),
            Event::ConditionOk(G2, ConditionKind::Service),
            Event::ConditionFailed(G2, ConditionKind::HealthCheck, "x".into()),
            Event::Restart(G2, RestartReason::Hung, "x".into()),
            Event::HandedOver(G2),
        ] {
            assert_eq!(step(state.clone(), event), (state.clone(), vec![]));
        }
    }
}

#[test]
fn a_stopping_broker_never_becomes_ready_again() {
    for state in every_state().into_iter().filter(State::is_stopping) {
        for event in [
            Event::Answers(G1),
            Event::ConditionOk(G1, ConditionKind::Service),
            Event::ConditionFailed(G1, ConditionKind::HealthCheck, "x".into()),
            Event::BackoffOver,
        ] {
            assert_eq!(step(state.clone(), event), (state.clone(), vec![]));
        }
    }
}

#[test]
fn a_settled_server_that_dies_is_launched_at_once() {
    let (state, actions) = step(ready(6), killed());
    assert_eq!((state, actions), (preparing(None), vec![Action::Prepare]));
}

#[test]
fn a_server_that_dies_early_waits_out_its_backoff() {
    for state in [starting(), provisioning(), ready(1), degraded()] {
        let (state, actions) = step(state, killed());
        assert!(matches!(state, State::BackingOff { last: G1, .. }), "{state:?}");
        assert_eq!(actions, [Action::Backoff(Duration::from_millis(50))]);
        let (state, actions) = step(state, Event::BackoffOver);
        assert_eq!((state, actions), (preparing(None), vec![Action::Prepare]));
    }
}

#[test]
fn a_spent_budget_fails_with_the_reason() {
    let (state, actions) = step_with(starting(), killed(), Duration::ZERO, 0, true);
    assert_eq!(state, State::Failed(Failure::CrashLoop { reason: "nats-server ended with signal SIGKILL".into() }));
    assert!(actions.is_empty());
}

#[test]
fn a_taken_port_fails_the_first_start_only() {
    let event = || Event::Exited { exit: Exit::Code(1), cause: Cause::PortTaken };
    let first = step_with(starting(), event(), Duration::ZERO, 10, false);
    assert_eq!(first, (State::Failed(Failure::PortTaken), vec![]));
    let later = step_with(starting(), event(), Duration::ZERO, 10, true);
    assert!(matches!(later.0, State::BackingOff { .. }));
}

#[test]
fn a_stop_interrupts_the_server_once_nothing_is_under_way() {
    for state in [provisioning(), ready(1), degraded()] {
        assert_eq!(step(state, Event::Stop), (closing(), vec![Action::Deadline, Action::Close]));
    }
    for event in [Event::Closed, Event::Stop] {
        assert_eq!(step(closing(), event), (stopping(), vec![Action::Interrupt]), "asked again it hurries");
    }
    assert_eq!(step(closing(), Event::Deadline), (stopping(), vec![Action::Interrupt, Action::Hurry]));
    let launched = step(starting(), Event::Stop);
    assert_eq!(launched, (stopping(), vec![Action::Deadline, Action::Interrupt]), "it serves nobody yet");
    for state in every_state().into_iter().filter(|state| *state != closing()) {
        assert_eq!(step(state.clone(), Event::Closed), (state, vec![]));
    }
    assert_eq!(step(backing_off(), Event::Stop), (State::Stopped, vec![]));
}

#[test]
fn a_drain_delay_comes_first_and_a_second_signal_cuts_it_short() {
    let (state, actions) = step_with(ready(1), Event::Stop, Duration::from_secs(5), 10, true);
    assert_eq!((&state, actions), (&State::Draining { generation: G1 }, vec![Action::Deadline, Action::Drain]));
    assert_eq!(step(state.clone(), Event::DrainOver), (closing(), vec![Action::Close]));
    assert_eq!(step(state, Event::Stop), (stopping(), vec![Action::Interrupt]));
}

#[test]
fn a_node_hands_over_before_it_is_interrupted() {
    for event in [Event::Closed, Event::Stop] {
        let asked = step_of_node(closing(), event, Duration::ZERO);
        assert_eq!(asked, (handing_over(), vec![Action::HandOver]));
    }
    let launched = step_of_node(starting(), Event::Stop, Duration::ZERO);
    assert_eq!(launched, (stopping(), vec![Action::Deadline, Action::Interrupt]), "it leads nothing yet");
    let expected = (stopping(), vec![Action::Interrupt]);
    assert_eq!(step_of_node(handing_over(), Event::HandedOver(G1), Duration::ZERO), expected);
    assert_eq!(step_of_node(handing_over(), Event::Stop, Duration::ZERO), expected, "asked again it hurries");
    let late = step_of_node(handing_over(), Event::Deadline, Duration::ZERO);
    assert_eq!(late, (stopping(), vec![Action::Interrupt, Action::Hurry]));
    assert_eq!(step_of_node(handing_over(), Event::LameDuck, Duration::ZERO), (handing_over(), vec![]));
    for state in every_state().into_iter().filter(|state| *state != handing_over()) {
        let told = step_of_node(state.clone(), Event::HandedOver(G1), Duration::ZERO);
        assert_eq!(told, (state, vec![]));
    }
}

#[test]
fn a_node_drains_before_it_closes() {
    let delay = Duration::from_secs(5);
    let (state, actions) = step_of_node(ready(1), Event::Stop, delay);
    assert_eq!((&state, actions), (&State::Draining { generation: G1 }, vec![Action::Deadline, Action::Drain]));
    assert_eq!(step_of_node(state.clone(), Event::DrainOver, delay), (closing(), vec![Action::Close]));
    assert_eq!(step_of_node(state, Event::Stop, delay), (handing_over(), vec![Action::HandOver]));
}

#[test]
fn the_deadline_kills_and_an_impatient_operator_brings_it_nearer() {
    let killed = State::Stopping { generation: G1, killed: true };
    assert_eq!(step(stopping(), Event::Deadline), (killed.clone(), vec![Action::Kill, Action::Hurry]));
    assert_eq!(step(stopping(), Event::Stop), (stopping(), vec![Action::Hurry]));
    assert_eq!(step(killed, Event::Deadline), (State::Stopped, vec![]), "it never waits for ever");
    let draining = State::Draining { generation: G1 };
    assert_eq!(step(draining, Event::Deadline), (stopping(), vec![Action::Interrupt, Action::Hurry]));
}

#[test]
fn a_refused_configuration_fails_the_first_start_only() {
    let event = || Event::Exited { exit: Exit::Code(1), cause: Cause::Configuration };
    let first = step_with(starting(), event(), Duration::ZERO, 10, false);
    assert_eq!(first, (State::Failed(Failure::ConfigurationRefused), vec![]));
    let later = step_with(starting(), event(), Duration::ZERO, 10, true);
    assert!(matches!(later.0, State::BackingOff { .. }));
}

#[test]
fn time_spent_degraded_is_not_health() {
    let long_degraded = State::Degraded { generation: G1, reason: "x".into(), healthy_for: Duration::from_secs(1) };
    let (state, _) = step(long_degraded, killed());
    assert!(matches!(state, State::BackingOff { .. }), "{state:?}");
}

#[test]
fn a_server_that_dies_while_stopping_has_stopped() {
    for state in [
        State::Draining { generation: G1 },
        closing(),
        handing_over(),
        State::LameDuck { generation: G1 },
        stopping(),
        State::Stopping { generation: G1, killed: true },
    ] {
        assert_eq!(step(state, killed()), (State::Stopped, vec![]));
    }
}

#[test]
fn nothing_is_launched_before_it_is_prepared_and_a_hindrance_is_waited_out() {
    assert_eq!(step(preparing(None), Event::Prepared), (State::Starting { generation: G2 }, vec![Action::Launch]));
    // However often: a hindrance is nobody's death.
    for state in [preparing(None), preparing(Some("y"))] {
        let hindered = step_with(state, Event::Hindered("x".into()), Duration::ZERO, 0, true);
        assert_eq!(hindered, (preparing(Some("x")), vec![Action::Backoff(HINDERED)]));
    }
    let hindered = preparing(Some("x"));
    assert_eq!((hindered.name(), hindered.reason(), hindered.is_ready()), ("degraded", Some("x"), false));
    assert_eq!(step(hindered.clone(), Event::BackoffOver), (hindered.clone(), vec![Action::Prepare]));
    assert_eq!(step(hindered.clone(), Event::Prepared).1, [Action::Launch]);
    for event in [Event::Stop, Event::LameDuck] {
        assert_eq!(step(hindered.clone(), event), (State::Stopped, vec![]));
    }
    for state in every_state().into_iter().filter(|state| !matches!(state, State::Preparing { .. })) {
        for event in [Event::Prepared, Event::Hindered("x".into())] {
            assert_eq!(step(state.clone(), event), (state.clone(), vec![]));
        }
    }
}

#[test]
fn final_states_stay() {
    for state in every_state().into_iter().filter(State::is_final) {
        for event in [killed(), Event::Stop, Event::Deadline, Event::DrainOver, Event::LaunchFailed("x".into())] {
            assert_eq!(step(state.clone(), event), (state.clone(), vec![]));
        }
    }
}

#[test]
fn impairment_keeps_the_health_history() {
    let healthy = ready(10);
    let (state, _) = step(healthy, Event::ConditionFailed(G1, ConditionKind::HealthCheck, "slow".into()));
    assert_eq!(state.reason(), Some("slow"));
    let (state, actions) = step(state, killed());
    assert_eq!((state, actions), (preparing(None), vec![Action::Prepare]));
}

#[test]
fn a_hung_server_is_asked_to_end_then_killed_and_counts_as_a_death() {
    let restart = Event::Restart(G1, RestartReason::Hung, "silent".into());
    let (state, actions) = step(ready(6), restart);
    assert_eq!(actions, [Action::Patience, Action::Terminate]);
    let (state, actions) = step(state, Event::Deadline);
    assert_eq!(actions, [Action::Kill]);
    let (same, actions) = step(state.clone(), Event::Deadline);
    assert_eq!((&same, actions), (&state, vec![]), "no second server beside one that does not die");
    let (next, actions) = step(state.clone(), killed());
    assert_eq!((next, actions), (preparing(None), vec![Action::Prepare]), "it had settled");
    let spent = step_with(state, killed(), Duration::ZERO, 0, true).0;
    assert!(spent.reason().is_some_and(|reason| reason.contains("silent")), "{spent:?}");
}

#[test]
fn a_server_that_is_mended_is_launched_at_once_whatever_the_budget() {
    let restart = Event::Restart(G1, RestartReason::Recovery, "disk".into());
    let (state, actions) = step(degraded(), restart);
    assert_eq!(actions, [Action::Deadline, Action::Interrupt]);
    let (state, actions) = step_with(state, killed(), Duration::ZERO, 0, true);
    assert_eq!((state, actions), (preparing(None), vec![Action::Prepare]));
}

#[test]
fn a_stop_goes_before_a_restart() {
    let asked = step(restarting(RestartReason::Hung, false), Event::Stop);
    assert_eq!(asked, (stopping(), vec![Action::Deadline, Action::Interrupt]));
    let killed = State::Stopping { generation: G1, killed: true };
    assert_eq!(step(restarting(RestartReason::Hung, true), Event::Stop), (killed, vec![Action::Deadline]));
}

#[test]
fn lame_duck_mode_ends_the_broker_and_a_stop_cuts_it_short() {
    let duck = State::LameDuck { generation: G1 };
    for state in [starting(), provisioning(), ready(1), degraded()] {
        let expected = (duck.clone(), vec![Action::LameDuckDeadline, Action::EnterLameDuck]);
        assert_eq!(step(state, Event::LameDuck), expected);
    }
    assert_eq!(step(duck.clone(), Event::Stop), (stopping(), vec![Action::Deadline, Action::Interrupt]));
    assert_eq!(step(duck.clone(), Event::Deadline), (stopping(), vec![Action::Interrupt, Action::Hurry]));
    assert_eq!(step(duck, killed()), (State::Stopped, vec![]));
    assert_eq!(step(backing_off(), Event::LameDuck), (State::Stopped, vec![]));
    assert_eq!(step(stopping(), Event::LameDuck), (stopping(), vec![]));
}

/// Carries the conditions from step to step, as the task does.
struct Run {
    state: State,
    policy: RestartPolicy,
    conditions: Conditions,
    now: Instant,
    clustered: bool,
}

impl Run {
    fn new(restart_max: usize) -> Self {
        let (policy, conditions) = (policy(restart_max), Conditions::default());
        Self { state: starting(), policy, conditions, now: Instant::now(), clustered: false }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let context = &mut TransitionContext {
            now: self.now,
            drain_delay: Duration::ZERO,
            clustered: self.clustered,
            policy: &mut self.policy,
            conditions: &mut self.conditions,
            jitter: 0.0,
            ever_ready: true,
        };
        let (state, actions) = self.state.clone().after(event, context);
        self.state = state;
        actions
    }

    fn steps(&mut self, events: impl IntoIterator<Item = Event>) -> &State {
        for event in events {
            self.step(event);
        }
        &self.state
    }
}

fn ok(kind: ConditionKind) -> Event {
    Event::ConditionOk(G1, kind)
}

fn failed(kind: ConditionKind) -> Event {
    Event::ConditionFailed(G1, kind, format!("{kind:?}"))
}

#[test]
fn ready_is_when_every_concern_is_sound() {
    let mut run = Run::new(10);
    let state = run.steps([Event::Answers(G1), ok(ConditionKind::Service)]);
    assert!(state.is_ready());
    let state = run.steps([failed(ConditionKind::Storage), failed(ConditionKind::Answers)]);
    assert_eq!(state.reason(), Some("Storage; Answers"));
    assert_eq!(run.steps([ok(ConditionKind::Answers), ok(ConditionKind::HealthCheck)]).reason(), Some("Storage"));
    assert!(run.steps([ok(ConditionKind::Storage)]).is_ready());
}

#[test]
fn a_server_that_is_not_in_service_is_not_ready_though_nothing_else_is_wrong() {
    let mut run = Run::new(10);
    let state = run.steps([failed(ConditionKind::Storage), ok(ConditionKind::Storage)]);
    assert!(!state.is_ready(), "{state:?}");
    assert!(run.steps([ok(ConditionKind::Service)]).is_ready());
}

#[test]
fn troubles_of_the_store_outlive_the_server_and_others_do_not() {
    let mut run = Run::new(10);
    run.steps([ok(ConditionKind::Service), failed(ConditionKind::Integrity), failed(ConditionKind::HealthCheck)]);
    run.steps([killed(), Event::BackoffOver, Event::Prepared]);
    run.steps([Event::Answers(G2), Event::ConditionOk(G2, ConditionKind::Service)]);
    assert_eq!(run.state.reason(), Some("Integrity"));
    assert!(run.steps([Event::ConditionOk(G2, ConditionKind::Integrity)]).is_ready());
}
