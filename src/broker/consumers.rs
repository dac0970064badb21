//! Durable consumers that are asked for messages.

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::asking::Over;
use super::streams::{Page, described, difference, names_behind, refuse};
use super::{Broker, Difference, Failure};
use crate::nats::{ApiError, ConsumerInfo, Consumers, Put, StreamInfo};
use crate::settings::declared::DeclaredConsumer;
use crate::settings::declared::DeclaredStream;
use crate::streams::{Conflict, ConsumerAction, ConsumerPlan, Desired, DesiredStream, Existing, plan};

/// Looks at most; others may make the same consumer at the same time.
const ATTEMPTS: usize = 5;

impl Broker {
    /// Consumers of a stream in the order of their names, behind the one named `after`.
    pub async fn consumers(
        &self,
        stream: &str,
        after: Option<&str>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Page<ConsumerInfo>, Failure> {
        let names =
            self.ask(Over::Data, deadline, |jetstream| {
                let (after, stream) = (after.map(str::to_owned), stream.to_owned());
                async move {
                    names_behind(after.as_deref(), limit, |offset| jetstream.consumer_names(&stream, offset)).await
                }
            });
        let (names, total) = names.await.map_err(|failure| of_stream(failure, stream))?;
        self.described(names, total, limit, |name| self.find_consumer(stream, name, deadline)).await
    }

    async fn find_consumer(
        &self,
        stream: &str,
        name: String,
        deadline: Instant,
    ) -> Result<Option<ConsumerInfo>, Failure> {
        let found = self.ask(Over::Data, deadline, |jetstream| {
            let (stream, name) = (stream.to_owned(), name.clone());
            async move { jetstream.consumer_info(&stream, &name).await }
        });
        found.await.map_err(|failure| of_stream(failure, stream))
    }

    pub async fn consumer(&self, stream: &str, name: &str, deadline: Instant) -> Result<ConsumerInfo, Failure> {
        let found = self.find_consumer(stream, name.to_owned(), deadline).await?;
        found.ok_or_else(|| Failure::NoConsumer { stream: stream.to_owned(), consumer: name.to_owned() })
    }

    /// Makes a consumer of the stream; does nothing where it exists with this very configuration. Says
    /// whether it was made just now.
    pub async fn create_consumer(
        &self,
        stream: &StreamInfo,
        consumer: DeclaredConsumer,
        declared: &Desired,
        deadline: Instant,
    ) -> Result<(ConsumerInfo, bool), Failure> {
        let name = consumer.name.to_string();
        let desired = with_consumer(stream, consumer, declared);
        let mut made = false;
        for _ in 0..ATTEMPTS {
            let there = self.find_consumer(stream.name(), name.clone(), deadline).await?;
            let planned = self.planned_consumer(stream, there.clone(), &desired, deadline).await?;
            if let Some(there) = there {
                return same(there, &planned, made);
            }
            refuse(planned.conflicts.iter())?;
            let ConsumerAction::Create(config) = planned.action else {
                return Err(Failure::Conflict(format!("consumer {name} cannot be made as its stream is")));
            };
            let put = self.ask(Over::Data, deadline, |jetstream| {
                let (stream, name, config) = (stream.name().to_owned(), name.clone(), config.clone());
                async move { jetstream.put_consumer(&stream, &name, &config, Put::New).await }
            });
            let put = put.await;
            self.0.changes.note();
            match put {
                Ok(()) => made = true,
                Err(Failure::Refused(error)) if error.is(ApiError::CONSUMER_EXISTS) => {}
                Err(failure) => return Err(of_stream(failure, stream.name())),
            }
        }
        Err(Failure::NotReady(format!("consumer {name} is changed by others again and again")))
    }

    async fn planned_consumer(
        &self,
        stream: &StreamInfo,
        there: Option<ConsumerInfo>,
        desired: &Desired,
        deadline: Instant,
    ) -> Result<ConsumerPlan, Failure> {
        let consumers = Consumers { known: there.into_iter().collect(), unknown: vec![] };
        let read = self.ask(Over::Data, deadline, |jetstream| async move {
            // How many consumers there are in all only a list of all streams tells.
            let streams = match desired.max_consumers {
                Some(_) => jetstream.streams().await?.known,
                None => vec![stream.clone()],
            };
            Ok((streams, jetstream.server_version()))
        });
        let (streams, version) = read.await?;
        let consumers = [(stream.name().to_owned(), consumers)].into();
        let existing = Existing { streams, consumers, version, ..Existing::default() };
        let planned = plan(desired, &existing).streams.into_iter().flat_map(|plan| plan.consumers).next();
        planned.ok_or_else(|| {
            let name = stream.name();
            Failure::Invalid(format!("stream {name} has a name that no setting can: make its consumers elsewhere"))
        })
    }

    pub async fn delete_consumer(
        &self,
        stream: &str,
        name: &str,
        declared: &Desired,
        force: bool,
        deadline: Instant,
    ) -> Result<(), Failure> {
        self.consumer(stream, name, deadline).await?;
        let of_stream = declared.stream(stream).map(|stream| stream.consumers.as_slice());
        if !force && of_stream.unwrap_or_default().iter().any(|consumer| consumer.name == name) {
            return Err(Failure::Conflict(format!(
                "consumer {name} of stream {stream} is declared in the settings, which would bring it back from its \
                 beginning: take it out there, or say force=true"
            )));
        }
        let deleted = self.ask(Over::Data, deadline, |jetstream| {
            let (stream, name) = (stream.to_owned(), name.to_owned());
            async move { jetstream.delete_consumer(&stream, &name).await }
        });
        let deleted = deleted.await;
        self.0.changes.note();
        match deleted {
            // The first attempt has been heard, and its answer was not.
            Err(Failure::Refused(error)) if error.is(ApiError::NO_CONSUMER) => Ok(()),
            deleted => deleted,
        }
    }
}

/// A stream that is not there has no consumers.
fn of_stream(failure: Failure, stream: &str) -> Failure {
    match failure {
        Failure::Refused(error) if error.is(ApiError::STREAM_NOT_FOUND) => Failure::NoStream(stream.to_owned()),
        failure => failure,
    }
}

/// What is wanted is the stream as it is, and the consumer.
fn with_consumer(stream: &StreamInfo, consumer: DeclaredConsumer, declared: &Desired) -> Desired {
    let mut config: Map<String, Value> = stream.config.clone();
    config.shift_remove("name");
    let mut streams = vec![];
    // A name that ours cannot have is one of somebody else's stream, which has no declaration.
    if let Ok(name) = stream.name().parse() {
        let stream = DeclaredStream {
            name,
            config,
            lines: Default::default(),
            strict_subjects: true,
            consumers: vec![consumer],
            file: crate::settings::declared::bodies::BODY.into(),
            line: 0,
        };
        streams.push(DesiredStream::of_client(&stream));
    }
    Desired { streams, prune: false, files: vec![], ..declared.clone() }
}

fn same(there: ConsumerInfo, plan: &ConsumerPlan, made: bool) -> Result<(ConsumerInfo, bool), Failure> {
    let fixed = plan.conflicts.iter().filter_map(|conflict| match conflict {
        Conflict::Fixed { field, now, wanted, .. } => Some(described(field, now, wanted, conflict.to_string())),
        _ => None,
    });
    let changes = match &plan.action {
        ConsumerAction::Update { changes, .. } => changes.as_slice(),
        _ => &[],
    };
    let differences: Vec<Difference> = changes.iter().map(difference).chain(fixed).collect();
    if !differences.is_empty() {
        return Err(Failure::Differs { object: format!("consumer {}", plan.name), differences });
    }
    refuse(plan.conflicts.iter())?;
    Ok((there, made))
}
