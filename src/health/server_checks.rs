//! The checks of a server, in one place: the periodic health check, `health-check` and `selftest` make
//! them, each as many as it wants.

use std::time::Duration;

use async_nats::Client;

use super::checks;
use super::cluster;
use super::report::{Check, JetStreamNumbers, Report, ServerNumbers};
use super::scope::CheckScope;
use super::streams::{Aspects, examine_streams};
use crate::nats::{JetStream, Monitor, Varz};
use crate::settings::Settings;
use crate::streams::Desired;

/// What is known of the server before it is asked.
pub struct ServerChecks<'a> {
    pub settings: &'a Settings,
    pub desired: &'a Desired,
    /// [`None`] where monitoring is off or its address is not known.
    pub monitor: Option<&'a Monitor>,
    /// Time for each check.
    pub deadline: Duration,
}

impl ServerChecks<'_> {
    /// What monitoring shows.
    pub async fn over_http(&self, scope: CheckScope, report: &mut Report) {
        let Some(monitor) = self.monitor else { return };
        if matches!(scope, CheckScope::Full | CheckScope::Http) {
            let mut seen = None;
            let http = Check::run("http", async {
                let varz = checks::http(monitor, self.deadline).await?;
                let detail = format!("{} {}, {} connections", varz.server_name, varz.version, varz.connections);
                seen = Some(ServerNumbers::from(varz));
                Ok(detail)
            });
            report.checks.push(http.await);
            // Each consumer is a part of that answer, so that only who wants it asks for it.
            if scope == CheckScope::Full
                && self.settings.jetstream.enabled
                && self.settings.alerts.wants_consumers()
                && let Some(server) = &seen
            {
                report.observed.consumers = checks::consumers(monitor, &server.name, self.deadline).await;
            }
            report.observed.server = seen;
        }
        if scope == CheckScope::Full && self.settings.clusters_jetstream() {
            report.checks.extend(cluster::examine(monitor, self.deadline).await);
        }
    }

    /// What a client sees of JetStream and the streams.
    pub async fn over_nats(&self, scope: CheckScope, client: Client, report: &mut Report) {
        let api = JetStream::new(client, self.deadline);
        let wanted = |this: CheckScope| scope == CheckScope::Full || scope == this;
        if wanted(CheckScope::Jetstream) {
            let mut seen = None;
            let jetstream = Check::run("jetstream", async {
                let numbers = checks::jetstream(&api, self.monitor, self.deadline).await?;
                let detail = numbers.to_string();
                seen = Some(numbers);
                Ok(detail)
            });
            report.checks.push(jetstream.await);
            report.observed.jetstream = seen;
        }
        let aspects = Aspects { configuration: wanted(CheckScope::Stream), families: wanted(CheckScope::Datatypes) };
        if aspects.configuration || aspects.families {
            let name = self.settings.market_data.name.as_str();
            examine_streams(&api, self.desired, name, aspects, report).await;
        }
    }
}

impl From<Varz> for ServerNumbers {
    fn from(varz: Varz) -> Self {
        let Varz { server_name: name, version, connections, subscriptions, slow_consumers, .. } = varz;
        let Varz { in_msgs, out_msgs, in_bytes, out_bytes, mem, .. } = varz;
        Self { name, version, connections, subscriptions, slow_consumers, in_msgs, out_msgs, in_bytes, out_bytes, mem }
    }
}

impl std::fmt::Display for JetStreamNumbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = |number: u64| crate::figures::bytes(number as f64);
        let Self { streams, consumers, storage, memory, .. } = *self;
        write!(f, "{streams} streams, {consumers} consumers, {} on disk, {} in memory", bytes(storage), bytes(memory))
    }
}
