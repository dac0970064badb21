//! Requests that may be sent again: what changes nothing, or leads to the same however often it is done.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{Broker, Failure, Session};
use crate::nats::{ApiError, JetStream};

/// Pause before another attempt at a server that is not ready.
const PAUSE: Duration = Duration::from_millis(20);

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
            let asked = ask(JetStream::new(session.client().clone(), left));
            let answer = tokio::select! {
                answer = timeout_at(deadline, asked) => answer,
                () = session.gone() => continue,
            };
            match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if error.is_transient() && Instant::now() + PAUSE < deadline => sleep(PAUSE).await,
                Ok(Err(error)) => return Err(error.into()),
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
