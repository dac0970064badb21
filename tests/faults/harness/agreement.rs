//! What the supervisor says agrees with what clients see, within two seconds.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::progress::{ClientView, Progress};

/// For this long they may differ.
const TOLERATED: Duration = Duration::from_secs(2);
/// On top of it: the two sides are looked at by turns, on a machine that has other things to do.
const MARGIN: Duration = Duration::from_millis(1_500);
const LOOK: Duration = Duration::from_millis(100);

/// What `/health` says.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Ready,
    NotReady(String),
    /// On its way out it may serve longer than it says.
    Leaving,
    /// Nobody answers: there is no supervisor, and nothing is claimed.
    Nothing,
}

impl Told {
    pub fn by(health: &Value) -> Self {
        let server = &health["checks"]["nats_server"];
        match server["state"].as_str() {
            Some("ready") => Self::Ready,
            Some("draining" | "stopped") => Self::Leaving,
            Some(state) => Self::NotReady(format!("{state}: {}", server["reason"].as_str().unwrap_or_default())),
            None => Self::Nothing,
        }
    }
}

/// What clients find out that the producers do not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Newcomers {
    /// They fare as the producers do.
    #[default]
    Served,
    /// Nobody new can connect, so that not being ready is right while the producers are served.
    TurnedAway,
}

/// Compares both sides, one pair of looks after another; tells each disagreement once.
#[derive(Default)]
pub struct Agreement {
    newcomers: Newcomers,
    ready_since: Option<Instant>,
    not_ready_since: Option<Instant>,
    disagreeing: bool,
}

impl Agreement {
    pub fn with(newcomers: Newcomers) -> Self {
        Self { newcomers, ..Self::default() }
    }

    /// `asked` is when the supervisor was asked, `clients` what they saw right before.
    pub fn compare(&mut self, asked: Instant, told: &Told, clients: ClientView) -> Option<String> {
        let too_long =
            |since: Option<Instant>| since.is_some_and(|at| asked.saturating_duration_since(at) > TOLERATED + MARGIN);
        self.ready_since = (*told == Told::Ready).then_some(self.ready_since.unwrap_or(asked));
        let not_ready = matches!(told, Told::NotReady(_));
        self.not_ready_since = not_ready.then_some(self.not_ready_since.unwrap_or(asked));
        let disagreement = match told {
            Told::Ready if too_long(self.ready_since) && too_long(clients.blocked_since) => {
                let blocked = age(asked, clients.blocked_since);
                Some(format!("/health says ready, but nothing was acknowledged for {blocked:?}"))
            }
            Told::NotReady(why) if too_long(self.not_ready_since) && too_long(clients.served_since) => {
                let served = age(asked, clients.served_since);
                (self.newcomers == Newcomers::Served)
                    .then(|| format!("/health says {why:?}, but clients were served for {served:?}"))
            }
            _ => None,
        };
        let was_disagreeing = std::mem::replace(&mut self.disagreeing, disagreement.is_some());
        disagreement.filter(|_| !was_disagreeing)
    }
}

fn age(now: Instant, since: Option<Instant>) -> Duration {
    since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
}

/// Asks `/health` all the time, on a thread of its own.
pub struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<Vec<String>>,
}

impl Watch {
    pub fn start(url: String, progress: Arc<Progress>, newcomers: Newcomers) -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _ = rustls::crypto::ring::default_provider().install_default();
            // One connection after another: one that is kept would count as the supervisor's.
            let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
            let mut agreement = Agreement::with(newcomers);
            let mut violations = Vec::new();
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let (asked, clients) = (Instant::now(), progress.view());
                let told = runtime.block_on(ask(&client, &url));
                // An answer that took long is about some time in between.
                if asked.elapsed() < MARGIN {
                    violations.extend(agreement.compare(asked, &told, clients));
                }
            }
            violations
        });
        Self { stop, thread }
    }

    /// Gives the disagreements.
    pub fn stop(self) -> Vec<String> {
        drop(self.stop);
        self.thread.join().unwrap()
    }
}

async fn ask(client: &reqwest::Client, url: &str) -> Told {
    let answer = match client.get(url).timeout(TOLERATED).send().await {
        Ok(answer) => answer.json::<Value>().await.ok(),
        Err(_) => None,
    };
    answer.map_or(Told::Nothing, |health| Told::by(&health))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disagreements(told: &Told, clients: impl Fn(Instant) -> ClientView) -> usize {
        let start = Instant::now();
        let mut agreement = Agreement::default();
        let looks = (0..100).map(|look| start + LOOK * look);
        looks.filter_map(|asked| agreement.compare(asked, told, clients(start))).count()
    }

    fn blocked(since: Instant) -> ClientView {
        ClientView { blocked_since: Some(since), served_since: None }
    }

    fn served(since: Instant) -> ClientView {
        ClientView { blocked_since: Some(since + Duration::from_secs(10)), served_since: Some(since) }
    }

    #[test]
    fn ready_while_nobody_is_served_is_one_disagreement() {
        assert_eq!(disagreements(&Told::Ready, blocked), 1);
        assert_eq!(disagreements(&Told::Ready, |_| ClientView::default()), 0);
    }

    #[test]
    fn who_has_just_become_ready_may_find_clients_blocked() {
        let start = Instant::now();
        let mut agreement = Agreement::default();
        let looks =
            (0..200).map(|look| (start + LOOK * look, if look % 40 < 10 { Told::Nothing } else { Told::Ready }));
        let told = looks.filter_map(|(asked, told)| agreement.compare(asked, &told, blocked(start))).count();
        assert_eq!(told, 0, "it was never ready for longer than 3 s");
    }

    #[test]
    fn not_ready_is_right_where_nobody_new_is_served() {
        let start = Instant::now();
        let mut agreement = Agreement::with(Newcomers::TurnedAway);
        let looks = (0..100).map(|look| start + LOOK * look);
        let degraded = Told::NotReady("degraded".into());
        assert_eq!(looks.filter_map(|asked| agreement.compare(asked, &degraded, served(start))).count(), 0);
    }

    #[test]
    fn not_ready_while_everybody_is_served_is_one_disagreement() {
        assert_eq!(disagreements(&Told::NotReady("degraded".into()), served), 1);
        assert_eq!(disagreements(&Told::NotReady("degraded".into()), blocked), 0);
        assert_eq!(disagreements(&Told::Leaving, served), 0);
        assert_eq!(disagreements(&Told::Nothing, blocked), 0);
    }
}
