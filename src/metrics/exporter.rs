//! What nats-server's monitoring says, under the names and labels that prometheus-nats-exporter 0.20.2 gives
//! it, so that dashboards go on. Pure.
//!
//! Numbers of `/varz`, `/routez` and `/subsz` go by the names that they have there, joined with `_`; all are gauges, as
//! there. New numbers of new servers appear by themselves.

use std::collections::HashSet;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::bounds::{Bounded, EPHEMERAL, bounded};
use super::exposition::{Families, Kind, Labels};
use super::monitored::{Connections, HEALTH, Monitored};
use crate::nats::{ConsumerDetail, Jsz, RaftGroup, StreamDetail};
use crate::settings::ServerIdLabel;

/// How names and the label `server_id` are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// Instead of `gnatsd` and `jetstream`.
    pub prefix: Option<String>,
    pub server_id: ServerIdLabel,
}

impl Naming {
    fn name(&self, system: &str, rest: &str) -> String {
        let prefix = self.prefix.as_deref().unwrap_or(system);
        let name = format!("{prefix}_{rest}");
        // A key of a map may hold anything.
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
    }

    fn core(&self, endpoint: &str, rest: &str) -> String {
        self.name("gnatsd", &format!("{endpoint}_{rest}"))
    }

    fn jetstream(&self, rest: &str) -> String {
        self.name("jetstream", rest)
    }

    /// The label: the address where the rest is not known.
    fn server_id<'a>(&self, monitored: &'a Monitored) -> &'a str {
        match (self.server_id, &monitored.named) {
            (ServerIdLabel::Url, _) | (_, None) => &monitored.url,
            (ServerIdLabel::Id, Some(named)) => &named.id,
            (ServerIdLabel::Name, Some(named)) => &named.name,
        }
    }
}

/// Adds what was seen to `families`.
pub fn add(monitored: &Monitored, naming: &Naming, families: &mut Families) {
    let server = Labels::none().with("server_id", naming.server_id(monitored));
    if let Some(varz) = monitored.varz.as_ref().and_then(Value::as_object) {
        flatten(naming, "varz", varz, &server, families);
    }
    if let Some(connections) = &monitored.connections {
        add_connections(connections, naming, &server, families);
    }
    for ((_, name), status) in HEALTH.iter().zip(&monitored.health) {
        add_health(name, status.as_deref(), naming, &server, families);
    }
    if let Some(routez) = monitored.routez.as_ref().and_then(Value::as_object) {
        flatten(naming, "routez", routez, &server, families);
    }
    if let Some(subsz) = monitored.subsz.as_ref().and_then(Value::as_object) {
        flatten(naming, "subsz", subsz, &server, families);
    }
    if let Some(jsz) = &monitored.jsz {
        let shared = Shared { naming, server_name: monitored.server_name(), server, now: text(&jsz.rest, "now") };
        shared.add(jsz, families);
    }
}

/// Keys that are not exported, as there.
const SKIPPED: &[&str] = &[
    "leaf",
    "trusted_operators_claim",
    "cluster_tls_timeout",
    "cluster_cluster_port",
    "cluster_auth_timeout",
    "gateway_port",
    "gateway_auth_timeout",
    "gateway_tls_timeout",
    "gateway_connect_retries",
];
/// Texts that are exported: a time as milliseconds since 1970, any other as the label `value` of a gauge that is
/// always 1.
const TEXTS: &[&str] =
    &["server_id", "server_name", "version", "domain", "leader", "name", "start", "config_load_time"];

fn flatten(
    naming: &Naming,
    endpoint: &'static str,
    object: &Map<String, Value>,
    server: &Labels,
    families: &mut Families,
) {
    Flattened { naming, endpoint, server, seen: HashSet::new() }.add("", object, families);
}

/// One answer, each part of which is told once.
struct Flattened<'a> {
    naming: &'a Naming,
    endpoint: &'static str,
    server: &'a Labels,
    seen: HashSet<String>,
}

