//! What the tools of NATS and nats-server itself write about streams and consumers, as declarations:
//! `nats stream info -j`, `nats stream add --config`, `nats consumer info -j`, lists of them, and the
//! answers of the API. They are known by their shape: a whole configuration, which nobody writes by
//! hand. In those, numbers that are durations are nanoseconds.

use crate::settings::document::{found, scalar};
use crate::yaml::{Entry, Node, Place, Value};

/// What Go writes of a stream whether it is set or not.
const OF_STREAM: [&str; 8] =
    ["name", "retention", "storage", "max_consumers", "max_msgs", "max_bytes", "max_age", "num_replicas"];
/// The same of a consumer, beside its name and one of the two that came first and last.
const OF_CONSUMER: [&str; 2] = ["ack_policy", "replay_policy"];

/// What stands around a configuration where the state is told as well.
const AROUND: [&str; 25] = [
    "type",
    "config",
    "created",
    "state",
    "cluster",
    "mirror",
    "sources",
    "alternates",
    "ts",
    "domain",
    "stream_name",
    "name",
    "delivered",
    "ack_floor",
    "num_ack_pending",
    "num_redelivered",
    "num_waiting",
    "num_pending",
    "push_bound",
    "paused",
    "pause_remaining",
    "priority_groups",
    "total",
    "offset",
    "limit",
];

/// Whether a map is a stream's configuration as servers and tools write it.
pub fn is_stream(node: &Node) -> bool {
    OF_STREAM.iter().all(|key| get(node, key).is_some())
}

pub fn is_consumer(node: &Node) -> bool {
    let any = |keys: [&str; 2]| keys.iter().any(|key| get(node, key).is_some());
    OF_CONSUMER.iter().all(|key| get(node, key).is_some())
        && any(["name", "durable_name"])
        && any(["deliver_policy", "num_replicas"])
}

/// The configuration in what a server tells of an object, or the node itself.
pub fn unwrapped(node: &Node) -> &Node {
    let Value::Map(entries) = &node.value else { return node };
    let known = entries.iter().all(|entry| AROUND.contains(&entry.key.as_str()));
    match get(node, "config") {
        Some(config) if known && matches!(config.value, Value::Map(_)) => config,
        _ => node,
    }
}

/// What stands around a list in an answer of the API.
const AROUND_LISTS: [&str; 6] = ["type", "total", "offset", "limit", "missing", "offline"];

/// A file that is an export or a list of them as the file of streams that it stands for; others stay
/// as they are.
pub fn as_declarations(root: Node) -> Node {
    let is_list = |key: &&str| get(&root, key).is_some_and(|list| matches!(&list.value, Value::List(_)));
    let key = ["streams", "consumers"].into_iter().find(is_list);
    let items: Vec<&Node> = match (&root.value, key.and_then(|key| get(&root, key)).map(|list| &list.value)) {
        (Value::List(items), _) | (_, Some(Value::List(items))) => items.iter().collect(),
        _ => vec![&root],
    };
    let exports: Option<Vec<Export>> = items.into_iter().map(Export::of).collect();
    let Some(exports) = exports.filter(|exports| !exports.is_empty()) else { return root };
    // What else a settings file says stays.
    let rest = match (&root.value, key) {
        (Value::Map(entries), Some(key)) => entries
            .iter()
            .filter(|entry| entry.key != key && !AROUND_LISTS.contains(&entry.key.as_str()))
            .cloned()
            .collect(),
        _ => vec![],
    };
    declarations(root.at, exports, rest)
}

/// One object of an export.
enum Export {
    Stream { name: String, node: Node },
    Consumer { stream: String, name: String, node: Node },
}

impl Export {
    fn of(item: &Node) -> Option<Self> {
        let node = unwrapped(item);
        let name = |keys: &[&str]| keys.iter().find_map(|key| scalar(get(node, key)?).ok()).map(str::to_owned);
        if is_stream(node) {
            return Some(Self::Stream { name: name(&["name"])?, node: node.clone() });
        }
        let stream = scalar(get(item, "stream_name")?).ok()?.to_owned();
        let name = name(&["name", "durable_name"])?;
        is_consumer(node).then(|| Self::Consumer { stream, name, node: node.clone() })
    }
}

fn declarations(at: Place, exports: Vec<Export>, mut rest: Vec<Entry>) -> Node {
    let map = |entries| Node { at, value: Value::Map(entries) };
    let mut streams: Vec<Entry> = vec![];
    let mut consumers = vec![];
    for export in exports {
        match export {
            Export::Stream { name, node } => streams.push(Entry { key: name, at: node.at, value: node }),
            Export::Consumer { stream, name, node } => consumers.push((stream, name, node)),
        }
    }
    for (stream, name, node) in consumers {
        let consumer = Entry { key: name, at: node.at, value: node };
        let position = streams.iter().position(|entry| entry.key == stream).unwrap_or_else(|| {
            streams.push(Entry {
                key: stream,
                at: consumer.at,
                value: Node { at: consumer.at, value: Value::Map(vec![]) },
            });
            streams.len() - 1
        });
        let Value::Map(entries) = &mut streams[position].value.value else { continue };
        match entries.iter_mut().find(|entry| entry.key == "consumers").map(|entry| &mut entry.value.value) {
            Some(Value::Map(consumers)) => consumers.push(consumer),
            _ => entries.push(Entry { key: "consumers".into(), at: consumer.at, value: map(vec![consumer]) }),
        }
    }
    rest.push(Entry { key: "streams".into(), at, value: map(streams) });
    map(rest)
}

/// Whether an export says nothing there: what Go writes for a field that is not set.
pub fn says_nothing(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Scalar { text, .. } => matches!(text.as_str(), "" | "false" | "0001-01-01T00:00:00Z"),
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
    }
}

/// Keys of exports that are no options: what they may hold all the same, or why not, and as what it is
/// shown.
pub fn passed_over(entry: &Entry) -> Option<Result<(), String>> {
    match entry.key.as_str() {
        "sealed" | "template_owner" | "direct" | "sourcing" => {
            let nothing = says_nothing(&entry.value);
            Some(if nothing { Ok(()) } else { Err(found(&entry.value)) })
        }
        _ => None,
    }
}

fn get<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}
