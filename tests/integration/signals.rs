//! Signals: in the first moments, and as a parent left them.

use std::process::Command;

use nix::sys::signal::{Signal, kill};

use crate::support::*;

/// Starts the broker and signals it the moment that it shows it is prepared for that; whether it held
/// the signal back, not having handlers yet.
fn signal_at_once(signal: Signal) -> (Broker, bool) {
    let mut broker = Broker::new();
    broker.launch();
    // Before its first instruction nobody can be prepared.
    let held = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
        let holds = |field: &str| {
            let mask = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("0");
            u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (signal as i32 - 1)) != 0
        };
        // With handlers in place others hold signals back for moments, such as who starts a thread.
        if holds("SigCgt:") {
            break false;
        }
        if holds("SigBlk:") {
            break true;
        }
        assert!(!broker.has_ended(), "{}", broker.log());
    };
    broker.signal(signal);
    (broker, held)
}

#[test]
fn a_stop_in_the_first_moments_is_a_stop() {
    let mut held = 0;
    for signal in [Signal::SIGTERM, Signal::SIGINT].repeat(20) {
        let (mut broker, was_held) = signal_at_once(signal);
        held += u32::from(was_held);
        assert_eq!(broker.wait(), Some(0), "{signal}, held: {was_held}");
    }
    assert!(held > 0, "signals are held back before there are handlers");
}

#[test]
fn other_signals_in_the_first_moments_do_not_hinder_the_start() {
    for _ in 0..10 {
        for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGCHLD] {
            let (mut broker, _) = signal_at_once(signal);
            broker.wait_until_ready();
            assert_eq!(broker.stop(), Some(0), "{signal}: {}", broker.log());
        }
    }
}

#[test]
fn a_storm_of_signals_during_the_start_does_not_hinder_it() {
    let (mut broker, _) = signal_at_once(Signal::SIGCHLD);
    let deadline = std::time::Instant::now() + PATIENCE;
    while http_get(&broker.api("/readyz")).0 != 200 {
        assert!(!broker.has_ended() && std::time::Instant::now() < deadline, "{}", broker.log());
        for signal in [Signal::SIGCHLD, Signal::SIGUSR1, Signal::SIGHUP].repeat(20) {
            broker.signal(signal);
        }
    }
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

/// The broker as `env` starts it with these arguments.
fn started_by_env(arguments: &[&str]) -> Broker {
    let mut broker = Broker::new();
    let mut command: Command = broker.command_of("env", arguments);
    command.args([PROGRAM, "run"]);
    broker.launch_as(command);
    broker.wait_until_ready();
    broker
}

#[test]
fn what_a_parent_blocked_or_ignored_is_heard_all_the_same() {
    let every = "TERM,INT,CHLD,HUP,USR1,USR2";
    for how in [format!("--block-signal={every}"), format!("--ignore-signal={every}")] {
        let mut broker = started_by_env(&[&how]);
        broker.signal(Signal::SIGHUP);
        wait_for("it reloads", || broker.log().contains("reloaded; no variable had changed").then_some(()));
        let dead = broker.server_pid();
        kill(dead, Signal::SIGKILL).unwrap();
        wait_for("the death is noticed", || (broker.restarts() == Some(1)).then_some(()));
        broker.wait_until_ready();
        assert!(!is_alive(dead));
        assert_eq!(broker.stop(), Some(0), "{how}: {}", broker.log());
    }
}

#[test]
fn a_command_can_be_ended_whatever_a_parent_blocked() {
    // Nobody answers there, so that it waits.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut broker = Broker::new();
    broker.set("NATS_PORT", &port);
    let mut command = broker.command_of("env", &["--block-signal=TERM", PROGRAM, "health-check", "connectivity"]);
    let mut child = command.args(["--timeout", "60s"]).spawn().unwrap();
    // It has connected: the command is at work.
    let _connection = listener.accept().unwrap();
    kill(nix::unistd::Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let status = wait_for("it ends", || child.try_wait().unwrap());
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGTERM as i32), "{status}");
}
