//! What the machine gives us: memory, descriptors, disk. Judged by pure functions against what the
//! settings promise; what cannot be held is told at the start.

mod code_in_memory;
mod container_memory;
mod file_system;

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::domain::ByteSize;
use crate::http::Bounds;
use crate::settings::{MemoryLimit, Settings};
use code_in_memory::keep_code_in_memory;
use container_memory::container_memory;
pub use file_system::FileSystem;

/// Resources as they are in force for this process and its children.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Bytes of memory that the container may use; [`None`] where nothing limits it.
    pub memory: Option<u64>,
    /// Files and connections that a process may hold open.
    pub descriptors: u64,
    /// The file system of the store, where JetStream is on.
    pub disk: Option<FileSystem>,
}

impl Resources {
    /// Raises the limit of open descriptors as far as it goes, keeps our own code in memory, and reads
    /// the rest. The store's directory must be there.
    pub fn secure(settings: &Settings) -> Self {
        let memory = container_memory();
        if memory.is_some() {
            keep_code_in_memory();
        }
        let store = settings.jetstream.enabled.then_some(&settings.jetstream.store_dir);
        Self {
            memory,
            descriptors: raise_descriptor_limit(),
            disk: store.and_then(|store| FileSystem::of(store, settings.jetstream.max_file.bytes())),
        }
    }

    /// GOMEMLIMIT for nats-server. With none, its garbage collector would let the heap grow until
    /// the container is killed.
    pub fn go_memory_limit(&self, set: Option<&MemoryLimit>) -> Option<MemoryLimit> {
        let derived = || self.memory.map(|limit| MemoryLimit::of_bytes(limit / 10 * 8));
        set.cloned().or_else(derived)
    }

    /// Connections that the API port may hold: as many as asked for, and beside them those that wait at
    /// the door, as long as enough descriptors are left to launch a server and to speak to it.
    pub fn api_bounds(&self, asked: usize) -> Bounds {
        let spare = self.descriptors.saturating_sub(OWN_DESCRIPTORS).max(2 * MINIMUM_API_CONNECTIONS);
        let waiting = (spare / 2).min(MOST_WAITING);
        let busy = usize::try_from(spare - waiting).unwrap_or(usize::MAX);
        Bounds { busy: asked.min(busy), waiting: waiting as usize }
    }

    /// What the settings promise and these resources cannot hold, one line each.
    pub fn warnings(&self, settings: &Settings) -> Vec<String> {
        let go_limit = self.go_memory_limit(settings.server.memory_limit.as_ref());
        let jetstream = settings.jetstream.enabled.then_some(&settings.jetstream);
        let memory = jetstream.and_then(|jetstream| self.memory_warning(jetstream.max_memory, go_limit.as_ref()));
        let disk = jetstream
            .zip(self.disk)
            .and_then(|(jetstream, disk)| disk.warning(jetstream.max_file, &jetstream.store_dir));
        let descriptors = self.descriptor_warning(settings.server.limits.max_connections);
        [memory, disk, descriptors].into_iter().flatten().collect()
    }

    fn memory_warning(&self, wanted: ByteSize, go_limit: Option<&MemoryLimit>) -> Option<String> {
        if let Some(limit) = self.memory.filter(|limit| wanted.bytes() > *limit) {
            return Some(format!(
                "JETSTREAM_MAX_MEMORY={wanted} cannot be held: the container may use {}, and is killed before memory \
                 streams are full; lower JETSTREAM_MAX_MEMORY, or raise the container's memory limit",
                format_bytes(limit)
            ));
        }
        let go_limit = go_limit.filter(|limit| limit.bytes.is_some_and(|bytes| wanted.bytes() > bytes))?;
        Some(format!(
            "JETSTREAM_MAX_MEMORY={wanted} is above GOMEMLIMIT={}: with full memory streams nats-server does little but \
             collect garbage; lower JETSTREAM_MAX_MEMORY, or raise GOMEMLIMIT (by default 80 % of the container's \
             memory limit)",
            format_limit(go_limit)
        ))
    }

    fn descriptor_warning(&self, max_connections: i64) -> Option<String> {
        let wanted = max_connections.unsigned_abs().saturating_add(SERVER_DESCRIPTORS);
        (wanted > self.descriptors).then(|| {
            format!(
                "NATS_MAX_CONNECTIONS={max_connections} cannot be held: with {SERVER_DESCRIPTORS} for streams, routes \
                 and itself nats-server needs {wanted} descriptors and may open {}; raise the hard limit (`ulimit -Hn`, \
                 `ulimits: nofile` in a compose file, LimitNOFILE in a systemd unit), or lower NATS_MAX_CONNECTIONS",
                self.descriptors
            )
        })
    }
}

/// Descriptors that nats-server needs besides those of its clients: listeners, routes, and the
/// files of streams, of which it keeps few open.
const SERVER_DESCRIPTORS: u64 = 100;
/// Descriptors that we need besides those of the API port's connections: log, runtime, signals, our
/// connections to the server, and what a launch takes for a moment.
const OWN_DESCRIPTORS: u64 = 44;
/// Probes must get through, however few descriptors there are.
const MINIMUM_API_CONNECTIONS: u64 = 8;
/// As many wait in the queue of a listener: who floods the port beyond that disturbs others who do.
const MOST_WAITING: u64 = 4096;

