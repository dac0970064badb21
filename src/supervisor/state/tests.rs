//! Every event in every state.

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
    let mut policy = policy(max);
    let now = Instant::now();
    state.after(event, &mut Surroundings { now, drain_delay, policy: &mut policy, jitter: 0.0, ever_ready })
}

fn starting() -> State {
    State::Starting { generation: G1 }
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

fn restarting() -> State {
    State::Restarting { last: G1, reason: "x".into() }
}

fn stopping() -> State {
    State::Stopping { generation: G1, killed: false }
}

fn every_state() -> Vec<State> {
    vec![
        starting(),
        provisioning(),
        ready(1),
        degraded(),
        restarting(),
        State::Draining { generation: G1 },
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
    let (state, actions) = step(state, Event::Sound(G1));
    assert!(state.is_ready() && actions.is_empty());
}

#[test]
fn news_about_another_server_changes_nothing() {
    for state in every_state() {
        for event in [Event::Answers(G2), Event::Sound(G2), Event::Impaired(G2, "x".into())] {
            assert_eq!(step(state.clone(), event), (state.clone(), vec![]));
        }
    }
}

#[test]
fn a_stopping_broker_never_becomes_ready_again() {
    for state in every_state().into_iter().filter(State::is_stopping) {
        for event in [Event::Answers(G1), Event::Sound(G1), Event::Impaired(G1, "x".into()), Event::BackoffOver] {
            assert_eq!(step(state.clone(), event), (state.clone(), vec![]));
        }
    }
}

#[test]
fn a_settled_server_that_dies_is_launched_at_once() {
    let (state, actions) = step(ready(6), killed());
    assert_eq!((state, actions), (State::Starting { generation: G2 }, vec![Action::Launch]));
}

#[test]
fn a_server_that_dies_early_waits_out_its_backoff() {
    for state in [starting(), provisioning(), ready(1), degraded()] {
        let (state, actions) = step(state, killed());
        assert!(matches!(state, State::Restarting { last: G1, .. }), "{state:?}");
        assert_eq!(actions, [Action::Backoff(Duration::from_millis(50))]);
        let (state, actions) = step(state, Event::BackoffOver);
        assert_eq!((state, actions), (State::Starting { generation: G2 }, vec![Action::Launch]));
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
    assert!(matches!(later.0, State::Restarting { .. }));
}

#[test]
fn a_stop_interrupts_the_server_in_every_running_state() {
    for state in [starting(), provisioning(), ready(1), degraded()] {
        assert_eq!(step(state, Event::Stop), (stopping(), vec![Action::Deadline, Action::Interrupt]));
    }
    assert_eq!(step(restarting(), Event::Stop), (State::Stopped, vec![]));
}

#[test]
fn a_drain_delay_comes_first_and_a_second_signal_cuts_it_short() {
    let (state, actions) = step_with(ready(1), Event::Stop, Duration::from_secs(5), 10, true);
    assert_eq!((&state, actions), (&State::Draining { generation: G1 }, vec![Action::Deadline, Action::Drain]));
    assert_eq!(step(state.clone(), Event::DrainOver), (stopping(), vec![Action::Interrupt]));
    assert_eq!(step(state, Event::Stop), (stopping(), vec![Action::Interrupt]));
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
    assert!(matches!(later.0, State::Restarting { .. }));
}

#[test]
fn time_spent_degraded_is_not_health() {
    let long_degraded = State::Degraded { generation: G1, reason: "x".into(), healthy_for: Duration::from_secs(1) };
    let (state, _) = step(long_degraded, killed());
    assert!(matches!(state, State::Restarting { .. }), "{state:?}");
}

#[test]
fn a_server_that_dies_while_stopping_has_stopped() {
    for state in [State::Draining { generation: G1 }, stopping(), State::Stopping { generation: G1, killed: true }] {
        assert_eq!(step(state, killed()), (State::Stopped, vec![]));
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
    let (state, _) = step(healthy, Event::Impaired(G1, "slow".into()));
    assert_eq!(state.reason(), Some("slow"));
    let (state, actions) = step(state, killed());
    assert_eq!((state, actions), (State::Starting { generation: G2 }, vec![Action::Launch]));
}
