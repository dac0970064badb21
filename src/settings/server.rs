//! nats-server itself: where it is, where it listens, its limits.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use super::host::Host;
use super::range::MIB;
use super::reader::Reader;
use super::variables::*;
use crate::domain::{ByteSize, ServerName};

#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// A path, or a name to be looked up in PATH.
    pub executable: String,
    /// Whether an older server may open a store that a newer one has written.
    pub allow_downgrade: bool,
    /// As set; [`None`] leaves the default, which depends on clustering.
    pub name: Option<ServerName>,
    pub host: Host,
    pub port: NonZeroU16,
    /// [`None`]: no HTTP monitoring.
    pub monitoring: Option<Monitoring>,
    /// As set; [`None`] leaves the choice of a directory to the start.
    pub config_file: Option<PathBuf>,
    pub limits: Limits,
    pub debug: bool,
    pub trace: bool,
    pub lame_duck_duration: Duration,
    pub lame_duck_grace: Duration,
    /// The text of NATS_EXTRA_CONFIG's file.
    pub extra_config: Option<ExtraConfig>,
    /// GOMEMLIMIT as set; [`None`] leaves it to the container's memory limit.
    pub memory_limit: Option<MemoryLimit>,
}

/// A GOMEMLIMIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// As the Go runtime reads it.
    pub text: String,
    /// [`None`]: no limit.
    pub bytes: Option<u64>,
}

impl MemoryLimit {
    pub fn of_bytes(bytes: u64) -> Self {
        Self { text: bytes.to_string(), bytes: Some(bytes) }
    }
}

#[derive(Clone, Debug)]
pub struct Monitoring {
    pub host: Host,
    pub port: NonZeroU16,
}

#[derive(Clone, Debug)]
pub struct Limits {
    pub max_connections: i64,
    pub max_subscriptions: i64,
    pub max_control_line: ByteSize,
    pub max_payload: ByteSize,
    pub max_pending: ByteSize,
    pub write_deadline: Duration,
    pub ping_interval: Duration,
    pub ping_max: i64,
}

/// A fragment of nats.conf, as it stands in its file.
#[derive(Clone, Debug)]
pub struct ExtraConfig {
    pub path: PathBuf,
    pub text: String,
}

impl ServerSettings {
    pub fn read(reader: &mut Reader) -> Self {
        let host = reader.host(&NATS_HOST, None);
        let monitoring_host = reader.host(&NATS_HTTP_HOST, Some(&host));
        let monitoring_port = reader.port(&NATS_HTTP_PORT);
        let monitoring = reader.bool(&MONITORING_ENABLED);
        let lame_duck_duration = reader.span(&NATS_LAME_DUCK_DURATION);
        let lame_duck_grace = reader.span(&NATS_LAME_DUCK_GRACE);
        if lame_duck_grace >= lame_duck_duration {
            reader.refuse(&NATS_LAME_DUCK_GRACE, "it is not below NATS_LAME_DUCK_DURATION");
        }
        Self {
            executable: reader.text(&NATS_SERVER_BIN).unwrap_or_else(|| "nats-server".into()),
            allow_downgrade: reader.bool(&NATS_SERVER_ALLOW_DOWNGRADE),
            name: read_name(reader),
            port: reader.port(&NATS_PORT),
            monitoring: monitoring.then_some(Monitoring { host: monitoring_host, port: monitoring_port }),
            host,
            config_file: reader.path(&NATS_CONFIG_FILE),
            limits: Limits::read(reader),
            debug: reader.bool(&NATS_DEBUG),
            trace: reader.bool(&NATS_TRACE),
            lame_duck_duration,
            lame_duck_grace,
            extra_config: read_extra_config(reader),
            memory_limit: read_memory_limit(reader),
        }
    }
}

impl Limits {
    fn read(reader: &mut Reader) -> Self {
        let max_payload = reader.size(&NATS_MAX_PAYLOAD);
        let max_pending = reader.size(&NATS_MAX_PENDING);
        if max_payload > max_pending {
            reader.problems.add(
                "NATS_MAX_PAYLOAD, NATS_MAX_PENDING",
                format!("a payload of {max_payload} with {max_pending} pending"),
                "NATS_MAX_PAYLOAD must not be above NATS_MAX_PENDING",
                "lower NATS_MAX_PAYLOAD or raise NATS_MAX_PENDING",
            );
        }
        if max_payload.bytes() > 8 * MIB {
            reader.warnings.push(format!(
                "NATS_MAX_PAYLOAD={max_payload} is above 8MB: messages that large hurt latency and memory; keep \
                 large objects in an object store"
            ));
        }
        Self {
            max_connections: reader.number(&NATS_MAX_CONNECTIONS),
            max_subscriptions: reader.number(&NATS_MAX_SUBSCRIPTIONS),
            max_control_line: reader.size(&NATS_MAX_CONTROL_LINE),
            max_payload,
            max_pending,
            write_deadline: reader.span(&NATS_WRITE_DEADLINE),
            ping_interval: reader.span(&NATS_PING_INTERVAL),
            ping_max: reader.number(&NATS_PING_MAX),
        }
    }
}

fn read_name(reader: &mut Reader) -> Option<ServerName> {
    let rule = |text: &str| text.parse().map_err(|e| format!("it {e}"));
    let name = reader.optional(&NATS_SERVER_NAME, rule);
    name.filter(|_| reader.is_set(&NATS_SERVER_NAME))
}

const MAX_FRAGMENT: u64 = MIB;

fn read_extra_config(reader: &mut Reader) -> Option<ExtraConfig> {
    let path = reader.readable_file(&NATS_EXTRA_CONFIG)?;
    let read = || -> Result<String, String> {
        if std::fs::metadata(&path).map_err(|e| e.to_string())?.len() > MAX_FRAGMENT {
            return Err("it is larger than 1 MiB".into());
        }
        std::fs::read_to_string(&path).map_err(|e| e.to_string())
    };
    match read() {
        Ok(text) => Some(ExtraConfig { path, text }),
        Err(reason) => {
            reader.refuse(&NATS_EXTRA_CONFIG, &reason);
            None
        }
    }
}

/// The form that the Go runtime reads (runtime/debug.SetMemoryLimit): bytes with an optional unit
/// B, KiB, MiB, GiB, TiB, or `off`. Any other text would abort nats-server at once.
fn read_memory_limit(reader: &mut Reader) -> Option<MemoryLimit> {
    const UNITS: [(&str, u32); 5] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0)];
    reader.optional(&GOMEMLIMIT, |text| {
        if text == "off" {
            return Ok(MemoryLimit { text: text.to_owned(), bytes: None });
        }
        let with_unit = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
        let (digits, shift) = with_unit.unwrap_or((text, 0));
        let numeric = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        // Go counts in signed 64-bit integers.
        let bytes = digits.parse::<i64>().ok().filter(|_| numeric).and_then(|number| number.checked_mul(1 << shift));
        let bytes = bytes.ok_or_else(String::new)?;
        Ok(MemoryLimit { text: text.to_owned(), bytes: Some(bytes.unsigned_abs()) })
    })
}
