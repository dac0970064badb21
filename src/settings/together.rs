//! What all declared streams come to together: whose subjects are whose, and how many there may be.

use super::declared::{DeclaredStream, subjects_of};
use super::market_data::MarketDataSettings;
use super::reader::Reader;
use super::streams::StreamsSettings;
use super::variables::*;
use crate::domain::{Claim, DataType, Overlaps, Subject};

/// Problems of one kind reported at a time.
const MOST_REPORTED: usize = 50;

/// A stream with the subjects that it is to capture.
struct Capturing {
    name: String,
    /// Where they are declared.
    place: String,
    subjects: Vec<Subject>,
}

pub(super) fn check(streams: &StreamsSettings, market_data: &MarketDataSettings, reader: &mut Reader) {
    let all = all(streams, market_data);
    numbers(streams, &all, reader);
    refuse_overlaps(&all, reader);
}

/// Each with the stream that captures it.
pub(super) fn captured(streams: &StreamsSettings, market_data: &MarketDataSettings) -> Vec<(String, Subject)> {
    let of = |stream: Capturing| stream.subjects.into_iter().map(move |subject| (stream.name.clone(), subject));
    all(streams, market_data).into_iter().flat_map(of).collect()
}

fn all(streams: &StreamsSettings, market_data: &MarketDataSettings) -> Vec<Capturing> {
    let refined = streams.declared.iter().find(|stream| streams.market_data && stream.name == market_data.name);
    let others = streams.declared.iter().filter(|stream| refined.is_none_or(|refined| refined.name != stream.name));
    let mut all: Vec<Capturing> = vec![];
    if streams.market_data {
        all.push(Capturing::families(market_data, refined));
    }
    all.extend(others.map(Capturing::declared));
    all
}

/// nats-server stores no message in two streams of an account: it refuses the second one.
fn refuse_overlaps(all: &[Capturing], reader: &mut Reader) {
    let mut earlier = Overlaps::default();
    let mut reported = 0;
    for (number, stream) in all.iter().enumerate() {
        let shared = |subject| earlier.find(subject, &|_| true).map(|claim| (subject, claim));
        if let Some((subject, Claim { stream: other, subject: theirs })) = stream.subjects.iter().find_map(shared)
            && reported < MOST_REPORTED
        {
            reported += 1;
            let Capturing { name, place, .. } = &all[other];
            let remedy = match place == STREAM_SUBJECT_STYLE.name {
                true => format!(
                    "take it out, declare it below {name}, or set STREAMS_DEFAULTS=none to do without that stream"
                ),
                false => "take it out of one of the two, or narrow it".to_owned(),
            };
            reader.problems.add(
                stream.place.as_str(),
                format!("{:?}", subject.as_str()),
                format!(
                    "shares subjects with {:?} of stream {name} ({place}), and a message can belong to one stream only",
                    theirs.as_str()
                ),
                remedy,
            );
        }
        // Those of one stream among each other are looked at elsewhere.
        stream.subjects.iter().for_each(|subject| earlier.claim(number, subject));
    }
}

/// What is declared must have room by itself, whatever else a server holds.
fn numbers(streams: &StreamsSettings, all: &[Capturing], reader: &mut Reader) {
    let consumers = streams.declared.iter().map(|stream| stream.consumers.len()).sum::<usize>();
    for (variable, most, declared, what) in [
        (&JETSTREAM_MAX_STREAMS, streams.max_streams, all.len(), "streams and buckets"),
        (&JETSTREAM_MAX_CONSUMERS, streams.max_consumers, consumers, "consumers"),
    ] {
        let Some(most) = most.filter(|most| (declared as u64) > *most) else { continue };
        let with_ours = match all.first() {
            Some(first) if streams.market_data && variable.name == JETSTREAM_MAX_STREAMS.name => {
                format!(", with {} of the eight families", first.name)
            }
            _ => String::new(),
        };
        reader.problems.add(
            variable.name,
            format!("{most} for the {declared} {what} that are declared{with_ours}"),
            "there must be room for all that is declared",
            format!("raise {} to {declared} at least, or declare fewer", variable.name),
        );
    }
}

impl Capturing {
    fn declared(stream: &DeclaredStream) -> Self {
        let line = stream.lines.get("subjects").copied().unwrap_or(stream.line);
        Self {
            name: stream.name.to_string(),
            place: format!("{}:{line}: {}.subjects", stream.file, stream.name),
            subjects: subjects_of(&stream.config),
        }
    }

