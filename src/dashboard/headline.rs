//! What a person reads first: how the broker is, which families are quiet, when the disk is full. Pure.

use serde::Serialize;

use super::families::Family;
use super::known::{Known, Moment, Tone};
use crate::figures;
use crate::status::{ConditionStatus, Verdict};

/// A store that is full sooner is said in the headline, in seconds.
const SOON: f64 = 86_400.0;

/// What a person reads first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Headline {
    pub tone: Tone,
    /// `healthy`, `degraded`, `unhealthy` or `silent`.
    pub verdict: &'static str,
    /// A sign beside the word, for those who do not see its colour.
    pub sign: &'static str,
    pub sentence: &'static str,
    pub state: &'static str,
    pub since: Moment,
    pub reasons: Vec<String>,
    pub quiet: Line,
    pub store: Line,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    pub tone: Tone,
    pub text: String,
}

pub fn headline(known: &Known<'_>, families: &[Family]) -> Headline {
    let status = known.status;
    let (tone, verdict, sign, sentence) = match status.verdict {
        Verdict::Unhealthy => (Tone::Bad, "unhealthy", "✕", "The broker is not in service"),
        _ if known.is_silent => (Tone::Bad, "silent", "✕", "nats-server does not answer"),
        Verdict::Degraded => (Tone::Warn, "degraded", "!", "Something is not as it should be"),
        Verdict::Healthy => (Tone::Good, "healthy", "✓", "The broker is well"),
    };
    let mut reasons: Vec<_> = status.reason.clone().into_iter().collect();
    let failed = status.conditions.iter().filter(|condition| condition.status == ConditionStatus::Failed);
    for reason in failed.filter_map(|condition| condition.reason.clone()) {
        if !reasons.iter().any(|known| known.contains(&reason)) {
            reasons.push(reason);
        }
    }
    Headline {
        tone,
        verdict,
        sign,
        sentence,
        state: status.state,
        since: Moment::of(status.since),
        reasons,
        quiet: quiet(known, families),
        store: store(known),
    }
}

/// Which families are quiet, in one line.
fn quiet(known: &Known<'_>, families: &[Family]) -> Line {
    let line = |tone, text: String| Line { tone, text };
    if !known.has_jetstream {
        return line(Tone::Plain, "JetStream is off, so that no family is counted".to_owned());
    }
    if known.families.is_empty() {
        return line(Tone::Plain, "the families have not been counted yet".to_owned());
    }
    let of = |tone: Tone| families.iter().filter(move |family| family.tone == tone);
    let listed = |tone: Tone| {
        let all: Vec<_> = of(tone).collect();
        // What is so of several is said once.
        let groups = all.chunk_by(|one, other| one.word == other.word).map(|group| {
            let names: Vec<_> = group.iter().map(|one| one.name).collect();
            format!("{} ({})", names.join(", "), group[0].word)
        });
        groups.collect::<Vec<_>>().join(", ")
    };
    match (of(Tone::Bad).count(), of(Tone::Plain).count()) {
        (0, 0) => line(Tone::Good, "all families are moving".to_owned()),
        (0, all) if all == families.len() => line(Tone::Plain, "no family has had a message lately".to_owned()),
        (0, _) => line(Tone::Plain, format!("quiet: {}", listed(Tone::Plain))),
        (_, 0) => line(Tone::Bad, format!("silent for too long: {}", listed(Tone::Bad))),
        (..) => line(Tone::Bad, format!("silent for too long: {}; quiet: {}", listed(Tone::Bad), listed(Tone::Plain))),
    }
}

/// When the store is full, in one line.
fn store(known: &Known<'_>) -> Line {
    let line = |tone, text: String| Line { tone, text };
    let Some(most) = known.store.most() else {
        let why = if known.has_jetstream { "the room of the store is not known" } else { "JetStream is off" };
        return line(Tone::Plain, why.to_owned());
    };
    let held = known.store.held.unwrap_or(0.0);
    let room = figures::bytes((most - held).max(0.0));
    let place = match known.store.disk_free {
        Some(free) if (most - held - free).abs() < 1.0 => "on the disk",
        _ => "up to its limit",
    };
    let free = format!("{room} left {place}");
    match known.past.full_in {
        Some(seconds) if seconds < 1.0 => line(Tone::Bad, format!("the store is full: {free}")),
        Some(seconds) => {
            let tone = if seconds < SOON { Tone::Warn } else { Tone::Plain };
            line(tone, format!("full in {} at the growth of the last hour: {free}", figures::span(seconds)))
        }
        None if known.past.is_enough_for_forecasts() => {
            line(Tone::Good, format!("will not be full within a year at the growth of the last hour: {free}"))
        }
        None => line(Tone::Plain, format!("{free}; when it will be full is known after five minutes")),
    }
}
