//! Three nodes in containers, on one network for their routes and another one for clients, so that
//! a node can be cut off from the others, from its clients, or from everybody.

use std::time::Duration;

use serde_json::Value;

use super::container::{docker, image, succeeds};
use super::{Run, STREAM};
use crate::support::{JetStream, block_on, cannot_run, http_get};

pub const NODES: usize = 3;
/// For one question to a node that may be away.
const PATIENCE: Duration = Duration::from_secs(2);

/// A Docker network with addresses of our choice, gone with the test.
struct Network {
    name: String,
    /// The first three numbers of its addresses.
    prefix: String,
}

impl Network {
    fn create(name: String, label: &str) -> Self {
        for _ in 0..50 {
            // Docker refuses what overlaps with another network.
            let prefix = format!("10.{}.{}", fastrand::u8(160..250), fastrand::u8(..));
            let subnet = format!("{prefix}.0/24");
            if succeeds(&["network", "create", "--label", label, "--subnet", &subnet, &name]) {
                return Self { name, prefix };
            }
        }
        panic!("Docker creates no network {name}");
    }

    fn address(&self, node: usize) -> String {
        format!("{}.{}", self.prefix, node + 11)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        succeeds(&["network", "rm", &self.name]);
    }
}

/// From whom a node is cut off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CutOff {
    /// From the other nodes; clients still reach it.
    Nodes,
    Everybody,
}

pub struct Nodes {
    containers: Vec<String>,
    routes: Network,
    clients: Network,
}

impl Nodes {
    /// [`None`] where Docker or the image is missing.
    pub fn start(test: &str, variables: &[&str]) -> Option<Self> {
        let image = image();
        if !succeeds(&["image", "inspect", &image]) {
            cannot_run(test, &format!("Docker with the image {image} is not there"));
            return None;
        }
        let name = format!("unified-nats-{test}-{}", std::process::id());
        // By this scripts/faults.sh finds what a test that was killed has left.
        let label = format!("unified-nats.faults={}", std::env::temp_dir().display());
        let network = |what: &str| Network::create(format!("{name}-{what}"), &label);
        let mut nodes = Self { containers: vec![], routes: network("routes"), clients: network("clients") };
        let routes: Vec<_> =
            (0..NODES).map(|node| format!("nats-route://{}:6222", nodes.routes.address(node))).collect();
        let routes = format!("NATS_CLUSTER_ROUTES={}", routes.join(","));
        for node in 0..NODES {
            let container = format!("{name}-{node}");
            let (address, server) = (nodes.clients.address(node), format!("NATS_SERVER_NAME=node{node}"));
            let mut command = vec!["create", "--name", &container, "--label", &label];
            command.extend(["--network", &nodes.clients.name, "--ip", &address]);
            let shared = [
                "NATS_CLUSTER_ENABLED=true",
                "NATS_CLUSTER_USERNAME=route",
                "NATS_CLUSTER_PASSWORD=between nodes",
                "STREAM_REPLICAS=3",
                "STREAM_MAX_AGE=0",
                "STREAM_MAX_MSGS=-1",
                "STREAM_MAX_BYTES=9GB",
                "RESTART_MAX=1000000",
                &routes,
                &server,
            ];
            command.extend(shared.iter().chain(variables).flat_map(|variable| ["--env", variable]));
            command.push(&image);
            let created = docker(&command).unwrap();
            assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
            nodes.containers.push(container);
            nodes.connect(node, CutOff::Nodes);
            nodes.launch(node);
        }
        Some(nodes)
    }

    fn address(&self, node: usize) -> String {
        self.clients.address(node)
    }

    /// Where clients connect.
    pub fn servers(&self) -> Vec<String> {
        (0..NODES).map(|node| format!("{}:4222", self.address(node))).collect()
    }

    fn do_with(&self, node: usize, what: &[&str]) {
        let arguments = [what, &[self.containers[node].as_str()]].concat();
        assert!(succeeds(&arguments), "docker {arguments:?}");
    }

    pub fn launch(&self, node: usize) {
        self.do_with(node, &["start"]);
    }

    pub fn kill(&self, node: usize) {
        self.do_with(node, &["kill", "--signal", "KILL"]);
    }

    pub fn pause(&self, node: usize) {
        self.do_with(node, &["pause"]);
    }

    pub fn go_on(&self, node: usize) {
        self.do_with(node, &["unpause"]);
    }

    fn networks(&self, cut_off: CutOff) -> impl Iterator<Item = &Network> {
        let clients = (cut_off == CutOff::Everybody).then_some(&self.clients);
        [&self.routes].into_iter().chain(clients)
    }

    pub fn disconnect(&self, node: usize, cut_off: CutOff) {
        for network in self.networks(cut_off) {
            self.do_with(node, &["network", "disconnect", &network.name]);
        }
    }

