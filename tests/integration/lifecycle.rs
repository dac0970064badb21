//! Start, stop, death and return.

use std::process::Command;

use nix::sys::signal::{Signal, kill};

use crate::reload::logged;
use crate::support::*;

#[test]
fn eight_families_live_through_a_stop_and_a_start() {
    let mut broker = Broker::new();
    broker.start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        for (index, subject) in SUBJECTS.iter().enumerate() {
            assert_eq!(jetstream.publish(subject, "x").await, index as u64 + 1);
        }
    });
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
    broker.start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        for (index, subject) in SUBJECTS.iter().enumerate() {
            assert_eq!(jetstream.subject_of("MARKET_DATA", index as u64 + 1).await, *subject);
        }
    });
    assert_eq!(broker.stop(), Some(0));
    assert!(broker.log().contains("\"phases\":\"settings"), "{}", broker.log());
}

#[test]
fn a_stop_with_a_drain_delay_is_unready_first() {
    let mut broker = Broker::new();
    // Longer than the test's patience: only the second signal can end it in time.
    broker.set("SHUTDOWN_DRAIN_DELAY", "100").set("SHUTDOWN_TIMEOUT", "200").start();
    broker.signal(Signal::SIGTERM);
    wait_for("/readyz answers 503", || (http_get(&broker.api("/readyz")).0 == 503).then_some(()));
    assert_eq!(broker.health()["checks"]["nats_server"]["state"], "draining");
    block_on(async { JetStream(broker.client().await).publish(SUBJECTS[0], "still served").await });
    wait_for("asked again, it ends", || {
        broker.signal(Signal::SIGTERM);
        broker.has_ended().then_some(())
    });
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn a_stop_during_the_start_is_clean() {
    for _ in 0..5 {
        let mut broker = Broker::new();
        broker.launch();
        wait_for("the signal handlers are in place", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).ok()?;
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"))?;
            let mask = u64::from_str_radix(caught, 16).ok()?;
            (mask & 1 << (Signal::SIGTERM as i32 - 1) != 0).then_some(())
        });
        assert_eq!(broker.stop(), Some(0), "{}", broker.log());
    }
}

#[test]
fn a_server_that_ignores_the_stop_is_killed_in_time() {
    let mut broker = Broker::new();
    broker.set("SHUTDOWN_TIMEOUT", "1").start();
    let server = broker.server_pid();
    kill(server, Signal::SIGSTOP).unwrap();
    assert_eq!(broker.stop(), Some(0));
    assert!(!is_alive(server));
}

