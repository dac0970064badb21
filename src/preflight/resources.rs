//! What the machine gives us: memory, descriptors, disk. Judged by pure functions against what the
//! settings promise; what cannot be held is told at the start.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::statvfs::statvfs;

use crate::domain::ByteSize;
use crate::http::Bounds;
use crate::settings::{MemoryLimit, Settings};

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

/// A file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    pub total: u64,
    pub free: u64,
    /// What the store holds already; [`None`] where that was not worth counting.
    pub store: Option<u64>,
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

impl FileSystem {
    /// [`None`] where the file system does not tell.
    fn of(store: &Path, wanted: u64) -> Option<Self> {
        let file_system = statvfs(store).ok()?;
        let block = file_system.fragment_size();
        let (total, free) = (file_system.blocks() * block, file_system.blocks_available() * block);
        // Counting takes a look at every file, so only where the answer depends on it.
        let counts = total >= wanted && free < wanted;
        Some(Self { total, free, store: if counts { bytes_below(store) } else { None } })
    }

    fn warning(self, wanted: ByteSize, store: &Path) -> Option<String> {
        let way_out = "lower JETSTREAM_MAX_FILE, or give JETSTREAM_STORE_DIR a larger disk";
        if wanted.bytes() > self.total {
            return Some(format!(
                "JETSTREAM_MAX_FILE={wanted} cannot be held: the file system of {} has {} in all, and publishing fails \
                 once it is full; {way_out}",
                store.display(),
                format_bytes(self.total)
            ));
        }
        let held = self.store.filter(|held| wanted.bytes() > self.free.saturating_add(*held))?;
        Some(format!(
            "JETSTREAM_MAX_FILE={wanted} cannot be held: the file system of {} has {} free beside the {} that the store \
             takes, and publishing fails once it is full; make room there, {way_out}",
            store.display(),
            format_bytes(self.free),
            format_bytes(held)
        ))
    }
}

/// What the files below `directory` take on the disk; [`None`] where there are too many to count at
/// a start.
fn bytes_below(directory: &Path) -> Option<u64> {
    const MOST: usize = 100_000;
    let mut open = vec![directory.to_path_buf()];
    let (mut seen, mut bytes) = (0, 0);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            seen += 1;
            if seen > MOST {
                return None;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            }
            bytes += metadata.blocks() * 512;
        }
    }
    Some(bytes)
}

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

/// The memory limit of the container that this process runs in.
fn container_memory() -> Option<u64> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_limit(&cgroups, |file| fs::read_to_string(file).ok())
}

/// The smallest limit of all control groups that `cgroups`, the text of /proc/self/cgroup, names.
fn memory_limit(cgroups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let files = cgroups.lines().flat_map(limit_files);
    files.filter_map(|file| read(&file)).filter_map(|text| parse_limit(&text)).min()
}

/// The files that limit the memory of the group in a line `ID:CONTROLLERS:PATH`, and those of the
/// groups above it. The root is always among them: in a container it is the container's own group,
/// whatever path the line gives.
fn limit_files(line: &str) -> Vec<PathBuf> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { return vec![] };
    let (mount, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return vec![],
    };
    let path = path.trim_start_matches('/');
    // A group outside of our namespace is shown with `..`.
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let groups = Path::new(if inside { path } else { "" }).ancestors();
    groups.map(|group| Path::new(mount).join(group).join(file)).collect()
}

/// `max`, and the huge number that version 1 writes, are no limits.
fn parse_limit(text: &str) -> Option<u64> {
    const UNLIMITED: u64 = 1 << 60;
    text.trim().parse().ok().filter(|limit| (1..UNLIMITED).contains(limit))
}

/// For people: one decimal of the largest unit.
fn format_bytes(bytes: u64) -> String {
    let units = [("TB", 40), ("GB", 30), ("MB", 20), ("KB", 10)];
    match units.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1}{unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

/// A container at its memory limit drops the code of its programs and reads it again from disk,
/// which can take minutes; whoever has to notice that nats-server hangs must not hang with it. Pages are
/// locked as they are used, as far as RLIMIT_MEMLOCK allows; without is how most programs live. It costs
/// about a fifth more processor time when idle (measured side by side), so only where there is a limit.
fn keep_code_in_memory() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let program = std::env::current_exe().unwrap_or_default();
    let mut allowed = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft as usize);
    for (start, length) in code_of(&program, &maps) {
        let length = length.min(allowed);
        allowed -= length;
        #[allow(unsafe_code, reason = "nix has no mlock2, and mlock would fetch pages that are never used")]
        // SAFETY: the range is in one of our own mappings, and locking changes none of its bytes.
        let locked = unsafe { libc::mlock2(start as *const libc::c_void, length, libc::MLOCK_ONFAULT) } == 0;
        if !locked {
            return tracing::debug!("cannot keep our code in memory: {}", io::Error::last_os_error());
        }
    }
}

