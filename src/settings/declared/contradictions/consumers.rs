use serde_json::{Map, Value};

use super::{Consumer, Contradiction, Finder, Servers};
use crate::domain::Subject;
use crate::settings::declared::options::readable;
use crate::settings::declared::{filters_of, subjects_of};

pub(super) fn find(stream: &Map<String, Value>, consumers: &[Consumer<'_>]) -> Vec<Contradiction> {
    let mut found = vec![];
    for (i, (name, config)) in consumers.iter().enumerate() {
        let mut finder = Finder::of(config, Some(name));
        one(&mut finder);
        in_stream(&mut finder, stream);
        if stream.get("retention").is_some_and(|retention| retention == "workqueue") {
            of_work_queue(&mut finder, &consumers[..i]);
        }
        found.append(&mut finder.found);
    }
    let most = stream.get("max_consumers").and_then(Value::as_i64).unwrap_or_default();
    if most > 0 && consumers.len() as i64 > most {
        let mut finder = Finder::of(stream, None);
        let rule = format!("must not be below the number of declared consumers, which is {}", consumers.len());
        finder.refuse("max_consumers", most.to_string(), rule, "raise it, or declare fewer");
        found.append(&mut finder.found);
    }
    found
}

fn ack_policy<'a>(finder: &Finder<'a>) -> &'a str {
    match finder.text("ack_policy") {
        // What we create a consumer with that says nothing about it.
        "" => "explicit",
        policy => policy,
    }
}

fn one(finder: &mut Finder<'_>) {
    if finder.has("deliver_subject") {
        push(finder)
    } else {
        pull(finder)
    }
    start(finder);
    priorities(finder);
    finder.metadata();
    if ack_policy(finder) == "flow_control" {
        finder.refused_by(
            Servers::Before((2, 14)),
            "ack_policy",
            "\"flow_control\"",
            "is for nats-server 2.14 and later",
            "upgrade it, or choose another policy",
        );
        for (is, what) in [
            (!finder.has("deliver_subject"), "deliver_subject"),
            (finder.has("ack_wait") || finder.has("backoff"), "no ack_wait and no backoff"),
            (finder.number("max_deliver") > 0, "no max_deliver"),
            (finder.number("max_ack_pending") < 0, "a limit for max_ack_pending"),
        ] {
            if is {
                finder.refuse("ack_policy", "\"flow_control\"", format!("needs {what}"), "correct one of the two");
            }
        }
        let beat = finder.number("idle_heartbeat");
        if finder.is_off("flow_control") || (beat != 0 && beat != 1_000_000_000) {
            let rule = "sets flow_control: true and idle_heartbeat: 1s itself";
            finder.refuse("ack_policy", "\"flow_control\"", rule, "leave both out");
        }
    }
    let retries = finder.config.get("backoff").and_then(Value::as_array).map_or(0, Vec::len) as i64;
    let most = finder.number("max_deliver");
    if most > 0 && retries > most {
        let rule = format!("must not be longer than max_deliver, which is {most}");
        finder.refuse("backoff", format!("{retries} spans"), rule, "raise max_deliver");
    }
    let filters = finder.config.get("filter_subjects").map(filters_of).unwrap_or_default();
    for (i, filter) in filters.iter().enumerate() {
        let Some(other) = filters[..i].iter().find(|other| other.overlaps(filter)) else { continue };
        let nested = other.covers(filter) || filter.covers(other);
        // Later servers take filters that share some subjects, as long as none holds the other.
        let servers = if nested { Servers::All } else { Servers::Before((2, 12)) };
        let found = format!("{other} and {filter}");
        finder.refused_by(servers, "filter_subjects", found, "overlap each other", "keep the wider one");
    }
}

fn push(finder: &mut Finder<'_>) {
    let subject = finder.text("deliver_subject");
    if subject.split('.').any(|token| matches!(token, "*" | ">")) {
        finder.refuse("deliver_subject", format!("{subject:?}"), "must not have wildcards", "name one subject");
    }
    if finder.has("max_waiting") {
        let rule = "is for pull consumers";
        finder.refuse("max_waiting", "set for a push consumer", rule, "leave it or deliver_subject out");
    }
    if ack_policy(finder) == "none" && finder.number("max_ack_pending") > 0 {
        let rule = "limits acknowledgements, which ack_policy: none has not";
        finder.refuse("max_ack_pending", finder.number("max_ack_pending").to_string(), rule, "leave one of them out");
    }
    if (1..100_000_000).contains(&finder.number("idle_heartbeat")) {
        finder.refuse("idle_heartbeat", "a span below 100ms", "must be at least 100ms", "make it longer");
    }
    let by_policy = ack_policy(finder) == "flow_control";
    if finder.is("flow_control") && !finder.has("idle_heartbeat") && !by_policy {
        finder.refuse("flow_control", "true", "needs idle_heartbeat", "add it, or leave flow_control out");
    }
}

fn pull(finder: &mut Finder<'_>) {
    let by_policy = ack_policy(finder) == "flow_control";
    for field in ["flow_control", "idle_heartbeat", "rate_limit_bps"] {
        if finder.has(field) && !by_policy {
            let rule = "is for push consumers";
            finder.refuse(field, "set for a pull consumer", rule, "add deliver_subject, or leave it out");
        }
    }
    if (1..1_000_000).contains(&finder.number("max_expires")) {
        finder.refuse("max_expires", "a span below 1ms", "must be at least 1ms", "make it longer");
    }
}

