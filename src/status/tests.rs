use std::time::Duration;

use nix::unistd::Pid;
use tokio::time::Instant;

use super::*;
use crate::domain::Generation;
use crate::health::{Check, HealthReport, Report};
use crate::integrity::{Integrity, Loss, LossKind, Reading};
use crate::streams::Drift;
use crate::supervisor::{ConditionKind, Conditions, Snapshot, State, Transition};

const G1: Generation = Generation(1);

fn ready() -> State {
    State::Ready { generation: G1, since: Instant::now() }
}

fn degraded(reason: &str) -> State {
    State::Degraded { generation: G1, reason: reason.into(), healthy_for: Duration::ZERO }
}

/// A broker in that state in which all else is well.
fn inputs(state: State) -> Inputs {
    let supervisor = Snapshot {
        state,
        running: true,
        pid: Some(Pid::from_raw(7)),
        restarts: 0,
        restarts_by: Restarts::default(),
        recent_restarts: vec![],
        conditions: Conditions::default(),
        ever_ready: true,
    };
    let reading = Reading::Done { messages: 5, by_design: vec![] };
    Inputs {
        supervisor,
        transitions: vec![],
        health: None,
        integrity: Some(Integrity { reading, ..Integrity::default() }),
        drift: Some(Drift::default()),
        reloads: Reloads::default(),
    }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn condition<'a>(status: &'a BrokerStatus, kind: &str) -> &'a Condition {
    status.conditions.iter().find(|condition| condition.kind == kind).unwrap()
}

fn happened(status: &BrokerStatus) -> Vec<(EventKind, &str, Option<&str>)> {
    status.events.iter().map(|event| (event.kind, event.what.as_str(), event.why.as_deref())).collect()
}

#[test]
fn the_verdict_follows_from_the_state_and_the_messages() {
    let generation = G1;
    let verdict = |inputs: &Inputs| BrokerStatus::after(None, inputs, at(1)).verdict;
    assert_eq!(verdict(&inputs(ready())), Verdict::Healthy);
    for state in [degraded("x"), State::Starting { generation }, State::Provisioning { generation }] {
        assert_eq!(verdict(&inputs(state)), Verdict::Degraded);
    }
    for state in [
        State::Preparing { next: generation, hindrance: Some("x".into()) },
        State::BackingOff { last: generation, reason: "x".into() },
        State::Draining { generation },
        State::Closing { generation },
        State::Stopped,
    ] {
        assert_eq!(verdict(&inputs(state)), Verdict::Unhealthy);
    }
    let mut unread = inputs(ready());
    for reading in [Reading::NotYet, Reading::Failed { streams: vec!["A".into()] }] {
        unread.integrity = Some(Integrity { reading, ..Integrity::default() });
        assert_eq!(verdict(&unread), Verdict::Degraded, "not before every stream has been read through");
    }
    let losses = vec![Loss::found_now("A", LossKind::Fewer { were: 2, are: 1, end: None })];
    unread.integrity = Some(Integrity { losses, ..Integrity::default() });
    let status = BrokerStatus::after(None, &unread, at(1));
    assert_eq!((status.verdict, status.checks["integrity"].status), (Verdict::Degraded, Outcome::Fail));
    unread.integrity = None;
    assert_eq!(verdict(&unread), Verdict::Healthy, "where nobody looks after messages");
}

#[test]
fn remarks_of_the_same_name_are_one_and_the_worst_counts() {
    let mut inputs = inputs(ready());
    inputs.reloads.refusal = Some("no".into());
    let checks = vec![
        Check::warning("settings", "A: x"),
        Check::failure("settings", "B: y"),
        Check::warning("settings", "A: x"),
        Check::of("http", Outcome::Pass, "fine".into()),
    ];
    let report = Report { checks, ..Report::default() };
    inputs.health = Some(HealthReport { at: at(5), generation: G1, report });
    let status = BrokerStatus::after(None, &inputs, at(9));
    let settings = &status.checks["settings"];
    assert_eq!(settings.status, Outcome::Fail);
    let reload = "the last reload was refused, and the old settings stay in force: no";
    assert!(settings.detail.starts_with(reload) && settings.detail.contains("; A: x; B: y"), "{}", settings.detail);
    assert_eq!(status.checked_at, Some(at(5)));
    assert_eq!(status.checks["http"].detail, "fine");
}

