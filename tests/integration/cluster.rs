//! Three nodes of ours.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap};
use futures_util::StreamExt;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::*;

/// For nodes that choose a leader: a round takes nats-server up to nine seconds, and on a machine that
/// is busy several of them end without one.
const ELECTIONS: Duration = Duration::from_secs(120);

/// Not launched yet.
pub fn nodes_of(version: &str) -> [Broker; 3] {
    let mut nodes = [(); 3].map(|()| Broker::with_server(version));
    let routes: Vec<_> = nodes.iter().map(|node| format!("nats-route://127.0.0.1:{}", node.ports.cluster)).collect();
    for (index, node) in nodes.iter_mut().enumerate() {
        let port = node.ports.cluster;
        node.set("NATS_SERVER_NAME", format!("node{index}")).set("NATS_CLUSTER_ENABLED", "true");
        node.set("NATS_CLUSTER_PORT", port).set("NATS_CLUSTER_ROUTES", routes.join(",")).set("STREAM_REPLICAS", "3");
        node.set("NATS_CLUSTER_USERNAME", "route").set("NATS_CLUSTER_PASSWORD", "p$x\" @:/%}");
        node.set("HEALTH_CHECK_INTERVAL", "1s");
    }
    nodes
}

pub fn start(nodes: &mut [Broker]) {
    for node in &mut *nodes {
        node.launch();
    }
    for node in nodes {
        node.wait_until_ready_within(ELECTIONS);
    }
}

/// How long a leader may know fewer nodes than there are; it takes it two seconds.
const UNKNOWN: Duration = Duration::from_secs(8);

/// One after another, each when it has routes to those before. nats-server 2.10 that find each other while
/// they choose their first leader may choose one that knows one of the others only, for ever: "no suitable
/// peers for placement" (4 of 50 times where all start at once, 1 of 10 where the third comes 0.3 s after
/// the others, without us; 2.15 0 of 25). Who waits for a leader before the third may wait for minutes.
pub fn start_in_order(nodes: &mut [Broker]) {
    for (index, node) in nodes.iter_mut().enumerate() {
        node.launch();
        let url = format!("http://127.0.0.1:{}/routez", node.ports.http);
        wait_for("routes to the nodes before", || {
            let routez: Value = serde_json::from_str(&http_get(&url).1).ok()?;
            let names = routez["routes"].as_array()?.iter().map(|route| route["remote_name"].as_str());
            (names.collect::<BTreeSet<_>>().len() >= index).then_some(())
        });
    }
    make_known(nodes);
    for node in nodes {
        node.wait_until_ready_within(ELECTIONS);
    }
}

