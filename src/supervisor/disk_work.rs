//! What the supervisor has done on a disk, and waits for beside everything else.

use std::future;
use std::io;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::events::Event;
use super::handle::Installed;
use super::preparation::Hindrance;

/// What comes before a launch should take no longer.
pub const PREPARATION: Duration = Duration::from_secs(5);

/// Another configuration, while it is written.
pub struct Installing {
    pub writing: JoinHandle<io::Result<()>>,
    pub done: oneshot::Sender<io::Result<Installed>>,
}

/// What a preparation comes to that takes too long; it goes on.
pub fn late() -> Event {
    let seconds = PREPARATION.as_secs();
    Event::Hindered(format!(
        "cannot start nats-server: the disk of the store or of nats.conf does not answer within {seconds} s"
    ))
}

/// Waits for what comes before a launch.
pub async fn end_of(preparing: &mut Option<JoinHandle<Result<(), Hindrance>>>) -> Result<(), Hindrance> {
    let Some(work) = preparing else { return future::pending().await };
    let result = work.await.unwrap_or_else(|error| Err(Hindrance::Failed(io::Error::other(error))));
    *preparing = None;
    result
}

/// Waits until another configuration is written, and says who asked for it.
pub async fn written(installing: &mut Option<Installing>) -> (io::Result<()>, oneshot::Sender<io::Result<Installed>>) {
    let Some(Installing { writing, .. }) = installing else { return future::pending().await };
    let result = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    match installing.take() {
        Some(Installing { done, .. }) => (result, done),
        None => future::pending().await,
    }
}
