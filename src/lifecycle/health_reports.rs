use tokio::sync::watch::Receiver;

use crate::health::HealthReport;
use crate::supervisor::{ConditionKind, Handle};

/// Reports to the supervisor what the health checks find.
pub async fn forward(mut reports: Receiver<Option<HealthReport>>, handle: Handle) {
    while reports.changed().await.is_ok() {
        let Some(HealthReport { generation, report, .. }) = reports.borrow_and_update().clone() else { continue };
        match report.failure() {
            None => handle.report_ok(generation, ConditionKind::HealthCheck).await,
            Some(failure) => handle.report_failed(generation, ConditionKind::HealthCheck, failure).await,
        }
    }
}
