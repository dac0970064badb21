//! Clients that delete, purge, replace, acknowledge, make anew and change limits, in streams of every
//! kind, before, while and after nats-server and the supervisor are killed. Nothing of that is a loss.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_nats::HeaderMap;
use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::kinds::{KINDS, MESSAGES, fill};
use crate::harness::{Run, dose, is_full, wait_within};
use crate::support::{Broker, JetStream, block_on, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
/// Rolls all the time, and is mirrored.
const ROLLING: &str = "ROLLING";
const MIRROR: &str = "MIRROR";
/// Its owner deletes it and makes it anew.
const RECREATED: &str = "RECREATED";
const IN_MEMORY: &str = "IN_MEMORY";
/// Declared in a file; a worker deletes each message that it has processed.
const TASKS: &str = "TASKS";

/// Who is killed, and how.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillServer,
    KillSupervisor,
    Stop,
}

fn prepare(name: &'static str) -> Run {
    let mut run = Run::of(name);
    let file = run.broker.path("streams.yml");
    fs::write(&file, format!("streams:\n  {TASKS}: {{subjects: [\"tasks.>\"]}}\n")).unwrap();
    run.broker.set("STREAMS_FILE", file.display()).set("HEALTH_PROBE_INTERVAL", "200ms");
    run.broker.set("HEALTH_CHECK_INTERVAL", "500ms").set("RESTART_BACKOFF_MAX", "200ms");
    run.start();
    fill(&run.broker, 0..MESSAGES);
    block_on(make_others(&run.broker));
    run
}

#[test]
fn deletions_under_kills() {
    let mut run = prepare("deletions_under_kills");
    let clients = Clients::start(&run.broker, run.choices.u64(..));
    for _ in 0..dose(12, 300) {
        run.pause(100..=1_500);
        // A kill right after a deletion was acknowledged finds it unheard.
        if run.choices.bool() {
            clients.wait_for_another();
        }
        let fault = [Fault::KillServer, Fault::KillSupervisor, Fault::Stop][run.choices.usize(..3)];
        inject(&mut run, fault);
        if !run.wait_until_ready(PATIENCE) {
            break;
        }
        is_well(&mut run, fault);
    }
    run.note("deletions", clients.count());
    clients.stop();
    settle(run);
}

/// Each kind of deletion alone, and a kill at once: nobody has heard of it, or just so.
#[test]
fn a_deletion_right_before_a_kill() {
    let mut run = prepare("a_deletion_right_before_a_kill");
    let rounds = if is_full() { 10 } else { 1 };
    for deletion in (0..DELETIONS).cycle().take(rounds * DELETIONS) {
        let fault = if run.choices.bool() { Fault::KillServer } else { Fault::KillSupervisor };
        let (client, mut choices) = (block_on(run.broker.client()), run.choices.fork());
        let server = run.broker.server_pid();
        block_on(async {
            let _ = delete(&JetStream(client), deletion, &mut choices).await;
            // Within the runtime: what was acknowledged a moment ago is all that has happened since.
            match fault {
                Fault::KillServer => kill(server, Signal::SIGKILL).unwrap(),
                _ => run.broker.signal(Signal::SIGKILL),
            }
        });
        run.injected();
        match fault {
            Fault::KillServer => _ = run.wait_for_another_server(server, PATIENCE),
            _ => {
                run.broker.wait();
                run.start();
            }
        }
        if !run.wait_until_ready(PATIENCE) {
            break;
        }
        is_well(&mut run, (fault, deletion));
        fill_up(&run.broker);
    }
    settle(run);
}

fn inject(run: &mut Run, fault: Fault) {
    run.injected();
    match fault {
        Fault::KillServer => _ = run.kill_server(),
        Fault::KillSupervisor => {
            run.broker.signal(Signal::SIGKILL);
            run.broker.wait();
            run.start();
        }
        Fault::Stop => {
            let code = run.broker.stop();
            run.require(code == Some(0), || format!("the stop ended with {code:?}"));
            run.start();
        }
    }
}

fn is_well(run: &mut Run, after: impl std::fmt::Debug) {
    let integrity = run.broker.health()["checks"]["integrity"].clone();
    run.require(integrity["status"] != "fail", || format!("{after:?}: {integrity}"));
}

/// Everything is read through in the end, and nothing was called missing on the way.
fn settle(mut run: Run) {
    let healthy = wait_within(PATIENCE, || (run.broker.health()["status"] == "healthy").then_some(()));
    let health = run.broker.health();
    run.require(healthy.is_some(), || format!("not healthy in the end: {health}"));
    let log = run.broker.log();
    for line in log.lines().filter(|line| line.contains("messages are missing")).take(3) {
        run.violation(line.to_owned());
    }
    let code = run.broker.stop();
    run.require(code == Some(0), || format!("the stop ended with {code:?}"));
    run.finish_stopped();
}

