//! What servers fill in, limit and refuse.

use super::*;
use crate::domain::ByteSize;
use crate::settings::Capacity;

/// What that server shows of what is declared, with values of its own.
fn filled_in(declared: &Desired, values: Value) -> Existing {
    let mut there = server(declared, 0);
    let Value::Object(values) = values else { panic!() };
    there.streams[0].config.extend(values);
    there
}

fn of_our_own(text: &str, max_file: u64) -> Desired {
    let capacity = Capacity { max_memory: ByteSize::new(1 << 30), max_file: ByteSize::new(max_file), clustered: false };
    Desired { capacity: Some(capacity), ..file(text) }
}

#[test]
fn what_a_server_fills_in_is_no_difference() {
    for (lines, values, own_too) in [
        ("subjects: [a]", json!({ "duplicate_window": 120_000_000_000_i64 }), true),
        ("subjects: [a]", json!({ "duplicate_window": 60_000_000_000_i64 }), false),
        ("subjects: [a], max_age: 1m", json!({ "duplicate_window": 60_000_000_000_i64 }), true),
        ("mirror: {name: B}", json!({ "mirror_direct": true }), true),
        (
            "subjects: [a], subject_delete_marker_ttl: 1h",
            json!({ "allow_msg_ttl": true, "allow_rollup_hdrs": true }),
            true,
        ),
        ("subjects: [a], allow_msg_schedules: true", json!({ "allow_rollup_hdrs": true }), true),
        ("subjects: [a], republish: {dest: 'r.>'}", json!({ "republish": { "src": ">", "dest": "r.>" } }), true),
        (
            "subjects: ['a.>'], republish: {dest: '>'}, subject_transform: {src: 'a.>', dest: 'b.>'}",
            json!({ "republish": { "src": "b.>", "dest": "b.>" } }),
            true,
        ),
    ] {
        let text = format!("streams: {{A: {{{lines}}}}}");
        let there = filled_in(&file(&text), values);
        let planned = plan(&file(&text), &there);
        assert!(planned.is_nothing() && !planned.has_conflicts(), "{lines}: {planned:?}");
        assert_eq!(plan(&of_our_own(&text, 1 << 30), &there).is_nothing(), own_too, "{lines}");
    }
    // What no server fills in goes back to what it does.
    for (lines, values, field) in [
        ("subjects: [a]", json!({ "duplicate_window": 600_000_000_000_i64 }), "duplicate_window"),
        ("subjects: [a], max_age: 1m", json!({ "duplicate_window": 120_000_000_000_i64 }), "duplicate_window"),
        ("subjects: [a]", json!({ "allow_rollup_hdrs": true }), "allow_rollup_hdrs"),
        ("subjects: [a]", json!({ "max_msgs": 5 }), "max_msgs"),
    ] {
        let text = format!("streams: {{A: {{{lines}}}}}");
        let (config, changes) = updated(plan(&file(&text), &filled_in(&file(&text), values)));
        assert_eq!(changes.iter().map(|change| change.field).collect::<Vec<_>>(), [field], "{lines}");
        assert!(!config.contains_key(field), "{config:?}");
    }
}

#[test]
fn what_a_server_fills_in_for_consumers_is_no_difference() {
    let with = |options: &str| file(&format!("streams: {{A: {{subjects: [a], consumers: {{c: {{{options}}}}}}}}}"));
    let of = |desired: &Desired, shown: Value| {
        let ConsumerAction::Create(mut config) = only(plan(desired, &server(desired, 0))).consumers.remove(0).action
        else {
            panic!()
        };
        let Value::Object(shown) = shown else { panic!() };
        config.extend(shown);
        let mut there = server(desired, 0);
        there.consumers.insert("A".into(), only_one(consumer(config.into())));
        only(plan(desired, &there)).consumers.remove(0).action == ConsumerAction::Nothing
    };
    for (options, shown, same) in [
        (
            "",
            json!({ "max_waiting": 100, "max_ack_pending": 200, "max_batch": 50, "ack_wait": 30_000_000_000_i64 }),
            true,
        ),
        ("max_waiting: 0", json!({ "max_waiting": 512 }), true),
        (
            "priority_policy: pinned_client, priority_groups: [a]",
            json!({ "priority_timeout": 120_000_000_000_i64 }),
            true,
        ),
        ("priority_policy: overflow, priority_groups: [a]", json!({ "priority_timeout": 120_000_000_000_i64 }), false),
        ("ack_policy: none", json!({ "ack_wait": 0 }), true),
        ("", json!({ "max_ack_pending": 5_000 }), false),
        ("", json!({ "max_deliver": 3 }), false),
    ] {
        assert_eq!(of(&with(options), shown.clone()), same, "{options} {shown}");
    }
    let batch = of_our_own("streams: {A: {subjects: [a], consumers: {c: {}}}}", 1 << 30);
    assert!(!of(&batch, json!({ "max_batch": 50 })), "a server of our own has no limit for it");
}

