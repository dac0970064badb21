//! `GET /api/v1/broker/ws`: subscriptions, credits, messages and acknowledgements on one connection.

mod frames;
mod subscription;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Extension, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::frames::{Ack, Action, Credits, Frame, Subscribe, Unsubscribe};
use self::subscription::{Frames, Subscription};
use super::errors::{self, About};
use super::names;
use super::state::{Acting, Api};
use super::tail::{Beginning, filter, invalid, stream_name};
use crate::broker::{Broker, Settlement, TailRequest};
use crate::http::auth::Caller;
use crate::http::body::NoQuery;
use crate::http::envelope::{Code, ErrorEnvelope, Problem};
use crate::http::{Deadline, Place};

/// The longest frame of a client.
const LONGEST_FRAME: usize = 64 << 10;
/// Subscriptions of one connection.
const SUBSCRIPTIONS: usize = 64;
/// Acknowledgements under way on one connection.
const SETTLING: usize = 64;
/// Entries that wait to be sent, each of which may hold what a subscription takes at a time.
const QUEUE: usize = 4;
/// Between two pings, and time for a sign of life after one.
const PING: Duration = Duration::from_secs(15);
const PONG: Duration = Duration::from_secs(40);
/// Time for the last frame.
const FAREWELL: Duration = Duration::from_secs(1);

/// Subscriptions, credits, messages and acknowledgements on one connection.
///
/// Each frame is a JSON object with a `type`: clients send `subscribe`, `credits`, `unsubscribe` and `ack`;
/// they are sent `subscribed`, `message`, `gap`, `acked`, `end` and `error`.
#[utoipa::path(
    get, path = "/api/v1/broker/ws", tag = "messages",
    responses(
        (status = 101, description = "the connection is a WebSocket from now on", body = Frame),
        (status = "default", body = ErrorEnvelope, description = "see error_code"),
    )
)]
async fn ws(
    State(api): State<Api>,
    Extension(Acting(broker)): Extension<Acting>,
    Extension(Deadline(deadline)): Extension<Deadline>,
    Extension(caller): Extension<Caller>,
    place: Option<Extension<Place>>,
    NoQuery: NoQuery,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|rejection| invalid(format!("this is for WebSockets: {}", rejection.body_text())))?;
    let Some(Extension(place)) = place else {
        return Err(invalid("a connection that began with a probe cannot become a WebSocket: open another one"));
    };
    let connection = Connection {
        broker,
        may_settle: caller.require(&Method::POST).is_ok(),
        patience: deadline.saturating_duration_since(Instant::now()),
        subscriptions: HashMap::new(),
        settling: JoinSet::new(),
        turns: Arc::new(Semaphore::new(SETTLING)),
    };
    let upgrade = upgrade.max_message_size(LONGEST_FRAME).max_frame_size(LONGEST_FRAME);
    Ok(upgrade.write_buffer_size(0).on_upgrade(async move |socket| {
        connection.serve(socket, api.shutdown.clone()).await;
        drop(place);
    }))
}

struct Connection {
    broker: Broker,
    /// It may change what becomes of messages.
    may_settle: bool,
    /// Time for each request.
    patience: Duration,
    subscriptions: HashMap<String, Subscription>,
    settling: JoinSet<()>,
    turns: Arc<Semaphore>,
}

