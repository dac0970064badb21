//! What is wrong with the streams that should be, once all of them are known.

use serde_json::Value;

use super::jetstream::Capacity;
use super::market_data::MarketDataSettings;
use super::reader::Reader;
use super::streams::{BUILT_IN, StreamsSettings};
use super::variables::*;
use super::{refined, reservations, together};

pub fn check(streams: &StreamsSettings, market_data: &MarketDataSettings, reader: &mut Reader) {
    let refined = streams.declared.iter().find(|stream| streams.market_data && stream.name == market_data.name);
    if let Some(file) = refined.filter(|_| reader.problems.is_empty()) {
        refined::check(market_data, file, reader);
    }
    together::check(streams, market_data, reader);
    if let Some(capacity) = &streams.capacity {
        fit(streams, reader, capacity);
        // One that is too large by itself has been told.
        if reader.problems.is_empty() && !capacity.clustered {
            reservations::check(streams, market_data, capacity, reader);
        }
    }
    let of_files = streams.declared.iter().any(|stream| stream.file.as_ref() != BUILT_IN);
    if streams.prune && !of_files && reader.problems.is_empty() {
        // A file that was forgotten would cost every stream that it has declared before.
        reader.refuse(&STREAMS_PRUNE, "no file declares a stream, so that every stream with our mark would be deleted");
    }
}

/// What does not fit the server.
fn fit(streams: &StreamsSettings, reader: &mut Reader, capacity: &Capacity) {
    for stream in &streams.declared {
        let place = |field: &str| {
            let line = stream.lines.get(field).copied().unwrap_or(stream.line);
            format!("{}:{line}: {}.{field}", stream.file, stream.name)
        };
        let number = |field: &str| stream.config.get(field).and_then(Value::as_i64);
        if number("num_replicas").is_some_and(|replicas| replicas > 1) && !capacity.clustered {
            let rule = "must be 1 (NATS_CLUSTER_ENABLED is false)";
            reader.problems.add(place("num_replicas"), "several copies", rule, "correct it, or enable the cluster");
        }
        let in_memory = stream.config.get("storage").is_some_and(|storage| storage == "memory");
        let (capacity, variable) = match in_memory {
            true => (capacity.max_memory, JETSTREAM_MAX_MEMORY.name),
            false => (capacity.max_file, JETSTREAM_MAX_FILE.name),
        };
        if number("max_bytes").is_some_and(|bytes| bytes > 0 && bytes.unsigned_abs() > capacity.bytes()) {
            let rule = format!("must not be above {variable}={capacity}");
            reader.problems.add(
                place("max_bytes"),
                "more than there is",
                rule,
                format!("lower it, or raise {variable}"),
            );
        }
    }
}
