use serde_json::json;

use super::*;
use crate::streams::plan::plan;
use crate::streams::plan::tests::{desired, existing, file, only, server, subjects, updated, with};

#[test]
fn narrower_and_wider_subjects_of_the_stream_do_not_overlap_the_families() {
    let mut narrow = existing(&[], 3);
    narrow.streams[0].config["subjects"] = json!(["trade-data.*.*.*", "orderbook-data.x.>", "other.x"]);
    let plan_narrow = plan(&desired(&[]), &narrow);
    assert_eq!(plan_narrow.streams[0].kept, vec![]);
    let subjects = subjects(&updated(plan_narrow).0);
    assert_eq!(subjects.len(), 9, "{subjects:?}");
    assert!(subjects.contains(&"other.x".to_owned()) && !subjects.contains(&"trade-data.*.*.*".to_owned()));

    narrow.streams[0].config["subjects"] = json!([">"]);
    assert!(plan(&desired(&[]), &narrow).is_nothing());
}

#[test]
fn a_change_of_style_retires_our_old_subjects_and_leaves_foreign_ones() {
    let mut suffixed = existing(&[], 3);
    suffixed.streams[0].config["subjects"].as_array_mut().unwrap().push("custom.>".into());
    let (config, _) = updated(plan(&desired(&[("STREAM_SUBJECT_STYLE", "both")]), &suffixed));
    assert_eq!(subjects(&config).len(), 17);
    let (config, changes) = updated(plan(&desired(&[("STREAM_SUBJECT_STYLE", "plain")]), &suffixed));
    let subjects = subjects(&config);
    assert_eq!(subjects.len(), 9);
    assert!(subjects.contains(&"custom.>".to_owned()) && !subjects.contains(&"trade-data.>".to_owned()));
    let effect = changes[0].effect.as_ref().unwrap();
    assert!(
        effect.starts_with("stops capturing orderbook-data.>") && effect.ends_with("its 3 messages stay"),
        "{effect}"
    );
}

#[test]
fn overlapping_subjects_are_found_before_anything_is_sent() {
    let two = file("streams: {A: {subjects: [a.>]}, B: {subjects: [a.b]}}");
    let planned = plan(&two, &with(vec![]));
    assert!(matches!(planned.streams[0].action, Action::Create(_)));
    assert_eq!(planned.streams[1].action, Action::Blocked);
    assert_eq!(
        planned.streams[1].sentences(),
        ["conflict: a.b (s.yml:1) belongs to stream A already, which captures a.>: take it out of one of them"]
    );
    // Also with a stream that nobody declared, and where the rest of a change can be made.
    let foreign = server(&file("streams: {X: {subjects: [c.>]}}"), 0).streams;
    let mut there = server(&file("streams: {A: {subjects: [a.>]}}"), 0);
    there.streams.extend(foreign);
    let planned = only(plan(&file("streams: {A: {subjects: [a.>, c.d], max_msgs: 5}}"), &there));
    assert_eq!(planned.conflicts.len(), 1);
    let Action::Update { config, changes } = planned.action else { panic!() };
    assert_eq!((changes.len(), subjects(&config)), (1, vec!["a.>".to_owned()]));
}

#[test]
fn a_subject_that_moves_is_given_up_first() {
    let before = server(&file("streams: {B: {subjects: [b, x]}, A: {subjects: [a]}}"), 0);
    let desired = file("strict_subjects: true\nstreams: {A: {subjects: [a, x]}, B: {subjects: [b]}}");
    let planned = plan(&desired, &before);
    assert!(!planned.has_conflicts(), "{planned:?}");
    assert_eq!((planned.streams[0].after.as_slice(), planned.streams[1].after.as_slice()), (&[1][..], &[][..]));
}

#[test]
fn a_mirror_comes_after_what_it_mirrors() {
    let planned = plan(&file("streams: {M: {mirror: {name: A}}, A: {subjects: [a]}}"), &with(vec![]));
    assert_eq!(planned.streams[0].after, [1]);
}

