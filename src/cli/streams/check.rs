use std::time::SystemTime;

use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Session, with_session};
use crate::cli::Flags;
use crate::cli::args::CheckStreams;
use crate::cli::exit::Code;
use crate::domain::DataType;
use crate::figures;
use crate::nats::{ApiError, ConsumerInfo, StreamInfo};
use crate::settings::declared::options::readable;
use crate::streams::{Action, DesiredStream, Existing, StreamPlan, plan};

/// Streams that are looked at at a time.
const AT_ONCE: usize = 16;

/// Shows the state of the streams against the desired ones.
pub fn check(flags: &Flags, arguments: &CheckStreams) -> Code {
    with_session(flags, arguments.nats_url.as_deref(), arguments.timeout, async |session| {
        let existing = match Existing::read(&session.jetstream, &session.desired).await {
            Ok(existing) => existing,
            Err(error) => {
                complain!("cannot look at the streams: {error}");
                return Code::Failed;
            }
        };
        let subjects = subjects(&session, &existing, arguments.stream.as_deref()).into_iter();
        let looks: Vec<_> = subjects.map(|subject| subject.inspect(&session, arguments.detailed)).collect();
        let streams: Vec<_> = stream::iter(looks).buffered(AT_ONCE).collect().await;
        print(&streams, arguments)
    })
}

/// What is to be looked at.
struct Subject<'a> {
    name: String,
    desired: Option<&'a DesiredStream>,
    info: Option<StreamInfo>,
    plan: Option<StreamPlan>,
}

/// Declared streams first, then the others; or the one that was asked for.
fn subjects<'a>(session: &'a Session, existing: &Existing, only: Option<&str>) -> Vec<Subject<'a>> {
    let planned = plan(&session.desired, existing).streams;
    let declared = session.desired.streams.iter().map(|desired| desired.name.clone());
    let others = existing.streams.iter().map(|info| info.name().to_owned());
    let mut names: Vec<String> = declared.collect();
    names.extend(others.filter(|name| session.desired.stream(name).is_none()));
    if let Some(only) = only {
        names.retain(|name| name == only);
        if names.is_empty() {
            names.push(only.to_owned());
        }
    }
    names
        .into_iter()
        .map(|name| Subject {
            desired: session.desired.stream(&name),
            info: existing.streams.iter().find(|info| info.name() == name).cloned(),
            plan: planned.iter().find(|plan| plan.name == name).cloned(),
            name,
        })
        .collect()
}

/// What was found about one stream.
struct Inspected {
    name: String,
    info: Option<StreamInfo>,
    /// What keeps it from its work.
    failures: Vec<String>,
    /// What is not as declared.
    deviations: Vec<String>,
    consumers: Vec<ConsumerInfo>,
    families: Vec<Family>,
}

struct Family {
    name: &'static str,
    messages: u64,
    last: Option<OffsetDateTime>,
}

impl Subject<'_> {
    async fn inspect(self, session: &Session, detailed: bool) -> Inspected {
        let Self { name, desired, info, plan } = self;
        let (mut failures, mut deviations) = (vec![], vec![]);
        match (&info, desired) {
            // What the plan says about one that does not answer is said below.
            (None, _) if plan.as_ref().is_some_and(|plan| plan.action == Action::Unknown) => {}
            (None, _) => failures.push("it does not exist".to_owned()),
            (Some(info), Some(desired)) if !desired.is_served_by(&info.config) => {
                failures.push("it does not capture all of its subjects".to_owned());
            }
            _ => {}
        }
        for remark in plan.iter().flat_map(StreamPlan::remarks) {
            match info.is_none() || remark.is_conflict() {
                true => failures.push(remark.to_string()),
                false => deviations.push(remark.to_string()),
            }
        }
        let (changes, missing) = plan.as_ref().map(StreamPlan::pending).unwrap_or_default();
        deviations.extend(changes);
        failures.extend(missing);
        let mut looked = Inspected { name, info, failures, deviations, consumers: vec![], families: vec![] };
        if detailed
            && looked.info.is_some()
            && let Err(error) = looked.inspect_closely(session).await
        {
            looked.failures.push(format!("it cannot be looked at closer: {error}"));
        }
        looked
    }
}

