//! Ports that somebody else has: before the start, and between a server's death and its return.

use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::harness::{Run, Shape, dose, wait_within};
use crate::support::wait_for;

#[derive(Clone, Copy, Debug)]
enum Port {
    Api,
    Nats,
    Monitoring,
}

const PORTS: [Port; 3] = [Port::Api, Port::Nats, Port::Monitoring];

impl Port {
    fn variable(self) -> &'static str {
        match self {
            Self::Api => "API_PORT",
            Self::Nats => "NATS_PORT",
            Self::Monitoring => "NATS_HTTP_PORT",
        }
    }

    fn number(self, run: &Run) -> u16 {
        let ports = &run.broker.ports;
        match self {
            Self::Api => ports.api,
            Self::Nats => ports.nats,
            Self::Monitoring => ports.http,
        }
    }

    /// Takes it as soon as it is free.
    fn take(self, run: &Run) -> TcpListener {
        let address = ("127.0.0.1", self.number(run));
        wait_for("the port is free", || TcpListener::bind(address).ok())
    }
}

#[test]
fn port_taken_before_the_start() {
    let mut run = Run::of("port_taken_before_the_start");
    for round in 0..dose(3, 30) {
        let port = PORTS[round % 3];
        let taken = port.take(&run);
        run.injected();
        run.broker.launch();
        let code = run.broker.wait();
        run.require(code == Some(69), || format!("{port:?} is taken, and the exit code is {code:?}"));
        let log = run.broker.log();
        let number = port.number(&run).to_string();
        let named = log.lines().last().is_some_and(|line| line.contains(port.variable()) && line.contains(&number));
        run.require(named, || format!("the message does not name {} {number}: {log}", port.variable()));
        drop(taken);
        run.start().load(Shape::default());
        run.wait_for_acknowledged(100);
        run.settle();
        let code = run.broker.stop();
        run.require(code == Some(0), || format!("the stop ended with {code:?}"));
        // Stored already: the next producers begin with the same messages.
        std::fs::remove_dir_all(run.broker.store()).unwrap();
    }
    run.finish_stopped();
}

#[test]
fn port_taken_between_death_and_return() {
    let mut run = Run::of("port_taken_between_death_and_return");
    // Time for somebody else to be faster.
    run.broker.set("RESTART_BACKOFF_MIN", "2s").set("RESTART_BACKOFF_MAX", "4s");
    run.start().load(Shape::default());
    for round in 0..dose(3, 30) {
        let port = PORTS[round % 3];
        match port {
            Port::Api => lose_api_port(&mut run),
            Port::Nats | Port::Monitoring => lose_server_port(&mut run, port),
        }
        run.wait_until_ready(Duration::from_secs(30));
        run.wait_for_acknowledged(100);
    }
    run.finish();
}

/// The supervisor holds its own port: only its death lets somebody else in.
fn lose_api_port(run: &mut Run) {
    run.broker.signal(Signal::SIGKILL);
    run.broker.wait();
    let taken = Port::Api.take(run);
    run.injected();
    run.broker.launch();
    let code = run.broker.wait();
    run.require(code == Some(69), || format!("the API port is taken, and the exit code is {code:?}"));
    drop(taken);
    run.start();
}

fn lose_server_port(run: &mut Run, port: Port) {
    let server = run.broker.server_pid();
    let before = run.restarts();
    kill(server, Signal::SIGKILL).unwrap();
    let taken = port.take(run);
    run.injected();
    // It has tried at least twice, and says that it is not ready.
    let tried = wait_within(Duration::from_secs(30), || (run.restarts() >= before + 2).then_some(()));
    let told = run.told();
    run.require(tried.is_some() && !run.is_ready(), || format!("{port:?} is taken; {told}"));
    let lives = !run.broker.has_ended();
    run.require(lives, || format!("the supervisor gave up although {port:?} may become free"));
    drop(taken);
}
