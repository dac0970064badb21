use std::time::{Duration, Instant};

use futures_util::StreamExt;
use nix::sys::signal::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use tokio::sync::mpsc;

use super::missing::Connected;
use crate::integrity::Keeper;
use crate::nats::JetStream;
use crate::supervisor::{Handle, Reaper};

fn name(signal: i32) -> &'static str {
    Signal::try_from(signal).map_or("signal", Signal::as_str)
}

/// Wrappers such as timeout(1) signal a process and then its group: that is one request, not two.
const SAME_REQUEST: Duration = Duration::from_millis(100);

/// The signals that this process answers. Made first of all, so that one that comes during the
/// start is kept: as PID 1, the kernel would drop it.
pub struct Signals(signal_hook_tokio::SignalsInfo);

/// Time for one request of the last look.
const LAST_LOOK: Duration = Duration::from_millis(200);

/// A look at the streams before the server is asked to stop.
pub struct LastLook {
    pub keeper: Keeper,
    pub client: Connected,
}

impl LastLook {
    async fn take(&self) {
        let connection = self.client.borrow().clone();
        if let Some((generation, client)) = connection {
            self.keeper.take_leave(&JetStream::new(client, LAST_LOOK), generation).await;
        }
    }
}

impl Signals {
    /// Must be called within a runtime.
    pub fn listen() -> std::io::Result<Self> {
        signal_hook_tokio::Signals::new([SIGTERM, SIGINT, SIGCHLD, SIGHUP, SIGUSR1, SIGUSR2]).map(Self)
    }

    /// Requests to reload go to `reloads`.
    pub(super) async fn run(mut self, handle: Handle, reaper: Reaper, last_look: LastLook, reloads: mpsc::Sender<()>) {
        // A child may have ended before the first SIGCHLD was asked for.
        reaper.reap();
        let mut last_stop: Option<Instant> = None;
        while let Some(signal) = self.0.next().await {
            match signal {
                SIGTERM | SIGINT if last_stop.is_some_and(|at| at.elapsed() < SAME_REQUEST) => {}
                SIGCHLD => {
                    reaper.reap();
                }
                SIGTERM | SIGINT => {
                    last_stop = Some(Instant::now());
                    tracing::info!(signal = name(signal), "stopping");
                    last_look.take().await;
                    handle.stop().await;
                }
                SIGUSR1 => handle.reopen_logs().await,
                SIGUSR2 => {
                    tracing::info!(signal = name(signal), "entering lame duck mode, and stopping after it");
                    handle.lame_duck().await;
                }
                SIGHUP => {
                    tracing::info!(signal = name(signal), "reloading");
                    // One that waits already will find what is new.
                    let _ = reloads.try_send(());
                }
                _ => {}
            }
        }
    }
}
