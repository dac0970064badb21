//! One line of JSON for each test, for the table of scripts/faults.sh.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::Value;

pub fn append(line: &Value) {
    let Some(path) = std::env::var_os("UNIFIED_NATS_FAULTS_REPORT").filter(|path| !path.is_empty()) else { return };
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    // In one write, because tests run at the same time.
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}
