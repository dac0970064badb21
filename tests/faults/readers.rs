//! kill -9 nats-server under readers over HTTP: what they were sent is what was acknowledged, each message
//! once and in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Run, Shape, dose, try_read_stream};
use crate::sse::Sse;
use crate::support::{JetStream, SUBJECTS, block_on, http_client};
use crate::ws_client::{Got, Ws};

/// Between two looks at whether a reader is done.
const STEP: Duration = Duration::from_millis(500);
/// Time for a reader to get the last message.
const PATIENCE: Duration = Duration::from_secs(60);

/// When readers are done: with that sequence, once it is known.
#[derive(Clone)]
struct Until(Arc<AtomicU64>);

/// The sequences of messages of producers, as they came, and what went wrong.
#[derive(Default)]
struct Received {
    sequences: Vec<u64>,
    problems: Vec<String>,
    resumed: usize,
}

impl Received {
    /// Takes a message or an event of another kind.
    fn take(&mut self, kind: &str, message: &Value) {
        if kind != "message" {
            return self.problems.push(format!("{kind}: {message}"));
        }
        let sequence = message["sequence"].as_u64().unwrap_or_default();
        if self.sequences.last().is_some_and(|last| *last >= sequence) {
            self.problems.push(format!("{sequence} came after {:?}", self.sequences.last()));
        }
        // Probes that write are nobody's.
        if message["headers"]["Nats-Msg-Id"].is_string() {
            self.sequences.push(sequence);
        }
    }

    fn is_done(&self, until: &Until, given_up: &mut Option<Instant>) -> bool {
        let until = until.0.load(Ordering::SeqCst);
        if until == u64::MAX {
            return false;
        }
        let late = given_up.get_or_insert_with(Instant::now).elapsed() > PATIENCE;
        late || self.sequences.last().is_some_and(|last| *last >= until)
    }
}

fn on_a_thread(read: impl Future<Output = Received> + Send + 'static) -> JoinHandle<Received> {
    std::thread::spawn(move || block_on(read))
}

/// A tail of server-sent events on one connection, which survives every kill.
async fn tail(mut sse: Sse, mut received: Received, until: Until) -> Received {
    let mut given_up = None;
    while !received.is_done(&until, &mut given_up) {
        if let Some(event) = sse.next_within(STEP).await {
            received.take(&event.kind, &event.data);
        }
    }
    received
}

/// One that leaves again and again and resumes where it was.
async fn resuming(url: String, mut choices: fastrand::Rng, until: Until) -> Received {
    let (mut received, mut given_up) = (Received::default(), None);
    let mut id = None;
    while !received.is_done(&until, &mut given_up) {
        let mut sse = match Sse::open(&url, id.as_deref()).await {
            Ok(sse) => sse,
            Err((0 | 503 | 504, _)) => continue,
            Err(refusal) => {
                received.problems.push(format!("{refusal:?}"));
                return received;
            }
        };
        received.resumed += usize::from(id.is_some());
        for _ in 0..choices.u32(1..2_000) {
            let Some(event) = sse.next_within(STEP).await else { break };
            received.take(&event.kind, &event.data);
        }
        id = Some(sse.last_id.clone()).filter(|id| !id.is_empty()).or(id);
    }
    received
}

/// A WebSocket that grants so many messages at a time.
async fn granting(port: u16, mut choices: fastrand::Rng, until: Until) -> Received {
    let (mut received, mut given_up) = (Received::default(), None);
    let mut ws = Ws::open(port).await;
    ws.send(json!({ "type": "subscribe", "id": "a", "subject": "*.>", "from": 1, "credits": 1 })).await;
    ws.expect("subscribed").await;
    let mut credits = 1;
    while !received.is_done(&until, &mut given_up) {
        if credits == 0 {
            credits = choices.u64(1..2_000);
            ws.send(json!({ "type": "credits", "id": "a", "n": credits })).await;
        }
        match ws.next_within(STEP).await {
            Got::Frame(frame) => {
                credits = credits.saturating_sub(u64::from(frame["type"] == "message"));
                received.take(frame["type"].as_str().unwrap_or_default(), &frame);
            }
            Got::Nothing => {}
            Got::Closed(code, reason) => {
                received.problems.push(format!("closed: {code} {reason}"));
                break;
            }
        }
    }
    received
}

