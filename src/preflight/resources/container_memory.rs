//! The memory limit of the container, as its control groups tell it.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The memory limit of the container that this process runs in.
pub fn container_memory() -> Option<u64> {
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
}
