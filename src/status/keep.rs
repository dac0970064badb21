use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{broadcast, watch};

use super::{BrokerStatus, Inputs, Reloads};
use crate::health::HealthReport;
use crate::integrity::Integrity;
use crate::streams::Drift;
use crate::supervisor::{Handle, Snapshot, Transition};

/// Who says what the status is made of.
pub struct Sources {
    supervisor: watch::Receiver<Snapshot>,
    transitions: broadcast::Receiver<Transition>,
    pub health: watch::Receiver<Option<HealthReport>>,
    /// [`None`] where messages are not looked after.
    pub integrity: Option<watch::Receiver<Integrity>>,
    /// [`None`] where there are no streams to look after.
    pub drift: Option<watch::Receiver<Drift>>,
    pub reloads: watch::Receiver<Reloads>,
}

impl Sources {
    pub fn new(
        handle: &Handle,
        health: watch::Receiver<Option<HealthReport>>,
        integrity: Option<watch::Receiver<Integrity>>,
        drift: Option<watch::Receiver<Drift>>,
        reloads: watch::Receiver<Reloads>,
    ) -> Self {
        Self { supervisor: handle.watch(), transitions: handle.transitions(), health, integrity, drift, reloads }
    }

    /// What they say now, and have said since.
    fn read(&mut self) -> Inputs {
        let mut transitions = vec![];
        loop {
            match self.transitions.try_recv() {
                Ok(transition) => transitions.push(transition),
                // What was missed is in the log.
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
        Inputs {
            supervisor: self.supervisor.borrow_and_update().clone(),
            transitions,
            health: self.health.borrow_and_update().clone(),
            integrity: self.integrity.as_mut().map(|integrity| integrity.borrow_and_update().clone()),
            drift: self.drift.as_mut().map(|drift| drift.borrow_and_update().clone()),
            reloads: self.reloads.borrow_and_update().clone(),
        }
    }

    /// Waits until somebody says something else; false once the supervisor has ended.
    async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.supervisor.changed() => changed.is_ok(),
            Ok(()) = self.health.changed() => true,
            Ok(()) = changed(&mut self.integrity) => true,
            Ok(()) = changed(&mut self.drift) => true,
            Ok(()) = self.reloads.changed() => true,
        }
    }

    /// The status at the start, and where it is published from now on.
    pub fn publish(&mut self) -> watch::Sender<Arc<BrokerStatus>> {
        watch::Sender::new(Arc::new(BrokerStatus::after(None, &self.read(), SystemTime::now())))
    }
}

async fn changed<T>(watch: &mut Option<watch::Receiver<T>>) -> Result<(), watch::error::RecvError> {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// Keeps the status up to date, for ever; nobody publishes it any more once the supervisor has ended.
pub async fn keep(mut sources: Sources, published: watch::Sender<Arc<BrokerStatus>>) {
    while sources.changed().await {
        let inputs = sources.read();
        published.send_modify(|status| {
            *status = Arc::new(BrokerStatus::after(Some(status), &inputs, SystemTime::now()));
        });
    }
    drop(published);
    std::future::pending().await
}
