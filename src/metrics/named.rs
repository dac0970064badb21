//! What a server calls itself.

use serde_json::Value;

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
