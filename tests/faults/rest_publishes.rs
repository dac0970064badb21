//! kill -9 nats-server under clients that publish over HTTP: what they were answered is true.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::harness::{Run, dose, is_full, read_each, wait_within};
use crate::support::{SUBJECTS, block_on, http_client};

const CLIENTS: usize = 12;
/// Shorter than a restart takes, so that some requests meet no server.
const TIMEOUT: Duration = Duration::from_millis(300);
/// A second of grace in which the broker itself gives up, and time for a machine that is busy.
const PATIENCE: Duration = Duration::from_millis(300 + 1_000 + 2_000);
const BATCH: &str = "/api/v1/broker/publish/batch";

/// What is known of a message after all that was answered about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// At that sequence.
    Stored(u64),
    NotStored,
    Nothing,
}

/// A message, by the text that it alone holds.
struct Sent {
    text: String,
    known: Known,
}

/// What one client has done and heard.
#[derive(Default)]
struct Diary {
    messages: Vec<Sent>,
    statuses: HashMap<u16, usize>,
    retries: usize,
    left: usize,
    longest: Duration,
    problems: Vec<String>,
}

/// What all clients have to do.
struct Work {
    api: String,
    left: AtomicUsize,
    done: AtomicUsize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Single,
    Plain,
    Raw,
    Array,
    Lines,
}

struct Client {
    work: Arc<Work>,
    number: usize,
    choices: Rng,
    http: reqwest::Client,
    diary: Diary,
}

