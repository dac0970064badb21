//! What metrics find out, as the dashboard takes it: wings do not know each other.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::alerts::Alert;
use crate::dashboard::{Moment, Observed, OpenAlert, Past, Row};
use crate::metrics::{self, Metrics, Observation};

/// Rows of the history in an hour.
const HOUR: usize = 360;
/// Seconds between two points of a day.
const DAY_STEP: f64 = 600.0;

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
                day: first_of_each_step(history.rows()).map(row).collect(),
                full_in: most.and_then(|most| history.store_full_in(most)),
            }
        })
    })
}

/// The first row of each step of the clock, so that points stay where they are while the oldest rows go.
fn first_of_each_step<'a>(rows: impl Iterator<Item = &'a metrics::Row>) -> impl Iterator<Item = &'a metrics::Row> {
    let mut last = None;
    rows.filter(move |row| {
        let step = (row.at / DAY_STEP).floor();
        last.replace(step) != Some(step)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_the_day_stay_where_they_are_while_the_oldest_rows_go() {
        let rows: Vec<_> =
            (0..8700).map(|at| metrics::Row { at: f64::from(at) * 10.0, ..Default::default() }).collect();
        let points = |rows: &[metrics::Row]| first_of_each_step(rows.iter()).map(|row| row.at).collect::<Vec<_>>();
        let (before, after) = (points(&rows[..8640]), points(&rows[7..8647]));
        assert_eq!(before.len(), 144);
        assert_eq!(before[1..], after[1..144], "only the ends move");
    }
}
