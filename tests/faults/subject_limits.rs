//! kill -9 nats-server with a limit per subject: each subject holds its last messages, no fewer. A
//! message that was stored and not acknowledged takes a place as well, so that a ledger of what was
//! acknowledged expects one more for each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::harness::{Run, STREAM, dose};
use crate::support::{JetStream, SUBJECTS, block_on};

/// Enough for what some of the kills have left unacknowledged.
const LIMIT: usize = 500;

/// Messages on their way.
const AT_A_TIME: u64 = 64;

/// What was acknowledged of each subject, and what was sent and not acknowledged.
#[derive(Default)]
struct Ledger {
    sent: u64,
    acknowledged: BTreeMap<&'static str, Vec<u64>>,
    unknown: BTreeSet<u64>,
}

impl Ledger {
    /// Publishes until the server is killed. A kill between two rounds costs no message: the client is
    /// connected again before the next one, so that only the killer knows.
    async fn publish_until(&mut self, killed: impl Fn() -> bool, jetstream: &JetStream) {
        while !killed() {
            let numbers = self.sent..self.sent + AT_A_TIME;
            self.sent = numbers.end;
            let sent = SUBJECTS.iter().cycle().zip(numbers).map(async |(subject, number)| {
                let answer = jetstream.try_publish(subject, number.to_string().into_bytes()).await;
                (*subject, number, answer.is_ok())
            });
            for (subject, number, acknowledged) in futures_util::future::join_all(sent).await {
                match acknowledged {
                    true => self.acknowledged.entry(subject).or_default().push(number),
                    false => _ = self.unknown.insert(number),
                }
            }
        }
    }
}

#[test]
fn kills_with_a_limit_per_subject() {
    let mut run = Run::of("kills_with_a_limit_per_subject");
    run.broker.set("STREAM_MAX_MSGS_PER_SUBJECT", LIMIT).set("RESTART_BACKOFF_MAX", "200ms");
    run.start();
    let mut ledger = Ledger::default();
    for _ in 0..dose(8, 100) {
        let server = run.broker.server_pid();
        let wait = Duration::from_millis(run.choices.u64(50..300));
        // The clock starts once the client is connected: a kill before would cost it nothing.
        let killed = block_on(async {
            let jetstream = JetStream(run.broker.client().await);
            let killer = std::thread::spawn(move || {
                std::thread::sleep(wait);
                kill(server, Signal::SIGKILL)
            });
            ledger.publish_until(|| killer.is_finished(), &jetstream).await;
            killer.join().unwrap()
        });
        killed.unwrap();
        run.injected();
        if !run.wait_for_another_server(server, Duration::from_secs(60)) {
            break;
        }
    }
    let (mut expected_and_gone, mut took_a_place) = (0, 0);
    for subject in SUBJECTS {
        let held = block_on(async { held(&JetStream(run.broker.client().await), subject).await });
        let acknowledged = &ledger.acknowledged[subject];
        let last = &acknowledged[acknowledged.len().saturating_sub(LIMIT)..];
        let gone = last.iter().filter(|number| !held.contains(number)).count();
        let others = held.intersection(&ledger.unknown).count();
        run.require(gone <= others, || format!("{subject}: {gone} are gone, and {others} took a place"));
        let least = LIMIT.min(acknowledged.len());
        run.require(held.len() >= least && held.len() <= LIMIT, || format!("{subject} holds {}", held.len()));
        (expected_and_gone, took_a_place) = (expected_and_gone + gone, took_a_place + others);
    }
    let acknowledged: usize = ledger.acknowledged.values().map(Vec::len).sum();
    run.note("published_and_acknowledged", acknowledged);
    run.note("expected_and_gone", expected_and_gone);
    run.note("stored_though_not_acknowledged", took_a_place);
    run.finish();
}

/// The numbers of all messages of a subject.
async fn held(jetstream: &JetStream, subject: &str) -> BTreeSet<u64> {
    let (mut held, mut seq) = (BTreeSet::new(), 1);
    loop {
        let request = json!({ "seq": seq, "next_by_subj": subject });
        let answer = jetstream.ask(&format!("$JS.API.STREAM.MSG.GET.{STREAM}"), request).await;
        let message = &answer["message"];
        let Some(at) = message["seq"].as_u64() else { return held };
        let encoded = message["data"].as_str().unwrap();
        held.insert(decode(encoded).parse().unwrap());
        seq = at + 1;
    }
}

fn decode(text: &str) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine};
    String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()
}