impl Client {
    async fn publish_all(mut self) -> Diary {
        let take = |left: usize| left.checked_sub(1);
        let mut request = 0;
        while self.work.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            request += 1;
            self.publish(request).await;
            self.work.done.fetch_add(1, Ordering::SeqCst);
        }
        self.diary
    }

    /// One request, and again while its key makes that harmless and its outcome is not known.
    async fn publish(&mut self, request: usize) {
        let shapes = [Shape::Single, Shape::Single, Shape::Plain, Shape::Raw, Shape::Raw, Shape::Array, Shape::Lines];
        let shape = shapes[self.choices.usize(..shapes.len())];
        let count = match shape {
            Shape::Array | Shape::Lines => self.choices.usize(1..=20),
            _ => 1,
        };
        let name = format!("{}-{request}", self.number);
        let texts: Vec<_> = (0..count).map(|index| format!("{name}-{index}")).collect();
        let key = self.choices.bool().then(|| format!("key-{name}"));
        let mut known = vec![Known::NotStored; count];
        let mut unknown = vec![false; count];
        loop {
            let started = Instant::now();
            let answers = self.ask(shape, &texts, key.as_deref()).await;
            let took = started.elapsed();
            self.diary.longest = self.diary.longest.max(took);
            if took > PATIENCE {
                self.diary.problems.push(format!("{shape:?} took {took:?}"));
            }
            for (index, answer) in answers.into_iter().enumerate() {
                match answer {
                    Known::Stored(sequence) => match known[index] {
                        Known::Stored(before) if before != sequence && sequence != 0 && before != 0 => {
                            self.diary
                                .problems
                                .push(format!("{} is at {before}, and then at {sequence}", texts[index]));
                        }
                        _ => known[index] = Known::Stored(sequence),
                    },
                    Known::Nothing => unknown[index] = true,
                    Known::NotStored => {}
                }
            }
            let is_settled = known.iter().all(|known| matches!(known, Known::Stored(_)));
            // Some give up after one refusal: then nothing may be stored.
            let gives_up = key.is_none() || (!unknown.contains(&true) && self.choices.u8(..4) == 0);
            if is_settled || gives_up || !self.diary.problems.is_empty() {
                break;
            }
            self.diary.retries += 1;
            if started.elapsed() < Duration::from_millis(50) {
                // A client that is told to come again does not come at once.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        for ((text, known), unknown) in texts.into_iter().zip(known).zip(unknown) {
            let known = if known == Known::NotStored && unknown { Known::Nothing } else { known };
            self.diary.messages.push(Sent { text, known });
        }
    }

    async fn ask(&mut self, shape: Shape, texts: &[String], key: Option<&str>) -> Vec<Known> {
        let subject = SUBJECTS[self.choices.usize(..SUBJECTS.len())];
        let entry = |text: &String| json!({ "subject": subject, "message": text });
        let (path, kind, body) = match shape {
            Shape::Single => ("/api/v1/broker/publish".to_owned(), "application/json", entry(&texts[0]).to_string()),
            Shape::Plain => ("/api/v1/publish".to_owned(), "application/json", entry(&texts[0]).to_string()),
            Shape::Raw => (format!("/api/v1/broker/subjects/{subject}"), "text/plain", texts[0].clone()),
            Shape::Array => {
                (BATCH.to_owned(), "application/json", json!(texts.iter().map(entry).collect::<Vec<_>>()).to_string())
            }
            Shape::Lines => {
                let lines = texts.iter().map(|text| format!("{}\n", entry(text))).collect();
                (BATCH.to_owned(), "application/x-ndjson", lines)
            }
        };
        let url = format!("{}{path}", self.work.api);
        let mut request = self.http.post(url).header("content-type", kind).body(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answered = async {
            let answer = request.send().await?;
            Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.text().await?))
        };
        // Some leave before they are answered, and come again with their key.
        let leaves =
            (key.is_some() && self.choices.u8(..20) == 0).then(|| Duration::from_millis(self.choices.u64(..20)));
        match tokio::time::timeout(leaves.unwrap_or(PATIENCE * 2), answered).await {
            Ok(Ok((status, text))) => {
                *self.diary.statuses.entry(status).or_default() += 1;
                self.read(shape, status, &text, texts.len())
            }
            Ok(Err(_)) => {
                *self.diary.statuses.entry(0).or_default() += 1;
                vec![Known::Nothing; texts.len()]
            }
            Err(_) if leaves.is_some() => {
                self.diary.left += 1;
                vec![Known::Nothing; texts.len()]
            }
            Err(_) => {
                self.diary.problems.push(format!("{shape:?} was not answered at all"));
                vec![Known::Nothing; texts.len()]
            }
        }
    }

    /// What an answer says of each message.
    fn read(&mut self, shape: Shape, status: u16, text: &str, count: usize) -> Vec<Known> {
        let failed = |status: u64| if status == 504 { Known::Nothing } else { Known::NotStored };
        let of_entry = |entry: &Value| match entry["http_status"].as_u64() {
            Some(status) => failed(status),
            None => entry["sequence"].as_u64().map_or(Known::Nothing, Known::Stored),
        };
        let body: Value = serde_json::from_str(text).unwrap_or_default();
        let known: Vec<_> = match shape {
            Shape::Single | Shape::Raw if status == 200 => {
                vec![body["data"]["sequence"].as_u64().map_or(Known::Nothing, Known::Stored)]
            }
            // It does not say where.
            Shape::Plain if status == 200 => vec![Known::Stored(0)],
            Shape::Array => {
                let results = body["data"]["results"].as_array().or(body["details"]["results"].as_array());
                match results {
                    Some(results) => results.iter().map(of_entry).collect(),
                    None => vec![failed(status.into()); count],
                }
            }
            Shape::Lines if status != 500 => {
                let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                lines.filter(|line| line["index"].is_u64()).map(|line| of_entry(&line)).collect()
            }
            _ => vec![failed(status.into()); count],
        };
        if status == 500 || (400..500).contains(&status) || known.len() != count {
            self.diary.problems.push(format!("{shape:?} of {count}: {status} {text}"));
        }
        match known.len() == count {
            true => known,
            false => vec![Known::Nothing; count],
        }
    }
}

