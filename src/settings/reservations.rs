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

#[cfg(test)]
mod tests {
    use crate::settings::tests::load;

    #[test]
    fn reservations_are_added_up_against_the_storage() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("streams.yml");
        let problems = |text: &str, pairs: &[(&str, &str)]| {
            std::fs::write(&path, text).unwrap();
            let mut all = vec![("STREAMS_FILE", path.to_str().unwrap()), ("JETSTREAM_MAX_FILE", "2GB")];
            all.retain(|(name, _)| pairs.iter().all(|(other, _)| other != name));
            all.extend(pairs);
            let problems = load(&all).err().map(|problems| problems.list).unwrap_or_default();
            let name = path.display().to_string();
            problems.iter().map(|problem| problem.to_string().replace(&name, "streams.yml")).collect::<Vec<_>>()
        };
        let text = "streams:\n  A: {subjects: [\"a.>\"], max_bytes: 1GB}\n  B: {subjects: [\"b.>\"], max_bytes: 1GB}\n\
                    key_value:\n  K: {max_bytes: 100MB}\n";
        assert_eq!(
            problems(text, &[("STREAM_MAX_BYTES", "512MB")]),
            [
                "JETSTREAM_MAX_FILE: cannot use 2GB for the 2660MB that max_bytes of streams and buckets reserves: 512MB \
              (STREAM_MAX_BYTES) + 1GB (streams.yml:2: A) + 1GB (streams.yml:3: B) + 100MB (streams.yml:5: KV_K): what they \
              reserve together must not be above JETSTREAM_MAX_FILE=2GB; lower max_bytes of some, or raise \
              JETSTREAM_MAX_FILE to 2660MB at least"
            ]
        );
        let none: [&str; 0] = [];
        for pairs in [
            &[("STREAM_MAX_BYTES", "512MB"), ("JETSTREAM_MAX_FILE", "2660MB")][..],
            &[("STREAMS_DEFAULTS", "none"), ("JETSTREAM_MAX_FILE", "2148MB")],
            &[("STREAM_MAX_BYTES", "512MB"), ("NATS_MODE", "external"), ("NATS_URL", "nats://x")],
            &[
                ("STREAM_MAX_BYTES", "512MB"),
                ("NATS_CLUSTER_ENABLED", "true"),
                ("NATS_CLUSTER_NAME", "c"),
                ("NATS_CLUSTER_ROUTES", "nats://a:6222,nats://b:6222"),
            ],
        ] {
            assert_eq!(problems(text, pairs), none, "{pairs:?}");
        }
        let memory = text.replace("max_bytes: 1GB", "max_bytes: 1GB, storage: memory");
        let told = problems(&memory, &[("JETSTREAM_MAX_MEMORY", "1GB")]);
        assert!(told.len() == 1 && told[0].starts_with("JETSTREAM_MAX_MEMORY: cannot use 1GB for the 2GB"), "{told:?}");
        // Of the stream of the eight families the variable counts, or else the line.
        let refined = "streams: {MARKET_DATA: {max_bytes: 1500MB}, A: {subjects: [a], max_bytes: 1GB}}";
        assert_eq!(problems(refined, &[("STREAM_MAX_BYTES", "1GB")]), none);
        let told = problems(refined, &[]);
        assert!(told.len() == 1 && told[0].contains("1500MB (streams.yml:1: MARKET_DATA)"), "{told:?}");
        let alone = problems("streams: {A: {subjects: [a], max_bytes: 3GB}}", &[]);
        assert!(
            alone.len() == 1 && alone[0].contains("must not be above JETSTREAM_MAX_FILE=2GB"),
            "told once: {alone:?}"
        );
    }
}
