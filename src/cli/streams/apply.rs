use std::time::{Duration, Instant};

use serde_json::json;

use super::with_session;
use crate::cli::Flags;
use crate::cli::args::ApplyStreams;
use crate::cli::exit::Code;
use crate::errors::in_one_line;
use crate::streams::{Applied, Desired, Remark, apply as make_so, unheard};

/// Between two attempts to reach a server.
const PAUSE: Duration = Duration::from_millis(100);

/// Changes the streams; with `--wait` it waits for the server first.
pub fn apply(flags: &Flags, arguments: &ApplyStreams) -> Code {
    let deadline = Instant::now() + arguments.timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let code = with_session(flags, None, left.max(PAUSE), async |session| {
            match make_so(&session.jetstream, &session.desired, &unheard).await {
                Ok(applied) => report(&applied, &session.desired, arguments.output.json),
                Err(error) if error.is_transient() => {
                    complain!("{}", in_one_line(&error));
                    Code::Unavailable
                }
                Err(error) => {
                    complain!("{}", in_one_line(&error));
                    Code::Failed
                }
            }
        });
        if code != Code::Unavailable || !arguments.wait || Instant::now() + PAUSE >= deadline {
            return code;
        }
        // A poll with a deadline: nobody tells us when a server comes.
        std::thread::sleep(PAUSE);
    }
}

fn report(applied: &Applied, desired: &Desired, json: bool) -> Code {
    let unfit: Vec<_> =
        desired.streams.iter().filter(|stream| !applied.serves(stream)).map(|stream| stream.name.as_str()).collect();
    let failed: Vec<_> = applied.failed.iter().map(|error| in_one_line(error)).collect();
    let conflicts = applied.remarks.iter().filter(|(_, remark)| remark.is_conflict()).count();
    let success = failed.is_empty() && unfit.is_empty() && conflicts == 0;
    if json {
        let done: Vec<_> =
            applied.done.iter().map(|done| json!({ "stream": done.stream, "what": done.what })).collect();
        let remark = |(stream, remark): &(String, Remark)| json!({ "stream": stream, "remark": remark.to_string() });
        let remarks: Vec<_> = applied.remarks.iter().map(remark).collect();
        let result =
            json!({ "success": success, "done": done, "failed": failed, "remarks": remarks, "not_in_place": unfit });
        say!("{result:#}");
    } else {
        for done in &applied.done {
            say!("stream {} {}", done.stream, done.what);
        }
        for (stream, remark) in &applied.remarks {
            say!("stream {stream}: {remark}");
        }
        for failure in &failed {
            say!("{failure}");
        }
        let changes = applied.done.len();
        let plural = if changes == 1 { "change" } else { "changes" };
        say!(
            "{changes} {plural}, {} failed, {conflicts} in conflict; {} streams in place",
            failed.len(),
            desired.streams.len() - unfit.len()
        );
    }
    if success { Code::Success } else { Code::Failed }
}