/// Address and length of what is mapped from `program` and never written: code first, then constants.
fn code_of(program: &Path, maps: &str) -> Vec<(usize, usize)> {
    let mapping = |line: &str, wanted: &str| {
        let mut fields = line.split_whitespace();
        let (range, rights, path) = (fields.next()?, fields.next()?, fields.nth(3)?);
        let (start, end) = range.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        (rights == wanted && Path::new(path) == program).then(|| (start, end.saturating_sub(start)))
    };
    ["r-xp", "r--p"].iter().flat_map(|rights| maps.lines().filter_map(|line| mapping(line, rights))).collect()
}

fn format_limit(limit: &MemoryLimit) -> String {
    limit.bytes.map_or_else(|| limit.text.clone(), format_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn limit(cgroups: &str, files: &[(&str, &str)]) -> Option<u64> {
        memory_limit(cgroups, |path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn version_2_counts_the_smallest_limit_up_to_the_root() {
        let files = [
            ("/sys/fs/cgroup/memory.max", "max\n"),
            ("/sys/fs/cgroup/pod/memory.max", "1073741824\n"),
            ("/sys/fs/cgroup/pod/container/memory.max", "2147483648\n"),
        ];
        assert_eq!(limit("0::/pod/container\n", &files), Some(GIB));
        assert_eq!(limit("0::/\n", &files), None);
    }

    #[test]
    fn in_a_namespace_of_its_own_the_root_is_the_container_s_group() {
        let files = [("/sys/fs/cgroup/memory.max", "2147483648\n"), ("/memory.max", "1")];
        assert_eq!(limit("0::/\n", &files), Some(2 * GIB));
        assert_eq!(limit("0::/../../elsewhere\n", &files), Some(2 * GIB));
        assert_eq!(limit("0::/docker/0123\n", &files), Some(2 * GIB), "the mount shows less than the path");
    }

    #[test]
    fn version_1_and_the_hybrid_read_the_memory_controller() {
        let hybrid = "5:cpu,cpuacct:/x\n4:memory:/docker/0123\n1:name=systemd:/\n0::/\n";
        let file = "/sys/fs/cgroup/memory/docker/0123/memory.limit_in_bytes";
        let root = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        let unlimited = "9223372036854771712\n";
        assert_eq!(limit(hybrid, &[(file, "1073741824\n"), (root, unlimited)]), Some(GIB));
        assert_eq!(limit(hybrid, &[(root, "1073741824\n")]), Some(GIB), "seen from inside the container");
        assert_eq!(limit(hybrid, &[(file, unlimited), (root, unlimited)]), None);
    }

    #[test]
    fn odd_texts_are_no_limits() {
        for (cgroups, text) in
            [("", "1"), ("0:/", "1"), ("nonsense", "1"), ("0::/", ""), ("0::/", "0"), ("0::/", "-1"), ("0::/", "1 2")]
        {
            assert_eq!(limit(cgroups, &[("/sys/fs/cgroup/memory.max", text)]), None, "{cgroups:?} {text:?}");
        }
    }

    #[test]
    fn code_comes_before_constants_and_nothing_else() {
        let maps = "\
55d000000000-55d000001000 r--p 00000000 fe:00 11 /app/unified-nats
55d000001000-55d000003000 r-xp 00001000 fe:00 11 /app/unified-nats
55d000003000-55d000004000 rw-p 00003000 fe:00 11 /app/unified-nats
55d000005000-55d000006000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000001000 r-xp 00000000 fe:00 12 /lib/libc.so.6
odd
";
        let found = code_of(Path::new("/app/unified-nats"), maps);
        assert_eq!(found, [(0x55d0_0000_1000, 0x2000), (0x55d0_0000_0000, 0x1000)]);
        assert_eq!(code_of(Path::new("/other"), maps), []);
    }

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

    #[test]
    fn the_store_s_files_are_counted_in_all_directories() {
        let store = tempfile::tempdir().unwrap();
        let below = store.path().join("jetstream/$G");
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join("1.blk"), vec![1; 200_000]).unwrap();
        let bytes = bytes_below(store.path()).unwrap();
        assert!((200_000..400_000).contains(&bytes), "{bytes}");
        let disk = FileSystem::of(store.path(), u64::MAX).unwrap();
        assert!(disk.total > disk.free && disk.store.is_none(), "{disk:?}");
    }
}
