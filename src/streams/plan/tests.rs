use super::*;
use crate::nats::ConsumerInfo;
use crate::settings::Settings;
use crate::settings::declared::subjects_of;
use crate::settings::read_streams;
use crate::streams::spec::Desired;

mod limits;

const NEW: ServerVersion = (2, 15);

pub(super) fn desired(pairs: &[(&str, &str)]) -> Desired {
    Desired::of(&Settings::load(&pairs, &[]).unwrap().settings)
}

/// Streams of a file.
pub(super) fn file(text: &str) -> Desired {
    let mut problems = Default::default();
    let streams = read_streams("s.yml", text, &mut problems);
    assert!(problems.is_empty(), "{problems}");
    Desired { streams: streams.iter().map(DesiredStream::declared).collect(), ..Desired::default() }
}

pub(super) fn with(streams: Vec<StreamInfo>) -> Existing {
    Existing { streams, version: NEW, ..Existing::default() }
}

/// As a server answers: defaults filled in, things of its own added.
pub(super) fn server(desired: &Desired, messages: u64) -> Existing {
    let stream = |stream: &DesiredStream| {
        let mut config = stream.creation();
        for (field, value) in [("retention", json!("limits")), ("max_msgs", json!(-1)), ("allow_direct", json!(false))]
        {
            config.entry(field).or_insert(value);
        }
        config.insert("consumer_limits".into(), json!({}));
        config.insert("field_of_the_future".into(), json!(7));
        config["metadata"]["_nats.level"] = "1".into();
        let state = StreamState { messages, bytes: messages * 100, ..StreamState::default() };
        StreamInfo { config, state, created: String::new(), cluster: None }
    };
    with(desired.streams.iter().map(stream).collect())
}

pub(super) fn existing(pairs: &[(&str, &str)], messages: u64) -> Existing {
    server(&desired(pairs), messages)
}

impl StreamPlan {
    pub(super) fn sentences(&self) -> Vec<String> {
        self.remarks().iter().map(Remark::to_string).collect()
    }
}

pub(super) fn only(plan: Plan) -> StreamPlan {
    let [stream] = <[_; 1]>::try_from(plan.streams).unwrap();
    stream
}

pub(super) fn updated(plan: Plan) -> (Map<String, Value>, Vec<Change>) {
    match only(plan).action {
        Action::Update { config, changes } => (config, changes),
        other => panic!("{other:?}"),
    }
}

pub(super) fn subjects(config: &Map<String, Value>) -> Vec<String> {
    subjects_of(config).iter().map(ToString::to_string).collect()
}

#[test]
fn a_missing_stream_is_created_with_all_families_and_our_mark() {
    let Action::Create(config) = only(plan(&desired(&[]), &with(vec![]))).action else { panic!() };
    assert_eq!(subjects(&config).len(), 8);
    assert_eq!(config["metadata"]["managed-by"], "unified-nats");
    assert_eq!(config["max_age"], 7_200_000_000_000i64);
    assert!(!config.contains_key("num_replicas"), "what nobody asks for is for the server to say");
}

#[test]
fn what_is_as_desired_is_kept() {
    assert!(plan(&desired(&[]), &existing(&[], 5)).is_nothing());
    let mut sparse = existing(&[("STREAM_MAX_AGE", "0"), ("STREAM_MAX_MSGS", "-1")], 5);
    let config = &mut sparse.streams[0].config;
    for field in ["max_age", "compression"] {
        config.remove(field);
    }
    config.insert("max_msgs".into(), 0.into());
    let wanted = desired(&[("STREAM_MAX_AGE", "-1"), ("STREAM_MAX_MSGS", "0")]);
    let plan = plan(&wanted, &sparse);
    assert!(plan.is_nothing() && !plan.has_conflicts(), "{plan:?}");
}

#[test]
fn other_limits_are_changed_and_unknown_fields_carried_over() {
    let wanted = desired(&[("STREAM_MAX_MSGS", "10"), ("STREAM_MAX_BYTES", "500")]);
    let (config, changes) = updated(plan(&wanted, &existing(&[], 25)));
    assert_eq!((&config["field_of_the_future"], &config["max_msgs"]), (&7.into(), &10.into()));
    assert_eq!(config["metadata"]["_nats.level"], "1");
    let effects: Vec<_> = changes.iter().map(|c| (c.field, c.effect.as_deref())).collect();
    assert_eq!(effects, [("max_msgs", Some("drops 15 messages")), ("max_bytes", Some("drops ≈ 20 messages"))]);
}

