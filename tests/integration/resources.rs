//! Memory, descriptors and disk, and what happens when they are short.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::reload::logged;
use crate::support::*;

/// A variable in the environment that a process was started with.
fn variable_of(pid: Pid, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let pairs = environment.split(|b| *b == 0).map(|pair| String::from_utf8_lossy(pair).into_owned());
    pairs.into_iter().find_map(|pair| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// Soft and hard limit of open files.
fn descriptor_limits(pid: Pid) -> (String, String) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut fields = line.split_whitespace().map(str::to_owned);
    (fields.next().unwrap(), fields.next().unwrap())
}

/// The program with limits of its own for open descriptors.
fn limited(broker: &Broker, soft: u64, hard: u64) -> Command {
    let mut command = broker.command(&["run"]);
    #[allow(unsafe_code, reason = "the standard library sets no limits")]
    // SAFETY: setrlimit is async-signal-safe.
    unsafe {
        command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?));
    }
    command
}

#[test]
fn gomemlimit_reaches_nats_server_as_it_is_set() {
    let mut broker = Broker::new();
    broker.set("GOMEMLIMIT", "700MiB").start();
    assert_eq!(variable_of(broker.server_pid(), "GOMEMLIMIT").as_deref(), Some("700MiB"));
    logged(&broker, "JETSTREAM_MAX_MEMORY=1GB is above GOMEMLIMIT=700.0MB");
    assert_eq!(broker.stop(), Some(0));
}

/// A broker with control groups as a container sees them, with a limit of 512 MiB; needs root.
fn in_a_small_container(test: &str) -> Option<Broker> {
    if !is_root() {
        cannot_run(test, "a mount namespace needs root");
        return None;
    }
    let mut broker = Broker::new();
    let script = "mount -t tmpfs tmpfs /sys/fs/cgroup && echo 536870912 > /sys/fs/cgroup/memory.max && exec \"$@\"";
    let command = broker.unshared(&["--mount", "--", "sh", "-c", script, "sh"]);
    broker.launch_as(command);
    broker.wait_until_ready();
    Some(broker)
}

#[test]
fn gomemlimit_follows_the_container_s_memory_limit() {
    let Some(mut broker) = in_a_small_container("gomemlimit_follows_the_container_s_memory_limit") else { return };
    assert_eq!(variable_of(broker.server_pid(), "GOMEMLIMIT").as_deref(), Some("429496728"));
    logged(&broker, "the container may use 512.0MB");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn our_own_code_stays_in_memory_where_memory_is_limited() {
    const TEST: &str = "our_own_code_stays_in_memory_where_memory_is_limited";
    let Some(mut broker) = in_a_small_container(TEST) else { return };
    let locked = |pid: Pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let allowed = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap().0 / 1024;
    assert!(locked(broker.pid()) >= allowed.min(1_000), "{} of {allowed} kB", locked(broker.pid()));
    assert_eq!(locked(broker.server_pid()), 0, "nats-server's memory is its own affair");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn the_descriptor_limit_is_raised_for_nats_server_and_judged() {
    let mut broker = Broker::new();
    let command = limited(&broker, 200, 900);
    broker.launch_as(command);
    broker.wait_until_ready();
    for pid in [broker.pid(), broker.server_pid()] {
        assert_eq!(descriptor_limits(pid), ("900".into(), "900".into()));
    }
    logged(&broker, "needs 1100 descriptors and may open 900");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_disk_that_is_too_small_for_the_limit_is_told() {
    let mut broker = Broker::new();
    broker.set("JETSTREAM_MAX_FILE", "4000000TB").start();
    logged(&broker, "JETSTREAM_MAX_FILE=4000000TB cannot be held");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn idle_connections_exhaust_neither_probes_nor_restarts() {
    let mut broker = Broker::new();
    broker.set("HEALTH_CHECK_INTERVAL", "50ms");
    let command = limited(&broker, 64, 64);
    broker.launch_as(command);
    broker.wait_until_ready();
    // More than there are descriptors; the first have to leave.
    let idle: Vec<_> = (0..100).map(|_| TcpStream::connect(("127.0.0.1", broker.ports.api)).unwrap()).collect();
    let open = || fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap().count();
    let probe = |path: &str| http_get(&broker.api(path)).0;
    assert_eq!(["/livez", "/readyz", "/startupz"].map(probe), [200; 3], "at once, among them");
    assert!(open() < 64, "{}", open());

    // Meanwhile the server dies and comes back: a launch still finds descriptors.
    let first = broker.server_pid();
    kill(first, Signal::SIGKILL).unwrap();
    wait_for("another server answers", || {
        let url = format!("http://127.0.0.1:{}/healthz", broker.ports.http);
        let other = children_of(broker.pid()).into_iter().any(|pid| pid != first && comm(pid) == "nats-server");
        (other && http_get(&url).0 == 200).then_some(())
    });
    assert!(!broker.log().contains("cannot start nats-server"), "{}", broker.log());

    drop(idle);
    wait_for("/livez answers", || (http_get(&broker.api("/livez")).0 == 200).then_some(()));
    broker.wait_until_ready();
    assert_eq!(broker.health()["checks"]["nats_server"]["restarts"], 1);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn without_any_descriptor_left_the_supervisor_lives_and_recovers() {
    let mut broker = Broker::new();
    broker.set("HEALTH_CHECK_INTERVAL", "50ms").set("RESTART_MAX", "1000000").start();
    let soft_limit = |limit: &str| {
        let target = broker.pid().to_string();
        let status = Command::new("prlimit").args(["--pid", &target, &format!("--nofile={limit}:")]).status();
        assert!(status.unwrap().success());
    };
    let (soft, _) = descriptor_limits(broker.pid());
    // Fewer than are open: nothing can be accepted, connected to, written or launched.
    soft_limit("3");
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    let failed = |line: &&str| line.contains("cannot start nats-server") && line.contains("Too many open files");
    let failed = || broker.log().lines().filter(failed).count();
    wait_for("launches fail, and are tried again", || (failed() >= 3).then_some(()));
    let waiting = TcpStream::connect(("127.0.0.1", broker.ports.api)).unwrap();
    wait_for("the API port cannot accept", || broker.log().contains("cannot accept connections").then_some(()));
    soft_limit(&soft);
    drop(waiting);
    broker.wait_until_ready();
    let restarts = broker.health()["checks"]["nats_server"]["restarts"].as_u64().unwrap();
    assert!((3..20).contains(&restarts), "each launch that failed counts, and waits longer: {restarts}");
    assert_eq!(broker.log().matches("cannot accept connections").count(), 1);
    assert_eq!(broker.stop(), Some(0));
}
