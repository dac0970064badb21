//! Ports: ours are bound before the server starts, the server's are tried.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;

use nix::sys::socket::{Backlog, listen};

use crate::settings::{Host, Settings};

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({variable}): {reason}")]
pub struct PortError {
    pub address: String,
    pub variable: &'static str,
    pub reason: String,
}

/// Connections that wait to be accepted; the kernel takes no more than its net.core.somaxconn.
const QUEUE: i32 = 4096;

/// The listener of the API port.
pub fn bind_api(settings: &Settings) -> Result<TcpListener, PortError> {
    listening("API_PORT", &settings.api.host, settings.api.port.get())
}

/// The listener of the port for metrics, where there is one.
pub fn bind_metrics(settings: &Settings) -> Result<Option<TcpListener>, PortError> {
    let metrics = &settings.metrics;
    metrics.enabled.then(|| listening("PROMETHEUS_PORT", &metrics.host, metrics.port.get())).transpose()
}

fn listening(variable: &'static str, host: &Host, port: u16) -> Result<TcpListener, PortError> {
    let listener = bind(variable, host, port)?;
    let lengthened = listener.set_nonblocking(true).and_then(|()| {
        // The library asks for room for 128. A connection that finds none is tried again by its kernel
        // after a second, which is long for a probe.
        Ok(listen(&listener, Backlog::new(QUEUE)?)?)
    });
    let reason = |error: io::Error| error.to_string();
    lengthened.map_err(|error| PortError { address: port.to_string(), variable, reason: reason(error) })?;
    Ok(listener)
}

/// Tries every port that nats-server is going to listen on, so that a conflict is told before
/// anything is spawned, with the name of who has it.
pub fn try_server_ports(settings: &Settings) -> Result<(), PortError> {
    let server = &settings.server;
    bind("NATS_PORT", &server.host, server.port.get())?;
    if let Some(monitoring) = &server.monitoring {
        bind("NATS_HTTP_PORT", &monitoring.host, monitoring.port.get())?;
    }
    if let Some(cluster) = &settings.cluster {
        bind("NATS_CLUSTER_PORT", &cluster.host, cluster.port.get())?;
    }
    Ok(())
}

fn bind(variable: &'static str, host: &Host, port: u16) -> Result<TcpListener, PortError> {
    TcpListener::bind((host.to_bind().as_str(), port)).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => {
                let owner =
                    owner_of(port).map_or("another process has it".to_owned(), |owner| format!("{owner} has it"));
                format!("{owner}; stop that process, or set {variable} to a free port")
            }
            io::ErrorKind::PermissionDenied => {
                format!("this user may not listen there; set {variable} to a port of at least 1024")
            }
            io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
            _ => error.to_string(),
        };
        PortError { address: format!("{}:{port}", host.as_str()), variable, reason }
    })
}

/// The process that listens on `port`, where /proc shows it to us.
fn owner_of(port: u16) -> Option<String> {
    let inode = listening_inode(port)?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            if fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                let uid = process.metadata().map(|m| m.uid()).unwrap_or_default();
                return Some(format!("process {pid} ({}, uid {uid})", name.trim()));
            }
        }
    }
    None
}

/// The inode of the socket that listens on `port`, from the tables in /proc/net.
fn listening_inode(port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let local_port = format!(":{port:04X}");
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            if let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields[..]
                && local.ends_with(&local_port)
            {
                return inode.parse().ok();
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::time::Duration;

    #[test]
    fn many_connections_wait_to_be_accepted() {
        let port = free_port();
        let pairs = [("API_PORT", port.as_str()), ("API_HOST", "127.0.0.1")];
        let settings = Settings::load(&pairs, &[]).unwrap().settings;
        let listener = bind_api(&settings).unwrap();
        let address = listener.local_addr().unwrap();
        let most: usize = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(500));
        let connected = (0..most.min(400)).map(connect).collect::<Result<Vec<_>, _>>();
        assert!(connected.is_ok(), "{connected:?}");
    }

    fn free_port() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port().to_string()
    }

    #[test]
    fn a_taken_port_names_its_owner() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port().to_string();
        let pairs = [("API_PORT", port.as_str()), ("API_HOST", "127.0.0.1")];
        let settings = Settings::load(&pairs, &[]).unwrap().settings;
        let error = bind_api(&settings).unwrap_err().to_string();
        let own_pid = format!("process {} (", std::process::id());
        for part in [&port, "API_PORT", own_pid.as_str()] {
            assert!(error.contains(part), "{error}");
        }
    }
}
