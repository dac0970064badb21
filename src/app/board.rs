//! What metrics find out, as the dashboard takes it: wings do not know each other.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::alerts::Alert;
use crate::dashboard::{Moment, Observed, OpenAlert, Past, Row};
use crate::metrics::{self, Metrics, Observation};

/// Rows of the history in an hour, and between two of a day.
const HOUR: usize = 360;
const DAY_STEP: usize = 60;

pub fn observe(metrics: Metrics) -> Arc<dyn Fn() -> BoxFuture<'static, Observed> + Send + Sync> {
    Arc::new(move || {
        let metrics = metrics.clone();
        async move {
            let Observation { is_up, disk_free, families, varz, jsz, lags } = metrics.observe().await;
            Observed { is_up, disk_free, families, varz, jsz, lags }
        }
        .boxed()
    })
}

pub fn past(metrics: Metrics) -> Arc<dyn Fn(Option<f64>) -> Past + Send + Sync> {
    Arc::new(move |most| {
        metrics.read_history(|history| {
            let rows = history.rows();
            let hour = rows.len().saturating_sub(HOUR);
            Past {
                hour: history.rows().skip(hour).map(row).collect(),
                day: history.rows().step_by(DAY_STEP).map(row).collect(),
                full_in: most.and_then(|most| history.store_full_in(most)),
            }
        })
    })
}

pub fn alerts(open: watch::Receiver<Arc<[Alert]>>) -> Arc<dyn Fn() -> Vec<OpenAlert> + Send + Sync> {
    let alert = |alert: &Alert| OpenAlert {
        kind: alert.kind.to_string(),
        object: alert.object.clone(),
        severity: alert.severity.name(),
        since: Moment::of_text(&alert.since),
        summary: alert.summary.clone(),
        action: alert.action.clone(),
    };
    Arc::new(move || open.borrow().iter().map(alert).collect())
}

fn row(row: &metrics::Row) -> Row {
    Row {
        at: row.at,
        in_msgs: row.in_msgs,
        out_msgs: row.out_msgs,
        store_bytes: row.store_bytes,
        families: row.families,
    }
}
