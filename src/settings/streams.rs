//! Which streams there should be besides the one that variables describe.

use std::time::Duration;

use super::declared::DeclaredStream;
use super::file::{ReadFile, SettingsFile, read_streams};
use super::jetstream::Capacity;
use super::market_data::MarketDataSettings;
use super::reader::Reader;
use super::variables::*;

#[derive(Clone, Debug)]
pub struct StreamsSettings {
    /// Whether the stream of the eight families is one of them.
    pub market_data: bool,
    /// Streams of files and built-in sets. One with the name of the stream of the eight families says
    /// more about that one.
    pub declared: Vec<DeclaredStream>,
    /// The files that they were read from.
    pub files: Vec<ReadFile>,
    /// Time between two drift checks; [`None`]: only at the start and on SIGHUP.
    pub reconcile_interval: Option<Duration>,
    /// Streams that bear our mark and are not declared any more are deleted.
    pub prune: bool,
    pub max_streams: Option<u64>,
    pub max_consumers: Option<u64>,
    /// What a server of our own can hold.
    pub capacity: Option<Capacity>,
}

/// The name of what is not a file.
pub(super) const BUILT_IN: &str = "STREAMS_DEFAULTS=broker";

/// What brokers of this kind had before there was a stream for market data alone.
const BROKER: &str = "
streams:
  MARKET_DATA: {subjects: [market.>], max_age: 1h, max_msgs: 1000000}
  SYSTEM_EVENTS: {subjects: [system.>], max_age: 24h, max_msgs: 100000}
  SERVICE_LOGS: {subjects: [service.>], max_age: 168h, max_msgs: 500000}
";

/// The stream for market data of that set, beside the one of the eight families.
const MARKET_EVENTS: &str = "MARKET_EVENTS";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Set {
    MarketData,
    Broker,
    None,
}

fn most(reader: &mut Reader, variable: &Variable) -> Option<u64> {
    reader.optional(variable, |text| variable.own_range().number(text)).map(i64::unsigned_abs)
}

impl StreamsSettings {
    /// `settings_file` is what CONFIG_FILE says.
    pub fn read(
        reader: &mut Reader,
        settings_file: SettingsFile,
        market_data: &MarketDataSettings,
        capacity: Option<Capacity>,
    ) -> Self {
        let sets = reader.required(&STREAMS_DEFAULTS, |text| {
            text.split(',')
                .map(|set| match set {
                    "market-data" => Ok(Set::MarketData),
                    "broker" => Ok(Set::Broker),
                    "none" => Ok(Set::None),
                    _ => Err(String::new()),
                })
                .collect::<Result<Vec<_>, _>>()
        });
        if sets.len() > 1 && sets.contains(&Set::None) {
            reader.refuse(&STREAMS_DEFAULTS, "none stands alone");
        }
        let interval = reader.span(&STREAMS_RECONCILE_INTERVAL);
        let mut settings = Self {
            market_data: sets.contains(&Set::MarketData),
            declared: vec![],
            files: vec![],
            reconcile_interval: (!interval.is_zero()).then_some(interval),
            prune: reader.bool(&STREAMS_PRUNE),
            max_streams: most(reader, &JETSTREAM_MAX_STREAMS),
            max_consumers: most(reader, &JETSTREAM_MAX_CONSUMERS),
            capacity,
        };
        if sets.contains(&Set::Broker) {
            settings.declared = settings.broker_set(reader);
        }
        settings.files.extend(settings_file.read);
        settings.add(settings_file.streams, reader, market_data.name.as_str());
        if let Some(file) = reader.readable_file(&STREAMS_FILE) {
            let read = SettingsFile::read(&file, &STREAMS_FILE, reader.problems);
            let (name, ignored) = (file.display(), read.variables.iter().map(|(variable, ..)| *variable));
            let ignored: Vec<_> = ignored.collect();
            if !ignored.is_empty() {
                let ignored = ignored.join(", ");
                reader
                    .warnings
                    .push(format!("{name}: it says something about {ignored}, which counts in CONFIG_FILE only"));
            }
            if read.streams.is_empty() && reader.problems.is_empty() {
                reader.warnings.push(format!("{name} declares no stream"));
            }
            settings.files.extend(read.read);
            settings.add(read.streams, reader, market_data.name.as_str());
        }
        settings
    }

    fn broker_set(&self, reader: &mut Reader) -> Vec<DeclaredStream> {
        let mut set = read_streams(BUILT_IN, BROKER, reader.problems);
        let second = MARKET_EVENTS.parse().ok().filter(|_| self.market_data);
        if let (Some(name), Some(first)) = (second, set.first_mut()) {
            first.name = name;
        }
        set
    }

    /// Adds the streams of a file; those of a built-in set give way to them.
    fn add(&mut self, declared: Vec<DeclaredStream>, reader: &mut Reader, market_data: &str) {
        self.declared.retain(|built_in| {
            built_in.file.as_ref() != BUILT_IN || declared.iter().all(|stream| stream.name != built_in.name)
        });
        for stream in declared {
            if let Some(other) = self.declared.iter().find(|other| other.name == stream.name) {
                reader.problems.add(
                    format!("{}:{}: {}", stream.file, stream.line, stream.name),
                    "this stream",
                    format!("is declared in {}:{} already", other.file, other.line),
                    "keep one of the two",
                );
                continue;
            }
            if stream.is_for_its_consumers_alone() && !(self.market_data && stream.name.as_str() == market_data) {
                let names: Vec<_> = stream.consumers.iter().take(5).map(|consumer| consumer.name.as_str()).collect();
                reader.problems.add(
                    format!("{}:{}: {}", stream.file, stream.line, stream.name),
                    format!("consumers without their stream: {}", names.join(", ")),
                    format!("stream {} must be declared with them", stream.name),
                    format!("add its subjects, or what `nats stream info {} -j` prints", stream.name),
                );
                continue;
            }
            let refines = self.market_data && stream.name.as_str() == market_data;
            if !refines && !stream.says_what_it_captures() {
                reader.problems.add(
                    format!("{}:{}: {}", stream.file, stream.line, stream.name),
                    "a stream without subjects",
                    "must name at least one subject, a mirror or sources",
                    "add subjects: [\"…\"]",
                );
            }
            self.declared.push(stream);
        }
    }
}
