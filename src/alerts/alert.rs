use std::fmt;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// What alerts are about. The names are those of docs/observability.md, of payloads and of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// No nats-server answers.
    ServerDown,
    /// nats-server ended, and another one took its place.
    Restart,
    /// It ends again and again.
    CrashLoop,
    /// It did not answer any more, and was replaced.
    Hung,
    /// Something promised does not hold.
    Unhealthy,
    /// What an alert was about is over.
    Recovered,
    /// The store cannot be written, or JetStream has used what it may.
    StoreFull,
    /// The disk of the store has little room.
    DiskLow,
    StreamMissing,
    /// Streams were not as they are declared.
    StreamDrift,
    /// A stream cannot become as it is declared.
    StreamConflict,
    StreamNearLimit,
    ConsumerLag,
    /// A family of market data has fallen silent.
    FamilyStale,
    CertExpiring,
    BackupFailed,
    ReloadFailed,
    /// Something is open to everybody.
    Insecure,
    /// What `alerts test` sends.
    Test,
}

impl AlertKind {
    /// All but the one that tries receivers.
    pub const ALL: [Self; 18] = [
        Self::ServerDown,
        Self::Restart,
        Self::CrashLoop,
        Self::Hung,
        Self::Unhealthy,
        Self::Recovered,
        Self::StoreFull,
        Self::DiskLow,
        Self::StreamMissing,
        Self::StreamDrift,
        Self::StreamConflict,
        Self::StreamNearLimit,
        Self::ConsumerLag,
        Self::FamilyStale,
        Self::CertExpiring,
        Self::BackupFailed,
        Self::ReloadFailed,
        Self::Insecure,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::ServerDown => "server_down",
            Self::Restart => "restart",
            Self::CrashLoop => "crash_loop",
            Self::Hung => "hung",
            Self::Unhealthy => "unhealthy",
            Self::Recovered => "recovered",
            Self::StoreFull => "store_full",
            Self::DiskLow => "disk_low",
            Self::StreamMissing => "stream_missing",
            Self::StreamDrift => "stream_drift",
            Self::StreamConflict => "stream_conflict",
            Self::StreamNearLimit => "stream_near_limit",
            Self::ConsumerLag => "consumer_lag",
            Self::FamilyStale => "family_stale",
            Self::CertExpiring => "cert_expiring",
            Self::BackupFailed => "backup_failed",
            Self::ReloadFailed => "reload_failed",
            Self::Insecure => "insecure",
            Self::Test => "test",
        }
    }

    /// Its paragraph of the documents.
    pub fn link(self) -> String {
        let paragraph = if self == Self::Test { "alerts" } else { self.name() };
        format!("{}/blob/main/docs/observability.md#{paragraph}", env!("CARGO_PKG_REPOSITORY"))
    }
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody should know.
    Info,
    /// Somebody should do something about it soon.
    Warning,
    /// Somebody must do something about it now.
    Critical,
}

impl Severity {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Tells one alert from another: the same for the same server, kind and object, whichever process
/// makes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    pub fn of(server: &str, kind: AlertKind, object: &str) -> Self {
        // None of them holds that byte.
        let whole = digest(&SHA256, [server, kind.name(), object].join("\0").as_bytes());
        Self(whole.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that is so and that somebody should hear of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    pub kind: AlertKind,
    /// What of: a stream, a condition, a file; empty where there is only one.
    #[serde(default)]
    pub object: String,
    pub severity: Severity,
    /// Since when it is so, RFC 3339.
    pub since: String,
    /// The name of the nats-server.
    pub server: String,
    /// The name of the machine.
    pub host: String,
    /// What is so, in one sentence.
    pub summary: String,
    /// What to do about it.
    pub action: String,
    pub fingerprint: Fingerprint,
}

/// What a receiver hears: that something is so, or that it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    pub alert: Alert,
    pub is_over: bool,
    /// When that was found, RFC 3339.
    pub at: String,
}

impl Notification {
    /// What metrics count it as, and payloads call it.
    pub const fn kind(&self) -> AlertKind {
        if self.is_over { AlertKind::Recovered } else { self.alert.kind }
    }

    /// One line for who has room for one.
    pub fn headline(&self) -> String {
        let Alert { kind, severity, server, object, .. } = &self.alert;
        let word = if self.is_over { "recovered" } else { severity.name() };
        let object = if object.is_empty() { String::new() } else { format!(" ({object})") };
        format!("[{word}] {kind}{object} on {server}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_same_in_every_process() {
        let fingerprint = |server, kind, object| Fingerprint::of(server, kind, object).to_string();
        assert_eq!(fingerprint("n", AlertKind::StreamMissing, "A"), "7ade6ab0a9d57ba9");
        assert_ne!(fingerprint("n", AlertKind::StreamMissing, "A"), fingerprint("n", AlertKind::StreamMissing, "B"));
        assert_ne!(fingerprint("n", AlertKind::StreamMissing, "A"), fingerprint("m", AlertKind::StreamMissing, "A"));
        assert_ne!(fingerprint("n", AlertKind::StreamMissing, "A"), fingerprint("n", AlertKind::ConsumerLag, "A"));
    }

    #[test]
    fn names_are_those_of_payloads() {
        for kind in [AlertKind::ServerDown, AlertKind::StreamNearLimit, AlertKind::CertExpiring, AlertKind::Test] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert!(AlertKind::Hung.link().ends_with("/docs/observability.md#hung"), "{}", AlertKind::Hung.link());
    }
}
