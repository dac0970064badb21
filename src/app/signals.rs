use futures_util::StreamExt;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::supervisor::{Handle, Reaper};

/// The signals that this process answers. Made first of all, so that one that comes during the
/// start is kept: as PID 1, the kernel would drop it.
pub struct Signals(signal_hook_tokio::SignalsInfo);

impl Signals {
    /// Must be called within a runtime.
    pub fn listen() -> std::io::Result<Self> {
        signal_hook_tokio::Signals::new([SIGTERM, SIGINT, SIGCHLD, SIGHUP, SIGUSR1, SIGUSR2]).map(Self)
    }

    pub(super) async fn run(mut self, handle: Handle, reaper: Reaper) {
        // A child may have ended before the first SIGCHLD was asked for.
        reaper.reap();
        while let Some(signal) = self.0.next().await {
            match signal {
                SIGCHLD => {
                    reaper.reap();
                }
                SIGTERM | SIGINT => {
                    tracing::info!(signal, "stopping");
                    handle.stop().await;
                }
                other => tracing::warn!(signal = other, "this version does nothing on this signal"),
            }
        }
    }
}
