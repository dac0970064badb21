//! Errors and reasons as people read them.

use std::error::Error;

/// An error with all its causes on one line; causes that it names itself are not repeated.
pub fn in_one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Reasons as one sentence, which names each cause once: who finds a cause that others have found,
/// too, says the same, at most with a label before it.
pub fn in_one_sentence<'a>(reasons: impl IntoIterator<Item = &'a str>) -> String {
    let mut told: Vec<&str> = vec![];
    for part in reasons.into_iter().flat_map(|reason| reason.split("; ")) {
        let with_label = |longer: &str, cause: &str| longer.strip_suffix(cause).is_some_and(|l| l.ends_with(": "));
        let same = |other: &&str| part == *other || with_label(part, other) || with_label(other, part);
        if !part.is_empty() && !told.iter().any(same) {
            told.push(part);
        }
    }
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cause_is_told_once() {
        let healthz = "http://127.0.0.1:8222/healthz answers 503: X could not be recovered";
        let cause = "cannot create stream X: no room (JetStream error 10047)";
        let labelled = format!("stream: {cause}");
        for (reasons, told) in [
            (&[healthz, cause, cause][..], format!("{healthz}; {cause}")),
            (&[cause, &labelled], cause.to_owned()),
            (&[&labelled, cause], labelled.clone()),
            (&[cause, "cannot create stream Y: no room"], format!("{cause}; cannot create stream Y: no room")),
            (&["a; b", "b; c", "", "a"], "a; b; c".to_owned()),
        ] {
            assert_eq!(in_one_sentence(reasons.iter().copied()), told);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_told_twice_and_nothing_left_out(reasons in proptest::collection::vec("[ab]{1,2}(: [ab])?", 0..6)) {
            let told = in_one_sentence(reasons.iter().map(String::as_str));
            let parts: Vec<_> = told.split("; ").filter(|part| !part.is_empty()).collect();
            for (i, part) in parts.iter().enumerate() {
                prop_assert!(!parts[..i].contains(part));
            }
            for reason in &reasons {
                prop_assert!(parts.iter().any(|part| part.ends_with(reason.as_str()) || reason.ends_with(part)));
            }
        }
    }
}
