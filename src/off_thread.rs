//! Work that reads or writes files, on a thread that may wait: a disk may hang, and the thread that
//! everything depends on must not.

use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// One such work at a time: a disk that has not answered is not asked again before it has.
#[derive(Debug)]
pub struct OffThread<T>(Option<JoinHandle<T>>);

impl<T> Default for OffThread<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> OffThread<T> {
    /// Whether a disk has been asked that has not answered yet.
    pub fn is_waiting(&self) -> bool {
        self.0.as_ref().is_some_and(|work| !work.is_finished())
    }

    /// What `work` gives; [`None`] where that takes longer than `patience`, or panics. What came too
    /// late is never given: it may be out of date.
    pub async fn run(&mut self, patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let done = timeout(patience, async {
            if let Some(late) = &mut self.0 {
                let _ = late.await;
            }
            let running = self.0.insert(spawn_blocking(work));
            running.await
        });
        let result = done.await.ok()?;
        self.0 = None;
        result.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_disk_that_hangs_is_not_asked_again_until_it_answers() {
        let mut work = OffThread::default();
        let (answer, hangs) = channel::<()>();
        let first = move || {
            let _ = hangs.recv();
            1
        };
        assert_eq!(work.run(SHORT, first).await, None);
        let (tell, asked) = channel();
        assert_eq!(work.run(SHORT, move || tell.send(()).map_or(2, |()| 3)).await, None);
        assert!(asked.recv().is_err(), "it was not asked");
        drop(answer);
        assert_eq!(work.run(LONG, || 4).await, Some(4), "and not what came late");
        assert_eq!(work.run(LONG, || panic!("as meant")).await, None);
        assert_eq!(work.run(LONG, || 5).await, Some(5));
    }
}
