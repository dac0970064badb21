//! How each family is. Pure.

use std::time::Duration;

use serde::Serialize;

use super::known::{Known, Tone};
use crate::domain::DataType;
use crate::figures;

/// A family is moving while its last message is younger.
const MOVING: f64 = 60.0;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Family {
    pub name: &'static str,
    pub tone: Tone,
    pub word: String,
    pub messages: String,
    pub rate: String,
    pub age: String,
    pub spark: Vec<String>,
}

/// The family of that place in [`DataType::ALL`].
pub fn family(known: &Known<'_>, at: usize) -> Family {
    let family = DataType::ALL[at];
    let counted = known.families.iter().find(|(other, ..)| *other == family);
    let age = counted.and_then(|(_, _, age)| *age);
    let messages = counted.map(|(_, messages, _)| *messages);
    let limit = known.stale_after.get(&family).map(Duration::as_secs_f64);
    let (tone, word) = match (age, messages) {
        (Some(age), _) if limit.is_some_and(|limit| age > limit) => (Tone::Bad, figures::span(age)),
        (Some(age), _) if age <= MOVING => (Tone::Good, "moving".to_owned()),
        (Some(age), _) => (Tone::Plain, format!("for {}", figures::span(age))),
        (None, Some(0)) => (Tone::Plain, "no message yet".to_owned()),
        (None, Some(_)) => (Tone::Plain, "none since the start".to_owned()),
        (None, None) => (Tone::Plain, "not known".to_owned()),
    };
    Family {
        name: family.name(),
        tone,
        word,
        messages: messages.map_or_else(|| "–".to_owned(), |messages| figures::count(messages as f64)),
        rate: figures::rate(known.rates.families[at]),
        age: age.map_or_else(|| "–".to_owned(), |age| format!("{} ago", figures::span(age))),
        spark: known.past.sparkline(at),
    }
}