/// Raises the soft limit to the hard one, which children inherit; gives the limit in force.
fn raise_descriptor_limit() -> u64 {
    let raise = || -> io::Result<u64> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        if soft >= hard {
            return Ok(soft);
        }
        let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        Ok(if raised.is_ok() { hard } else { soft })
    };
    raise().unwrap_or_else(|error| {
        tracing::warn!("cannot read the limit of open descriptors: {error}");
        u64::MAX
    })
}

/// For people: one decimal of the largest unit.
fn format_bytes(bytes: u64) -> String {
    let units = [("TB", 40), ("GB", 30), ("MB", 20), ("KB", 10)];
    match units.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1}{unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

fn format_limit(limit: &MemoryLimit) -> String {
    limit.bytes.map_or_else(|| limit.text.clone(), format_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn resources(memory: Option<u64>, descriptors: u64, disk: Option<FileSystem>) -> Resources {
        Resources { memory, descriptors, disk }
    }

    #[test]
    fn go_gets_four_fifths_of_the_container_s_memory_unless_it_is_told_otherwise() {
        let limited = resources(Some(2_000_000_000), 1 << 20, None);
        let text = |limit: Option<MemoryLimit>| limit.map(|limit| limit.text);
        assert_eq!(text(limited.go_memory_limit(None)).as_deref(), Some("1600000000"));
        let set = MemoryLimit { text: "off".into(), bytes: None };
        assert_eq!(text(limited.go_memory_limit(Some(&set))).as_deref(), Some("off"));
        assert_eq!(resources(None, 1 << 20, None).go_memory_limit(None), None);
    }

    fn warnings(pairs: &[(&str, &str)], resources: &Resources) -> Vec<String> {
        let store = std::env::temp_dir();
        let mut pairs = pairs.to_vec();
        pairs.push(("JETSTREAM_STORE_DIR", store.to_str().unwrap()));
        let settings = Settings::load(&pairs.as_slice(), &[]).unwrap_or_else(|p| panic!("{p}")).settings;
        resources.warnings(&settings)
    }

    #[test]
    fn what_fits_raises_no_warning() {
        let roomy = FileSystem { total: 20 * GIB, free: 11 * GIB, store: None };
        assert_eq!(warnings(&[], &resources(Some(2 * GIB), 1100, Some(roomy))), Vec::<String>::new());
        assert_eq!(warnings(&[], &resources(None, u64::MAX, None)), Vec::<String>::new());
        // Half of it is full of what the limit counts as well.
        let half_full = FileSystem { total: 12 * GIB, free: 5 * GIB, store: Some(5 * GIB) };
        assert_eq!(warnings(&[], &resources(None, 1100, Some(half_full))), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_held_is_named_with_both_numbers() {
        let small = FileSystem { total: 8 * GIB, free: 8 * GIB, store: None };
        let crowded = FileSystem { total: 100 * GIB, free: 3 * GIB, store: Some(GIB / 2) };
        for (pairs, resources, parts) in [
            (&[][..], resources(Some(GIB / 2), 2000, None), ["JETSTREAM_MAX_MEMORY=1GB", "512.0MB"]),
            (&[], resources(Some(GIB), 2000, None), ["JETSTREAM_MAX_MEMORY=1GB", "GOMEMLIMIT=819.2MB"]),
            (&[("GOMEMLIMIT", "800MiB")], resources(None, 2000, None), ["=1GB is above", "GOMEMLIMIT=800.0MB"]),
            (&[], resources(None, 2000, Some(small)), ["JETSTREAM_MAX_FILE=10GB", "8.0GB in all"]),
            (&[], resources(None, 2000, Some(crowded)), ["3.0GB free", "512.0MB that the store"]),
            (
                &[],
                resources(None, 1024, None),
                ["NATS_MAX_CONNECTIONS=1000", "needs 1100 descriptors and may open 1024"],
            ),
        ] {
            let warnings = warnings(pairs, &resources);
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            for part in parts {
                assert!(warnings[0].contains(part), "{part}: {}", warnings[0]);
            }
        }
        let without = &[("JETSTREAM_ENABLED", "false")];
        assert_eq!(warnings(without, &resources(Some(1), 2000, Some(small))), Vec::<String>::new());
    }

    #[test]
    fn connections_of_the_api_port_leave_descriptors_for_a_launch() {
        let bounds = |descriptors, asked| {
            let Bounds { busy, waiting } = resources(None, descriptors, None).api_bounds(asked);
            (busy, waiting)
        };
        assert_eq!(bounds(1 << 20, 2048), (2048, 4096));
        assert_eq!(bounds(1024, 2048), (490, 490));
        assert_eq!(bounds(64, 2048), (10, 10));
        assert_eq!(bounds(20, 2048), (8, 8));
        assert_eq!(bounds(20, 1), (1, 8));
        assert_eq!(bounds(u64::MAX, 2048), (2048, 4096));
    }
}
