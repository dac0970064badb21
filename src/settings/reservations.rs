//! Bytes that streams reserve by max_bytes, all together: nats-server refuses the one that does not fit.

use serde_json::Value;

use super::declared::DeclaredStream;
use super::jetstream::Capacity;
use super::market_data::{MarketDataSettings, Storage};
use super::reader::Reader;
use super::streams::StreamsSettings;
use super::variables::*;
use crate::domain::ByteSize;

/// Reservations named in one problem at most.
const MOST_NAMED: usize = 10;

struct Reservation {
    /// Where it is declared.
    place: String,
    bytes: i64,
    in_memory: bool,
}

/// Of a server of our own that stands alone: each node of a cluster holds what is put there.
pub(super) fn check(
    streams: &StreamsSettings,
    market_data: &MarketDataSettings,
    capacity: &Capacity,
    reader: &mut Reader,
) {
    let refined = streams.declared.iter().find(|stream| streams.market_data && stream.name == market_data.name);
    let mut reservations = vec![];
    if streams.market_data {
        reservations.extend(of_market_data(market_data, refined));
    }
    let others = streams.declared.iter().filter(|stream| refined.is_none_or(|refined| refined.name != stream.name));
    reservations.extend(others.filter_map(of_declared));
    for (in_memory, limit, variable) in
        [(false, capacity.max_file, JETSTREAM_MAX_FILE.name), (true, capacity.max_memory, JETSTREAM_MAX_MEMORY.name)]
    {
        let of_kind: Vec<_> = reservations.iter().filter(|one| one.in_memory == in_memory).collect();
        let total = of_kind.iter().fold(0_i64, |total, one| total.saturating_add(one.bytes));
        if total.unsigned_abs() <= limit.bytes() {
            continue;
        }
        let size = |bytes: i64| ByteSize::new(bytes.unsigned_abs());
        let mut named: Vec<_> =
            of_kind.iter().take(MOST_NAMED).map(|one| format!("{} ({})", size(one.bytes), one.place)).collect();
        if of_kind.len() > MOST_NAMED {
            named.push(format!("{} more", of_kind.len() - MOST_NAMED));
        }
        reader.problems.add(
            variable,
            format!(
                "{limit} for the {} that max_bytes of streams and buckets reserves: {}",
                size(total),
                named.join(" + ")
            ),
            format!("what they reserve together must not be above {variable}={limit}"),
            format!("lower max_bytes of some, or raise {variable} to {} at least", size(total)),
        );
    }
}

fn of_market_data(settings: &MarketDataSettings, refined: Option<&DeclaredStream>) -> Option<Reservation> {
    let set = |variable: &Variable| settings.declared.contains(&variable.name);
    let of_file = |field: &str| refined.and_then(|stream| stream.config.get(field));
    let bytes = match of_file("max_bytes").and_then(Value::as_i64).filter(|_| !set(&STREAM_MAX_BYTES)) {
        Some(bytes) => Some((bytes, refined.map(place).unwrap_or_default())),
        None => settings.max_bytes.map(|bytes| (bytes, STREAM_MAX_BYTES.name.to_owned())),
    };
    let in_memory = match of_file("storage").filter(|_| !set(&STORAGE_TYPE)) {
        Some(storage) => storage == "memory",
        None => settings.storage == Storage::Memory,
    };
    let (bytes, place) = bytes.filter(|(bytes, _)| *bytes > 0)?;
    Some(Reservation { place, bytes, in_memory })
}

fn of_declared(stream: &DeclaredStream) -> Option<Reservation> {
    let bytes = stream.config.get("max_bytes").and_then(Value::as_i64).filter(|bytes| *bytes > 0)?;
    let in_memory = stream.config.get("storage").is_some_and(|storage| storage == "memory");
    Some(Reservation { place: place(stream), bytes, in_memory })
}

fn place(stream: &DeclaredStream) -> String {
    let line = stream.lines.get("max_bytes").copied().unwrap_or(stream.line);
    format!("{}:{line}: {}", stream.file, stream.name)
}
