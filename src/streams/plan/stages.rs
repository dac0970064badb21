//! What of a plan comes first, so that no subject is given up for a stream that cannot take it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Action, Existing, Plan, StreamPlan};
use crate::domain::Subject;
use crate::settings::declared::subjects_of;

/// What a stream captures that is created before its subjects are given up elsewhere: nothing that
/// anybody publishes.
const NOTHING: &str = "unified-nats.nothing-yet";

/// Whether a stream has that subject because it was not to capture anything yet.
pub(super) fn is_nothing_yet(subject: &Subject) -> bool {
    subject.as_str().strip_prefix(NOTHING).is_some_and(|rest| rest.starts_with('.'))
}

impl Plan {
    /// The part that comes first where subjects move between streams that change in other ways, too, are
    /// created or deleted: everything but those subjects, and a stream that has them stays. A server may refuse the rest, and then nobody would
    /// capture them. They move by another plan, when nothing else is left to do with those streams.
    pub fn first_stage(&self, existing: &Existing) -> Option<Self> {
        let streams = &self.streams;
        let gives = |number: &usize| matches!(streams[*number].action, Action::Update { .. } | Action::Prune { .. });
        let takes_from = |number: usize| streams[number].after.iter().copied().filter(gives);
        let can_fail = |number: &usize| match &streams[*number].action {
            Action::Create(_) => true,
            Action::Update { changes, .. } => changes.iter().any(|change| change.field != "subjects"),
            _ => false,
        };
        let takers: Vec<usize> = (0..streams.len()).filter(|number| takes_from(*number).next().is_some()).collect();
        let givers = takers.iter().flat_map(|taker| takes_from(*taker));
        let mut held: BTreeSet<usize> = takers.iter().copied().chain(givers).filter(can_fail).collect();
        if held.is_empty() {
            return None;
        }
        // What is taken from a stream that keeps its subjects waits as well, and so on.
        loop {
            let before = held.len();
            for taker in &takers {
                if held.contains(taker) || takes_from(*taker).any(|giver| held.contains(&giver)) {
                    held.insert(*taker);
                    held.extend(takes_from(*taker));
                }
            }
            if held.len() == before {
                break;
            }
        }
        let subjects_now = |plan: &StreamPlan| {
            let info = existing.streams.iter().find(|info| info.name() == plan.name);
            info.map(|info| subjects_of(&info.config)).unwrap_or_default()
        };
        let kept: Vec<Subject> = held.iter().flat_map(|number| subjects_now(&streams[*number])).collect();
        let mut first = self.clone();
        for number in held {
            let plan = &mut first.streams[number];
            let now = subjects_now(plan);
            match &mut plan.action {
                Action::Create(config) => {
                    let mut free = subjects_of(config);
                    free.retain(|subject| !kept.iter().any(|other| other.overlaps(subject)));
                    let free = free.iter().map(Subject::as_str).collect::<Vec<_>>();
                    let nothing = format!("{NOTHING}.{}", plan.name);
                    let subjects: Value = if free.is_empty() { vec![nothing.as_str()].into() } else { free.into() };
                    config.insert("subjects".into(), subjects);
                }
                Action::Prune { .. } => plan.action = Action::Nothing,
                _ => plan.hold_subjects_back(&now),
            }
        }
        Some(first)
    }
}
