//! The cheap probe of a server that others run. Nothing is restarted and nobody's disk looked at: it is
//! told whether the server answers, no more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::missing::Connected;
use super::watch::{PROBE_DEADLINE, answers_in_band};
use crate::domain::Generation;
use crate::supervisor::{Concern, Handle};

/// So many probes in a row fail before it is told: one answer may be lost on the way.
const THRESHOLD: u32 = 2;

/// Asks every `period` over the connection that is held; `look` hears when it answers again. Runs for ever.
pub async fn attend(handle: Handle, client: Connected, look: Arc<Notify>, period: Duration, jetstream: bool) {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0;
    let mut told: Option<(Generation, bool)> = None;
    loop {
        ticks.tick().await;
        // That there is no connection is told by who makes it.
        let Some((generation, client)) = client.borrow().clone() else { continue };
        let answer = answers_in_band(&client, jetstream, PROBE_DEADLINE).await;
        failures = if answer.is_ok() { 0 } else { failures + 1 };
        match answer {
            Ok(()) if told != Some((generation, true)) => {
                handle.sound(generation, Concern::Answers).await;
                if told == Some((generation, false)) {
                    // What was examined meanwhile found nothing but silence.
                    look.notify_one();
                }
                told = Some((generation, true));
            }
            Err(reason) if failures >= THRESHOLD && told != Some((generation, false)) => {
                let reason = format!("the NATS server does not answer: {reason}");
                handle.impaired(generation, Concern::Answers, reason).await;
                told = Some((generation, false));
            }
            _ => {}
        }
    }
}
