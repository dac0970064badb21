//! Many messages one after another: sent in their order without waiting for each other, answered in the
//! same order.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::{StatusCode, Subscriber};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::memory::Earlier;
use super::publish::Captured;
use super::publishing::{Publishing, TraceHeader};
use super::silence::QUIET;
use super::{Broker, Failure, Message, Session, Stored};
use crate::domain::Subject;
use crate::nats::{Denials, Violation, parse_answer};

/// Messages on their way at a time, and bytes.
const MOST: usize = 1000;
const MOST_BYTES: usize = 8 << 20;

/// How long messages may take.
#[derive(Clone, Copy, Debug)]
pub enum Within {
    /// Each, from when it was read.
    Each(Duration),
    /// All of them together.
    Until(Instant),
}

impl Within {
    /// Of a message that was read then.
    fn deadline(self, read: Instant) -> Instant {
        match self {
            Self::Each(patience) => read + patience,
            Self::Until(deadline) => deadline,
        }
    }
}

/// What became of one of them. `E` is what made it no message at all.
#[derive(Debug)]
pub enum Sent<E> {
    Stored(Stored, Message),
    Failed(Failure),
    NoMessage(E),
}

/// One message, from when it was read until it is answered.
enum Slot<E> {
    OnItsWay {
        message: Message,
        began: Instant,
        deadline: Instant,
        /// Its stream was looked at, because nothing was heard for long.
        is_examined: bool,
    },
    Done(Sent<E>),
    /// While its answer is taken in.
    Answered,
}

/// The connection that carries them, while it lasts.
struct Lane {
    session: Session,
    answers: Subscriber,
    denials: Denials,
    prefix: String,
    /// Subjects on which somebody else answers, and that a stream captures as well.
    shared: HashSet<Subject>,
}

struct Pipeline<E> {
    broker: Broker,
    /// [`None`] once there are no more.
    source: Option<BoxStream<'static, Result<Message, E>>>,
    within: Within,
    /// Their span, where traces are sent.
    publishing: Option<Publishing>,
    lane: Option<Lane>,
    /// There was no server for as long as a message may take: the next ones do not wait for it again.
    is_away: bool,
    slots: VecDeque<Slot<E>>,
    /// The number of the first slot.
    first: u64,
    bytes: usize,
}

impl Lane {
    async fn open(broker: &Broker, deadline: Instant) -> Result<Self, Failure> {
        let session = broker.data(deadline).await?;
        let denials = session.listen()?;
        let prefix = format!("{}.", session.client().new_inbox());
        match session.client().subscribe(format!("{prefix}*")).await {
            Ok(answers) => Ok(Self { session, answers, denials, prefix, shared: HashSet::new() }),
            Err(_) => Err(broker.not_connected()),
        }
    }
}

enum Step<E> {
    Read(Option<Result<Message, E>>),
    Answer(Option<async_nats::Message>),
    Denied(Violation),
    Gone,
    /// Nothing has been heard of the first for a while.
    Silence,
    Late,
}

impl Broker {
    /// Stores the messages of `source` in their order, and gives what became of each in that order and in
    /// that time.
    ///
    /// A message with an id for which nothing was heard is sent again while its stream is sure to recognise
    /// it, by then behind later ones.
    pub fn publish_all<E: Send + 'static>(
        &self,
        source: BoxStream<'static, Result<Message, E>>,
        within: Within,
    ) -> impl Stream<Item = Sent<E>> + Send + use<E> {
        let pipeline = Pipeline {
            broker: self.clone(),
            source: Some(source),
            within,
            publishing: Publishing::many(),
            lane: None,
            is_away: false,
            slots: VecDeque::new(),
            first: 0,
            bytes: 0,
        };
        // In a box, because it is moved with each outcome.
        stream::unfold(
            Box::new(pipeline),
            |mut pipeline| async move { pipeline.next().await.map(|sent| (sent, pipeline)) },
        )
    }
}

impl<E> Pipeline<E> {
    async fn next(&mut self) -> Option<Sent<E>> {
        loop {
            if let Some(Slot::Done(_)) = self.slots.front() {
                self.first += 1;
                let Some(Slot::Done(sent)) = self.slots.pop_front() else { return None };
                self.count(&sent);
                return Some(sent);
            }
            if self.slots.is_empty() && self.source.is_none() {
                if let Some(publishing) = self.publishing.take() {
                    publishing.end_all();
                }
                return None;
            }
            match self.step().await {
                Step::Read(None) => self.source = None,
                Step::Read(Some(Ok(message))) => self.send(message).await,
                Step::Read(Some(Err(error))) => self.slots.push_back(Slot::Done(Sent::NoMessage(error))),
                Step::Answer(Some(answer)) => self.take(&answer).await,
                Step::Denied(violation) => self.deny(&violation),
                Step::Answer(None) | Step::Gone => self.give_up_lane().await,
                Step::Silence => self.examine().await,
                Step::Late => self.give_up_first(),
            }
        }
    }

