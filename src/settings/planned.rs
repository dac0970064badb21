//! Variables of parts that this version does not have: they are validated all the same, so that a file that
//! passes today passes tomorrow, and named in one warning when they are set to something else than their
//! default.

use super::source::Collected;
use super::variables;

/// The one warning about variables that are set in vain.
pub fn warning(collected: &Collected) -> Option<String> {
    let in_vain: Vec<_> = variables::ALL
        .iter()
        .filter(|variable| {
            let value = (variable.value)(&collected.environment);
            value.is_some() && value != variable.default.fixed()
        })
        .filter_map(|variable| variable.not_yet_implemented.map(|part| format!("{} ({part})", variable.name)))
        .collect();
    (!in_vain.is_empty())
        .then(|| format!("set, but this version does not have what they control: {}", in_vain.join(", ")))
}
