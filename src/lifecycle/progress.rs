use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::time::Instant;

/// Whether a process is at work, by what the kernel counts: a server that recovers a large store
/// reads and computes for minutes before it answers anything.
#[derive(Debug, Default)]
pub struct Progress {
    last: Option<(Instant, Counters)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counters {
    /// Bytes read and written.
    bytes: u64,
    /// Processor time in ticks of 10 ms.
    ticks: u64,
    threads: BTreeMap<OsString, Thread>,
}

/// What a thread has waited for a processor that it could have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Thread {
    /// How long, until it got one; what it waits now is not in it.
    waited: Duration,
    /// How often it got one.
    turns: u64,
    /// Whether it runs or waits now.
    is_runnable: bool,
}

/// Less of one processor than that is the idling of a runtime that waits for something.
const BUSY_PERCENT: u32 = 10;
/// So much of the time something runs or waits for its turn in a process that has work to do and gets
/// hardly any processor time for it. One that idles wakes now and then, and waits then as well.
const EAGER_PERCENT: u32 = 80;

impl Progress {
    /// Whether `pid` has got on since it was asked last, or would have if the machine had let it.
    pub fn is_made(&mut self, pid: Pid) -> bool {
        let Some(now) = read(pid) else { return false };
        let at = Instant::now();
        let made = self.last.as_ref().is_none_or(|(before_at, before)| is_progress(before, &now, at - *before_at));
        self.last = Some((at, now));
        made
    }
}

fn is_progress(before: &Counters, now: &Counters, elapsed: Duration) -> bool {
    let ran = Duration::from_millis(10) * now.ticks.saturating_sub(before.ticks) as u32;
    let threads = now.threads.iter().filter_map(|(id, now)| Some(waited(before.threads.get(id)?, now, elapsed)));
    let is_more_than = |part: Duration, percent: u32| part * 100 > elapsed * percent;
    now.bytes > before.bytes
        || is_more_than(ran, BUSY_PERCENT)
        || is_more_than(threads.sum::<Duration>() + ran, EAGER_PERCENT)
}

/// What a thread has waited since `before`.
fn waited(before: &Thread, now: &Thread, elapsed: Duration) -> Duration {
    let all_the_time = before.is_runnable && now.is_runnable && before.turns == now.turns;
    if all_the_time { elapsed } else { now.waited.saturating_sub(before.waited) }
}

fn read(pid: Pid) -> Option<Counters> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Not everybody may read it, and then the processor time has to do.
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    Some(Counters { bytes: bytes_in(&io), ticks: ticks_in(&stat)?, threads: threads(pid) })
}

/// Not every kernel counts what they wait.
fn threads(pid: Pid) -> BTreeMap<OsString, Thread> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeMap::new() };
    let read = |thread: fs::DirEntry| {
        let text = |name: &str| fs::read_to_string(thread.path().join(name)).ok();
        Some((thread.file_name(), thread_in(&text("schedstat")?, &text("stat")?)?))
    };
    threads.flatten().filter_map(read).collect()
}

/// From its `schedstat`: nanoseconds that it ran, those that it waited, and its turns; and its `stat`.
fn thread_in(schedstat: &str, stat: &str) -> Option<Thread> {
    let mut numbers = schedstat.split_whitespace().skip(1).map(|number| number.parse().ok());
    let (waited, turns) = (Duration::from_nanos(numbers.next()??), numbers.next()??);
    let (_, state) = stat.rsplit_once(") ")?;
    Some(Thread { waited, turns, is_runnable: state.starts_with('R') })
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

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn reading_and_computing_are_progress_and_idling_is_not() {
        let counters = |bytes, ticks| Counters { bytes, ticks, ..Counters::default() };
        let before = counters(1000, 500);
        for (bytes, ticks, expected) in [(1000, 500, false), (1001, 500, true), (1000, 502, false), (1000, 530, true)] {
            assert_eq!(is_progress(&before, &counters(bytes, ticks), SECOND), expected, "{bytes} {ticks}");
        }
    }

    #[test]
    fn waiting_for_a_processor_all_the_time_is_no_idling() {
        let thread = |millis, turns, is_runnable| Thread { waited: Duration::from_millis(millis), turns, is_runnable };
        let after = |before: Thread, ticks, now: &[Thread]| {
            let counters = |ticks, threads: &[Thread]| {
                let threads = threads.iter().enumerate().map(|(id, thread)| (id.to_string().into(), *thread));
                Counters { ticks, bytes: 0, threads: threads.collect() }
            };
            is_progress(&counters(500, &[before]), &counters(ticks, now), SECOND)
        };
        let before = thread(70, 9, true);
        assert!(after(before, 502, &[thread(1020, 20, false)]), "it ran for 20 ms and waited for 950");
        assert!(after(before, 500, &[thread(70, 9, true)]), "it still waits for its turn");
        assert!(!after(before, 500, &[thread(70, 10, true)]), "it had a turn, and has just woken again");
        assert!(!after(thread(70, 9, false), 500, &[thread(70, 9, true)]), "it has just woken");
        assert!(!after(before, 502, &[thread(470, 20, true)]), "it woke now and then, and waited");
        assert!(!after(before, 500, &[]), "it has ended");
        assert!(
            !after(before, 500, &[thread(70, 9, false), thread(5000, 9, true)]),
            "nobody has seen the other one before"
        );
    }

    #[test]
    fn the_kernel_s_files_are_read() {
        assert_eq!(bytes_in("rchar: 10\nwchar: 5\nsyscr: 7\nread_bytes: 100\n"), 15);
        let stat = "12 (na) (me) S 1 12 12 0 -1 4194560 1 2 3 4 70 30 0 0 20 0 9";
        assert_eq!(ticks_in(stat), Some(100));
        assert_eq!(ticks_in("garbage"), None);
        let thread = Thread { waited: Duration::from_nanos(859_822_033), turns: 127, is_runnable: true };
        assert_eq!(thread_in("57022731 859822033 127\n", "12 (na) R 1 2"), Some(thread));
        assert_eq!(
            thread_in("57022731 859822033 127\n", "12 (R) S 1 2"),
            Some(Thread { is_runnable: false, ..thread })
        );
        assert_eq!(thread_in("garbage", "12 (na) R 1 2"), None);
        assert!(Progress::default().is_made(nix::unistd::getpid()), "nothing to compare with yet");
    }
}