impl Flattened<'_> {
    fn add(&mut self, above: &str, object: &Map<String, Value>, families: &mut Families) {
        for (key, value) in object {
            let path = joined(above, key);
            if SKIPPED.contains(&path.as_str()) {
                continue;
            }
            let (number, text) = match value {
                Value::Number(number) => (number.as_f64().unwrap_or(f64::NAN), None),
                Value::String(text) if TEXTS.contains(&key.as_str()) => match OffsetDateTime::parse(text, &Rfc3339) {
                    Ok(at) => ((at.unix_timestamp_nanos() / 1_000_000) as f64, None),
                    Err(_) => (1.0, Some(text)),
                },
                Value::Object(inner) => {
                    self.add(&path, inner, families);
                    continue;
                }
                _ => continue,
            };
            let name = self.naming.core(self.endpoint, &path);
            // Two series of one name are more than Prometheus takes.
            if !self.seen.insert(name.clone()) {
                continue;
            }
            let labels = text.map_or_else(|| self.server.clone(), |text| self.server.with("value", text));
            families.metric(name, Kind::Gauge, path).add(&labels, number);
        }
    }
}

/// The names above and the key with `_` between them: a `/` is one, too, of several in a row there is one, and
/// none at either end.
fn joined(above: &str, key: &str) -> String {
    let parts = above.split('_').chain(key.split(['_', '/']));
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
}

fn add_connections(seen: &Connections, naming: &Naming, server: &Labels, families: &mut Families) {
    let gauges = [
        ("num_connections", seen.num_connections),
        ("total", seen.total),
        ("offset", seen.offset),
        ("limit", seen.limit),
        ("pending_bytes", seen.pending_bytes),
        ("subscriptions", seen.subscriptions),
    ];
    let counters = [
        ("in_bytes", seen.in_bytes),
        ("out_bytes", seen.out_bytes),
        ("in_msgs", seen.in_msgs),
        ("out_msgs", seen.out_msgs),
    ];
    let gauges = gauges.map(|(name, value)| (name, value, Kind::Gauge));
    let counters = counters.map(|(name, value)| (name, value, Kind::OtherCounter));
    for (name, value, kind) in gauges.into_iter().chain(counters) {
        families.metric(naming.core("connz", name), kind, name).add(server, value as f64);
    }
}

fn add_health(name: &str, status: Option<&str>, naming: &Naming, server: &Labels, families: &mut Families) {
    let is_ok = status == Some("ok");
    if status.is_some() {
        let metric = naming.core(name, "status");
        families.metric(metric, Kind::Gauge, "status").add(server, f64::from(u8::from(!is_ok)));
    }
    let labels = server.with("value", status.unwrap_or("unreachable"));
    let metric = naming.core(name, "status_value");
    families.metric(metric, Kind::Gauge, "status").add(&labels, f64::from(u8::from(is_ok)));
}

/// What everything about JetStream has in common.
struct Shared<'a> {
    naming: &'a Naming,
    server_name: &'a str,
    server: Labels,
    /// When the server said it.
    now: &'a str,
}

