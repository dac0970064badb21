//! The streams of a server against those that should be.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::report::{Check, FamilyStatus, Report, StreamConflict, StreamNumbers};
use crate::domain::DataType;
use crate::nats::JetStream;
use crate::settings::declared::subjects_of;
use crate::streams::{Desired, Existing, Plan, Remark, StreamPlan, plan};

/// A stream with more subjects is not counted by family: the answer names each of them. 10,000 are about
/// half a megabyte once a minute.
const MOST_SUBJECTS: u64 = 10_000;
/// For that answer. What is not counted keeps no health check from its end.
const COUNT_DEADLINE: Duration = Duration::from_secs(1);

/// What of the streams is looked at, besides that they are there.
#[derive(Clone, Copy, Debug)]
pub struct Aspects {
    pub configuration: bool,
    pub families: bool,
}

/// Looks at the streams, for `report`; `market_data` is the name of the one with the eight families.
pub async fn examine_streams(
    jetstream: &JetStream,
    desired: &Desired,
    market_data: &str,
    aspects: Aspects,
    report: &mut Report,
) {
    let mut look = None;
    let exist = Check::run("stream", async {
        let taken = StreamsSnapshot::take(jetstream, desired).await?;
        let exist = taken.exist();
        look = Some(taken);
        exist
    });
    let exist = exist.await;
    if aspects.configuration || look.is_none() {
        report.checks.push(exist);
    }
    let Some(look) = look else { return };
    report.observed.streams = look.numbers();
    report.observed.missing = Some(look.missing().into_iter().map(str::to_owned).collect());
    report.observed.conflicts = look.conflicts();
    if aspects.families {
        report.checks.push(Check::run("datatypes", async { look.families(market_data) }).await);
        report.observed.families = look.captured(market_data);
        if aspects.configuration {
            look.count(jetstream, market_data, &mut report.observed.families).await;
        }
    }
    if aspects.configuration {
        report.checks.extend(look.deviations());
    }
}

/// Whether messages of that subject are of the family, in either spelling.
fn belongs(subject: &str, family: DataType) -> bool {
    DataType::of_subject(subject) == Some(family)
}

/// One look at all streams.
struct StreamsSnapshot<'a> {
    desired: &'a Desired,
    existing: Existing,
    plan: Plan,
}

impl<'a> StreamsSnapshot<'a> {
    async fn take(jetstream: &JetStream, desired: &'a Desired) -> Result<Self, String> {
        let existing = Existing::read(jetstream, desired).await.map_err(|error| error.to_string())?;
        let plan = plan(desired, &existing);
        Ok(Self { desired, existing, plan })
    }

    /// Streams that should be and are not known to be there.
    fn missing(&self) -> Vec<&str> {
        let missing = |wanted: &str| self.existing.streams.iter().all(|info| info.name() != wanted);
        self.desired.streams.iter().map(|stream| stream.name.as_str()).filter(|name| missing(name)).collect()
    }

    /// What cannot become as it is declared.
    fn conflicts(&self) -> Vec<StreamConflict> {
        let of_stream = |plan: &StreamPlan| {
            let of = plan.remarks().into_iter().filter(Remark::is_conflict);
            let stream = plan.name.clone();
            of.map(move |remark| StreamConflict { stream: stream.clone(), what: remark.to_string() })
                .collect::<Vec<_>>()
        };
        self.plan.streams.iter().flat_map(of_stream).collect()
    }

    /// Every stream that should be is there.
    fn exist(&self) -> Result<String, String> {
        let missing = self.missing();
        if let Some(first) = missing.first() {
            let more = match missing.len() {
                1 => String::new(),
                count => format!(", nor do {} more", count - 1),
            };
            let verb = match self.existing.unknown.iter().any(|name| name == first) {
                true => "does not answer",
                false => "does not exist",
            };
            return Err(format!("stream {first} {verb}{more}"));
        }
        let mut texts = self.numbers().into_iter().map(|stream| {
            let StreamNumbers { name, messages, bytes, first_seq, last_seq, consumers, .. } = stream;
            format!(
                "{name}: {messages} messages, {bytes} bytes, sequences {first_seq} to {last_seq}, {consumers} consumers"
            )
        });
        let first = texts.next().unwrap_or_else(|| "no stream is declared".into());
        Ok(match texts.count() {
            0 => first,
            more => format!("{first}; and {more} more"),
        })
    }

