//! Carries plans out: thin, level-triggered, idempotent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};

use super::account::Account;
use super::plan::{Action, Change, ConsumerAction, ConsumerPlan, Existing, Plan, Remark, StreamPlan, plan};
use super::spec::{Desired, DesiredStream};
use super::traced::traced;
use crate::nats::{ApiError, Consumers, JetStream, Put, StreamInfo};

/// Requests that are on their way at a time.
const AT_A_TIME: usize = 64;
/// Looks at most; others may change the same streams at the same time.
const ATTEMPTS: usize = 5;

/// What has become of a plan.
#[derive(Debug, Default)]
pub struct Applied {
    /// The streams as they are now, as far as they could be read.
    pub streams: BTreeMap<String, StreamInfo>,
    /// What was done, in sentences.
    pub done: Vec<Done>,
    /// Streams whose state nobody knows just now were left alone.
    pub some_do_not_answer: bool,
    /// What could not be done, each by itself.
    pub failed: Vec<ApplyError>,
    /// What is not as desired and stays so, with the stream.
    pub remarks: Vec<(String, Remark)>,
}

impl Applied {
    /// Whether a stream is there and captures what it should, whatever else could not be made so.
    pub fn serves(&self, desired: &DesiredStream) -> bool {
        self.streams.get(&desired.name).is_some_and(|info| desired.is_served_by(&info.config))
    }
}

/// One thing that was done.
#[derive(Clone, Debug)]
pub struct Done {
    pub stream: String,
    pub what: String,
    /// It costs messages.
    pub costs: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {object}")]
pub struct ApplyError {
    verb: &'static str,
    /// With its kind: `stream A`, `consumer c of stream A`.
    object: String,
    pub source: ApiError,
}

impl ApplyError {
    /// Whether a server that is just starting, or a cluster that is electing, answers like that.
    pub fn is_transient(&self) -> bool {
        self.source.is_transient()
    }

    /// Whether what is there turned out to be something else than what was read before.
    fn is_race(&self) -> bool {
        [
            ApiError::STREAM_NAME_EXISTS,
            ApiError::STREAM_NOT_FOUND,
            ApiError::CONSUMER_EXISTS,
            ApiError::CONSUMER_NOT_FOUND,
        ]
        .iter()
        .any(|code| self.source.is(*code))
    }
}

impl Existing {
    /// Reads what concerns `desired`.
    pub async fn read(jetstream: &JetStream, desired: &Desired) -> Result<Self, ApiError> {
        let streams = jetstream.streams().await?;
        let with_consumers = desired.streams.iter().filter(|stream| !stream.consumers.is_empty());
        let known = with_consumers.filter(|stream| streams.known.iter().any(|info| info.name() == stream.name));
        let requests: Vec<_> = known.map(|stream| consumers_of(jetstream, &stream.name)).collect();
        let mut lists = stream::iter(requests).buffer_unordered(AT_A_TIME);
        let mut consumers = BTreeMap::new();
        while let Some((stream, list)) = lists.next().await {
            match list {
                Ok(list) => _ = consumers.insert(stream, list),
                // It went away meanwhile; the server says so when it is changed.
                Err(error) if error.is(ApiError::STREAM_NOT_FOUND) => {}
                Err(error) => return Err(error),
            }
        }
        // Of a server of our own we know what it can hold.
        let account = match desired.capacity {
            Some(_) => None,
            // Whoever may not ask hears what does not fit from the server.
            None => jetstream.account_info().await.ok().and_then(Account::of),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Self {
            streams: streams.known,
            unknown: streams.unknown,
            consumers,
            account,
            version: jetstream.server_version(),
            now: i64::try_from(now).unwrap_or(i64::MAX),
        })
    }
}

async fn consumers_of(jetstream: &JetStream, stream: &str) -> (String, Result<Consumers, ApiError>) {
    (stream.to_owned(), jetstream.consumers(stream).await)
}

/// Nobody has to hear of what is deleted.
pub fn unheard(_: String) -> BoxFuture<'static, ()> {
    Box::pin(async {})
}

