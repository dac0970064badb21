use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::streams::apply::waves;
use crate::streams::plan::Existing;
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
    let planned = only(plan(&file("streams: {A: {subjects: [a], max_msgs: 5}}"), &mirror));
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
fn what_another_one_cannot_take_is_not_given_up() {
    // B would take x and p, which is somebody else's.
    let mut before = server(&file("streams: {A: {subjects: [a, x]}, B: {subjects: [b]}}"), 0);
    before.streams.extend(server(&file("streams: {FOREIGN: {subjects: [p]}}"), 0).streams);
    let text = "strict_subjects: true\nstreams: {A: {subjects: [a], max_msgs: 5}, B: {subjects: [b, x, p]}}";
    let planned = plan(&file(text), &before);
    assert_eq!(
        planned.streams[0].sentences(),
        ["conflict: x is to go (s.yml:2) to stream B, which cannot take it: settle what stands in the way of that \
          one first"]
    );
    let Action::Update { config, changes } = &planned.streams[0].action else { panic!("{planned:?}") };
    assert_eq!((changes.len(), subjects(config)), (1, vec!["a".to_owned(), "x".to_owned()]), "the rest is changed");
    before.streams.pop();
    assert!(!plan(&file(text), &before).has_conflicts());
}

#[test]
fn subjects_move_when_nothing_else_is_left_to_refuse() {
    let there = server(&file("streams: {A: {subjects: [a, x], max_msgs: 2}, B: {subjects: [b], max_msgs: 2}}"), 0);
    let first_of = |limits: [u8; 2]| {
        let [a, b] = limits;
        let text = format!("{{A: {{subjects: [a], max_msgs: {a}}}, B: {{subjects: [b, x], max_msgs: {b}}}}}");
        plan(&file(&format!("strict_subjects: true\nstreams: {text}")), &there).first_stage(&there)
    };
    assert_eq!(first_of([2, 2]), None);
    for (limits, changed) in [([1, 2], 0), ([2, 1], 1)] {
        let first = first_of(limits).unwrap();
        let Action::Update { config, changes } = &first.streams[changed].action else { panic!("{first:?}") };
        assert_eq!((changes.len(), subjects(config).len()), (1, 2 - changed), "{first:?}");
        assert_eq!(first.streams[1 - changed].action, Action::Nothing);
    }
    // One that is created has what nobody else has, or nothing yet.
    for (wanted, at_first) in [("[x, n]", "n"), ("[x]", "unified-nats.nothing-yet.N")] {
        let text = format!("strict_subjects: true\nstreams: {{A: {{subjects: [a]}}, N: {{subjects: {wanted}}}}}");
        let first = plan(&file(&text), &there).first_stage(&there).unwrap();
        let Action::Create(config) = &first.streams[1].action else { panic!("{first:?}") };
        assert_eq!(subjects(config), [at_first]);
    }
}

