//! Carries a plan out: thin, level-triggered, idempotent.

use super::plan::{Action, Change, plan, subjects_of};
use super::spec::{Desired, captures};
use crate::nats::{ApiError, JetStream, StreamInfo};

/// The stream after [`apply`].
#[derive(Debug)]
pub struct Applied {
    pub info: StreamInfo,
    /// What is not as desired, in sentences for the operator.
    pub remarks: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("cannot read stream {stream}")]
    Read { stream: String, source: ApiError },
    #[error("cannot create stream {stream}")]
    Create { stream: String, source: ApiError },
    #[error("cannot update stream {stream}")]
    Update { stream: String, source: ApiError },
    #[error(
        "cannot create stream {stream}: {subject} belongs to stream {other} already; take it out there, or set STREAM_NAME={other}"
    )]
    Overlap { stream: String, subject: String, other: String },
}

impl ApplyError {
    /// Whether a server that is just starting, or a cluster that is electing, answers like that.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Create { source, .. } | Self::Update { source, .. } => {
                source.is_transient()
            }
            Self::Overlap { .. } => false,
        }
    }
}

impl Applied {
    /// Whether every family is captured, whatever else could not be made as desired.
    pub fn is_usable(&self, desired: &Desired) -> bool {
        let subjects = subjects_of(&self.info.config);
        desired.subjects.iter().all(|subject| captures(&subjects, subject))
    }
}

/// Makes the stream as desired. Others may do the same at the same time: what is there is read
/// again when it turned out to be something else than was read before.
pub async fn apply(jetstream: &JetStream, desired: &Desired) -> Result<Applied, ApplyError> {
    const ATTEMPTS: usize = 5;
    let stream = || desired.name.clone();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let existing = jetstream.stream_info(&desired.name).await;
        let existing = existing.map_err(|source| ApplyError::Read { stream: stream(), source })?;
        let plan = plan(desired, existing.as_ref(), jetstream.server_version());
        let mut remarks = plan.remarks();
        match (plan.action, existing) {
            (Action::Create(config), _) => match jetstream.create_stream(&desired.name, &config).await {
                Ok(info) => {
                    tracing::info!(stream = desired.name, "stream created");
                    return Ok(Applied { info, remarks });
                }
                Err(error) if error.is(ApiError::STREAM_NAME_EXISTS) && attempt < ATTEMPTS => {}
                Err(error) if error.is(ApiError::SUBJECT_OVERLAP) => {
                    return Err(explain_overlap(jetstream, desired, error).await);
                }
                Err(source) => return Err(ApplyError::Create { stream: stream(), source }),
            },
            (Action::Update { config, changes }, Some(before)) => {
                match jetstream.update_stream(&desired.name, &config).await {
                    Ok(info) => {
                        tell(desired, &changes);
                        return Ok(Applied { info, remarks });
                    }
                    Err(error) if error.is(ApiError::STREAM_NOT_FOUND) && attempt < ATTEMPTS => {}
                    Err(error) if error.is_transient() => {
                        return Err(ApplyError::Update { stream: stream(), source: error });
                    }
                    // What is there goes on as it is; whether that is enough is for the caller to say.
                    Err(error) => {
                        let wanted: Vec<_> = changes.iter().map(Change::to_string).collect();
                        remarks.push(format!("cannot be updated ({}): {error}", wanted.join(", ")));
                        return Ok(Applied { info: before, remarks });
                    }
                }
            }
            (Action::Nothing, Some(info)) => return Ok(Applied { info, remarks }),
            // Without an existing stream the plan is to create it.
            (Action::Nothing | Action::Update { .. }, None) => {}
        }
    }
}

fn tell(desired: &Desired, changes: &[Change]) {
    for change in changes {
        match change.effect {
            Some(_) => tracing::warn!(stream = desired.name, "stream changed, {change}"),
            None => tracing::info!(stream = desired.name, "stream changed, {change}"),
        }
    }
}

async fn explain_overlap(jetstream: &JetStream, desired: &Desired, source: ApiError) -> ApplyError {
    for subject in &desired.subjects {
        let streams = jetstream.streams_with_subject(subject).await.unwrap_or_default();
        if let Some(other) = streams.into_iter().find(|name| *name != desired.name) {
            return ApplyError::Overlap { stream: desired.name.clone(), subject: subject.clone(), other };
        }
    }
    ApplyError::Create { stream: desired.name.clone(), source }
}
