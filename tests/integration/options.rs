//! Every option of the tables, alone, in pairs and in random company, on servers of every version:
//! what we take, the server takes, and nothing is left to do; what we refuse, it refuses or changes.

use std::time::Duration;

use serde_json::{Map, Value};
use unified_nats::domain::{ByteSize, ServerVersion};
use unified_nats::nats::{ApiError, JetStream as Ours, Put, major_minor};
use unified_nats::settings::declared::contradictions::{Contradiction, Servers, contradictions};
use unified_nats::settings::declared::options::{CONSUMER, Field, Kind, STREAM};
use unified_nats::settings::{Capacity, Problems, read_streams};
use unified_nats::streams::spec::Wanted;
use unified_nats::streams::{Conflict, Desired, DesiredStream, Existing, Remark, apply, plan, unheard};

use crate::bare::{BareServer, JETSTREAM};
use crate::plans::failures;
use crate::support::*;

/// What a stream and a consumer can say about a field. `$` is the name of the stream, which its
/// subjects begin with. A field of the tables that is missing here gets values by its kind.
const SAMPLES: &[(&str, &[&str])] = &[
    ("max_age", &["1m", "2h", "50ms"]),
    ("duplicate_window", &["1s", "5m", "0"]),
    ("subject_delete_marker_ttl", &["1h", "500ms"]),
    (
        "subject_transform",
        &["{src: '$.>', dest: 'to.$.>'}", "{src: '$.*', dest: 'to.$.*'}", "{src: '$.*', dest: 'u.$1'}"],
    ),
    (
        "republish",
        &[
            "{dest: 're.$.>'}",
            "{src: '$.a', dest: 're.$', headers_only: true}",
            "{src: '>', dest: '>'}",
            "{src: '$.>', dest: '$.x.>'}",
        ],
    ),
    (
        "mirror",
        &[
            "{name: ORIGIN}",
            "{name: OTHER, opt_start_seq: 3}",
            "{name: ORIGIN, filter_subject: origin.a}",
            "{name: ORIGIN, subject_transforms: [{src: 'origin.>', dest: 'x.>'}]}",
            "{name: ORIGIN, filter_subject: origin.a, subject_transforms: [{src: 'origin.>', dest: 'x.>'}]}",
            "{name: ORIGIN, subject_transforms: [{src: 'origin.*.a', dest: 'x.a'}, {src: 'origin.b.*', dest: 'x.b'}]}",
            "{name: ELSEWHERE, external: {api: $JS.hub.API, deliver: d.x}}",
            "{name: $}",
            "{name: ORIGIN, consumer: {name: c, deliver_subject: d.x}}",
        ],
    ),
    (
        "sources",
        &[
            "[{name: ORIGIN}]",
            "[{name: ORIGIN, filter_subject: origin.a, opt_start_time: 2026-01-31T12:00:00Z}, {name: OTHER}]",
            "[{name: ORIGIN, subject_transforms: [{src: 'origin.>', dest: '$.>'}]}]",
            "[{name: ORIGIN, subject_transforms: [{dest: '$.>'}]}]",
            "[{name: ORIGIN, filter_subject: a, subject_transforms: [{src: 'origin.>', dest: '$.>'}]}]",
            "[{name: ORIGIN, subject_transforms: [{src: 'origin.*.a', dest: 'x.a'}, {src: 'origin.b.*', dest: 'x.b'}]}]",
            "[{name: ORIGIN, subject_transforms: [{src: 'origin.>', dest: 'x.>'}, {src: origin.b, dest: x.b}]}]",
            "[{name: ORIGIN}, {name: ORIGIN, opt_start_seq: 5}]",
            "[{name: $}]",
            "[{name: ELSEWHERE, external: {api: $JS.hub.API}}]",
            "[{name: ELSEWHERE, external: {api: $JS.API}}]",
            "[{name: ORIGIN, consumer: {name: c, deliver_subject: d.x}}]",
            "[{name: ORIGIN, opt_start_seq: 4, consumer: {name: c, deliver_subject: d.x}}]",
        ],
    ),
    ("placement", &["{cluster: c}", "{tags: [a, b]}"]),
    (
        "consumer_limits",
        &["{max_ack_pending: 50}", "{inactive_threshold: 5m}", "{inactive_threshold: 1h, max_ack_pending: 5000}"],
    ),
    ("metadata", &["{a: b}"]),
    ("num_replicas", &["1"]),
    ("opt_start_time", &["2026-01-31T12:00:00Z"]),
    ("pause_until", &["2099-01-31T12:00:00Z", "2020-01-31T12:00:00Z"]),
    ("filter_subjects", &["[$.a]", "[$.b, $.a]", "['$.>', $.a]", "['$.*.b', '$.a.*']"]),
    ("deliver_subject", &["d.$", "d.*", "$.x"]),
    ("deliver_group", &["g"]),
    ("priority_groups", &["[a]", "['a b']"]),
    ("backoff", &["[1s, 2s]", "[5s, 1s, 2s]"]),
    ("max_deliver", &["2", "-1"]),
    ("max_waiting", &["7", "0"]),
    ("max_ack_pending", &["7", "-1", "2000"]),
    ("idle_heartbeat", &["1s", "50ms", "5s"]),
    ("priority_timeout", &["1m"]),
    ("max_expires", &["5s"]),
    ("sample_freq", &["50%", "100"]),
    ("inactive_threshold", &["10m", "0"]),
];