#[test]
fn a_mirror_answers_direct_gets_as_its_origin_does() {
    let text = |direct: bool, own: &str| {
        format!("streams: {{O: {{subjects: [o], allow_direct: {direct}}}, M: {{mirror: {{name: O}}{own}}}}}")
    };
    let conflicts = |text: &str| {
        let planned = plan(&file(text), &with(vec![]));
        planned.streams[1].sentences()
    };
    assert_eq!(conflicts(&text(true, ", mirror_direct: true")), Vec::<String>::new());
    assert_eq!(conflicts(&text(false, "")), Vec::<String>::new());
    assert_eq!(
        conflicts(&text(false, ", mirror_direct: true")),
        [
            "conflict: mirror_direct (s.yml:1): cannot use true: follows allow_direct of stream O, which is false; change it \
          there, or leave it out"
        ]
    );
}

#[test]
fn messages_of_another_stream_have_to_fit() {
    for lines in ["mirror: {name: O}", "sources: [{name: O}]"] {
        let text = |own: &str, theirs: &str| {
            format!("streams: {{O: {{subjects: [o], max_msg_size: {theirs}}}, M: {{{lines}, max_msg_size: {own}}}}}")
        };
        let blocked = |text: &str| plan(&file(text), &with(vec![])).streams[1].action == Action::Blocked;
        assert!(blocked(&text("1KB", "2KB")), "{lines}");
        assert!(!blocked(&text("2KB", "2KB")) && !blocked(&text("1KB", "-1")), "{lines}");
        let there = server(&file("streams: {O: {subjects: [o], max_msg_size: 2KB}}"), 0);
        let alone = only(plan(&file(&format!("streams: {{M: {{{lines}, max_msg_size: 1KB}}}}")), &there));
        assert!(alone.sentences()[0].contains("must not be below that of stream O, which is 2048"), "{alone:?}");
    }
}

#[test]
fn what_reserves_more_than_there_is_is_not_sent() {
    let desired =
        of_our_own("streams: {A: {subjects: [a], max_bytes: 1GB}, B: {subjects: [b], max_bytes: 512MB}}", 2 << 30);
    let mut there = with(vec![]);
    there.streams = server(&file("streams: {FOREIGN: {subjects: [f], max_bytes: 1GB}}"), 0).streams;
    let planned = plan(&desired, &there);
    assert!(matches!(planned.streams[0].action, Action::Create(_)), "{planned:?}");
    assert_eq!(
        planned.streams[1].sentences(),
        [
            "conflict: max_bytes 512MB (s.yml:1) has no room: other streams reserve 2GB of the 2GB that JETSTREAM_MAX_FILE \
          allows: lower it, or raise JETSTREAM_MAX_FILE to 2560MB at least"
        ]
    );
    assert_eq!(planned.streams[1].action, Action::Blocked);
    let full = of_our_own("streams: {A: {subjects: [a], max_bytes: 1GB}, B: {subjects: [b]}}", 1 << 30);
    let told = plan(&full, &with(vec![])).streams[1].sentences();
    assert!(told.len() == 1 && told[0].contains("even without max_bytes"), "{told:?}");
    assert!(!plan(&full, &server(&full, 0)).has_conflicts(), "it is there");
    // What is there already is not sent again; memory is another room.
    let as_it_is = server(&desired, 0);
    let tight = Desired { capacity: of_our_own("streams: {}", 1 << 20).capacity, ..desired };
    assert!(plan(&tight, &as_it_is).is_nothing() && !plan(&tight, &as_it_is).has_conflicts());
    let memory = of_our_own("streams: {A: {subjects: [a], max_bytes: 1GB, storage: memory}}", 1 << 20);
    assert!(!plan(&memory, &there).has_conflicts());
    // Making it larger needs only the difference.
    let larger = of_our_own("streams: {A: {subjects: [a], max_bytes: 3GB}}", 3 << 30);
    let before = server(&file("streams: {A: {subjects: [a], max_bytes: 2GB}}"), 0);
    assert!(!plan(&larger, &before).has_conflicts());
    let too_large = of_our_own("streams: {A: {subjects: [a], max_bytes: 4GB}}", 3 << 30);
    assert_eq!(only(plan(&too_large, &before)).action, Action::Nothing);
}