    /// The stream of the eight families, of which a file may say more.
    fn families(settings: &MarketDataSettings, refined: Option<&DeclaredStream>) -> Self {
        let more = refined.map(Self::declared).filter(|more| !more.subjects.is_empty());
        let families = DataType::ALL.iter().flat_map(|family| family.subjects(settings.style));
        // They are subjects by construction.
        let families = families.filter_map(|text| text.parse().ok());
        match more {
            Some(more) if refined.is_some_and(|stream| stream.strict_subjects) => more,
            Some(more) => Self { subjects: families.chain(more.subjects).collect(), ..more },
            None => Self {
                name: settings.name.to_string(),
                place: STREAM_SUBJECT_STYLE.name.to_owned(),
                subjects: families.collect(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::tests::load;

    fn problems(text: &str, pairs: &[(&str, &str)]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.yml");
        std::fs::write(&path, text).unwrap();
        let mut all = vec![("STREAMS_FILE", path.to_str().unwrap())];
        all.extend(pairs);
        let name = path.display().to_string();
        let problems = load(&all).err().map(|problems| problems.list).unwrap_or_default();
        problems.iter().map(|problem| problem.to_string().replace(&name, "s.yml")).collect()
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn a_subject_belongs_to_one_declared_stream() {
        assert_eq!(
            problems("streams:\n  A:\n    subjects: [a.>]\n  B:\n    subjects: [b, 'a.*.c']\n", &[]),
            [
                "s.yml:5: B.subjects: cannot use \"a.*.c\": shares subjects with \"a.>\" of stream A (s.yml:3: A.subjects), \
                 and a message can belong to one stream only; take it out of one of the two, or narrow it"
            ]
        );
        for (text, pairs, told) in [
            // With the eight families, in the style that holds.
            (
                "streams: {T: {subjects: ['trade-data.binance.>']}}",
                &[][..],
                "of stream MARKET_DATA (STREAM_SUBJECT_STYLE), and a message can belong to one stream only; take it out, \
                 declare it below MARKET_DATA, or set STREAMS_DEFAULTS=none",
            ),
            (
                "streams: {T: {subjects: ['trade.>']}}",
                &[("STREAM_SUBJECT_STYLE", "both")],
                "shares subjects with \"trade.>\"",
            ),
            // What a file adds to that stream counts as well.
            ("streams: {MARKET_DATA: {subjects: [x.>]}, T: {subjects: [x.y]}}", &[], "(s.yml:1: MARKET_DATA.subjects)"),
            // Those of built-in sets, and of buckets.
            (
                "streams: {T: {subjects: [system.x]}}",
                &[("STREAMS_DEFAULTS", "broker")],
                "of stream SYSTEM_EVENTS (STREAMS_DEFAULTS=broker:",
            ),
            ("streams: {T: {subjects: ['$KV.K.a']}}\nkey_value: {K: {}}", &[], "of stream T (s.yml:1: T.subjects)"),
        ] {
            let told_us = problems(text, pairs);
            assert!(told_us.len() == 1 && told_us[0].contains(told), "{text}: {told_us:?}");
        }
        for (text, pairs) in [
            ("streams: {A: {subjects: [a.>]}, B: {subjects: [b.>, 'c.*.d']}, C: {subjects: ['c.d']}}", &[][..]),
            ("streams: {T: {subjects: ['trade.>']}}", &[]),
            ("streams: {T: {subjects: ['trade-data.>']}}", &[("STREAMS_DEFAULTS", "none")]),
            ("streams: {MARKET_DATA: {subjects: [x.>], strict_subjects: true}, T: {subjects: ['trade-data.>']}}", &[]),
            ("streams: {A: {subjects: [a.>]}, M: {mirror: {name: A}}}", &[]),
        ] {
            assert_eq!(problems(text, pairs), NONE, "{text}");
        }
    }

    #[test]
    fn what_is_declared_has_room() {
        let text = "streams: {A: {subjects: [a], consumers: {c: {}, d: {}}}}\nkey_value: {K: {}}";
        assert_eq!(
            problems(text, &[("JETSTREAM_MAX_STREAMS", "2"), ("JETSTREAM_MAX_CONSUMERS", "1")]),
            [
                "JETSTREAM_MAX_STREAMS: cannot use 2 for the 3 streams and buckets that are declared, with MARKET_DATA of the \
                 eight families: there must be room for all that is declared; raise JETSTREAM_MAX_STREAMS to 3 at least, or \
                 declare fewer",
                "JETSTREAM_MAX_CONSUMERS: cannot use 1 for the 2 consumers that are declared: there must be room for all that \
                 is declared; raise JETSTREAM_MAX_CONSUMERS to 2 at least, or declare fewer"
            ]
        );
        assert_eq!(problems(text, &[("JETSTREAM_MAX_STREAMS", "3"), ("JETSTREAM_MAX_CONSUMERS", "2")]), NONE);
        assert_eq!(problems(text, &[("JETSTREAM_MAX_STREAMS", "2"), ("STREAMS_DEFAULTS", "none")]), NONE);
    }
}