    /// What each declared stream holds.
    fn numbers(&self) -> Vec<StreamNumbers> {
        let found = self.desired.streams.iter().filter_map(|stream| {
            let info = self.existing.streams.iter().find(|info| info.name() == stream.name)?;
            let state = &info.state;
            let limit = |field: &str| info.config.get(field).and_then(Value::as_u64).filter(|limit| *limit > 0);
            Some(StreamNumbers {
                name: stream.name.clone(),
                messages: state.messages,
                bytes: state.bytes,
                first_seq: state.first_seq,
                last_seq: state.last_seq,
                last_ts: state.last_ts.clone(),
                consumers: state.consumer_count,
                max_messages: limit("max_msgs"),
                max_bytes: limit("max_bytes"),
                refuses_when_full: info.config.get("discard").and_then(Value::as_str) == Some("new"),
            })
        });
        found.collect()
    }

    /// Whether the stream of that name captures each family that is declared for it.
    fn captured(&self, name: &str) -> Vec<FamilyStatus> {
        let Some(stream) = self.desired.stream(name) else { return vec![] };
        let info = self.existing.streams.iter().find(|info| info.name() == name);
        let captured = info.map(|info| subjects_of(&info.config)).unwrap_or_default();
        let of_family = |family: DataType| {
            let subjects = stream.subjects.iter().filter(|subject| belongs(subject.as_str(), family));
            let mut subjects = subjects.peekable();
            subjects.peek()?;
            let is_captured = subjects.all(|subject| captured.iter().any(|filter| filter.covers(subject)));
            let name = name.to_owned();
            Some(FamilyStatus { name: family.name().to_owned(), stream: name, is_captured, messages: None })
        };
        DataType::ALL.into_iter().filter_map(of_family).collect()
    }

    /// Counts the messages of each family in the stream of that name, with one request that changes
    /// nothing. A consumer for each family would give its number without the subjects, but costs a decision
    /// of the whole cluster, counts as one of the stream's consumers, and changes what a work queue keeps.
    /// When the last message of a family came is not asked for: nats-server would read one block after the
    /// other back to it, all of them for a family that is quiet.
    async fn count(&self, jetstream: &JetStream, name: &str, families: &mut [FamilyStatus]) {
        let info = self.existing.streams.iter().find(|info| info.name() == name);
        if info.is_none_or(|info| info.state.num_subjects > MOST_SUBJECTS) {
            return;
        }
        let counted = timeout(COUNT_DEADLINE, jetstream.messages_by_subject(name)).await;
        let Ok(Ok(by_subject)) = counted else { return };
        for (status, family) in families.iter_mut().filter_map(|status| {
            let family = DataType::ALL.into_iter().find(|family| family.name() == status.name)?;
            Some((status, family))
        }) {
            let of_family = by_subject.iter().filter(|(subject, _)| belongs(subject, family));
            status.messages = Some(of_family.map(|(_, messages)| messages).sum());
        }
    }

    /// Each family that should be is captured by the stream of the eight families; `name` is its name.
    fn families(&self, name: &str) -> Result<String, String> {
        let Some(stream) = self.desired.stream(name) else { return Ok("no family is declared".into()) };
        let info = self.existing.streams.iter().find(|info| info.name() == name);
        let absent = || match self.existing.unknown.iter().any(|unknown| unknown == name) {
            true => format!("stream {name} does not answer"),
            false => format!("stream {name} does not exist"),
        };
        let info = info.ok_or_else(absent)?;
        let captured = subjects_of(&info.config);
        let lost: Vec<_> = stream
            .subjects
            .iter()
            .filter(|subject| !captured.iter().any(|filter| filter.covers(subject)))
            .map(ToString::to_string)
            .collect();
        if !lost.is_empty() {
            return Err(format!("{name} does not capture {}", lost.join(", ")));
        }
        let is_declared =
            |family: &&DataType| stream.subjects.iter().any(|subject| belongs(subject.as_str(), **family));
        match DataType::ALL.iter().filter(is_declared).count() {
            count if count == DataType::ALL.len() => Ok(format!("{name} captures all {count} families")),
            count => Ok(format!("{name} captures the {count} families that are declared")),
        }
    }

    /// What is not as it should be, and does not keep a stream from its work.
    fn deviations(&self) -> Vec<Check> {
        let mut deviations = vec![];
        for stream in &self.plan.streams {
            let (changes, missing) = stream.pending();
            let sentences = stream.remarks().into_iter().map(|remark| remark.to_string()).chain(changes).chain(missing);
            let named = |sentence: String| Check::warning("settings", format!("{}: {sentence}", stream.name));
            deviations.extend(sentences.map(named));
        }
        deviations
    }
}
