//! Streams as clients ask for them. Whatever changes one goes through the plan, so that they hear of
//! overlaps, limits and options that cannot change what files would hear.

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::asking::Over;
use super::{Broker, Failure};
use crate::nats::{ApiError, Purge, StreamInfo};
use crate::settings::declared::{self, bodies};
use crate::streams::{Action, Change, Conflict, Desired, DesiredStream, Existing, StreamPlan, apply_one, plan};

/// Requests of one page that are on their way at a time.
const AT_A_TIME: usize = 32;
/// Looks at most; others may change the same stream at the same time.
const ATTEMPTS: usize = 5;

/// A piece of a list.
#[derive(Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Names of what exists and does not answer just now.
    pub unknown: Vec<String>,
    pub total: usize,
    /// The last name of the piece, where more follow.
    pub next: Option<String>,
}

/// One field that is not as somebody wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub field: &'static str,
    pub now: serde_json::Value,
    pub wanted: serde_json::Value,
    /// In a sentence.
    pub words: String,
}

/// What became of a stream that was asked for.
#[derive(Debug)]
pub struct Provisioned {
    pub info: StreamInfo,
    /// It was made just now.
    pub created: bool,
    /// What was changed.
    pub changes: Vec<Difference>,
    /// What stays, because nobody asks for what the change would cost.
    pub kept: Vec<Difference>,
}