    fn count(&mut self, sent: &Sent<E>) {
        if let Some(publishing) = &mut self.publishing {
            publishing.count(match sent {
                Sent::Stored(..) => None,
                Sent::Failed(failure) => Some((failure.word(), failure.to_string())),
                Sent::NoMessage(_) => Some(("invalid", "it was no message".into())),
            });
        }
    }

    /// What happens next: answers go before further messages, so that nothing waits longer than it must.
    async fn step(&mut self) -> Step<E> {
        let has_room = self.slots.len() < MOST && (self.bytes < MOST_BYTES || self.slots.is_empty());
        // What is there already needs nobody who waits.
        if let Some(lane) = &mut self.lane
            && let Some(answer) = lane.answers.next().now_or_never()
        {
            return Step::Answer(answer);
        }
        if let Some(source) = self.source.as_mut().filter(|_| has_room)
            && let Some(read) = source.next().now_or_never()
        {
            return Step::Read(read);
        }
        let waiting = self.slots.iter().find_map(|slot| match slot {
            Slot::OnItsWay { began, deadline, is_examined: false, .. } => Some((*deadline, Some(*began + QUIET))),
            Slot::OnItsWay { deadline, is_examined: true, .. } => Some((*deadline, None)),
            Slot::Done(_) | Slot::Answered => None,
        });
        let (source, lane) = (&mut self.source, &mut self.lane);
        let read = async {
            match source {
                Some(source) if has_room => source.next().await,
                _ => std::future::pending().await,
            }
        };
        let answered = async {
            match lane {
                Some(lane) => tokio::select! {
                    biased;
                    answer = lane.answers.next() => Step::Answer(answer),
                    violation = lane.denials.next(|_| true) => Step::Denied(violation),
                    () = lane.session.gone() => Step::Gone,
                },
                None => std::future::pending().await,
            }
        };
        let late = async {
            match waiting {
                Some((deadline, Some(quiet))) if quiet < deadline => {
                    sleep_until(quiet).await;
                    Step::Silence
                }
                Some((deadline, _)) => {
                    sleep_until(deadline).await;
                    Step::Late
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            step = answered => step,
            read = read => Step::Read(read),
            step = late => step,
        }
    }

    async fn send(&mut self, message: Message) {
        let began = Instant::now();
        let deadline = self.within.deadline(began);
        if began >= deadline {
            let reason = "the time for the request was over before this message was sent (API_REQUEST_TIMEOUT)";
            return self.slots.push_back(Slot::Done(Sent::Failed(Failure::NotReady(reason.into()))));
        }
        let sent = {
            let mut sending = std::pin::pin!(self.try_to_send(&message, deadline));
            match sending.as_mut().now_or_never() {
                Some(sent) => Ok(sent),
                None => timeout_at(deadline, sending).await,
            }
        };
        let slot = match sent {
            Ok(Ok(())) => {
                self.bytes += message.payload.len();
                Slot::OnItsWay { message, began, deadline, is_examined: false }
            }
            Ok(Err(failure)) => Slot::Done(Sent::Failed(failure)),
            // The connection takes nothing, and may have taken this one.
            Err(_) => Slot::Done(Sent::Failed(message.unconfirmed())),
        };
        self.slots.push_back(slot);
    }

    async fn try_to_send(&mut self, message: &Message, deadline: Instant) -> Result<(), Failure> {
        let number = self.first + self.slots.len() as u64;
        if self.lane.is_none() {
            let patience = if self.is_away { Instant::now() } else { deadline };
            let lane = Lane::open(&self.broker, patience).await;
            self.is_away = matches!(lane, Err(Failure::NotConnected { .. }));
            self.lane = Some(lane?);
        }
        let Some(lane) = &self.lane else { return Err(self.broker.not_connected()) };
        message.is_understood(&lane.session)?;
        self.broker.require_acknowledgement(&lane.session, &message.subject).await?;
        let client = lane.session.client();
        let (subject, reply) = (message.subject.as_str().to_owned(), format!("{}{number}", lane.prefix));
        let trace = trace_of(self.publishing.as_ref(), message);
        let sent = match message.all_headers(trace) {
            Some(headers) => {
                client.publish_with_reply_and_headers(subject, reply, headers, message.payload.clone()).await
            }
            None => client.publish_with_reply(subject, reply, message.payload.clone()).await,
        };
        sent.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => message.too_large(client),
            PublishErrorKind::InvalidSubject => Failure::Invalid(error.to_string()),
            // The connection is closed.
            PublishErrorKind::Send => self.broker.not_connected(),
        })
    }

