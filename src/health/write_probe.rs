//! Proofs that need a write: to a subject that is nobody's market data, by a message that is deleted
//! afterwards.

use crate::domain::DataType;
use crate::nats::{JetStream, StreamInfo};
use crate::settings::MarketDataSettings;

/// Proves that the stream takes messages, by one that is stored; gives its sequence, for it to be
/// deleted again. It is content without writing where a write would cost somebody something.
pub async fn write(jetstream: &JetStream, settings: &MarketDataSettings) -> Result<Option<u64>, String> {
    let stream = settings.name.as_str();
    let info = jetstream.stream_info(stream).await.map_err(|error| error.to_string())?;
    let info = info.ok_or_else(|| format!("stream {stream} does not exist"))?;
    if why_not(&info).is_some() {
        return Ok(None);
    }
    let family = DataType::ALL.iter().flat_map(|family| family.subjects(settings.style)).next().unwrap_or_default();
    let (subject, random) = subject_below(&family);
    // The acknowledgement is the proof.
    jetstream.publish(&subject, &random, b"x").await.map(Some).map_err(|error| error.to_string())
}

/// Proves that a family is served from end to end: a message below `filter` is stored by the stream,
/// read back as it was sent, and removed.
pub async fn round_trip(jetstream: &JetStream, info: &StreamInfo, filter: &str) -> Result<String, String> {
    let stream = info.name();
    let (subject, random) = subject_below(filter);
    let complain = |what: &str, error: &dyn std::fmt::Display| format!("{subject} cannot be {what}: {error}");
    let seq =
        jetstream.publish(&subject, &random, random.as_bytes()).await.map_err(|error| complain("published", &error))?;
    let read = jetstream.message(stream, seq).await.map_err(|error| complain("read back", &error));
    // Whatever was read, it must not stay.
    let removed = jetstream.delete_message(stream, seq).await.map_err(|error| complain("removed", &error));
    let message = read?.ok_or_else(|| complain("read back", &format!("{stream} has nothing at sequence {seq}")))?;
    if message.subject != subject || message.payload != random.as_bytes() {
        return Err(format!("{subject} was stored at sequence {seq}, and something else was read from there"));
    }
    removed?;
    Ok(format!("{filter}: stored at sequence {seq}, read back, removed"))
}

/// Why a message of ours would cost somebody something: in streams whose messages are work, in those that
/// are full, which would give one up for it, and in those that never let it go again.
pub fn why_not(info: &StreamInfo) -> Option<&'static str> {
    let limit = |name| info.config.get(name).and_then(serde_json::Value::as_u64).filter(|limit| *limit > 0);
    let is = |name| info.config.get(name).and_then(serde_json::Value::as_bool).unwrap_or_default();
    let full = limit("max_msgs").is_some_and(|most| info.state.messages >= most)
        || limit("max_bytes").is_some_and(|most| info.state.bytes + 1024 > most);
    match () {
        () if info.config.get("retention").is_none_or(|retention| retention != "limits") => {
            Some("its messages are work for its consumers")
        }
        () if full => Some("it is full, and would give a message up"),
        () if is("deny_delete") || is("sealed") => Some("it never lets a message go"),
        () => None,
    }
}

/// A subject that is nobody's market data, and what makes it unique.
fn subject_below(filter: &str) -> (String, String) {
    let random = format!("{:016x}", fastrand::u64(..));
    (format!("{}_selftest.{random}", filter.trim_end_matches('>')), random)
}
