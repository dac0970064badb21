//! Brings requests of one signal to the collector: again and again until it takes or refuses them.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::sender::{Outcome, Sender};
use super::wire::Message;
use crate::settings::Url;
use crate::spans::ExportCounts;

/// Between two attempts; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);

pub struct Delivery {
    /// What is sent, as the log calls it.
    pub what: &'static str,
    pub url: Url,
    pub sender: Sender,
    pub counts: &'static ExportCounts,
    /// The program ends.
    pub stop: CancellationToken,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Working,
    /// It took nothing lately, and may take the same later.
    Failing,
    /// It refused what was sent last.
    Refusing,
}

/// What has become of a request in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// But for so many parts.
    Taken {
        rejected: u64,
    },
    Lost,
}

impl Delivery {
    pub fn new(
        what: &'static str,
        url: Url,
        sender: Sender,
        counts: &'static ExportCounts,
        stop: CancellationToken,
    ) -> Self {
        Self { what, url, sender, counts, stop, state: State::Working }
    }

    /// Brings it there, by that time where there is one. Once the program ends there is one attempt more, and
    /// none to a collector that is known to take nothing.
    pub async fn deliver(&mut self, request: &Message, by: Option<Instant>) -> Delivered {
        let text = self.sender.encode(request).await;
        let mut pause = FIRST_PAUSE;
        loop {
            if self.is_given_up() {
                return Delivered::Lost;
            }
            let is_failing = self.state == State::Failing;
            let outcome = tokio::select! {
                outcome = self.sender.send(&self.url, text.clone()) => outcome,
                () = self.stop.cancelled(), if is_failing => return Delivered::Lost,
                () = until(by) => return Delivered::Lost,
            };
            let wait = match self.heard(outcome) {
                Ok(delivered) => return delivered,
                Err(wait) => wait.unwrap_or_else(|| pause.mul_f64(1.0 - fastrand::f64() / 4.0)),
            };
            pause = (pause * 2).min(LAST_PAUSE);
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stop.cancelled() => return Delivered::Lost,
                () = until(by) => return Delivered::Lost,
            }
        }
    }

    /// Whether nothing is sent any more.
    pub fn is_given_up(&self) -> bool {
        self.stop.is_cancelled() && self.state == State::Failing
    }

    /// Counts an outcome and says in the log what is new; how long to wait where it may be tried again.
    fn heard(&mut self, outcome: Outcome) -> Result<Delivered, Option<Duration>> {
        let Self { what, counts, .. } = self;
        let (counter, state) = match &outcome {
            Outcome::Taken { .. } => (&counts.taken, State::Working),
            Outcome::Failed { .. } => (&counts.failed, State::Failing),
            Outcome::Refused { .. } => (&counts.refused, State::Refusing),
        };
        counter.add(1);
        let is_news = std::mem::replace(&mut self.state, state) != state;
        match outcome {
            Outcome::Taken { rejected } => {
                if rejected > 0 {
                    tracing::debug!("the OpenTelemetry collector did not take {rejected} parts of the {what}");
                }
                if is_news {
                    tracing::info!("the OpenTelemetry collector takes {what} again");
                }
                Ok(Delivered::Taken { rejected })
            }
            Outcome::Failed { reason, wait } => {
                if is_news {
                    tracing::warn!(
                        "cannot send {what} to the OpenTelemetry collector, and it is tried again until that works: {reason}"
                    );
                }
                Err(wait)
            }
            Outcome::Refused { reason } => {
                if is_news {
                    tracing::warn!("the OpenTelemetry collector does not take {what}, which are dropped: {reason}");
                }
                Ok(Delivered::Lost)
            }
        }
    }
}

async fn until(by: Option<Instant>) {
    match by {
        Some(by) => sleep_until(by).await,
        None => std::future::pending().await,
    }
}
