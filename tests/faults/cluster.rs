//! Three nodes with three copies: kill, pause and partition, one after another, while producers work.

use std::time::{Duration, Instant};

use crate::harness::cluster::{CutOff, NODES, Nodes};
use crate::harness::{Findings, Run, Shape, dose, read_from, wait_within};

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    /// Two of three: nothing is acknowledged until one is back.
    KillTwo,
    Pause,
    Partition(CutOff),
}

const FAULTS: [(Fault, &str); 5] = [
    (Fault::Kill, "kills"),
    (Fault::KillTwo, "kills_of_two"),
    (Fault::Pause, "pauses"),
    (Fault::Partition(CutOff::Nodes), "partitions_of_routes"),
    (Fault::Partition(CutOff::Everybody), "partitions"),
];

/// Messages per second. Each is forced to disk three times and more, here on one and the same disk,
/// and a node that comes back has to be faster than that.
const RATE: u32 = 100;
/// What a fault lasts, besides what it takes to see its effect.
const LASTS: std::ops::RangeInclusive<u64> = 500..=12_000;
/// Until every node is ready and every copy is current again.
const CONVERGES: Duration = Duration::from_secs(60);
/// Until a node that is cut off says that it is not ready: a follower waits for its leader for up to
/// nine seconds before it takes it for lost.
const FINDS_OUT: Duration = Duration::from_secs(20);
/// Until the two others acknowledge again.
const GOES_ON: Duration = Duration::from_secs(20);

#[test]
fn cluster_nodes_killed_paused_and_cut_off() {
    const TEST: &str = "cluster_nodes_killed_paused_and_cut_off";
    let mut run = Run::of(TEST);
    // A node that is killed again and again comes back at once.
    let variables = ["JETSTREAM_SYNC_INTERVAL=always", "RESTART_BACKOFF_MAX=200ms"];
    let Some(nodes) = Nodes::start(TEST, &variables) else { return };
    if !run.wait_until_converged(&nodes, CONVERGES) {
        return run.finish_stopped();
    }
    run.load_on(nodes.servers(), Shape { rate: RATE, ..Shape::default() });
    // Every fault comes up as often as any other, in an order that the seed decides.
    let mut coming = vec![];
    for _ in 0..dose(5, 100) {
        if coming.is_empty() {
            coming.extend(0..FAULTS.len());
            run.choices.shuffle(&mut coming);
        }
        let (fault, name) = FAULTS[coming.pop().unwrap_or_default()];
        run.wait_for_acknowledged(50);
        let node = run.choices.usize(..NODES);
        run.injected();
        run.count(name);
        println!("{fault:?} of node{node}");
        inject(&mut run, &nodes, fault, node);
        if !run.wait_until_converged(&nodes, CONVERGES) {
            break;
        }
    }
    settle(&mut run, &nodes);
    let codes = nodes.stop();
    run.require(codes.iter().all(|code| code == "0"), || format!("the stops ended with {codes:?}"));
    run.finish_stopped();
}

/// Injects the fault, sees what it does and takes it away.
fn inject(run: &mut Run, nodes: &Nodes, fault: Fault, node: usize) {
    let other = (node + 1) % NODES;
    match fault {
        Fault::Kill => {
            nodes.kill(node);
            expect_service(run);
            run.pause(LASTS);
            nodes.launch(node);
        }
        Fault::KillTwo => {
            nodes.kill(node);
            nodes.kill(other);
            run.pause(LASTS);
            nodes.launch(other);
            nodes.launch(node);
        }
        Fault::Pause => {
            nodes.pause(node);
            expect_service(run);
            run.pause(LASTS);
            nodes.go_on(node);
        }
        Fault::Partition(from) => {
            let began = Instant::now();
            nodes.disconnect(node, from);
            if from == CutOff::Nodes {
                expect_to_be_told(run, nodes, node, began);
            }
            expect_service(run);
            run.pause(LASTS);
            nodes.connect(node, from);
        }
    }
}

/// Two of three acknowledge.
fn expect_service(run: &mut Run) {
    let began = Instant::now();
    if run.acknowledges_within(GOES_ON) {
        run.note_longest("acknowledged_again_ms", began.elapsed());
    } else {
        run.violation(format!("two of three nodes have acknowledged nothing within {GOES_ON:?}"));
    }
}

/// A node without the others does not pretend to serve.
fn expect_to_be_told(run: &mut Run, nodes: &Nodes, node: usize, began: Instant) {
    let told = wait_within(FINDS_OUT, || (!nodes.is_ready(node)).then_some(()));
    run.require(told.is_some(), || format!("node{node} is cut off from the others and says it is ready"));
    run.note_longest("cut_off_told_ms", began.elapsed());
}

/// Ends the load and reads the stream back from each node's copy: the leader serves it from its own.
fn settle(run: &mut Run, nodes: &Nodes) {
    let ledger = run.stop_load();
    run.wait_until_converged(nodes, CONVERGES);
    let same = wait_within(Duration::from_secs(10), || {
        let copies: Vec<_> = (0..NODES).map(|node| nodes.copy(node)).collect();
        (copies[0].is_some() && copies.iter().all(|copy| copy == &copies[0])).then_some(())
    });
    let copies = || (0..NODES).map(|node| nodes.copy(node)).collect::<Vec<_>>();
    run.require(same.is_some(), || format!("first, last, number of messages differ: {:?}", copies()));
    for node in 0..NODES {
        let name = format!("node{node}");
        let leads = wait_within(Duration::from_secs(30), || {
            let is_leader = nodes.stream_cluster().is_some_and(|cluster| cluster["leader"] == name);
            if !is_leader {
                nodes.let_lead(node);
                // Choosing one takes a moment, and another request would begin it again.
                std::thread::sleep(Duration::from_secs(1));
            }
            is_leader.then_some(())
        });
        run.require(leads.is_some(), || format!("{name} cannot be made the leader"));
        match read_from(&nodes.servers()[node]) {
            // The totals count each message once.
            Ok(contents) if node == 0 => _ = run.judge(&ledger, &contents),
            Ok(contents) => {
                for violation in Findings::of(&ledger, &contents).violations {
                    run.violation(format!("in the copy of {name}: {violation}"));
                }
            }
            Err(error) => run.violation(format!("the copy of {name} cannot be read: {error}")),
        }
    }
}