#[test]
fn a_killed_server_comes_back_with_its_data() {
    let mut broker = Broker::new();
    broker.start();
    block_on(async { JetStream(broker.client().await).publish(SUBJECTS[1], "x").await });
    let first = broker.server_pid();
    kill(first, Signal::SIGKILL).unwrap();
    wait_for("another server is ready", || {
        let health = broker.health();
        let server = &health["checks"]["nats_server"];
        (server["restarts"] == 1 && server["state"] == "ready").then_some(())
    });
    assert_ne!(broker.server_pid(), first);
    let subject = block_on(async { JetStream(broker.client().await).subject_of("MARKET_DATA", 1).await });
    assert_eq!(subject, SUBJECTS[1]);
    logged(&broker, "nats-server ended with signal SIGKILL");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_spent_budget_ends_with_75_and_the_last_lines() {
    let mut broker = Broker::new();
    // nats-server reads it, and cannot start with it.
    let fragment = broker.path("extra.conf");
    std::fs::write(&fragment, "mqtt { port: 1, host: \"203.0.113.1\" }\n").unwrap();
    broker.set("NATS_EXTRA_CONFIG", fragment.display()).set("RESTART_MAX", "2").set("RESTART_BACKOFF_MIN", "0");
    broker.launch();
    assert_eq!(broker.wait(), Some(75), "{}", broker.log());
    assert!(broker.log().contains("[FTL]"), "{}", broker.log());
}

#[test]
fn a_configuration_that_the_server_refuses_is_78_at_once() {
    let mut broker = Broker::new();
    let fragment = broker.path("extra.conf");
    std::fs::write(&fragment, "no_such_key: 5\n").unwrap();
    broker.set("NATS_EXTRA_CONFIG", fragment.display());
    broker.launch();
    assert_eq!(broker.wait(), Some(78), "{}", broker.log());
    assert!(broker.log().contains("no_such_key"), "{}", broker.log());
}

#[test]
fn a_lost_connection_of_our_own_is_made_again() {
    let mut broker = Broker::new();
    broker.set("NATS_MAX_RECONNECT", "1").set("NATS_PING_INTERVAL", "100ms").set("NATS_PING_MAX", "1");
    broker.set("HEALTH_CHECK_INTERVAL", "50ms").set("NATS_CONNECT_TIMEOUT", "200ms").start();
    let server = broker.server_pid();
    // nats-server finds our client silent while we are stopped, and cuts it off; meanwhile it stops.
    broker.signal(Signal::SIGSTOP);
    wait_for("nats-server has cut us off", || {
        let connections = block_on(async {
            let url = format!("http://127.0.0.1:{}/connz", broker.ports.http);
            let answer = http_client().get(url).send().await.ok()?.json::<serde_json::Value>().await.ok()?;
            answer["num_connections"].as_u64()
        });
        (connections == Some(0)).then_some(())
    });
    kill(server, Signal::SIGSTOP).unwrap();
    broker.signal(Signal::SIGCONT);
    wait_for("degraded", || (broker.health()["checks"]["nats_server"]["state"] == "degraded").then_some(()));
    kill(server, Signal::SIGCONT).unwrap();
    wait_for("ready again", || (http_get(&broker.api("/readyz")).0 == 200).then_some(()));
    assert_eq!(broker.server_pid(), server);
}

#[test]
fn no_server_outlives_a_killed_supervisor() {
    let mut broker = Broker::new();
    broker.start();
    let server = broker.server_pid();
    broker.signal(Signal::SIGKILL);
    assert_eq!(broker.wait(), None);
    wait_for("nats-server is gone", || (!is_alive(server)).then_some(()));
    broker.start();
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn as_pid_1_it_buries_orphans_and_keeps_the_child_s_own_status() {
    const TEST: &str = "as_pid_1_it_buries_orphans_and_keeps_the_child_s_own_status";
    if !is_root() {
        return cannot_run(TEST, "a process namespace needs root");
    }
    let mut broker = Broker::new();
    let command = broker.unshared(&["--pid", "--fork", "--kill-child", "--"]);
    broker.launch_as(command);
    broker.wait_until_ready();
    let init = children_of(broker.pid())[0];
    assert_eq!(comm(init), "unified-nats");

    // A shell inside the namespace leaves children behind, which the namespace's PID 1 adopts.
    let orphans = 200;
    let script = format!("for i in $(seq {orphans}); do (exit 7) & done; sleep 0.01 & exit 0");
    let mut entered = Command::new("nsenter");
    entered.args(["--target", &init.to_string(), "--pid", "--", "sh", "-c", &script]);
    assert!(entered.status().unwrap().success());
    let others = |pids: Vec<_>| pids.into_iter().filter(|pid| comm(*pid) != "nats-server").count();
    wait_for("only nats-server is left below PID 1", || (others(children_of(init)) == 0).then_some(()));

    let nats_server = children_of(init)[0];
    kill(nats_server, Signal::SIGKILL).unwrap();
    wait_for("another server is ready", || {
        let health = broker.health();
        let server = &health["checks"]["nats_server"];
        (server["restarts"] == 1 && server["state"] == "ready").then_some(())
    });
    logged(&broker, "nats-server ended with signal SIGKILL");
    kill(init, Signal::SIGTERM).unwrap();
    assert_eq!(broker.wait(), Some(0), "{}", broker.log());
}

#[test]
fn probes_and_health_tell_the_state() {
    let mut broker = Broker::new();
    broker.set("HEALTH_CHECK_INTERVAL", "50ms").start();
    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(http_get(&broker.api(path)).0, 200, "{path}");
    }
    let health = wait_for("the periodic check has run", || {
        let health = broker.health();
        health["checks"]["http"].is_object().then_some(health)
    });
    assert_eq!(health["status"], "healthy", "{health}");
    assert_eq!(health["checks"]["datatypes"]["status"], "pass");

    // Somebody deletes the stream: not ready any more, and the reason is told.
    block_on(async {
        JetStream(broker.client().await).ask("$JS.API.STREAM.DELETE.MARKET_DATA", serde_json::Value::Null).await
    });
    // Who looks after its messages may find it gone before the health check does.
    wait_for("/readyz answers 503, and why", || {
        let (status, body) = http_get(&broker.api("/readyz"));
        (status == 503 && body.contains("MARKET_DATA does not exist")).then_some(())
    });
    assert_eq!(http_get(&broker.api("/livez")).0, 200);
}

#[test]
fn a_disk_that_is_full_at_the_start_degrades_and_heals() {
    const TEST: &str = "a_disk_that_is_full_at_the_start_degrades_and_heals";
    if !is_root() {
        return cannot_run(TEST, "mounting a small file system needs root");
    }
    let mut broker = Broker::new();
    let store = Mounted::tmpfs(broker.store(), "4m");
    store.fill();
    broker.launch();
    wait_for("degraded", || (broker.health()["checks"]["nats_server"]["state"] == "degraded").then_some(()));
    let server = broker.server_pid();
    logged(&broker, "is full: starting all the same");
    store.make_room();
    broker.wait_until_ready();
    block_on(async { JetStream(broker.client().await).publish(SUBJECTS[0], "x").await });
    assert_eq!(broker.server_pid(), server, "it was not restarted in a loop");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn what_was_not_in_place_during_the_start_is_no_complaint_afterwards() {
    let mut broker = Broker::new();
    let streams: String =
        (0..300).map(|i| format!("  S{i:03}: {{subjects: [s{i:03}.>], consumers: {{c: {{}}}}}}\n")).collect();
    let file = broker.path("streams.yml");
    std::fs::write(&file, format!("streams:\n{streams}")).unwrap();
    broker.set("STREAMS_FILE", file.display());
    for interval in ["60ms", "150ms"] {
        std::fs::remove_dir_all(broker.store()).ok();
        broker.set("HEALTH_PROBE_INTERVAL", interval).start();
        // As long as a complaint is kept, and a little more.
        let ready = std::time::Instant::now();
        while ready.elapsed() < std::time::Duration::from_millis(2200) {
            let (status, body) = http_get(&broker.api("/readyz"));
            assert_eq!(status, 200, "{interval} {body}\n{}", broker.log());
        }
        assert_eq!(broker.stop(), Some(0));
    }
}

#[test]
fn a_leaf_node_that_may_not_connect_is_no_fault_of_the_store() {
    if !is_root() {
        return cannot_run("a_leaf_node_that_may_not_connect", "a network namespace needs root");
    }
    let mut broker = Broker::new();
    let fragment = broker.path("extra.conf");
    let external = "leafnodes { remotes: [ { url: \"nats-leaf://198.51.100.7:7422\" } ], reconnect: 1 }\n";
    std::fs::write(&fragment, external).unwrap();
    broker.set("NATS_EXTRA_CONFIG", fragment.display()).set("HEALTH_PROBE_INTERVAL", "50ms");
    // A network of its own, in which connect() answers EACCES.
    let script = "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && ip route add prohibit 198.51.100.7 && exec \"$@\"";
    let command = broker.unshared(&["--net", "--", "sh", "-c", script, "sh"]);
    broker.launch_as(command);
    wait_for("it may not connect", || broker.log().contains("connect: permission denied").then_some(()));
    let namespace = format!("--net=/proc/{}/ns/net", broker.pid());
    wait_for("it is healthy", || {
        let mut check = broker.command_of("nsenter", &[&namespace, PROGRAM, "health-check", "full"]);
        check.output().unwrap().status.success().then_some(())
    });
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
    assert!(!broker.log().contains("the store can"), "{}", broker.log());
    assert!(!broker.log().contains("\"state\":\"degraded\""), "{}", broker.log());
    broker.set("NATS_EXTRA_CONFIG", "").start();
    let info = block_on(async { JetStream(broker.client().await).info("MARKET_DATA").await });
    assert_eq!(info["state"]["last_seq"], 0, "nothing was written to prove that writing works: {info}");
    assert_eq!(broker.stop(), Some(0));
}
