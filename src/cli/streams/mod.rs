//! The streams of a running broker against those that should be.

mod acknowledge;
mod apply;
mod check;
mod plan;

pub use acknowledge::acknowledge_loss;
pub use apply::apply;
pub use check::check;
pub use plan::plan;

use std::time::Duration;

use super::exit::Code;
use super::own;
use crate::errors::in_one_line;
use crate::nats::{JetStream, Link};
use crate::settings::{ProcessEnvironment, Settings};
use crate::streams::Desired;

/// A server, and what it should have.
struct Session {
    settings: Settings,
    desired: Desired,
    jetstream: JetStream,
}

/// Runs `work` with the settings and a connection to the server that they name.
/// Those of `nats_url`, where one is given.
fn with_session<F: AsyncFnOnce(Session) -> Code>(
    flags: &[(&'static str, String)],
    nats_url: Option<&str>,
    timeout: Duration,
    work: F,
) -> Code {
    let settings = match Settings::load(&ProcessEnvironment, flags) {
        Ok(loaded) => loaded.settings,
        Err(problems) => {
            eprintln!("{problems}");
            return Code::Settings;
        }
    };
    if !settings.jetstream.enabled {
        eprintln!("JETSTREAM_ENABLED is false: there are no streams");
        return Code::Failed;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return Code::Internal;
        }
    };
    let link = match nats_url {
        Some(url) => Link::elsewhere(url, &settings),
        None => Link::new(&settings, own(&settings)),
    };
    let session = async {
        let connection = link.connect(timeout).await.map_err(|error| {
            eprintln!("{}", in_one_line(&error));
            Code::Unavailable
        })?;
        let desired = Desired::of(&settings);
        Ok(Session { settings, desired, jetstream: JetStream::new(connection.client, timeout) })
    };
    let code = runtime.block_on(async {
        match tokio::time::timeout(timeout, session).await {
            Ok(Ok(session)) => work(session).await,
            Ok(Err(code)) => code,
            Err(_) => {
                eprintln!("no connection within {} s", timeout.as_secs_f32());
                Code::Unavailable
            }
        }
    });
    runtime.shutdown_background();
    code
}
