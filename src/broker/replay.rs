//! A range of a stream, from its beginning to its end, as lines of JSON.
//!
//! The last line says whether all of the range came. What ends without one was cut.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::consumer::{Most, Start};
use super::feed::{Batch, Feed, Gap, GapReason, Item};
use super::point::{Nanos, Point, Range};
use super::{Broker, Failure, Record};
use crate::domain::Subject;

/// Replays at a time.
pub(super) const REPLAYS: usize = 16;
/// What one of them has on its way.
const MOST: Most = Most { messages: 4_000, bytes: 1 << 20 };
/// Sent at a time.
const CHUNK: usize = 64 << 10;
/// Time for a client to take a chunk.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct ReplayRequest {
    pub subject: Subject,
    /// Where several streams capture the subject.
    pub stream: Option<String>,
    pub range: Range,
    pub speed: Speed,
}

/// How fast messages follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    Max,
    /// So many times as fast as they came.
    Times(f64),
}

impl std::str::FromStr for Speed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "must be max, or a number from 0.001 to 1000000 such as 1 or 10";
        if text == "max" {
            return Ok(Self::Max);
        }
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let times: f64 = text.parse().ok().filter(|_| is_number).ok_or(RULE)?;
        (0.001..=1e6).contains(&times).then_some(Self::Times(times)).ok_or(RULE)
    }
}

/// A replay that is about to begin.
pub struct Replay {
    stream: String,
    /// With what has come first; [`None`] where the range is known to hold nothing.
    feed: Option<(Feed, Batch)>,
    /// Before the beginning of the stream.
    missing: Option<Gap>,
    /// The last sequence that belongs to it.
    last: u64,
    until: Option<Nanos>,
    speed: Speed,
    /// Time without progress.
    patience: Duration,
    written: Written,
    _turn: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Written {
    messages: u64,
    first: Option<u64>,
    last: Option<u64>,
}

/// Why a replay ended before its end.
struct Incomplete {
    reason: &'static str,
    message: String,
}

/// The client has gone, or takes nothing.
struct Gone;

/// Whole lines, and [`None`] behind the last. What ends without it was cut.
pub type Lines = mpsc::Sender<Option<Bytes>>;

impl Broker {
    /// Begins a replay. It may go on for longer than until the deadline, but not for longer than that without
    /// progress.
    pub async fn replay(&self, request: ReplayRequest, deadline: Instant) -> Result<Replay, Failure> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let turn = timeout_at(deadline, self.0.replays.clone().acquire_owned()).await.ok().and_then(Result::ok);
        let turn = turn.ok_or_else(|| Failure::NotReady(format!("{REPLAYS} replays are under way already")))?;
        let info = self.stream_of(&request.subject, request.stream.as_deref(), deadline).await?;
        if info.config.get("retention").and_then(serde_json::Value::as_str) == Some("workqueue") {
            let name = info.name();
            return Err(Failure::Invalid(format!(
                "stream {name} is a work queue, whose messages belong to its consumers: pull them"
            )));
        }
        let (first, mut last) = (info.state.first_seq.max(1), info.state.last_seq);
        let Range { from, to } = request.range;
        let until = match to {
            Some(Point::Sequence(to)) => {
                last = last.min(to);
                None
            }
            Some(Point::Time(to)) => Some(to),
            None => None,
        };
        let (start, missing) = match from {
            None => (Start::At(first), None),
            Some(Point::Time(time)) => (Start::Since(time), None),
            Some(Point::Sequence(from)) if from < first => {
                let to = match to {
                    Some(Point::Sequence(to)) => to.min(first - 1),
                    _ => first - 1,
                };
                (Start::At(first), Some(Gap { from, to: Some(to), reason: GapReason::Removed }))
            }
            Some(Point::Sequence(from)) => (Start::At(from), None),
        };
        let is_empty = matches!(start, Start::At(from) if from > last) || last < first;
        let mut replay = Replay {
            stream: info.name().to_owned(),
            feed: None,
            missing,
            last,
            until,
            speed: request.speed,
            patience,
            written: Written::default(),
            _turn: turn,
        };
        if !is_empty {
            let names = (Arc::<str>::from(info.name()), Arc::<str>::from(request.subject.as_str()));
            let created = super::feed::created(&info);
            let mut feed = Feed::new(self.clone(), "replay", names, (start, created), MOST);
            // What it cannot do it says now.
            let first = timeout_at(deadline, feed.next()).await;
            let late = |_| Failure::Late(format!("{} cannot be read yet", request.subject));
            let first = first.map_err(late)??;
            replay.feed = Some((feed, first));
        }
        Ok(replay)
    }
}

