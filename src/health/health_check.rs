use std::time::Duration;

use super::checks;
use super::report::{Check, Report};
use super::scope::CheckScope;
use super::server_checks::ServerChecks;
use crate::errors::in_one_line;
use crate::nats::{Connector, Monitor, PermissionViolations};
use crate::settings::Settings;
use crate::streams::Desired;

/// Looks at a running broker from outside, with the settings that it runs with.
pub struct HealthCheck<'a> {
    pub settings: &'a Settings,
    pub link: Connector,
    /// Time for the whole health check.
    pub timeout: Duration,
}

impl HealthCheck<'_> {
    /// Makes the checks, with those of the supervisor, which others make; what is not done in time is
    /// reported as such, what is done is kept.
    pub async fn make(&self, kind: CheckScope, supervisor: impl Future<Output = Vec<Check>>) -> Report {
        let (mut report, mut refused) = (Report::default(), None);
        let fill = self.fill(kind, supervisor, &mut report, &mut refused);
        if tokio::time::timeout(self.timeout, fill).await.is_err() {
            report.checks.extend(Report::late(self.timeout).checks);
        }
        report.explain(refused);
        report
    }

    async fn fill(
        &self,
        kind: CheckScope,
        supervisor: impl Future<Output = Vec<Check>>,
        report: &mut Report,
        refused: &mut Option<PermissionViolations>,
    ) {
        let monitor = Monitor::new(self.settings);
        if kind == CheckScope::Quick {
            let greeting = Check::run("nats", async {
                let (answer, address) = (self.link.greeting(self.timeout).await, self.link.address());
                answer
                    .map(|()| format!("NATS answers at {address}"))
                    .map_err(|e| format!("NATS does not answer at {address}: {e}"))
            });
            let healthz = async {
                match &monitor {
                    Some(monitor) => Some(Check::run("http", checks::healthz(monitor, self.timeout)).await),
                    None => None,
                }
            };
            let (greeting, healthz, supervisor) = tokio::join!(greeting, healthz, supervisor);
            report.checks.push(greeting);
            report.checks.extend(healthz);
            report.checks.extend(supervisor);
            return;
        }
        if kind == CheckScope::Full {
            report.checks.extend(supervisor.await);
        }
        if matches!(kind, CheckScope::Full | CheckScope::Http) && monitor.is_none() {
            report.checks.push(Check::warning("http", checks::why_no_monitoring(self.settings)));
        }
        let desired = Desired::of(self.settings);
        let server = ServerChecks {
            settings: self.settings,
            desired: &desired,
            monitor: monitor.as_ref(),
            deadline: self.timeout,
        };
        server.over_http(kind, report).await;
        if kind != CheckScope::Http {
            self.over_nats(kind, &server, report, refused).await;
        }
        if kind == CheckScope::Full {
            let doors = self.settings.unauthenticated_listeners.iter();
            report.checks.extend(doors.map(|door| Check::warning("security", door.describe())));
        }
    }

    /// The checks that need a client connection; what is `refused` to it is heard of later.
    async fn over_nats(
        &self,
        kind: CheckScope,
        server: &ServerChecks<'_>,
        report: &mut Report,
        refused: &mut Option<PermissionViolations>,
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
            if kind != CheckScope::Connectivity {
                report.checks.push(Check::warning("jetstream", "JETSTREAM_ENABLED is false: there are no streams"));
            }
            return;
        }
        server.over_nats(kind, connection.client, report).await;
    }
}
