//! The threads that answer requests.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Each thread of the data side has a name that begins with that.
pub const THREADS: &str = "api-";

/// How far the workers stand back where processors are short, from 0 to 19: a flood of requests would
/// otherwise take from a server that is starting what it needs. The door keeps its place, for the sake of
/// the probes on a machine that is busy with something else.
pub const WORKER_NICENESS: i32 = 10;

/// After so many turns of its own a worker takes in what comes from other threads: new connections, for
/// one. With tokio's 31 a thousand that come at once wait half a second for those that are being served.
const NEWCOMERS: u32 = 4;

/// Threads with a runtime each. What is given to one stays with it: requests that wait for nats-server all
/// have their turn before the connection that writes for them, which so takes many at once. A runtime of
/// several threads would run that connection after each request, with a system call each time.
#[derive(Clone)]
pub(super) struct Workers {
    handles: Arc<[Handle]>,
    turns: Arc<AtomicUsize>,
}

impl Workers {
    /// They end after `end`.
    pub fn start(threads: usize, end: &CancellationToken) -> io::Result<Self> {
        let start_one = |_| {
            let runtime = Builder::new_current_thread().global_queue_interval(NEWCOMERS).enable_all().build()?;
            let (handle, end) = (runtime.handle().clone(), end.clone());
            let work = move || {
                step_back();
                runtime.block_on(end.cancelled());
                runtime.shutdown_background();
            };
            std::thread::Builder::new().name(format!("{THREADS}worker")).spawn(work)?;
            Ok(handle)
        };
        let handles = (0..threads).map(start_one).collect::<io::Result<_>>()?;
        Ok(Self { handles, turns: Arc::default() })
    }

    #[cfg(test)]
    pub fn of(handle: Handle) -> Self {
        Self { handles: Arc::new([handle]), turns: Arc::default() }
    }

    /// Whose turn it is.
    pub fn next(&self) -> &Handle {
        &self.handles[self.turns.fetch_add(1, Ordering::Relaxed) % self.handles.len()]
    }
}

/// Lets others have the processors first: nats-server and the control side.
pub fn step_back() {
    // In Linux that is about the thread that asks, not about its process.
    if let Err(error) = rustix::process::nice(WORKER_NICENESS) {
        tracing::debug!("cannot lower the priority of a thread of the data side: {error}");
    }
}