#[test]
fn what_cannot_change_is_a_conflict_and_the_rest_is_changed() {
    let wanted = desired(&[("STORAGE_TYPE", "memory"), ("STREAM_MAX_MSGS", "10")]);
    let plan = plan(&wanted, &existing(&[], 1));
    assert!(plan.has_conflicts());
    let remarks = plan.streams[0].sentences();
    assert_eq!(
        remarks,
        [
            "conflict: storage is \"file\" and cannot become \"memory\" (STORAGE_TYPE) while it exists: keep it and change \
          STORAGE_TYPE to what it is, or back it up, recreate and restore it"
        ]
    );
    let (config, _) = updated(plan);
    assert_eq!(config["storage"], "file");
}

#[test]
fn what_is_immutable_depends_on_values_and_version() {
    for (pairs, version, conflict) in [
        (("RETENTION_POLICY", "workqueue"), NEW, true),
        (("RETENTION_POLICY", "interest"), NEW, false),
        (("STREAM_MAX_CONSUMERS", "60"), (2, 11), true),
        (("STREAM_MAX_CONSUMERS", "60"), (2, 12), false),
    ] {
        let existing = Existing { version, ..existing(&[], 0) };
        assert_eq!(plan(&desired(&[pairs]), &existing).has_conflicts(), conflict, "{pairs:?} {version:?}");
    }
}

#[test]
fn a_default_never_costs_messages() {
    let generous = [
        ("STREAM_MAX_MSGS", "-1"),
        ("STREAM_MAX_BYTES", "-1"),
        ("STREAM_MAX_AGE", "0"),
        ("STREAM_SUBJECT_STYLE", "plain"),
    ];
    let full = existing(&generous, 20_000_000);
    let by_default = plan(&desired(&[]), &full);
    let kept: Vec<_> = by_default.streams[0].kept.iter().map(|change| change.field).collect();
    assert_eq!(kept, ["max_msgs", "max_bytes", "max_age"]);
    assert_eq!(
        by_default.streams[0].kept[0].why_kept(),
        "max_msgs stays -1: the default 1000000 drops 19,000,000 messages; set STREAM_MAX_MSGS if that is wanted"
    );
    let (config, changes) = updated(by_default);
    assert_eq!(changes.len(), 1, "the suffixed subjects are added: {changes:?}");
    assert_eq!(subjects(&config).len(), 16, "and the plain ones stay");
    assert_eq!(config["max_msgs"], -1);

    let declared = plan(&desired(&[("STREAM_MAX_MSGS", "1000000")]), &full);
    assert_eq!(declared.streams[0].kept.len(), 2);
    let (config, _) = updated(declared);
    assert_eq!(config["max_msgs"], 1_000_000);
}

#[test]
fn replicas_are_never_lowered_by_omission() {
    let mut three = existing(&[], 0);
    three.streams[0].config.insert("num_replicas".into(), 3.into());
    assert!(plan(&desired(&[]), &three).is_nothing());
    let of_file = file("streams: {A: {subjects: [a]}}");
    let mut three = server(&of_file, 0);
    three.streams[0].config.insert("num_replicas".into(), 3.into());
    assert!(plan(&of_file, &three).is_nothing());
}

#[test]
fn a_stream_of_a_file_is_as_it_is_written_and_else_as_jetstream_has_it() {
    let of_file = file("streams: {A: {subjects: [a], max_msgs: 5, metadata: {team: x}}}");
    let mut other = server(&of_file, 0);
    let config = &mut other.streams[0].config;
    config.insert("max_msgs".into(), 7.into());
    config.insert("description".into(), "somebody's".into());
    config.insert("deny_delete".into(), true.into());
    config.insert("allow_rollup_hdrs".into(), true.into());
    config["metadata"]["team"] = "y".into();
    config["metadata"]["more"] = "z".into();
    let planned = plan(&of_file, &other);
    assert!(!planned.has_conflicts(), "what nobody asks for and cannot change stays: {planned:?}");
    let (config, changes) = updated(planned);
    let fields: Vec<_> = changes.iter().map(|change| change.field).collect();
    assert_eq!(fields, ["description", "max_msgs", "allow_rollup_hdrs", "metadata"]);
    assert_eq!((&config["max_msgs"], &config["deny_delete"]), (&json!(5), &json!(true)));
    assert!(!config.contains_key("description"));
    let marks = json!({ "team": "x", "managed-by": "unified-nats", "managed-stream": "A", "_nats.level": "1" });
    assert_eq!(config["metadata"], marks);
}

