use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{Fuse, FusedFuture, FutureExt};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use tokio::sync::mpsc;

use super::integrity_tasks::Connected;
use crate::integrity::IntegrityHandle;
use crate::nats::JetStream;
use crate::supervisor::{Handle, Reaper};

fn name(signal: i32) -> &'static str {
    Signal::try_from(signal).map_or("signal", Signal::as_str)
}

/// Wrappers such as timeout(1) signal a process and then its group: that is one request, not two.
const SAME_REQUEST: Duration = Duration::from_millis(100);

/// What the broker answers.
const ANSWERED: [i32; 6] = [SIGTERM, SIGINT, SIGCHLD, SIGHUP, SIGUSR1, SIGUSR2];

/// Holds back the signals that the broker answers until [`release`]: one that comes before somebody
/// listens would end the process, or be dropped by the kernel where we are PID 1. To be called first of
/// all, before there is a second thread.
pub fn hold() {
    let held: SigSet = ANSWERED.into_iter().filter_map(|number| Signal::try_from(number).ok()).collect();
    // The mask that a parent left is replaced, not added to.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&held), None);
    // Of an ignored SIGCHLD the kernel would make children vanish before anybody has waited for them.
    #[allow(unsafe_code, reason = "there is no other way to take back what a parent ignored")]
    // SAFETY: the default disposition runs no code of ours.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// Lets every signal through, those that came meanwhile included.
pub fn release() {
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// The signals that this process answers. Made before anything else of a start, so that one that comes
/// meanwhile is kept.
pub struct Signals(signal_hook_tokio::SignalsInfo);

/// Time for one request of the last look.
const LAST_CHECK: Duration = Duration::from_millis(200);

/// A look at the streams before the server is asked to stop.
pub struct LastCheck {
    pub integrity: IntegrityHandle,
    pub client: Connected,
}

impl LastCheck {
    async fn take(&self) {
        let connection = self.client.borrow().clone();
        if let Some((generation, client)) = connection {
            self.integrity.take_leave(&JetStream::new(client, LAST_CHECK), generation).await;
        }
    }
}

impl Signals {
    /// Listens from now on, and takes up what was held back. Must be called within a runtime.
    pub fn listen() -> std::io::Result<Self> {
        let signals = signal_hook_tokio::Signals::new(ANSWERED)?;
        release();
        Ok(Self(signals))
    }

    /// Requests to reload go to `reloads`.
    pub async fn run(mut self, handle: Handle, reaper: Reaper, last_check: LastCheck, reloads: mpsc::Sender<()>) {
        // A child may have ended before the first SIGCHLD was asked for.
        reaper.reap();
        let mut last_stop: Option<Instant> = None;
        // A stop waits for the last look at the streams; children that end do not wait for either.
        let mut leaving = std::pin::pin!(Fuse::terminated());
        loop {
            let signal = tokio::select! {
                biased;
                signal = self.0.next() => match signal {
                    Some(signal) => signal,
                    None => return,
                },
                () = &mut leaving => {
                    handle.stop().await;
                    continue;
                }
            };
            match signal {
                SIGTERM | SIGINT if last_stop.is_some_and(|at| at.elapsed() < SAME_REQUEST) => {}
                SIGCHLD => {
                    reaper.reap();
                }
                SIGTERM | SIGINT => {
                    tracing::info!(signal = name(signal), "stopping");
                    if last_stop.replace(Instant::now()).is_none() {
                        leaving.set(last_check.take().fuse());
                        continue;
                    }
                    if !leaving.is_terminated() {
                        // Who asks again does not want to wait for a look.
                        leaving.set(Fuse::terminated());
                        handle.stop().await;
                    }
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