#[test]
fn a_condition_says_since_when_and_each_change_is_an_event() {
    let first = BrokerStatus::after(None, &inputs(ready()), at(1));
    assert!(first.conditions.iter().all(|condition| condition.status == ConditionStatus::Ok));
    assert_eq!((first.since, happened(&first)), (at(1), vec![]));

    let mut full = inputs(degraded("the disk is full"));
    full.supervisor.conditions.set(ConditionKind::Storage, "the disk is full".into());
    full.transitions =
        vec![Transition { at: at(2), state: "degraded", reason: Some("the disk is full".into()), generation: None }];
    let second = BrokerStatus::after(Some(&first), &full, at(3));
    assert_eq!((second.state, second.since), ("degraded", at(2)), "since the supervisor entered it");
    let storage = condition(&second, "storage");
    assert_eq!((storage.status, storage.since), (ConditionStatus::Failed, at(3)));
    assert_eq!(condition(&second, "responsive").since, at(1), "what stays is since the beginning");
    let reason = Some("the disk is full");
    let expected = [
        (EventKind::State, "degraded", reason),
        (EventKind::Condition, "storage failed", reason),
        (EventKind::Verdict, "degraded", reason),
    ];
    assert_eq!(happened(&second), expected);

    full.transitions.clear();
    let same = BrokerStatus::after(Some(&second), &full, at(60));
    assert_eq!(same, second, "the same again is no news");

    let third = BrokerStatus::after(Some(&second), &inputs(ready()), at(70));
    assert_eq!(
        (condition(&third, "storage").status, condition(&third, "storage").since),
        (ConditionStatus::Ok, at(70))
    );
    assert!(
        happened(&third)
            .ends_with(&[(EventKind::Condition, "storage ok", None), (EventKind::Verdict, "healthy", None),])
    );
}

#[test]
fn what_no_server_in_service_shows_is_unknown() {
    let status = BrokerStatus::after(None, &inputs(State::Starting { generation: G1 }), at(1));
    assert_eq!(condition(&status, "in_service").status, ConditionStatus::Unknown);
    assert_eq!(condition(&status, "settings").status, ConditionStatus::Ok, "that is known all the time");
    let mut external = inputs(ready());
    (external.integrity, external.drift) = (None, None);
    let status = BrokerStatus::after(None, &external, at(1));
    let kinds: Vec<_> = status.conditions.iter().map(|condition| condition.kind).collect();
    assert_eq!(kinds, ["storage", "responsive", "in_service", "health_check", "launch", "settings"]);
}

#[test]
fn what_keeps_a_server_from_being_launched_is_a_failed_condition() {
    let hindered = State::Preparing { next: Generation(2), hindrance: Some("no such file".into()) };
    let status = BrokerStatus::after(None, &inputs(hindered), at(1));
    let launch = condition(&status, "launch");
    assert_eq!((launch.status, launch.reason.as_deref()), (ConditionStatus::Failed, Some("no such file")));
    let status = BrokerStatus::after(Some(&status), &inputs(ready()), at(2));
    assert_eq!(condition(&status, "launch").status, ConditionStatus::Ok);
}

#[test]
fn other_words_for_the_same_failure_are_no_event() {
    let mut silent = inputs(degraded("x"));
    silent.supervisor.conditions.set(ConditionKind::Answers, "no answer of /healthz?js-server-only=true".into());
    let first = BrokerStatus::after(None, &silent, at(1));
    silent.supervisor.conditions.set(ConditionKind::Answers, "no answer of /healthz".into());
    let second = BrokerStatus::after(Some(&first), &silent, at(2));
    assert_eq!(second.events, first.events);
    assert_eq!(condition(&second, "responsive").reason.as_deref(), Some("no answer of /healthz"));
}

#[test]
fn reloads_and_repairs_are_counted_and_told() {
    let first = BrokerStatus::after(None, &inputs(ready()), at(1));
    let mut next = inputs(ready());
    next.reloads = Reloads { taken: 1, refused: 1, refusal: Some("no".into()) };
    next.drift = Some(Drift { repaired: 2, last: Some((at(4), "stream A: max_age".into())), ..Drift::default() });
    let second = BrokerStatus::after(Some(&first), &next, at(5));
    let Counters { reloads, reloads_refused, repairs, .. } = second.counters;
    assert_eq!((reloads, reloads_refused, repairs), (1, 1, 2));
    let events = happened(&second);
    for expected in [
        (EventKind::Reload, "taken", None),
        (EventKind::Reload, "refused", Some("no")),
        (EventKind::Repair, "stream A: max_age", None),
        (EventKind::Condition, "settings failed", Some("no")),
    ] {
        assert!(events.contains(&expected), "{expected:?} is not in {events:?}");
    }
}

