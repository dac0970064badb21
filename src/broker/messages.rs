//! What streams hold: single messages, subjects with their counts, and the last message of each subject.

use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::asking::Over;
use super::{Broker, Failure};
use crate::domain::{ServerVersion, Subject};
use crate::nats::{ApiError, LastOfEach, MessageRequest, StoredMessage, StreamInfo, SubjectCounts};

/// Subjects whose last message is given at a time, as nats-server has it.
pub const MOST_LAST: usize = 1_024;
/// Payload of one answer, and one message more.
const MOST_BYTES: usize = 16 << 20;
/// Requests for single messages that are on their way at a time.
const AT_A_TIME: usize = 16;
/// Subjects that are named in one request.
const NAMED: usize = 256;
/// Requests that one page may take.
const MOST_REQUESTS: usize = 256;
/// Servers from that version on give the last message of each of many subjects.
const GIVES_LAST_OF_EACH: ServerVersion = (2, 11);

/// Lists of subjects at a time: nats-server sends a hundred thousand of them at once.
static LISTS: Semaphore = Semaphore::const_new(4);

/// Where a list of subjects goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub stream: String,
    /// The last subject that was given.
    pub after: Option<String>,
    /// How many come before it, unless some are gone.
    pub offset: usize,
}

/// A subject of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectCount {
    pub stream: String,
    pub subject: String,
    pub messages: u64,
    /// How many of the stream's subjects come up to this one.
    offset: usize,
}

impl SubjectCount {
    fn place(&self) -> Place {
        Place { stream: self.stream.clone(), after: Some(self.subject.clone()), offset: self.offset }
    }
}

impl Broker {
    /// The message of a stream that is asked for.
    pub async fn message(
        &self,
        stream: &str,
        request: MessageRequest,
        deadline: Instant,
    ) -> Result<StoredMessage, Failure> {
        let found = self.ask(Over::Data, deadline, |jetstream| {
            let (stream, request) = (stream.to_owned(), request.clone());
            async move { jetstream.get_message(&stream, &request).await }
        });
        found.await?.ok_or_else(|| {
            Failure::NoMessage(match &request {
                MessageRequest::Numbered { seq } => format!("stream {stream} has no message {seq}"),
                MessageRequest::Last { subject } => format!("stream {stream} has no message that matches {subject}"),
                MessageRequest::Next { seq, subject } => {
                    format!("stream {stream} has no message from {seq} on that matches {subject}")
                }
            })
        })
    }

    /// Subjects that hold messages and match, of one stream or of all, and where the list goes on.
    pub async fn subjects(
        &self,
        stream: Option<&str>,
        filter: &Subject,
        from: Option<Place>,
        limit: usize,
        deadline: Instant,
    ) -> Result<(Vec<SubjectCount>, Option<Place>), Failure> {
        let streams = match stream {
            Some(stream) => vec![stream.to_owned()],
            None => self.streams_for(filter, deadline).await?,
        };
        let from = from.unwrap_or_default();
        let mut streams = streams.into_iter().filter(|name| *name >= from.stream).peekable();
        let mut found: Vec<SubjectCount> = vec![];
        let mut requests = 0;
        while let Some(name) = streams.next() {
            if requests >= MOST_REQUESTS {
                return Ok((found, Some(Place { stream: name, ..Place::default() })));
            }
            let (after, mut offset) = match name == from.stream {
                true => (from.after.as_deref(), from.offset.saturating_sub(1)),
                false => (None, 0),
            };
            // What was given last is the first of these, unless subjects have come or gone.
            let mut is_sure = offset == 0;
            loop {
                requests += 1;
                let most = limit - found.len();
                let counts = match self.subject_counts(&name, filter, (offset, after), most, deadline).await {
                    // It was deleted meanwhile.
                    Err(Failure::Refused(error)) if stream.is_none() && error.is(ApiError::STREAM_NOT_FOUND) => break,
                    counts => counts?,
                };
                if !is_sure && counts.first.as_deref() != after {
                    (offset, is_sure) = (0, true);
                    continue;
                }
                is_sure = true;
                let before = offset + counts.skipped;
                let given = counts.subjects.len();
                let one = |(i, (subject, messages))| SubjectCount {
                    stream: name.clone(),
                    subject,
                    messages,
                    offset: before + i + 1,
                };
                found.extend(counts.subjects.into_iter().enumerate().map(one));
                offset += counts.seen;
                let is_more_behind = counts.seen > 0 && offset < counts.total;
                if found.len() == limit {
                    let next = match is_more_behind || counts.seen > counts.skipped + given {
                        true => found.last().map(SubjectCount::place),
                        false => streams.peek().map(|name| Place { stream: name.clone(), ..Place::default() }),
                    };
                    return Ok((found, next));
                }
                if !is_more_behind {
                    break;
                }
            }
        }
        Ok((found, None))
    }

    async fn subject_counts(
        &self,
        stream: &str,
        filter: &Subject,
        (offset, after): (usize, Option<&str>),
        most: usize,
        deadline: Instant,
    ) -> Result<SubjectCounts, Failure> {
        let late = || Failure::Late("too many lists of subjects are asked for at the same time".into());
        let Ok(Ok(_turn)) = timeout_at(deadline, LISTS.acquire()).await else { return Err(late()) };
        self.ask(Over::Data, deadline, |jetstream| {
            let (stream, filter, after) = (stream.to_owned(), filter.clone(), after.map(str::to_owned));
            async move { jetstream.subject_counts(&stream, filter.as_str(), offset, after.as_deref(), most).await }
        })
        .await
    }