#[test]
fn rest_publishes() {
    let mut run = Run::of("rest_publishes");
    run.broker.set("RESTART_BACKOFF_MAX", "200ms").set("API_REQUEST_TIMEOUT", format!("{}ms", TIMEOUT.as_millis()));
    run.start();
    let requests = if is_full() { 100_000 } else { 10_000 };
    let kills = dose(5, 20);
    let work = Arc::new(Work { api: run.broker.api(""), left: AtomicUsize::new(requests), done: AtomicUsize::new(0) });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let choices = run.choices.fork();
            let client = Client { work: work.clone(), number, choices, http: http_client(), diary: Diary::default() };
            std::thread::spawn(move || block_on(client.publish_all()))
        })
        .collect();
    // Spread over the whole work.
    for kill in 1..=kills {
        let from = requests * kill / (kills + 1);
        let come = wait_within(Duration::from_secs(300), || (work.done.load(Ordering::SeqCst) >= from).then_some(()));
        run.require(come.is_some(), || {
            format!("after {} of {requests} requests nothing goes on", work.done.load(Ordering::SeqCst))
        });
        run.injected();
        if come.is_none() || !run.kill_server() {
            break;
        }
    }
    let diaries: Vec<Diary> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    run.wait_until_ready(Duration::from_secs(60));
    judge(&mut run, &diaries);
    run.note("requests", requests);
    run.finish();
}

fn judge(run: &mut Run, diaries: &[Diary]) {
    let mut stored: HashMap<String, Vec<u64>> = HashMap::new();
    let read = read_each(&run.broker.url(), |sequence, message| {
        // As a text or as JSON.
        let text = String::from_utf8_lossy(&message.payload);
        stored.entry(text.trim_matches('"').to_owned()).or_default().push(sequence);
    });
    run.require(read.is_ok(), || format!("the stream cannot be read: {read:?}"));
    let (mut acknowledged, mut lost, mut unknown, mut invented, mut elsewhere) = (0, vec![], 0, vec![], vec![]);
    for Sent { text, known } in diaries.iter().flat_map(|diary| &diary.messages) {
        let at = stored.get(text).map(Vec::as_slice).unwrap_or_default();
        match known {
            Known::Stored(sequence) => {
                acknowledged += 1;
                match at {
                    [] => lost.push(text),
                    _ if *sequence != 0 && !at.contains(sequence) => elsewhere.push(text),
                    _ => {}
                }
            }
            Known::NotStored if !at.is_empty() => invented.push(text),
            Known::NotStored => {}
            Known::Nothing => unknown += 1,
        }
    }
    let sent: HashMap<_, _> =
        diaries.iter().flat_map(|diary| &diary.messages).map(|sent| (&sent.text, sent.known)).collect();
    let twice: Vec<_> = stored.iter().filter(|(text, at)| at.len() > 1 && sent.contains_key(text)).collect();
    run.counted(acknowledged, sent.keys().filter(|text| stored.contains_key(**text)).count(), lost.len(), twice.len());
    run.require(lost.is_empty(), || format!("{} acknowledged messages are lost, such as {:?}", lost.len(), lost[0]));
    run.require(twice.is_empty(), || format!("{} messages are stored twice, such as {:?}", twice.len(), twice[0]));
    run.require(invented.is_empty(), || {
        format!("{} messages are stored that were answered as not stored, such as {:?}", invented.len(), invented[0])
    });
    run.require(elsewhere.is_empty(), || {
        format!("{} messages are not at their sequence, such as {:?}", elsewhere.len(), elsewhere[0])
    });
    run.require(acknowledged > 1_000, || format!("only {acknowledged} messages were acknowledged"));
    for problem in diaries.iter().flat_map(|diary| &diary.problems).take(5) {
        run.violation(problem.clone());
    }
    let mut statuses: HashMap<u16, usize> = HashMap::new();
    for (status, count) in diaries.iter().flat_map(|diary| &diary.statuses) {
        *statuses.entry(*status).or_default() += count;
    }
    for (status, count) in statuses {
        run.note(&format!("answered_{status}"), count);
    }
    run.note("unknown", unknown);
    run.note("retries", diaries.iter().map(|diary| diary.retries).sum::<usize>());
    run.note("left", diaries.iter().map(|diary| diary.left).sum::<usize>());
    run.note_longest("longest_answer_ms", diaries.iter().map(|diary| diary.longest).max().unwrap_or_default());
}
