use std::time::{Duration, Instant};

use crate::cli::args::AcknowledgeLoss;
use crate::cli::exit::Code;
use crate::cli::{Flags, loaded_or_printed};
use crate::integrity::{Loss, acknowledgement};
use crate::settings::Purpose;

/// Between two looks whether the broker has taken the acknowledgement up.
const POLL: Duration = Duration::from_millis(20);

/// Acknowledges what is missing, through the store of the broker that runs with the same settings.
pub fn acknowledge_loss(flags: &Flags, arguments: &AcknowledgeLoss) -> Code {
    let store = match loaded_or_printed(Purpose::Talk, flags) {
        Ok(loaded) => loaded.settings.jetstream.store_dir,
        Err(code) => return code,
    };
    let book = match acknowledgement::read_ledger(&store) {
        Ok(book) => book,
        Err(reason) => {
            complain!("cannot acknowledge: {reason}");
            return Code::Failed;
        }
    };
    let concerned = |loss: &Loss| arguments.stream.as_deref().is_none_or(|name| name == loss.stream);
    let (losses, others): (Vec<_>, Vec<_>) = book.losses.into_iter().partition(concerned);
    if let (Some(stream), true, Some(other)) = (&arguments.stream, losses.is_empty(), others.first()) {
        complain!("nothing is known to be missing of stream {stream}; something is of stream {}", other.stream);
        return Code::Failed;
    }
    if losses.is_empty() {
        print(&losses, arguments.output.json);
        return Code::Success;
    }
    if let Err(error) = acknowledgement::request(&store, &losses) {
        complain!("cannot acknowledge: {} cannot be written: {error}", store.display());
        return Code::Failed;
    }
    let deadline = Instant::now() + arguments.timeout;
    while acknowledgement::is_pending(&store) {
        if Instant::now() >= deadline {
            complain!(
                "cannot acknowledge yet: no broker that runs over {} took it up within {} s; the next one that starts \
                 will",
                store.display(),
                arguments.timeout.as_secs_f32()
            );
            return Code::Failed;
        }
        std::thread::sleep(POLL);
    }
    print(&losses, arguments.output.json);
    Code::Success
}

fn print(acknowledged: &[Loss], json: bool) {
    if json {
        let acknowledged: Vec<_> = acknowledged
            .iter()
            .map(|loss| {
                let missing = loss.missing.to_string();
                serde_json::json!({ "stream": loss.stream, "missing": missing, "found_at": loss.found_at })
            })
            .collect();
        let result = serde_json::json!({ "acknowledged": acknowledged });
        say!("{result:#}");
        return;
    }
    if acknowledged.is_empty() {
        say!("nothing is known to be missing");
    }
    for loss in acknowledged {
        say!("acknowledged  stream {}: {} (found {})", loss.stream, loss.missing, loss.found_at);
    }
}