impl Broker {
    /// Streams in the order of their names, behind the one named `after`.
    pub async fn streams(
        &self,
        after: Option<&str>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Page<StreamInfo>, Failure> {
        let after = after.map(str::to_owned);
        let names = self.ask(Over::Data, deadline, |jetstream| {
            let after = after.clone();
            async move { names_behind(after.as_deref(), limit, |offset| jetstream.stream_names(offset, None)).await }
        });
        let (names, total) = names.await?;
        self.described(names, total, limit, |name| self.find_stream(name, deadline)).await
    }

    /// A page of what the names stand for, asked for side by side.
    pub(super) async fn described<T, F>(
        &self,
        mut names: Vec<String>,
        total: usize,
        limit: usize,
        describe: impl Fn(String) -> F,
    ) -> Result<Page<T>, Failure>
    where
        F: Future<Output = Result<Option<T>, Failure>>,
    {
        let more = names.len() > limit;
        names.truncate(limit);
        let next = names.last().filter(|_| more).cloned();
        let asked: Vec<_> = names
            .into_iter()
            .map(|name| {
                let description = describe(name.clone());
                async move { (name, description.await) }
            })
            .collect();
        let mut answers = stream::iter(asked).buffered(AT_A_TIME);
        let mut page = Page { items: vec![], unknown: vec![], total, next };
        while let Some((name, answer)) = answers.next().await {
            match answer {
                Ok(Some(item)) => page.items.push(item),
                // It was deleted meanwhile.
                Ok(None) => {}
                Err(Failure::Late(_) | Failure::NotReady(_)) => page.unknown.push(name),
                Err(failure) => return Err(failure),
            }
        }
        Ok(page)
    }

    /// Every stream that answers.
    pub async fn all_streams(&self, deadline: Instant) -> Result<Vec<StreamInfo>, Failure> {
        let streams = self.ask(Over::Data, deadline, |jetstream| async move { jetstream.streams().await }).await?;
        Ok(streams.known)
    }

    async fn find_stream(&self, name: String, deadline: Instant) -> Result<Option<StreamInfo>, Failure> {
        self.ask(Over::Data, deadline, |jetstream| {
            let name = name.clone();
            async move { jetstream.stream_info(&name).await }
        })
        .await
    }

    pub async fn stream(&self, name: &str, deadline: Instant) -> Result<StreamInfo, Failure> {
        let info = self.find_stream(name.to_owned(), deadline).await?;
        info.ok_or_else(|| Failure::NoStream(name.to_owned()))
    }

    /// Makes a stream; does nothing where it exists with this very configuration.
    pub async fn create_stream(
        &self,
        stream: DesiredStream,
        declared: &Desired,
        deadline: Instant,
    ) -> Result<Provisioned, Failure> {
        leave_to_declared(&stream, declared)?;
        let desired = alone(stream, declared);
        for _ in 0..ATTEMPTS {
            let (existing, plan) = self.planned(&desired, deadline).await?;
            let there = existing.streams.into_iter().find(|info| info.name() == plan.name);
            if let Some(info) = there {
                return same(info, plan);
            }
            require_no_conflict(&plan)?;
            match self.carry_out(&plan, deadline).await {
                Ok(Some(info)) => {
                    return Ok(Provisioned { info, created: true, changes: vec![], kept: vec![] });
                }
                // Somebody was faster, or what was sent has arrived before its connection broke.
                Ok(None) => {}
                Err(Failure::Refused(error)) if error.is(ApiError::STREAM_NAME_EXISTS) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(changing(&desired))
    }

    /// Gives a stream another configuration, all of it.
    pub async fn update_stream(
        &self,
        stream: DesiredStream,
        declared: &Desired,
        force: bool,
        deadline: Instant,
    ) -> Result<Provisioned, Failure> {
        let name = stream.name.clone();
        leave_to_declared(&stream, declared)?;
        let desired = alone(stream, declared);
        let mut changed = None;
        for _ in 0..ATTEMPTS {
            let (existing, plan) = self.planned(&desired, deadline).await?;
            let there = existing.streams.into_iter().find(|info| info.name() == name);
            let info = match there {
                Some(info) => info,
                None if plan.action == Action::Unknown => return Err(unknown(&name)),
                None => return Err(Failure::NoStream(name)),
            };
            require_no_conflict(&plan)?;
            let kept = plan.kept.iter().map(difference).collect();
            let Action::Update { changes, .. } = &plan.action else {
                return Ok(Provisioned { info, created: false, changes: changed.unwrap_or_default(), kept });
            };
            if !force && declared.stream(&name).is_some() {
                return Err(Failure::Conflict(format!(
                    "stream {name} is declared in the settings, which would be brought back: change it there, or say \
                     force=true"
                )));
            }
            let changes: Vec<_> = changes.iter().map(difference).collect();
            match self.carry_out(&plan, deadline).await {
                Ok(Some(info)) => return Ok(Provisioned { info, created: false, changes, kept }),
                Ok(None) => changed = Some(changes),
                Err(Failure::Refused(error)) if error.is(ApiError::STREAM_NOT_FOUND) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(changing(&desired))
    }

    /// Deletes a stream with its messages. `deleting` hears of it before.
    pub async fn delete_stream(
        &self,
        name: &str,
        declared: &Desired,
        force: bool,
        deleting: &(dyn Fn(String) -> BoxFuture<'static, ()> + Sync),
        deadline: Instant,
    ) -> Result<(), Failure> {
        self.stream(name, deadline).await?;
        if !force && declared.stream(name).is_some() {
            return Err(Failure::Conflict(format!(
                "stream {name} is declared in the settings, which would bring it back without its messages: take it out \
                 there, or say force=true"
            )));
        }
        deleting(name.to_owned()).await;
        let deleted = self.ask(Over::Control, deadline, |jetstream| {
            let name = name.to_owned();
            async move { jetstream.delete_stream(&name).await }
        });
        let deleted = deleted.await;
        // It may be so without an answer.
        self.0.changes.note();
        deleted
    }

    /// Removes messages of a stream, and says how many.
    pub async fn purge_stream(&self, name: &str, purge: Purge, deadline: Instant) -> Result<u64, Failure> {
        let info = self.stream(name, deadline).await?;
        if info.config.get("deny_purge") == Some(&true.into()) {
            return Err(Failure::Conflict(format!("stream {name} does not allow that its messages are purged")));
        }
        let purged = self.ask(Over::Control, deadline, |jetstream| {
            let (name, purge) = (name.to_owned(), purge.clone());
            async move { jetstream.purge_stream(&name, &purge).await }
        });
        let purged = purged.await;
        self.0.changes.note();
        purged
    }

    async fn planned(&self, desired: &Desired, deadline: Instant) -> Result<(Existing, StreamPlan), Failure> {
        let existing =
            self.ask(Over::Control, deadline, |jetstream| async move { Existing::read(&jetstream, desired).await });
        let existing = existing.await?;
        match plan(desired, &existing).streams.into_iter().next() {
            Some(plan) => Ok((existing, plan)),
            None => Err(Failure::Invalid("there is nothing to plan".into())),
        }
    }

    /// [`None`] where nobody knows whether it was done.
    async fn carry_out(&self, plan: &StreamPlan, deadline: Instant) -> Result<Option<StreamInfo>, Failure> {
        let session = self.control(deadline).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let jetstream = session.jetstream(left);
        let applied = tokio::select! {
            applied = apply_one(&jetstream, plan) => applied,
            () = session.gone() => return Ok(None),
        };
        self.0.changes.note();
        if let Ok(Some(info)) = &applied {
            self.0.silent.note(info);
        }
        applied.map_err(|error| Failure::from(error.source))
    }
}

/// Names behind `after`, one more than `limit` where there are more, and how many there are in all.
pub(super) async fn names_behind<F>(
    after: Option<&str>,
    limit: usize,
    page: impl Fn(usize) -> F,
) -> Result<(Vec<String>, usize), ApiError>
where
    F: Future<Output = Result<crate::nats::Names, ApiError>>,
{
    let (mut names, mut offset) = (vec![], 0);
    loop {
        let found = page(offset).await?;
        offset += found.names.len();
        let is_last = found.names.is_empty() || offset >= found.total;
        names.extend(found.names.into_iter().filter(|name| after.is_none_or(|after| name.as_str() > after)));
        if is_last || names.len() > limit {
            names.sort_unstable();
            names.dedup();
            names.truncate(limit + 1);
            return Ok((names, found.total));
        }
    }
}

/// What is wanted is one stream, beside what settings say of all of them.
fn alone(stream: DesiredStream, declared: &Desired) -> Desired {
    Desired { streams: vec![stream], prune: false, files: vec![], ..declared.clone() }
}

/// Subjects of a declared stream are its own, though it may not be there yet.
fn leave_to_declared(stream: &DesiredStream, declared: &Desired) -> Result<(), Failure> {
    for other in declared.streams.iter().filter(|other| other.name != stream.name) {
        for subject in &stream.subjects {
            if let Some(theirs) = other.subjects.iter().find(|theirs| theirs.overlaps(subject)) {
                return Err(Failure::Conflict(format!(
                    "{subject} belongs to stream {} already, which the settings declare with {theirs}: take it out",
                    other.name
                )));
            }
        }
    }
    Ok(())
}

fn unknown(name: &str) -> Failure {
    Failure::NotReady(format!("stream {name} does not answer just now"))
}

fn changing(desired: &Desired) -> Failure {
    let name = desired.streams.first().map_or("", |stream| &stream.name);
    Failure::NotReady(format!("stream {name} is changed by others again and again"))
}

fn same(info: StreamInfo, plan: StreamPlan) -> Result<Provisioned, Failure> {
    let fixed = plan.conflicts.iter().filter_map(|conflict| match conflict {
        Conflict::Fixed { field, now, wanted, .. } => Some(described(field, now, wanted, conflict.to_string())),
        _ => None,
    });
    let changes = match &plan.action {
        Action::Update { changes, .. } => changes.as_slice(),
        _ => &[],
    };
    let differences: Vec<_> = changes.iter().chain(&plan.kept).map(difference).chain(fixed).collect();
    if !differences.is_empty() {
        return Err(Failure::Differs { object: format!("stream {}", plan.name), differences });
    }
    require_no_conflict(&plan)?;
    Ok(Provisioned { info, created: false, changes: vec![], kept: vec![] })
}

pub(super) fn difference(change: &Change) -> Difference {
    described(change.field, &change.now, &change.wanted, change.to_string())
}

pub(super) fn described(
    field: &'static str,
    now: &serde_json::Value,
    wanted: &serde_json::Value,
    words: String,
) -> Difference {
    let table = declared::options::STREAM.iter().chain(declared::options::CONSUMER);
    let known = table.into_iter().find(|known| known.name == field);
    let in_units = |value: &serde_json::Value| known.map_or(value.clone(), |k| bodies::described_value(k, value));
    Difference { field, now: in_units(now), wanted: in_units(wanted), words }
}

fn require_no_conflict(plan: &StreamPlan) -> Result<(), Failure> {
    if plan.action == Action::Unknown {
        return Err(unknown(&plan.name));
    }
    refuse(plan.conflicts.iter())
}

/// What stands in the way, as the client can act on it.
pub(super) fn refuse<'a>(conflicts: impl Iterator<Item = &'a Conflict>) -> Result<(), Failure> {
    let mut conflicts = conflicts.peekable();
    let Some(first) = conflicts.peek() else { return Ok(()) };
    let failure = match first {
        // Another server, or another body, and it is in order.
        Conflict::TooOld { .. }
        | Conflict::Contradiction { .. }
        | Conflict::Inside { .. }
        | Conflict::AboveAccount { .. }
        | Conflict::Required { .. } => Failure::Invalid,
        Conflict::NoRoom { .. } => Failure::NoRoom,
        Conflict::Fixed { .. }
        | Conflict::Overlap { .. }
        | Conflict::Untaken { .. }
        | Conflict::Circle { .. }
        | Conflict::TooMany { .. } => Failure::Conflict,
    };
    let words: Vec<_> = conflicts.map(Conflict::to_string).collect();
    Err(failure(words.join("; ")))
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words)
    }
}
