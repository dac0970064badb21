use std::time::Duration;

use super::checks;
use super::cluster;
use super::report::{Check, Report};
use super::streams::{Aspects, examine_streams};
use crate::errors::in_one_line;
use crate::nats::{JetStream, Link, Monitor, Refused};
use crate::settings::Settings;
use crate::streams::Desired;

/// Which checks to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The NATS port answers, /healthz, and the supervisor's /readyz.
    Quick,
    /// Everything below.
    Full,
    /// A client gets in with the configured credentials.
    Connectivity,
    /// nats-server's HTTP monitoring.
    Http,
    /// JetStream answers.
    Jetstream,
    /// The MARKET_DATA stream exists.
    Stream,
    /// All eight families are captured.
    Datatypes,
}

/// Looks at a running broker from outside, with the settings that it runs with.
pub struct Examination<'a> {
    pub settings: &'a Settings,
    pub link: Link,
    /// Time for the whole examination.
    pub timeout: Duration,
}

impl Examination<'_> {
    /// Makes the checks; what is not done in time is told as such, what is done is kept.
    pub async fn make(&self, kind: Kind) -> Report {
        let (mut report, mut refused) = (Report::default(), None);
        if tokio::time::timeout(self.timeout, self.fill(kind, &mut report, &mut refused)).await.is_err() {
            report.checks.extend(Report::late(self.timeout).checks);
        }
        report.explain(refused);
        report
    }

    async fn fill(&self, kind: Kind, report: &mut Report, refused: &mut Option<Refused>) {
        let monitor = Monitor::new(self.settings);
        if kind == Kind::Quick {
            let greeting = Check::run("nats", async {
                let (answer, address) = (self.link.greeting(self.timeout).await, self.link.address());
                answer
                    .map(|()| format!("NATS answers at {address}"))
                    .map_err(|e| format!("NATS does not answer at {address}: {e}"))
            });
            let ready = Check::run("ready", checks::readyz(self.settings, self.timeout));
            let healthz = async {
                match &monitor {
                    Some(monitor) => Some(Check::run("http", checks::healthz(monitor, self.timeout)).await),
                    None => None,
                }
            };
            let (greeting, healthz, ready) = tokio::join!(greeting, healthz, ready);
            report.checks.push(greeting);
            report.checks.extend(healthz);
            report.checks.push(ready);
            return;
        }
        if kind == Kind::Full {
            report.checks.push(Check::run("ready", checks::readyz(self.settings, self.timeout)).await);
            report.checks.extend(checks::integrity(self.settings, self.timeout).await);
        }
        if matches!(kind, Kind::Full | Kind::Http) {
            match &monitor {
                Some(monitor) => {
                    report.checks.push(Check::run("http", checks::http(monitor, self.timeout)).await);
                }
                None => report.checks.push(Check::warning("http", checks::why_no_monitoring(self.settings))),
            }
            if let Some(monitor) = monitor.as_ref().filter(|_| self.settings.clusters_jetstream() && kind == Kind::Full)
            {
                report.checks.extend(cluster::examine(monitor, self.timeout).await);
            }
        }
        if kind != Kind::Http {
            self.over_nats(kind, monitor.as_ref(), report, refused).await;
        }
        if kind == Kind::Full {
            let doors = self.settings.open_doors.iter();
            report.checks.extend(doors.map(|door| Check::warning("security", door.describe())));
        }
    }

    /// The checks that need a client connection; what is `refused` to it is heard of later.
    async fn over_nats(
        &self,
        kind: Kind,
        monitor: Option<&Monitor>,
        report: &mut Report,
        refused: &mut Option<Refused>,
    ) {
        let mut connection = None;
        let connectivity = Check::run("connectivity", async {
            let connected = self.link.connect(self.timeout).await.map_err(|e| in_one_line(&e))?;
            let info = connected.client.server_info();
            connection = Some(connected);
            Ok(format!("connected to {} at {}", info.server_name, self.link.address()))
        });
        report.checks.push(connectivity.await);
        let Some(connection) = connection else { return };
        *refused = Some(connection.refused());
        if !self.settings.jetstream.enabled {
            if kind != Kind::Connectivity {
                report.checks.push(Check::warning("jetstream", "JETSTREAM_ENABLED is false: there are no streams"));
            }
            return;
        }
        let api = JetStream::new(connection.client, self.timeout);
        let wanted = |this: Kind| kind == Kind::Full || kind == this;
        if wanted(Kind::Jetstream) {
            let look = checks::jetstream(&api, monitor, self.timeout);
            report.checks.push(Check::run("jetstream", look).await);
        }
        let aspects = Aspects { configuration: wanted(Kind::Stream), families: wanted(Kind::Datatypes) };
        if aspects.configuration || aspects.families {
            let (desired, name) = (Desired::of(self.settings), self.settings.market_data.name.as_str());
            report.checks.extend(examine_streams(&api, &desired, name, aspects).await);
        }
    }
}