#[test]
fn options_of_newer_servers_are_named() {
    let of_file = file("streams: {A: {subjects: [a], allow_msg_ttl: true}}");
    let old = Existing { version: (2, 10), ..Existing::default() };
    let blocked = only(plan(&of_file, &old));
    assert_eq!(blocked.action, Action::Blocked);
    assert_eq!(
        blocked.sentences(),
        ["conflict: allow_msg_ttl (s.yml:1) needs nats-server 2.11 and this one is 2.10: upgrade it, or leave \
          allow_msg_ttl out"]
    );
    let without = Existing { version: (2, 10), ..server(&file("streams: {A: {subjects: [a]}}"), 0) };
    let kept = only(plan(&of_file, &without));
    assert_eq!((kept.action, kept.conflicts.len()), (Action::Nothing, 1));
}

#[test]
fn only_what_bears_our_mark_is_pruned() {
    let mut there = server(&file("streams: {OLD: {subjects: [o]}, FOREIGN: {subjects: [f]}}"), 9);
    there.streams[1].config.remove("metadata");
    let keep = plan(&Desired::default(), &there);
    assert_eq!((keep.streams.len(), keep.extra), (0, vec!["OLD".to_owned(), "FOREIGN".to_owned()]));
    let prune = plan(&Desired { prune: true, ..Desired::default() }, &there);
    assert_eq!(prune.streams[0].action, Action::Prune { messages: 9 });
    assert_eq!((prune.streams.len(), prune.extra), (1, vec!["FOREIGN".to_owned()]));
    // Its subjects can go to another one at once.
    let mut successor = file("streams: {NEW: {subjects: [o]}}");
    successor.prune = true;
    let planned = plan(&successor, &there);
    assert!(!planned.has_conflicts());
    assert_eq!(planned.streams[0].after, [1]);
}

#[test]
fn a_copy_of_ours_is_not_ours_until_it_is_declared() {
    let mut there = server(&file("streams: {OURS: {subjects: [o]}, OLD: {subjects: [p]}}"), 9);
    // Marks of earlier versions named no stream.
    there.streams[1].config["metadata"].as_object_mut().unwrap().remove("managed-stream");
    let mut copy = there.streams[0].clone();
    copy.config.insert("name".into(), "COPY".into());
    copy.config.insert("subjects".into(), json!(["c"]));
    there.streams.push(copy);
    let planned = plan(&Desired { prune: true, ..Desired::default() }, &there);
    let pruned: Vec<_> = planned.streams.iter().map(|stream| stream.name.as_str()).collect();
    assert_eq!((pruned, planned.extra), (vec!["OURS", "OLD"], vec!["COPY".to_owned()]));
    // Repaired it is ours.
    let declared = plan(&file("streams: {COPY: {subjects: [c], max_msgs: 5}}"), &there);
    let (config, _) = updated(declared);
    assert_eq!(config["metadata"]["managed-stream"], "COPY");
}

#[test]
fn there_are_not_more_streams_than_there_may_be() {
    let mut desired = file("streams: {A: {subjects: [a]}, B: {subjects: [b]}, C: {subjects: [c]}}");
    desired.max_streams = Some(2);
    let there = server(&file("streams: {C: {subjects: [c]}}"), 0);
    let planned = plan(&desired, &there);
    let blocked: Vec<_> = planned.streams.iter().map(|stream| stream.action == Action::Blocked).collect();
    assert_eq!(blocked, [false, true, false]);
}

#[test]
fn a_stream_that_does_not_answer_is_left_alone() {
    let there = Existing { unknown: vec!["A".into()], ..with(vec![]) };
    let planned = plan(&file("streams: {A: {subjects: [a]}}"), &there);
    assert_eq!(planned.streams[0].action, Action::Unknown);
    assert!(planned.is_nothing());
}

fn only_one(consumer: ConsumerInfo) -> Consumers {
    Consumers { known: vec![consumer], unknown: vec![] }
}

fn consumer(config: Value) -> ConsumerInfo {
    let Value::Object(config) = config else { panic!() };
    ConsumerInfo { name: "c".into(), config, state: Map::new() }
}

