use tokio::task::JoinSet;

use crate::preflight::StartError;
use crate::supervisor::{Ending, Handle, Launch, Supervisor};

/// A task that has ended: its name, and how supervision ended if it was the supervisor.
type Ended = (&'static str, Option<Ending>);

/// Every task of the broker, by name.
#[derive(Default)]
pub struct Tasks(JoinSet<Ended>);

impl Tasks {
    /// One that runs as long as the broker does.
    pub fn start(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            work.await;
            (name, None)
        });
    }

    pub fn supervise<L: Launch + Send + 'static>(&mut self, (supervisor, handle): (Supervisor<L>, Handle)) -> Handle {
        self.0.spawn(async move { ("supervisor", Some(supervisor.run().await)) });
        handle
    }

    /// The same as [`Self::until_over`], unless `judgement` refuses the server: then it is stopped, and
    /// that is the outcome.
    pub async fn until_over_or_refused(
        &mut self,
        handle: &Handle,
        judgement: Option<impl Future<Output = Result<(), StartError>>>,
    ) -> Result<(), StartError> {
        let mut over = std::pin::pin!(self.until_over(handle));
        let Some(judgement) = judgement else { return over.await };
        let mut judgement = std::pin::pin!(judgement);
        tokio::select! {
            outcome = over.as_mut() => match outcome {
                Ok(()) => Ok(()),
                // What must not go on may fail in any way before that is known.
                Err(error) => judgement.await.and(Err(error)),
            },
            judged = judgement.as_mut() => {
                if let Err(error) = &judged {
                    tracing::error!("{error}; stopping");
                    handle.stop().await;
                }
                let outcome = over.await;
                judged.and(outcome)
            }
        }
    }

    /// Waits for the supervisor. Every other task runs as long as it does; one that ends takes the
    /// broker down in order, because nobody would notice what is missing. What is left goes on until it is dropped.
    pub async fn until_over(&mut self, handle: &Handle) -> Result<(), StartError> {
        let mut internal = None;
        while let Some(ended) = self.0.join_next().await {
            match ended {
                Ok((_, Some(ending))) => {
                    return match internal {
                        Some(error) => Err(StartError::Internal(error)),
                        None => StartError::of(ending),
                    };
                }
                Ok((task, None)) => internal = Some(anyhow::anyhow!("the task {task:?} ended unexpectedly")),
                Err(error) => internal = Some(anyhow::anyhow!("a task failed: {error}")),
            }
            if handle.is_over() {
                // The supervisor itself is gone, and the server goes with this process.
                break;
            }
            if let Some(error) = &internal {
                tracing::error!("{error}; stopping");
            }
            handle.stop().await;
        }
        Err(StartError::Internal(internal.unwrap_or_else(|| anyhow::anyhow!("no task is left"))))
    }
}

#[cfg(test)]
mod tests;
