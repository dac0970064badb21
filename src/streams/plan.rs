//! Desired and existing → what to do. Pure.

mod fields;
mod origins;
mod room;
mod stages;
mod subjects;
mod wording;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use self::fields::{Differences, Server, differences, too_old};
use self::origins::Origins;
use self::subjects::{overlap_inside, settle_subjects, subjects_change};
use super::account::Account;
use super::spec::{Desired, DesiredConsumer, DesiredStream, SpecOrigin, is_marked, mark};
use crate::domain::ServerVersion;
use crate::nats::{Consumers, StreamInfo, StreamState};
use crate::settings::declared::contradictions::{Contradiction, contradictions};

/// What a server has.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    pub streams: Vec<StreamInfo>,
    /// Streams that exist and whose configuration is not known just now.
    pub unknown: Vec<String>,
    /// Of the streams for which consumers are desired.
    pub consumers: BTreeMap<String, Consumers>,
    /// What the account may have, on a server that others run.
    pub account: Option<Account>,
    pub version: ServerVersion,
    /// Seconds since 1970, to tell the age of messages.
    pub now: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub streams: Vec<StreamPlan>,
    /// Streams that are not ours and stay.
    pub extra: Vec<String>,
}

/// What to do about one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamPlan {
    pub name: String,
    pub action: Action,
    /// What cannot be made as desired.
    pub conflicts: Vec<Conflict>,
    /// What is left as it is, because only a default asks for a change that would cost messages.
    pub kept: Vec<Change>,
    pub consumers: Vec<ConsumerPlan>,
    /// Numbers of the plans that have to be done before, because they give up what this one takes.
    pub after: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(Map<String, Value>),
    Update {
        config: Map<String, Value>,
        changes: Vec<Change>,
    },
    Nothing,
    /// Delete it with its messages.
    Prune {
        messages: u64,
    },
    /// It cannot be created; the conflicts say why.
    Blocked,
    /// The server cannot say what it is like just now.
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerPlan {
    pub name: String,
    pub action: ConsumerAction,
    pub conflicts: Vec<Conflict>,
    /// Declared filters that share nothing with the subjects of the stream.
    pub blind_filters: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ConsumerAction {
    Create(Map<String, Value>),
    Update { config: Map<String, Value>, changes: Vec<Change> },
    Nothing,
    Blocked,
}

/// One field that gets another value.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub field: &'static str,
    pub now: Value,
    pub wanted: Value,
    pub by: SpecOrigin,
    /// What the change does to messages, when it does something.
    pub effect: Option<String>,
}