#[test]
fn what_the_account_does_not_allow_is_not_sent() {
    let account = |limits: Value| Account::of(json!({ "limits": limits }));
    let there = |limits: Value| Existing { account: account(limits), ..with(vec![]) };
    let market_data = Desired { capacity: None, ..desired(&[]) };
    let sentences = |desired: &Desired, limits: Value| plan(desired, &there(limits)).streams[0].sentences();
    assert_eq!(
        sentences(&market_data, json!({ "max_consumers": 20 })),
        ["conflict: max_consumers is 50 (the default of STREAM_MAX_CONSUMERS), and the account allows 20: set \
          STREAM_MAX_CONSUMERS to 20 at most, or have the account's limit raised"]
    );
    for (limits, sentence) in [
        (json!({ "max_storage": 1000 }), "has no room: other streams reserve 0 of the 1000 that the account allows"),
        (
            json!({ "storage_max_stream_bytes": 1 << 20 }),
            "and the account allows 1MB: set STREAM_MAX_BYTES to 1MB at most",
        ),
        (json!({ "max_streams": 0, "max_consumers": 0 }), ""),
        (json!({ "max_memory": 0, "max_ack_pending": -1 }), ""),
    ] {
        let told = sentences(&market_data, limits.clone());
        assert_eq!(told.len(), usize::from(!sentence.is_empty()), "{limits}: {told:?}");
        assert!(told.iter().all(|told| told.contains(sentence)), "{told:?}");
    }
    let two = file("streams: {A: {subjects: [a]}, B: {subjects: [b], consumers: {c: {}, d: {}}}}");
    let planned = plan(&two, &there(json!({ "max_streams": 1 })));
    assert_eq!(
        planned.streams[1].sentences(),
        ["conflict: the account allows 1 streams, and there are as many already: raise it, or delete some"]
    );
    let planned = plan(&two, &there(json!({ "max_consumers": 1 })));
    assert!(planned.streams[1].sentences()[0].contains("consumer d: the account allows 1 consumers"), "{planned:?}");
    let waiting =
        file("streams:\n  A:\n    subjects: [a]\n    consumers:\n      c: {max_ack_pending: 500}\n      d: {}\n");
    let planned = plan(&waiting, &there(json!({ "max_ack_pending": 200 })));
    assert_eq!(
        planned.streams[0].sentences(),
        [
            "conflict: consumer c: max_ack_pending is 500 (s.yml:5), and the account allows 200: set max_ack_pending to 200 at \
          most, or have the account's limit raised"
        ]
    );
    assert!(matches!(planned.streams[0].consumers[1].action, ConsumerAction::Create(_)), "{planned:?}");
    assert!(!plan(&waiting, &there(json!({ "max_ack_pending": 500 }))).has_conflicts());
    assert!(sentences(&two, json!({ "max_bytes_required": true }))[0].contains("asks for a limit of each stream"));
    let tiers = json!({ "tiers": { "R1": { "limits": { "max_storage": 100 } } } });
    let tiered = Existing { account: Account::of(tiers), ..with(vec![]) };
    let large = file("streams: {A: {subjects: [a], max_bytes: 1KB}}");
    assert!(plan(&large, &tiered).has_conflicts());
}

#[test]
fn what_only_some_servers_refuse_is_a_conflict_there() {
    for (lines, refused, taken) in [
        ("allow_msg_schedules: true, discard: new", (2, 14), (2, 12)),
        ("consumers: {c: {priority_groups: [a]}}", (2, 12), (2, 11)),
        ("consumers: {c: {filter_subjects: ['a.*.b', 'a.c.*']}}", (2, 11), (2, 12)),
        ("consumers: {c: {ack_policy: flow_control, deliver_subject: d}}", (2, 12), (2, 14)),
        ("republish: {dest: '>'}, subject_transform: {src: 'a.>', dest: 'b.>'}", (2, 10), (2, 11)),
        ("sources: [{name: B, consumer: {name: c, deliver_subject: d}}]", (2, 12), (2, 14)),
    ] {
        let desired = file(&format!("streams: {{A: {{subjects: ['a.>'], {lines}}}}}"));
        let on = |version| plan(&desired, &Existing { version, ..with(vec![]) });
        assert!(on(refused).has_conflicts(), "{lines}");
        assert!(!on(taken).has_conflicts(), "{lines}: {:?}", on(taken));
    }
}