impl Shared<'_> {
    fn gauge(&self, families: &mut Families, name: &str, help: &'static str, labels: &Labels, value: f64) {
        families.metric(self.naming.jetstream(name), Kind::Gauge, help).add(labels, value);
    }

    /// Who leads, and whether we do: alone we do.
    fn leads(&self, group: Option<&RaftGroup>) -> (String, &'static str) {
        match group {
            Some(group) => (group.leader.clone(), if group.leader == self.server_name { "true" } else { "false" }),
            None => (String::new(), "true"),
        }
    }

    fn add(&self, jsz: &Jsz, families: &mut Families) {
        let config = jsz.rest.get("config").and_then(Value::as_object);
        let of_config = |key: &str| config.map_or(0.0, |config| number(config, key));
        let (meta_leader, is_meta_leader) = self.leads(jsz.meta_cluster.as_ref());
        let labels = self.server.and([
            ("server_name", self.server_name),
            ("cluster", jsz.meta_cluster.as_ref().map_or("", |meta| &meta.name)),
            ("domain", config.map_or("", |config| text(config, "domain"))),
            ("meta_leader", &meta_leader),
            ("is_meta_leader", is_meta_leader),
        ]);
        for (name, help, value) in [
            ("server_jetstream_disabled", "JetStream disabled or not", f64::from(u8::from(jsz.disabled))),
            ("server_total_streams", "Total number of streams in JetStream", jsz.streams as f64),
            ("server_total_consumers", "Total number of consumers in JetStream", jsz.consumers as f64),
            ("server_total_messages", "Total number of stored messages in JetStream", jsz.messages as f64),
            ("server_total_message_bytes", "Total number of bytes stored in JetStream", jsz.bytes as f64),
            ("server_max_memory", "JetStream Max Memory", of_config("max_memory")),
            ("server_max_storage", "JetStream Max Storage", of_config("max_storage")),
        ] {
            self.gauge(families, name, help, &labels, value);
        }
        for account in &jsz.account_details {
            let of = |key: &str| text(&account.rest, key);
            let names = [("account", of("name")), ("account_name", of("name")), ("account_id", of("id"))];
            let labels = labels.and(names);
            for (name, help, key) in [
                ("account_max_memory", "JetStream Account Max Memory in bytes", "reserved_memory"),
                ("account_max_storage", "JetStream Account Max Storage in bytes", "reserved_storage"),
                ("account_memory_used", "Total number of bytes used by JetStream memory", "memory"),
                ("account_storage_used", "Total number of bytes used by JetStream storage", "storage"),
            ] {
                self.gauge(families, name, help, &labels, number(&account.rest, key));
            }
        }
        for Bounded { account, stream, consumers, ephemeral } in bounded(jsz).0 {
            let of = |key: &str| text(&account.rest, key);
            let (leader, is_leader) = self.leads(stream.cluster.as_ref());
            let labels = labels.and([
                ("account", of("name")),
                ("account_name", of("name")),
                ("account_id", of("id")),
                ("stream_name", &stream.name),
                ("stream_leader", &leader),
                ("is_stream_leader", is_leader),
                ("stream_raft_group", text(&stream.rest, "stream_raft_group")),
            ]);
            self.add_stream(stream, &labels, families);
            for consumer in consumers {
                self.add_consumer(consumer, &labels, families);
            }
            if let Some(folded) = Numbers::folded(ephemeral.iter().map(|consumer| self.numbers_of(consumer))) {
                let labels = labels.and([
                    ("consumer_name", EPHEMERAL),
                    ("consumer_leader", ""),
                    ("is_consumer_leader", "true"),
                    ("consumer_desc", ""),
                ]);
                self.add_numbers(&folded, &labels, families);
            }
        }
    }

    fn add_stream(&self, stream: &StreamDetail, labels: &Labels, families: &mut Families) {
        let empty = Map::new();
        let object = |key: &str| stream.rest.get(key).and_then(Value::as_object);
        let state = object("state").unwrap_or(&empty);
        for (name, help, key) in [
            ("stream_total_messages", "Total number of messages from a stream", "messages"),
            ("stream_total_bytes", "Total stored bytes from a stream", "bytes"),
            ("stream_first_seq", "First sequence from a stream", "first_seq"),
            ("stream_last_seq", "Last sequence from a stream", "last_seq"),
            ("stream_consumer_count", "Total number of consumers from a stream", "consumer_count"),
            ("stream_subject_count", "Total number of subjects in a stream", "num_subjects"),
        ] {
            self.gauge(families, name, help, labels, number(state, key));
        }
        if let Some(config) = object("config") {
            let help = "Bytes that the stream may hold; -1: no limit";
            self.gauge(families, "stream_limit_bytes", help, labels, number(config, "max_bytes"));
            let help = "Messages that the stream may hold; -1: no limit";
            self.gauge(families, "stream_limit_messages", help, labels, number(config, "max_msgs"));
        }
        let sources = stream.rest.get("sources").and_then(Value::as_array).into_iter().flatten();
        for (kind, source) in
            sources.map(|source| ("source", source)).chain(stream.rest.get("mirror").map(|mirror| ("mirror", mirror)))
        {
            let Some(source) = source.as_object() else { continue };
            let external = source.get("external").and_then(Value::as_object).unwrap_or(&empty);
            let names = ["name", "api", "deliver"].map(|part| format!("{kind}_{part}"));
            let values = [text(source, "name"), text(external, "api"), text(external, "deliver")];
            let labels = labels.and(names.iter().map(String::as_str).zip(values));
            let lag = "Messages that the stream is behind";
            self.gauge(families, &format!("stream_{kind}_lag"), lag, &labels, number(source, "lag"));
            let active = "Nanoseconds since something came";
            let name = format!("stream_{kind}_active_duration_ns");
            self.gauge(families, &name, active, &labels, number(source, "active"));
        }
    }

    fn add_consumer(&self, consumer: &ConsumerDetail, stream: &Labels, families: &mut Families) {
        let (leader, is_leader) = self.leads(consumer.cluster.as_ref());
        let config = consumer.rest.get("config").and_then(Value::as_object);
        let labels = stream.and([
            ("consumer_name", consumer.name.as_str()),
            ("consumer_leader", &leader),
            ("is_consumer_leader", is_leader),
            ("consumer_desc", config.map_or("", |config| text(config, "description"))),
        ]);
        self.add_numbers(&self.numbers_of(consumer), &labels, families);
    }

    fn numbers_of(&self, consumer: &ConsumerDetail) -> Numbers {
        let empty = Map::new();
        let object = |key: &str| consumer.rest.get(key).and_then(Value::as_object).unwrap_or(&empty);
        let (delivered, floor) = (object("delivered"), object("ack_floor"));
        let now = Some(text(&consumer.rest, "ts")).filter(|ts| !ts.is_empty()).unwrap_or(self.now);
        let since = |what: &Map<String, Value>| {
            Some((parse_time(now)? - parse_time(text(what, "last_active"))?).as_seconds_f64())
        };
        Numbers {
            sums: ["num_ack_pending", "num_redelivered", "num_waiting", "num_pending"]
                .map(|key| number(&consumer.rest, key)),
            delivered: ["consumer_seq", "stream_seq"].map(|key| number(delivered, key)),
            floor: ["consumer_seq", "stream_seq"].map(|key| number(floor, key)),
            since: [since(delivered), since(floor)].map(|seconds| seconds.map(|seconds| seconds.max(0.0))),
        }
    }

    fn add_numbers(&self, numbers: &Numbers, labels: &Labels, families: &mut Families) {
        let Numbers { sums, delivered, floor, since } = numbers;
        for (name, help, value) in [
            ("consumer_delivered_consumer_seq", "Latest sequence number of a stream consumer", delivered[0]),
            ("consumer_delivered_stream_seq", "Latest sequence number of a stream", delivered[1]),
            ("consumer_num_ack_pending", "Number of pending acks from a consumer", sums[0]),
            ("consumer_num_redelivered", "Number of redelivered messages from a consumer", sums[1]),
            ("consumer_num_waiting", "Number of inflight fetch requests from a pull consumer", sums[2]),
            ("consumer_num_pending", "Number of pending messages from a consumer", sums[3]),
            ("consumer_ack_floor_stream_seq", "Number of ack floor stream seq from a consumer", floor[1]),
            ("consumer_ack_floor_consumer_seq", "Number of ack floor consumer seq from a consumer", floor[0]),
        ] {
            self.gauge(families, name, help, labels, value);
        }
        let times = [
            ("consumer_last_delivery_seconds", "Seconds since the last delivery to a consumer", since[0]),
            ("consumer_last_ack_seconds", "Seconds since the last acknowledgement of a consumer", since[1]),
        ];
        for (name, help, value) in times.into_iter().filter_map(|(name, help, value)| Some((name, help, value?))) {
            self.gauge(families, name, help, labels, value);
        }
    }
}

