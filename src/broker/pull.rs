//! Messages of a consumer, and what becomes of them.

use std::time::Duration;

use async_nats::client::Request;
use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::ack_tokens::ConsumerId;
use super::{Broker, Failure, Session};
use crate::nats::{ConsumerInfo, headers_of};

/// Payload of one answer, and one message more.
const MOST_BYTES: usize = 16 << 20;
/// How long past its own expiry a request is waited for.
const GRACE: Duration = Duration::from_millis(500);
/// How long nats-server keeps a request for more than may be unacknowledged.
const BLOCKED: Duration = Duration::from_millis(100);
/// Messages of one answer follow each other; where none has for so long none will.
const QUIET: Duration = Duration::from_secs(1);
/// What JetStream waits for where a consumer says nothing.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// What is asked of a consumer.
#[derive(Clone, Debug, Default)]
pub struct Pull {
    pub batch: usize,
    /// For the first message, where there is none.
    pub wait: Duration,
    /// Of a consumer with priority groups.
    pub group: Option<String>,
    /// Of the client that such a group is pinned to.
    pub pin: Option<String>,
}

/// A message that a consumer has given.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub subject: String,
    pub headers: Vec<(String, String)>,
    pub payload: Bytes,
    pub place: DeliveryPlace,
    /// Where it is acknowledged, and how long that is waited for; [`None`] where the consumer wants none.
    pub ack: Option<(String, Duration)>,
}

/// What the subject of the acknowledgement tells of a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryPlace {
    /// How often it was delivered, this time included.
    pub delivered: u64,
    pub sequence: u64,
    pub consumer_sequence: u64,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Messages behind it.
    pub pending: u64,
}

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    Done,
    /// It is to be delivered again, after so long.
    Again(Option<Duration>),
    /// Never again.
    Never(Option<String>),
    /// It takes longer.
    InProgress,
}

impl Ack {
    fn payload(&self) -> String {
        match self {
            Self::Done => "+ACK".into(),
            Self::Again(None) => "-NAK".into(),
            Self::Again(Some(delay)) => format!("-NAK {{\"delay\":{}}}", delay.as_nanos()),
            Self::Never(None) => "+TERM".into(),
            Self::Never(Some(reason)) => format!("+TERM {reason}"),
            Self::InProgress => "+WPI".into(),
        }
    }
}

impl DeliveryPlace {
    /// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<time>.<pending>`, which
    /// newer servers write with a domain and an account before the stream, and a word at the end. Public for
    /// the fuzz target `rest`.
    pub fn of(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let numbers = match tokens.len() {
            7 => &tokens[2..7],
            9.. => &tokens[4..9],
            _ => return None,
        };
        let number = |at: usize| numbers.get(at)?.parse().ok();
        Some(Self {
            delivered: number(0)?,
            sequence: number(1)?,
            consumer_sequence: number(2)?,
            time: number(3)?,
            pending: number(4)?,
        })
    }
}

/// A consumer as tokens name it.
pub fn id_of(stream: &str, info: &ConsumerInfo) -> ConsumerId {
    let created = info.state.get("created").and_then(Value::as_str).unwrap_or_default();
    ConsumerId { stream: stream.to_owned(), consumer: info.name.clone(), created: created.to_owned() }
}

/// How long a delivery is waited for that was made that often.
pub fn ack_wait(info: &ConsumerInfo, delivered: u64) -> Duration {
    let span = |value: &Value| value.as_u64().filter(|span| *span > 0).map(Duration::from_nanos);
    let backoff = info.config.get("backoff").and_then(Value::as_array).filter(|spans| !spans.is_empty());
    let of_backoff = backoff.and_then(|spans| {
        let at = usize::try_from(delivered.saturating_sub(1)).unwrap_or(usize::MAX).min(spans.len() - 1);
        spans.get(at).and_then(span)
    });
    of_backoff.or_else(|| info.config.get("ack_wait").and_then(span)).unwrap_or(ACK_WAIT)
}

/// What a request for messages has come to.
enum End {
    /// All that was asked for, or all that there is.
    Whole,
    Failed(Failure),
}

