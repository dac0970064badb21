//! Alerts: who should hear of what is wrong hears of it, once, and hears when it is over.

mod alert;
mod counts;
mod courier;
mod ledger;
mod observe;
mod queue;
mod record;
mod rules;
mod sinks;

pub use alert::{Alert, AlertKind, Fingerprint, Notification, Severity};
use observe::host_name;
pub use rules::{CertificateEnd, DiskSpace, Facts};
