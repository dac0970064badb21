//! The broker in a container, on the ports that the run has drawn.

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::unistd::Pid;

use super::{Run, wait_within};
use crate::support::cannot_run;

pub struct Container(String);

/// The image with a shell; scripts/faults.sh builds it.
pub(super) fn image() -> String {
    std::env::var("UNIFIED_NATS_FAULTS_IMAGE").unwrap_or_else(|_| "marketprism/unified-nats-debug:faults".into())
}

pub(super) fn docker(arguments: &[&str]) -> Option<Output> {
    Command::new("docker").args(arguments).stdin(Stdio::null()).output().ok()
}

pub(super) fn succeeds(arguments: &[&str]) -> bool {
    docker(arguments).is_some_and(|output| output.status.success())
}

impl Container {
    /// [`None`] where Docker or the image is missing.
    pub fn start(test: &str, run: &Run, arguments: &[&str]) -> Option<Self> {
        let image = image();
        if !succeeds(&["image", "inspect", &image]) {
            cannot_run(test, &format!("Docker with the image {image} is not there"));
            return None;
        }
        let name = format!("unified-nats-{test}-{}", std::process::id());
        let ports = &run.broker.ports;
        let publish = [(ports.nats, 4222), (ports.api, 8086)].map(|(host, own)| format!("127.0.0.1:{host}:{own}"));
        // By this scripts/faults.sh finds what a test that was killed has left.
        let label = format!("unified-nats.faults={}", std::env::temp_dir().display());
        let mut command = vec!["run", "--detach", "--name", &name, "--label", &label];
        command.extend(["--publish", &publish[0], "--publish", &publish[1]]);
        command.extend(["--env", "STREAM_MAX_AGE=0", "--env", "STREAM_MAX_MSGS=-1", "--env", "RESTART_MAX=1000"]);
        command.extend(arguments);
        command.push(&image);
        let started = docker(&command).unwrap();
        // Made even where the start failed, so that it is removed.
        let container = Self(name.clone());
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        Some(container)
    }

    fn inspect(&self, what: &str) -> String {
        let output = docker(&["inspect", "--format", what, &self.0]).unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Its process 1, as this machine counts.
    pub fn init(&self) -> Pid {
        Pid::from_raw(self.inspect("{{.State.Pid}}").parse().unwrap())
    }

    pub fn is_running(&self) -> bool {
        self.inspect("{{.State.Running}}") == "true"
    }

    /// How often the kernel killed somebody in it for want of memory (control groups 1 and 2).
    pub fn memory_kills(&self) -> u64 {
        let files = "/sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events";
        // Who asks is in the same container, and may be the one that is killed.
        let counted = wait_within(Duration::from_secs(20), || {
            let output = docker(&["exec", &self.0, "sh", "-c", &format!("cat {files} 2>/dev/null")]).unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
        });
        counted.expect("no count of kills")
    }

    pub fn exec(&self, arguments: &[&str]) {
        assert!(self.start_exec(arguments).wait().unwrap().success());
    }

    pub fn start_exec(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new("docker");
        command.args(["exec", &self.0]).args(arguments).stdin(Stdio::null());
        command.spawn().unwrap()
    }

    /// Stops it; gives the exit code.
    pub fn stop(&self) -> Option<i32> {
        assert!(succeeds(&["stop", "--time", "30", &self.0]));
        self.inspect("{{.State.ExitCode}}").parse().ok()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(logs) = docker(&["logs", "--tail", "40", &self.0])
        {
            eprintln!("{}", String::from_utf8_lossy(&logs.stdout));
        }
        succeeds(&["rm", "--force", "--volumes", &self.0]);
    }
}
