//! Requests that may be sent again: what changes nothing, or leads to the same however often it is done.

use tokio::time::{Instant, timeout_at};

use super::{Broker, Failure, Session};
use crate::nats::{ApiError, JetStream};

/// Whose rights a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Data,
    Control,
}

impl Broker {
    /// Asks until there is an answer. A connection that breaks is replaced by the next one.
    pub(super) async fn ask<T, F>(
        &self,
        over: Over,
        deadline: Instant,
        ask: impl Fn(JetStream) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        loop {
            let session = self.over(over, deadline).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            let asked = ask(session.jetstream(left));
            let answer = tokio::select! {
                answer = timeout_at(deadline, asked) => answer,
                () = session.gone() => continue,
            };
            match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => {
                    if !error.is_transient() || !self.waits_for_another_attempt(deadline).await {
                        return Err(error.into());
                    }
                }
                Err(_) => return Err(Failure::Late("nats-server has not answered (API_REQUEST_TIMEOUT)".into())),
            }
        }
    }

    pub(super) async fn over(&self, over: Over, deadline: Instant) -> Result<Session, Failure> {
        match over {
            Over::Data => self.data(deadline).await,
            Over::Control => self.control(deadline).await,
        }
    }
}
