use super::transforms::mismatch;
use super::{Finder, Servers};
use crate::domain::Subject;
use crate::settings::declared::options::readable;
use crate::settings::declared::subjects_of;

/// nats-server refuses shorter ages and windows (server/stream.go, checkStreamCfg).
const SHORTEST: i64 = 100_000_000;
const SECOND: i64 = 1_000_000_000;

pub(super) fn find(finder: &mut Finder<'_>) {
    spans(finder);
    switches(finder);
    modes(finder);
    subjects(finder);
    forwarding(finder);
    finder.metadata();
    if finder.config.get("placement").is_some_and(|placement| placement.get("preferred").is_some()) {
        finder.refuse("placement", "preferred", "takes cluster and tags alone", "leave preferred out");
    }
}

fn spans(finder: &mut Finder<'_>) {
    for field in ["max_age", "duplicate_window"] {
        if (1..SHORTEST).contains(&finder.number(field)) {
            finder.refuse(field, "a span below 100ms", "must be at least 100ms", "make it longer");
        }
    }
    let (age, window) = (finder.number("max_age"), finder.number("duplicate_window"));
    if age > 0 && window > age {
        let with_unit = |field: &str, span: i64| readable(field, &span.into());
        let found = format!("a window above max_age ({})", with_unit("duplicate_window", window));
        let rule = format!("must not be above max_age, which is {}", with_unit("max_age", age));
        finder.refuse("duplicate_window", found, rule, "shorten it, or leave it out");
    }
    if (1..SECOND).contains(&finder.number("subject_delete_marker_ttl")) {
        finder.refuse("subject_delete_marker_ttl", "a span below 1s", "must be at least 1s", "make it longer");
    }
}

fn switches(finder: &mut Finder<'_>) {
    if finder.is("deny_purge") && finder.is("allow_rollup_hdrs") {
        finder.refuse("deny_purge", "true", "keeps roll-ups from purging what allow_rollup_hdrs lets them", "drop one");
    }
    if finder.is("discard_new_per_subject") {
        let new = finder.text("discard") == "new";
        if !new || finder.number("max_msgs_per_subject") <= 0 {
            let rule = "needs discard: new and max_msgs_per_subject";
            finder.refuse("discard_new_per_subject", "true", rule, "add them, or leave it out");
        }
    }
    for (field, what) in
        [("subject_delete_marker_ttl", "subject delete markers"), ("allow_msg_schedules", "message schedules")]
    {
        if !finder.has(field) {
            continue;
        }
        if finder.is("deny_purge") {
            let rule = format!("is taken back by nats-server for {what}, which purge");
            finder.refuse("deny_purge", "true", rule, &format!("leave it out, or {field}"));
        }
        let switched_on: &[&str] = match field {
            "allow_msg_schedules" => &["allow_rollup_hdrs"],
            _ => &["allow_rollup_hdrs", "allow_msg_ttl"],
        };
        for needed in ["allow_rollup_hdrs", "allow_msg_ttl"].into_iter().filter(|needed| switched_on.contains(needed)) {
            if finder.is_off(needed) {
                let rule = format!("is switched on by nats-server for {what}");
                finder.refuse(needed, "false", rule, &format!("leave it out, or {field}"));
            }
        }
    }
    if finder.is("allow_msg_schedules") && finder.text("discard") == "new" {
        let rule = "cannot be together with discard: new";
        finder.refused_by(Servers::Since((2, 14)), "allow_msg_schedules", "true", rule, "leave one of them out");
    }
}

/// Streams of a special kind and what they cannot be besides.
fn modes(finder: &mut Finder<'_>) {
    if finder.is("allow_msg_counter") {
        let retention = finder.text("retention");
        for (is, what, servers) in [
            (finder.text("discard") == "new", "discard: new", Servers::All),
            (finder.is("allow_msg_ttl"), "allow_msg_ttl", Servers::All),
            (finder.is("allow_msg_schedules"), "allow_msg_schedules", Servers::Since((2, 14))),
            (!matches!(retention, "" | "limits"), "another retention than limits", Servers::All),
        ] {
            if is {
                let rule = format!("cannot be together with {what}");
                finder.refused_by(servers, "allow_msg_counter", "true", rule, "leave one of them out");
            }
        }
    }
    if finder.text("persist_mode") == "async" {
        for (is, what) in [
            (finder.text("storage") == "memory", "storage: memory"),
            (finder.number("num_replicas") > 1, "several copies"),
            (finder.is("allow_atomic"), "allow_atomic"),
        ] {
            if is {
                let rule = format!("async cannot be together with {what}");
                finder.refuse("persist_mode", "\"async\"", rule, "leave one of them out");
            }
        }
    }
}