    pub fn connect(&self, node: usize, cut_off: CutOff) {
        for network in self.networks(cut_off) {
            self.do_with(node, &["network", "connect", "--ip", &network.address(node), &network.name]);
        }
    }

    /// Stops all of them; gives the exit codes.
    pub fn stop(&self) -> Vec<String> {
        let containers = self.containers.iter();
        let stopped = containers.map(|container| {
            assert!(succeeds(&["stop", "--time", "30", container]));
            let output = docker(&["inspect", "--format", "{{.State.ExitCode}}", container]).unwrap();
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        });
        stopped.collect()
    }

    pub fn is_ready(&self, node: usize) -> bool {
        http_get(&format!("http://{}:8086/readyz", self.address(node))).0 == 200
    }

    /// What a node says about itself.
    pub fn told(&self, node: usize) -> String {
        http_get(&format!("http://{}:8086/readyz", self.address(node))).1
    }

    /// First and last sequence and number of messages in the copy of that node.
    pub fn copy(&self, node: usize) -> Option<(u64, u64, u64)> {
        let (_, body) = http_get(&format!("http://{}:8222/jsz?streams=true", self.address(node)));
        let jsz: Value = serde_json::from_str(&body).ok()?;
        let streams = jsz["account_details"][0]["stream_detail"].as_array()?;
        let state = &streams.iter().find(|stream| stream["name"] == STREAM)?["state"];
        let number = |name: &str| state[name].as_u64();
        Some((number("first_seq")?, number("last_seq")?, number("messages")?))
    }

    /// Whether all is as before a fault: every node is ready, every copy is current and holds what
    /// the longest held when this was first asked; otherwise what is missing.
    pub fn converged(&self, wanted: &mut Option<u64>) -> Result<(), String> {
        for node in 0..NODES {
            if !self.is_ready(node) {
                return Err(format!("node{node} is not ready: {}", self.told(node)));
            }
        }
        let cluster = self.stream_cluster().ok_or("nobody tells about the stream")?;
        let replicas = cluster["replicas"].as_array().cloned().unwrap_or_default();
        let is_current = |replica: &Value| replica["current"] == true && replica["offline"] != true;
        if replicas.len() != NODES - 1 || !replicas.iter().all(is_current) {
            return Err(format!("the copies are not current: {cluster}"));
        }
        let copies: Vec<_> = (0..NODES).map(|node| self.copy(node).map(|copy| copy.1)).collect();
        let wanted = *wanted.get_or_insert_with(|| copies.iter().flatten().copied().max().unwrap_or_default());
        match copies.iter().all(|last| last.is_some_and(|last| last >= wanted)) {
            true => Ok(()),
            false => Err(format!("the copies end at {copies:?}, and should at {wanted} or later")),
        }
    }

    /// Who leads the stream, and what the leader says about the others.
    pub fn stream_cluster(&self) -> Option<Value> {
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{STREAM}"), "")?;
        Some(info["cluster"].clone()).filter(Value::is_object)
    }

    /// Asks that node to lead the stream.
    pub fn let_lead(&self, node: usize) {
        let wanted = serde_json::json!({ "placement": { "preferred": format!("node{node}") } });
        self.ask(&format!("$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}"), &wanted.to_string());
    }

    fn ask(&self, subject: &str, request: &str) -> Option<Value> {
        block_on(async {
            let servers: Vec<async_nats::ServerAddr> = self.servers().iter().map(|s| s.parse().unwrap()).collect();
            let connecting = async_nats::ConnectOptions::new().connection_timeout(PATIENCE).connect(servers);
            let JetStream(client) = JetStream(connecting.await.ok()?);
            let answer = client.request(subject.to_owned(), request.to_owned().into());
            let answer = tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()?;
            serde_json::from_slice(&answer.payload).ok()
        })
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for container in &self.containers {
            if std::thread::panicking()
                && let Some(logs) = docker(&["logs", "--tail", "30", container])
            {
                eprintln!("{container}:\n{}", String::from_utf8_lossy(&logs.stdout));
            }
            succeeds(&["rm", "--force", "--volumes", container]);
        }
    }
}

impl Run {
    /// Waits until the cluster is whole again; a violation when it is not within `patience`.
    pub fn wait_until_converged(&mut self, nodes: &Nodes, patience: Duration) -> bool {
        let began = std::time::Instant::now();
        let (mut wanted, mut missing) = (None, String::new());
        let converged = super::wait_within(patience, || {
            let state = nodes.converged(&mut wanted);
            state.map_err(|reason| missing = reason).ok()
        });
        match converged {
            Some(()) => self.note_longest("converged_ms", began.elapsed()),
            None => self.violation(format!("not converged within {patience:?}: {missing}")),
        }
        converged.is_some()
    }
}
