//! Whose subjects are whose: those of one stream, and those that move between streams.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::stages::is_nothing_yet;
use super::{Action, Change, Conflict, ConsumerPlan, StreamPlan};
use crate::domain::{Claim, Overlaps, Subject};
use crate::nats::StreamInfo;
use crate::settings::declared::{filters_of, subjects_of};
use crate::streams::effect::grouped;
use crate::streams::spec::{Desired, DesiredConsumer, DesiredStream, SpecOrigin};

impl StreamPlan {
    /// Leaves the subjects as they are, and does the rest where that can be done without them.
    pub(super) fn hold_subjects_back(&mut self, subjects: &[Subject]) {
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
}

impl ConsumerPlan {
    fn find_blind_filters(&mut self, desired: &DesiredConsumer, subjects: &[Subject]) {
        let filters = desired.fields.iter().find(|wanted| wanted.field.name == "filter_subjects");
        let filters = filters.map(|wanted| filters_of(&wanted.value)).unwrap_or_default();
        let blind = |filter: &Subject| !subjects.iter().any(|subject| subject.overlaps(filter));
        self.blind_filters = filters.into_iter().filter(blind).map(|filter| filter.to_string()).collect();
    }
}

/// `config` is what the stream will have but for its subjects.
pub(super) fn subjects_change(
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
    let lost = |subject: &&Subject| !is_nothing_yet(subject) && !wanted.iter().any(|other| other.covers(subject));
    let removed: Vec<_> = now.iter().filter(lost).map(Subject::as_str).collect();
    let messages = grouped(existing.state.messages);
    let effect =
        (!removed.is_empty()).then(|| format!("stops capturing {}; its {messages} messages stay", removed.join(", ")));
    Ok(Some(Change { field: "subjects", now: text(&now), wanted: text(&wanted), by, effect }))
}

/// A desired subject that cannot stand beside another one of the same stream.
pub(super) fn overlap_inside(desired: &[Subject], all: &[Subject], by: &SpecOrigin) -> Option<Conflict> {
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
        !retired && !covered && !is_nothing_yet(subject)
    });
    for subject in &desired.subjects {
        if !subjects.iter().any(|captured| captured.covers(subject)) {
            subjects.push(subject.clone());
        }
    }
    subjects
}

/// Finds subjects that two streams would have, and puts those that take a subject after those that
/// give it up.
pub(super) fn settle_subjects(
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
        if hold_givers_back(streams, desired, &before, &afterwards) {
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
        let by = desired.streams.get(number).map_or(SpecOrigin::Nobody, |stream| stream.subjects_by.clone());
        let (subject, other_subject) = (subject.to_string(), theirs.to_string());
        plan.conflicts.push(Conflict::Overlap { subject, other: names[stream].clone(), other_subject, by });
        plan.hold_subjects_back(&before[number]);
        held = true;
    }
    held
}

/// Whether a plan had to be held back because it gives up what another stream is declared to capture and
/// cannot take: nobody would have it.
fn hold_givers_back(
    streams: &mut [StreamPlan],
    desired: &Desired,
    before: &[Vec<Subject>],
    afterwards: &[Vec<Subject>],
) -> bool {
    let captures = |subjects: &[Subject], wanted: &Subject| subjects.iter().any(|subject| subject.covers(wanted));
    let lacking = desired.streams.iter().enumerate().flat_map(|(taker, stream)| {
        let lacking = stream.subjects.iter().filter(move |subject| !captures(&afterwards[taker], subject));
        lacking.map(move |subject| (taker, subject))
    });
    let lacking: Vec<_> = lacking.collect();
    if lacking.is_empty() {
        return false;
    }
    let mut given_up = Overlaps::default();
    for (number, subjects) in before.iter().enumerate() {
        if !matches!(streams[number].action, Action::Update { .. }) {
            continue;
        }
        for subject in subjects.iter().filter(|subject| !captures(&afterwards[number], subject)) {
            if !afterwards.iter().any(|subjects| captures(subjects, subject)) {
                given_up.claim(number, subject);
            }
        }
    }
    let mut held = BTreeSet::new();
    for (taker, wanted) in lacking {
        while let Some(claim) = given_up.find(wanted, &|other| other != taker && !held.contains(&other)) {
            let by = desired.streams.get(claim.stream).map_or(SpecOrigin::Nobody, |stream| stream.subjects_by.clone());
            let (subject, other) = (claim.subject.to_string(), streams[taker].name.clone());
            let giver = &mut streams[claim.stream];
            giver.conflicts.push(Conflict::Untaken { subject, other, by });
            giver.hold_subjects_back(&before[claim.stream]);
            held.insert(claim.stream);
        }
    }
    !held.is_empty()
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

/// Whether plans had to be held back because they wait for each other.
fn hold_circles_back(streams: &mut [StreamPlan], before: &[Vec<Subject>]) -> bool {
    // What waits for a circle without being a part of it goes on to find who keeps its subjects.
    let next_on_circle = |number: usize| {
        let after = &streams[number].after;
        after.iter().copied().find(|other| waits(streams, *other, number)).map(|other| (number, other))
    };
    let on_circles: Vec<_> = never_next(streams).filter_map(next_on_circle).collect();
    for (number, other) in &on_circles {
        let other = streams[*other].name.clone();
        streams[*number].conflicts.push(Conflict::Circle { other });
        streams[*number].hold_subjects_back(&before[*number]);
    }
    !on_circles.is_empty()
}

/// Those that are never next, whatever is done: circles, and what waits for them.
fn never_next(streams: &[StreamPlan]) -> impl Iterator<Item = usize> {
    let mut open: Vec<usize> = streams.iter().map(|plan| plan.after.len()).collect();
    let mut followers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, plan) in streams.iter().enumerate() {
        plan.after.iter().for_each(|other| followers.entry(*other).or_default().push(number));
    }
    let mut next: Vec<usize> = (0..streams.len()).filter(|number| open[*number] == 0).collect();
    while let Some(done) = next.pop() {
        for follower in followers.remove(&done).unwrap_or_default() {
            open[follower] -= 1;
            if open[follower] == 0 {
                next.push(follower);
            }
        }
    }
    open.into_iter().enumerate().filter(|(_, open)| *open > 0).map(|(number, _)| number)
}

/// Whether one waits for the other, at once or through others.
fn waits(streams: &[StreamPlan], one: usize, other: usize) -> bool {
    let mut seen = BTreeSet::from([one]);
    let mut left = vec![one];
    while let Some(number) = left.pop() {
        let after = &streams[number].after;
        if after.contains(&other) {
            return true;
        }
        left.extend(after.iter().filter(|next| seen.insert(**next)));
    }
    false
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
