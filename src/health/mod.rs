//! Looking at a broker from outside: single checks, what they add up to, and the loop that repeats
//! them while the broker runs.

mod checks;
pub mod cluster;
mod disk;
mod hang_detector;
mod health_check;
mod monitor;
mod report;
mod scope;
mod selftest;
mod server_checks;
mod storage;
mod streams;
mod write_probe;

pub use disk::DiskWatch;
pub use hang_detector::{HangDetector, Probe, Responsiveness};
pub use health_check::HealthCheck;
pub use monitor::{HealthMonitor, HealthReport};
pub use report::{
    Check, ConsumerNumbers, FamilyStatus, JetStreamNumbers, Observations, Outcome, Report, ServerNumbers,
    StreamConflict, StreamNumbers,
};
pub use scope::CheckScope;
pub use selftest::SelfTest;
pub use storage::{Disk, Remedy, StorageWatch};
pub use write_probe::write as prove_by_writing;