impl Replay {
    /// Sends it, and a last line that says how it ended, unless the client goes.
    pub async fn run(mut self, lines: Lines, shutdown: CancellationToken) {
        let mut out = Vec::new();
        if let Some(gap) = self.missing {
            write_gap(&mut out, gap);
        }
        let outcome = tokio::select! {
            outcome = self.all(&mut out, &lines) => outcome,
            () = lines.closed() => return,
            () = shutdown.cancelled() => {
                // What was cut off is not sent twice, and not in halves: `out` holds whole lines.
                Ok(Err(Incomplete { reason: "shutting_down", message: "the broker stops".into() }))
            }
        };
        let Ok(outcome) = outcome else { return };
        let Written { messages, first, last } = self.written;
        let end = match outcome {
            Ok(()) => json!({ "complete": true, "messages": messages, "first": first, "last": last }),
            Err(Incomplete { reason, message }) => json!({
                "complete": false, "messages": messages, "first": first, "last": last,
                "reason": reason, "message": message,
            }),
        };
        write_line(&mut out, &json!({ "end": end }));
        for piece in [Some(out.into()), None] {
            if lines.send_timeout(piece, PATIENCE).await.is_err() {
                return;
            }
        }
    }

    async fn all(&mut self, out: &mut Vec<u8>, lines: &Lines) -> Result<Result<(), Incomplete>, Gone> {
        let Some((mut feed, first)) = self.feed.take() else { return Ok(Ok(())) };
        let mut first = Some(first);
        let mut pace: Option<(Instant, Nanos)> = None;
        let mut removed = None;
        loop {
            let batch = match first.take() {
                Some(first) => first,
                None => match timeout(self.patience, feed.next()).await {
                    Ok(Ok(batch)) => batch,
                    Ok(Err(failure)) => {
                        return Ok(Err(Incomplete { reason: "failed", message: failure.to_string() }));
                    }
                    Err(_) => {
                        let message = format!("nothing came for {} s", self.patience.as_secs_f32());
                        return Ok(Err(Incomplete { reason: "no_progress", message }));
                    }
                },
            };
            let mut is_over = batch.is_caught_up;
            for item in batch.items {
                match item {
                    Item::Message(record) => {
                        if record.sequence > self.last || self.until.is_some_and(|until| record.time > until) {
                            is_over = true;
                            break;
                        }
                        if let Speed::Times(times) = self.speed {
                            let (began, first) = *pace.get_or_insert((Instant::now(), record.time));
                            let due = began + scaled(record.time.0 - first.0, times);
                            if due > Instant::now() {
                                send(out, lines).await?;
                                sleep_until(due).await;
                            }
                        }
                        self.write(out, &record);
                        if out.len() >= CHUNK {
                            send(out, lines).await?;
                        }
                    }
                    Item::Gap(gap) if gap.from > self.last && gap.reason == GapReason::Removed => {
                        is_over = true;
                        break;
                    }
                    Item::Gap(gap) => {
                        write_gap(out, gap);
                        removed.get_or_insert(gap.reason);
                        if gap.reason != GapReason::Removed {
                            is_over = true;
                            break;
                        }
                    }
                }
            }
            if is_over {
                return Ok(match removed {
                    None => Ok(()),
                    Some(reason) => Err(Incomplete {
                        reason: reason.as_str(),
                        message: "messages of the range went while it was read; the lines with a gap say which".into(),
                    }),
                });
            }
            send(out, lines).await?;
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, record: &Record) {
        record.write(out, &self.stream);
        out.push(b'\n');
        self.written.messages += 1;
        self.written.first.get_or_insert(record.sequence);
        self.written.last = Some(record.sequence);
    }
}

fn write_gap(out: &mut Vec<u8>, gap: Gap) {
    let gap = json!({ "from": gap.from, "to": gap.to, "reason": gap.reason.as_str() });
    write_line(out, &json!({ "gap": gap }));
}

fn write_line(out: &mut Vec<u8>, line: &serde_json::Value) {
    out.extend_from_slice(line.to_string().as_bytes());
    out.push(b'\n');
}

async fn send(out: &mut Vec<u8>, lines: &Lines) -> Result<(), Gone> {
    if out.is_empty() {
        return Ok(());
    }
    // Taken only once there is room for it: who is interrupted before that still has it.
    let room = timeout(PATIENCE, lines.reserve()).await;
    let Ok(Ok(room)) = room else { return Err(Gone) };
    room.send(Some(std::mem::replace(out, Vec::with_capacity(CHUNK + CHUNK / 4)).into()));
    Ok(())
}

fn scaled(nanos: i64, times: f64) -> Duration {
    Duration::try_from_secs_f64(nanos.max(0) as f64 / 1e9 / times).unwrap_or(Duration::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_max_or_a_factor() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("10".parse(), Ok(Speed::Times(10.0)));
        assert_eq!("0.5".parse(), Ok(Speed::Times(0.5)));
        for bad in ["", "0", "-1", "inf", "NaN", "1e3", "MAX", "2000000", "1x", "."] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }
}
