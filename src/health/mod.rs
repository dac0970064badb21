//! Looking at a broker from outside: single checks, what they add up to, and the loop that repeats
//! them while the broker runs.

mod checks;
pub mod cluster;
mod disk;
mod examination;
mod monitor;
mod proof;
mod report;
mod scope;
mod selftest;
mod server_checks;
mod silence;
mod storage;
mod streams;

pub use disk::DiskWatch;
pub use examination::Examination;
pub use monitor::{HealthMonitor, HealthReport};
pub use proof::write as prove_by_writing;
pub use report::{Check, FamilyStatus, JetStreamNumbers, Observations, Outcome, Report, ServerNumbers, StreamNumbers};
pub use scope::CheckScope;
pub use selftest::SelfTest;
pub use silence::{Probe, Silence, Verdict};
pub use storage::{Disk, Remedy, StorageWatch};