#[test]
fn consumers_are_created_changed_and_left_alone() {
    let desired = file(
        "streams: {A: {subjects: [a.>], consumers: {c: {filter_subjects: [a.b], max_deliver: 5, backoff: [1s, 2s]}}}}",
    );
    let mut there = server(&desired, 0);
    let of = |there: &Existing| only(plan(&desired, there)).consumers.remove(0);
    let ConsumerAction::Create(config) = of(&there).action else { panic!() };
    assert_eq!(
        Value::Object(config.clone()),
        json!({
            "name": "c", "durable_name": "c", "ack_policy": "explicit", "ack_wait": 1_000_000_000, "max_deliver": 5,
            "backoff": [1_000_000_000, 2_000_000_000_i64], "filter_subject": "a.b",
        })
    );
    let mut answered = config;
    for (field, value) in
        [("deliver_policy", json!("all")), ("max_waiting", json!(512)), ("max_ack_pending", json!(1000))]
    {
        answered.insert(field.into(), value);
    }
    there.consumers.insert("A".into(), only_one(consumer(answered.clone().into())));
    assert_eq!(of(&there).action, ConsumerAction::Nothing);
    answered.insert("max_deliver".into(), 6.into());
    answered.insert("ack_policy".into(), "all".into());
    there.consumers.insert("A".into(), only_one(consumer(answered.into())));
    let changed = of(&there);
    assert!(changed.conflicts.is_empty(), "nobody asked for the policy: {changed:?}");
    let ConsumerAction::Update { config, changes } = changed.action else { panic!() };
    assert_eq!((changes.len(), &config["max_deliver"], &config["filter_subject"]), (1, &json!(5), &json!("a.b")));
}

#[test]
fn a_file_says_more_about_the_stream_of_the_eight_families() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.yml");
    let load = |text: &str, pairs: &[(&str, &str)]| {
        std::fs::write(&path, text).unwrap();
        let mut pairs = pairs.to_vec();
        pairs.push(("STREAMS_FILE", path.to_str().unwrap()));
        desired(&pairs).streams.remove(0)
    };
    let value = |stream: &DesiredStream, field: &str| {
        stream.fields.iter().find(|wanted| wanted.field.name == field).map(|wanted| wanted.value.clone())
    };
    let text = "streams: {MARKET_DATA: {max_msgs: 7, max_age: 1h, deny_purge: true, consumers: {c: {}}}}";
    let refined = load(text, &[("STREAM_MAX_AGE", "3h")]);
    assert_eq!((refined.subjects.len(), refined.consumers.len()), (8, 1));
    assert_eq!(value(&refined, "max_msgs"), Some(7.into()));
    assert_eq!(value(&refined, "max_age"), Some(10_800_000_000_000_i64.into()), "the variable wins");
    assert_eq!(value(&refined, "deny_purge"), Some(true.into()));
    assert_eq!(value(&refined, "republish"), None, "what nobody mentions stays as it is");
    let more = load("streams: {MARKET_DATA: {subjects: [custom.>, trade-data.x.>]}}", &[]);
    assert_eq!(more.subjects.len(), 9);
    let strict = load("strict_subjects: true\nstreams: {MARKET_DATA: {subjects: [\"trade.>\"]}}", &[]);
    assert_eq!((strict.subjects.len(), strict.strict_subjects), (1, true));
}

#[test]
fn built_in_sets() {
    let names = |sets: &str| {
        desired(&[("STREAMS_DEFAULTS", sets)]).streams.into_iter().map(|stream| stream.name).collect::<Vec<_>>()
    };
    assert_eq!(names("market-data"), ["MARKET_DATA"]);
    assert_eq!(names("broker"), ["MARKET_DATA", "SYSTEM_EVENTS", "SERVICE_LOGS"]);
    assert_eq!(names("market-data,broker"), ["MARKET_DATA", "MARKET_EVENTS", "SYSTEM_EVENTS", "SERVICE_LOGS"]);
    assert_eq!(names("none"), Vec::<String>::new());
    assert!(!plan(&desired(&[("STREAMS_DEFAULTS", "market-data,broker")]), &with(vec![])).has_conflicts());
}

