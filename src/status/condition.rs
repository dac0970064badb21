use std::time::SystemTime;

use crate::supervisor::ConditionKind;

/// Whether something that was promised holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: &'static str,
    pub status: ConditionStatus,
    /// Why it does not hold.
    pub reason: Option<String>,
    /// Since when it is so.
    pub since: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditionStatus {
    Ok,
    Failed,
    /// No server is in use that could show it.
    Unknown,
}

/// Whether a server can be launched: what has to be so before is so.
pub const LAUNCH: &str = "launch";
/// The reload of settings, and the state of streams as declared: found by no server's health.
pub const SETTINGS: &str = "settings";
pub const DRIFT: &str = "drift";

/// The name of a condition that the supervisor keeps.
pub const fn name(kind: ConditionKind) -> &'static str {
    match kind {
        ConditionKind::Integrity => "integrity",
        ConditionKind::Storage => "storage",
        ConditionKind::Answers => "responsive",
        ConditionKind::Service => "in_service",
        ConditionKind::HealthCheck => "health_check",
    }
}
