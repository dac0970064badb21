//! Mirrors and sources: where a stream's messages come from.

use std::collections::BTreeSet;

use serde_json::Value;

use super::transforms::mismatch;
use super::{Finder, Servers};
use crate::domain::Subject;
use crate::settings::declared::subjects_of;

pub(super) fn find(finder: &mut Finder<'_>, name: &str) {
    if let Some(mirror) = finder.config.get("mirror").filter(|mirror| mirror.is_object()) {
        beside_mirror(finder);
        one(finder, "mirror", mirror);
        if is_here(mirror) && text(mirror, "name") == name {
            finder.refuse("mirror", format!("{name:?}"), "must not be the stream itself", "name another one");
        }
        let transforms = transforms(mirror);
        overlapping(finder, "mirror", &transforms, Subject::overlaps);
    }
    if finder.is("mirror_direct") && !finder.has("mirror") {
        finder.refuse("mirror_direct", "true", "is for mirrors", "leave it out");
    }
    let Some(sources) = finder.config.get("sources").and_then(Value::as_array) else { return };
    if !sources.is_empty() && finder.is("allow_msg_schedules") {
        let rule = "cannot be together with sources";
        finder.refuse("allow_msg_schedules", "true", rule, "leave one of them out");
    }
    let mut seen = BTreeSet::new();
    for source in sources {
        one(finder, "sources", source);
        let transforms = transforms(source);
        overlapping(finder, "sources", &transforms, |a, b| a.covers(b) || b.covers(a));
        // nats-server tells them apart by these, whatever else they say.
        let api = source.get("external").and_then(|external| external.get("api"));
        let mut filters: Vec<_> = transforms.iter().map(|(src, dest)| format!("{src} {dest}")).collect();
        filters.sort_unstable();
        if !seen.insert(format!("{} {api:?} {} {filters:?}", text(source, "name"), text(source, "filter_subject"))) {
            let found = format!("{:?} twice", text(source, "name"));
            let rule = "must not name a stream twice with the same filter and transforms";
            finder.refuse("sources", found, rule, "keep one of the two");
        }
        let filter = text(source, "filter_subject").parse::<Subject>().ok();
        let shares = filter.is_none_or(|filter| subjects_of(finder.config).iter().any(|own| own.overlaps(&filter)));
        if is_here(source) && text(source, "name") == name && shares {
            finder.refuse("sources", format!("{name:?}"), "must not be the stream itself", "name another one");
        }
    }
}

fn beside_mirror(finder: &mut Finder<'_>) {
    if finder.has("subjects") || finder.has("sources") {
        let rule = "takes its messages from the other stream alone: no subjects and no sources beside it";
        finder.refuse("mirror", "a mirror with subjects or sources", rule, "leave one of them out");
    }
    for field in [
        "first_seq",
        "allow_msg_counter",
        "allow_atomic",
        "allow_batched",
        "allow_msg_schedules",
        "subject_delete_marker_ttl",
    ] {
        if finder.has(field) {
            finder.refuse("mirror", format!("a mirror with {field}"), format!("cannot have {field}"), "leave it out");
        }
    }
}

fn one(finder: &mut Finder<'_>, field: &'static str, source: &Value) {
    let transforms = transforms(source);
    let filter = text(source, "filter_subject");
    if !filter.is_empty() && !transforms.is_empty() {
        let rule = "must not have filter_subject beside subject_transforms, whose src filters already";
        finder.refuse(field, format!("{filter:?}"), rule, "leave filter_subject out");
    }
    for (src, dest) in &transforms {
        if src.is_empty() {
            let rule = "must name the src of each transform for nats-server 2.10";
            finder.refused_by(Servers::Before((2, 11)), field, "a transform without src", rule, "write src: \">\"");
        }
        if let Some(rule) = mismatch(if src.is_empty() { ">" } else { src }, dest) {
            finder.refuse(field, format!("{src} → {dest}"), rule, "correct one of the two");
        }
    }
    let external = |part: &str| source.get("external")?.get(part)?.as_str();
    for part in ["api", "deliver"] {
        let has_wildcards = |prefix: &&str| prefix.split('.').any(|token| matches!(token, "*" | ">" | ""));
        if let Some(prefix) = external(part).filter(|prefix| !prefix.is_empty()).filter(has_wildcards) {
            let rule = format!("must be a prefix without wildcards in external.{part}");
            finder.refuse(field, format!("{prefix:?}"), rule, "correct it");
        }
    }
    if external("api") == Some("$JS.API") {
        let rule = "must not have the API of this account as that of another one";
        finder.refuse(field, "\"$JS.API\"", rule, "name the prefix of the other one, or leave external out");
    }
    if let Some(consumer) = source.get("consumer") {
        let subject = text(consumer, "deliver_subject");
        if text(consumer, "name").is_empty() || subject.is_empty() || subject.split('.').any(|t| t == "*" || t == ">") {
            let rule = "needs name and a deliver_subject without wildcards for its consumer";
            finder.refuse(field, "a consumer", rule, "add them, or leave consumer out");
        }
        let has = |part: &str| source.get(part).is_some_and(|value| !value.is_null() && value != 0 && value != "");
        for part in ["opt_start_seq", "opt_start_time", "filter_subject"].into_iter().filter(|part| has(part)) {
            let rule = format!("must not have {part} beside a consumer, which says it itself");
            finder.refuse(field, "a consumer", rule, "leave one of them out");
        }
    }
}

fn overlapping(
    finder: &mut Finder<'_>,
    field: &'static str,
    transforms: &[(&str, &str)],
    collide: impl Fn(&Subject, &Subject) -> bool,
) {
    let subjects: Vec<Subject> = transforms.iter().filter_map(|(src, _)| src.parse().ok()).collect();
    for (i, subject) in subjects.iter().enumerate() {
        if let Some(other) = subjects[..i].iter().find(|other| collide(other, subject)) {
            let found = format!("{other} and {subject}");
            finder.refuse(field, found, "must not have transforms that overlap", "keep the wider one");
        }
    }
}

fn transforms(source: &Value) -> Vec<(&str, &str)> {
    let list = source.get("subject_transforms").and_then(Value::as_array).into_iter().flatten();
    list.map(|transform| (text(transform, "src"), text(transform, "dest"))).collect()
}

/// Whether it is a stream of the same account.
fn is_here(source: &Value) -> bool {
    source.get("external").is_none()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}
