//! Which stream a subject is read from.

use tokio::time::Instant;

use super::{Broker, Failure};
use crate::domain::Subject;
use crate::nats::StreamInfo;

impl Broker {
    /// The one stream that captures the subject.
    pub(super) async fn stream_of(
        &self,
        subject: &Subject,
        named: Option<&str>,
        deadline: Instant,
    ) -> Result<StreamInfo, Failure> {
        loop {
            let session = self.data(deadline).await?;
            let patience = deadline.saturating_duration_since(Instant::now());
            let jetstream = session.jetstream(patience);
            let find = async {
                let name = match named {
                    Some(name) => name.to_owned(),
                    None => match jetstream.streams_with_subject(subject.as_str()).await?.as_slice() {
                        [] => return Ok(None),
                        [only] => only.clone(),
                        several => {
                            let list = several.join(", ");
                            let message =
                                format!("{subject} is captured by several streams ({list}): name one with stream=");
                            return Err(Failure::Invalid(message));
                        }
                    },
                };
                let info = jetstream.stream_info(&name).await?;
                match info {
                    Some(info) if !may_hold(&info, subject) => {
                        Err(Failure::NotCaptured { subject: subject.to_string() })
                    }
                    info => Ok(info),
                }
            };
            let found = tokio::select! {
                found = find => found,
                () = session.gone() => Err(self.not_connected()),
            };
            let failure = match found {
                Ok(Some(info)) => return Ok(info),
                Ok(None) if !self.is_ready() => Failure::NotReady("its streams are not known yet".into()),
                Ok(None) => {
                    return Err(match named {
                        Some(name) => Failure::NoStream(name.to_owned()),
                        None => Failure::NotCaptured { subject: subject.to_string() },
                    });
                }
                Err(failure @ (Failure::NotReady(_) | Failure::NotConnected { .. })) => failure,
                Err(failure) => return Err(failure),
            };
            if !self.waits_for_another_attempt(deadline).await {
                return Err(failure);
            }
        }
    }
}

/// Whether there may be messages of the subject; mirrors hold those of others.
fn may_hold(info: &StreamInfo, subject: &Subject) -> bool {
    let subjects = info.config.get("subjects").and_then(serde_json::Value::as_array);
    let copies =
        ["mirror", "sources"].iter().any(|name| info.config.get(*name).is_some_and(|copied| !copied.is_null()));
    let captures = |captured: &serde_json::Value| {
        captured.as_str().and_then(|captured| captured.parse().ok()).is_some_and(|captured| subject.overlaps(&captured))
    };
    copies || subjects.is_none_or(|subjects| subjects.iter().any(captures))
}
