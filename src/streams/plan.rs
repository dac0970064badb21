//! Desired and existing → what to do. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value, json};

use super::effect::{Circumstances, effect, grouped};
use super::overlaps::{Claim, Overlaps};
use super::spec::{Desired, DesiredConsumer, DesiredStream, MANAGED_BY, Origin, Wanted, is_marked, mark};
use crate::domain::{ServerVersion, Subject};
use crate::nats::{Consumers, StreamInfo, StreamState};
use crate::settings::declared::options::{Changes, Omitted, readable};
use crate::settings::declared::{filters_of, subjects_of};
use crate::settings::variables::{JETSTREAM_MAX_CONSUMERS, JETSTREAM_MAX_STREAMS};

/// What a server has.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    pub streams: Vec<StreamInfo>,
    /// Streams that exist and whose configuration is not known just now.
    pub unknown: Vec<String>,
    /// Of the streams for which consumers are desired.
    pub consumers: BTreeMap<String, Consumers>,
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
    pub by: Origin,
    /// What the change does to messages, when it does something.
    pub effect: Option<String>,
}

/// Something that cannot be as desired.
#[derive(Clone, Debug, PartialEq)]
pub enum Conflict {
    /// The server does not change that field while the object exists.
    Fixed { field: &'static str, now: Value, wanted: Value, by: Origin },
    /// The server is older than the option.
    TooOld { field: &'static str, since: ServerVersion, version: ServerVersion, by: Origin },
    /// Another stream has such a subject.
    Overlap { subject: String, other: String, other_subject: String, by: Origin },
    /// The stream itself has a subject that cannot stand beside it.
    Inside { subject: String, other: String, by: Origin },
    /// Streams take subjects from each other in a circle.
    Circle { other: String },
    /// There are as many streams, or consumers, as there may be.
    TooMany { what: &'static str, most: u64, variable: &'static str },
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

    /// Leaves the subjects as they are, and does the rest where that can be done without them.
    fn hold_subjects_back(&mut self, subjects: &[Subject]) {
        self.action = match std::mem::replace(&mut self.action, Action::Blocked) {
            Action::Update { mut config, mut changes } => {
                changes.retain(|change| change.field != "subjects");
                config.insert("subjects".into(), subjects.iter().map(Subject::as_str).collect());
                if changes.is_empty() { Action::Nothing } else { Action::Update { config, changes } }
            }
            _ => Action::Blocked,
        };
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

    /// Changes that are wanted, and consumers that are missing, in sentences.
    pub fn pending(&self) -> (Vec<String>, Vec<String>) {
        let wanted = |change: &Change| format!("{change} is wanted");
        let (mut changes, mut missing) = (vec![], vec![]);
        if let Action::Update { changes: of_stream, .. } = &self.action {
            changes.extend(of_stream.iter().map(wanted));
        }
        for consumer in &self.consumers {
            match &consumer.action {
                ConsumerAction::Create(_) => missing.push(format!("consumer {} does not exist", consumer.name)),
                ConsumerAction::Update { changes: of_consumer, .. } => {
                    let named = |change: &Change| format!("consumer {}: {}", consumer.name, wanted(change));
                    changes.extend(of_consumer.iter().map(named));
                }
                ConsumerAction::Nothing | ConsumerAction::Blocked => {}
            }
        }
        (changes, missing)
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

    fn find_blind_filters(&mut self, desired: &DesiredConsumer, subjects: &[Subject]) {
        let filters = desired.fields.iter().find(|wanted| wanted.field.name == "filter_subjects");
        let filters = filters.map(|wanted| filters_of(&wanted.value)).unwrap_or_default();
        let blind = |filter: &Subject| !subjects.iter().any(|subject| subject.overlaps(filter));
        self.blind_filters = filters.into_iter().filter(blind).map(|filter| filter.to_string()).collect();
    }
}

impl Change {
    /// For a change that was left out.
    pub fn why_kept(&self) -> String {
        let (field, effect) = (self.field, self.effect.as_deref().unwrap_or_default());
        match &self.by {
            Origin::DefaultOf(variable) => format!(
                "{field} stays {}: the default {} {effect}; set {variable} if that is wanted",
                readable(field, &self.now),
                readable(field, &self.wanted)
            ),
            _ => {
                let now = readable(field, &self.now);
                format!("{field} stays {now}: to leave it out {effect}; write {field} down if that is wanted")
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → {}", self.field, readable(self.field, &self.now), readable(self.field, &self.wanted))?;
        match &self.effect {
            Some(effect) => write!(f, " ({effect})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::DefaultOf(name) => write!(f, "the default of {name}"),
            Self::Line(line) => f.write_str(line),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed { field, now, wanted, by } => write!(
                f,
                "{field} is {} and cannot become {} ({by}) while it exists: keep it and change {by} to what it is, or \
                 back it up, recreate and restore it",
                readable(field, now),
                readable(field, wanted)
            ),
            Self::TooOld { field, since, version, by } => write!(
                f,
                "{field} ({by}) needs nats-server {}.{} and this one is {}.{}: upgrade it, or leave {field} out",
                since.0, since.1, version.0, version.1
            ),
            Self::Overlap { subject, other, other_subject, by } => write!(
                f,
                "{subject} ({by}) belongs to stream {other} already, which captures {other_subject}: take it out of one \
                 of them"
            ),
            Self::Inside { subject, other, by } => write!(
                f,
                "{subject} ({by}) overlaps {other}, which the stream captures, too, and neither holds the other: take \
                 one of them out, or set strict_subjects",
            ),
            Self::Circle { other } => write!(
                f,
                "it takes subjects from stream {other} while that one waits for it: change them in two steps, first \
                 taking subjects out"
            ),
            Self::TooMany { what, most, variable } => {
                write!(f, "{variable} allows {most} {what}, and there are as many already: raise it, or delete some")
            }
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { consumer: None, conflict } => write!(f, "conflict: {conflict}"),
            Self::Conflict { consumer: Some(name), conflict } => write!(f, "conflict: consumer {name}: {conflict}"),
            Self::Kept(change) => f.write_str(&change.why_kept()),
            Self::Blind { consumer, filter } => {
                write!(f, "consumer {consumer}: no message of the stream can match {filter}")
            }
            Self::Unknown => {
                f.write_str("it does not answer: the node that holds it may be away, or its cluster has no leader")
            }
        }
    }
}

/// What has to be done so that a server becomes as desired.
pub fn plan(desired: &Desired, existing: &Existing) -> Plan {
    let by_name: BTreeMap<&str, &StreamInfo> = existing.streams.iter().map(|info| (info.name(), info)).collect();
    let mut streams: Vec<StreamPlan> = Vec::with_capacity(desired.streams.len());
    for stream in &desired.streams {
        let plan = match by_name.get(stream.name.as_str()) {
            None if existing.unknown.contains(&stream.name) => StreamPlan::to_do(&stream.name, Action::Unknown),
            info => plan_stream(stream, info.copied(), existing),
        };
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
    limit(&mut streams, desired, existing);
    settle_subjects(&mut streams, desired, &by_name, &extra);
    Plan { streams, extra: extra.iter().map(|info| info.name().to_owned()).collect() }
}

fn plan_stream(desired: &DesiredStream, existing: Option<&StreamInfo>, all: &Existing) -> StreamPlan {
    let mut plan = StreamPlan::to_do(&desired.name, Action::Nothing);
    let none = Consumers::default();
    let consumers = all.consumers.get(&desired.name).unwrap_or(&none);
    plan.consumers = desired.consumers.iter().map(|consumer| plan_consumer(consumer, consumers, all.version)).collect();
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
        differences(&desired.fields, &mut config, (&existing.state, all.now), all.version);
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
        mark(&mut config);
        plan.action = Action::Update { config, changes };
    }
    plan
}

fn plan_consumer(desired: &DesiredConsumer, existing: &Consumers, version: ServerVersion) -> ConsumerPlan {
    if existing.unknown.contains(&desired.name) {
        return ConsumerPlan::to_do(desired, ConsumerAction::Nothing, vec![]);
    }
    let Some(existing) = existing.known.iter().find(|info| info.name == desired.name) else {
        let conflicts = too_old(&desired.fields, version);
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
        differences(&desired.fields, &mut config, (&StreamState::default(), 0), version);
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

struct Differences {
    changes: Vec<Change>,
    conflicts: Vec<Conflict>,
    kept: Vec<Change>,
}

/// What of the fields is not as wanted; what can be changed is changed in `config`.
fn differences(
    fields: &[Wanted],
    config: &mut Map<String, Value>,
    (state, at): (&StreamState, i64),
    version: ServerVersion,
) -> Differences {
    let mut differences = Differences { changes: vec![], conflicts: vec![], kept: vec![] };
    for Wanted { field, value, by } in fields {
        let now = config.get(field.name).cloned().unwrap_or_default();
        let (is, should) = (field.canonical(&now), field.canonical(&with_mark_of(field.name, &now, value)));
        let omitted = !by.is_declared() && value.is_null();
        if is == should || field.changes == Changes::AtCreation || (omitted && field.omitted == Omitted::Stays) {
            continue;
        }
        let by = by.clone();
        if version < field.since && !should.is_null() {
            differences.conflicts.push(Conflict::TooOld { field: field.name, since: field.since, version, by });
            continue;
        }
        if !field.can_change(&is, &should, version) {
            // What nobody asks for stays as somebody else wants it.
            if !matches!(by, Origin::Nobody) {
                let (now, wanted) = (field.shown(&is), field.shown(&should));
                differences.conflicts.push(Conflict::Fixed { field: field.name, now, wanted, by });
            }
            continue;
        }
        let circumstances = Circumstances { state, now: at, config, wanted: fields };
        let effect = effect(field.name, &is, &should, &circumstances);
        let change = Change { field: field.name, now: field.shown(&is), wanted: field.shown(&should), by, effect };
        // Nothing we do deletes a message except what an operator declared.
        if change.effect.is_some() && !change.by.is_declared() {
            differences.kept.push(change);
            continue;
        }
        differences.changes.push(change);
        match with_mark_of(field.name, &now, value) {
            Value::Null => _ = config.remove(field.name),
            value => _ = config.insert(field.name.into(), value),
        }
    }
    differences
}

/// Labels keep our mark and those of the server.
fn with_mark_of(field: &str, now: &Value, wanted: &Value) -> Value {
    if field != "metadata" || wanted.is_null() {
        return wanted.clone();
    }
    let mut labels = wanted.as_object().cloned().unwrap_or_default();
    for (name, value) in now.as_object().into_iter().flatten() {
        if name == MANAGED_BY.0 || name.starts_with("_nats.") {
            labels.insert(name.clone(), value.clone());
        }
    }
    labels.into()
}

fn too_old(fields: &[Wanted], version: ServerVersion) -> Vec<Conflict> {
    let conflict = |wanted: &Wanted| {
        let Wanted { field, value, by } = wanted;
        (version < field.since && !field.canonical(value).is_null()).then(|| Conflict::TooOld {
            field: field.name,
            since: field.since,
            version,
            by: by.clone(),
        })
    };
    fields.iter().filter_map(conflict).collect()
}

/// `config` is what the stream will have but for its subjects.
fn subjects_change(
    desired: &DesiredStream,
    existing: &StreamInfo,
    config: &Map<String, Value>,
) -> Result<Option<Change>, Box<Conflict>> {
    let now = subjects_of(&existing.config);
    let wanted = wanted_subjects(desired, &now);
    let same = |a: &[Subject], b: &[Subject]| a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>();
    let text = |subjects: &[Subject]| subjects.iter().map(Subject::as_str).collect::<Value>();
    let by = desired.subjects_by.clone();
    let has = |field: &str| config.get(field).is_some_and(|value| !value.is_null());
    if has("mirror") && !wanted.is_empty() {
        // The servers that can make a stream of it do so by the field itself.
        let (now, wanted) = (config.get("mirror").cloned().unwrap_or_default(), Value::Null);
        return Err(Box::new(Conflict::Fixed { field: "mirror", now, wanted, by }));
    }
    // Without subjects nor a stream to take messages from a server would make up a subject.
    let captures_nothing = wanted.is_empty() && !has("mirror") && !has("sources");
    if same(&now, &wanted) || captures_nothing {
        return Ok(None);
    }
    if let Some(conflict) = overlap_inside(&desired.subjects, &wanted, &by) {
        return Err(Box::new(conflict));
    }
    let removed: Vec<_> =
        now.iter().filter(|subject| !wanted.iter().any(|other| other.covers(subject))).map(Subject::as_str).collect();
    let messages = grouped(existing.state.messages);
    let effect =
        (!removed.is_empty()).then(|| format!("stops capturing {}; its {messages} messages stay", removed.join(", ")));
    Ok(Some(Change { field: "subjects", now: text(&now), wanted: text(&wanted), by, effect }))
}

/// A desired subject that cannot stand beside another one of the same stream.
fn overlap_inside(desired: &[Subject], all: &[Subject], by: &Origin) -> Option<Conflict> {
    desired.iter().find_map(|subject| {
        let other = all.iter().find(|other| *other != subject && other.overlaps(subject))?;
        Some(Conflict::Inside { subject: subject.to_string(), other: other.to_string(), by: by.clone() })
    })
}

/// The subjects that the stream should have in the end, what others added included.
fn wanted_subjects(desired: &DesiredStream, now: &[Subject]) -> Vec<Subject> {
    if desired.strict_subjects {
        return desired.subjects.clone();
    }
    let mut subjects = now.to_vec();
    subjects.retain(|subject| {
        let retired = desired.retired_subjects.contains(subject);
        // A stream's subjects must not overlap: a narrower one gives way.
        let covered = desired.subjects.iter().any(|filter| filter != subject && filter.covers(subject));
        !retired && !covered
    });
    for subject in &desired.subjects {
        if !subjects.iter().any(|captured| captured.covers(subject)) {
            subjects.push(subject.clone());
        }
    }
    subjects
}

/// Holds creations back that would exceed the number of streams or of consumers.
fn limit(streams: &mut [StreamPlan], desired: &Desired, existing: &Existing) {
    if let Some(most) = desired.max_streams {
        let mut room = most.saturating_sub((existing.streams.len() + existing.unknown.len()) as u64);
        for plan in streams.iter_mut().filter(|plan| matches!(plan.action, Action::Create(_))) {
            if room == 0 {
                let variable = JETSTREAM_MAX_STREAMS.name;
                plan.conflicts.push(Conflict::TooMany { what: "streams", most, variable });
                plan.action = Action::Blocked;
                plan.block_consumers();
            }
            room = room.saturating_sub(1);
        }
    }
    if let Some(most) = desired.max_consumers {
        let mut room = most.saturating_sub(existing.streams.iter().map(|info| info.state.consumer_count).sum());
        for consumer in streams.iter_mut().flat_map(|plan| &mut plan.consumers) {
            if !matches!(consumer.action, ConsumerAction::Create(_)) {
                continue;
            }
            if room == 0 {
                let variable = JETSTREAM_MAX_CONSUMERS.name;
                consumer.conflicts.push(Conflict::TooMany { what: "consumers", most, variable });
                consumer.action = ConsumerAction::Blocked;
            }
            room = room.saturating_sub(1);
        }
    }
}

/// Finds subjects that two streams would have, and puts those that take a subject after those that
/// give it up.
fn settle_subjects(
    streams: &mut [StreamPlan],
    desired: &Desired,
    by_name: &BTreeMap<&str, &StreamInfo>,
    extra: &[&StreamInfo],
) {
    let before: Vec<Vec<Subject>> = streams
        .iter()
        .map(|plan| by_name.get(plan.name.as_str()).map(|info| subjects_of(&info.config)).unwrap_or_default())
        .collect();
    // What is held back keeps its subjects, which others may have counted on.
    loop {
        let afterwards = subjects_afterwards(streams, &before);
        if hold_overlaps_back(streams, desired, &before, &afterwards, extra) {
            continue;
        }
        order_takers(streams, &before, &afterwards);
        if !hold_circles_back(streams, &before) {
            break;
        }
    }
    order_after_sources(streams);
    let afterwards = subjects_afterwards(streams, &before);
    for ((plan, stream), subjects) in streams.iter_mut().zip(&desired.streams).zip(&afterwards) {
        // Where messages come from other streams, nobody knows their subjects.
        let known = !stream.fields.iter().any(|w| matches!(w.field.name, "mirror" | "sources") && !w.value.is_null());
        for (consumer, desired) in plan.consumers.iter_mut().zip(&stream.consumers).filter(|_| known) {
            consumer.find_blind_filters(desired, subjects);
        }
    }
    for plan in streams {
        plan.after.sort_unstable();
        plan.after.dedup();
    }
}

fn subjects_afterwards(streams: &[StreamPlan], before: &[Vec<Subject>]) -> Vec<Vec<Subject>> {
    let of = |(plan, before): (&StreamPlan, &Vec<Subject>)| match &plan.action {
        Action::Create(config) | Action::Update { config, .. } => subjects_of(config),
        Action::Prune { .. } | Action::Blocked => vec![],
        Action::Nothing | Action::Unknown => before.clone(),
    };
    streams.iter().zip(before).map(of).collect()
}

/// Whether a plan had to be held back because another stream has one of its subjects.
fn hold_overlaps_back(
    streams: &mut [StreamPlan],
    desired: &Desired,
    before: &[Vec<Subject>],
    afterwards: &[Vec<Subject>],
    extra: &[&StreamInfo],
) -> bool {
    let ours = streams.len();
    let names = streams.iter().map(|plan| plan.name.clone());
    let names: Vec<String> = names.chain(extra.iter().map(|info| info.name().to_owned())).collect();
    let others: Vec<Vec<Subject>> = extra.iter().map(|info| subjects_of(&info.config)).collect();
    let mut then = Overlaps::default();
    for (number, subject) in numbered(afterwards) {
        then.claim(number, subject);
    }
    for (number, subject) in numbered(&others) {
        then.claim(ours + number, subject);
    }
    let mut held = false;
    for (number, plan) in streams.iter_mut().enumerate() {
        let overlap = gained(before, afterwards, number).find_map(|subject| {
            // Of two that are new the later one gives way.
            let wins = |other: usize| {
                other != number && (other < number || other >= ours || !gains(before, afterwards, other, subject))
            };
            then.find(subject, &wins).map(|claim| (subject, claim))
        });
        let Some((subject, Claim { stream, subject: theirs })) = overlap else { continue };
        let by = desired.streams.get(number).map_or(Origin::Nobody, |stream| stream.subjects_by.clone());
        let (subject, other_subject) = (subject.to_string(), theirs.to_string());
        plan.conflicts.push(Conflict::Overlap { subject, other: names[stream].clone(), other_subject, by });
        plan.hold_subjects_back(&before[number]);
        held = true;
    }
    held
}

/// Puts those that take a subject after those that give it up.
fn order_takers(streams: &mut [StreamPlan], before: &[Vec<Subject>], afterwards: &[Vec<Subject>]) {
    let mut now = Overlaps::default();
    for (number, subject) in numbered(before) {
        now.claim(number, subject);
    }
    for (number, plan) in streams.iter_mut().enumerate() {
        plan.after.clear();
        for subject in gained(before, afterwards, number) {
            let mut given_up = BTreeSet::new();
            while let Some(claim) = now.find(subject, &|other| other != number && !given_up.contains(&other)) {
                given_up.insert(claim.stream);
            }
            plan.after.extend(given_up);
        }
    }
}

/// Whether plans had to be held back because each of them waits for another one of them.
fn hold_circles_back(streams: &mut [StreamPlan], before: &[Vec<Subject>]) -> bool {
    let mut waiting: BTreeSet<usize> = (0..streams.len()).filter(|number| !streams[*number].after.is_empty()).collect();
    loop {
        let waits = |number: &usize| streams[*number].after.iter().any(|other| waiting.contains(other));
        let left: BTreeSet<usize> = waiting.iter().copied().filter(waits).collect();
        if left.len() == waiting.len() {
            break;
        }
        waiting = left;
    }
    for number in &waiting {
        let other = streams[*number].after.iter().find(|other| waiting.contains(other)).copied().unwrap_or(*number);
        let other = streams[other].name.clone();
        streams[*number].conflicts.push(Conflict::Circle { other });
        streams[*number].hold_subjects_back(&before[*number]);
    }
    !waiting.is_empty()
}

/// Subjects that a stream gets.
fn gained<'a>(
    before: &'a [Vec<Subject>],
    afterwards: &'a [Vec<Subject>],
    stream: usize,
) -> impl Iterator<Item = &'a Subject> {
    afterwards[stream].iter().filter(move |subject| !before[stream].contains(subject))
}

/// Whether a stream gets something new there that overlaps.
fn gains(before: &[Vec<Subject>], afterwards: &[Vec<Subject>], stream: usize, subject: &Subject) -> bool {
    let kept = |other: &&Subject| before[stream].contains(other) && other.overlaps(subject);
    !afterwards[stream].iter().any(|other| kept(&other))
}

fn numbered(lists: &[Vec<Subject>]) -> impl Iterator<Item = (usize, &Subject)> {
    lists.iter().enumerate().flat_map(|(number, list)| list.iter().map(move |subject| (number, subject)))
}

/// A mirror of a stream that is created at the same time comes after it.
fn order_after_sources(streams: &mut [StreamPlan]) {
    let created: BTreeMap<String, usize> = streams
        .iter()
        .enumerate()
        .filter(|(_, plan)| matches!(plan.action, Action::Create(_)))
        .map(|(number, plan)| (plan.name.clone(), number))
        .collect();
    for (number, plan) in streams.iter_mut().enumerate() {
        let (Action::Create(config) | Action::Update { config, .. }) = &plan.action else { continue };
        let sources = config.get("sources").and_then(Value::as_array).into_iter().flatten();
        let names = sources.chain(config.get("mirror")).filter_map(|source| source.get("name")?.as_str());
        plan.after.extend(names.filter_map(|name| created.get(name)).filter(|origin| **origin != number));
    }
}

#[cfg(test)]
mod tests;
