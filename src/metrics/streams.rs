//! How full streams are and how far their copies have come, from `/jsz`. Pure.

use serde_json::{Map, Value};

use super::bounds::{Bounded, bounded};
use super::exporter::{number, text};
use super::exposition::{Families, Kind, Labels};
use super::history::{Held, History};
use crate::nats::{AccountDetail, Jsz, StreamDetail};

/// The limits of a stream: the label, what the configuration calls it, and what the state does.
const LIMITS: [(&str, &str, &str); 3] = [
    ("messages", "max_msgs", "messages"),
    ("bytes", "max_bytes", "bytes"),
    ("consumers", "max_consumers", "consumer_count"),
];

/// Adds what is told by the server of that name.
pub fn add(jsz: &Jsz, server: &str, families: &mut Families) {
    let (told, omitted) = bounded(jsz);
    for Bounded { stream, account, .. } in &told {
        let labels = Labels::none().and([("account", account_name(account)), ("stream", stream.name.as_str())]);
        add_usage(stream, &labels, families);
        add_replicas(stream, server, &labels, families);
    }
    let help = "Streams and consumers that have no series of their own, because there are too many";
    let mut metric = families.metric("unified_nats_series_omitted", Kind::Gauge, help);
    metric.add(&Labels::none().with("of", "streams"), omitted.streams as f64);
    metric.add(&Labels::none().with("of", "consumers"), omitted.consumers as f64);
}

/// What each stream holds, under the name that the history knows it by.
pub fn held(jsz: &Jsz) -> Vec<(String, Held)> {
    let streams = jsz.account_details.iter().flat_map(|account| {
        let name = account_name(account);
        account.stream_detail.iter().filter_map(move |stream| {
            let state = stream.rest.get("state")?.as_object()?;
            let held = Held { messages: number(state, "messages"), bytes: number(state, "bytes") };
            Some((key(name, &stream.name), held))
        })
    });
    streams.collect()
}

/// No name holds that.
fn key(account: &str, stream: &str) -> String {
    format!("{account}\n{stream}")
}

fn account_name(account: &AccountDetail) -> &str {
    text(&account.rest, "name")
}

/// When the store and the streams are full, if they go on to grow as they did in the last hour.
pub fn add_forecasts(jsz: &Jsz, history: &History, families: &mut Families) {
    let most = jsz.rest.get("config").and_then(Value::as_object).map_or(0.0, |config| number(config, "max_storage"));
    if let Some(seconds) = history.store_full_in(most) {
        let help = "Time until JetStream may store no more, if it grows as in the last hour; absent where it does not";
        families.metric("unified_nats_store_full_in_seconds", Kind::Gauge, help).add(&Labels::none(), seconds);
    }
    for Bounded { stream, account, .. } in bounded(jsz).0 {
        let Some(config) = stream.rest.get("config").and_then(Value::as_object) else { continue };
        let (account, name) = (account_name(account), stream.name.as_str());
        let (key, labels) = (key(account, name), Labels::none().and([("account", account), ("stream", name)]));
        for (limit, seconds) in [
            ("messages", history.messages_full_in(&key, number(config, "max_msgs"))),
            ("bytes", history.bytes_full_in(&key, number(config, "max_bytes"))),
        ] {
            let Some(seconds) = seconds else { continue };
            let help = "Time until a stream reaches a limit, if it grows as in the last hour; absent where it does not";
            let mut metric = families.metric("unified_nats_stream_full_in_seconds", Kind::Gauge, help);
            metric.add(&labels.with("limit", limit), seconds);
        }
    }
}

fn add_usage(stream: &StreamDetail, labels: &Labels, families: &mut Families) {
    let object = |key: &str| stream.rest.get(key).and_then(Value::as_object);
    let empty = Map::new();
    let (state, config) = (object("state").unwrap_or(&empty), object("config").unwrap_or(&empty));
    for (limit, most, used) in LIMITS {
        let most = number(config, most);
        // Without a limit it is -1, or 0.
        if most > 0.0 {
            let help = "What a stream holds as a share of each of its limits, from 0 to 1";
            let mut metric = families.metric("unified_nats_stream_usage_ratio", Kind::Gauge, help);
            metric.add(&labels.with("limit", limit), number(state, used) / most);
        }
    }
}

