//! The stream of the eight families.

use std::time::Duration;

use super::jetstream::Capacity;
use super::reader::Reader;
use super::values::digits;
use super::variables::*;
use crate::domain::{ByteSize, StreamName, SubjectStyle, parse_span};

#[derive(Clone, Debug)]
pub struct MarketDataSettings {
    pub name: StreamName,
    pub style: SubjectStyle,
    /// [`None`] = no limit, here and below.
    pub max_consumers: Option<i64>,
    pub max_msgs: Option<i64>,
    pub max_bytes: Option<i64>,
    pub max_age: Option<Duration>,
    pub max_msgs_per_subject: Option<i64>,
    /// JetStream holds it in 32 bits.
    pub max_msg_size: Option<i32>,
    /// As set. Unset leaves the replicas of an existing stream alone.
    pub replicas: Option<i64>,
    pub duplicate_window: Duration,
    pub retention: Retention,
    pub discard: Discard,
    pub storage: Storage,
    pub compression: Compression,
    /// Names of this concern's variables that are set.
    pub declared: Vec<&'static str>,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant),* }

        impl $name {
            const CHOICES: &[(&str, Self)] = &[$(($word, Self::$variant)),*];

            /// JetStream's own word for it.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    )*};
}

words! {
    /// When a message may go.
    Retention { Limits = "limits", Interest = "interest", WorkQueue = "workqueue" }
    /// What gives way when the stream is full.
    Discard { Old = "old", New = "new" }
    Storage { File = "file", Memory = "memory" }
    Compression { None = "none", S2 = "s2" }
}

impl MarketDataSettings {
    pub fn read(reader: &mut Reader, capacity: Option<&Capacity>) -> Self {
        let settings = Self {
            name: reader.required(&STREAM_NAME, |text| text.parse().map_err(|e| format!("it {e}"))),
            style: reader.choice(
                &STREAM_SUBJECT_STYLE,
                &[("suffixed", SubjectStyle::Suffixed), ("plain", SubjectStyle::Plain), ("both", SubjectStyle::Both)],
            ),
            max_consumers: reader.required(&STREAM_MAX_CONSUMERS, |text| {
                match STREAM_MAX_CONSUMERS.own_range().number(text)? {
                    0 => Err("0 would allow no consumer".into()),
                    number => Ok(limit(number)),
                }
            }),
            max_msgs: limit(reader.number(&STREAM_MAX_MSGS)),
            max_bytes: reader.required(&STREAM_MAX_BYTES, |text| size_limit(&STREAM_MAX_BYTES, text)),
            max_age: read_max_age(reader),
            max_msgs_per_subject: limit(reader.number(&STREAM_MAX_MSGS_PER_SUBJECT)),
            max_msg_size: reader.required(&STREAM_MAX_MSG_SIZE, |text| {
                // Its range is that of 32 bits.
                Ok(size_limit(&STREAM_MAX_MSG_SIZE, text)?.and_then(|bytes| i32::try_from(bytes).ok()))
            }),
            replicas: read_replicas(reader),
            duplicate_window: reader.span(&STREAM_DUPLICATE_WINDOW),
            retention: reader.choice(&RETENTION_POLICY, Retention::CHOICES),
            discard: reader.choice(&DISCARD_POLICY, Discard::CHOICES),
            storage: reader.choice(&STORAGE_TYPE, Storage::CHOICES),
            compression: reader.choice(&STREAM_COMPRESSION, Compression::CHOICES),
            declared: ALL
                .iter()
                .filter(|v| v.section == STREAM_NAME.section && reader.is_set(v))
                .map(|v| v.name)
                .collect(),
        };
        settings.check_together(reader);
        if let Some(capacity) = capacity {
            settings.check_against(capacity, reader);
        }
        settings
    }

    fn check_together(&self, reader: &mut Reader) {
        if let Some(age) = self.max_age
            && self.duplicate_window > age
        {
            reader.problems.add(
                "STREAM_DUPLICATE_WINDOW, STREAM_MAX_AGE",
                format!("a window of {:?} with an age of {age:?}", self.duplicate_window),
                "STREAM_DUPLICATE_WINDOW must not be above STREAM_MAX_AGE",
                "shorten STREAM_DUPLICATE_WINDOW or raise STREAM_MAX_AGE",
            );
        }
    }

    fn check_against(&self, capacity: &Capacity, reader: &mut Reader) {
        if self.replicas.is_some_and(|replicas| replicas > 1) && !capacity.clustered {
            reader.refuse(&STREAM_REPLICAS, "NATS_CLUSTER_ENABLED is false");
        }
        let (capacity, variable) = match self.storage {
            Storage::File => (capacity.max_file, &JETSTREAM_MAX_FILE),
            Storage::Memory => (capacity.max_memory, &JETSTREAM_MAX_MEMORY),
        };
        if let Some(bytes) = self.max_bytes
            && bytes as u64 > capacity.bytes()
        {
            reader.problems.add(
                format!("STREAM_MAX_BYTES, {}", variable.name),
                format!("{} bytes for the stream with {capacity} of storage", ByteSize::new(bytes as u64)),
                format!("STREAM_MAX_BYTES must not be above {}", variable.name),
                format!("lower STREAM_MAX_BYTES or raise {}", variable.name),
            );
        }
    }
}

fn limit(number: i64) -> Option<i64> {
    (number > 0).then_some(number)
}

fn size_limit(variable: &Variable, text: &str) -> Result<Option<i64>, String> {
    if text == "-1" {
        return Ok(None);
    }
    // A ByteSize fits in 63 bits.
    Ok(limit(variable.own_range().size(text)?.bytes() as i64))
}

fn read_replicas(reader: &mut Reader) -> Option<i64> {
    let replicas = reader.required(&STREAM_REPLICAS, |text| match digits(text)? {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        "2" | "4" => Err("an even number of copies cannot outvote a lost one".into()),
        _ => Err("it is out of range".into()),
    });
    reader.is_set(&STREAM_REPLICAS).then_some(replicas)
}

fn read_max_age(reader: &mut Reader) -> Option<Duration> {
    reader.required(&STREAM_MAX_AGE, |text| {
        if text == "-1" {
            return Ok(None);
        }
        match parse_span(text)? {
            Duration::ZERO => Ok(None),
            _ => STREAM_MAX_AGE.own_range().span(text).map(Some),
        }
    })
}
