//! Clients that flood the API port, with requests and with connections that send none.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Broker, cannot_run, http_get, wait_for};

/// A build for debugging answers a tenth of what the product does; scripts/bench.sh takes more.
const BUSY: usize = 256;
const IDLE: usize = 3000;

/// What comes of connections that say nothing, or half of something.
const HALVES: [&[u8]; 4] = [b"", b"GET ", b"GET /readyz HTTP/1.1\r\nHost: x\r\n", b"GET /x HTTP/1.1\r\nHost: x\r\n"];

/// Goes on until it is dropped.
struct Flood {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn of(port: u16) -> Self {
        let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_over, count) = (over.clone(), answered.clone());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let clients = async {
                for number in 0..BUSY {
                    tokio::spawn(ask_for_ever(address, ["/health", "/nowhere"][number % 2], count.clone()));
                }
                for number in 0..IDLE {
                    tokio::spawn(idle_for_ever(address, HALVES[number % HALVES.len()]));
                }
                while !is_over.load(Ordering::Relaxed) {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            };
            runtime.block_on(clients);
        });
        Self { over, answered, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn ask_for_ever(address: SocketAddr, path: &str, answered: Arc<AtomicU64>) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut answer = vec![0; 16 << 10];
    loop {
        let Ok(mut stream) = TcpStream::connect(address).await else {
            tokio::task::yield_now().await;
            continue;
        };
        while stream.write_all(request.as_bytes()).await.is_ok() {
            if stream.read(&mut answer).await.unwrap_or(0) == 0 {
                break;
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn idle_for_ever(address: SocketAddr, half: &[u8]) {
    loop {
        let Ok(mut stream) = TcpStream::connect(address).await else {
            tokio::task::yield_now().await;
            continue;
        };
        // Whether it is answered, refused or closed, the next one follows.
        if stream.write_all(half).await.is_ok() {
            let _ = stream.read(&mut [0; 64]).await;
        }
    }
}

#[test]
fn a_flood_of_connections_keeps_neither_probes_nor_a_recovery_nor_a_stop_waiting() {
    const NEEDED: u64 = 2 * (BUSY + IDLE) as u64;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if most < NEEDED {
        return cannot_run("a_flood_of_connections", "the hard limit of descriptors is too low");
    }
    setrlimit(Resource::RLIMIT_NOFILE, NEEDED, most).unwrap();
    let mut broker = Broker::new();
    broker.start();
    let flood = Flood::of(broker.ports.api);
    let answered = || flood.answered.load(Ordering::Relaxed);
    wait_for("the flood is there", || (answered() >= 10 * BUSY as u64).then_some(()));

    // Each within the deadline of the client; how fast they are scripts/bench.sh says.
    for path in ["/livez", "/readyz", "/startupz", "/health"].iter().cycle().take(20) {
        assert_eq!(http_get(&broker.api(path)).0, 200, "{path}");
    }
    let before = answered();
    let first = broker.server_pid();
    kill(first, Signal::SIGKILL).unwrap();
    wait_for("it is ready again", || {
        let server = &broker.health()["checks"]["nats_server"];
        (server["state"] == "ready" && server["pid"] != first.as_raw()).then_some(())
    });
    wait_for("the flood goes on", || (answered() > before).then_some(()));
    assert_eq!(broker.stop(), Some(0));
    assert!(!broker.log().contains("still under way"), "{}", broker.log());
}
