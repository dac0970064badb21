//! Waiting for what may let another attempt succeed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Broker;
use crate::status::BrokerStatus;

/// At a server that is ready and yet cannot do it just now, as while a leader is chosen: nobody tells when it
/// can.
const PAUSE: Duration = Duration::from_millis(20);
/// At one that is not ready. Its status tells when that changes, but not of each stream that is there again.
const UNTOLD: Duration = Duration::from_millis(250);

/// News of the server, for attempts that go on for as long as it takes: each waits for some, and a little
/// longer each time where there are none.
pub(super) struct News<T = Arc<BrokerStatus>> {
    status: watch::Receiver<T>,
    pause: Duration,
}

impl News {
    pub fn of(broker: &Broker) -> Self {
        Self::new(broker.0.status.clone())
    }
}

impl<T> News<T> {
    fn new(status: watch::Receiver<T>) -> Self {
        Self { status, pause: Duration::ZERO }
    }

    /// An attempt begins: what is known by now is no news for it.
    pub fn catch_up(&mut self) {
        self.status.borrow_and_update();
    }

    /// Something has come of it: the next attempt need not wait.
    pub fn is_good(&mut self) {
        self.pause = Duration::ZERO;
    }

    /// Waits for news since the attempt began. What nobody tells, as that a stream is there again, is found by
    /// another attempt after a while.
    pub async fn wait(&mut self) {
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).clamp(PAUSE, UNTOLD);
        tokio::select! {
            Ok(()) = self.status.changed() => {}
            () = sleep_until(until) => {}
        }
    }
}

impl Broker {
    /// Waits until another attempt may do better; false where no time is left for one.
    pub(super) async fn waits_for_another_attempt(&self, deadline: Instant) -> bool {
        waits(self.0.status.clone(), |status| status.is_ready, deadline).await
    }
}

/// While the server is not ready that is when its status changes.
async fn waits<T>(mut status: watch::Receiver<T>, is_ready: impl Fn(&T) -> bool, deadline: Instant) -> bool {
    let is_ready = is_ready(&status.borrow_and_update());
    let pause = if is_ready { PAUSE } else { UNTOLD };
    let now = Instant::now();
    let Some(last) = deadline.checked_sub(PAUSE).filter(|last| now < *last) else { return false };
    let changed = async {
        match status.changed().await {
            Ok(()) if !is_ready => {}
            // What else happens to one that is ready is not waited for, and nothing follows the last.
            Ok(()) | Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = changed => {}
        () = sleep_until(last.min(now + pause)) => {}
    }
    Instant::now() < last
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// How long is waited, and whether for another attempt, where the status becomes `then` after 100 ms.
    async fn waited(is_ready: bool, then: Option<bool>, deadline: Duration) -> (Duration, bool) {
        let (sender, status) = watch::channel(is_ready);
        let began = Instant::now();
        let change = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if let Some(then) = then {
                sender.send_replace(then);
            }
            std::future::pending::<()>().await;
        };
        let again = tokio::select! {
            again = waits(status, |is_ready| *is_ready, began + deadline) => again,
            () = change => false,
        };
        (began.elapsed(), again)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_not_ready_is_asked_again_when_its_status_changes() {
        assert_eq!(waited(false, Some(true), DEADLINE).await, (millis(100), true));
        assert_eq!(waited(false, Some(false), DEADLINE).await, (millis(100), true), "it may be another server");
        assert_eq!(waited(false, None, DEADLINE).await, (millis(250), true), "a stream may be there without that");
        assert_eq!(waited(true, None, DEADLINE).await, (millis(20), true));
        let (sender, status) = watch::channel(false);
        drop(sender);
        let began = Instant::now();
        assert!(waits(status, |is_ready| *is_ready, began + DEADLINE).await);
        assert_eq!(began.elapsed(), millis(250), "nobody tells any more, and it does not spin");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_waits_for_news_and_for_longer_each_time() {
        let (sender, status) = watch::channel(0);
        let mut news = News::new(status);
        let waited = async |news: &mut News<i32>| {
            let began = Instant::now();
            news.catch_up();
            news.wait().await;
            began.elapsed().as_millis()
        };
        for expected in [0, 20, 40, 80, 160, 250, 250] {
            assert_eq!(waited(&mut news).await, expected);
        }
        news.is_good();
        assert_eq!((waited(&mut news).await, waited(&mut news).await), (0, 20));
        // What happened during the attempt is news.
        news.catch_up();
        let began = Instant::now();
        sender.send_replace(1);
        news.wait().await;
        assert_eq!(began.elapsed(), millis(0));
        // Once nobody tells any more it does not spin.
        drop(sender);
        assert_eq!((waited(&mut news).await, waited(&mut news).await), (80, 160));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_longer_than_the_deadline() {
        assert_eq!(waited(false, None, millis(120)).await, (millis(100), false));
        assert_eq!(waited(true, None, millis(30)).await, (millis(10), false));
        assert_eq!(waited(false, None, millis(20)).await, (millis(0), false));
        assert_eq!(waited(false, None, millis(0)).await, (millis(0), false));
    }
}