#[test]
fn a_mirror_that_cannot_be_one_keeps_its_subjects() {
    let there = server(&file("key_value: {COPY: {}}"), 3);
    let planned = only(plan(&file("key_value: {COPY: {mirror: {name: SYMBOLS}}}"), &there));
    assert_eq!(planned.conflicts.len(), 1, "{planned:?}");
    let Action::Update { config, .. } = planned.action else { panic!("{planned:?}") };
    assert_eq!(subjects(&config), ["$KV.COPY.>"]);
    // A server that cannot make a stream of a mirror is told so by nobody else.
    let mut mirror = server(&file("streams: {A: {mirror: {name: B}}}"), 3);
    mirror.version = (2, 11);
    let planned = only(plan(&file("streams: {A: {subjects: [a]}}"), &mirror));
    assert!(planned.sentences()[0].contains("mirror is"), "{:?}", planned.sentences());
    let Action::Update { config, .. } = planned.action else { panic!("{planned:?}") };
    assert_eq!(subjects(&config), Vec::<String>::new());
}

#[test]
fn subjects_that_streams_take_from_each_other_are_a_conflict() {
    let before = server(&file("streams: {A: {subjects: [a, x]}, B: {subjects: [b, y]}}"), 0);
    let swapped = file("strict_subjects: true\nstreams: {A: {subjects: [a, y], max_msgs: 5}, B: {subjects: [b, x]}}");
    let planned = plan(&swapped, &before);
    assert!(
        planned.streams.iter().all(|stream| matches!(stream.conflicts[..], [Conflict::Circle { .. }])),
        "{planned:?}"
    );
    let Action::Update { config, changes } = &planned.streams[0].action else { panic!("{planned:?}") };
    assert_eq!((changes.len(), subjects(config)), (1, vec!["a".to_owned(), "x".to_owned()]));
    assert_eq!(planned.streams[1].action, Action::Nothing);
}

#[test]
fn what_one_stream_cannot_give_up_another_one_does_not_take() {
    // A would give x up for p, which is somebody else's.
    let mut before = server(&file("streams: {A: {subjects: [x]}, B: {subjects: [b]}}"), 0);
    before.streams.extend(server(&file("streams: {FOREIGN: {subjects: [p]}}"), 0).streams);
    let planned = plan(&file("strict_subjects: true\nstreams: {A: {subjects: [p]}, B: {subjects: [b, x]}}"), &before);
    let conflicts: Vec<_> = planned.streams.iter().map(|stream| stream.conflicts.len()).collect();
    assert_eq!(conflicts, [1, 1], "{planned:?}");
    assert!(planned.is_nothing());
}

#[test]
fn subjects_that_cannot_stand_beside_each_other_in_one_stream() {
    let there = server(&file("streams: {A: {subjects: [o.*.c]}}"), 3);
    let planned = only(plan(&file("streams: {A: {subjects: [o.b.*], max_msgs: 9}}"), &there));
    assert!(matches!(planned.conflicts[..], [Conflict::Inside { .. }]), "{planned:?}");
    assert!(matches!(planned.action, Action::Update { .. }), "the rest is changed");
    let strict = file("strict_subjects: true\nstreams: {A: {subjects: [o.b.*]}}");
    assert!(!plan(&strict, &there).has_conflicts());
}

#[test]
fn a_filter_that_no_message_can_match_is_named() {
    let desired =
        file("streams: {A: {subjects: [trade-data.>], consumers: {c: {filter_subjects: [trade.>, trade-data.x]}}}}");
    assert_eq!(
        only(plan(&desired, &with(vec![]))).sentences(),
        ["consumer c: no message of the stream can match trade.>"]
    );
    let sourced = file("streams: {A: {sources: [{name: B}], consumers: {c: {filter_subjects: [b]}}}}");
    assert_eq!(only(plan(&sourced, &with(vec![]))).sentences(), Vec::<String>::new());
}
