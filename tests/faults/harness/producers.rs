//! Collectors as they should be: each message has an id and is sent again until it is acknowledged.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::{Client, ConnectOptions, ServerAddr};
use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::STREAM;
use super::ledger::{Acknowledged, Ledger};
use super::message::Identity;
use super::progress::Progress;
use crate::support::SUBJECTS;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Records {
    /// What the server acknowledged.
    Acknowledged,
    /// What was sent: deliberately wrong, to see whether the harness notices a loss.
    Sent,
}

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub producers: u16,
    /// Messages per second, of all producers together.
    pub rate: u32,
    /// Bytes of a message.
    pub length: usize,
    pub records: Records,
}

impl Default for Shape {
    fn default() -> Self {
        Self { producers: 16, rate: 1_000, length: 200, records: Records::Acknowledged }
    }
}

/// For one attempt; the next one bears the same message id.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Between two attempts and between two connection attempts.
const PAUSE: Duration = Duration::from_millis(20);
const LOOK_AT_LAST_SEQUENCE: Duration = Duration::from_millis(500);

/// Producers at work, on a thread of their own.
pub struct Load {
    pub progress: Arc<Progress>,
    ledger: Ledger,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Load {
    /// `servers` are the nodes of one cluster, or a single server.
    pub fn start(servers: Vec<String>, shape: Shape, seed: u64, ledger: PathBuf) -> Self {
        let progress = Arc::new(Progress::new(shape.producers));
        let ledger = Ledger::create(ledger);
        let (stop, stopped) = watch::channel(false);
        let entries = ledger.entries();
        let of_all = progress.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(produce(servers, shape, seed, entries, of_all, stopped));
            // Connections that are being made would keep it waiting.
            runtime.shutdown_background();
        });
        Self { progress, ledger, stop, thread }
    }

    /// Gives what was acknowledged. A message that is on its way may be stored without being told.
    pub fn stop(self) -> Vec<Acknowledged> {
        self.stop.send_replace(true);
        self.thread.join().unwrap();
        self.ledger.close()
    }
}

async fn produce(
    servers: Vec<String>,
    shape: Shape,
    seed: u64,
    entries: Sender<Acknowledged>,
    progress: Arc<Progress>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut tasks = tokio::task::JoinSet::new();
    for producer in 0..shape.producers {
        let client = connect(&servers).await;
        let choices = Rng::with_seed(seed ^ u64::from(producer) << 48);
        let entries = entries.clone();
        let (number, servers, progress) = (producer, servers.clone(), progress.clone());
        let producer = Producer { number, shape, servers, client, choices, entries, progress };
        tasks.spawn(producer.run());
    }
    drop(entries);
    // In a cluster a leader that does not know yet that it is none any more may answer.
    if servers.len() == 1 {
        tasks.spawn(follow_last_sequence(connect(&servers).await, progress));
    }
    let _ = stopped.wait_for(|stopped| *stopped).await;
    tasks.shutdown().await;
}

/// A connection that is made again for ever; the first one is made behind the scenes as well.
///
/// Of several servers it takes another when one falls silent, as it does without a good-bye when
/// the network between is gone.
async fn connect(servers: &[String]) -> Client {
    let addresses: Vec<ServerAddr> = servers.iter().map(|server| server.parse().unwrap()).collect();
    let mut options = ConnectOptions::new()
        .retry_on_initial_connect()
        .connection_timeout(ATTEMPT)
        .reconnect_delay_callback(|_| PAUSE);
    if servers.len() > 1 {
        options = options.ignore_discovered_servers().ping_interval(Duration::from_secs(1));
    }
    options.connect(addresses).await.unwrap()
}

struct Producer {
    number: u16,
    shape: Shape,
    servers: Vec<String>,
    client: Client,
    choices: Rng,
    entries: Sender<Acknowledged>,
    progress: Arc<Progress>,
}

impl Producer {
    async fn run(mut self) {
        let mut ticks = interval(Duration::from_secs(1) * u32::from(self.shape.producers) / self.shape.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for n in 0.. {
            ticks.tick().await;
            let message = Identity { producer: self.number, n };
            let subject = SUBJECTS[self.choices.usize(..SUBJECTS.len())];
            let sequence = match self.shape.records {
                Records::Acknowledged => self.send_until_acknowledged(subject, message).await,
                Records::Sent => self.send(subject, message).await,
            };
            // The ledger outlives its producers.
            self.entries.send(Acknowledged { message, sequence }).unwrap();
        }
    }

    async fn send_until_acknowledged(&mut self, subject: &'static str, message: Identity) -> u64 {
        loop {
            self.progress.attempt(self.number);
            let request = async_nats::Request::new()
                .headers(headers(message))
                .payload(message.payload(self.shape.length).into())
                .timeout(None);
            let answer = timeout(ATTEMPT, self.client.send_request(subject, request)).await;
            match answer.ok().and_then(Result::ok).and_then(|answer| sequence_in(&answer.payload)) {
                Some(sequence) => {
                    self.progress.acknowledged(self.number, sequence);
                    return sequence;
                }
                None => self.progress.failed(),
            }
            if self.servers.len() > 1 {
                // A node that is cut off from the others keeps its clients and answers their pings. A
                // connection that is made anew goes to any of them; one that reconnects would go back
                // to the one that has failed least.
                self.client = connect(&self.servers).await;
            }
            sleep(PAUSE).await;
        }
    }

    async fn send(&self, subject: &'static str, message: Identity) -> u64 {
        let payload = message.payload(self.shape.length).into();
        let _ = self.client.publish_with_headers(subject, headers(message), payload).await;
        let _ = timeout(ATTEMPT, self.client.flush()).await;
        self.progress.acknowledged(self.number, 0);
        0
    }
}

fn headers(message: Identity) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", message.message_id());
    headers
}

/// The sequence that an acknowledgement names; an error names none.
fn sequence_in(answer: &[u8]) -> Option<u64> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    (answer["error"].is_null() && answer["stream"] == STREAM).then(|| answer["seq"].as_u64())?
}

/// Looks at the stream's end again and again: it must never go back.
async fn follow_last_sequence(client: Client, progress: Arc<Progress>) {
    let mut ticks = interval(LOOK_AT_LAST_SEQUENCE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let known = progress.known_sequence();
        let info = timeout(ATTEMPT, client.request(format!("$JS.API.STREAM.INFO.{STREAM}"), "".into())).await;
        let Some(answer) = info.ok().and_then(Result::ok) else { continue };
        let info: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
        if let Some(last) = info["state"]["last_seq"].as_u64() {
            progress.last_sequence(known, last);
        }
    }
}
