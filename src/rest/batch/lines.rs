//! Lines in, lines out: a batch without an end that anybody has to know, in bounded memory.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Entries, Outcome, Patience, Results, lines_response};
use crate::broker::{Broker, Within};
use crate::http::envelope::{Code, Problem};

/// After the time of the request the outcomes of what did not come in time are about to come.
const SHORTLY: Duration = Duration::from_millis(500);
/// The answer begins once so much of it stands, or the request has ended.
const BEGINNING: usize = 64 * 1024;

/// Answers with a line for each outcome and one about all of them at the end.
///
/// Where the request ends early enough the status tells whether all went well; else it is 207, and the last
/// line tells. A request that breaks off ends with a line that says so.
pub async fn answer(
    outcomes: impl Stream<Item = Outcome> + Send + 'static,
    deadline: Instant,
    listed: Results,
) -> Response {
    let mut outcomes = Box::pin(outcomes.fuse());
    let mut tally = Tally::default();
    let mut beginning = Vec::new();
    let ended = loop {
        match timeout_at(deadline + SHORTLY, outcomes.next()).await {
            Ok(None) => break true,
            Ok(Some(outcome)) => tally.add(&outcome, listed, &mut beginning),
            // Lines may come for longer than a request may wait for its answer.
            Err(_) => break false,
        }
        if beginning.len() >= BEGINNING {
            break false;
        }
    };
    if ended {
        tally.end(&mut beginning);
        let status = match (tally.published, tally.failed) {
            (_, 0) => StatusCode::OK,
            (0, _) => tally.failure.unwrap_or(StatusCode::MULTI_STATUS),
            _ => StatusCode::MULTI_STATUS,
        };
        return lines_response(status, Body::from(beginning));
    }
    let rest = stream::unfold(Some((outcomes, tally)), move |going| async move {
        let (mut outcomes, mut tally) = going?;
        let mut text = Vec::new();
        let going = match outcomes.next().await {
            Some(outcome) => {
                tally.add(&outcome, listed, &mut text);
                // What stands already goes with it.
                while text.len() < BEGINNING
                    && let Some(Some(outcome)) = futures_util::FutureExt::now_or_never(outcomes.next())
                {
                    tally.add(&outcome, listed, &mut text);
                }
                Some((outcomes, tally))
            }
            None => {
                tally.end(&mut text);
                None
            }
        };
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), going))
    });
    let beginning = stream::once(std::future::ready(Ok(Bytes::from(beginning))));
    lines_response(StatusCode::MULTI_STATUS, Body::from_stream(beginning.chain(rest)))
}

/// What has become of the lines so far.
#[derive(Default)]
struct Tally {
    published: usize,
    failed: usize,
    /// The first failure, or the first message that may have been stored.
    failure: Option<StatusCode>,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome, listed: Results, text: &mut Vec<u8>) {
        match &outcome.what {
            super::What::Success(_) => self.published += 1,
            super::What::Error { .. } => {
                self.failed += 1;
                if self.failure.is_none() || outcome.status() == StatusCode::GATEWAY_TIMEOUT {
                    self.failure = Some(outcome.status());
                }
            }
        }
        if (listed == Results::All || !outcome.is_success()) && serde_json::to_writer(&mut *text, outcome).is_ok() {
            text.push(b'\n');
        }
    }

    fn end(&self, text: &mut Vec<u8>) {
        let status = if self.failed == 0 { "success" } else { "error" };
        let end = json!({ "end": true, "status": status, "published": self.published, "failed": self.failed });
        text.extend_from_slice(end.to_string().as_bytes());
        text.push(b'\n');
    }
}

/// Stores each line.
pub fn outcomes(
    broker: Broker,
    entries: Entries,
    body: Body,
    longest: usize,
    patience: Patience,
) -> impl Stream<Item = Outcome> + Send {
    let read = move |(index, line): (usize, Result<String, Problem>)| {
        line.and_then(|line| entries.read(index, line.as_bytes()))
    };
    let messages = lines(body, longest, patience).enumerate().map(read).boxed();
    let sent = broker.publish_all(messages, Within::Each(patience));
    sent.enumerate().map(|(index, sent)| Outcome::of(index, sent))
}

/// The lines of a body that comes in these pieces, as far as each can be read.
pub fn lines_of(pieces: Vec<Vec<u8>>, longest: usize) -> Vec<Option<String>> {
    let pieces = pieces.into_iter().map(|piece| Ok::<_, std::convert::Infallible>(Bytes::from(piece)));
    let chunks = Some(Body::from_stream(stream::iter(pieces)).into_data_stream());
    let mut reading = Reading { chunks, buffer: BytesMut::new(), searched: 0, longest };
    // Everything has come, so that nothing is waited for.
    let next = || futures_util::FutureExt::now_or_never(reading.next()).flatten();
    std::iter::from_fn(next).map(Result::ok).collect()
}

/// The lines of a body that hold something. It ends after the first that cannot be read.
fn lines(body: Body, longest: usize, patience: Patience) -> impl Stream<Item = Result<String, Problem>> + Send {
    let reading = Reading { chunks: Some(body.into_data_stream()), buffer: BytesMut::new(), searched: 0, longest };
    stream::unfold(reading, move |mut reading| async move {
        let line = match timeout(patience, reading.next()).await {
            Ok(line) => line,
            Err(_) => {
                reading.stop();
                let message = "the next line did not come in time (API_REQUEST_TIMEOUT)";
                Some(Err(Problem::new(StatusCode::REQUEST_TIMEOUT, Code::Timeout, message)))
            }
        };
        line.map(|line| (line, reading))
    })
}

struct Reading {
    /// [`None`] once there are no more.
    chunks: Option<axum::body::BodyDataStream>,
    buffer: BytesMut,
    /// So many bytes of it hold no end of a line.
    searched: usize,
    longest: usize,
}

impl Reading {
    fn stop(&mut self) {
        self.chunks = None;
        self.buffer.clear();
        self.searched = 0;
    }

    async fn next(&mut self) -> Option<Result<String, Problem>> {
        loop {
            while let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let at = self.searched + at;
                let line = self.buffer.split_to(at + 1);
                self.searched = 0;
                if let Some(line) = self.text(&line[..at]) {
                    return Some(line);
                }
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.longest {
                self.stop();
                let message = format!("a line is longer than {} bytes (API_MAX_BODY)", self.longest);
                return Some(Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge, message)));
            }
            match self.chunks.as_mut()?.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(error)) => {
                    self.stop();
                    let message = format!("the request broke off: {error}");
                    return Some(Err(Problem::new(StatusCode::BAD_REQUEST, Code::InvalidMessageData, message)));
                }
                None => {
                    self.chunks = None;
                    let rest = self.buffer.split();
                    self.searched = 0;
                    return self.text(&rest);
                }
            }
        }
    }

    /// [`None`] for a line that holds nothing.
    fn text(&mut self, line: &[u8]) -> Option<Result<String, Problem>> {
        if line.len() > self.longest {
            self.stop();
            let message = format!("a line is longer than {} bytes (API_MAX_BODY)", self.longest);
            return Some(Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge, message)));
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            return None;
        }
        Some(
            String::from_utf8(line.to_vec())
                .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, Code::InvalidMessageData, "the line is no UTF-8")),
        )
    }
}
