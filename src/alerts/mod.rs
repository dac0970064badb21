//! Alerts: who should hear of what is wrong hears of it, once, and hears when it is over.

mod alert;
mod ledger;
mod rules;

pub use alert::{Alert, AlertKind, Fingerprint, Notification, Severity};
pub use rules::{CertificateEnd, DiskSpace, Facts};
