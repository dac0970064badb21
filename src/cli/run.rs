use std::time::{Duration, Instant};

use super::exit::Code;
use super::{Flags, block_on};
use crate::app;
use crate::http;
use crate::lifecycle::Signals;
use crate::logging::{self, Log, Output};
use crate::nats_conf;
use crate::preflight::{self, StartError};
use crate::settings::{Loaded, ProcessEnvironment, Settings};

/// How long the last log lines may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(250);

pub fn run(flags: &Flags, started: Instant) -> Code {
    // The main thread runs everything: nats-server ends with the thread that spawned it.
    block_on(broker(flags, started))
}

async fn broker(flags: &Flags, started: Instant) -> Code {
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            complain!("cannot listen for signals: {error}");
            return Code::Internal;
        }
    };
    let flags = flags.to_owned();
    let read = move || Settings::load(&ProcessEnvironment, &flags);
    let Loaded { settings, warnings, effective, .. } = match read() {
        Ok(loaded) => loaded,
        Err(problems) => {
            // Before the settings are known there is no log to write to.
            complain!("{problems}");
            return Code::Settings;
        }
    };
    let log = logging::init(settings.logs.level, settings.logs.format, Output::Stdout);
    stop_on_panic(log.clone());
    for warning in warnings.into_iter().chain(nats_conf::warnings(&settings)) {
        tracing::warn!("{warning}");
    }
    let outcome = async {
        let prepared = preflight::prepare(settings, effective, std::sync::Arc::new(read), started)?;
        app::run(prepared, signals, log.clone()).await
    };
    let code = match outcome.await {
        Ok(()) => {
            tracing::info!("stopped");
            Code::Success
        }
        Err(fault) => {
            log_error(&fault);
            Code::from(&fault)
        }
    };
    log.flush(LAST_WORDS);
    code
}

/// One log line for each line of the message: lists of problems, last words of nats-server.
fn log_error(fault: &StartError) {
    let text = match fault {
        StartError::Internal(error) => format!("internal error: {error:#}"),
        other => other.to_string(),
    };
    for line in text.lines() {
        tracing::error!("{line}");
    }
}

/// A panic in a task is caught by the runtime and ends the broker in order; one on the data side costs
/// a request. One on any other thread ends the program, and nats-server with it.
fn stop_on_panic(log: Log) {
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("internal error: {panic}");
        if std::thread::current().name() != Some("main") && !http::is_here() {
            log.flush(LAST_WORDS);
            std::process::exit(Code::Internal as i32);
        }
    }));
}
