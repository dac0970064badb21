//! Servers that run and do not answer.

use nix::sys::signal::{Signal, kill};

use crate::reload::logged;
use crate::support::*;

fn eager(broker: &mut Broker) -> &mut Broker {
    broker.set("HEALTH_PROBE_INTERVAL", "50ms").set("HEALTH_HANG_TIMEOUT", "1s")
}

#[test]
fn a_stopped_server_is_unready_then_replaced_with_its_data() {
    let mut broker = Broker::new();
    eager(&mut broker).start();
    block_on(async { JetStream(broker.client().await).publish(SUBJECTS[2], "x").await });
    let server = broker.server_pid();
    kill(server, Signal::SIGSTOP).unwrap();
    wait_for("unready", || (http_get(&broker.api("/readyz")).0 == 503).then_some(()));
    wait_for("it is replaced", || (broker.restarts() == Some(1)).then_some(()));
    broker.wait_until_ready();
    assert!(!is_alive(server), "never two servers on one store");
    let subject = block_on(async { JetStream(broker.client().await).subject_of("MARKET_DATA", 1).await });
    assert_eq!(subject, SUBJECTS[2]);
    logged(&broker, "nats-server hangs");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_stopped_server_without_monitoring_is_replaced_as_well() {
    let mut broker = Broker::new();
    eager(&mut broker).set("MONITORING_ENABLED", "false").start();
    kill(broker.server_pid(), Signal::SIGSTOP).unwrap();
    wait_for("it is replaced", || (broker.restarts() == Some(1)).then_some(()));
    broker.wait_until_ready();
}

#[test]
fn a_server_that_stops_for_a_moment_is_left_alone() {
    let mut broker = Broker::new();
    broker.set("HEALTH_PROBE_INTERVAL", "50ms").set("HEALTH_HANG_TIMEOUT", "60s").start();
    let server = broker.server_pid();
    kill(server, Signal::SIGSTOP).unwrap();
    wait_for("degraded", || (broker.state() == "degraded").then_some(()));
    kill(server, Signal::SIGCONT).unwrap();
    broker.wait_until_ready();
    assert_eq!((broker.server_pid(), broker.restarts()), (server, Some(0)));
}

#[test]
fn a_server_that_hangs_during_its_start_is_replaced() {
    let mut broker = Broker::new();
    eager(&mut broker).set("RESTART_BACKOFF_MIN", "0").launch();
    // Caught before it answers, or just after: both have to end well.
    kill(broker.server_pid(), Signal::SIGSTOP).unwrap();
    wait_for("another one is ready", || {
        (broker.restarts().is_some_and(|restarts| restarts > 0) && broker.state() == "ready").then_some(())
    });
}

/// A program that says it is nats-server, does `before` and then becomes the real one.
fn slow_server(broker: &mut Broker, before: &str) {
    use std::os::unix::fs::PermissionsExt;
    let real = nats_server(CURRENT);
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'nats-server: v{CURRENT}' && exit\n\
         echo '[1] [INF] Starting nats-server'\n{before}\nexec {} \"$@\"\n",
        real.display()
    );
    let path = broker.path("slow-server");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    broker.set("NATS_SERVER_BIN", path.display());
}

#[test]
fn a_server_that_works_for_long_before_it_answers_is_left_alone() {
    let mut broker = Broker::new();
    eager(&mut broker).set("HEALTH_HANG_TIMEOUT", "500ms");
    // About two seconds of work, as the recovery of a large store is.
    slow_server(&mut broker, "i=0; while [ $i -lt 1500000 ]; do i=$((i + 1)); done");
    broker.start();
    assert_eq!(broker.restarts(), Some(0), "{}", broker.log());
}