#[test]
fn each_stream_that_was_restored_is_an_event() {
    let mut inputs = inputs(ready());
    let mut status = BrokerStatus::after(None, &inputs, at(1));
    for streams in [vec!["A", "B"], vec!["A"]] {
        for stream in &streams {
            inputs.integrity.as_mut().unwrap().restored.add(at(2), (*stream).to_owned());
        }
        let before = status.events.iter().count();
        status = BrokerStatus::after(Some(&status), &inputs, at(3));
        let news: Vec<_> = status.events.iter().skip(before).map(|event| (event.kind, event.what.as_str())).collect();
        let expected: Vec<_> = streams.into_iter().map(|stream| (EventKind::StreamRestored, stream)).collect();
        assert_eq!(news, expected);
    }
    assert_eq!(status.counters.streams_restored, 3);
    for stream in 0..100 {
        inputs.integrity.as_mut().unwrap().restored.add(at(4), stream.to_string());
    }
    let status = BrokerStatus::after(Some(&status), &inputs, at(5));
    assert_eq!(status.events.iter().next_back().unwrap().what, "99", "the last of many at once");
}

#[test]
fn checks_of_a_server_that_is_gone_say_that_it_does_not_answer() {
    let generation = G1;
    let checks = vec![
        Check::of("http", Outcome::Pass, "fine".into()),
        Check::of("jetstream", Outcome::Pass, "1 streams".into()),
        Check::of("datatypes", Outcome::Pass, "all".into()),
    ];
    let report = Report { checks, ..Report::default() };
    let examined = |state: State| {
        let mut inputs = inputs(state);
        inputs.health = Some(HealthReport { at: at(5), generation: G1, report: report.clone() });
        inputs
    };
    let details = |inputs: &Inputs| {
        let status = BrokerStatus::after(None, inputs, at(9));
        let check = |name: &str| (status.checks[name].status, status.checks[name].detail.clone());
        assert_eq!(check("datatypes"), (Outcome::Pass, "all".into()));
        assert_eq!(check("http").0, check("jetstream").0);
        check("http")
    };
    let hindered = State::Preparing { next: generation, hindrance: Some("no room".into()) };
    for (state, reason) in [
        (State::BackingOff { last: generation, reason: "it was killed".into() }, "it was killed"),
        (State::Starting { generation }, "it is starting"),
        (hindered, "no room"),
        (State::Stopped, "none runs"),
    ] {
        let expected = format!("nats-server does not answer: {reason}");
        assert_eq!(details(&examined(state)), (Outcome::Fail, expected));
    }
    for state in [ready(), degraded("x"), State::Provisioning { generation }, State::Draining { generation }] {
        assert_eq!(details(&examined(state)), (Outcome::Pass, "fine".into()));
    }
    let mut silent = examined(degraded("x"));
    silent.supervisor.conditions.set(ConditionKind::Answers, "nats-server does not answer: no PONG".into());
    assert_eq!(details(&silent), (Outcome::Fail, "nats-server does not answer: no PONG".into()));
}

#[test]
fn a_verdict_of_unhealthy_has_a_reason() {
    let first = BrokerStatus::after(None, &inputs(ready()), at(1));
    let last = |inputs: &Inputs| {
        let status = BrokerStatus::after(Some(&first), inputs, at(2));
        let event = status.events.iter().next_back().unwrap().clone();
        (event.kind, event.what, event.why)
    };
    let unhealthy = |why: &str| (EventKind::Verdict, "unhealthy".to_owned(), Some(why.to_owned()));
    let mut gone_by = inputs(State::Preparing { next: Generation(2), hindrance: None });
    let entered = |state, reason: Option<&str>| Transition {
        at: at(2),
        state,
        reason: reason.map(str::to_owned),
        generation: None,
    };
    gone_by.transitions = vec![entered("restarting", Some("it was killed")), entered("starting", None)];
    assert_eq!(last(&gone_by), unhealthy("it was killed"));
    assert_eq!(last(&inputs(State::Draining { generation: G1 })), unhealthy("the broker is stopping"));
}
