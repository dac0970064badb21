//! What nats-server refuses whatever it holds already, or switches to something else than what is
//! declared: told before anything is sent. Every rule was measured on 2.10.26, 2.11.11, 2.12.8, 2.14.6
//! and 2.15.1; random files against those servers keep it true, in both directions.

mod consumers;
mod sources;
mod streams;
mod transforms;

use serde_json::{Map, Value};

use crate::domain::ServerVersion;

/// Fields of one declaration that cannot stand beside each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The consumer, where it is not the stream itself.
    pub consumer: Option<String>,
    pub field: &'static str,
    pub found: String,
    /// As a phrase whose subject is the field.
    pub rule: String,
    pub remedy: String,
    pub servers: Servers,
}

/// The servers that refuse something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Servers {
    All,
    Since(ServerVersion),
    Before(ServerVersion),
}

impl Servers {
    pub fn hold(self, version: ServerVersion) -> bool {
        match self {
            Self::All => true,
            Self::Since(first) => version >= first,
            Self::Before(first) => version < first,
        }
    }
}

/// A consumer's name and what it is created with.
pub type Consumer<'a> = (&'a str, &'a Map<String, Value>);

/// All of a stream and its consumers; `config` is what the stream `name` is created with.
pub fn contradictions(name: &str, config: &Map<String, Value>, consumers: &[Consumer<'_>]) -> Vec<Contradiction> {
    let mut finder = Finder::of(config, None);
    streams::find(&mut finder);
    sources::find(&mut finder, name);
    let mut found = finder.found;
    found.extend(consumers::find(config, consumers));
    found
}

/// Collects contradictions of one configuration.
struct Finder<'a> {
    config: &'a Map<String, Value>,
    consumer: Option<&'a str>,
    found: Vec<Contradiction>,
}

impl<'a> Finder<'a> {
    fn of(config: &'a Map<String, Value>, consumer: Option<&'a str>) -> Self {
        Self { config, consumer, found: vec![] }
    }

    fn number(&self, field: &str) -> i64 {
        self.config.get(field).and_then(Value::as_i64).unwrap_or_default()
    }

    fn text(&self, field: &str) -> &'a str {
        self.config.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    fn is(&self, field: &str) -> bool {
        self.config.get(field) == Some(&Value::Bool(true))
    }

    /// Whether it is declared to be off.
    fn is_off(&self, field: &str) -> bool {
        self.config.get(field) == Some(&Value::Bool(false))
    }

    /// Whether it says anything.
    fn has(&self, field: &str) -> bool {
        match self.config.get(field) {
            None | Some(Value::Null) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Bool(on)) => *on,
            Some(Value::Number(number)) => number.as_i64() != Some(0),
        }
    }

    fn refuse(&mut self, field: &'static str, found: impl Into<String>, rule: impl Into<String>, remedy: &str) {
        self.refused_by(Servers::All, field, found, rule, remedy);
    }

    fn refused_by(
        &mut self,
        servers: Servers,
        field: &'static str,
        found: impl Into<String>,
        rule: impl Into<String>,
        remedy: &str,
    ) {
        let (found, rule, remedy) = (found.into(), rule.into(), remedy.to_owned());
        let consumer = self.consumer.map(str::to_owned);
        self.found.push(Contradiction { consumer, field, found, rule, remedy, servers });
    }
}

/// JetStream counts names and values together (server/jetstream_api.go, JSMaxMetadataLen).
const MOST_METADATA: usize = 128 * 1024;

impl Finder<'_> {
    fn metadata(&mut self) {
        /// What our mark adds.
        const OURS: usize = 512;
        let labels = self.config.get("metadata").and_then(Value::as_object).into_iter().flatten();
        let size: usize = labels.map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
        if size + OURS > MOST_METADATA {
            let rule = format!("must not be above {} with our own marks", MOST_METADATA);
            self.refuse("metadata", format!("{size} bytes"), rule, "shorten it");
        }
    }
}