    /// An answer to one of them.
    async fn take(&mut self, answer: &async_nats::Message) {
        let Some(lane) = &mut self.lane else { return };
        let number = answer.subject.strip_prefix(&lane.prefix).and_then(|number| number.parse::<u64>().ok());
        let Some(index) = number.and_then(|number| number.checked_sub(self.first)) else { return };
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Slot::OnItsWay { message, deadline, .. } = slot else { return };
        let not_taken = match parse_answer::<Stored>(&answer.payload) {
            _ if answer.status == Some(StatusCode::NO_RESPONDERS) => None,
            Ok(Ok(stored)) => Some(Ok(stored)),
            Ok(Err(refusal)) if !refusal.is_transient() => Some(Err(Failure::from(refusal))),
            // It was not stored.
            Ok(Err(_)) => None,
            // Somebody else answers on that subject; the stream may still, if there is one.
            Err(_) if lane.shared.contains(&message.subject) => return,
            Err(_) => match Box::pin(self.broker.captures(&lane.session, &message.subject, *deadline)).await {
                Captured::Nowhere => Some(Err(Failure::NotCaptured { subject: message.subject.to_string() })),
                Captured::Somewhere => {
                    if lane.shared.len() >= MOST {
                        lane.shared.clear();
                    }
                    lane.shared.insert(message.subject.clone());
                    return;
                }
                Captured::Unknown(_) => return,
            },
        };
        self.bytes -= message.payload.len();
        let Slot::OnItsWay { message, deadline, .. } = std::mem::replace(slot, Slot::Answered) else { return };
        let outcome = match not_taken {
            Some(outcome) => outcome,
            None => {
                let trace = trace_of(self.publishing.as_ref(), &message);
                self.broker.publish_again(&message, trace, None, deadline).await
            }
        };
        *slot = Slot::Done(match outcome {
            Ok(stored) => Sent::Stored(stored, message),
            Err(failure) => Sent::Failed(failure),
        });
    }

    /// nats-server does not let the user publish there, so that there is no answer to these.
    fn deny(&mut self, violation: &Violation) {
        let is_deaf = self.lane.as_ref().is_some_and(|lane| lane.session.listen().is_err());
        for slot in &mut self.slots {
            let Slot::OnItsWay { message, .. } = slot else { continue };
            let failure = match message.subject.as_str() == violation.subject {
                true => violation.clone().into(),
                // What was sent before that was known may have been stored.
                false if is_deaf => message.unconfirmed(),
                false => continue,
            };
            self.bytes -= message.payload.len();
            *slot = Slot::Done(Sent::Failed(failure));
        }
        if is_deaf {
            self.lane = None;
        }
    }

    /// The connection is gone: nothing more will be heard of what is on its way.
    async fn give_up_lane(&mut self) {
        let Some(Lane { session, .. }) = self.lane.take() else { return };
        for slot in &mut self.slots {
            let Slot::OnItsWay { message, began, deadline, .. } = slot else { continue };
            self.bytes -= message.payload.len();
            let earlier = Earlier { began: *began, session: session.clone() };
            let (message, deadline) = (message.clone(), *deadline);
            let outcome = match message.msg_id {
                Some(_) => {
                    let trace = trace_of(self.publishing.as_ref(), &message);
                    self.broker.publish_again(&message, trace, Some(earlier), deadline).await
                }
                None => Err(message.unconfirmed()),
            };
            *slot = Slot::Done(match outcome {
                Ok(stored) => Sent::Stored(stored, message),
                Err(failure) => Sent::Failed(failure),
            });
        }
    }

    /// Looks whether the stream of the first that is on its way acknowledges anything; where it does not, none
    /// of its messages is waited for.
    async fn examine(&mut self) {
        let first = self.slots.iter().find_map(|slot| match slot {
            Slot::OnItsWay { message, deadline, is_examined: false, .. } => Some((message.subject.clone(), *deadline)),
            _ => None,
        });
        let (Some((subject, deadline)), Some(lane)) = (first, &self.lane) else { return };
        let silent = self.broker.silent_stream(&lane.session, &subject, deadline).await;
        for slot in &mut self.slots {
            let Slot::OnItsWay { message, is_examined, .. } = slot else { continue };
            *is_examined |= message.subject == subject;
            if let Some(silent) = silent.as_ref().filter(|silent| silent.captures(&message.subject)) {
                self.bytes -= message.payload.len();
                let failure = silent.failure(&message.subject, true);
                *slot = Slot::Done(Sent::Failed(failure));
            }
        }
    }

    /// The first that is on its way had no answer in time.
    fn give_up_first(&mut self) {
        let waiting = self.slots.iter_mut().find(|slot| matches!(slot, Slot::OnItsWay { .. }));
        if let Some(slot) = waiting
            && let Slot::OnItsWay { message, .. } = slot
        {
            self.bytes -= message.payload.len();
            let failure = message.unconfirmed();
            *slot = Slot::Done(Sent::Failed(failure));
        }
    }
}

fn trace_of<'a>(publishing: Option<&'a Publishing>, message: &Message) -> TraceHeader<'a> {
    publishing.map(|publishing| publishing.header_of(message)).unwrap_or_default()
}