    /// The last message of every subject that matches, of every stream, where they are few.
    pub async fn last(&self, filter: &Subject, deadline: Instant) -> Result<Vec<StoredMessage>, Failure> {
        let too_many = || {
            Failure::TooMuch(format!(
                "more than {MOST_LAST} subjects match {filter}, or their messages take more than {} MiB: ask for pages \
                 with limit",
                MOST_BYTES >> 20
            ))
        };
        let (mut found, mut left) = (vec![], MOST_BYTES);
        for name in self.streams_for(filter, deadline).await? {
            let info = match self.stream(&name, deadline).await {
                Err(Failure::NoStream(_)) => continue,
                info => info?,
            };
            let filters = vec![filter.as_str().to_owned()];
            match self.last_of_each(&info, filters, left, deadline).await? {
                LastOfEach::Messages(messages, 0) => found.extend(messages),
                LastOfEach::Messages(..) | LastOfEach::TooMany => return Err(too_many()),
                LastOfEach::NotOffered => {
                    let (subjects, more) = self.subjects(Some(&name), filter, None, MOST_LAST, deadline).await?;
                    if more.is_some() {
                        return Err(too_many());
                    }
                    let (messages, is_all) = self.last_one_by_one(&subjects, left, deadline).await?;
                    if !is_all {
                        return Err(too_many());
                    }
                    found.extend(messages.into_iter().flatten());
                }
            }
            let bytes: usize = found.iter().map(|message| message.payload.len()).sum();
            left = MOST_BYTES.saturating_sub(bytes);
            if found.len() > MOST_LAST || left == 0 {
                return Err(too_many());
            }
        }
        found.sort_by(|a, b| (&a.stream, &a.subject).cmp(&(&b.stream, &b.subject)));
        Ok(found)
    }

    /// The same a page at a time, and where the list goes on.
    pub async fn last_page(
        &self,
        filter: &Subject,
        from: Option<Place>,
        limit: usize,
        deadline: Instant,
    ) -> Result<(Vec<StoredMessage>, Option<Place>), Failure> {
        let (subjects, next) = self.subjects(None, filter, from, limit, deadline).await?;
        let (mut found, mut left) = (vec![], MOST_BYTES);
        let by_stream = subjects.chunk_by(|a, b| a.stream == b.stream);
        for of_stream in by_stream {
            let Some(first) = of_stream.first() else { continue };
            let info = match self.stream(&first.stream, deadline).await {
                Err(Failure::NoStream(_)) => continue,
                info => info?,
            };
            for named in of_stream.chunks(NAMED) {
                let names = named.iter().map(|one| one.subject.clone()).collect();
                match self.last_of_each(&info, names, left, deadline).await? {
                    LastOfEach::Messages(mut messages, 0) => {
                        messages.sort_by(|a, b| a.subject.cmp(&b.subject));
                        left = left.saturating_sub(messages.iter().map(|message| message.payload.len()).sum());
                        found.extend(messages);
                    }
                    // Those that come first in the order of sequences are no beginning of the page.
                    _ => {
                        let (messages, is_all) = self.last_one_by_one(named, left, deadline).await?;
                        let reached = messages.len().checked_sub(1).and_then(|last| named.get(last));
                        let messages: Vec<_> = messages.into_iter().flatten().collect();
                        left = left.saturating_sub(messages.iter().map(|message| message.payload.len()).sum());
                        found.extend(messages);
                        if !is_all {
                            return Ok((found, reached.map(SubjectCount::place)));
                        }
                    }
                }
                if left == 0
                    && let Some(last) = named.last()
                    && subjects.last() != Some(last)
                {
                    return Ok((found, Some(last.place())));
                }
            }
        }
        Ok((found, next))
    }

    async fn last_of_each(
        &self,
        info: &StreamInfo,
        filters: Vec<String>,
        most_bytes: usize,
        deadline: Instant,
    ) -> Result<LastOfEach, Failure> {
        if info.config.get("allow_direct") != Some(&true.into()) {
            return Ok(LastOfEach::NotOffered);
        }
        self.ask(Over::Data, deadline, |jetstream| {
            let (filters, stream) = (filters.clone(), info.name().to_owned());
            async move {
                match jetstream.server_version() >= GIVES_LAST_OF_EACH {
                    true => jetstream.last_of_each(&stream, &filters, most_bytes.max(1)).await,
                    false => Ok(LastOfEach::NotOffered),
                }
            }
        })
        .await
    }

    /// The last messages of those subjects, in order, until there is no room for more; and whether all
    /// were asked for. [`None`] where there is none any more.
    async fn last_one_by_one(
        &self,
        subjects: &[SubjectCount],
        most_bytes: usize,
        deadline: Instant,
    ) -> Result<(Vec<Option<StoredMessage>>, bool), Failure> {
        let requests: Vec<_> = subjects
            .iter()
            .map(|one| {
                let request = MessageRequest::Last { subject: one.subject.clone() };
                self.message(&one.stream, request, deadline)
            })
            .collect();
        let mut answers = stream::iter(requests).buffered(AT_A_TIME);
        let (mut found, mut bytes) = (Vec::with_capacity(subjects.len()), 0);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(message) => {
                    bytes += message.payload.len();
                    found.push(Some(message));
                }
                Err(Failure::NoMessage(_)) => found.push(None),
                Err(failure) => return Err(failure),
            }
            if bytes >= most_bytes {
                break;
            }
        }
        let is_all = found.len() == subjects.len();
        Ok((found, is_all))
    }
}
