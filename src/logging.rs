//! One line per event, written by a thread of its own: a reader that stalls costs log lines, which
//! are counted and reported, never progress.

use std::fmt::{self, Write as _};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::line_queue::LineQueue;
use crate::settings::LogFormat;

/// The `service` of every line.
const SERVICE: &str = "unified-nats";

/// Where lines go: `run` owns standard output, other commands leave it to their results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

#[derive(Clone, Copy)]
enum Style {
    Json,
    Text,
}

/// A handle to the writer. Clones are cheap and write to the same place.
#[derive(Clone)]
pub struct Log {
    queue: LineQueue,
    dropped: Arc<AtomicU64>,
    level: Level,
    style: Style,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Starts the writer and sends tracing's events to it.
pub fn init(level: Level, format: LogFormat, output: Output) -> Log {
    let is_terminal = match output {
        Output::Stdout => std::io::stdout().is_terminal(),
        Output::Stderr => std::io::stderr().is_terminal(),
    };
    let style = match format {
        LogFormat::Json => Style::Json,
        LogFormat::Text => Style::Text,
        LogFormat::Auto if is_terminal => Style::Text,
        LogFormat::Auto => Style::Json,
    };
    LOG.get_or_init(|| {
        let dropped = Arc::new(AtomicU64::new(0));
        let queue = match output {
            Output::Stdout => start_writer(std::io::stdout(), dropped.clone(), style),
            Output::Stderr => start_writer(std::io::stderr(), dropped.clone(), style),
        };
        let log = Log { queue, dropped, level, style };
        let subscriber = tracing_subscriber::registry().with(Forward(log.clone()));
        let _ = tracing::subscriber::set_global_default(subscriber);
        log
    })
    .clone()
}

fn start_writer(mut out: impl Write + Send + 'static, dropped: Arc<AtomicU64>, style: Style) -> LineQueue {
    LineQueue::start("log-writer", move |line: String| {
        // A closed standard output leaves nobody to tell.
        let _ = out.write_all(line.as_bytes());
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let message = format!("{lost} log lines were dropped: the reader of the log does not keep up");
            let line = format_line(style, Level::WARN, "log", &message, Map::new());
            let _ = out.write_all(line.as_bytes());
        }
    })
}

impl Log {
    /// Writes a line that another program printed, under its own name.
    pub fn foreign(&self, level: Level, logger: &str, message: &str) {
        // How much more than INFO it prints was asked for by other settings (NATS_DEBUG, NATS_TRACE).
        if self.level >= Level::INFO || level <= self.level {
            self.send(format_line(self.style, level, logger, message, Map::new()));
        }
    }

    fn send(&self, line: String) {
        if !self.queue.push(line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything written so far is out, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        self.queue.flush(patience);
    }
}

/// `2026-11-21T06:22:57.724Z`, always with milliseconds.
pub fn timestamp(at: SystemTime) -> impl fmt::Display {
    humantime::format_rfc3339_millis(at)
}

/// The room that a line comes from. What operators may filter by stays when rooms are divided.
fn logger_of(target: &str) -> &str {
    match target.split("::").nth(1) {
        Some("preflight" | "lifecycle") => "app",
        Some(room) => room,
        None => SERVICE,
    }
}

fn format_line(style: Style, level: Level, logger: &str, message: &str, fields: Map<String, Value>) -> String {
    let now = timestamp(SystemTime::now());
    let mut line = String::with_capacity(160);
    match style {
        Style::Json => {
            let mut object = Map::new();
            object.insert("timestamp".into(), now.to_string().into());
            object.insert("level".into(), level.as_str().into());
            object.insert("logger".into(), logger.into());
            object.insert("message".into(), message.into());
            object.insert("service".into(), SERVICE.into());
            for (name, value) in fields {
                object.entry(name).or_insert(value);
            }
            let _ = write!(line, "{}", Value::Object(object));
        }
        Style::Text => {
            let _ = write!(line, "{now} {:5} {logger}: {}", level.as_str(), escape_controls(message));
            for (name, value) in fields {
                let _ = match value {
                    Value::String(text) => write!(line, " {name}={text:?}"),
                    other => write!(line, " {name}={other}"),
                };
            }
        }
    }
    line.push('\n');
    line
}

/// A line stays one line, whatever a client put into a name.
fn escape_controls(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}

struct Forward(Log);

impl Forward {
    fn is_own(target: &str) -> bool {
        target.split("::").next() == Some("unified_nats")
    }

    /// Whether events of that kind are written. Spans never are.
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        // Libraries speak only when something is wrong, unless everything is asked for. That a connection
        // cannot be made is told by us.
        let everything = Self::is_own(target) || self.0.level == Level::TRACE;
        let limit = if everything { self.0.level } else { Level::ERROR };
        metadata.is_event() && *metadata.level() <= limit && (everything || !target.starts_with("async_nats"))
    }
}

impl<S: Subscriber> Layer<S> for Forward {
    /// Asked once for each place in the code: what is not wanted costs nothing from then on.
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    /// Levels beyond are not even asked about.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.0.level))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let target = metadata.target();
        let logger = if Self::is_own(target) { logger_of(target) } else { target };
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.send(format_line(self.0.style, *metadata.level(), logger, &fields.message, fields.rest));
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.rest.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_begin_with_the_documented_fields() {
        let fields = Map::from_iter([("port".to_owned(), 4222.into()), ("level".to_owned(), "x".into())]);
        let line = format_line(Style::Json, Level::INFO, "app", "two\nlines \"quoted\"", fields);
        let body = line.strip_suffix('\n').unwrap();
        assert!(!body.contains('\n'), "{body}");
        let keys: Vec<_> = serde_json::from_str::<Map<String, Value>>(body).unwrap().keys().cloned().collect();
        assert_eq!(keys, ["timestamp", "level", "logger", "message", "service", "port"]);
        let stamp = &body[14..38];
        assert!(stamp.ends_with('Z') && stamp.as_bytes()[19] == b'.', "{stamp}");
    }

    /// What a subscriber of that level lets through: own and foreign events, and spans.
    fn let_through(level: Level) -> (LevelFilter, [bool; 5]) {
        let queue = LineQueue::start("test", |_: String| {});
        let log = Log { queue, dropped: Arc::default(), level, style: Style::Json };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Forward(log)), || {
            let enabled = [
                tracing::event_enabled!(target: "unified_nats::x", Level::DEBUG),
                tracing::event_enabled!(target: "rustls::x", Level::ERROR),
                tracing::event_enabled!(target: "rustls::x", Level::DEBUG),
                tracing::event_enabled!(target: "async_nats::x", Level::ERROR),
                !tracing::trace_span!(target: "hyper::x", "span").is_disabled(),
            ];
            (LevelFilter::current(), enabled)
        })
    }

    #[test]
    fn what_is_not_written_is_not_even_made() {
        assert_eq!(let_through(Level::INFO), (LevelFilter::INFO, [false, true, false, false, false]));
        assert_eq!(let_through(Level::DEBUG), (LevelFilter::DEBUG, [true, true, false, false, false]));
        assert_eq!(let_through(Level::TRACE), (LevelFilter::TRACE, [true, true, true, true, false]));
    }

    #[test]
    fn text_lines_stay_single() {
        let line = format_line(Style::Text, Level::WARN, "nats-server", "a\nb\x1b[31m", Map::new());
        assert!(line.ends_with(" WARN  nats-server: a\\nb\\u{1b}[31m\n"), "{line}");
    }
}
