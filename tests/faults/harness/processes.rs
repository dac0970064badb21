//! What the supervisor has open, and who is left of its processes.

use std::fs;
use std::path::Path;

use nix::unistd::Pid;

use crate::support::{children_of, comm, is_alive};

pub fn open_descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Kilobytes of memory that a process holds.
pub fn resident_kilobytes(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or_default()
}

/// Children other than a nats-server that runs: zombies, and orphans that nobody buried.
pub fn strangers_below(supervisor: Pid) -> Vec<Pid> {
    let expected = |pid: &Pid| comm(*pid) == "nats-server" && is_alive(*pid);
    children_of(supervisor).into_iter().filter(|pid| !expected(pid)).collect()
}

/// Servers that run with a configuration in `directory`: of a supervisor that is gone, orphans.
pub fn servers_of(directory: &Path) -> Vec<Pid> {
    let directory = directory.to_str().unwrap();
    let of = |pid: &Pid| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        comm(*pid) == "nats-server" && String::from_utf8_lossy(&arguments).contains(directory) && is_alive(*pid)
    };
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.map(Pid::from_raw).filter(of).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::support::wait_for;

    #[test]
    fn a_descriptor_more_is_counted() {
        let own = nix::unistd::getpid();
        let before = open_descriptors(own);
        let file = fs::File::open("/dev/null").unwrap();
        assert_eq!(open_descriptors(own), before + 1);
        drop(file);
    }

    #[test]
    fn a_child_that_nobody_buries_is_found() {
        let mut parent = Command::new("sh").args(["-c", "true & exec sleep 60"]).spawn().unwrap();
        let pid = Pid::from_raw(parent.id() as i32);
        wait_for("its child is found", || (strangers_below(pid).len() == 1).then_some(()));
        parent.kill().unwrap();
        parent.wait().unwrap();
    }

    #[test]
    fn a_server_without_a_supervisor_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("nats-server");
        fs::copy("/bin/sleep", &program).unwrap();
        assert_eq!(servers_of(directory.path()), []);
        let mut orphan = Command::new(&program).arg("60").spawn().unwrap();
        let pid = Pid::from_raw(orphan.id() as i32);
        wait_for("it is found", || (servers_of(directory.path()) == [pid]).then_some(()));
        orphan.kill().unwrap();
        orphan.wait().unwrap();
        assert_eq!(servers_of(directory.path()), []);
    }
}