#[test]
fn what_a_full_stream_gives_up_depends_on_what_it_discards() {
    let text =
        |discard: &str, limit: u64| format!("streams: {{A: {{subjects: [a], discard: {discard}, max_msgs: {limit}}}}}");
    let effects = |desired: &str, there: &str| match only(plan(&file(desired), &server(&file(there), 5))).action {
        Action::Update { changes, .. } => changes.into_iter().filter_map(|change| change.effect).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(effects(&text("new", 2), &text("new", 10)), Vec::<String>::new());
    assert_eq!(effects(&text("old", 2), &text("new", 2)), ["drops 3 messages"]);
    assert_eq!(effects(&text("old", 2), &text("old", 10)), ["drops 3 messages"]);
    // Left out it stays, because that would cost messages.
    let planned = only(plan(&file("streams: {A: {subjects: [a], max_msgs: 2}}"), &server(&file(&text("new", 2)), 5)));
    assert_eq!((planned.action, planned.kept.len()), (Action::Nothing, 1));
}

#[test]
fn what_a_bucket_has_by_default_costs_nothing() {
    let there = server(&file("key_value: {H: {history: 10}}"), 5);
    let planned = only(plan(&file("key_value: {H: {ttl: 24h}}"), &there));
    assert_eq!(planned.kept.iter().map(|change| change.field).collect::<Vec<_>>(), ["max_msgs_per_subject"]);
    let declared = only(plan(&file("key_value: {H: {history: 1}}"), &there));
    assert!(declared.kept.is_empty() && matches!(declared.action, Action::Update { .. }));
}

#[test]
fn a_window_that_nobody_asked_for_gives_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.yml");
    std::fs::write(&path, "streams: {MARKET_DATA: {max_age: 1m, subjects: [\"*.okx.>\"]}}").unwrap();
    let refined = desired(&[("STREAMS_FILE", path.to_str().unwrap())]);
    let config = refined.streams[0].creation();
    assert_eq!(config["duplicate_window"], config["max_age"]);
    let planned = only(plan(&refined, &with(vec![])));
    assert!(planned.sentences()[0].contains("overlaps"), "{:?}", planned.sentences());
    let zero = file("streams: {A: {subjects: [a], duplicate_window: 0}}");
    assert!(plan(&zero, &server(&file("streams: {A: {subjects: [a]}}"), 0)).is_nothing());
}

#[test]
fn consumers_whose_node_is_away_are_left_alone() {
    let desired = file("streams: {A: {subjects: [a], consumers: {c: {}}}}");
    let mut there = server(&desired, 0);
    there.consumers.insert("A".into(), Consumers { known: vec![], unknown: vec!["c".into()] });
    assert!(plan(&desired, &there).is_nothing());
}

#[test]
fn there_are_not_more_consumers_than_there_may_be() {
    let mut desired = file("streams: {A: {subjects: [a], consumers: {c: {}, d: {}}}}");
    desired.max_consumers = Some(3);
    let mut there = server(&desired, 0);
    there.streams[0].state.consumer_count = 2;
    let consumers = only(plan(&desired, &there)).consumers;
    assert!(matches!(consumers[0].action, ConsumerAction::Create(_)));
    assert_eq!(consumers[1].action, ConsumerAction::Blocked);
    let text = consumers[1].conflicts[0].to_string();
    assert_eq!(
        text,
        "JETSTREAM_MAX_CONSUMERS allows 3 consumers, and there are as many already: raise it, or delete some"
    );
}

#[test]
fn what_was_taken_as_it_is_leaves_nothing_to_do() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/streams_file");
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let mut problems = Default::default();
        let streams = read_streams("s.yml", &std::fs::read_to_string(&path).unwrap(), &mut problems);
        let streams = streams.iter().map(DesiredStream::declared).collect();
        let desired = Desired { streams, ..Desired::default() };
        let mut there = with(vec![]);
        for stream in plan(&desired, &there).streams {
            let Action::Create(config) = stream.action else { continue };
            there.streams.push(StreamInfo {
                config,
                state: StreamState::default(),
                created: String::new(),
                cluster: None,
            });
            let known = stream.consumers.into_iter().filter_map(|consumer| match consumer.action {
                ConsumerAction::Create(config) => Some(ConsumerInfo { name: consumer.name, config, state: Map::new() }),
                _ => None,
            });
            there.consumers.insert(stream.name, Consumers { known: known.collect(), unknown: vec![] });
        }
        assert!(!there.streams.is_empty(), "{}: {problems}", path.display());
        assert!(plan(&desired, &there).is_nothing(), "{}", path.display());
    }
}