impl Inspected {
    async fn inspect_closely(&mut self, session: &Session) -> Result<(), ApiError> {
        self.consumers = session.jetstream.consumers(&self.name).await?.known;
        if self.name == session.settings.market_data.name.as_str() {
            self.families = families(session, &self.name).await?;
        }
        Ok(())
    }
}

async fn families(session: &Session, stream: &str) -> Result<Vec<Family>, ApiError> {
    let mut families = vec![];
    for family in DataType::ALL {
        let (mut messages, mut last) = (0, None);
        for filter in family.subjects(session.settings.market_data.style) {
            messages += session.jetstream.messages_of(stream, &filter).await?;
            let time = session.jetstream.last_time_of(stream, &filter).await?;
            last = last.max(time.and_then(|time| OffsetDateTime::parse(&time, &Rfc3339).ok()));
        }
        families.push(Family { name: family.name(), messages, last });
    }
    Ok(families)
}

fn print(streams: &[Inspected], arguments: &CheckStreams) -> Code {
    let healthy = streams.iter().all(|stream| stream.failures.is_empty());
    let code = if healthy { Code::Success } else { Code::Failed };
    let quiet = arguments.quiet;
    match (arguments.stats, arguments.output.json) {
        (true, true) => {
            let stats: Vec<_> = streams.iter().filter_map(|stream| Some(stats(stream.info.as_ref()?))).collect();
            say!("{:#}", json!(stats));
        }
        (false, true) => {
            let streams: Vec<_> = streams.iter().map(|stream| as_json(stream, arguments.detailed)).collect();
            say!("{:#}", json!({ "healthy": healthy, "streams": streams }));
        }
        (stats, false) => {
            for stream in streams.iter().filter(|stream| !quiet || !stream.failures.is_empty()) {
                print_one(stream, arguments.detailed, stats);
            }
            if !quiet {
                say!("{}", if healthy { "as declared" } else { "not as declared" });
            }
        }
    }
    code
}

/// The numbers of a stream under keys that do not change.
fn stats(info: &StreamInfo) -> Value {
    let config = |name: &str| info.config.get(name).cloned().unwrap_or_default();
    let state = &info.state;
    json!({
        "stream_name": info.name(), "messages": state.messages, "bytes": state.bytes, "first_seq": state.first_seq,
        "last_seq": state.last_seq, "consumer_count": state.consumer_count, "subjects": config("subjects"),
        "max_msgs": config("max_msgs"), "max_bytes": config("max_bytes"), "max_age": config("max_age"),
        "storage": config("storage"), "retention": config("retention"),
    })
}

fn as_json(stream: &Inspected, detailed: bool) -> Value {
    let mut result = stream.info.as_ref().map_or_else(|| json!({ "stream_name": stream.name }), stats);
    result["failures"] = stream.failures.clone().into();
    result["deviations"] = stream.deviations.clone().into();
    if let Some(info) = stream.info.as_ref().filter(|_| detailed) {
        result["first_time"] = time(&info.state.first_ts).into();
        result["last_time"] = time(&info.state.last_ts).into();
        result["used_percent"] = used(info)
            .into_iter()
            .map(|(limit, percent)| (limit.to_owned(), percent.into()))
            .collect::<Map<_, _>>()
            .into();
        result["consumers"] = stream.consumers.iter().map(consumer_as_json).collect();
        let family = |family: &Family| json!({ "family": family.name, "messages": family.messages, "last_message_age_seconds": family.last.map(age) });
        result["families"] = stream.families.iter().map(family).collect();
    }
    result
}

/// [`None`] for what JetStream says of a stream that never held a message.
fn time(text: &str) -> Option<&str> {
    (!text.starts_with("0001-")).then_some(text)
}

