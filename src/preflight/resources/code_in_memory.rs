//! Keeping our own code in memory.

use std::fs;
use std::io;
use std::path::Path;

use nix::libc;
use nix::sys::resource::{Resource, getrlimit};

/// A container at its memory limit drops the code of its programs and reads it again from disk,
/// which can take minutes; whoever has to notice that nats-server hangs must not hang with it. Pages are
/// locked as they are used, as far as RLIMIT_MEMLOCK allows; without is how most programs live. It costs
/// about a fifth more processor time when idle (measured side by side), so only where there is a limit.
pub fn keep_code_in_memory() {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