fn subjects(finder: &mut Finder<'_>) {
    let subjects = subjects_of(finder.config);
    for (i, subject) in subjects.iter().enumerate() {
        if let Some(other) = subjects[..i].iter().find(|other| other.overlaps(subject)) {
            let found = format!("{other} and {subject}");
            let rule = "overlap each other, so that a message would belong to both";
            finder.refuse("subjects", found, rule, "keep the wider one");
        }
    }
    if finder.is("no_ack") {
        let several = finder.number("num_replicas") > 1;
        if several && subjects.iter().any(|subject| subject.as_str() == ">") {
            finder.refuse("subjects", "\">\"", "must not be everything with several copies", "narrow them");
        }
        return;
    }
    for subject in &subjects {
        if let Some((of, servers)) = reserved(subject) {
            let found = format!("{:?}", subject.as_str());
            let rule = format!("must not share subjects with {of} unless no_ack is true");
            finder.refused_by(servers, "subjects", found, rule, "narrow them, or set no_ack: true");
        }
    }
}

/// Whose subjects a stream would answer that acknowledges what it stores.
fn reserved(subject: &Subject) -> Option<(&'static str, Servers)> {
    /// With what may be captured all the same.
    const SINCE_2_11: [(&str, Option<&str>); 4] =
        [("$JS.>", Some("$JS.EVENT.>")), ("$JSC.>", None), ("$NRG.>", None), ("$SYS.>", Some("$SYS.ACCOUNT.>"))];
    let parse = |text: &str| text.parse::<Subject>().ok();
    if subject.as_str() == ">" {
        return Some(("everything", Servers::All));
    }
    // What 2.10 looks at is narrower: it takes no wildcard before these words for a share of them.
    let of_2_10 = ["$JS.API.>", "$JSC.>", "$SYS.>"];
    SINCE_2_11.into_iter().find_map(|(space, but)| {
        let excepted = but.and_then(parse).is_some_and(|but| but.covers(subject));
        if !parse(space)?.overlaps(subject) || excepted {
            return None;
        }
        let literal = !subject.as_str().starts_with('*');
        let always = literal && of_2_10.iter().filter_map(|old| parse(old)).any(|old| old.overlaps(subject));
        Some((space, if always { Servers::All } else { Servers::Since((2, 11)) }))
    })
}

/// Subjects that messages get on their way in, and on their way on.
fn forwarding(finder: &mut Finder<'_>) {
    let part = |object: &str, field: &str| finder.config.get(object)?.get(field)?.as_str();
    let transform = finder.config.get("subject_transform").map(|_| {
        (part("subject_transform", "src").unwrap_or(">"), part("subject_transform", "dest").unwrap_or_default())
    });
    let republish = finder
        .config
        .get("republish")
        .map(|_| (part("republish", "src").unwrap_or(">"), part("republish", "dest").unwrap_or_default()));
    if let Some((src, dest)) = transform
        && let Some(rule) = mismatch(src, dest)
    {
        finder.refuse("subject_transform", format!("{src} → {dest}"), rule, "correct one of the two");
    }
    let Some((src, dest)) = republish else { return };
    let subjects = subjects_of(finder.config);
    if let Some(rule) = mismatch(src, dest) {
        finder.refuse("republish", format!("{src} → {dest}"), rule, "correct one of the two");
    }
    let Ok(wanted) = (if dest.is_empty() { ">" } else { dest }).parse::<Subject>() else { return };
    let everything = wanted.as_str() == ">" && src == ">";
    let by_transform =
        everything && subjects.len() == 1 && transform.is_some_and(|(src, _)| src == subjects[0].as_str());
    // An empty destination goes nowhere, and no server minds.
    let collides = !dest.is_empty() && subjects.iter().any(|subject| subject.overlaps(&wanted));
    let servers = match (by_transform, transform.and_then(|(_, dest)| dest.parse::<Subject>().ok())) {
        (true, Some(dest)) if !subjects[0].overlaps(&dest) => Servers::Before((2, 11)),
        _ => Servers::All,
    };
    if collides {
        let rule = "would come back to this stream, which captures it";
        finder.refused_by(servers, "republish", format!("{dest:?}"), rule, "give dest another prefix");
    }
}
