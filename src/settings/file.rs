//! Settings files in the shapes that brokers of this kind have had: YAML keys → variables and streams.
//! The outermost key tells the shape.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::declared::exports::{self, NoDeclarations};
use super::declared::{Declarations, DeclaredStream};
use super::document::{Document, found, join, scalar};
use super::problem::{Problems, quote};
use super::users::{self, User};
use super::values::parse_bool;
use super::variables::*;
use crate::yaml::{self, Entry, Node, Place};

/// What a file says.
#[derive(Debug, Default)]
pub struct SettingsFile {
    /// Variables with their values and the lines that they stand in; the first one counts.
    pub variables: Vec<(&'static str, String, usize)>,
    pub streams: Vec<DeclaredStream>,
    pub users: Vec<User>,
    /// What was read.
    pub read: Option<ReadFile>,
}

/// A file as it was read.
#[derive(Clone, Debug)]
pub struct ReadFile {
    pub path: PathBuf,
    digest: u64,
}

impl ReadFile {
    fn of(path: &Path, text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self { path: path.to_owned(), digest: hasher.finish() }
    }

    /// Whether something else stands there now, or nothing.
    pub fn has_changed(&self) -> bool {
        !read_text(&self.path).is_ok_and(|text| Self::of(&self.path, &text).digest == self.digest)
    }
}

/// What becomes of a key's value.
enum Goes {
    To(&'static Variable),
    /// A path, which is taken from where the file lies.
    Path(&'static Variable),
    /// A list, or one text.
    List(&'static Variable),
    /// Together with another variable that it implies.
    Both(&'static Goes, &'static Variable, &'static str),
    /// `false` sets a variable; `true` is how it is anyway.
    Off(&'static Variable, &'static str),
    /// Address and port.
    Listen,
    Into(&'static [Key]),
    Streams,
    KeyValue,
    ObjectStore,
    StrictSubjects,
    Users,
    /// For a part that this program does not have, or another program.
    Nowhere,
}

use Goes::{
    Both, Into, KeyValue, List, Listen, Nowhere, ObjectStore, Off, Path as File, Streams, StrictSubjects, To, Users,
};

type Key = (&'static str, Goes);

static ROOT: &[Key] = &[
    ("streams", Streams),
    ("key_value", KeyValue),
    ("object_store", ObjectStore),
    ("strict_subjects", StrictSubjects),
    ("users", Both(&Users, &NATS_AUTH_ENABLED, "true")),
    ("nats", Into(NATS)),
    ("nats_client", Into(CLIENT)),
    ("nats_server", Into(SERVER)),
    ("message-broker-service", Into(BROKER_SERVICE)),
    ("services", Into(&[("message-broker", Into(SERVICE))])),
    ("service", Into(SERVICE)),
    ("monitoring", Into(MONITORING)),
    ("logging", Into(LOGGING)),
];

static BROKER_SERVICE: &[Key] = &[
    ("port", To(&API_PORT)),
    ("host", To(&API_HOST)),
    ("auto_start_nats", Off(&NATS_MODE, "external")),
    ("auto_create_streams", Off(&STREAMS_DEFAULTS, "none")),
    ("nats", Into(NATS)),
];

static SERVICE: &[Key] = &[
    ("port", To(&API_PORT)),
    ("host", To(&API_HOST)),
    ("name", Nowhere),
    ("version", Nowhere),
    ("environment", To(&ENVIRONMENT)),
    ("nats_server", Into(SERVER)),
    ("nats_client", Into(CLIENT)),
    ("streams", Streams),
    ("key_value", KeyValue),
    ("object_store", ObjectStore),
    ("strict_subjects", StrictSubjects),
];

static SERVER: &[Key] =
    &[("port", To(&NATS_PORT)), ("cluster_port", To(&NATS_CLUSTER_PORT)), ("http_port", To(&NATS_HTTP_PORT))];

static CLIENT: &[Key] = &[
    ("nats_url", To(&NATS_URL)),
    ("url", To(&NATS_URL)),
    ("timeout", To(&NATS_CONNECT_TIMEOUT)),
    ("max_reconnect_attempts", To(&NATS_MAX_RECONNECT)),
    ("client_name", Nowhere),
    ("reconnect_time_wait", Nowhere),
    ("strict_subjects", StrictSubjects),
];

static NATS: &[Key] = &[
    ("nats_port", To(&NATS_PORT)),
    ("cluster_port", To(&NATS_CLUSTER_PORT)),
    ("http_port", To(&NATS_HTTP_PORT)),
    ("jetstream_enabled", To(&JETSTREAM_ENABLED)),
    ("jetstream_max_memory", To(&JETSTREAM_MAX_MEMORY)),
    ("jetstream_max_storage", To(&JETSTREAM_MAX_FILE)),
    ("jetstream_max_streams", To(&JETSTREAM_MAX_STREAMS)),
    ("jetstream_max_consumers", To(&JETSTREAM_MAX_CONSUMERS)),
    ("nats_url", To(&NATS_URL)),
    ("client_urls", Both(&List(&NATS_URL), &NATS_MODE, "external")),
    ("data_dir", File(&JETSTREAM_STORE_DIR)),
    ("max_connections", To(&NATS_MAX_CONNECTIONS)),
    ("max_subscriptions", To(&NATS_MAX_SUBSCRIPTIONS)),
    ("max_payload", To(&NATS_MAX_PAYLOAD)),
    ("write_deadline", To(&NATS_WRITE_DEADLINE)),
    ("ping_interval", To(&NATS_PING_INTERVAL)),
    ("max_pings_out", To(&NATS_PING_MAX)),
    ("cluster_name", To(&NATS_CLUSTER_NAME)),
    ("cluster_listen", Both(&Listen, &NATS_CLUSTER_ENABLED, "true")),
    ("cluster_routes", Both(&List(&NATS_CLUSTER_ROUTES), &NATS_CLUSTER_ENABLED, "true")),
    ("tls", Both(&Into(TLS), &NATS_TLS_ENABLED, "true")),
    ("users", Both(&Users, &NATS_AUTH_ENABLED, "true")),
    ("streams", Streams),
    ("key_value", KeyValue),
    ("object_store", ObjectStore),
    ("strict_subjects", StrictSubjects),
];

static TLS: &[Key] = &[
    ("cert_file", File(&NATS_TLS_CERT)),
    ("key_file", File(&NATS_TLS_KEY)),
    ("ca_file", File(&NATS_TLS_CA)),
    ("verify", To(&NATS_TLS_VERIFY)),
];

static MONITORING: &[Key] = &[
    ("enabled", To(&HEALTH_CHECK_ENABLED)),
    ("metrics_port", Both(&To(&PROMETHEUS_PORT), &PROMETHEUS_ENABLED, "true")),
    ("health_check_interval", To(&HEALTH_CHECK_INTERVAL)),
    ("alerts", Into(ALERTS)),
];

static ALERTS: &[Key] = &[
    ("max_memory_usage", To(&ALERT_MEMORY_RATIO)),
    ("max_disk_usage", To(&ALERT_DISK_RATIO)),
    ("max_connection_count", Nowhere),
    ("min_available_storage", Nowhere),
];

static LOGGING: &[Key] = &[
    ("level", To(&LOG_LEVEL)),
    ("format", To(&LOG_FORMAT)),
    ("file", File(&NATS_LOG_FILE)),
    ("max_size", To(&NATS_LOG_MAX_SIZE)),
    ("max_files", To(&NATS_LOG_MAX_FILES)),
];

impl SettingsFile {
    /// Reads the file at `path`, which `variable` names; whatever is wrong goes to `problems`.
    pub fn read(path: &Path, variable: &Variable, problems: &mut Problems) -> Self {
        let name = path.display().to_string();
        match read_text(path) {
            Ok(text) => {
                let file = Self::of(&name, &text, path.parent().unwrap_or(Path::new(".")), problems);
                Self { read: Some(ReadFile::of(path, &text)), ..file }
            }
            Err(reason) => {
                let rule = format!("cannot be read: {reason}");
                let remedy = "name a readable UTF-8 file of at most 4 MiB";
                problems.add(variable.name, quote(&name), rule, remedy);
                Self::default()
            }
        }
    }

    pub fn of(name: &str, text: &str, directory: &Path, problems: &mut Problems) -> Self {
        let mut refuse = |at: Place, found: String, rule: &str, remedy: &str| {
            problems.add(format!("{name}:{at}"), found, rule, remedy);
        };
        let root = match yaml::parse(text).map(exports::as_declarations) {
            Ok(Ok(Some(root))) => root,
            Ok(Ok(None)) => return Self::default(),
            Ok(Err(NoDeclarations { at, found, rule, remedy })) => {
                refuse(at, found, &rule, remedy);
                return Self::default();
            }
            Err(faults) => {
                for fault in faults {
                    refuse(fault.at, fault.what, "this is not YAML that can be used", "correct it");
                }
                return Self::default();
            }
        };
        let mut walk = Walk {
            document: Document { name, problems, exported: false },
            directory,
            file: Self::default(),
            declarations: Declarations::default(),
            strict_only: true,
        };
        // What it says about all streams may stand behind them.
        walk.map(&root, ROOT, "");
        walk.strict_only = false;
        walk.map(&root, ROOT, "");
        walk.imply(&root);
        SettingsFile { streams: walk.declarations.streams, ..walk.file }
    }
}

/// Only the streams of a file. Public for the fuzz target `streams_file`.
pub fn read_streams(name: &str, text: &str, problems: &mut Problems) -> Vec<DeclaredStream> {
    SettingsFile::of(name, text, Path::new("."), problems).streams
}

/// Attempts to read a file that somebody writes to.
const ATTEMPTS: u32 = 5;

fn read_text(path: &Path) -> Result<String, String> {
    for _ in 0..ATTEMPTS {
        if let Some(bytes) = read_bytes(path)? {
            return String::from_utf8(bytes)
                .map_err(|error| format!("it is not UTF-8 text from byte {} on", error.utf8_error().valid_up_to()));
        }
    }
    Err("it changes while it is read: write another file, and rename it to this one".into())
}

/// [`None`] for a file that has changed meanwhile: half of what somebody writes may be another meaning.
fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let describe = |error: std::io::Error| error.to_string();
    if !std::fs::metadata(path).map_err(describe)?.is_file() {
        // Opening a pipe would wait for whoever writes to it.
        return Err("it is not a regular file".into());
    }
    let mut file = std::fs::File::open(path).map_err(describe)?;
    let before = Condition::of(&file).map_err(describe)?;
    let mut bytes = Vec::new();
    (&mut file).take(yaml::LONGEST as u64 + 1).read_to_end(&mut bytes).map_err(describe)?;
    if bytes.len() > yaml::LONGEST {
        return Err("it is larger than 4 MiB".into());
    }
    let after = Condition::of(&file).map_err(describe)?;
    Ok(after.is_whole(&before, bytes.len()).then_some(bytes))
}

/// What tells a file from the same one that was written to.
#[derive(PartialEq)]
struct Condition {
    length: u64,
    modified: std::time::SystemTime,
}

impl Condition {
    fn of(file: &std::fs::File) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { length: metadata.len(), modified: metadata.modified()? })
    }

    /// Whether `read` bytes are all there is, and nothing has changed since `before`. Some file systems
    /// do not know the length of what they make up.
    fn is_whole(&self, before: &Self, read: usize) -> bool {
        self == before && (self.length == 0 || self.length == read as u64)
    }
}

struct Walk<'a> {
    document: Document<'a>,
    directory: &'a Path,
    file: SettingsFile,
    declarations: Declarations,
    /// The first of two passes: problems are told in the second.
    strict_only: bool,
}

impl Walk<'_> {
    fn map(&mut self, node: &Node, keys: &'static [Key], path: &str) {
        let entries: &[Entry] = match (&node.value, self.strict_only) {
            (yaml::Value::Map(entries), _) => entries,
            (_, true) => &[],
            (_, false) => self.document.entries(node, path),
        };
        for entry in entries {
            match keys.iter().find(|(name, _)| *name == entry.key) {
                Some((_, goes)) => self.take(entry, goes, &join(path, &entry.key)),
                // Its anchors are used elsewhere.
                None if self.strict_only || entry.key.starts_with("x-") => {}
                None => self.document.unknown_key(entry, path, keys.iter().map(|(name, _)| *name)),
            }
        }
    }

    fn take(&mut self, entry: &Entry, goes: &'static Goes, path: &str) {
        match goes {
            Into(keys) => return self.map(&entry.value, keys, path),
            StrictSubjects if self.strict_only => {
                self.declarations.strict_subjects |=
                    scalar(&entry.value).is_ok_and(|text| parse_bool(text) == Ok(true));
            }
            Both(Into(keys), ..) if self.strict_only => return self.map(&entry.value, keys, path),
            _ => {}
        }
        if self.strict_only || entry.value.value == yaml::Value::Null {
            return;
        }
        match goes {
            To(variable) => self.set_scalar(entry, variable, path, |text| text.to_owned()),
            File(variable) => {
                let directory = self.directory.to_owned();
                self.set_scalar(entry, variable, path, |text| directory.join(text).display().to_string());
            }
            List(variable) => self.set_list(entry, variable, path),
            Both(goes, variable, value) => {
                self.take(entry, goes, path);
                self.set(variable, (*value).to_owned(), entry);
            }
            Off(variable, value) => {
                if self.document.bool(&entry.value, path) == Some(false) {
                    self.set(variable, (*value).to_owned(), entry);
                }
            }
            Listen => self.set_listen(entry, path),
            Streams => self.declarations.read_streams(&mut self.document, entry, path),
            KeyValue => self.declarations.read_key_values(&mut self.document, entry, path),
            ObjectStore => self.declarations.read_object_stores(&mut self.document, entry, path),
            Users => {
                let users = users::read(&mut self.document, &entry.value, path);
                self.file.users.extend(users);
            }
            StrictSubjects => _ = self.document.bool(&entry.value, path),
            Into(_) | Nowhere => {}
        }
    }

    fn set(&mut self, variable: &'static Variable, value: String, entry: &Entry) {
        if !self.file.variables.iter().any(|(name, ..)| *name == variable.name) {
            self.file.variables.push((variable.name, value, entry.at.line));
        }
    }

    fn set_scalar(
        &mut self,
        entry: &Entry,
        variable: &'static Variable,
        path: &str,
        value: impl FnOnce(&str) -> String,
    ) {
        match scalar(&entry.value) {
            Ok(text) => self.set(variable, value(text), entry),
            Err(_) => self.refuse(entry, path, &format!("must be {}", variable.allowed())),
        }
    }

    fn set_list(&mut self, entry: &Entry, variable: &'static Variable, path: &str) {
        let texts: Option<Vec<&str>> = match &entry.value.value {
            yaml::Value::List(nodes) => nodes.iter().map(|node| scalar(node).ok()).collect(),
            _ => scalar(&entry.value).ok().map(|text| vec![text]),
        };
        match texts {
            Some(texts) => self.set(variable, texts.join(","), entry),
            None => self.refuse(entry, path, &format!("must be a list: {}", variable.allowed())),
        }
    }

    fn set_listen(&mut self, entry: &Entry, path: &str) {
        match scalar(&entry.value).ok().and_then(|text| text.rsplit_once(':')) {
            Some((host, port)) => {
                self.set(&NATS_CLUSTER_HOST, host.to_owned(), entry);
                self.set(&NATS_CLUSTER_PORT, port.to_owned(), entry);
            }
            None => self.refuse(entry, path, "must be an address and a port, such as 0.0.0.0:6222"),
        }
    }

    fn refuse(&mut self, entry: &Entry, path: &str, rule: &str) {
        self.document.problem(entry.value.at, path, &found(&entry.value), rule, "correct it, or leave it out");
    }

    /// What follows from keys that are there or not.
    fn imply(&mut self, root: &Node) {
        let yaml::Value::Map(entries) = &root.value else { return };
        let named = |entries: &'_ [Entry], name: &str| entries.iter().find(|entry| entry.key == name).cloned();
        if let Some(shape) = named(entries, "message-broker-service") {
            self.set(&STREAMS_DEFAULTS, "broker".into(), &shape);
        }
        // A file that says where the server is, and nothing about a server of its own.
        let inner = named(entries, "services").and_then(|services| match services.value.value {
            yaml::Value::Map(entries) => match named(&entries, "message-broker")?.value.value {
                yaml::Value::Map(entries) => Some(entries),
                _ => None,
            },
            _ => None,
        });
        let entries = inner.unwrap_or_else(|| entries.clone());
        if let (Some(client), None) = (named(&entries, "nats_client"), named(&entries, "nats_server"))
            && self.file.variables.iter().any(|(name, ..)| *name == NATS_URL.name)
        {
            self.set(&NATS_MODE, "external".into(), &client);
        }
    }
}

#[cfg(test)]
mod tests;
