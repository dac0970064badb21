//! Looking at a broker from outside: single checks, what they add up to, and the loop that repeats
//! them while the broker runs.

mod checks;
mod examination;
mod monitor;
mod report;

pub use examination::{Examination, Kind};
pub use monitor::{Examined, HealthMonitor};
pub use report::{Check, Outcome, Report};