/// Followers name the other copies as well, but only the leader knows what those have.
fn add_replicas(stream: &StreamDetail, server: &str, labels: &Labels, families: &mut Families) {
    let led = stream.cluster.iter().filter(|cluster| cluster.leader == server);
    for replica in led.flat_map(|cluster| cluster.replicas.iter().flatten()) {
        let labels = labels.with("replica", &replica.name);
        let help = "Entries of the log that a copy of a stream is behind";
        families.metric("unified_nats_stream_replica_lag", Kind::Gauge, help).add(&labels, replica.lag as f64);
        let help = "Whether a copy of a stream is up to date";
        let current = f64::from(u8::from(replica.current && !replica.offline));
        families.metric("unified_nats_stream_replica_current", Kind::Gauge, help).add(&labels, current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::exposition::Format;
    use crate::metrics::history::Row;
    use serde_json::json;

    #[test]
    fn shares_of_limits_and_copies_are_told() {
        let jsz: Jsz = serde_json::from_value(json!({ "account_details": [{ "name": "$G", "stream_detail": [{
            "name": "S",
            "config": { "max_msgs": 1000, "max_bytes": -1, "max_consumers": 4 },
            "state": { "messages": 250, "bytes": 9, "consumer_count": 1 },
            "cluster": { "leader": "a", "replicas": [{ "name": "b", "current": true, "lag": 7 }, { "name": "c", "current": true, "offline": true }] },
        }] }] }))
        .unwrap();
        let mut families = Families::default();
        add(&jsz, "a", &mut families);
        let text = families.write(Format::Text);
        let stream = "account=\"$G\",stream=\"S\"";
        for line in [
            format!("unified_nats_stream_usage_ratio{{{stream},limit=\"messages\"}} 0.25\n"),
            format!("unified_nats_stream_usage_ratio{{{stream},limit=\"consumers\"}} 0.25\n"),
            format!("unified_nats_stream_replica_lag{{{stream},replica=\"b\"}} 7\n"),
            format!("unified_nats_stream_replica_current{{{stream},replica=\"c\"}} 0\n"),
            "unified_nats_series_omitted{of=\"streams\"} 0\n".to_owned(),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(!text.contains("limit=\"bytes\""));
        let mut of_follower = Families::default();
        add(&jsz, "b", &mut of_follower);
        assert!(!of_follower.write(Format::Text).contains("replica"));
    }

    #[test]
    fn what_grows_is_forecast() {
        let at = |messages: u64| -> Jsz {
            serde_json::from_value(json!({
                "config": { "max_storage": 10_000 },
                "account_details": [{ "name": "$G", "stream_detail": [
                    { "name": "S", "config": { "max_msgs": 1000, "max_bytes": -1 }, "state": { "messages": messages, "bytes": messages } },
                ] }],
            }))
            .unwrap()
        };
        let mut history = History::default();
        for step in 0..50_u64 {
            let row = Row { at: step as f64 * 10.0, store_bytes: 100.0 * step as f64, ..Row::default() };
            history.add(row, held(&at(step * 10)));
        }
        let mut families = Families::default();
        add_forecasts(&at(490), &history, &mut families);
        let text = families.write(Format::Text);
        for (series, wanted) in [
            ("unified_nats_store_full_in_seconds", 510.0),
            ("unified_nats_stream_full_in_seconds{account=\"$G\",stream=\"S\",limit=\"messages\"}", 510.0),
        ] {
            let line = text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{text}"));
            let seconds: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
            assert!((seconds - wanted).abs() < 1e-6, "{line}");
        }
        assert!(!text.contains("limit=\"bytes\""), "{text}");
    }
}
