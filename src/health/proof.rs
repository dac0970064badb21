use crate::domain::DataType;
use crate::nats::JetStream;
use crate::settings::MarketDataSettings;

/// Proves that the stream takes messages, by one that is stored; gives its sequence, for it to be
/// deleted again. Its subject is nobody's market data. Without writing it is content where a write would
/// cost somebody something: in streams whose messages are work, and in those that are full, which would
/// give one up for it.
pub async fn write(jetstream: &JetStream, settings: &MarketDataSettings) -> Result<Option<u64>, String> {
    let stream = settings.name.as_str();
    let info = jetstream.stream_info(stream).await.map_err(|error| error.to_string())?;
    let info = info.ok_or_else(|| format!("stream {stream} does not exist"))?;
    let limit = |name| info.config.get(name).and_then(serde_json::Value::as_u64).filter(|limit| *limit > 0);
    let is = |name| info.config.get(name).and_then(serde_json::Value::as_bool).unwrap_or_default();
    let undeletable = is("deny_delete") || is("sealed");
    let limits_only = info.config.get("retention").is_some_and(|retention| retention == "limits");
    let full = limit("max_msgs").is_some_and(|most| info.state.messages >= most)
        || limit("max_bytes").is_some_and(|most| info.state.bytes + 1024 > most);
    if !limits_only || full || undeletable {
        return Ok(None);
    }
    let family = DataType::ALL.iter().flat_map(|family| family.subjects(settings.style)).next().unwrap_or_default();
    let random = format!("{:016x}", fastrand::u64(..));
    let subject = format!("{}_selftest.{random}", family.trim_end_matches('>'));
    // The acknowledgement is the proof.
    jetstream.publish(&subject, &random, b"x").await.map(Some).map_err(|error| error.to_string())
}
