//! A memory limit of the container that nats-server exceeds: the kernel kills it, or it hangs because
//! its own code is read from disk again and again, and is killed for that. It comes back.

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
    let limits = ["--memory=160m", "--memory-swap=160m"];
    // Deaths that follow each other wait longer and longer; what is tested is the return.
    let variables = ["--env=GOMEMLIMIT=off", "--env=JETSTREAM_MAX_MEMORY=4GB", "--env=RESTART_BACKOFF_MAX=1s"];
    let arguments = [limits.as_slice(), &variables].concat();
    let Some(container) = Container::start(TEST, &run, &arguments) else { return };
    run.wait_until_ready(Duration::from_secs(60));
    run.load(Shape { rate: 300, ..Shape::default() });
    let init = container.init();
    let mut by_kernel = 0;
    for _ in 0..dose(1, 20) {
        let (before, killed_before) = (run.restarts(), container.memory_kills());
        block_on(async { fill_memory(&run.broker.url()).await });
        run.injected();
        let killed = Instant::now();
        let restarted = wait_within(Duration::from_secs(60), || (run.restarts() > before).then_some(()));
        run.require(restarted.is_some(), || "the server was not started again".into());
        by_kernel += u32::from(container.memory_kills() > killed_before);
        if run.wait_until_ready(Duration::from_secs(60)) {
            run.note_longest("back_after_ms", killed.elapsed());
        }
        let restarts = run.restarts().saturating_sub(before);
        run.require(restarts <= 5, || format!("{restarts} restarts for one death"));
        run.require(is_alive(init) && comm(init) == "unified-nats", || "the supervisor is gone".into());
        run.wait_for_acknowledged(100);
    }
    run.note("killed_by_the_kernel", by_kernel);
    run.require(by_kernel > 0, || "memory never ran out".into());
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
