//! Alerts: who should hear of what is wrong hears of it, once, and hears when it is over.
//!
//! [`rules`] say what is firing, [`ledger`] what of that is news; both are pure. One task ([`task`]) asks
//! them, and has a [`courier`] for each receiver ([`sinks`]). All of it runs on the control side: what the
//! data side does keeps no alert back, and a receiver that hangs keeps nobody up but itself.

mod alert;
mod counts;
mod courier;
mod families;
mod ledger;
mod observe;
mod queue;
mod record;
mod rules;
mod sinks;
mod task;
mod trial;

pub use alert::{Alert, AlertKind, Fingerprint, Notification, Severity};
pub use counts::{AlertCounts, SendResult, Totals};
pub use observe::Certificates;
use observe::host_name;
pub use rules::{CertificateEnd, DiskSpace, Facts};
pub use sinks::SinkKind;
pub use task::{Alerts, AlertsHandle};
pub use trial::{Trial, send_trial};
