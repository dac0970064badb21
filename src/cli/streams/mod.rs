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
use super::{Flags, block_on, loaded_or_printed, login};
use crate::errors::in_one_line;
use crate::identity::login_as_operator;
use crate::nats::{Connector, JetStream};
use crate::settings::{Purpose, Settings};
use crate::streams::Desired;

/// A server, and what it should have.
struct Session {
    settings: Settings,
    desired: Desired,
    jetstream: JetStream,
}

/// Runs `work` with the settings and a connection to the server that they name, or to that of
/// `nats_url`, where one is given.
fn with_session<F: AsyncFnOnce(Session) -> Code>(
    flags: &Flags,
    nats_url: Option<&str>,
    timeout: Duration,
    work: F,
) -> Code {
    let settings = match loaded_or_printed(Purpose::Talk, flags) {
        Ok(loaded) => loaded.settings,
        Err(code) => return code,
    };
    if !settings.jetstream.enabled {
        complain!("JETSTREAM_ENABLED is false: there are no streams");
        return Code::Failed;
    }
    let link = match nats_url {
        Some(url) => Connector::elsewhere(url, &settings, login_as_operator(&settings)),
        None => Connector::new(&settings, login(&settings)),
    };
    let session = async {
        let connection = link.connect(timeout).await.map_err(|error| {
            complain!("{}", in_one_line(&error));
            Code::Unavailable
        })?;
        let (desired, refused) = (Desired::of(&settings), connection.refused());
        Ok((Session { settings, desired, jetstream: JetStream::new(connection.client, timeout) }, refused))
    };
    block_on(async {
        match tokio::time::timeout(timeout, session).await {
            Ok(Ok((session, refused))) => {
                let code = work(session).await;
                // What is refused gets no answer, which says too little.
                if let Some(words) = refused.take_words().filter(|_| code != Code::Success) {
                    complain!("{words}");
                }
                code
            }
            Ok(Err(code)) => code,
            Err(_) => {
                complain!("no connection within {} s", timeout.as_secs_f32());
                Code::Unavailable
            }
        }
    })
}
