//! A memory limit of the container that nats-server exceeds: the kernel kills it, it comes back.

use std::time::{Duration, Instant};

use async_nats::Client;
use serde_json::json;

use crate::harness::container::Container;
use crate::harness::{Run, Shape, dose, wait_within};
use crate::support::{JetStream, block_on, comm, is_alive};

#[test]
fn out_of_memory() {
    const TEST: &str = "out_of_memory";
    let mut run = Run::of(TEST);
    // GOMEMLIMIT=off: with a limit nats-server would spend its time collecting garbage.
    let arguments = ["--memory=160m", "--memory-swap=160m", "--env=GOMEMLIMIT=off", "--env=JETSTREAM_MAX_MEMORY=4GB"];
    let Some(container) = Container::start(TEST, &run, &arguments) else { return };
    run.wait_until_ready(Duration::from_secs(60));
    run.load(Shape { rate: 300, ..Shape::default() });
    let init = container.init();
    for _ in 0..dose(1, 20) {
        let (before, killed_before) = (run.restarts(), container.memory_kills());
        block_on(async { fill_memory(&run.broker.url()).await });
        run.injected();
        let killed = Instant::now();
        let restarted = wait_within(Duration::from_secs(30), || (run.restarts() > before).then_some(()));
        let by_kernel = container.memory_kills() > killed_before;
        run.require(restarted.is_some() && by_kernel, || format!("killed for want of memory: {by_kernel}"));
        // Deaths close to each other wait longer, up to the longest backoff.
        if run.wait_until_ready(Duration::from_secs(60)) {
            run.note_longest("back_after_ms", killed.elapsed());
        }
        let restarts = run.restarts() - before;
        run.require(restarts <= 5, || format!("{restarts} restarts for one death"));
        run.require(is_alive(init) && comm(init) == "unified-nats", || "the supervisor is gone".into());
        run.wait_for_acknowledged(100);
    }
    run.require(container.is_running(), || "the container ended".into());
    run.settle();
    let code = container.stop();
    run.require(code == Some(0), || format!("the stop ended with {code:?}"));
    run.finish_stopped();
}

/// Publishes into a stream in memory until the server is no more. MARKET_DATA is in files: what is
/// acknowledged there stays.
async fn fill_memory(url: &str) {
    let client = async_nats::ConnectOptions::new().max_reconnects(1).connect(url).await.unwrap();
    let config = json!({ "name": "BALLAST", "subjects": ["ballast"], "storage": "memory", "num_replicas": 1 });
    JetStream(client.clone()).ask("$JS.API.STREAM.CREATE.BALLAST", config).await;
    let payload = vec![1u8; 900_000];
    for _ in 0..2_000 {
        if !published(&client, &payload).await {
            return;
        }
    }
    panic!("1.8 GB did not fill the container's memory");
}

async fn published(client: &Client, payload: &[u8]) -> bool {
    let request = client.request("ballast", payload.to_vec().into());
    tokio::time::timeout(Duration::from_secs(5), request).await.is_ok_and(|answer| answer.is_ok())
}