fn consumer_as_json(consumer: &ConsumerInfo) -> Value {
    let state = |name: &str| consumer.state.get(name).cloned().unwrap_or_default();
    json!({
        "name": consumer.name, "pending": state("num_pending"), "ack_pending": state("num_ack_pending"),
        "redelivered": state("num_redelivered"), "last_active": last_active(consumer),
    })
}

fn last_active(consumer: &ConsumerInfo) -> Option<String> {
    let of = |name: &str| Some(consumer.state.get(name)?.get("last_active")?.as_str()?.to_owned());
    [of("delivered"), of("ack_floor")].into_iter().flatten().max()
}

fn print_one(stream: &Inspected, detailed: bool, with_numbers: bool) {
    let mark = match (stream.failures.is_empty(), stream.deviations.is_empty()) {
        (true, true) => "ok  ",
        (true, false) => "warn",
        (false, _) => "FAIL",
    };
    let Some(info) = &stream.info else {
        return say!("{mark}  {}: {}", stream.name, stream.failures.join("; "));
    };
    let state = &info.state;
    say!(
        "{mark}  {}: {} messages, {}, sequences {} to {}, {} consumers",
        stream.name,
        state.messages,
        figures::bytes(state.bytes as f64),
        state.first_seq,
        state.last_seq,
        state.consumer_count
    );
    for text in stream.failures.iter().chain(&stream.deviations) {
        say!("      {text}");
    }
    let config = |name: &str| info.config.get(name).cloned().unwrap_or_default();
    if detailed || with_numbers {
        say!("      subjects {}", config("subjects"));
        say!(
            "      retention {}, storage {}, max_msgs {}, max_bytes {}, max_age {}",
            config("retention"),
            config("storage"),
            config("max_msgs"),
            config("max_bytes"),
            readable("max_age", &config("max_age"))
        );
    }
    if !detailed {
        return;
    }
    let used: Vec<_> = used(info).into_iter().map(|(limit, percent)| format!("{percent:.1} % of {limit}")).collect();
    if !used.is_empty() {
        say!("      used: {}", used.join(", "));
    }
    if state.messages > 0 {
        say!("      first message {}, last {}", state.first_ts, state.last_ts);
    }
    for consumer in &stream.consumers {
        let number = |name: &str| consumer.state.get(name).and_then(Value::as_u64).unwrap_or_default();
        say!(
            "      consumer {}: {} pending, {} not acknowledged, {} redelivered, last active {}",
            consumer.name,
            number("num_pending"),
            number("num_ack_pending"),
            number("num_redelivered"),
            last_active(consumer).unwrap_or_else(|| "never".into())
        );
    }
    for Family { name, messages, last } in &stream.families {
        let last = last.map_or_else(|| "none yet".to_owned(), |last| format!("the last {} s ago", age(last)));
        say!("      family {name:<17} {messages:>12} messages, {last}");
    }
}

/// Percent of each limit that is used.
fn used(info: &StreamInfo) -> Vec<(&'static str, f64)> {
    let percent = |name: &'static str, used: u64| {
        let limit = info.config.get(name)?.as_u64().filter(|limit| *limit > 0)?;
        Some((name, used as f64 * 100.0 / limit as f64))
    };
    let state = &info.state;
    let now = OffsetDateTime::from(SystemTime::now());
    let first = OffsetDateTime::parse(&state.first_ts, &Rfc3339).ok().filter(|_| state.messages > 0);
    let oldest = first.map_or(0, |first| u64::try_from((now - first).whole_nanoseconds()).unwrap_or_default());
    let limits = [
        percent("max_msgs", state.messages),
        percent("max_bytes", state.bytes),
        percent("max_age", oldest),
        percent("max_consumers", state.consumer_count),
    ];
    limits.into_iter().flatten().collect()
}

/// In seconds.
fn age(time: OffsetDateTime) -> i64 {
    (OffsetDateTime::from(SystemTime::now()) - time).whole_seconds()
}
