//! A cluster as one of its nodes sees it: whether it can decide, who is away, whose copies lag.
//!
//! Routes and the time since a node was last heard count for more than what the JetStream API says:
//! a leader that has lost its quorum goes on answering it for twelve seconds and more, and a node
//! that was killed is "offline" only after minutes (measured on 2.15.1).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::report::{Check, Outcome, millis};
use crate::nats::{Jsz, Monitor, MonitorError, RaftGroup, RaftPeer, Routez};

/// A leader hears from its followers every second; who is silent for longer is away.
const SILENT: Duration = Duration::from_secs(4);
/// Entries of the replicated log, each with one or many messages, that a copy may be behind: with
/// traffic there are always some on their way.
const BEHIND: u64 = 100;
/// Streams and consumers that are named in one sentence.
const MOST_NAMED: usize = 3;

/// What one node sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    own: String,
    size: usize,
    leader: String,
    /// The other nodes.
    peers: Vec<RaftPeer>,
    /// Names of the nodes at the other ends of routes, with the ids that bear them.
    routed: BTreeMap<String, BTreeSet<String>>,
    /// Streams and consumers that this node has a copy of.
    groups: Vec<Group>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Group {
    what: String,
    leader: String,
    replicas: Vec<RaftPeer>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Depth {
    /// Whether the cluster can decide.
    Quorum,
    /// And what has become of the copies.
    Copies,
}

/// Looks at the cluster through a node's monitoring.
pub async fn inspect(monitor: &Monitor, depth: Depth, deadline: Duration) -> Result<Cluster, MonitorError> {
    let jsz = async {
        match depth {
            Depth::Quorum => monitor.jsz(deadline).await,
            Depth::Copies => monitor.jsz_of_streams(deadline).await,
        }
    };
    let (jsz, routez) = tokio::join!(jsz, monitor.routez(deadline));
    Ok(Cluster::read(jsz?, routez?))
}

/// The checks of a cluster, for a report.
pub async fn examine(monitor: &Monitor, deadline: Duration) -> Vec<Check> {
    let started = std::time::Instant::now();
    let cluster = match inspect(monitor, Depth::Copies, deadline).await {
        Ok(cluster) => cluster,
        Err(error) => return vec![Check::warning("cluster", format!("it cannot be looked at: {error}"))],
    };
    let (outcome, detail) = match cluster.quorum() {
        Ok(detail) => (Outcome::Pass, detail),
        Err(detail) => (Outcome::Fail, detail),
    };
    let quorum = Check { name: "cluster", outcome, detail, millis: millis(started.elapsed()) };
    let warnings = cluster.warnings().into_iter().map(|(name, detail)| Check::warning(name, detail));
    [quorum].into_iter().chain(warnings).collect()
}

impl Cluster {
    /// Reads `/jsz` and `/routez`; what is not there is taken for nothing.
    pub fn read(jsz: Jsz, routez: Routez) -> Self {
        let meta = jsz.meta_cluster.unwrap_or_default();
        let mut routed = BTreeMap::<_, BTreeSet<_>>::new();
        for route in routez.routes.unwrap_or_default() {
            routed.entry(route.remote_name).or_default().insert(route.remote_id);
        }
        let group = |what: String, cluster: Option<RaftGroup>| {
            let RaftGroup { leader, replicas, .. } = cluster.unwrap_or_default();
            Group { what, leader, replicas: replicas.unwrap_or_default() }
        };
        let mut groups = vec![];
        for stream in jsz.account_details.into_iter().flat_map(|account| account.stream_detail) {
            let name = stream.name;
            for consumer in stream.consumer_detail {
                groups.push(group(format!("consumer {} of {name}", consumer.name), consumer.cluster));
            }
            groups.push(group(format!("stream {name}"), stream.cluster));
        }
        // Consumers are many, and follow from their streams.
        groups.sort_by_key(|group| group.what.starts_with("consumer "));
        let peers = meta.replicas.unwrap_or_default();
        Self { own: routez.server_name, size: meta.cluster_size, leader: meta.leader, peers, routed, groups }
    }

    fn leads(&self, leader: &str) -> bool {
        !self.own.is_empty() && self.own == leader
    }

    /// Whether every group that this node is in has a leader elsewhere. What has one copy cannot move.
    pub fn leads_nothing(&self) -> bool {
        let is_elsewhere = |leader: &str| !leader.is_empty() && !self.own.is_empty() && leader != self.own;
        let movable = self.groups.iter().filter(|group| !group.replicas.is_empty());
        is_elsewhere(&self.leader) && movable.map(|group| &group.leader).all(|leader| is_elsewhere(leader))
    }

    /// Whether nothing comes from that node, as the leader of that name sees it.
    fn is_away(&self, peer: &RaftPeer, leader: &str) -> bool {
        let silent = self.leads(leader) && Duration::from_nanos(peer.active) > SILENT;
        peer.offline || silent || !self.routed.contains_key(&peer.name)
    }

    fn away(&self) -> Vec<&str> {
        let away = self.peers.iter().filter(|peer| self.is_away(peer, &self.leader));
        away.map(|peer| peer.name.as_str()).collect()
    }

    /// Who leads, or why nothing can be decided.
    pub fn quorum(&self) -> Result<String, String> {
        if self.size == 0 {
            return Err("this node has not found the others yet: look at NATS_CLUSTER_ROUTES, at the credentials of \
                        the routes and at the network between the nodes"
                .into());
        }
        let away = self.away();
        let present = 1 + match self.peers.is_empty() {
            // Before 2.11 only the leader lists the others.
            true => self.routed.keys().filter(|name| **name != self.own).count().min(self.size - 1),
            false => self.peers.iter().filter(|peer| !self.is_away(peer, &self.leader)).count(),
        };
        let (size, needed) = (self.size, self.size / 2 + 1);
        if present < needed {
            let away = if away.is_empty() { "the others".to_owned() } else { away.join(", ") };
            return Err(format!(
                "quorum is lost: {present} of {size} nodes are here and {needed} are needed, so that nothing is \
                 acknowledged; start {away}, or mend the network between the nodes"
            ));
        }
        if self.leader.is_empty() {
            return Err(format!("{present} of {size} nodes are here, and none of them leads yet"));
        }
        Ok(format!("{present} of {size} nodes are here, {} leads", self.leader))
    }

    /// What does not keep the cluster from its work, with the name of the check.
    pub fn warnings(&self) -> Vec<(&'static str, String)> {
        let mut warnings = vec![];
        for (name, ids) in &self.routed {
            if *name == self.own || ids.len() > 1 {
                let way_out = "give each one a NATS_SERVER_NAME of its own";
                warnings.push(("names", format!("more than one node is called {name}: {way_out}")));
            }
        }
        for name in self.away() {
            let holds = |peer: &RaftPeer| peer.name == name;
            let groups = self.groups.iter().filter(|group| group.replicas.iter().any(holds));
            let copies = match named(groups.map(|group| group.what.as_str())) {
                copies if copies.is_empty() => String::new(),
                copies => format!("; its copies are not kept up: {copies}"),
            };
            warnings.push(("replicas", format!("node {name} is away{copies}")));
        }
        // What is behind is known to leaders only.
        for group in self.groups.iter().filter(|group| self.leads(&group.leader)) {
            for peer in group.replicas.iter().filter(|peer| !self.is_away(peer, &group.leader)) {
                if !peer.current && peer.lag > BEHIND {
                    let (name, lag) = (&peer.name, peer.lag);
                    warnings.push(("replicas", format!("node {name} is {lag} log entries behind in {}", group.what)));
                }
            }
        }
        warnings
    }
}

/// Why the copies that the node of that name has are not up to date, as their leaders see them.
pub fn not_up_to_date(node: &str, clusters: &[(String, Value)]) -> Option<String> {
    clusters.iter().find_map(|(stream, cluster)| {
        let RaftGroup { leader, replicas, .. } = RaftGroup::deserialize(cluster).ok()?;
        let replicas = replicas.unwrap_or_default();
        if leader.is_empty() && !replicas.is_empty() {
            return Some(format!("stream {stream} has no leader"));
        }
        let own = replicas.into_iter().find(|peer| peer.name == node)?;
        // An entry may hold thousands of messages: there is no number of them that does not matter.
        let lag = own.lag;
        (own.offline || !own.current).then(|| format!("stream {stream}: its copy here is {lag} log entries behind"))
    })
}

fn named<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    let more = names.len().saturating_sub(MOST_NAMED);
    let named = names[..names.len() - more].join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

#[cfg(test)]
mod tests;
