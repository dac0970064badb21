//! What the tools of NATS and nats-server itself write about streams and consumers, as declarations:
//! `nats stream info -j`, `nats stream add --config`, `nats consumer info -j`, lists of them, and the
//! answers of the API. They are known by their shape: a whole configuration, which nobody writes by
//! hand. In those, numbers that are durations are nanoseconds.

use std::borrow::Cow;

use crate::settings::document::{kind, scalar};
use crate::settings::problem::quote;
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

/// The configuration in what a server tells of an object, or the node itself. Consumers that stand
/// beside the configuration of their stream come along.
pub fn unwrapped(node: &Node) -> Cow<'_, Node> {
    let Value::Map(entries) = &node.value else { return Cow::Borrowed(node) };
    let known = entries.iter().all(|entry| AROUND.contains(&entry.key.as_str()) || entry.key == CONSUMERS);
    let Some(config) = get(node, "config").filter(|config| known && matches!(config.value, Value::Map(_))) else {
        return Cow::Borrowed(node);
    };
    let Some(consumers) = entries.iter().find(|entry| entry.key == CONSUMERS) else { return Cow::Borrowed(config) };
    let mut with_consumers = config.clone();
    if let Value::Map(entries) = &mut with_consumers.value {
        entries.push(consumers.clone());
    }
    Cow::Owned(with_consumers)
}

/// A list of consumers by their names, where each of them has one.
pub fn by_name(node: &Node) -> Option<Vec<Entry>> {
    let Value::List(items) = &node.value else { return None };
    let entry = |item: &Node| Some(Entry { key: name_of(&unwrapped(item))?, at: item.at, value: item.clone() });
    items.iter().map(entry).collect()
}

/// The stream that a consumer is told to belong to.
pub fn stream_of(node: &Node) -> Option<&str> {
    scalar(get(node, "stream_name")?).ok()
}

fn name_of(config: &Node) -> Option<String> {
    let text = |key: &&str| scalar(get(config, key)?).ok().filter(|text| !text.is_empty());
    ["name", "durable_name"].iter().find_map(text).map(str::to_owned)
}

const STREAMS: &str = "streams";
const CONSUMERS: &str = "consumers";

/// What stands around a list in an answer of the API.
const AROUND_LISTS: [&str; 6] = ["type", "total", "offset", "limit", "missing", "offline"];

/// Documents that cannot be declarations.
pub struct NoDeclarations {
    pub at: Place,
    pub found: String,
    pub rule: String,
    pub remedy: &'static str,
}

const GIVE_WHOLE_ONES: &str = "give what `nats stream info -j` or `nats consumer info -j` prints, or write `streams:` with `NAME:` and options below it";

/// The documents of a file as the one that they stand for: exports, and lists of them, become a file of
/// streams; anything else must stand alone and stays as it is.
pub fn as_declarations(documents: Vec<Node>) -> Result<Option<Node>, NoDeclarations> {
    let Some(first) = documents.first() else { return Ok(None) };
    let at = first.at;
    let (mut exports, mut rest) = (vec![], vec![]);
    for (number, document) in documents.iter().enumerate() {
        let of_document = exports_in(document)?;
        if documents.len() > 1 && !of_document.as_ref().is_some_and(|found| found.rest.is_empty()) {
            let other = &documents[if number == 0 { 1 } else { 0 }];
            let (second, first) = if number == 0 { (other, document) } else { (document, other) };
            return Err(NoDeclarations {
                at: second.at,
                found: "a second document".into(),
                rule: format!("the one that begins in line {} says something already", first.at.line),
                remedy: "put everything into one; only whole configurations as NATS tools write them may follow one another",
            });
        }
        let Some(found) = of_document else { return Ok(documents.into_iter().next()) };
        exports.extend(found.exports);
        rest.extend(found.rest);
    }
    Ok(Some(declarations(at, exports, rest)))
}

struct Found {
    exports: Vec<Export>,
    /// What else a settings file says.
    rest: Vec<Entry>,
}

/// [`None`] for a document that is not about exports.
fn exports_in(document: &Node) -> Result<Option<Found>, NoDeclarations> {
    if let Some(export) = Export::of(document) {
        return Ok(Some(Found { exports: vec![export], rest: vec![] }));
    }
    if is_consumer(document) {
        let name = name_of(document).unwrap_or_default();
        return Err(NoDeclarations {
            at: document.at,
            found: format!("the configuration of consumer {} alone", quote(&name)),
            rule: "must say which stream the consumer belongs to".into(),
            remedy: "give what `nats consumer info STREAM CONSUMER -j` prints, or write it below `consumers:` of its stream",
        });
    }
    let (items, rest) = match &document.value {
        Value::List(items) => (items.iter().collect(), vec![]),
        Value::Map(entries) => {
            let is_list = |entry: &&Entry| {
                [STREAMS, CONSUMERS].contains(&entry.key.as_str()) && matches!(entry.value.value, Value::List(_))
            };
            let (lists, others): (Vec<_>, Vec<_>) = entries.iter().partition(is_list);
            if lists.is_empty() {
                return Ok(None);
            }
            let mut items: Vec<&Node> = vec![];
            for list in lists {
                if let Value::List(nodes) = &list.value.value {
                    items.extend(nodes);
                }
            }
            let rest = others.into_iter().filter(|entry| !AROUND_LISTS.contains(&entry.key.as_str()));
            (items, rest.cloned().collect())
        }
        _ => return Ok(None),
    };
    let exports = items.into_iter().enumerate().map(|(number, item)| {
        Export::of(item).ok_or_else(|| NoDeclarations {
            at: item.at,
            found: format!("a list with {} as item {}", kind(item), number + 1),
            rule: "must be a map, or a list of whole configurations as NATS tools write them".into(),
            remedy: GIVE_WHOLE_ONES,
        })
    });
    Ok(Some(Found { exports: exports.collect::<Result<_, _>>()?, rest }))
}

/// One object of an export.
enum Export {
    Stream { name: String, node: Node },
    Consumer { stream: String, name: String, node: Node },
}

impl Export {
    fn of(item: &Node) -> Option<Self> {
        let node = unwrapped(item);
        if is_stream(&node) {
            return Some(Self::Stream { name: name_of(&node)?, node: node.into_owned() });
        }
        let stream = stream_of(item)?.to_owned();
        is_consumer(&node).then_some(())?;
        Some(Self::Consumer { stream, name: name_of(&node)?, node: node.into_owned() })
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
        match entries.iter_mut().find(|entry| entry.key == CONSUMERS).map(|entry| &mut entry.value.value) {
            Some(Value::Map(consumers)) => consumers.push(consumer),
            Some(Value::List(consumers)) => consumers.push(consumer.value),
            _ => entries.push(Entry { key: CONSUMERS.into(), at: consumer.at, value: map(vec![consumer]) }),
        }
    }
    rest.push(Entry { key: STREAMS.into(), at, value: map(streams) });
    map(rest)
}

fn get<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}