/// Until the leader knows all of them. One that it never comes to know it knows after a restart (measured).
fn make_known(nodes: &mut [Broker]) {
    let deadline = Instant::now() + ELECTIONS;
    let mut since = None;
    loop {
        let known = nodes.iter().find_map(known_to_leader).unwrap_or_default();
        if known.len() == nodes.len() {
            return;
        }
        if known.is_empty() {
            since = None;
        } else if since.get_or_insert_with(Instant::now).elapsed() > UNKNOWN {
            for (_, node) in (0..).zip(&mut *nodes).filter(|(index, _)| !known.contains(&format!("node{index}"))) {
                node.stop();
                node.launch();
            }
            since = None;
        }
        assert!(Instant::now() < deadline, "the leader knows {known:?} only");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Names that the node knows, itself among them, if it leads.
fn known_to_leader(node: &Broker) -> Option<BTreeSet<String>> {
    let (_, jsz) = http_get(&format!("http://127.0.0.1:{}/jsz", node.ports.http));
    let jsz: Value = serde_json::from_str(&jsz).ok()?;
    let meta = &jsz["meta_cluster"];
    let others = meta["replicas"].as_array().filter(|others| !others.is_empty())?;
    let names = others.iter().map(|other| &other["name"]).chain([&meta["leader"]]);
    Some(names.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn check(node: &Broker, name: &str) -> Value {
    node.health()["checks"][name].clone()
}

/// Waits until `/health` of the node has a check of that name that says so.
fn wait_for_check(node: &Broker, name: &str, status: &str, words: &[&str]) {
    wait_for(&format!("{name} is {status} with {words:?}"), || {
        let check = check(node, name);
        let detail = check["detail"].as_str().unwrap_or_default();
        (check["status"] == status && words.iter().all(|word| detail.contains(word))).then_some(())
    });
}

#[test]
fn three_nodes_find_each_other_and_keep_three_copies() {
    let mut nodes = nodes_of(CURRENT);
    // All of them apply the same file at once.
    let file = nodes[0].path("streams.yml");
    let orders = "streams: {ORDERS: {subjects: [orders.>], num_replicas: 3, consumers: {desk: {num_replicas: 3}}}}";
    std::fs::write(&file, orders).unwrap();
    for node in &mut nodes {
        node.set("STREAMS_FILE", file.display());
    }
    start(&mut nodes);
    block_on(async {
        let jetstream = JetStream(nodes[0].client().await);
        let consumer = jetstream.ask("$JS.API.CONSUMER.INFO.ORDERS.desk", Value::Null).await;
        assert_eq!(consumer["cluster"]["replicas"].as_array().map(Vec::len), Some(2), "{consumer}");
        for subject in SUBJECTS {
            jetstream.publish(subject, "x").await;
        }
    });
    for node in &nodes {
        block_on(async {
            let info = JetStream(node.client().await).info("MARKET_DATA").await;
            assert_eq!((&info["config"]["num_replicas"], &info["state"]["messages"]), (&3.into(), &8.into()), "{info}");
        });
    }
    wait_for("one node leads, and one tells of the copies of each stream", || {
        let metrics = nodes.each_ref().map(|node| http_get(&node.api("/metrics")).1);
        let count = |begins: &str, part: &str| {
            let lines = metrics.iter().flat_map(|text| text.lines());
            lines.filter(|line| line.starts_with(begins) && line.contains(part)).count()
        };
        let leaders = count("jetstream_server_total_streams{", "is_meta_leader=\"true\"");
        let copies = count("unified_nats_stream_replica_lag{", "stream=\"MARKET_DATA\"");
        let current = count("unified_nats_stream_replica_current{", "stream=\"MARKET_DATA\"");
        let names = count("jetstream_stream_first_seq{", "stream_name=\"MARKET_DATA\",stream_leader=\"n");
        ([leaders, copies, current, names] == [1, 2, 2, 3]).then_some(())
    });
    for node in &mut nodes {
        assert_eq!(node.stop(), Some(0), "{}", node.log());
    }
    // The store knows that it is clustered, so these streams may be served by the cluster again.
    for node in &mut nodes {
        node.launch();
    }
    nodes[0].wait_until_ready_within(ELECTIONS);
}

#[test]
fn a_node_that_is_away_is_a_warning_and_lost_quorum_is_not() {
    let mut nodes = nodes_of(CURRENT);
    // Lost quorum is told by the probe, long before this node examines anything.
    nodes[0].set("HEALTH_CHECK_INTERVAL", "1h");
    start(&mut nodes);
    let [first, second, third] = &mut nodes;
    wait_for_check(second, "cluster", "pass", &["3 of 3 nodes"]);
    assert_eq!(check(second, "replicas"), Value::Null);

    assert_eq!(third.stop(), Some(0));
    wait_for_check(second, "replicas", "warn", &["node2 is away", "stream MARKET_DATA"]);
    wait_for_check(second, "cluster", "pass", &["2 of 3 nodes"]);
    first.wait_until_ready_within(ELECTIONS);
    second.wait_until_ready_within(ELECTIONS);
    let full = first.output(&["health-check", "full"]);
    let text = String::from_utf8_lossy(&full.stdout).into_owned();
    assert!(full.status.success() && text.contains("node node2 is away"), "{text}");

    // Killed, so that it cannot even say good-bye.
    second.signal(Signal::SIGKILL);
    second.wait();
    let url = first.api("/readyz");
    let reason = wait_for("the loss of quorum is told", || {
        let (status, body) = http_get(&url);
        (status == 503 && body.contains("quorum is lost")).then_some(body)
    });
    assert!(reason.contains("1 of 3 nodes are here and 2 are needed"), "{reason}");
    assert!(reason.contains("start node1, node2"), "{reason}");
    let full = first.output(&["health-check", "full", "--timeout", "5"]);
    let text = String::from_utf8_lossy(&full.stdout).into_owned();
    assert!(full.status.code() == Some(1) && text.contains("quorum is lost"), "{text}");

    second.launch();
    third.launch();
    for node in &mut nodes {
        node.wait_until_ready_within(ELECTIONS);
        assert_eq!(node.restarts(), Some(0), "lost quorum is no reason to restart a server");
    }
    for node in &nodes[1..] {
        wait_for_check(node, "cluster", "pass", &["3 of 3 nodes"]);
        wait_for("nothing is warned of", || (check(node, "replicas") == Value::Null).then_some(()));
    }
}

#[test]
fn a_node_is_ready_when_its_copies_are_up_to_date() {
    const MESSAGES: u64 = 40_000;
    let mut nodes = nodes_of(CURRENT);
    start(&mut nodes);
    assert_eq!(nodes[2].stop(), Some(0));
    block_on(async {
        let jetstream = JetStream(nodes[0].client().await);
        let payload = "x".repeat(1_000);
        for _ in 0..MESSAGES / 1_000 {
            futures_util::future::join_all((0..1_000).map(|_| jetstream.publish(SUBJECT, &payload))).await;
        }
    });
    nodes[2].launch();
    nodes[2].wait_until_ready_within(ELECTIONS);
    let (_, jsz) = http_get(&format!("http://127.0.0.1:{}/jsz?streams=true", nodes[2].ports.http));
    let jsz: Value = serde_json::from_str(&jsz).unwrap();
    let stored = jsz["account_details"][0]["stream_detail"][0]["state"]["last_seq"].as_u64();
    assert!(stored >= Some(MESSAGES), "ready with {stored:?} of {MESSAGES} messages");
}

#[test]
fn a_name_that_is_borne_twice_is_told() {
    let mut nodes = nodes_of(CURRENT);
    nodes[2].set("NATS_SERVER_NAME", "node0");
    for node in &mut nodes {
        node.launch();
    }
    let told = "another node of the cluster has the name of this one";
    let named = |node: &Broker| node.log().contains(told);
    wait_for("the log tells it", || (named(&nodes[0]) || named(&nodes[2])).then_some(()));
    assert!(!named(&nodes[1]));
    // The third is connected to both, now to one, now to the other.
    wait_for("the third names them", || {
        let full = nodes[1].output(&["health-check", "full", "--timeout", "2"]);
        let text = String::from_utf8_lossy(&full.stdout).into_owned();
        (text.contains("more than one node is called node0") && text.contains("NATS_SERVER_NAME")).then_some(())
    });
}

/// Clients of the whole cluster: one publishes with message ids until it is answered, one reads.
struct Traffic {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    thread: JoinHandle<Seen>,
}

struct Seen {
    sent: BTreeSet<String>,
    received: BTreeSet<String>,
    longest_gap: Duration,
}

const SUBJECT: &str = SUBJECTS[1];
/// For one attempt of the publisher.
const ATTEMPT: Duration = Duration::from_millis(500);

impl Traffic {
    fn start(nodes: &[Broker]) -> Self {
        let servers: Vec<_> = nodes.iter().map(Broker::url).collect();
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopping, count) = (stop.clone(), acknowledged.clone());
        let thread = std::thread::spawn(move || {
            block_on(async {
                let client = connect(&servers).await;
                let reader = connect(&servers).await;
                let config = serde_json::json!({
                    "stream_name": "MARKET_DATA",
                    "config": { "durable_name": "storage", "ack_policy": "explicit", "ack_wait": 5_000_000_000u64 },
                });
                let made = JetStream(reader.clone()).ask("$JS.API.CONSUMER.CREATE.MARKET_DATA.storage", config).await;
                assert!(made["error"].is_null(), "{made}");
                let (sent, read) = tokio::join!(publish(client, &stopping, &count), read(reader, &stopping, &count),);
                Seen { sent: sent.0, longest_gap: sent.1, received: read }
            })
        });
        Self { stop, acknowledged, thread }
    }

    fn wait_for_more(&self) {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + 50;
        wait_for("messages are acknowledged", || {
            assert!(!self.thread.is_finished(), "the traffic has ended");
            (self.acknowledged.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }

    fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn connect(servers: &[String]) -> Client {
    let addresses: Vec<async_nats::ServerAddr> = servers.iter().map(|url| url.parse().unwrap()).collect();
    let options = async_nats::ConnectOptions::new();
    options.reconnect_delay_callback(|_| Duration::from_millis(20)).connect(addresses).await.unwrap()
}

async fn publish(client: Client, stopping: &AtomicBool, count: &AtomicUsize) -> (BTreeSet<String>, Duration) {
    let (mut sent, mut longest, mut last) = (BTreeSet::new(), Duration::ZERO, Instant::now());
    while !stopping.load(Ordering::Relaxed) {
        let id = format!("m{}", sent.len());
        loop {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", id.as_str());
            let request = client.request_with_headers(SUBJECT, headers, id.clone().into());
            let answer = tokio::time::timeout(ATTEMPT, request).await.ok().and_then(Result::ok);
            let stored = answer.and_then(|a| serde_json::from_slice::<Value>(&a.payload).ok()?["seq"].as_u64());
            if stored.is_some() {
                break;
            }
            // Nobody answers while a leader is chosen; the same id is sent again.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        longest = longest.max(last.elapsed());
        last = Instant::now();
        sent.insert(id);
        count.store(sent.len(), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (sent, longest)
}

/// Reads until it has as many messages as were sent, and nobody sends any more.
async fn read(client: Client, stopping: &AtomicBool, count: &AtomicUsize) -> BTreeSet<String> {
    let mut received = BTreeSet::new();
    let deadline = |since: &Option<Instant>| since.is_some_and(|at| at.elapsed() > PATIENCE);
    let mut since = None;
    let is_done = |read: usize| stopping.load(Ordering::Relaxed) && read >= count.load(Ordering::Relaxed);
    while !is_done(received.len()) && !deadline(&since) {
        if stopping.load(Ordering::Relaxed) {
            since.get_or_insert_with(Instant::now);
        }
        let inbox = client.new_inbox();
        let mut messages = client.subscribe(inbox.clone()).await.unwrap();
        let ask = serde_json::json!({ "batch": 100, "expires": 400_000_000 }).to_string();
        let next = "$JS.API.CONSUMER.MSG.NEXT.MARKET_DATA.storage";
        client.publish_with_reply(next, inbox, ask.into()).await.unwrap();
        while let Ok(Some(message)) = tokio::time::timeout(ATTEMPT, messages.next()).await {
            let Some(reply) = message.reply.filter(|_| message.status.is_none()) else { break };
            received.insert(String::from_utf8(message.payload.to_vec()).unwrap());
            client.publish(reply, "".into()).await.unwrap();
        }
    }
    received
}

/// Stops and starts one node after another; each stop within the bounds of its answer.
fn roll(nodes: &mut [Broker; 3], traffic: &Traffic) -> Duration {
    let mut longest = Duration::ZERO;
    for node in nodes {
        traffic.wait_for_more();
        let asked = Instant::now();
        assert_eq!(node.stop(), Some(0), "{}", node.log());
        longest = longest.max(asked.elapsed());
        // Seen by us, or said by the server, whichever comes first.
        let ways = ["what this node led is with other nodes", "this node has given up what it led"];
        assert!(ways.iter().any(|way| node.log().contains(way)), "{}", node.log());
        node.launch();
        node.wait_until_ready_within(ELECTIONS);
    }
    traffic.wait_for_more();
    longest
}

fn rolling_restart(version: &str) {
    let mut nodes = nodes_of(version);
    start_in_order(&mut nodes);
    let traffic = Traffic::start(&nodes);
    let longest_stop = roll(&mut nodes, &traffic);
    let Seen { sent, received, longest_gap } = traffic.stop();
    println!("{version}: {} acknowledged, longest gap {longest_gap:?}, longest stop {longest_stop:?}", sent.len());
    let lost: Vec<_> = sent.difference(&received).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged messages are gone: {lost:?}", lost.len(), sent.len());
    let info = block_on(async { JetStream(nodes[0].client().await).info("MARKET_DATA").await });
    // One more may have been stored when the publisher stopped; none twice.
    let stored = info["state"]["messages"].as_u64().unwrap() as usize;
    assert!((sent.len()..=sent.len() + 1).contains(&stored), "{stored} are stored, {} acknowledged", sent.len());
    assert!(longest_gap < Duration::from_secs(5), "nothing was acknowledged for {longest_gap:?}");
    // A server that hands over asks for a second, and for ten more where it is left to itself.
    assert!(longest_stop < Duration::from_secs(5), "a stop took {longest_stop:?}");
}

#[test]
fn a_rolling_restart_loses_nothing_and_hardly_interrupts() {
    rolling_restart(CURRENT);
}

#[test]
fn a_rolling_restart_of_the_oldest_server_is_the_same() {
    rolling_restart("2.10.26");
}

#[test]
fn a_cluster_over_a_standalone_store_is_refused_by_every_node() {
    let mut nodes = nodes_of(CURRENT);
    for node in &mut nodes {
        let names = ["NATS_CLUSTER_ENABLED", "STREAM_REPLICAS"];
        for (name, value) in names.into_iter().zip(["false", "1"]) {
            node.set(name, value);
        }
        node.start();
        assert_eq!(node.stop(), Some(0));
        for (name, value) in names.into_iter().zip(["true", "3"]) {
            node.set(name, value);
        }
        let refused = node.output(&["run"]);
        let text = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
        assert_eq!(refused.status.code(), Some(78), "{text}");
        assert!(text.contains("MARKET_DATA") && text.contains("start the cluster on an empty"), "{text}");
        // Nothing was touched.
        assert!(node.stream_directory().join("meta.inf").is_file());
    }
}
