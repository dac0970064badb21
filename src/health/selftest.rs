use std::time::Duration;

use super::report::{Check, Report};
use super::scope::CheckScope;
use super::server_checks::ServerChecks;
use super::write_probe::{round_trip, why_not};
use crate::domain::DataType;
use crate::errors::in_one_line;
use crate::nats::{ConnectError, Connector, JetStream, Monitor};
use crate::settings::Settings;
use crate::streams::Desired;

/// Proves a deployment from end to end: connection, monitoring, JetStream, streams, and a message of
/// each family that is stored, read back and removed.
pub struct SelfTest<'a> {
    pub settings: &'a Settings,
    pub link: Connector,
    pub monitor: Option<Monitor>,
    /// Time for each step.
    pub timeout: Duration,
}

impl SelfTest<'_> {
    /// Fails only where the server cannot be reached.
    pub async fn make(&self) -> Result<Report, ConnectError> {
        let connection = self.link.connect(self.timeout).await?;
        let (mut report, refused) = (Report::default(), connection.refused());
        let server = connection.client.server_info();
        let connected = format!("connected to {} ({})", server.server_name, server.version);
        report.checks.push(Check::run("connectivity", async { Ok(connected) }).await);
        if self.monitor.is_none() {
            report.checks.push(Check::warning("http", "no monitoring address is known: not looked at"));
        }
        let desired = Desired::of(self.settings);
        let server = ServerChecks {
            settings: self.settings,
            desired: &desired,
            monitor: self.monitor.as_ref(),
            deadline: self.timeout,
        };
        server.over_http(CheckScope::Http, &mut report).await;
        server.over_nats(CheckScope::Full, connection.client.clone(), &mut report).await;
        let jetstream = JetStream::new(connection.client, self.timeout);
        let name = self.settings.market_data.name.as_str();
        if desired.stream(name).is_some() && self.settings.streams.market_data {
            report.checks.extend(self.families(&jetstream, name).await);
        }
        report.explain(Some(refused));
        Ok(report)
    }

    async fn families(&self, jetstream: &JetStream, name: &str) -> Vec<Check> {
        // That it cannot be asked for is told by the checks before.
        let Ok(Some(info)) = jetstream.stream_info(name).await else { return vec![] };
        if let Some(reason) = why_not(&info) {
            return vec![Check::warning("round-trip", format!("nothing is written to stream {name}: {reason}"))];
        }
        let mut checks = vec![];
        for family in DataType::ALL {
            for filter in family.subjects(self.settings.market_data.style) {
                checks.push(Check::run(family.name(), round_trip(jetstream, &info, &filter)).await);
            }
        }
        checks
    }
}

impl From<&ConnectError> for Check {
    fn from(error: &ConnectError) -> Self {
        Check::failure("connectivity", in_one_line(error))
    }
}
