use std::time::{Duration, Instant};

use super::exit::Code;
use crate::app::{self, Fault, Signals};
use crate::logging::{self, Log, Output};
use crate::settings::{ProcessEnvironment, Settings};

/// How long the last log lines may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(250);

pub fn run(flags: &[(&'static str, String)], started: Instant) -> Code {
    let loaded = match Settings::load(&ProcessEnvironment, flags) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{problems}");
            return Code::Settings;
        }
    };
    let log = logging::init(loaded.settings.logs.level, loaded.settings.logs.format, Output::Stdout);
    stop_on_panic();
    let outcome = broker(loaded.settings, loaded.warnings, log.clone(), started);
    let code = match &outcome {
        Ok(()) => {
            tracing::info!("stopped");
            Code::Success
        }
        Err(fault) => {
            tell(fault);
            Code::from(fault)
        }
    };
    log.flush(LAST_WORDS);
    code
}

/// The main thread runs everything: nats-server ends with the thread that spawned it.
fn broker(settings: Settings, warnings: Vec<String>, log: Log, started: Instant) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)?;
    let outcome = runtime.block_on(async {
        let signals = Signals::listen().map_err(anyhow::Error::from)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        app::prepare(settings, started)?.run(signals, log).await
    });
    // Nothing that still runs matters any more.
    runtime.shutdown_background();
    outcome
}

/// In full on standard error, for people; its first line in the log, for machines.
fn tell(fault: &Fault) {
    let text = match fault {
        Fault::Internal(error) => format!("internal error: {error:#}"),
        other => other.to_string(),
    };
    tracing::error!("{}", text.lines().next().unwrap_or_default());
    eprintln!("{text}");
}

/// A panic in a task is caught by the runtime and ends the broker in order; one on another thread
/// ends the program, and nats-server with it.
fn stop_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("internal error: {panic}");
        if std::thread::current().name() != Some("main") {
            std::process::exit(Code::Internal as i32);
        }
    }));
}