fn samples(field: &Field) -> Vec<String> {
    if let Some((_, samples)) = SAMPLES.iter().find(|(name, _)| *name == field.name) {
        return samples.iter().map(|sample| (*sample).to_owned()).collect();
    }
    let fixed: &[&str] = match field.kind {
        Kind::Word(words) => words,
        Kind::Bool => &["true", "false"],
        Kind::Count | Kind::Limit(_) => &["5"],
        Kind::Size(_) => &["1MB", "-1"],
        Kind::Span => &["30s"],
        Kind::Text => &["text"],
        _ => panic!("{} has no samples", field.name),
    };
    fixed.iter().map(|sample| (*sample).to_owned()).collect()
}

/// One option: `field: value`.
type Option_ = (&'static str, String);

fn options(table: &'static [Field]) -> Vec<Option_> {
    let with = |field: &'static Field| samples(field).into_iter().map(|sample| (field.name, sample));
    table.iter().filter(|field| field.name != "subjects").flat_map(with).collect()
}

/// One stream with options of its own and consumers with theirs, and nothing else in the file.
#[derive(Clone, Default)]
struct Case {
    stream: Vec<Option_>,
    consumers: Vec<Vec<Option_>>,
}

impl Case {
    fn text(&self, name: &str) -> String {
        let line = |(field, value): &Option_| {
            format!("{field}: {}", value.replace("$JS", "@JS").replace("$1", "@1").replace('$', name).replace('@', "$"))
        };
        let mut text = format!("streams:\n  {name}:\n");
        if self.stream.iter().all(|(field, _)| *field != "mirror") {
            text += &format!("    subjects: ['{name}.>']\n");
        }
        for option in &self.stream {
            text += &format!("    {}\n", line(option));
        }
        for (number, consumer) in self.consumers.iter().enumerate() {
            text += if number == 0 { "    consumers:\n" } else { "" };
            text += &format!("      c{number}: {{{}}}\n", consumer.iter().map(line).collect::<Vec<_>>().join(", "));
        }
        text
    }
}

/// All options alone, and all pairs of different ones.
fn alone_and_in_pairs() -> Vec<Case> {
    let mut cases = vec![];
    for table in [STREAM, CONSUMER] {
        let options = options(table);
        let case = |chosen: Vec<Option_>| match std::ptr::eq(table, CONSUMER) {
            true => Case { stream: vec![], consumers: vec![chosen] },
            false => Case { stream: chosen, consumers: vec![vec![]] },
        };
        for (i, one) in options.iter().enumerate() {
            cases.push(case(vec![one.clone()]));
            let others = options[i + 1..].iter().filter(|other| other.0 != one.0);
            cases.extend(others.map(|other| case(vec![one.clone(), other.clone()])));
        }
    }
    // What a stream says decides about its consumers.
    let of_stream = ["retention", "consumer_limits", "max_consumers", "no_ack", "storage", "num_replicas"];
    let deciding: Vec<_> = options(STREAM).into_iter().filter(|(field, _)| of_stream.contains(field)).collect();
    for one in &deciding {
        for option in options(CONSUMER) {
            cases.push(Case { stream: vec![one.clone()], consumers: vec![vec![option.clone()]] });
            cases.push(Case { stream: vec![one.clone()], consumers: vec![vec![], vec![option]] });
        }
    }
    cases
}

fn at_random(random: &mut fastrand::Rng, number: usize) -> Vec<Case> {
    let (of_stream, of_consumer) = (options(STREAM), options(CONSUMER));
    let draw = |random: &mut fastrand::Rng, options: &[Option_], most: usize| {
        let mut chosen: Vec<Option_> = vec![];
        for _ in 0..random.usize(..=most) {
            let option = &options[random.usize(..options.len())];
            if chosen.iter().all(|(field, _)| *field != option.0) {
                chosen.push(option.clone());
            }
        }
        chosen
    };
    let case = |random: &mut fastrand::Rng| Case {
        stream: draw(random, &of_stream, 4),
        consumers: (0..random.usize(..3)).map(|_| draw(random, &of_consumer, 4)).collect(),
    };
    (0..number).map(|_| case(random)).collect()
}

fn read(text: &str) -> (DesiredStream, Problems) {
    let mut problems = Problems::default();
    let streams = read_streams("s.yml", text, &mut problems);
    (DesiredStream::declared(streams.first().unwrap_or_else(|| panic!("{text}: {problems}"))), problems)
}

/// Of a server of our own, which fills in nothing that we do not know.
fn of_our_own(streams: Vec<DesiredStream>) -> Desired {
    let (max_memory, max_file) = (ByteSize::new(1 << 40), ByteSize::new(1 << 40));
    Desired { streams, capacity: Some(Capacity { max_memory, max_file, clustered: false }), ..Desired::default() }
}

/// Streams at a time on one server.
const AT_A_TIME: usize = 400;

/// How many cases were applied and refused; `wrong` gets what is not as it should be.
async fn takes_what_we_take(
    jetstream: &Ours,
    version: ServerVersion,
    cases: &[Case],
    wrong: &mut Vec<String>,
) -> (usize, usize) {
    let (mut applied_cases, mut refused) = (0, 0);
    for (round, chunk) in cases.chunks(AT_A_TIME).enumerate() {
        let named: Vec<_> = chunk.iter().enumerate().map(|(i, case)| case.text(&format!("T{round}-{i}"))).collect();
        let mut good = vec![];
        for text in &named {
            match read(text) {
                (stream, problems) if problems.is_empty() => good.push(stream),
                (stream, problems) => {
                    refused +=
                        usize::from(refuses_what_we_refuse(jetstream, version, &stream, text, &problems, wrong).await);
                }
            }
        }
        let desired = of_our_own(good);
        let applied = apply(jetstream, &desired, &unheard).await.unwrap();
        let text_of = |stream: &str| named.iter().find(|text| text.contains(&format!("  {stream}:\n"))).unwrap();
        for failure in failures(&applied) {
            let stream = failure.split([' ', ':']).find(|word| word.starts_with(&format!("T{round}-"))).unwrap();
            wrong.push(format!("{failure}\n{}", text_of(stream)));
        }
        let mut conflicts = 0;
        for (stream, remark) in &applied.remarks {
            match remark {
                Remark::Conflict { conflict: Conflict::TooOld { since, .. }, .. } => assert!(version < *since),
                Remark::Conflict { conflict: Conflict::Contradiction { .. }, .. } => {}
                // On a mirror of a stream that has not what is filtered, say.
                Remark::Blind { .. } => continue,
                other => wrong.push(format!("{other}\n{}", text_of(stream))),
            }
            conflicts += 1;
        }
        let existing = Existing::read(jetstream, &desired).await.unwrap();
        for left in plan(&desired, &existing).streams.iter().filter(|left| !left.is_nothing()) {
            wrong.push(format!("left to do: {:?}\n{}", left.pending(), text_of(&left.name)));
        }
        applied_cases += desired.streams.len() - conflicts.min(desired.streams.len());
        for stream in &desired.streams {
            // What was a conflict is refused by that server, too, or unknown to it.
            let told = |conflict: &Conflict| matches!(conflict, Conflict::Contradiction { .. });
            let contradicts = applied.remarks.iter().any(|(name, remark)| {
                *name == stream.name && matches!(remark, Remark::Conflict { conflict, .. } if told(conflict))
            });
            let too_old = applied.remarks.iter().any(|(name, remark)| {
                *name == stream.name && matches!(remark, Remark::Conflict { conflict: Conflict::TooOld { .. }, .. })
            });
            jetstream.delete_stream(&stream.name).await.unwrap();
            if contradicts && !too_old {
                let text = text_of(&stream.name);
                refused += usize::from(
                    refuses_what_we_refuse(jetstream, version, stream, text, &Problems::default(), wrong).await,
                );
            }
        }
    }
    (applied_cases, refused)
}

/// With what is declared to be off, which we do not send.
fn declared(mut config: Map<String, Value>, fields: &[Wanted]) -> Map<String, Value> {
    for wanted in fields.iter().filter(|wanted| wanted.value == false) {
        config.insert(wanted.field.name.into(), false.into());
    }
    config
}

/// Whether the server knows all that is asked for; then it must refuse it, or not do as declared.
async fn refuses_what_we_refuse(
    jetstream: &Ours,
    version: ServerVersion,
    stream: &DesiredStream,
    text: &str,
    problems: &Problems,
    wrong: &mut Vec<String>,
) -> bool {
    let config = declared(stream.creation(), &stream.fields);
    let consumers: Vec<_> = stream
        .consumers
        .iter()
        .map(|consumer| (consumer.name.as_str(), declared(consumer.creation(), &consumer.fields)))
        .collect();
    let of_consumers: Vec<_> = consumers.iter().map(|(name, config)| (*name, config)).collect();
    let found: Vec<Contradiction> = contradictions(&stream.name, &config, &of_consumers);
    let found: Vec<_> = found.into_iter().filter(|found| found.servers.hold(version)).collect();
    assert!(problems.is_empty() || found.iter().any(|found| found.servers == Servers::All), "{problems}\n{text}");
    if found.is_empty() {
        // It depends on another stream.
        return false;
    }
    let knows = |fields: &[Wanted]| {
        fields.iter().all(|wanted| {
            wanted.field.needs(&wanted.field.canonical(&wanted.value)).is_none_or(|(_, since)| version >= since)
        })
    };
    if !knows(&stream.fields) || !stream.consumers.iter().all(|consumer| knows(&consumer.fields)) {
        return false;
    }
    let mut refused = vec![];
    let mut as_declared = true;
    let note = |refused: &mut Vec<String>, result: Result<(), ApiError>| match result {
        Ok(()) => {}
        Err(ApiError::Refused { description, .. }) => refused.push(description),
        Err(error) => panic!("{error}\n{text}"),
    };
    note(&mut refused, jetstream.create_stream(&stream.name, &config).await.map(drop));
    for (name, config) in &consumers {
        note(&mut refused, jetstream.put_consumer(&stream.name, name, config, Put::New).await);
    }
    if refused.is_empty() {
        let info = jetstream.stream_info(&stream.name).await.unwrap().unwrap();
        let there = jetstream.consumers(&stream.name).await.unwrap();
        for found in &found {
            let (is, wanted) = match &found.consumer {
                None => (info.config.get(found.field), config.get(found.field)),
                Some(name) => {
                    let is = there.known.iter().find(|consumer| consumer.name == *name).unwrap();
                    let wanted = consumers.iter().find(|(consumer, _)| consumer == name).unwrap();
                    (is.config.get(found.field), wanted.1.get(found.field))
                }
            };
            let off = |value: Option<&Value>| value.is_none_or(|value| value == false);
            as_declared &= is == wanted || (off(is) && off(wanted));
        }
        if as_declared {
            wrong.push(format!("it takes it: {found:?}\n{text}"));
        }
    }
    jetstream.delete_stream(&stream.name).await.unwrap();
    true
}

fn on(version: &str) {
    let mut server = BareServer::new(version, JETSTREAM);
    server.start();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let number = if std::env::var_os("UNIFIED_NATS_FULL").is_some() { 5_000 } else { 250 };
    let mut cases = alone_and_in_pairs();
    if std::env::var_os("UNIFIED_NATS_FULL").is_none() {
        // Each option alone, and a different part of the pairs each time.
        let mut random = fastrand::Rng::with_seed(seed);
        cases.retain(|case| {
            case.stream.len() + case.consumers.iter().map(Vec::len).sum::<usize>() < 2 || random.u8(..) < 64
        });
    }
    cases.extend(at_random(&mut fastrand::Rng::with_seed(seed), number));
    block_on(async {
        let client = server.jetstream().await;
        for (name, direct) in [("ORIGIN", true), ("OTHER", false)] {
            let subject = name.to_lowercase() + ".>";
            let config = serde_json::json!({ "name": name, "subjects": [subject], "allow_direct": direct });
            let made = client.ask(&format!("$JS.API.STREAM.CREATE.{name}"), config).await;
            assert!(made["error"].is_null(), "{made}");
        }
        let jetstream = Ours::new(client.0.clone(), Duration::from_secs(20));
        let mut wrong = vec![];
        let (applied, refused) = takes_what_we_take(&jetstream, major_minor(version), &cases, &mut wrong).await;
        assert!(wrong.is_empty(), "{version}, seed {seed}: {} wrong:\n{}", wrong.len(), wrong.join("\n"));
        println!("{} cases: {applied} applied, {refused} refused", cases.len());
        assert!(applied * 3 > cases.len() && refused * 20 > cases.len(), "{applied} applied, {refused} refused");
    });
}

#[test]
fn what_we_take_the_server_takes_on_2_10() {
    on("2.10.26");
}

#[test]
fn what_we_take_the_server_takes_on_2_11() {
    on("2.11.11");
}

#[test]
fn what_we_take_the_server_takes_on_2_12() {
    on("2.12.8");
}

#[test]
fn what_we_take_the_server_takes_on_2_14() {
    on("2.14.6");
}

#[test]
fn what_we_take_the_server_takes_on_2_15() {
    on(CURRENT);
}
