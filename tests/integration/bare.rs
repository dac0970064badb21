//! A nats-server that others run: without us.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{JetStream, Ports, nats_server, wait_for};

pub struct BareServer {
    pub directory: TempDir,
    pub ports: Ports,
    executable: PathBuf,
    conf: String,
    child: Option<Child>,
}

impl BareServer {
    /// Not started yet. `conf` is what its configuration says besides ports; `JETSTREAM` is one with a
    /// store of its own.
    pub fn new(version: &str, conf: &str) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            ports: Ports::free(),
            executable: nats_server(version),
            conf: conf.to_owned(),
            child: None,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub fn configure(&mut self, conf: &str) -> &mut Self {
        conf.clone_into(&mut self.conf);
        self
    }

    pub fn start(&mut self) -> &mut Self {
        let file = self.path("bare.conf");
        let conf = self.conf.replace("STORE", self.store().to_str().unwrap());
        let (nats, http) = (self.ports.nats, self.ports.http);
        // One of the two: nats-server refuses both.
        let monitoring = if conf.contains("https:") { String::new() } else { format!("http: \"127.0.0.1:{http}\"\n") };
        let ports = format!("listen: \"127.0.0.1:{nats}\"\n{monitoring}");
        std::fs::write(&file, ports + &conf).unwrap();
        let mut command = Command::new(&self.executable);
        command.arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        wait_for("the bare server listens", || TcpStream::connect(("127.0.0.1", nats)).ok());
        self
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("it runs").id() as i32;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.ports.nats)
    }

    pub async fn jetstream(&self) -> JetStream {
        JetStream(async_nats::connect(self.url()).await.unwrap())
    }
}

impl Drop for BareServer {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// JetStream in the configuration of a bare server.
pub const JETSTREAM: &str = "jetstream: { store_dir: \"STORE\" }\n";

/// Whether anything lies where nothing should.
pub fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}
