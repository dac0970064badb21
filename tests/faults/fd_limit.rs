//! A low limit of file descriptors and more idle connections than it allows.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::harness::{Newcomers, Run, Shape, dose};

const IDLE_CONNECTIONS: usize = 1_000;

#[test]
fn fd_limit() {
    // Our own: every idle connection has an end here.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut run = Run::of("fd_limit");
    run.newcomers = Newcomers::TurnedAway;
    for round in 0..dose(1, 20) {
        if round > 0 {
            assert_eq!(run.broker.stop(), Some(0));
        }
        let limit = run.choices.u64(64..=256);
        run.note("limit", limit);
        run.launch_through("prlimit", &[&format!("--nofile={limit}:{limit}"), "--"]);
        run.broker.wait_until_ready();
        run.remember_descriptors();
        if round == 0 {
            // Large messages: the server needs a file for another block every few seconds.
            run.load(Shape { producers: 8, length: 4_000, ..Shape::default() });
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, run.broker.ports.nats));
        let idle: Vec<_> = (0..IDLE_CONNECTIONS).filter_map(|_| connect_idle(address)).collect();
        run.injected();
        run.note("connected", idle.len());
        run.pause(5_000..=8_000);
        let supervisor_lives = !run.broker.has_ended();
        run.require(supervisor_lives, || "the supervisor ended".into());
        let hit = run.broker.log().contains("too many open files");
        run.require(hit, || "the server did not reach its limit: this proves nothing".into());
        drop(idle);
        if !run.wait_until_ready(Duration::from_secs(60)) || !run.wait_for_acknowledged(500) {
            // What is stored is still compared; another round would show nothing new.
            break;
        }
    }
    run.finish();
}

/// The kernel accepts more than the server; those wait for their turn.
fn connect_idle(address: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.write_all(b"CONNECT {\"verbose\":false}\r\n").ok()?;
    Some(stream)
}
