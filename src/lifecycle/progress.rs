use std::fs;

use nix::unistd::Pid;
use tokio::time::Instant;

/// Whether a process is at work, by what the kernel counts: a server that recovers a large store
/// reads and computes for minutes before it answers anything.
#[derive(Debug, Default)]
pub struct Progress {
    last: Option<(Instant, Counters)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counters {
    /// Bytes read and written.
    bytes: u64,
    /// Processor time in ticks of 10 ms.
    ticks: u64,
}

/// Less of one processor than that is the idling of a runtime that waits for something.
const BUSY_PERCENT: u64 = 10;

impl Progress {
    /// Whether `pid` has got on since it was asked last.
    pub fn is_made(&mut self, pid: Pid) -> bool {
        let Some(now) = read(pid) else { return false };
        let at = Instant::now();
        let Some((before_at, before)) = self.last.replace((at, now)) else { return true };
        let elapsed_ticks = (at - before_at).as_millis() as u64 / 10;
        is_progress(before, now, elapsed_ticks)
    }
}

fn is_progress(before: Counters, now: Counters, elapsed_ticks: u64) -> bool {
    now.bytes > before.bytes || now.ticks.saturating_sub(before.ticks) * 100 > elapsed_ticks * BUSY_PERCENT
}

fn read(pid: Pid) -> Option<Counters> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Not everybody may read it, and then the processor time has to do.
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    Some(Counters { bytes: bytes_in(&io), ticks: ticks_in(&stat)? })
}

/// The sum of `rchar` and `wchar`.
fn bytes_in(io: &str) -> u64 {
    let number = |line: &str| line.split_once(": ").and_then(|(_, number)| number.parse::<u64>().ok());
    io.lines().filter(|line| line.starts_with("rchar") || line.starts_with("wchar")).filter_map(number).sum()
}

/// The sum of `utime` and `stime`, the 14th and 15th field; the second one may hold anything.
fn ticks_in(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11).map(|field| field.parse::<u64>().ok());
    Some(fields.next()?? + fields.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_computing_are_progress_and_idling_is_not() {
        let before = Counters { bytes: 1000, ticks: 500 };
        for (bytes, ticks, expected) in [(1000, 500, false), (1001, 500, true), (1000, 502, false), (1000, 530, true)] {
            assert_eq!(is_progress(before, Counters { bytes, ticks }, 100), expected, "{bytes} {ticks}");
        }
    }

    #[test]
    fn the_kernel_s_files_are_read() {
        assert_eq!(bytes_in("rchar: 10\nwchar: 5\nsyscr: 7\nread_bytes: 100\n"), 15);
        let stat = "12 (na) (me) S 1 12 12 0 -1 4194560 1 2 3 4 70 30 0 0 20 0 9";
        assert_eq!(ticks_in(stat), Some(100));
        assert_eq!(ticks_in("garbage"), None);
        assert!(Progress::default().is_made(nix::unistd::getpid()), "nothing to compare with yet");
    }
}
