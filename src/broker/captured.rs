//! Which stream a subject is read from: one that stores messages under it, which need not be one that captures
//! it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::asking::Over;
use super::holdings::Holdings;
use super::{Broker, Failure};
use crate::domain::Subject;
use crate::nats::{ApiError, JetStream, StreamInfo};

/// For how long it is believed which streams transform subjects, unless this broker changes one.
const FRESH: Duration = Duration::from_secs(1);

/// Streams whose configurations are looked at for one subject.
const MOST_ASKED: usize = 16;
/// Names in a message.
const MOST_NAMED: usize = 8;

/// Streams that store messages under other subjects than they came with.
#[derive(Clone)]
struct Transforming {
    at: Instant,
    changes: u64,
    streams: Arc<[(String, Holdings)]>,
}

/// What was seen of them last.
#[derive(Default)]
pub(super) struct LastTransforming(Mutex<Option<Transforming>>);

impl Broker {
    /// The one stream that holds messages of the subject. One that captures it goes before those that only
    /// store messages under it.
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
                match named {
                    Some(name) => holder_named(&jetstream, name, subject).await,
                    None => holder(&jetstream, subject).await,
                }
            };
            let found = tokio::select! {
                found = find => found,
                () = session.gone() => Err(self.not_connected()),
            };
            let failure = match found {
                Ok(info) => return Ok(info),
                Err(Failure::NoStream(_) | Failure::NotHeld { .. }) if !self.is_ready() => {
                    Failure::NotReady("its streams are not known yet".into())
                }
                Err(failure @ (Failure::NotReady(_) | Failure::NotConnected { .. })) => failure,
                Err(failure) => return Err(failure),
            };
            if !self.waits_for_another_attempt(deadline).await {
                return Err(failure);
            }
        }
    }

    /// Names of the streams that may hold messages that match, in order. Copies that change no subject are
    /// not among them: their origins are.
    pub(super) async fn streams_for(&self, filter: &Subject, deadline: Instant) -> Result<Vec<String>, Failure> {
        let captures = self.ask(Over::Data, deadline, |jetstream| {
            let filter = filter.clone();
            async move {
                let mut names = vec![];
                loop {
                    let page = jetstream.stream_names(names.len(), Some(filter.as_str())).await?;
                    let is_last = page.names.is_empty() || names.len() + page.names.len() >= page.total;
                    names.extend(page.names);
                    if is_last {
                        return Ok(names);
                    }
                }
            }
        });
        let mut names = captures.await?;
        let transforming = self.transforming(deadline).await?;
        let holds = transforming.iter().filter(|(_, holdings)| holdings.is_known_to_hold(filter));
        names.extend(holds.map(|(name, _)| name.clone()));
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// All streams have to be asked for that, and in a cluster a node that is away holds the answer up: then
    /// what was seen last counts.
    async fn transforming(&self, deadline: Instant) -> Result<Arc<[(String, Holdings)]>, Failure> {
        let late = |_| Failure::Late("the streams were not listed in time".to_owned());
        let mut last = timeout_at(deadline, self.0.transforming.0.lock()).await.map_err(late)?;
        let changes = self.0.changes.count();
        let patience = match &*last {
            Some(seen) if seen.changes == changes && seen.at.elapsed() < FRESH => return Ok(seen.streams.clone()),
            Some(_) => deadline.min(Instant::now() + FRESH),
            None => deadline,
        };
        let listed = self.ask(Over::Data, patience, |jetstream| async move { jetstream.streams().await }).await;
        let streams: Arc<[_]> = match (listed, &*last) {
            (Ok(streams), _) => {
                let held = streams.known.iter().map(|info| (info.name().to_owned(), Holdings::of(info)));
                held.filter(|(_, holdings)| holdings.is_transformed).collect()
            }
            // Who may not list them is told of those that capture.
            (Err(Failure::Denied(_)), _) => Arc::default(),
            (Err(Failure::Late(_) | Failure::NotReady(_)), Some(seen)) => return Ok(seen.streams.clone()),
            (Err(failure), _) => return Err(failure),
        };
        *last = Some(Transforming { at: Instant::now(), changes, streams: streams.clone() });
        Ok(streams)
    }
}

type Held = (StreamInfo, Holdings);

async fn holder_named(jetstream: &JetStream, name: &str, subject: &Subject) -> Result<StreamInfo, Failure> {
    let info = jetstream.stream_info(name).await?.ok_or_else(|| Failure::NoStream(name.to_owned()))?;
    let (holders, others) = [with_holdings(info)].into_iter().partition(|held| may_hold(held, subject));
    only(subject, holders, others)
}

async fn holder(jetstream: &JetStream, subject: &Subject) -> Result<StreamInfo, Failure> {
    let names = jetstream.streams_with_subject(subject.as_str()).await?;
    // So many can only be several.
    if names.len() > MOST_ASKED {
        return Err(several(subject, &names));
    }
    let mut captures = vec![];
    for name in &names {
        captures.extend(jetstream.stream_info(name).await?.map(with_holdings));
    }
    let (holders, others): (Vec<Held>, Vec<Held>) = captures.into_iter().partition(|held| may_hold(held, subject));
    if !holders.is_empty() {
        return only(subject, holders, others);
    }
    let listed = match jetstream.streams().await {
        Ok(streams) => streams.known,
        // What this user may ask has been asked.
        Err(ApiError::Denied(_)) => vec![],
        Err(error) => return Err(error.into()),
    };
    let listed = listed.into_iter().map(with_holdings);
    only(subject, listed.filter(|(_, holdings)| holdings.is_known_to_hold(subject)).collect(), others)
}

fn with_holdings(info: StreamInfo) -> Held {
    let holdings = Holdings::of(&info);
    (info, holdings)
}

fn may_hold((_, holdings): &Held, subject: &Subject) -> bool {
    holdings.may_hold(subject)
}

/// The one that there is; `others` might be thought to be it.
fn only(subject: &Subject, mut holders: Vec<Held>, others: Vec<Held>) -> Result<StreamInfo, Failure> {
    let only = holders.pop();
    match only {
        Some((info, _)) if holders.is_empty() => Ok(info),
        Some(last) => {
            holders.push(last);
            let names: Vec<_> = holders.iter().map(|(info, _)| info.name().to_owned()).collect();
            Err(several(subject, &names))
        }
        None => {
            let hints = others.iter().map(|(info, holdings)| {
                let stored: Vec<_> = holdings.subjects.iter().take(MOST_NAMED).map(Subject::as_str).collect();
                format!("; stream {} stores messages under {}", info.name(), stored.join(", "))
            });
            Err(Failure::NotHeld { subject: subject.to_string(), hint: hints.take(MOST_NAMED).collect() })
        }
    }
}

fn several(subject: &Subject, names: &[String]) -> Failure {
    let more = names.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let list = names[..names.len().min(MOST_NAMED)].join(", ");
    Failure::Invalid(format!("several streams hold messages of {subject} ({list}{more}): name one with stream="))
}