fn start(finder: &mut Finder<'_>) {
    let policy = finder.text("deliver_policy");
    for (field, needed) in [("opt_start_seq", "by_start_sequence"), ("opt_start_time", "by_start_time")] {
        if finder.has(field) != (policy == needed) {
            let rule = format!("goes with deliver_policy: {needed}, and the other way round");
            finder.refuse(field, if finder.has(field) { "it alone" } else { "nothing" }, rule, "set both or none");
        }
    }
    if policy == "last_per_subject" && !finder.has("filter_subjects") {
        let rule = "needs filter_subjects with deliver_policy: last_per_subject";
        finder.refuse("filter_subjects", "nothing", rule, "name the subjects whose last messages are meant");
    }
}

fn priorities(finder: &mut Finder<'_>) {
    let policy = finder.text("priority_policy");
    if policy == "prioritized" {
        finder.refused_by(
            Servers::Before((2, 12)),
            "priority_policy",
            "\"prioritized\"",
            "is for nats-server 2.12 and later",
            "upgrade it, or choose another policy",
        );
    }
    if matches!(policy, "" | "none") {
        for field in ["priority_groups", "priority_timeout"] {
            if finder.has(field) {
                let found = format!("{field} alone");
                let servers = Servers::Since((2, 12));
                finder.refused_by(servers, field, found, "needs a priority_policy", "add one, or leave it out");
            }
        }
        return;
    }
    if finder.has("deliver_subject") {
        finder.refuse("priority_policy", format!("{policy:?}"), "is for pull consumers", "leave one of them out");
    }
    if !finder.has("priority_groups") {
        finder.refuse("priority_policy", format!("{policy:?}"), "needs priority_groups", "name one");
    }
    let groups = finder.config.get("priority_groups").and_then(Value::as_array).into_iter().flatten();
    let wrong = |group: &&str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_/=".contains(c);
        group.is_empty() || group.len() > 16 || !group.chars().all(allowed)
    };
    if let Some(group) = groups.filter_map(Value::as_str).find(wrong) {
        let rule = "must be names of letters, digits, -, _, / and =, at most 16";
        finder.refuse("priority_groups", format!("{group:?}"), rule, "give it another name");
    }
}

fn in_stream(finder: &mut Finder<'_>, stream: &Map<String, Value>) {
    let of_stream = |field: &str| stream.get(field).and_then(Value::as_i64).unwrap_or_default();
    let (copies, of_stream_copies) = (finder.number("num_replicas"), of_stream("num_replicas").max(1));
    let for_all = stream.get("retention").is_some_and(|retention| retention == "interest" || retention == "workqueue");
    if copies > of_stream_copies || (copies != 0 && for_all && copies != of_stream_copies) {
        let rule = match for_all {
            true => format!("must be those of the stream with this retention, which are {of_stream_copies}"),
            false => format!("must not be above those of the stream, which are {of_stream_copies}"),
        };
        finder.refuse("num_replicas", copies.to_string(), rule, "correct it, or leave it out");
    }
    let limits = stream.get("consumer_limits");
    for field in ["inactive_threshold", "max_ack_pending"] {
        let most = limits.and_then(|limits| limits.get(field)).and_then(Value::as_i64).unwrap_or_default();
        let value = finder.number(field);
        if most > 0 && value > most {
            let rule =
                format!("must not be above the consumer_limits of the stream, {}", readable(field, &most.into()));
            let found = readable(field, &value.into());
            finder.refuse(field, found, rule, "lower it, or raise the limit");
        }
        let unacknowledged = field == "max_ack_pending" && ack_policy(finder) == "none" && value == 0;
        if most > 0 && unacknowledged && finder.has("deliver_subject") {
            let rule = format!("none cannot keep the stream's consumer_limits, max_ack_pending: {most}");
            finder.refuse("ack_policy", "\"none\"", rule, "choose another policy, or leave that limit out");
        }
    }
    if let Ok(target) = finder.text("deliver_subject").parse::<Subject>()
        && subjects_of(stream).iter().any(|subject| subject.covers(&target))
    {
        let rule = "must not be a subject that the stream captures";
        finder.refuse("deliver_subject", format!("{:?}", target.as_str()), rule, "name another one");
    }
}

/// A work queue gives each message to one consumer.
fn of_work_queue(finder: &mut Finder<'_>, earlier: &[Consumer<'_>]) {
    let policy = ack_policy(finder);
    if !matches!(policy, "explicit" | "flow_control") {
        let rule = "must be explicit in a stream with retention: workqueue";
        finder.refuse("ack_policy", format!("{policy:?}"), rule, "make it explicit");
    }
    let start = finder.text("deliver_policy");
    if !matches!(start, "" | "all") {
        let rule = "must be all in a stream with retention: workqueue";
        finder.refuse("deliver_policy", format!("{start:?}"), rule, "leave it out");
    }
    let filters = |config: &Map<String, Value>| config.get("filter_subjects").map(filters_of).unwrap_or_default();
    let own = filters(finder.config);
    for (other, config) in earlier {
        let theirs = filters(config);
        let shared = own.iter().find_map(|own| Some((own, theirs.iter().find(|their| their.overlaps(own))?)));
        let found = match shared {
            _ if own.is_empty() => "no filter".to_owned(),
            _ if theirs.is_empty() => format!("a filter beside consumer {other}, which has none"),
            Some((own, their)) => format!("{own} beside {their} of consumer {other}"),
            None => continue,
        };
        let rule = format!(
            "must share no subject with consumer {other}: with retention: workqueue each message goes to one consumer"
        );
        return finder.refuse("filter_subjects", found, rule, "give each consumer subjects of its own, or keep one");
    }
}