#[test]
fn what_waits_for_a_circle_is_told_who_keeps_its_subject() {
    let before = server(&file("streams: {A: {subjects: [a, x]}, B: {subjects: [b, y]}, C: {subjects: [c]}}"), 0);
    let text = "strict_subjects: true\nstreams: {A: {subjects: [y]}, B: {subjects: [b, x]}, C: {subjects: [a, c]}}";
    let planned = plan(&file(text), &before);
    assert!(planned.is_nothing());
    let sentences = planned.streams[2].sentences();
    assert_eq!(
        sentences,
        ["conflict: a (s.yml:2) belongs to stream A already, which captures a: take it out of one of them"]
    );
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

/// What is declared of one stream.
#[derive(Clone, Debug)]
struct Declared {
    subjects: Vec<String>,
    limit: u8,
}

/// Streams by name, with their subjects and a limit.
type State = BTreeMap<String, (Vec<Subject>, u8)>;

fn declared() -> impl Strategy<Value = Declared> {
    (proptest::collection::vec("[a-e]|[a-c]\\.[ab*>]", 1..4), 1..3u8).prop_map(|(texts, limit)| {
        let mut subjects: Vec<String> = vec![];
        for text in texts {
            let subject: Subject = text.parse().unwrap();
            // A file with subjects that overlap each other is refused.
            if !subjects.iter().any(|other| other.parse::<Subject>().unwrap().overlaps(&subject)) {
                subjects.push(text);
            }
        }
        Declared { subjects, limit }
    })
}

/// Some of A to E, each with something declared.
fn declarations() -> impl Strategy<Value = BTreeMap<String, Declared>> {
    proptest::collection::vec(proptest::option::of(declared()), 5).prop_map(|streams| {
        let named = ["A", "B", "C", "D", "E"].iter().zip(streams);
        named.filter_map(|(name, stream)| Some(((*name).to_owned(), stream?))).collect()
    })
}

fn as_file(streams: &BTreeMap<String, Declared>, strict: bool) -> Desired {
    let stream = |(name, declared): (&String, &Declared)| {
        let Declared { subjects, limit } = declared;
        format!("  {name}: {{subjects: {}, max_msgs: {limit}}}\n", json!(subjects))
    };
    let streams: String = streams.iter().map(stream).collect();
    file(&format!("strict_subjects: {strict}\nstreams:\n{}", if streams.is_empty() { "  {}\n" } else { &streams }))
}

/// A server can have these: no two subjects overlap.
fn possible(streams: BTreeMap<String, Declared>) -> State {
    let mut taken: Vec<Subject> = vec![];
    let mut state = State::new();
    for (name, declared) in streams {
        let mut subjects = vec![];
        for subject in declared.subjects.iter().map(|text| text.parse::<Subject>().unwrap()) {
            if !taken.iter().any(|other| other.overlaps(&subject)) {
                taken.push(subject.clone());
                subjects.push(subject);
            }
        }
        if !subjects.is_empty() {
            state.insert(name, (subjects, declared.limit));
        }
    }
    state
}

fn as_existing(state: &State) -> Existing {
    let streams = state.iter().map(|(name, (subjects, limit))| {
        let subjects: Vec<_> = subjects.iter().map(Subject::as_str).collect();
        let text = format!("streams: {{{name}: {{subjects: {}, max_msgs: {limit}}}}}", json!(subjects));
        server(&file(&text), 0).streams.remove(0)
    });
    with(streams.collect())
}

/// As a server does it: what overlaps is refused, whichever of one wave comes first.
fn carried_out(plans: &[StreamPlan], state: &State) -> Result<State, TestCaseError> {
    let mut state = state.clone();
    for wave in waves(plans) {
        let mut after = state.clone();
        for plan in &wave {
            match &plan.action {
                Action::Create(config) | Action::Update { config, .. } => {
                    let limit = config["max_msgs"].as_u64().unwrap() as u8;
                    after.insert(plan.name.clone(), (subjects_of(config), limit));
                }
                Action::Prune { .. } => _ = after.remove(&plan.name),
                _ => {}
            }
        }
        for plan in &wave {
            let Some((ours, _)) = after.get(&plan.name) else { continue };
            for (name, (theirs, _)) in state.iter().chain(&after).filter(|(name, _)| **name != plan.name) {
                let overlap = ours.iter().find(|ours| theirs.iter().any(|theirs| theirs.overlaps(ours)));
                prop_assert!(overlap.is_none(), "{} takes {:?} of {}", plan.name, overlap, name);
            }
        }
        state = after;
    }
    Ok(state)
}

proptest! {
    #[test]
    fn whatever_is_declared_no_step_overlaps_and_nothing_is_left_to_do(
        there in declarations(), wanted in declarations(), strict: bool, prune: bool,
    ) {
        let state = possible(there);
        let mut desired = as_file(&wanted, strict);
        desired.prune = prune;
        let planned = plan(&desired, &as_existing(&state));
        let end = carried_out(&planned.streams, &state)?;
        let again = plan(&desired, &as_existing(&end));
        prop_assert!(again.is_nothing(), "{:?} then {:?}", planned, again);
        for stream in &desired.streams {
            let planned_all = &planned;
            let planned = planned.streams.iter().find(|plan| plan.name == stream.name).unwrap();
            let captured = end.get(&stream.name).map(|(subjects, _)| subjects.clone()).unwrap_or_default();
            // What stands in the way is there.
            for conflict in &planned.conflicts {
                let is_so = match conflict {
                    Conflict::Overlap { subject, other, other_subject, .. } => {
                        let has = |subjects: &[Subject]| subjects.iter().any(|one| one.as_str() == other_subject);
                        let declared = desired.stream(other).is_some_and(|other| has(&other.subjects));
                        let there = end.get(other).is_some_and(|(subjects, _)| has(subjects));
                        let [ours, theirs] = [subject, other_subject].map(|text| text.parse::<Subject>().unwrap());
                        (declared || there) && ours.overlaps(&theirs)
                    }
                    Conflict::Circle { other } => there_is_a_circle(&desired, &state, &stream.name, other),
                    Conflict::Untaken { other, .. } => {
                        let other = planned_all.streams.iter().find(|plan| plan.name == *other).unwrap();
                        !other.conflicts.is_empty()
                    }
                    Conflict::Inside { .. } => true,
                    _ => false,
                };
                prop_assert!(is_so, "{}: {:?}", stream.name, conflict);
            }
            if planned.conflicts.is_empty() {
                let is_captured = |wanted: &&Subject| captured.iter().any(|subject| subject.covers(wanted));
                let missing = stream.subjects.iter().find(|wanted| !is_captured(wanted));
                prop_assert!(missing.is_none(), "{} does not get {:?}: {:?}", stream.name, missing, planned);
            }
        }
    }
}

/// Whether each of the two wants, at once or through others, what the other one has.
fn there_is_a_circle(desired: &Desired, state: &State, one: &str, other: &str) -> bool {
    let takes_from = |taker: &str| {
        let wanted = desired.stream(taker).map(|stream| stream.subjects.clone()).unwrap_or_default();
        let overlaps = |theirs: &[Subject]| wanted.iter().any(|ours| theirs.iter().any(|theirs| theirs.overlaps(ours)));
        let others = state.iter().filter(|(name, (subjects, _))| *name != taker && overlaps(subjects));
        others.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let reaches = |from: &str, to: &str| {
        let mut seen = BTreeSet::from([from.to_owned()]);
        let mut left = vec![from.to_owned()];
        while let Some(name) = left.pop() {
            for next in takes_from(&name) {
                if next == to {
                    return true;
                }
                if seen.insert(next.clone()) {
                    left.push(next);
                }
            }
        }
        false
    };
    takes_from(one).iter().any(|name| name == other) && reaches(other, one)
}

/// Subjects that messages may have.
const PROBES: [&str; 14] = ["a", "b", "c", "d", "e", "a.a", "a.b", "a.x", "b.a", "b.b", "b.x", "c.a", "c.b", "c.x.y"];

/// As a server does it that refuses some streams everything but their subjects, and overlaps.
fn carried_out_where_possible(plans: &[StreamPlan], state: &mut State, refused: &BTreeSet<String>) -> usize {
    let mut done = 0;
    for plan in waves(plans).into_iter().flatten() {
        let (Action::Create(config) | Action::Update { config, .. }) = &plan.action else { continue };
        let (subjects, limit) = (subjects_of(config), config["max_msgs"].as_u64().unwrap() as u8);
        let only_subjects = state.get(&plan.name).is_some_and(|(_, now)| *now == limit);
        let mut others = state.iter().filter(|(name, _)| **name != plan.name);
        let overlaps = others.any(|(_, (theirs, _))| theirs.iter().any(|a| subjects.iter().any(|b| a.overlaps(b))));
        if !overlaps && (only_subjects || !refused.contains(&plan.name)) {
            state.insert(plan.name.clone(), (subjects, limit));
            done += 1;
        }
    }
    done
}

proptest! {
    #[test]
    fn what_a_server_refuses_costs_nobody_a_subject(
        there in declarations(), wanted in declarations(), strict: bool,
        refused in proptest::sample::subsequence(vec!["A", "B", "C", "D", "E"], 0..3),
    ) {
        let refused: BTreeSet<String> = refused.into_iter().map(str::to_owned).collect();
        let before = possible(there);
        let desired = as_file(&wanted, strict);
        let mut state = before.clone();
        for _ in 0..5 {
            let existing = as_existing(&state);
            let planned = plan(&desired, &existing);
            let first = planned.first_stage(&existing);
            let done = carried_out_where_possible(&first.as_ref().unwrap_or(&planned).streams, &mut state, &refused);
            for (stream, probe) in desired.streams.iter().flat_map(|stream| PROBES.map(|probe| (stream, probe))) {
                let probe: Subject = probe.parse().unwrap();
                let captured = |subjects: &[Subject]| subjects.iter().any(|subject| subject.covers(&probe));
                let somebody = |state: &State| state.values().any(|(subjects, _)| captured(subjects));
                if captured(&stream.subjects) && somebody(&before) {
                    prop_assert!(somebody(&state), "{} has nobody: {:?}", probe, planned);
                }
            }
            if first.is_none() || done == 0 {
                break;
            }
        }
        let end = plan(&desired, &as_existing(&state));
        if refused.is_empty() {
            prop_assert!(end.is_nothing(), "{:?}", end);
        }
        let waiting = state.values().any(|(subjects, _)| subjects.iter().any(is_nothing_yet));
        prop_assert!(!waiting || !refused.is_empty(), "{:?}", state);
    }
}
