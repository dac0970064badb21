//! What an account may have, as `$JS.API.INFO` tells it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The limits of an account; of one with tiers they are kept by tier: `R1`, `R3`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Account {
    limits: Limits,
    tiers: BTreeMap<String, Tier>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Tier {
    limits: Limits,
}

/// −1 is no limit; for numbers of objects 0 is none, either.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub max_memory: i64,
    pub max_storage: i64,
    pub max_streams: i64,
    pub max_consumers: i64,
    pub max_ack_pending: i64,
    pub memory_max_stream_bytes: i64,
    pub storage_max_stream_bytes: i64,
    pub max_bytes_required: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_memory: -1,
            max_storage: -1,
            max_streams: -1,
            max_consumers: -1,
            max_ack_pending: -1,
            memory_max_stream_bytes: -1,
            storage_max_stream_bytes: -1,
            max_bytes_required: false,
        }
    }
}

impl Account {
    /// What cannot be read limits nothing that we know of.
    pub fn of(answer: serde_json::Value) -> Option<Self> {
        serde_json::from_value(answer).ok()
    }

    pub fn has_tiers(&self) -> bool {
        !self.tiers.is_empty()
    }

    /// The limits for streams with so many copies; a tier that is not there is for the server to tell.
    pub fn limits(&self, replicas: i64) -> Option<&Limits> {
        match self.has_tiers() {
            true => self.tiers.get(&format!("R{replicas}")).map(|tier| &tier.limits),
            false => Some(&self.limits),
        }
    }
}
