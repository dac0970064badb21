//! What nats-server's monitoring answers, as far as we look at it; the rest is kept as it is, but for `/jsz`.
//! Names and units are nats-server's: bytes, nanoseconds, RFC 3339. What an older server does not say is empty.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::json::{self, Plain};

/// `/healthz` where it is not 200.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Healthz {
    pub status: String,
    pub error: String,
}

/// `/varz`: the server itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Varz {
    pub server_name: String,
    pub version: String,
    pub connections: u64,
    pub subscriptions: u64,
    pub slow_consumers: u64,
    /// From and to clients, since the server started.
    pub in_msgs: u64,
    pub out_msgs: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    /// Resident memory.
    pub mem: u64,
    /// When the configuration in force was loaded, and its digest (from 2.11 on).
    pub config_load_time: Option<String>,
    pub config_digest: Option<String>,
    #[serde(flatten, deserialize_with = "json::object")]
    pub rest: Map<String, Value>,
}

/// `/jsz`: JetStream on this server. It may name thousands of streams and consumers, so that it is read once and
/// taken apart, and of the rest only what somebody reads is kept ([`READ`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Jsz {
    pub disabled: bool,
    pub streams: u64,
    pub consumers: u64,
    pub messages: u64,
    pub bytes: u64,
    pub storage: u64,
    pub memory: u64,
    pub meta_cluster: Option<RaftGroup>,
    /// With `streams=true`.
    pub account_details: Vec<AccountDetail>,
    pub rest: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccountDetail {
    pub stream_detail: Vec<StreamDetail>,
    pub rest: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamDetail {
    pub name: String,
    pub cluster: Option<RaftGroup>,
    /// With `consumers=true`.
    pub consumer_detail: Vec<ConsumerDetail>,
    pub rest: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumerDetail {
    pub name: String,
    pub cluster: Option<RaftGroup>,
    pub rest: Map<String, Value>,
}

impl<'de> Deserialize<'de> for Jsz {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut rest = json::object_with(is_read, deserializer)?;
        let mut count = |key: &str| rest.remove(key).and_then(|number| number.as_u64()).unwrap_or_default();
        Ok(Self {
            streams: count("streams"),
            consumers: count("consumers"),
            messages: count("messages"),
            bytes: count("bytes"),
            storage: count("storage"),
            memory: count("memory"),
            disabled: rest.remove("disabled").is_some_and(|disabled| disabled == true),
            meta_cluster: group(rest.remove("meta_cluster")),
            account_details: objects(rest.remove("account_details"), AccountDetail::of),
            rest,
        })
    }
}

/// Keys of `/jsz` under which somebody reads, at whatever depth. Most of an answer is nothing that anybody does.
const READ: &[&str] = &[
    "server_id",
    "account_details",
    "stream_detail",
    "consumer_detail",
    "config",
    "state",
    "now",
    "disabled",
    "domain",
    "max_memory",
    "max_storage",
    "streams",
    "consumers",
    "name",
    "id",
    "created",
    "memory",
    "storage",
    "reserved_memory",
    "reserved_storage",
    "messages",
    "bytes",
    "first_seq",
    "last_seq",
    "consumer_count",
    "num_subjects",
    "max_msgs",
    "max_bytes",
    "max_consumers",
    "subjects",
    "stream_raft_group",
    "sources",
    "mirror",
    "external",
    "api",
    "deliver",
    "meta_cluster",
    "cluster",
    "leader",
    "cluster_size",
    "replicas",
    "current",
    "offline",
    "active",
    "lag",
    "ts",
    "delivered",
    "ack_floor",
    "consumer_seq",
    "stream_seq",
    "last_active",
    "num_ack_pending",
    "num_redelivered",
    "num_waiting",
    "num_pending",
    "description",
    "durable_name",
    "deliver_policy",
    "filter_subject",
    "filter_subjects",
];

fn is_read(key: &str) -> bool {
    READ.contains(&key)
}

impl AccountDetail {
    fn of(mut rest: Map<String, Value>) -> Self {
        Self { stream_detail: objects(rest.remove("stream_detail"), StreamDetail::of), rest }
    }
}

impl StreamDetail {
    fn of(mut rest: Map<String, Value>) -> Self {
        Self {
            name: text(rest.remove("name")),
            cluster: group(rest.remove("cluster")),
            consumer_detail: objects(rest.remove("consumer_detail"), ConsumerDetail::of),
            rest,
        }
    }
}

impl ConsumerDetail {
    fn of(mut rest: Map<String, Value>) -> Self {
        Self { name: text(rest.remove("name")), cluster: group(rest.remove("cluster")), rest }
    }
}

/// Of a part in a shape that we do not know we know nothing.
fn objects<T>(list: Option<Value>, of: fn(Map<String, Value>) -> T) -> Vec<T> {
    let Some(Value::Array(list)) = list else { return vec![] };
    let object = |one| match one {
        Value::Object(object) => Some(of(object)),
        _ => None,
    };
    list.into_iter().filter_map(object).collect()
}

fn group(group: Option<Value>) -> Option<RaftGroup> {
    serde_json::from_value(group?).ok()
}

fn text(text: Option<Value>) -> String {
    match text {
        Some(Value::String(text)) => text,
        _ => String::new(),
    }
}

/// Nodes that keep something together.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RaftGroup {
    /// Of the cluster.
    pub name: String,
    pub leader: String,
    pub cluster_size: usize,
    #[serde(deserialize_with = "or_nothing")]
    pub replicas: Option<Vec<RaftPeer>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RaftPeer {
    pub name: String,
    pub current: bool,
    pub offline: bool,
    /// Nanoseconds since it was last heard; only leaders know.
    pub active: u64,
    /// Entries that it is behind; only leaders know.
    pub lag: u64,
}

/// `/routez`: the routes to other nodes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Routez {
    pub server_name: String,
    #[serde(deserialize_with = "or_nothing")]
    pub routes: Option<Vec<Route>>,
    #[serde(flatten, deserialize_with = "json::object")]
    pub rest: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Route {
    pub remote_name: String,
    pub remote_id: String,
    #[serde(flatten, deserialize_with = "json::object")]
    pub rest: Map<String, Value>,
}

/// `/connz`: connections of clients.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Connz {
    pub num_connections: u64,
    pub total: u64,
    #[serde(deserialize_with = "or_nothing")]
    pub connections: Option<Vec<Connection>>,
    #[serde(flatten, deserialize_with = "json::object")]
    pub rest: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Connection {
    pub cid: u64,
    pub ip: String,
    pub port: u16,
    pub name: String,
    pub lang: String,
    pub version: String,
    pub subscriptions: u64,
    pub pending_bytes: u64,
    pub in_msgs: u64,
    pub out_msgs: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    #[serde(flatten, deserialize_with = "json::object")]
    pub rest: Map<String, Value>,
}

/// Go writes null for a list that is empty; of a part in a shape that we do not know we know nothing.
fn or_nothing<'de, D: Deserializer<'de>, T: Default + for<'a> Deserialize<'a>>(deserializer: D) -> Result<T, D::Error> {
    // Clients name keys in it, such as those of metadata.
    Ok(serde_json::from_value(Plain::deserialize(deserializer)?.0).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Whoever makes a consumer names the keys of its metadata.
    #[test]
    fn no_key_of_a_client_makes_an_answer_unreadable() {
        let trap = r#"{"$serde_json::private::RawValue":"{","bytes":1}"#;
        let text = format!(
            r#"{{"streams":1,"odd":{trap},"account_details":[{{"stream_detail":[{{"name":"S","state":{trap},"config":{{"metadata":{trap}}},
                "consumer_detail":[{{"name":"C","config":{{"metadata":{trap},"description":{trap}}}}}]}}]}}]}}"#
        );
        let jsz: Jsz = serde_json::from_str(&text).unwrap();
        let stream = &jsz.account_details[0].stream_detail[0];
        assert_eq!((stream.name.as_str(), stream.consumer_detail[0].name.as_str()), ("S", "C"));
        assert_eq!((&stream.rest["state"], &stream.rest["config"]), (&json!({ "bytes": 1 }), &json!({})));
        assert_eq!(stream.consumer_detail[0].rest["config"], json!({ "description": { "bytes": 1 } }));
    }

    #[test]
    fn what_is_not_known_is_kept_and_what_is_not_said_is_empty() {
        let varz: Varz = serde_json::from_value(json!({ "version": "2.15.1", "new": { "a": 1 } })).unwrap();
        assert_eq!((varz.version.as_str(), varz.connections, varz.config_digest), ("2.15.1", 0, None));
        assert_eq!(varz.rest["new"], json!({ "a": 1 }));
        let jsz: Jsz = serde_json::from_value(json!({ "disabled": true })).unwrap();
        let odd: Jsz = serde_json::from_value(json!({ "account_details": null, "meta_cluster": 7 })).unwrap();
        assert_eq!(odd, Jsz::default());
        assert!(jsz.disabled && jsz.account_details.is_empty() && jsz.meta_cluster.is_none());
    }
}
