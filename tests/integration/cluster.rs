//! Three nodes of ours.

use crate::support::*;

#[test]
fn three_nodes_find_each_other_and_keep_three_copies() {
    let mut nodes = [Broker::new(), Broker::new(), Broker::new()];
    let routes: Vec<_> = nodes.iter().map(|node| format!("nats-route://127.0.0.1:{}", node.ports.cluster)).collect();
    for (index, node) in nodes.iter_mut().enumerate() {
        let port = node.ports.cluster;
        node.set("NATS_SERVER_NAME", format!("node{index}")).set("NATS_CLUSTER_ENABLED", "true");
        node.set("NATS_CLUSTER_PORT", port).set("NATS_CLUSTER_ROUTES", routes.join(",")).set("STREAM_REPLICAS", "3");
        node.set("NATS_CLUSTER_USERNAME", "route").set("NATS_CLUSTER_PASSWORD", "p$x\" @:/%}");
        node.launch();
    }
    for node in &mut nodes {
        node.wait_until_ready();
    }
    block_on(async {
        let jetstream = JetStream(nodes[0].client().await);
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
    for node in &mut nodes {
        assert_eq!(node.stop(), Some(0), "{}", node.log());
    }
    // The store knows that it is clustered, so these streams may be served by the cluster again.
    for node in &mut nodes {
        node.launch();
    }
    nodes[0].wait_until_ready();
}