/// Something that cannot be as desired.
#[derive(Clone, Debug, PartialEq)]
pub enum Conflict {
    /// The server does not change that field while the object exists.
    Fixed { field: &'static str, now: Value, wanted: Value, by: SpecOrigin },
    /// The server is older than the option.
    TooOld { field: &'static str, since: ServerVersion, version: ServerVersion, by: SpecOrigin },
    /// Another stream has such a subject.
    Overlap { subject: String, other: String, other_subject: String, by: SpecOrigin },
    /// The stream itself has a subject that cannot stand beside it.
    Inside { subject: String, other: String, by: SpecOrigin },
    /// The stream would give a subject up for another one that cannot take it.
    Untaken { subject: String, other: String, by: SpecOrigin },
    /// Streams take subjects from each other in a circle.
    Circle { other: String },
    /// There are as many streams, or consumers, as there may be.
    TooMany { what: &'static str, most: u64, variable: &'static str },
    /// Streams reserve more than there is.
    NoRoom { bytes: i64, used: i64, most: i64, of: &'static str, by: SpecOrigin },
    /// The account allows less to one stream, or one consumer.
    AboveAccount { field: &'static str, value: i64, most: i64, by: SpecOrigin },
    /// The account asks for it.
    Required { field: &'static str, by: SpecOrigin },
    /// The server refuses fields beside each other, or would switch one of them to something else.
    Contradiction { field: &'static str, found: String, rule: String, remedy: String, by: SpecOrigin },
}

/// Something that will not be as desired; it displays as a sentence for the operator.
#[derive(Clone, Debug, PartialEq)]
pub enum Remark {
    /// Of a consumer, where one is named, or else of the stream itself.
    Conflict { consumer: Option<String>, conflict: Conflict },
    /// A change that only a default asks for and that would cost messages.
    Kept(Change),
    /// A filter that no message of the stream can match.
    Blind { consumer: String, filter: String },
    /// The server cannot say what the stream is like just now.
    Unknown,
}

impl Remark {
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

impl Plan {
    pub fn is_nothing(&self) -> bool {
        self.streams.iter().all(StreamPlan::is_nothing)
    }

    pub fn has_conflicts(&self) -> bool {
        self.streams.iter().any(|plan| plan.conflicts().next().is_some())
    }
}

impl StreamPlan {
    fn to_do(name: &str, action: Action) -> Self {
        Self { name: name.to_owned(), action, conflicts: vec![], kept: vec![], consumers: vec![], after: vec![] }
    }

    /// A stream that is not there has none.
    fn block_consumers(&mut self) {
        if self.action == Action::Blocked {
            self.consumers.iter_mut().for_each(|consumer| consumer.action = ConsumerAction::Blocked);
        }
    }

    /// Sends nothing that this server would refuse, whatever it holds.
    fn hold_contradictions_back(&mut self, desired: &DesiredStream, version: ServerVersion) {
        let of_consumers: Vec<_> =
            desired.consumers.iter().map(|consumer| (consumer.name.as_str(), consumer.creation())).collect();
        let of_consumers: Vec<_> = of_consumers.iter().map(|(name, config)| (*name, config)).collect();
        let found = contradictions(&desired.name, &desired.creation(), &of_consumers);
        for Contradiction { consumer, field, found, rule, remedy, .. } in
            found.into_iter().filter(|contradiction| contradiction.servers.hold(version))
        {
            let fields = match &consumer {
                None => &desired.fields,
                Some(name) => match desired.consumers.iter().find(|consumer| consumer.name == *name) {
                    Some(consumer) => &consumer.fields,
                    None => continue,
                },
            };
            let by = fields.iter().find(|wanted| wanted.field.name == field).map(|wanted| wanted.by.clone());
            let by = by.unwrap_or_else(|| desired.subjects_by.clone());
            let conflict = Conflict::Contradiction { field, found, rule, remedy, by };
            match self.consumers.iter_mut().find(|plan| Some(&plan.name) == consumer.as_ref()) {
                Some(plan) => {
                    plan.conflicts.push(conflict);
                    plan.action = ConsumerAction::Blocked;
                }
                None => self.hold(conflict),
            }
        }
    }

    /// Sends nothing, and says why.
    fn hold(&mut self, conflict: Conflict) {
        self.conflicts.push(conflict);
        let created = matches!(self.action, Action::Create(_) | Action::Blocked);
        self.action = if created { Action::Blocked } else { Action::Nothing };
        self.block_consumers();
    }

    /// Whether there is nothing to do that can be done.
    pub fn is_nothing(&self) -> bool {
        let idle =
            |consumer: &ConsumerPlan| matches!(consumer.action, ConsumerAction::Nothing | ConsumerAction::Blocked);
        matches!(self.action, Action::Nothing | Action::Blocked | Action::Unknown) && self.consumers.iter().all(idle)
    }

    /// Of the stream and its consumers.
    pub fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.conflicts.iter().chain(self.consumers.iter().flat_map(|consumer| &consumer.conflicts))
    }

    /// What will not be as desired.
    pub fn remarks(&self) -> Vec<Remark> {
        let own = self.conflicts.iter().map(|conflict| Remark::Conflict { consumer: None, conflict: conflict.clone() });
        let of_consumers = self.consumers.iter().flat_map(|consumer| {
            let name = &consumer.name;
            let remark =
                |conflict: &Conflict| Remark::Conflict { consumer: Some(name.clone()), conflict: conflict.clone() };
            consumer.conflicts.iter().map(remark)
        });
        let kept = self.kept.iter().cloned().map(Remark::Kept);
        let blind = self.consumers.iter().flat_map(|consumer| {
            let remark = |filter: &String| Remark::Blind { consumer: consumer.name.clone(), filter: filter.clone() };
            consumer.blind_filters.iter().map(remark)
        });
        let unknown = (self.action == Action::Unknown).then_some(Remark::Unknown);
        own.chain(of_consumers).chain(kept).chain(blind).chain(unknown).collect()
    }
}

impl ConsumerPlan {
    fn to_do(desired: &DesiredConsumer, action: ConsumerAction, conflicts: Vec<Conflict>) -> Self {
        Self { name: desired.name.clone(), action, conflicts, blind_filters: vec![] }
    }
}

/// What has to be done so that a server becomes as desired.
pub fn plan(desired: &Desired, existing: &Existing) -> Plan {
    let by_name: BTreeMap<&str, &StreamInfo> = existing.streams.iter().map(|info| (info.name(), info)).collect();
    let origins = Origins { desired, existing: &by_name };
    let mut streams: Vec<StreamPlan> = Vec::with_capacity(desired.streams.len());
    for stream in &desired.streams {
        let mut plan = match by_name.get(stream.name.as_str()) {
            None if existing.unknown.contains(&stream.name) => StreamPlan::to_do(&stream.name, Action::Unknown),
            info => {
                let server = Server {
                    version: existing.version,
                    limited: desired.capacity.is_none(),
                    origin_direct: origins.allows_direct(stream),
                };
                plan_stream(stream, info.copied(), existing, server)
            }
        };
        plan.hold_contradictions_back(stream, existing.version);
        plan.conflicts.extend(origins.overruled(stream));
        if let Some(conflict) = origins.too_small(stream) {
            plan.hold(conflict);
        }
        streams.push(plan);
    }
    let names: BTreeSet<&str> = desired.streams.iter().map(|stream| stream.name.as_str()).collect();
    let (to_prune, extra): (Vec<_>, Vec<_>) = existing
        .streams
        .iter()
        .filter(|info| !names.contains(info.name()))
        .partition(|info| desired.prune && is_marked(&info.config));
    streams.extend(
        to_prune.iter().map(|info| StreamPlan::to_do(info.name(), Action::Prune { messages: info.state.messages })),
    );
    room::hold_back(&mut streams, desired, existing);
    settle_subjects(&mut streams, desired, &by_name, &extra);
    Plan { streams, extra: extra.iter().map(|info| info.name().to_owned()).collect() }
}

fn plan_stream(desired: &DesiredStream, existing: Option<&StreamInfo>, all: &Existing, server: Server) -> StreamPlan {
    let mut plan = StreamPlan::to_do(&desired.name, Action::Nothing);
    let none = Consumers::default();
    let consumers = all.consumers.get(&desired.name).unwrap_or(&none);
    plan.consumers = desired.consumers.iter().map(|consumer| plan_consumer(consumer, consumers, server)).collect();
    let Some(existing) = existing else {
        plan.conflicts = too_old(&desired.fields, all.version);
        plan.conflicts.extend(overlap_inside(&desired.subjects, &desired.subjects, &desired.subjects_by));
        plan.action = if plan.conflicts.is_empty() { Action::Create(desired.creation()) } else { Action::Blocked };
        plan.block_consumers();
        return plan;
    };
    // Update replaces the whole configuration, so it starts from what is there: fields that we do
    // not know stay as they are.
    let mut config = existing.config.clone();
    let Differences { mut changes, conflicts, kept } =
        differences(&desired.fields, &mut config, (&existing.state, all.now), server);
    (plan.conflicts, plan.kept) = (conflicts, kept);
    match subjects_change(desired, existing, &config) {
        Ok(None) => {}
        // Nothing we do deletes a message except what an operator declared.
        Ok(Some(change)) if change.effect.is_some() && !desired.subjects_by.is_declared() => plan.kept.push(change),
        Ok(Some(change)) => {
            config.insert("subjects".into(), change.wanted.clone());
            changes.push(change);
        }
        Err(conflict) => plan.conflicts.push(*conflict),
    }
    if !changes.is_empty() {
        if desired.is_ours {
            mark(&mut config);
        }
        plan.action = Action::Update { config, changes };
    }
    plan
}

fn plan_consumer(desired: &DesiredConsumer, existing: &Consumers, server: Server) -> ConsumerPlan {
    if existing.unknown.contains(&desired.name) {
        return ConsumerPlan::to_do(desired, ConsumerAction::Nothing, vec![]);
    }
    let Some(existing) = existing.known.iter().find(|info| info.name == desired.name) else {
        let conflicts = too_old(&desired.fields, server.version);
        let creation = || ConsumerAction::Create(with_one_filter(desired.creation()));
        let action = if conflicts.is_empty() { creation() } else { ConsumerAction::Blocked };
        return ConsumerPlan::to_do(desired, action, conflicts);
    };
    let mut config = existing.config.clone();
    // One filter and a list of one are the same.
    if let Some(filter) = config.remove("filter_subject").filter(|filter| filter != "") {
        config.insert("filter_subjects".into(), json!([filter]));
    }
    let Differences { changes, conflicts, .. } =
        differences(&desired.fields, &mut config, (&StreamState::default(), 0), server);
    let action = match changes.is_empty() {
        true => ConsumerAction::Nothing,
        false => ConsumerAction::Update { config: with_one_filter(config), changes },
    };
    ConsumerPlan::to_do(desired, action, conflicts)
}

/// A single filter in the form that clients of every age compare with what they ask for.
fn with_one_filter(mut config: Map<String, Value>) -> Map<String, Value> {
    let filters = config.get("filter_subjects").and_then(Value::as_array);
    if let Some([filter]) = filters.map(Vec::as_slice) {
        let filter = filter.clone();
        config.remove("filter_subjects");
        config.insert("filter_subject".into(), filter);
    }
    config
}

#[cfg(test)]
mod tests;
