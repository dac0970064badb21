//! Log lines and nats-server's own file.

use crate::support::*;

#[test]
fn every_line_is_json_with_the_documented_fields() {
    let mut broker = Broker::new();
    broker.start();
    assert_eq!(broker.stop(), Some(0));
    let text = std::fs::read_to_string(broker.path("stdout")).unwrap();
    let mut loggers = std::collections::HashSet::new();
    for line in text.lines() {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).expect(line);
        let keys: Vec<_> = object.keys().take(5).collect();
        assert_eq!(keys, ["timestamp", "level", "logger", "message", "service"], "{line}");
        loggers.insert(object["logger"].as_str().unwrap().to_owned());
    }
    assert!(loggers.contains("nats-server") && loggers.contains("app"), "{loggers:?}");
    assert_eq!(std::fs::read_to_string(broker.path("stderr")).unwrap(), "");
}

#[test]
fn the_server_s_own_file_is_written_and_rotated() {
    let mut broker = Broker::new();
    let file = broker.path("logs/nats.log");
    broker.set("NATS_LOG_FILE", file.display()).set("NATS_LOG_MAX_SIZE", "64KB").set("NATS_LOG_MAX_FILES", "2");
    broker.set("NATS_TRACE", "true").start();
    let rotated = broker.path("logs/nats.log.1");
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let mut sent = 0;
        while !rotated.exists() && sent < 20_000 {
            jetstream.publish(SUBJECTS[0], &"x".repeat(200)).await;
            sent += 1;
        }
    });
    assert_eq!(broker.stop(), Some(0));
    assert!(rotated.exists());
    assert!(std::fs::metadata(&rotated).unwrap().len() <= 64 << 10);
    assert!(!broker.path("logs/nats.log.2").exists());
    let last = std::fs::read_to_string(&file).unwrap();
    assert!(last.contains("[INF] Server Exiting"), "the last lines are there, too");
}

#[test]
fn a_reader_that_stalls_does_not_stall_the_broker() {
    use std::io::Read;
    use std::process::Stdio;
    let mut broker = Broker::new();
    broker.set("NATS_TRACE", "true");
    let mut command = broker.command(&["run"]);
    // A pipe that nobody reads holds 64 KiB; tracing 2,000 publishes prints far more.
    let (mut reader, writer) = std::io::pipe().unwrap();
    command.stdout(writer).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    wait_for("ready", || (http_get(&broker.api("/readyz")).0 == 200).then_some(()));
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        for _ in 0..2_000 {
            jetstream.publish(SUBJECTS[0], "x").await;
        }
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    let status = wait_for("the broker ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.len() < 200_000, "what nobody read was dropped, not kept: {}", text.len());
}

#[test]
fn a_long_line_is_whole_in_the_server_s_own_file() {
    let mut broker = Broker::new();
    let file = broker.path("nats.log");
    broker.set("NATS_LOG_FILE", file.display()).set("NATS_TRACE", "true").start();
    let payload = "0123456789".repeat(10_000);
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        jetstream.publish(SUBJECTS[0], &payload).await;
    });
    assert_eq!(broker.stop(), Some(0));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.lines().any(|line| line.contains(&payload)), "one line holds all of it");
    assert!(!broker.log().contains(&payload), "the log stream holds its beginning");
    assert!(broker.log().contains(&payload[..10_000]));
}
