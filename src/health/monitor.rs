use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::Client;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::report::{Check, Report};
use super::scope::CheckScope;
use super::server_checks::ServerChecks;
use crate::domain::Generation;
use crate::nats::{Monitor, ping};
use crate::off_thread::OffThread;
use crate::settings::Settings;
use crate::streams::Desired;

/// The last health check.
#[derive(Clone, Debug)]
pub struct HealthReport {
    pub at: SystemTime,
    /// The server that was examined.
    pub generation: Generation,
    pub report: Report,
}

/// After a health check that failed: what was wrong may be over long before the next one is due.
const AGAIN: Duration = Duration::from_secs(2);

/// Between two health checks at least, however often one is asked for.
const REST: Duration = Duration::from_millis(250);

/// What is found wrong for the first time is looked at again after that, before it counts.
const SOON: Duration = Duration::from_millis(200);

/// Examines the running server again and again, over the connection that the broker holds.
pub struct HealthMonitor {
    /// Others after a reload.
    pub in_force: watch::Receiver<Arc<Settings>>,
    /// The streams that should be; others after a reload.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// The connection to the server that runs now.
    pub client: watch::Receiver<Option<(Generation, Client)>>,
    pub reports: watch::Sender<Option<HealthReport>>,
    /// Something has changed that is worth a look before its time.
    pub recheck: Arc<Notify>,
}

impl HealthMonitor {
    /// Runs for ever.
    pub async fn run(mut self) {
        let Some(period) = self.in_force.borrow().health.interval else {
            return std::future::pending().await;
        };
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is immediate; the start has just looked at everything.
        ticks.tick().await;
        let mut monitoring = OffThread::default();
        let mut monitor = None;
        self.in_force.mark_changed();
        let mut failed = false;
        let mut rested = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.recheck.notified() => sleep_until(rested).await,
                () = sleep(AGAIN), if failed => {}
            }
            // Without a connection a server is starting or restarting, and that is known already.
            let Some((generation, client)) = self.client.borrow().clone() else { continue };
            let settings = self.in_force.borrow().clone();
            if self.in_force.has_changed().unwrap_or_default() {
                let wanted = settings.clone();
                // It reads the authorities, from a disk that may hang.
                if let Some(made) = monitoring.run(settings.health.timeout, move || Monitor::new(&wanted)).await {
                    monitor = made;
                    self.in_force.mark_unchanged();
                }
            }
            let mut report = self.examine(&settings, client.clone(), monitor.as_ref()).await;
            if !report.is_healthy() && !failed {
                // A stream that somebody is just making is no fault.
                sleep(SOON).await;
                report = self.examine(&settings, client, monitor.as_ref()).await;
            }
            failed = !report.is_healthy();
            rested = Instant::now() + REST;
            let _ = self.reports.send(Some(HealthReport { at: SystemTime::now(), generation, report }));
        }
    }

    async fn examine(&self, settings: &Settings, client: Client, monitor: Option<&Monitor>) -> Report {
        let deadline = settings.health.timeout;
        let examination = async {
            let mut report = Report::default();
            let desired = self.desired.borrow().clone();
            let server = ServerChecks { settings, desired: &desired, monitor, deadline };
            server.over_http(CheckScope::Full, &mut report).await;
            if settings.jetstream.enabled {
                server.over_nats(CheckScope::Full, client, &mut report).await;
            } else {
                report.checks.push(Check::run("connectivity", answers(&client, deadline)).await);
            }
            report
        };
        timeout(deadline, examination).await.unwrap_or_else(|_| Report::late(deadline))
    }
}

async fn answers(client: &Client, deadline: Duration) -> Result<String, String> {
    ping(client, deadline).await.map(|()| "the server answers".into())
}