impl Broker {
    /// Messages of a consumer: those that there are, or the first that comes while it waits.
    pub async fn pull(
        &self,
        stream: &str,
        info: &ConsumerInfo,
        pull: &Pull,
        deadline: Instant,
    ) -> Result<Vec<Delivery>, Failure> {
        let until = Instant::now() + pull.wait;
        loop {
            let session = self.data(deadline).await?;
            let wait = until.saturating_duration_since(Instant::now());
            match self.pull_once(&session, stream, (info, &Pull { wait, ..pull.clone() }), deadline).await {
                // Nothing was delivered, and the next connection may do better.
                Err(Failure::NotReady(_)) if session.is_gone() => {}
                Err(failure @ Failure::NotReady(_)) => {
                    if !self.waits_for_another_attempt(deadline).await {
                        return Err(failure);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    async fn pull_once(
        &self,
        session: &Session,
        stream: &str,
        (info, pull): (&ConsumerInfo, &Pull),
        deadline: Instant,
    ) -> Result<Vec<Delivery>, Failure> {
        let most = |field: &str| info.config.get(field).and_then(Value::as_u64).filter(|most| *most > 0);
        let batch = most("max_batch").map_or(pull.batch, |most| pull.batch.min(most as usize));
        let mut found = vec![];
        self.request(session, stream, (info, pull), batch, None, &mut found, deadline).await?;
        if !found.is_empty() || pull.wait.is_zero() {
            return Ok(found);
        }
        let wait = pull.wait.min(deadline.saturating_duration_since(Instant::now()).saturating_sub(2 * GRACE));
        let wait = most("max_expires").map_or(wait, |most| wait.min(Duration::from_nanos(most)));
        // The shortest that nats-server takes.
        let wait = wait.max(Duration::from_millis(1));
        self.request(session, stream, (info, pull), 1, Some(wait), &mut found, deadline).await?;
        if found.len() == 1 && batch > 1 {
            // What has come with the first. A failure would cost the first, so that it is kept for the next pull.
            let more = self.request(session, stream, (info, pull), batch - 1, None, &mut found, deadline).await;
            if let Err(failure) = more {
                tracing::debug!("stopped after the first message: {failure}");
            }
        }
        Ok(found)
    }

    #[allow(clippy::too_many_arguments, reason = "each of them is a part of the request")]
    async fn request(
        &self,
        session: &Session,
        stream: &str,
        (info, pull): (&ConsumerInfo, &Pull),
        batch: usize,
        wait: Option<Duration>,
        found: &mut Vec<Delivery>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        // nats-server keeps a request that the bound of unacknowledged messages blocks, and would fill it with
        // the same messages again once their time to be acknowledged is over.
        let (batch, wait) = match (wait, places(info).saturating_sub(found.len())) {
            // Only what is due again can be had.
            (None, 0) => (batch, Some(BLOCKED)),
            (None, places) => (batch.min(places), None),
            (Some(_), _) => (batch, wait),
        };
        let denials = session.listen()?;
        let client = session.client();
        let most_bytes = MOST_BYTES.max(client.max_payload() * 2);
        let own = info.config.get("max_bytes").and_then(Value::as_u64).filter(|most| *most > 0);
        let most_bytes = own.map_or(most_bytes, |own| most_bytes.min(own as usize));
        let mut request = serde_json::json!({ "batch": batch, "max_bytes": most_bytes });
        match wait {
            None => request["no_wait"] = true.into(),
            Some(wait) => request["expires"] = (wait.as_nanos() as u64).into(),
        }
        if let Some(group) = &pull.group {
            request["group"] = group.as_str().into();
        }
        if let Some(pin) = &pull.pin {
            request["id"] = pin.as_str().into();
        }
        let failed = |error: &dyn std::fmt::Display| Failure::NotReady(format!("cannot ask for messages: {error}"));
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", info.name);
        let sent = client.publish_with_reply(subject.clone(), inbox, request.to_string().into()).await;
        sent.map_err(|error| failed(&error))?;
        let until = wait.map_or(deadline, |wait| deadline.min(Instant::now() + wait + GRACE));
        let before = found.len();
        let end = tokio::select! {
            end = timeout_at(until, collect(&mut answers, info, batch, found)) => end.unwrap_or(End::Whole),
            violation = denials.of(&subject) => End::Failed(violation.into()),
            () = session.gone() => End::Failed(Failure::NotReady("the connection to nats-server has ended".into())),
        };
        match end {
            // What was delivered is given, whatever has ended it.
            _ if found.len() > before => Ok(()),
            End::Whole => Ok(()),
            End::Failed(Failure::NoConsumer { .. }) => {
                Err(Failure::NoConsumer { stream: stream.to_owned(), consumer: info.name.clone() })
            }
            End::Failed(failure) => Err(failure),
        }
    }

    /// Tells nats-server what becomes of a delivery, and waits until it has heard.
    pub async fn acknowledge(&self, reply: &str, ack: &Ack, deadline: Instant) -> Result<(), Failure> {
        loop {
            let session = self.data(deadline).await?;
            let denials = session.listen()?;
            let request = Request::new().payload(ack.payload().into()).timeout(None);
            let answer = tokio::select! {
                answer = timeout_at(deadline, session.client().send_request(reply.to_owned(), request)) => answer,
                violation = denials.of(reply) => return Err(violation.into()),
                // It is the same however often it is heard.
                () = session.gone() => continue,
            };
            return match answer {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) if error.kind() == async_nats::RequestErrorKind::NoResponders => {
                    if self.waits_for_another_attempt(deadline).await {
                        continue;
                    }
                    Err(Failure::NotReady("nobody takes acknowledgements of this consumer just now".into()))
                }
                Ok(Err(error)) => Err(Failure::Late(format!("the acknowledgement was not confirmed: {error}"))),
                Err(_) => Err(Failure::Late("the acknowledgement was not confirmed in time".into())),
            };
        }
    }
}

/// How many messages more the consumer may have unacknowledged.
fn places(info: &ConsumerInfo) -> usize {
    let number = |value: Option<&Value>| value.and_then(Value::as_u64);
    let is_bound = info.config.get("ack_policy").is_some_and(|policy| policy != "none");
    let most = number(info.config.get("max_ack_pending")).filter(|most| is_bound && *most > 0);
    let waiting = number(info.state.get("num_ack_pending")).unwrap_or_default();
    most.map_or(usize::MAX, |most| usize::try_from(most.saturating_sub(waiting)).unwrap_or(usize::MAX))
}

async fn collect(answers: &mut Subscriber, info: &ConsumerInfo, batch: usize, found: &mut Vec<Delivery>) -> End {
    let mut count = 0;
    while count < batch {
        let next = match count {
            0 => answers.next().await,
            // Others may have taken the places that were left for what was asked for.
            _ => match timeout(QUIET, answers.next()).await {
                Ok(next) => next,
                Err(_) => return End::Whole,
            },
        };
        let Some(message) = next else {
            return End::Failed(Failure::NotReady("the connection to nats-server has ended".into()));
        };
        let words = message.description.as_deref().unwrap_or_default();
        match message.status.as_ref().map_or(200, StatusCode::as_u16) {
            200 => {}
            // A heartbeat, and that there is nothing more.
            100 => continue,
            404 | 408 => return End::Whole,
            503 => return End::Failed(Failure::NotReady("nobody answers for this consumer just now".into())),
            409 if words.contains("Consumer Deleted") => {
                let (stream, consumer) = (String::new(), info.name.clone());
                return End::Failed(Failure::NoConsumer { stream, consumer });
            }
            409 if words.contains("Shutdown") || words.contains("Leadership") => {
                return End::Failed(Failure::NotReady(words.to_owned()));
            }
            // As much as one answer holds.
            409 if words.contains("Message Size Exceeds MaxBytes") && count > 0 => return End::Whole,
            400 => return End::Failed(Failure::Invalid(format!("nats-server refuses the request: {words}"))),
            status => return End::Failed(Failure::Conflict(format!("nats-server refuses: {words} ({status})"))),
        }
        let Some(delivery) = delivery(message, info) else { continue };
        found.push(delivery);
        count += 1;
    }
    End::Whole
}

fn delivery(message: Message, info: &ConsumerInfo) -> Option<Delivery> {
    let reply = message.reply?.to_string();
    let place = DeliveryPlace::of(&reply)?;
    let wants_ack = info.config.get("ack_policy").is_some_and(|policy| policy != "none");
    Some(Delivery {
        subject: message.subject.to_string(),
        headers: message.headers.as_ref().map(headers_of).unwrap_or_default(),
        payload: message.payload,
        ack: wants_ack.then(|| (reply, ack_wait(info, place.delivered))),
        place,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_delivery_stands_is_read_in_both_forms() {
        let place = DeliveryPlace {
            delivered: 1,
            sequence: 22,
            consumer_sequence: 3,
            time: 1_700_000_000_000_000_000,
            pending: 4,
        };
        for reply in [
            "$JS.ACK.S.C.1.22.3.1700000000000000000.4",
            "$JS.ACK.hub.ACCOUNT.S.C.1.22.3.1700000000000000000.4",
            "$JS.ACK._.ACCOUNT.S.C.1.22.3.1700000000000000000.4.random",
        ] {
            assert_eq!(DeliveryPlace::of(reply), Some(place), "{reply}");
        }
        for other in ["", "$JS.ACK.", "$JS.ACK.S.C.1.2.3.4", "$JS.ACK.S.C.1.2.3.x.4", "_INBOX.a.b.c.d.e.f.g.h.i"] {
            assert_eq!(DeliveryPlace::of(other), None, "{other}");
        }
    }

    #[test]
    fn each_delivery_is_waited_for_as_long_as_the_consumer_says() {
        let info = |config: Value| -> ConsumerInfo {
            serde_json::from_value(serde_json::json!({ "name": "c", "config": config })).unwrap()
        };
        let seconds = |config: Value, delivered| ack_wait(&info(config), delivered).as_secs();
        assert_eq!(seconds(serde_json::json!({}), 1), 30);
        assert_eq!(seconds(serde_json::json!({ "ack_wait": 5_000_000_000u64 }), 7), 5);
        let backoff =
            serde_json::json!({ "ack_wait": 1_000_000_000u64, "backoff": [1_000_000_000u64, 9_000_000_000u64] });
        assert_eq!([1, 2, 3].map(|delivered| seconds(backoff.clone(), delivered)), [1, 9, 9]);
    }

    #[test]
    fn acknowledgements_are_as_the_server_reads_them() {
        let second = Some(Duration::from_secs(1));
        for (ack, payload) in [
            (Ack::Done, "+ACK"),
            (Ack::Again(None), "-NAK"),
            (Ack::Again(second), "-NAK {\"delay\":1000000000}"),
            (Ack::Never(Some("bad".into())), "+TERM bad"),
            (Ack::InProgress, "+WPI"),
        ] {
            assert_eq!(ack.payload(), payload);
        }
    }
}
