//! Where log lines go and how they look.

use std::path::PathBuf;

use super::reader::Reader;
use super::variables::*;
use crate::domain::ByteSize;

#[derive(Clone, Debug)]
pub struct LogSettings {
    pub level: tracing::Level,
    pub format: LogFormat,
    /// nats-server's own lines also go here.
    pub server_log: Option<ServerLog>,
    pub server_log_time: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
    /// Text on a terminal, else JSON.
    Auto,
}

#[derive(Clone, Debug)]
pub struct ServerLog {
    pub path: PathBuf,
    /// A file that reaches this size is rotated.
    pub max_size: ByteSize,
    /// Files kept, the current one included.
    pub max_files: usize,
}

impl LogSettings {
    pub fn read(reader: &mut Reader) -> Self {
        use tracing::Level;
        let path = reader.path(&NATS_LOG_FILE);
        let max_size = reader.size(&NATS_LOG_MAX_SIZE);
        let max_files = reader.number(&NATS_LOG_MAX_FILES) as usize;
        let format = reader.optional(&LOG_FORMAT, |text| match text.to_ascii_lowercase().as_str() {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err(String::new()),
        });
        if path.as_ref().is_some_and(|path| path.is_dir()) {
            reader.refuse(&NATS_LOG_FILE, "it is a directory");
        }
        Self {
            level: reader.choice(
                &LOG_LEVEL,
                &[
                    ("ERROR", Level::ERROR),
                    ("WARN", Level::WARN),
                    ("WARNING", Level::WARN),
                    ("INFO", Level::INFO),
                    ("DEBUG", Level::DEBUG),
                    ("TRACE", Level::TRACE),
                ],
            ),
            format: format.unwrap_or(LogFormat::Auto),
            server_log: path.map(|path| ServerLog { path, max_size, max_files }),
            server_log_time: reader.bool(&NATS_LOG_TIME),
        }
    }
}