/// How a connection ends.
struct Farewell(u16, &'static str);

impl Connection {
    async fn serve(mut self, socket: WebSocket, shutdown: CancellationToken) {
        let (sink, stream) = socket.split();
        let (out, queue) = mpsc::channel(QUEUE);
        let (farewell, last) = tokio::sync::oneshot::channel();
        let writer = tokio::spawn(write(sink, queue, last));
        let end = tokio::select! {
            end = self.read(stream, out) => end,
            () = shutdown.cancelled() => Some(Farewell(close_code::AWAY, "the broker stops; resume once it is there again")),
        };
        self.subscriptions.clear();
        let abort = writer.abort_handle();
        match end {
            Some(end) => _ = farewell.send(end),
            // The writer answers what the client has said, and ends.
            None => drop(farewell),
        }
        if timeout(FAREWELL, writer).await.is_err() {
            abort.abort();
        }
    }

    /// Does what the client says until it has gone.
    async fn read(&mut self, mut stream: SplitStream<WebSocket>, out: mpsc::Sender<Frames>) -> Option<Farewell> {
        let mut heard = Instant::now();
        loop {
            let frame = tokio::select! {
                frame = stream.next() => frame?,
                () = out.closed() => return None,
                () = sleep_until(heard + PONG) => return Some(Farewell(close_code::POLICY, "no sign of life in time")),
                Some(_) = self.settling.join_next() => continue,
            };
            heard = Instant::now();
            let answer = match frame {
                Ok(Message::Text(text)) => self.take(text.as_bytes(), &out).await,
                Ok(Message::Binary(_)) => Err((None, invalid("frames are JSON, as text"))),
                Ok(Message::Ping(_) | Message::Pong(_)) => continue,
                Ok(Message::Close(_)) => return None,
                Err(error) => {
                    let words = error.to_string().to_ascii_lowercase();
                    return Some(
                        match words.contains("too long") || words.contains("too big") || words.contains("size") {
                            true => Farewell(close_code::SIZE, "a frame has 65536 bytes at most"),
                            false => Farewell(close_code::PROTOCOL, "this is no WebSocket"),
                        },
                    );
                }
            };
            let frame = match answer {
                Ok(None) => continue,
                Ok(Some(frame)) => frame,
                Err((id, problem)) => frames::error(id.as_deref(), &problem),
            };
            if out.send(vec![frame]).await.is_err() {
                return None;
            }
        }
    }

    async fn take(
        &mut self,
        text: &[u8],
        out: &mpsc::Sender<Frames>,
    ) -> Result<Option<axum::extract::ws::Utf8Bytes>, (Option<String>, Problem)> {
        let frame = Frame::read(text).map_err(|problem| (frames::id_of(text), problem))?;
        let not_subscribed = |id: &str| invalid(format!("there is no subscription {id:?} on this connection"));
        match frame {
            Frame::Subscribe(subscribe) => {
                let id = subscribe.id.clone();
                self.subscribe(subscribe, out).await.map(|()| None).map_err(|problem| (Some(id), problem))
            }
            Frame::Credits(Credits { id, n }) => match self.subscriptions.get(&id) {
                None => Err((Some(id.clone()), not_subscribed(&id))),
                Some(subscription) => match subscription.add_credits(n) {
                    Some(_) => Ok(None),
                    None => Err((Some(id), invalid("this subscription has no credits: it was made without"))),
                },
            },
            Frame::Unsubscribe(Unsubscribe { id }) => match self.subscriptions.remove(&id) {
                None => Err((Some(id.clone()), not_subscribed(&id))),
                Some(_) => {
                    let end =
                        json!({ "type": "end", "id": id, "reason": "unsubscribed", "message": "as the client said" });
                    Ok(Some(frames::frame(&end)))
                }
            },
            Frame::Ack(ack) => {
                let id = ack.id.clone();
                self.settle(ack, out).await.map(|()| None).map_err(|problem| (Some(id), problem))
            }
        }
    }

    async fn subscribe(&mut self, subscribe: Subscribe, out: &mpsc::Sender<Frames>) -> Result<(), Problem> {
        let Subscribe { id, subject, stream, consumer, from, snapshot, resume, credits } = subscribe;
        self.subscriptions.retain(|_, subscription| !subscription.is_over());
        if self.subscriptions.contains_key(&id) {
            return Err(invalid(format!("there is a subscription {id:?} on this connection already")));
        }
        if self.subscriptions.len() >= SUBSCRIPTIONS {
            let message = format!("a connection has {SUBSCRIPTIONS} subscriptions at most");
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, Code::RateLimited, message));
        }
        let deadline = Instant::now() + self.patience;
        let stream = stream_name(stream)?;
        let failed = |failure| errors::of(failure, About::Other);
        let (subscription, stream) = match (subject, consumer) {
            (Some(subject), None) => {
                // A sequence is a number or a text.
                let from = from.map(|from| from.as_str().map_or_else(|| from.to_string(), str::to_owned));
                let beginning =
                    Beginning { from: from.as_deref(), snapshot: snapshot.as_deref(), resume: resume.as_deref() };
                let request = TailRequest {
                    subject: filter(&subject)?,
                    stream,
                    from: beginning.read()?,
                    is_patient: credits.is_some(),
                };
                let tail = self.broker.tail(request, deadline).await.map_err(failed)?;
                let stream = tail.stream().to_owned();
                (
                    Box::new(|out| Subscription::tail(id.clone(), tail, credits, out))
                        as Box<dyn FnOnce(_) -> _ + Send>,
                    stream,
                )
            }
            (None, Some(consumer)) => {
                let Some(stream) = stream else { return Err(invalid("a consumer needs its stream")) };
                if from.is_some() || snapshot.is_some() || resume.is_some() {
                    return Err(invalid("a consumer knows itself where it goes on: no from, snapshot or resume"));
                }
                if !self.may_settle {
                    let message = "the token of API_READ_TOKEN is for reading only, and a consumer moves on";
                    return Err(Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, message));
                }
                let consumer = names::checked("consumer", consumer)?;
                let work = self.broker.work(&stream, &consumer, deadline).await.map_err(failed)?;
                let of = stream.clone();
                (Box::new(|out| Subscription::work(id.clone(), work, of, credits, out)) as Box<_>, stream)
            }
            _ => return Err(invalid("a subscription is to a subject, or to a consumer and its stream")),
        };
        // Before its first message.
        let subscribed = frames::frame(&json!({ "type": "subscribed", "id": id, "stream": stream }));
        if out.send(vec![subscribed]).await.is_ok() {
            let subscription = subscription(out.clone());
            self.subscriptions.insert(id, subscription);
        }
        Ok(())
    }

    async fn settle(&mut self, ack: Ack, out: &mpsc::Sender<Frames>) -> Result<(), Problem> {
        let Ack { id, message, action, delay } = ack;
        let unsettled = self.subscriptions.get(&id).and_then(|subscription| subscription.unsettled.clone());
        let unsettled = unsettled.ok_or_else(|| invalid(format!("{id:?} is no subscription to a consumer")))?;
        if unsettled.get(message).is_none() {
            return Err(invalid(format!("no message {message} of {id:?} waits for that")));
        }
        let delay = delay.map(Duration::try_from_secs_f64).transpose();
        let delay = delay.map_err(|_| invalid("delay must be a number of seconds"))?;
        let how = match (action, delay) {
            (Action::Nak, delay) => Settlement::Nak(delay),
            (_, Some(_)) => return Err(invalid("delay goes with nak")),
            (Action::Ack, None) => Settlement::Ack,
            (Action::Term, None) => Settlement::Term,
            (Action::Progress, None) => Settlement::Progress,
        };
        // It is never closed.
        let Ok(turn) = self.turns.clone().acquire_owned().await else { return Ok(()) };
        let deadline = Instant::now() + self.patience;
        let work = subscription::settle(self.broker.clone(), unsettled, (id, message, how), deadline, out.clone());
        self.settling.spawn(async move {
            work.await;
            drop(turn);
        });
        Ok(())
    }
}

/// Sends what comes, and a ping now and then.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut queue: mpsc::Receiver<Frames>,
    mut farewell: tokio::sync::oneshot::Receiver<Farewell>,
) {
    let mut pings = interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            biased;
            end = &mut farewell => {
                if let Ok(Farewell(code, reason)) = end {
                    let _ = sink.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
                }
                let _ = sink.close().await;
                return;
            }
            frames = queue.recv() => match frames {
                Some(frames) => send(&mut sink, frames).await,
                None => Ok(()),
            },
            _ = pings.tick() => sink.send(Message::Ping(bytes::Bytes::new())).await,
        };
        // The client has gone, or takes nothing.
        if sent.is_err() {
            return;
        }
    }
}

async fn send(sink: &mut SplitSink<WebSocket, Message>, frames: Frames) -> Result<(), axum::Error> {
    for frame in frames {
        sink.feed(Message::Text(frame)).await?;
    }
    sink.flush().await
}

pub fn routes() -> utoipa_axum::router::OpenApiRouter<Api> {
    utoipa_axum::router::OpenApiRouter::new().routes(utoipa_axum::routes!(ws))
}
