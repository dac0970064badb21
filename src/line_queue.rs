//! Lines on their way to a thread that writes them. Whoever hands one over never waits: what the
//! thread does not keep up with is refused.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Lines that wait at most.
const LENGTH: usize = 4096;

enum Entry<T> {
    Line(T),
    Flush(SyncSender<()>),
}

/// The end that lines, or orders among lines, are handed to. Clones lead to the same thread.
#[derive(Clone)]
pub struct LineQueue<T = String>(SyncSender<Entry<T>>);

impl<T: Send + 'static> LineQueue<T> {
    /// Starts a thread of that name, which calls `write` for each line. Where no thread can be
    /// started every line is refused.
    pub fn start(thread: &str, mut write: impl FnMut(T) + Send + 'static) -> Self {
        let (queue, entries) = sync_channel(LENGTH);
        let work = move || {
            for entry in entries {
                match entry {
                    Entry::Line(line) => write(line),
                    // Who asked may have lost patience.
                    Entry::Flush(done) => drop(done.try_send(())),
                }
            }
        };
        let _ = std::thread::Builder::new().name(thread.into()).spawn(work);
        Self(queue)
    }

    /// Hands a line over; false when it was refused.
    pub fn push(&self, line: T) -> bool {
        self.0.try_send(Entry::Line(line)).is_ok()
    }

    /// Waits until everything handed over so far is written, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let (done, written) = sync_channel(1);
        // A queue that is full empties as the thread gets on.
        while self.0.try_send(Entry::Flush(done.clone())).is_err() {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_thread_that_stalls_costs_lines_and_nobody_waits() {
        let (release, gate) = channel::<()>();
        let (sender, written) = channel();
        let queue = LineQueue::start("test", move |line| {
            let _ = gate.recv();
            let _ = sender.send(line);
        });
        // One is with the thread at most, so many wait, and the rest is refused.
        let taken = (0..LENGTH + 10).filter(|number| queue.push(number.to_string())).count();
        assert!((LENGTH..=LENGTH + 1).contains(&taken), "{taken}");
        queue.flush(Duration::from_millis(1));
        drop(release);
        queue.flush(Duration::from_secs(20));
        assert_eq!(written.try_iter().count(), taken);
    }
}