/// Replays everything again and again; gives those that call themselves whole, and counts the others.
async fn replaying(url: String, until: Until, (whole, cut): (Arc<AtomicUsize>, Arc<AtomicUsize>)) -> Vec<Received> {
    let mut all = vec![];
    while until.0.load(Ordering::SeqCst) == u64::MAX {
        let Ok(answer) = http_client().get(&url).send().await else { continue };
        if answer.status() != 200 {
            continue;
        }
        let text = answer.text().await.unwrap_or_default();
        let mut received = Received::default();
        let mut lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let is_whole = lines.pop().is_some_and(|last| last["end"]["complete"] == true);
        if !is_whole {
            cut.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        whole.fetch_add(1, Ordering::SeqCst);
        for line in &lines {
            received.take(if line["gap"].is_null() { "message" } else { "gap" }, line);
        }
        all.push(received);
    }
    all
}

#[test]
fn readers_are_sent_what_was_acknowledged() {
    let mut run = Run::of("readers");
    run.broker.set("RESTART_BACKOFF_MAX", "200ms");
    run.start();
    let until = Until(Arc::new(AtomicU64::new(u64::MAX)));
    let client = block_on(async {
        let js = JetStream(run.broker.client().await);
        for _ in 0..3 {
            for subject in SUBJECTS {
                js.publish(subject, "1").await;
            }
        }
        // The last of each subject, and nothing else before the load begins.
        let mut sse = Sse::open(&run.broker.api("/api/v1/broker/tail?subject=*.>&snapshot=last"), None).await.unwrap();
        let snapshot = sse.messages(SUBJECTS.len()).await;
        let sequences: Vec<_> = snapshot.iter().map(|message| message["sequence"].as_u64().unwrap()).collect();
        assert_eq!(sequences, (17..=24).collect::<Vec<_>>());
        sse.last_id
    });
    // Its connection ended with the runtime: on from there, with another one that lives.
    let url = run.broker.api("/api/v1/broker/tail?subject=*.>");
    let (all, port) = (run.broker.api("/api/v1/broker/tail?subject=*.>&from=1"), run.broker.ports.api);
    let readers = [
        ("tail of a snapshot", {
            let until = until.clone();
            on_a_thread(
                async move { tail(Sse::open(&url, Some(&client)).await.unwrap(), Received::default(), until).await },
            )
        }),
        ("resuming tail", on_a_thread(resuming(all, run.choices.fork(), until.clone()))),
        ("WebSocket with credits", on_a_thread(granting(port, run.choices.fork(), until.clone()))),
    ];
    let counts = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let replays = {
        let (url, until, counts) = (run.broker.api("/api/v1/broker/replay?subject=*.>"), until.clone(), counts.clone());
        std::thread::spawn(move || block_on(replaying(url, until, counts)))
    };
    run.load(Shape::default());
    for _ in 0..dose(10, 200) {
        run.pause(500..=3_000);
        run.injected();
        if !run.kill_server() {
            break;
        }
    }
    run.pause(500..=1_000);
    let ledger = run.stop_load();
    run.wait_until_ready(Duration::from_secs(60));
    let contents = try_read_stream(&run.broker).unwrap();
    run.judge(&ledger, &contents);
    let stored: Vec<u64> = contents.messages.iter().map(|stored| stored.sequence).collect();
    until.0.store(stored.last().copied().unwrap_or_default(), Ordering::SeqCst);
    for (name, reader) in readers {
        let received = reader.join().unwrap();
        run.note(&format!("{name}: resumed"), received.resumed);
        judge(&mut run, name, &received, &stored);
    }
    let replays = replays.join().unwrap();
    let counted: Vec<_> = replays.iter().map(|received| received.sequences.len()).collect();
    run.require(counted.is_sorted(), || format!("a later replay held less: {counted:?}"));
    for received in &replays {
        let prefix = &stored[..received.sequences.len().min(stored.len())];
        judge(&mut run, "replay", received, prefix);
    }
    run.note("replays_whole", counts.0.load(Ordering::SeqCst));
    run.note("replays_incomplete", counts.1.load(Ordering::SeqCst));
    run.require(!replays.is_empty(), || "no replay was whole".into());
    run.finish();
}

fn judge(run: &mut Run, name: &str, received: &Received, stored: &[u64]) {
    for problem in received.problems.iter().take(5) {
        run.violation(format!("{name}: {problem}"));
    }
    let count = |these: &[u64], those: &[u64]| {
        let those: std::collections::HashSet<_> = those.iter().collect();
        these.iter().filter(|sequence| !those.contains(sequence)).count()
    };
    let (missing, foreign) = (count(stored, &received.sequences), count(&received.sequences, stored));
    run.require(received.sequences == stored, || {
        format!("{name}: of {} messages {missing} did not come, and {foreign} came that are none", stored.len())
    });
}
