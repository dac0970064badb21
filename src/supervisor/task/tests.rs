//! The task's logic with a recording launcher in place of nats-server.

use std::sync::{Mutex, PoisonError};

use super::*;
use crate::logging::Output;
use crate::settings::{LogFormat, Settings};
use crate::supervisor::{ConditionKind, RestartReason, Work};
use std::sync::Arc;

#[derive(Default)]
struct Recorded {
    launches: usize,
    signals: Vec<Signal>,
    exit: Option<oneshot::Sender<Exit>>,
    fails_to_launch: bool,
    /// What hinders the next launches, one after another; then nothing does.
    hindrances: Option<Vec<String>>,
}

/// Stands for nats-server: records what is asked for; SIGINT and SIGKILL end it as told.
#[derive(Clone, Default)]
struct Recorder {
    recorded: Arc<Mutex<Recorded>>,
    ignores_interrupt: bool,
}

impl Recorder {
    fn with<T>(&self, look: impl FnOnce(&mut Recorded) -> T) -> T {
        look(&mut self.recorded.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn die(&self, exit: Exit) {
        let sender = self.with(|recorded| recorded.exit.take()).expect("a server is running");
        sender.send(exit).expect("the supervisor waits for it");
    }
}

impl Launch for Recorder {
    fn preparation(&mut self) -> Option<Work<(), Hindrance>> {
        let hindrances = self.with(|recorded| recorded.hindrances.take())?;
        let recorded = self.recorded.clone();
        Some(Box::new(move || {
            let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
            let next = hindrances.first().cloned();
            recorded.hindrances = Some(hindrances.into_iter().skip(1).collect());
            next.map_or(Ok(()), |reason| Err(Hindrance::Passing(reason)))
        }))
    }

    fn launch(&mut self) -> io::Result<Launched> {
        let (sender, exit) = oneshot::channel();
        self.with(|recorded| {
            recorded.launches += 1;
            recorded.exit = Some(sender);
            if recorded.fails_to_launch { Err(io::Error::from(io::ErrorKind::OutOfMemory)) } else { Ok(()) }
        })?;
        Ok(Launched { pid: Some(Pid::from_raw(1)), exit, output: None })
    }

    fn signal(&mut self, _: Option<Pid>, signal: Signal) {
        self.with(|recorded| recorded.signals.push(signal));
        match signal {
            Signal::SIGINT if !self.ignores_interrupt => self.die(Exit::Code(0)),
            Signal::SIGKILL => self.die(Exit::Signal(9)),
            _ => {}
        }
    }

    fn installation(&mut self, _: Vec<FileContent>) -> Work<(), io::Error> {
        Box::new(|| Ok(()))
    }
}

fn supervise(recorder: &Recorder, restart_max: &str) -> (tokio::task::JoinHandle<Ending>, Handle) {
    supervise_node(recorder, restart_max, None)
}

fn supervise_node(
    recorder: &Recorder,
    restart_max: &str,
    hand_over: Option<Duration>,
) -> (tokio::task::JoinHandle<Ending>, Handle) {
    let settings = Settings::load(&[("RESTART_MAX", restart_max)], &[]).unwrap().settings;
    let log = crate::logging::init(tracing::Level::ERROR, LogFormat::Json, Output::Stderr);
    let timing = Timing {
        drain_delay: Duration::from_secs(3),
        close: Duration::ZERO,
        kill_after: Duration::from_secs(20),
        lame_duck: Duration::from_secs(50),
        hand_over,
    };
    let policy = RestartPolicy::new(&settings.supervision);
    let (supervisor, handle) = Supervisor::new(recorder.clone(), policy, timing, log, None);
    (tokio::spawn(supervisor.run()), handle)
}

async fn until(handle: &Handle, condition: impl FnMut(&Snapshot) -> bool) -> Snapshot {
    handle.watch().wait_for(condition).await.expect("the supervisor runs").clone()
}

#[tokio::test(start_paused = true)]
async fn a_stop_drains_interrupts_and_ends() {
    let recorder = Recorder::default();
    let (task, handle) = supervise(&recorder, "10");
    handle.report_ok(Generation(1), ConditionKind::Service).await;
    until(&handle, |s| s.state.is_ready()).await;
    let asked = Instant::now();
    handle.stop().await;
    assert!(matches!(task.await.unwrap(), Ending::Stopped));
    assert_eq!(asked.elapsed().as_secs(), 3, "the drain delay is kept, and nothing more");
    assert_eq!(recorder.with(|r| r.signals.clone()), [Signal::SIGINT]);
}

const HAND_OVER: Duration = Duration::from_secs(5);

/// A node of a cluster that is ready, and its stop until it hands over.
async fn hand_over(recorder: &Recorder) -> (tokio::task::JoinHandle<Ending>, Handle, Instant) {
    let (task, handle) = supervise_node(recorder, "10", Some(HAND_OVER));
    handle.report_ok(Generation(1), ConditionKind::Service).await;
    until(&handle, |s| s.state.is_ready()).await;
    handle.stop().await;
    until(&handle, |s| matches!(s.state, State::HandingOver { .. })).await;
    (task, handle, Instant::now())
}

#[tokio::test(start_paused = true)]
async fn a_node_is_interrupted_as_soon_as_it_has_handed_over() {
    let recorder = Recorder::default();
    let (task, handle, since) = hand_over(&recorder).await;
    handle.handed_over(Generation(1)).await;
    assert!(matches!(task.await.unwrap(), Ending::Stopped));
    assert_eq!(since.elapsed(), Duration::ZERO);
    assert_eq!(recorder.with(|r| r.signals.clone()), [Signal::SIGUSR2, Signal::SIGINT]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_hands_over_is_interrupted_all_the_same() {
    let recorder = Recorder::default();
    let (task, _handle, since) = hand_over(&recorder).await;
    assert!(matches!(task.await.unwrap(), Ending::Stopped));
    assert_eq!(since.elapsed(), HAND_OVER);
    assert_eq!(recorder.with(|r| r.signals.clone()), [Signal::SIGUSR2, Signal::SIGINT]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_while_it_hands_over_is_killed_in_time() {
    let recorder = Recorder { ignores_interrupt: true, ..Recorder::default() };
    let (task, _handle, since) = hand_over(&recorder).await;
    assert!(matches!(task.await.unwrap(), Ending::Stopped));
    assert_eq!(since.elapsed().as_secs(), 20 - 3, "the drain delay is part of the time");
    assert_eq!(recorder.with(|r| r.signals.clone()), [Signal::SIGUSR2, Signal::SIGINT, Signal::SIGKILL]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ignores_the_interrupt_is_killed_in_time() {
    let recorder = Recorder { ignores_interrupt: true, ..Recorder::default() };
    let (task, handle) = supervise(&recorder, "10");
    let asked = Instant::now();
    handle.stop().await;
    assert!(matches!(task.await.unwrap(), Ending::Stopped));
    assert_eq!(asked.elapsed().as_secs(), 20);
    assert_eq!(recorder.with(|r| r.signals.clone()), [Signal::SIGINT, Signal::SIGKILL]);
}

#[tokio::test(start_paused = true)]
async fn asked_again_it_hurries() {
    let recorder = Recorder { ignores_interrupt: true, ..Recorder::default() };
    let (task, handle) = supervise(&recorder, "10");
    let asked = Instant::now();
    for _ in 0..3 {
        // The first drains, the second cuts that short, the third leaves a second.
        handle.stop().await;
    }
    assert!(matches!(task.await.unwrap(), Ending::Stopped));
    assert_eq!(asked.elapsed().as_secs(), 1);
    assert_eq!(recorder.with(|r| r.signals.clone()), [Signal::SIGINT, Signal::SIGKILL]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_dies_is_launched_again_until_the_budget_is_spent() {
    let recorder = Recorder::default();
    let (task, handle) = supervise(&recorder, "2");
    for launch in 1..=3 {
        until(&handle, |s| s.state.generation() == Some(Generation(launch)) && s.pid.is_some()).await;
        assert_eq!(handle.watch().borrow().restarts, launch - 1);
        recorder.die(Exit::Code(2));
    }
    match task.await.unwrap() {
        Ending::Failed { failure: Failure::CrashLoop { reason }, .. } => {
            assert_eq!(reason, "nats-server ended with exit code 2");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(recorder.with(|r| r.launches), 3);
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_fails_counts_as_a_death() {
    let recorder = Recorder::default();
    recorder.with(|r| r.fails_to_launch = true);
    let (task, _handle) = supervise(&recorder, "3");
    assert!(matches!(task.await.unwrap(), Ending::Failed { .. }));
    assert_eq!(recorder.with(|r| r.launches), 4);
}

#[tokio::test(start_paused = true)]
async fn a_hung_server_is_killed_after_its_chance_and_another_one_launched() {
    let recorder = Recorder::default();
    let (_task, handle) = supervise(&recorder, "10");
    let first = Generation(1);
    handle.report_ok(first, ConditionKind::Service).await;
    until(&handle, |s| s.state.is_ready()).await;
    let asked = Instant::now();
    handle.restart(first, RestartReason::Hung, "silent".into()).await;
    until(&handle, |s| s.state.generation() == Some(Generation(2)) && s.pid.is_some()).await;
    assert_eq!(asked.elapsed().as_secs(), 5);
    assert_eq!(recorder.with(|r| r.signals.clone()), [Signal::SIGTERM, Signal::SIGKILL]);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_replaced_server_does_not_hurry_its_successor() {
    let recorder = Recorder { ignores_interrupt: true, ..Recorder::default() };
    let (task, handle) = supervise(&recorder, "10");
    handle.restart(Generation(1), RestartReason::Hung, "silent".into()).await;
    until(&handle, |s| matches!(s.state, State::Restarting { .. })).await;
    recorder.die(Exit::Code(0));
    until(&handle, |s| s.state.generation() == Some(Generation(2)) && s.pid.is_some()).await;
    let asked = Instant::now();
    handle.stop().await;
    assert!(matches!(task.await.unwrap(), Ending::Stopped));
    assert_eq!(asked.elapsed().as_secs(), 20, "all the time that a stop may take");
}

#[tokio::test(start_paused = true)]
async fn what_hinders_a_launch_is_told_waited_for_and_costs_no_restart() {
    let recorder = Recorder::default();
    recorder.with(|r| r.hindrances = Some(vec!["no room".into(), "no room".into(), "another store".into()]));
    let (task, handle) = supervise(&recorder, "0");
    for reason in ["no room", "another store"] {
        until(&handle, |s| s.state.reason() == Some(reason)).await;
        assert_eq!(recorder.with(|r| r.launches), 0);
    }
    until(&handle, |s| s.state.generation() == Some(Generation(1)) && s.pid.is_some()).await;
    assert_eq!(handle.watch().borrow().restarts, 0);
    handle.stop().await;
    assert!(matches!(task.await.unwrap(), Ending::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_what_hinders_a_launch() {
    let recorder = Recorder::default();
    recorder.with(|r| r.hindrances = Some(vec!["no room".into(); 1000]));
    let (task, handle) = supervise(&recorder, "0");
    until(&handle, |s| s.state.reason() == Some("no room")).await;
    let asked = Instant::now();
    handle.stop().await;
    assert!(matches!(task.await.unwrap(), Ending::Stopped));
    assert_eq!((asked.elapsed(), recorder.with(|r| r.launches)), (Duration::ZERO, 0));
}
