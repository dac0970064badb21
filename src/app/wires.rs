//! What the tasks of a broker tell each other, and the tasks that are made of little else.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use async_nats::Client;
use axum::http::HeaderMap;
use futures_util::FutureExt;
use tokio::sync::watch::{self, channel};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::board;
use crate::alerts::{Alert, AlertsHandle};
use crate::broker::{AckTokens, Broker, Links};
use crate::dashboard::{self, Dashboard, Sampler};
use crate::domain::Generation;
use crate::health::{HealthMonitor, HealthReport};
use crate::http::traffic::Traffic;
use crate::integrity::{IntegrityHandle, StreamRecovery};
use crate::lifecycle::{BringUp, EmbeddedServer, Reload, ReloadFiles};
use crate::metrics::{self, Collector, Metrics};
use crate::nats::Connectors;
use crate::off_thread::OffThread;
use crate::preflight::{Phases, Reread, Store};
use crate::rest::{Api, Declared, Home, Parts, Views};
use crate::settings::{Effective, Settings};
use crate::status::{BrokerStatus, Reloads, Sources};
use crate::streams::{Desired, Drift};
use crate::supervisor::Handle;

type Wire<T> = (watch::Sender<T>, watch::Receiver<T>);

pub struct Wires {
    settings: Arc<Settings>,
    /// The connection to the server that runs now.
    pub client: Wire<Option<(Generation, Client)>>,
    pub reports: Wire<Option<HealthReport>>,
    /// The settings that a reload may change.
    pub in_force: Wire<Arc<Settings>>,
    /// Something has changed that is worth a health check before its time.
    pub recheck: Arc<Notify>,
    pub pulse: Wire<Instant>,
    connectors: Wire<Connectors>,
    desired: Wire<Arc<Desired>>,
    drift: Wire<Drift>,
    reloads: Wire<Reloads>,
    start_phases: Wire<Vec<(&'static str, f64)>>,
}

impl Wires {
    pub fn new(settings: Arc<Settings>, connectors: Connectors) -> Self {
        Self {
            client: channel(None),
            reports: channel(None),
            in_force: channel(settings.clone()),
            recheck: Arc::default(),
            pulse: channel(Instant::now()),
            connectors: channel(connectors),
            desired: channel(Arc::new(Desired::of(&settings))),
            drift: channel(Drift::default()),
            reloads: channel(Reloads::default()),
            start_phases: channel(vec![]),
            settings,
        }
    }

    /// What the API may look at, where it is published, and what it is made of.
    pub fn status(
        &self,
        handle: &Handle,
        integrity: &IntegrityHandle,
    ) -> (Views, watch::Sender<Arc<BrokerStatus>>, Sources) {
        let mut sources = Sources::new(
            handle,
            self.reports.1.clone(),
            self.settings.looks_after_messages().then(|| integrity.watch()),
            self.settings.jetstream.enabled.then(|| self.drift.1.clone()),
            self.reloads.1.clone(),
        );
        let published = sources.publish();
        let environment = self.settings.api.environment;
        (Views { status: published.subscribe(), pulse: self.pulse.1.clone(), environment }, published, sources)
    }

    /// What the API answers with, and the connections that it needs for that; metrics, and who collects them for
    /// scrapes and for the dashboard.
    pub fn api(
        &self,
        views: Views,
        handle: &Handle,
        integrity: &IntegrityHandle,
        alerts: &AlertsHandle,
    ) -> anyhow::Result<(Api, Links, Metrics, Collector, Sampler)> {
        let (broker, links) = Broker::new(self.connectors.1.clone(), views.status.clone(), self.recheck.clone());
        let integrity = integrity.clone();
        let deleting = Arc::new(move |stream: String| {
            let integrity = integrity.clone();
            async move { integrity.will_delete(stream).await }.boxed()
        });
        let declared = Declared { desired: self.desired.1.clone(), deleting };
        let (settings, shutdown) = (self.in_force.1.clone(), CancellationToken::new());
        let ack_tokens = Arc::new(AckTokens::new().context("cannot make the key of acknowledgements")?);
        let users = broker.users(self.connectors.1.clone());
        let started = Instant::now();
        let traffic = Traffic::default();
        let (metrics, collector) = Metrics::new(metrics::Sources {
            status: views.status.clone(),
            supervisor: handle.watch(),
            settings: settings.clone(),
            drift: self.drift.1.clone(),
            start_phases: self.start_phases.1.clone(),
            alerts: alerts.counts(),
            broker: broker.clone(),
            traffic: traffic.clone(),
        });
        let scraped = metrics.clone();
        let scrape = Arc::new(move |headers: HeaderMap| {
            let metrics = scraped.clone();
            async move { metrics.answer(&headers).await }.boxed()
        });
        let (home, sampler) =
            self.dashboard(&views, &metrics, alerts.open(), &shutdown).context("cannot make the dashboard")?;
        let parts =
            Parts { broker, users, views, started, settings, declared, ack_tokens, traffic, scrape, home, shutdown };
        Ok((Api::new(parts), links, metrics, collector, sampler))
    }

    /// The page at `/`, and who finds out what it shows.
    fn dashboard(
        &self,
        views: &Views,
        metrics: &Metrics,
        alerts: watch::Receiver<Arc<[Alert]>>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<(Home, Sampler)> {
        let (dashboard, sampler) = Dashboard::new(dashboard::Sources {
            status: views.status.clone(),
            settings: self.in_force.1.clone(),
            observe: board::observe(metrics.clone()),
            past: board::past(metrics.clone()),
            alerts: board::alerts(alerts),
            shutdown: shutdown.clone(),
        })?;
        let (page, live) = (dashboard.clone(), dashboard);
        let home = Home {
            page: Arc::new(move |may_read| {
                let dashboard = page.clone();
                async move { dashboard.page(may_read).await }.boxed()
            }),
            live: Arc::new(move || live.live()),
            assets: Dashboard::assets(),
        };
        Ok((home, sampler))
    }

    pub fn bring_up(
        &self,
        handle: &Handle,
        integrity: &IntegrityHandle,
        store: Option<Arc<Store>>,
        phases: Phases,
    ) -> BringUp {
        BringUp {
            settings: self.settings.clone(),
            in_force: self.in_force.1.clone(),
            desired: self.desired.1.clone(),
            connectors: self.connectors.1.clone(),
            notices: handle.notices(),
            handle: handle.clone(),
            integrity: integrity.clone(),
            recovery: StreamRecovery::new(integrity.clone()),
            store,
            at_store: OffThread::default(),
            client: self.client.0.clone(),
            recheck: self.recheck.clone(),
            launched: Generation::default(),
            drift: self.drift.0.clone(),
            phases,
            start_phases: self.start_phases.0.clone(),
            told: vec![],
        }
    }

    pub fn reload(
        &self,
        handle: &Handle,
        reread: Reread,
        effective: Vec<Effective>,
        own: Option<EmbeddedServer>,
        requests: mpsc::Receiver<()>,
    ) -> Reload {
        Reload {
            reread,
            effective,
            in_force: self.in_force.0.clone(),
            own,
            handle: handle.clone(),
            connectors: self.connectors.0.clone(),
            desired: self.desired.0.clone(),
            requests,
            reloaded: self.reloads.0.clone(),
            disk: ReloadFiles::default(),
        }
    }

    pub fn health_monitor(&self) -> HealthMonitor {
        HealthMonitor {
            in_force: self.in_force.1.clone(),
            desired: self.desired.1.clone(),
            client: self.client.1.clone(),
            reports: self.reports.0.clone(),
            recheck: self.recheck.clone(),
        }
    }
}