/// Ended when the test is over, however that ends.
struct Hog(std::process::Child);

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// On a machine that is too busy, or with a small share of a processor.
#[test]
fn a_server_that_gets_hardly_any_processor_for_its_work_is_left_alone() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let processor = allowed.split([',', '-']).next().unwrap();
    let mut hog = std::process::Command::new("taskset");
    let _hog = Hog(hog.args(["-c", processor, "sh", "-c", "while :; do :; done"]).spawn().unwrap());
    let mut broker = Broker::new();
    eager(&mut broker).set("HEALTH_HANG_TIMEOUT", "500ms");
    let begun = broker.path("begun");
    let work = format!(
        "PATH=/usr/bin:/bin; taskset -pc {processor} $$ && chrt -i -p 0 $$ && : > {}; while :; do :; done",
        begun.display()
    );
    slow_server(&mut broker, &work);
    broker.launch();
    wait_for("it works", || begun.exists().then_some(()));
    // The sleep is the test: longer than the time after which silence means hung.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(broker.restarts(), Some(0), "{}", broker.log());
    assert!(!broker.log().contains("nats-server hangs"), "{}", broker.log());
}

#[test]
fn a_server_that_idles_and_never_answers_is_replaced() {
    let mut broker = Broker::new();
    eager(&mut broker).set("HEALTH_HANG_TIMEOUT", "500ms").set("RESTART_MAX", "1").set("RESTART_BACKOFF_MIN", "0");
    slow_server(&mut broker, "exec /bin/sleep 1000");
    broker.launch();
    assert_eq!(broker.wait(), Some(75), "{}", broker.log());
    assert!(broker.log().contains("nats-server hangs"), "{}", broker.log());
}

#[test]
fn a_supervisor_that_slept_blames_nobody() {
    let mut broker = Broker::new();
    eager(&mut broker).start();
    let server = broker.server_pid();
    for _ in 0..3 {
        broker.signal(Signal::SIGSTOP);
        // The sleep is the test: longer than the time after which silence means hung.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        broker.signal(Signal::SIGCONT);
        broker.wait_until_ready();
    }
    assert_eq!((broker.server_pid(), broker.restarts()), (server, Some(0)), "{}", broker.log());
}

#[test]
fn a_stop_of_a_hung_server_comes_to_an_end() {
    let mut broker = Broker::new();
    eager(&mut broker).set("SHUTDOWN_TIMEOUT", "1").start();
    kill(broker.server_pid(), Signal::SIGSTOP).unwrap();
    wait_for("it is being replaced", || (broker.state() == "restarting").then_some(()));
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

#[test]
fn lame_duck_mode_ends_the_broker_in_order() {
    let mut broker = Broker::new();
    broker.set("NATS_LAME_DUCK_GRACE", "100ms").start();
    broker.signal(Signal::SIGUSR2);
    assert_eq!(broker.wait(), Some(0), "{}", broker.log());
    assert!(broker.log().contains("lame duck"), "{}", broker.log());
}

#[test]
fn lame_duck_mode_with_clients_is_unready_and_a_stop_cuts_it_short() {
    let mut broker = Broker::new();
    broker.start();
    let mut client = std::net::TcpStream::connect(broker.url()).unwrap();
    std::io::Write::write_all(&mut client, b"CONNECT {}\r\nPING\r\n").unwrap();
    wait_for("the client is in", || {
        let mut seen = [0; 4096];
        let count = std::io::Read::read(&mut client, &mut seen).unwrap();
        String::from_utf8_lossy(&seen[..count]).contains("PONG").then_some(())
    });
    broker.signal(Signal::SIGUSR2);
    wait_for("unready", || (http_get(&broker.api("/readyz")).0 == 503).then_some(()));
    assert_eq!(broker.state(), "draining");
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
    drop(client);
}

#[test]
fn sigusr1_goes_on_in_a_new_log_file() {
    let mut broker = Broker::new();
    let path = broker.path("logs/nats.log");
    broker.set("NATS_LOG_FILE", path.display()).start();
    let renamed = broker.path("logs/renamed.log");
    std::fs::rename(&path, &renamed).unwrap();
    broker.signal(Signal::SIGUSR1);
    wait_for("a new file", || path.exists().then_some(()));
    assert_eq!(broker.stop(), Some(0));
    assert!(std::fs::read_to_string(path).unwrap().contains("Server Exiting"));
    assert!(std::fs::read_to_string(renamed).unwrap().contains("Server is ready"));
}
