//! The cheap probe of a server that others run. Nothing is restarted and nobody's disk looked at: it is
//! told whether the server serves, no more.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use tokio::sync::Notify;

use super::integrity_tasks::Connected;
use super::liveness_probe::PROBE_DEADLINE;
use crate::domain::Generation;
use crate::nats::{JetStream, ping};
use crate::supervisor::{ConditionKind, Handle};
use crate::ticks;

/// So many probes in a row fail before it is told: one answer may be lost on the way.
const THRESHOLD: u32 = 2;

/// Asks every `period` over the connection that is held; `recheck` hears when it answers again. Runs for ever.
pub async fn probe(handle: Handle, client: Connected, recheck: Arc<Notify>, period: Duration, jetstream: bool) {
    let mut ticks = ticks::every(period);
    let mut failures = 0;
    let mut told: Option<(Generation, Result<(), String>)> = None;
    loop {
        ticks.tick().await;
        // That there is no connection is told by who makes it.
        let Some((generation, client)) = client.borrow().clone() else { continue };
        let answer = serves(&client, jetstream).await;
        if answer.is_ok() && failures > 0 {
            // What was examined meanwhile found nothing but silence.
            recheck.notify_one();
        }
        failures = match &answer {
            Ok(()) => 0,
            // Nothing is on its way over a connection that is not there.
            Err(_) if client.connection_state() != State::Connected => THRESHOLD,
            Err(_) => failures + 1,
        };
        let news = Some((generation, answer.clone()));
        match answer {
            Ok(()) if told != news => {
                handle.report_ok(generation, ConditionKind::Answers).await;
                told = news;
            }
            Err(reason) if failures >= THRESHOLD && told != news => {
                let reason = format!("the NATS server does not serve: {reason}");
                handle.report_failed(generation, ConditionKind::Answers, reason).await;
                told = news;
            }
            _ => {}
        }
    }
}

/// A cluster without a leader answers that it cannot.
async fn serves(client: &Client, jetstream: bool) -> Result<(), String> {
    if client.connection_state() != State::Connected {
        return Err("the connection to it is lost".to_owned());
    }
    if !jetstream {
        return ping(client, PROBE_DEADLINE).await;
    }
    match JetStream::new(client.clone(), PROBE_DEADLINE).answers().await {
        Err(error) if error.is_transient() => Err(error.to_string()),
        _ => Ok(()),
    }
}