/// The numbers of one consumer, or of several that are told as one.
#[derive(Clone, Debug, PartialEq)]
struct Numbers {
    /// Unacknowledged, redelivered, waiting, pending.
    sums: [f64; 4],
    /// Sequences of the consumer and of the stream, here and below.
    delivered: [f64; 2],
    floor: [f64; 2],
    /// Seconds since the last delivery and the last acknowledgement.
    since: [Option<f64>; 2],
}

impl Numbers {
    /// Several as one: what waits is added up, the furthest delivery and the least acknowledged count.
    fn folded(several: impl Iterator<Item = Self>) -> Option<Self> {
        several.reduce(|mut all, one| {
            for (sum, number) in all.sums.iter_mut().zip(one.sums) {
                *sum += number;
            }
            for at in 0..2 {
                all.delivered[at] = all.delivered[at].max(one.delivered[at]);
                all.floor[at] = all.floor[at].min(one.floor[at]);
                all.since[at] = match (all.since[at], one.since[at]) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
            all
        })
    }
}

/// A text of an answer; nothing where there is none.
pub(super) fn text<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A number of an answer; 0 where there is none, as Go leaves it out.
pub(super) fn number(object: &Map<String, Value>, key: &str) -> f64 {
    object.get(key).and_then(Value::as_f64).unwrap_or(0.0)
}

pub(super) fn parse_time(text: &str) -> Option<OffsetDateTime> {
    // Go's zero time stands for none.
    OffsetDateTime::parse(text, &Rfc3339).ok().filter(|time| time.year() > 1)
}

#[cfg(test)]
mod tests;