async fn make_others(broker: &Broker) {
    let jetstream = JetStream(broker.client().await);
    for config in [
        json!({ "name": ROLLING, "subjects": ["rolling.>"], "max_msgs": 50, "storage": "file" }),
        json!({ "name": MIRROR, "mirror": { "name": ROLLING }, "storage": "file" }),
        recreated(),
        json!({ "name": IN_MEMORY, "subjects": ["memory.>"], "storage": "memory" }),
    ] {
        let subject = format!("$JS.API.STREAM.CREATE.{}", config["name"].as_str().unwrap());
        let made = jetstream.ask(&subject, config).await;
        assert!(made["error"].is_null(), "{made}");
    }
    for number in 0..40 {
        for subject in ["rolling", "recreated", "memory", "tasks"] {
            jetstream.try_publish(&format!("{subject}.{}", number % 4), vec![b'x'; 500]).await.unwrap();
        }
    }
}

fn recreated() -> Value {
    json!({ "name": RECREATED, "subjects": ["recreated.>"], "storage": "file" })
}

/// Publishes what deletions have taken.
fn fill_up(broker: &Broker) {
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        for kind in &KINDS {
            let held = jetstream.info(kind.stream).await["state"]["messages"].as_u64().unwrap_or_default() as usize;
            kind.publish(&jetstream, 0..MESSAGES.saturating_sub(held).min(50)).await;
        }
    });
}

/// Ways to delete.
const DELETIONS: usize = 14;

/// Deletes something; whether that was acknowledged.
async fn delete(jetstream: &JetStream, which: usize, choices: &mut Rng) -> Option<()> {
    let kind = &KINDS[choices.usize(..KINDS.len())];
    // Buckets refuse the deletion of a message, and the owner of a bucket does not ask for it.
    let plain = [&KINDS[0], &KINDS[3], &KINDS[4], &KINDS[5], &KINDS[6], &KINDS[7]][choices.usize(..6)];
    let state = info(jetstream, plain.stream).await?;
    let (first, last) = (state["first_seq"].as_u64()?, state["last_seq"].as_u64()?);
    let middle = first + choices.u64(..=(last + 1).saturating_sub(first) / 2);
    match which {
        0 => ask(jetstream, &format!("STREAM.MSG.DELETE.{}", plain.stream), json!({ "seq": middle })).await,
        1 => {
            let request = json!({ "seq": middle, "no_erase": true });
            ask(jetstream, &format!("STREAM.MSG.DELETE.{}", plain.stream), request).await
        }
        2 => purge(jetstream, kind.stream, json!({ "filter": kind.subject(choices.usize(..MESSAGES)) })).await,
        3 => purge(jetstream, plain.stream, json!({ "seq": middle })).await,
        4 => purge(jetstream, kind.stream, json!({ "keep": 20 })).await,
        5 => purge(jetstream, kind.stream, Value::Null).await,
        6 => roll_up(jetstream, &KINDS[4].subject(choices.usize(..10)), "sub", None).await,
        7 => roll_up(jetstream, &KINDS[3].subject(choices.usize(..10)), "all", None).await,
        8 => roll_up(jetstream, &KINDS[2].subject(choices.usize(..60)), "sub", Some("PURGE")).await,
        9 => publish(jetstream, &KINDS[1].subject(choices.usize(..MESSAGES)), &[("KV-Operation", "DEL")]).await,
        10 => {
            for kind in [&KINDS[5], &KINDS[6]] {
                timeout(ANSWER, kind.acknowledge(&jetstream.0, 20)).await.ok()??;
            }
            Some(())
        }
        11 => {
            // The worker of a stream that is declared.
            let state = info(jetstream, TASKS).await?;
            for seq in state["first_seq"].as_u64()?..=state["last_seq"].as_u64()?.min(state["first_seq"].as_u64()? + 5)
            {
                ask(jetstream, &format!("STREAM.MSG.DELETE.{TASKS}"), json!({ "seq": seq })).await;
            }
            publish(jetstream, "tasks.1", &[]).await
        }
        12 => {
            ask(jetstream, &format!("STREAM.DELETE.{RECREATED}"), Value::Null).await?;
            // A kill may come between the two.
            if choices.bool() {
                ask(jetstream, &format!("STREAM.CREATE.{RECREATED}"), recreated()).await?;
                publish(jetstream, "recreated.1", &[]).await?;
            }
            Some(())
        }
        _ => publish(jetstream, &KINDS[7].subject(1), &[("Nats-TTL", "1s")]).await,
    }
}