/// Makes everything as desired that can be. Others may do the same at the same time: what is there is
/// read again when it turned out to be something else than was read before.
///
/// `deleting` hears of each stream before it is deleted.
pub async fn apply(
    jetstream: &JetStream,
    desired: &Desired,
    deleting: &(dyn Fn(String) -> BoxFuture<'static, ()> + Sync),
) -> Result<Applied, ApplyError> {
    let mut applied = Applied::default();
    for attempt in 1..=ATTEMPTS {
        let read = Existing::read(jetstream, desired).await;
        let existing = read.map_err(|source| ApplyError { verb: "read", object: "the streams".into(), source })?;
        let plan = plan(desired, &existing);
        let first = plan.first_stage(&existing);
        applied.streams.extend(existing.streams.into_iter().map(|info| (info.name().to_owned(), info)));
        let done_before = applied.done.len();
        applied.failed = carry_out(jetstream, first.as_ref().unwrap_or(&plan), &mut applied, deleting).await;
        applied.remarks = remarks(&plan);
        applied.some_do_not_answer = plan.streams.iter().any(|plan| plan.action == Action::Unknown);
        let more = first.is_some() && applied.done.len() > done_before;
        if attempt == ATTEMPTS || !(more || applied.failed.iter().any(ApplyError::is_race)) {
            break;
        }
    }
    Ok(applied)
}

fn remarks(plan: &Plan) -> Vec<(String, Remark)> {
    let of = |stream: &StreamPlan| {
        let name = stream.name.clone();
        stream.remarks().into_iter().map(move |remark| (name.clone(), remark)).collect::<Vec<_>>()
    };
    plan.streams.iter().flat_map(of).collect()
}

/// Does what the plan says, in waves: what waits for others comes after them.
async fn carry_out(
    jetstream: &JetStream,
    plan: &Plan,
    applied: &mut Applied,
    deleting: &(dyn Fn(String) -> BoxFuture<'static, ()> + Sync),
) -> Vec<ApplyError> {
    let mut failed = vec![];
    for wave in waves(&plan.streams) {
        for plan in wave.iter().filter(|plan| matches!(plan.action, Action::Prune { .. })) {
            deleting(plan.name.clone()).await;
        }
        let work: Vec<_> = wave.into_iter().map(|plan| carry_out_one(jetstream, plan)).collect();
        let mut results = stream::iter(work).buffer_unordered(AT_A_TIME);
        while let Some(result) = results.next().await {
            for done in &result.done {
                log_done(done);
            }
            applied.streams.extend(result.info.map(|info| (info.name().to_owned(), info)));
            applied.done.extend(result.done);
            failed.extend(result.failed);
        }
    }
    failed
}

/// Plans with something to do, in an order that respects what they wait for; those that wait for each
/// other come last.
pub(super) fn waves(plans: &[StreamPlan]) -> Vec<Vec<&StreamPlan>> {
    let mut waiting: BTreeSet<usize> = (0..plans.len()).filter(|number| !plans[*number].is_nothing()).collect();
    let mut waves = vec![];
    while !waiting.is_empty() {
        let held = |number: &usize| plans[*number].after.iter().any(|other| waiting.contains(other));
        let (held, ready): (BTreeSet<_>, BTreeSet<_>) = waiting.iter().copied().partition(held);
        let (held, ready) = if ready.is_empty() { (ready, held) } else { (held, ready) };
        waves.push(ready.into_iter().map(|number| &plans[number]).collect());
        waiting = held;
    }
    waves
}

/// Does what the plan of one stream says, once. What is there may have changed since it was made: the
/// server says so.
pub async fn apply_one(jetstream: &JetStream, plan: &StreamPlan) -> Result<Option<StreamInfo>, ApplyError> {
    let mut outcome = carry_out_one(jetstream, plan).await;
    outcome.done.iter().for_each(log_done);
    match outcome.failed.is_empty() {
        true => Ok(outcome.info),
        false => Err(outcome.failed.swap_remove(0)),
    }
}

#[derive(Default)]
struct Outcome {
    info: Option<StreamInfo>,
    done: Vec<Done>,
    failed: Vec<ApplyError>,
}

impl Outcome {
    fn done(&mut self, stream: &str, what: String, changes: &[Change]) {
        let costs = changes.iter().any(|change| change.effect.is_some());
        self.done.push(Done { stream: stream.to_owned(), what, costs });
    }

    fn failed(&mut self, verb: &'static str, object: String, source: ApiError) {
        self.failed.push(ApplyError { verb, object, source });
    }
}

async fn carry_out_one(jetstream: &JetStream, plan: &StreamPlan) -> Outcome {
    let name = &plan.name;
    let mut outcome = Outcome::default();
    let mut consumers_are_next = true;
    let object = || format!("stream {name}");
    match &plan.action {
        Action::Create(config) => match traced("create", name, None, jetstream.create_stream(name, config)).await {
            Ok(info) => {
                outcome.info = Some(info);
                outcome.done(name, "created".into(), &[]);
            }
            Err(error) => outcome.failed("create", object(), error),
        },
        Action::Update { config, changes } => {
            let update = || traced("update", name, None, jetstream.update_stream(name, config));
            let mut updated = update().await;
            let violated = updated.as_ref().is_err_and(|error| error.is(ApiError::CONSUMERS_VIOLATE_LIMITS));
            if violated && !plan.consumers.is_empty() {
                // Limits that are narrowed are for the consumers to keep first.
                carry_out_consumers(jetstream, plan, &mut outcome).await;
                consumers_are_next = false;
                updated = update().await;
            }
            match updated {
                Ok(info) => {
                    outcome.info = Some(info);
                    outcome.done(name, format!("changed, {}", listed(changes)), changes);
                }
                // What is there goes on as it is; whether that is enough is for the caller to say.
                Err(error) => outcome.failed("update", format!("{} ({})", object(), listed(changes)), error),
            }
        }
        Action::Prune { messages } => match traced("delete", name, None, jetstream.delete_stream(name)).await {
            Ok(()) => {
                let what = format!("deleted with its {messages} messages: it is not declared any more");
                outcome.done.push(Done { stream: name.clone(), what, costs: *messages > 0 });
            }
            Err(error) => outcome.failed("delete", object(), error),
        },
        Action::Nothing | Action::Blocked | Action::Unknown => {}
    }
    if consumers_are_next && outcome.failed.is_empty() {
        carry_out_consumers(jetstream, plan, &mut outcome).await;
    }
    outcome
}

async fn carry_out_consumers(jetstream: &JetStream, plan: &StreamPlan, outcome: &mut Outcome) {
    for consumer in &plan.consumers {
        carry_out_consumer(jetstream, &plan.name, consumer, outcome).await;
    }
}

async fn carry_out_consumer(jetstream: &JetStream, stream: &str, plan: &ConsumerPlan, outcome: &mut Outcome) {
    let (name, object) = (&plan.name, || format!("consumer {} of stream {stream}", plan.name));
    let put =
        |action, config, put| traced(action, stream, Some(name), jetstream.put_consumer(stream, name, config, put));
    match &plan.action {
        ConsumerAction::Create(config) => match put("create", config, Put::New).await {
            Ok(()) => outcome.done(stream, format!("consumer {} created", plan.name), &[]),
            Err(error) => outcome.failed("create", object(), error),
        },
        ConsumerAction::Update { config, changes } => match put("update", config, Put::Change).await {
            Ok(()) => outcome.done(stream, format!("consumer {} changed, {}", plan.name, listed(changes)), changes),
            Err(error) => outcome.failed("update", format!("{} ({})", object(), listed(changes)), error),
        },
        ConsumerAction::Nothing | ConsumerAction::Blocked => {}
    }
}

fn listed(changes: &[Change]) -> String {
    changes.iter().map(Change::to_string).collect::<Vec<_>>().join(", ")
}

fn log_done(Done { stream, what, costs }: &Done) {
    match costs {
        true => tracing::warn!(stream, "stream {stream} {what}"),
        false => tracing::info!(stream, "stream {stream} {what}"),
    }
}
