//! What nats-server's monitoring said at one moment, and what the server calls itself. Pure.

use serde_json::Value;

use crate::nats::Jsz;

/// What monitoring said at one moment; what could not be had is [`None`].
#[derive(Clone, Debug, Default)]
pub struct Monitored {
    /// The address that was asked, as it may be shown.
    pub url: String,
    pub varz: Option<Value>,
    pub named: Option<Named>,
    pub connections: Option<Connections>,
    pub jsz: Option<Jsz>,
    /// It is long enough to name the consumers, too.
    pub names_consumers: bool,
    /// The status of each form of `/healthz`, in the order of [`HEALTH`].
    pub health: [Option<String>; HEALTH.len()],
    pub routez: Option<Value>,
    pub subsz: Option<Value>,
}

impl Monitored {
    /// Whether the server has answered anything: on a busy machine a part may take too long.
    pub fn is_answered(&self) -> bool {
        let documents = [&self.varz, &self.routez, &self.subsz].into_iter().any(Option::is_some);
        documents || self.jsz.is_some() || self.connections.is_some() || self.health.iter().any(Option::is_some)
    }

    /// What the server calls itself; nothing where it has not said so.
    pub fn server_name(&self) -> &str {
        self.named.as_ref().map(|named| named.name.as_str()).unwrap_or_default()
    }

    /// Where `/varz` was late the server has the names that it had before, so that its series go on. Gives
    /// those that are known from now on.
    pub fn name_as(&mut self, before: Option<Named>) -> Option<Named> {
        let id = self.jsz.as_ref().and_then(|jsz| jsz.rest.get("server_id")?.as_str());
        if self.varz.is_none() {
            self.named = before.clone().filter(|before| Some(before.id.as_str()) == id);
        }
        self.named.clone().or(before)
    }
}

/// The forms of `/healthz`: the query, and the part of the name.
pub const HEALTH: [(&str, &str); 3] = [
    ("/healthz", "healthz"),
    ("/healthz?js-enabled-only=true", "healthz_js_enabled_only"),
    ("/healthz?js-server-only=true", "healthz_js_server_only"),
];

/// Connections of clients, summed over all pages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connections {
    pub num_connections: u64,
    pub total: u64,
    pub offset: u64,
    pub limit: u64,
    pub pending_bytes: u64,
    pub subscriptions: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    pub in_msgs: u64,
    pub out_msgs: u64,
    /// Beyond the pages that were read.
    pub omitted: u64,
}

/// The names of one server, as `/varz` tells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Another one after each start.
    pub id: String,
    pub name: String,
}

impl Named {
    pub fn of(varz: &Value) -> Option<Self> {
        let text = |key: &str| varz[key].as_str().map(str::to_owned);
        Some(Self { id: text("server_id")?, name: text("server_name")? })
    }
}