/// What else clients do.
async fn go_on(jetstream: &JetStream, choices: &mut Rng) -> Option<()> {
    match choices.usize(..5) {
        0 => {
            let kind = &KINDS[choices.usize(..KINDS.len())];
            for number in 0..20 {
                publish(jetstream, &kind.subject(number), &[]).await?;
            }
        }
        1 => {
            for subject in ["rolling.1", "memory.1", "tasks.1", "recreated.2"] {
                publish(jetstream, subject, &[]).await;
            }
        }
        2 => {
            // Limits go up and down while messages roll.
            let (messages, age) =
                [(50, 0), (500, 0), (-1, 1_000_000_000_u64), (-1, 3_600_000_000_000)][choices.usize(..4)];
            let config = json!({
                "name": ROLLING, "subjects": ["rolling.>"], "storage": "file", "max_msgs": messages, "max_age": age,
                "duplicate_window": 500_000_000,
            });
            ask(jetstream, &format!("STREAM.UPDATE.{ROLLING}"), config).await;
        }
        3 => {
            for stream in [ROLLING, IN_MEMORY] {
                let last = info(jetstream, stream).await?["last_seq"].as_u64()?;
                let seq = last.saturating_sub(choices.u64(..20));
                ask(jetstream, &format!("STREAM.MSG.DELETE.{stream}"), json!({ "seq": seq })).await;
            }
        }
        _ => {
            for number in 0..60 {
                publish(jetstream, &format!("rolling.{}", number % 4), &[]).await?;
            }
        }
    }
    Some(())
}

/// The answer, unless the server went away or refused.
async fn ask(jetstream: &JetStream, request: &str, body: Value) -> Option<()> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let answer = timeout(ANSWER, jetstream.0.request(format!("$JS.API.{request}"), body.into())).await.ok()?.ok()?;
    let answer: Value = serde_json::from_slice(&answer.payload).ok()?;
    answer["error"].is_null().then_some(())
}

const ANSWER: Duration = Duration::from_millis(500);

async fn info(jetstream: &JetStream, stream: &str) -> Option<Value> {
    let request = jetstream.0.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into());
    let answer: Value = serde_json::from_slice(&timeout(ANSWER, request).await.ok()?.ok()?.payload).ok()?;
    answer["error"].is_null().then(|| answer["state"].clone())
}

async fn purge(jetstream: &JetStream, stream: &str, request: Value) -> Option<()> {
    ask(jetstream, &format!("STREAM.PURGE.{stream}"), request).await
}

async fn roll_up(jetstream: &JetStream, subject: &str, what: &str, operation: Option<&str>) -> Option<()> {
    let operation = operation.map(|operation| ("KV-Operation", operation));
    let headers: Vec<_> = [("Nats-Rollup", what)].into_iter().chain(operation).collect();
    publish(jetstream, subject, &headers).await
}

async fn publish(jetstream: &JetStream, subject: &str, headers: &[(&str, &str)]) -> Option<()> {
    let mut map = HeaderMap::new();
    headers.iter().for_each(|(name, value)| map.insert(*name, *value));
    let request = jetstream.0.request_with_headers(subject.to_owned(), map, vec![b'y'; 1_000].into());
    let answer: Value = serde_json::from_slice(&timeout(ANSWER, request).await.ok()?.ok()?.payload).ok()?;
    answer["seq"].is_u64().then_some(())
}

/// Clients that go on until they are told to stop.
struct Clients {
    over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Clients {
    fn start(broker: &Broker, seed: u64) -> Self {
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_over, counted, url) = (over.clone(), done.clone(), broker.url());
        let thread = std::thread::spawn(move || {
            let mut choices = Rng::with_seed(seed);
            block_on(async {
                let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
                let jetstream = JetStream(options.connect(&url).await.unwrap());
                while !is_over.load(Ordering::Relaxed) {
                    go_on(&jetstream, &mut choices).await;
                    let which = choices.usize(..DELETIONS);
                    if delete(&jetstream, which, &mut choices).await.is_some() {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    if which == 12 {
                        ask(&jetstream, &format!("STREAM.CREATE.{RECREATED}"), recreated()).await;
                    }
                }
            });
        });
        Self { over, done, thread }
    }

    fn count(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn wait_for_another(&self) {
        let before = self.count();
        wait_for("a deletion is acknowledged", || (self.count() > before).then_some(()));
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}
