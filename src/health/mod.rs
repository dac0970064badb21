//! Looking at a broker from outside: single checks, what they add up to, and the loop that repeats
//! them while the broker runs.

mod checks;
pub mod cluster;
mod disk;
mod examination;
mod monitor;
mod proof;
mod report;
mod selftest;
mod silence;
mod storage;
mod streams;

pub use disk::DiskWatch;
pub use examination::{Examination, Kind};
pub use monitor::{Examined, HealthMonitor};
pub use proof::write as prove_by_writing;
pub use report::{Check, Outcome, Report};
pub use selftest::SelfTest;
pub use silence::{Probe, Silence, Verdict};
pub use storage::{Disk, Remedy, StorageWatch};
