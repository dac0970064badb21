//! The JetStream API as JSON. Configurations stay JSON objects, so that fields a newer server knows
//! and we do not are carried over untouched.

mod answers;
mod configuration;
mod messages;
mod pages;
mod stored;
mod way_out;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use async_nats::Client;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tokio::time::timeout;

pub use self::answers::{
    ApiError, ConsumerInfo, Consumers, LostMessages, SeenStream, SeenStreams, Stored, StreamInfo, StreamState, Streams,
    major_minor, parse_answer,
};
pub use self::configuration::{Configuration, Terms, WrittenConfig};
pub use self::messages::{LastOfEach, MessageRequest, StoredMessage, headers_of, parse_headers};
pub use self::pages::{Names, Purge, SubjectCounts};
use super::violations::PermissionViolations;
use crate::domain::ServerVersion;

/// Where nats-server tells of each request to its API, with the answer.
pub const API_ADVISORIES: &str = "$JS.EVENT.ADVISORY.API";
/// Advisories that are counted: the kind, and the subjects that they come on.
pub const COUNTED_ADVISORIES: [(&str, &str); 7] = [
    ("max_deliveries", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"),
    ("nak", "$JS.EVENT.ADVISORY.CONSUMER.MSG_NAKED.>"),
    ("terminated", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"),
    ("consumer_leader_elected", "$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED.>"),
    ("consumer_quorum_lost", "$JS.EVENT.ADVISORY.CONSUMER.QUORUM_LOST.>"),
    ("stream_leader_elected", "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.>"),
    ("stream_quorum_lost", "$JS.EVENT.ADVISORY.STREAM.QUORUM_LOST.>"),
];
/// Where it tells that the restore of a stream begins, and that it has ended.
pub const RESTORE_BEGINS: &str = "$JS.EVENT.ADVISORY.STREAM.RESTORE_CREATE.>";
pub const RESTORE_ENDS: &str = "$JS.EVENT.ADVISORY.STREAM.RESTORE_COMPLETE.>";

/// Requests to `$JS.API`, each with a deadline.
#[derive(Clone)]
pub struct JetStream {
    client: Client,
    deadline: Duration,
    /// Where it is heard that the server refuses a request.
    violations: Option<PermissionViolations>,
}

/// What becomes of a consumer that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It must not exist, or be the same.
    New,
    /// It must exist.
    Change,
}

impl JetStream {
    pub fn new(client: Client, deadline: Duration) -> Self {
        Self { client, deadline, violations: None }
    }

    /// Gives a request up as soon as the server says that the user of the connection may not make it.
    pub fn heeding(self, violations: PermissionViolations) -> Self {
        Self { violations: Some(violations), ..self }
    }

    /// Major and minor version of the server that is connected.
    pub fn server_version(&self) -> ServerVersion {
        major_minor(&self.client.server_info().version)
    }

    /// [`None`] when there is no such stream.
    pub async fn stream_info(&self, name: &str) -> Result<Option<StreamInfo>, ApiError> {
        self.info_of(name).await
    }

    /// The same for who looks again and again.
    pub async fn see_stream(&self, name: &str) -> Result<Option<SeenStream>, ApiError> {
        self.info_of(name).await
    }

    async fn info_of<C: Configuration>(&self, name: &str) -> Result<Option<StreamInfo<C>>, ApiError> {
        match self.ask(format!("$JS.API.STREAM.INFO.{name}"), &Value::Null).await {
            Err(error) if error.is(ApiError::STREAM_NOT_FOUND) => Ok(None),
            other => other.map(Some),
        }
    }

    /// A stream with the sequences that hold no message, which can be many.
    pub async fn stream_info_with_deleted(&self, name: &str) -> Result<StreamInfo, ApiError> {
        let request = serde_json::json!({ "deleted_details": true });
        self.ask(format!("$JS.API.STREAM.INFO.{name}"), &request).await
    }

    /// Every stream of the account.
    pub async fn streams(&self) -> Result<Streams, ApiError> {
        self.list_streams().await
    }

    /// The same for who looks again and again.
    pub async fn see_streams(&self) -> Result<SeenStreams, ApiError> {
        self.list_streams().await
    }

    async fn list_streams<C: Configuration>(&self) -> Result<Streams<C>, ApiError> {
        let (known, unknown) = self.list("$JS.API.STREAM.LIST", StreamInfo::name).await?;
        Ok(Streams { known, unknown })
    }

    /// How the copies of each stream are doing, as their leaders say.
    pub async fn stream_clusters(&self) -> Result<Vec<(String, Value)>, ApiError> {
        #[derive(Deserialize)]
        struct Page {
            total: usize,
            streams: Option<Vec<Listed>>,
        }
        #[derive(Deserialize)]
        struct Listed {
            config: Named,
            #[serde(default)]
            cluster: Value,
        }
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let mut clusters = vec![];
        loop {
            let request = serde_json::json!({ "offset": clusters.len() });
            let page: Page = self.ask("$JS.API.STREAM.LIST".into(), &request).await?;
            let listed = page.streams.unwrap_or_default();
            let is_last = listed.is_empty() || clusters.len() + listed.len() >= page.total;
            clusters.extend(listed.into_iter().map(|stream| (stream.config.name, stream.cluster)));
            if is_last {
                return Ok(clusters);
            }
        }
    }

    /// Creates a stream; does nothing when it exists with this very configuration.
    pub async fn create_stream(&self, name: &str, config: &Map<String, Value>) -> Result<StreamInfo, ApiError> {
        self.ask(format!("$JS.API.STREAM.CREATE.{name}"), config).await
    }

    /// Replaces the whole configuration of a stream.
    pub async fn update_stream(&self, name: &str, config: &Map<String, Value>) -> Result<StreamInfo, ApiError> {
        self.ask(format!("$JS.API.STREAM.UPDATE.{name}"), config).await
    }

    /// Every consumer of a stream.
    pub async fn consumers(&self, stream: &str) -> Result<Consumers, ApiError> {
        let subject = format!("$JS.API.CONSUMER.LIST.{stream}");
        let (known, unknown) = self.list(&subject, |info: &ConsumerInfo| &info.name).await?;
        Ok(Consumers { known, unknown })
    }

    /// A list that comes in pages, and the names of those that exist and are not known just now.
    async fn list<T: serde::de::DeserializeOwned>(
        &self,
        subject: &str,
        name: impl Fn(&T) -> &str,
    ) -> Result<(Vec<T>, Vec<String>), ApiError> {
        #[derive(Deserialize)]
        struct Page<T> {
            total: usize,
            #[serde(alias = "streams", alias = "consumers")]
            listed: Option<Vec<T>>,
            missing: Option<Vec<String>>,
            offline: Option<Map<String, Value>>,
        }
        let (mut known, mut unknown) = (vec![], BTreeSet::new());
        let mut offset = 0;
        loop {
            let request = serde_json::json!({ "offset": offset });
            let page: Page<T> = self.ask(subject.to_owned(), &request).await?;
            let listed = page.listed.unwrap_or_default();
            let offline = page.offline.into_iter().flatten().map(|(name, _)| name);
            let missing: Vec<_> = page.missing.into_iter().flatten().chain(offline).collect();
            // What is missing takes its place on the page whether it is listed as well or not, which
            // depends on whether its node took leave (measured).
            let names: HashSet<_> = listed.iter().map(&name).chain(missing.iter().map(String::as_str)).collect();
            let on_page = names.len();
            offset += on_page;
            known.extend(listed);
            unknown.extend(missing);
            if on_page == 0 || offset >= page.total {
                break;
            }
        }
        // They may come and go between two pages; what is missing is listed with a state of zeros.
        let mut seen = HashSet::new();
        known.retain(|info| !unknown.contains(name(info)) && seen.insert(name(info).to_owned()));
        Ok((known, unknown.into_iter().collect()))
    }

    /// Creates a consumer that does not exist, or replaces the whole configuration of one that does.
    pub async fn put_consumer(
        &self,
        stream: &str,
        name: &str,
        config: &Map<String, Value>,
        put: Put,
    ) -> Result<(), ApiError> {
        let action = match put {
            Put::New => "create",
            Put::Change => "update",
        };
        let request = serde_json::json!({ "stream_name": stream, "config": config, "action": action });
        let filter = config.get("filter_subject").and_then(Value::as_str).map(|filter| format!(".{filter}"));
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.{name}{}", filter.unwrap_or_default());
        let _: IgnoredAny = self.ask(subject, &request).await?;
        Ok(())
    }

    /// Deletes a stream with its messages.
    pub async fn delete_stream(&self, name: &str) -> Result<(), ApiError> {
        match self.ask::<IgnoredAny>(format!("$JS.API.STREAM.DELETE.{name}"), &Value::Null).await {
            Err(error) if error.is(ApiError::STREAM_NOT_FOUND) => Ok(()),
            other => other.map(drop),
        }
    }

    /// The streams that capture `subject`.
    pub async fn streams_with_subject(&self, subject: &str) -> Result<Vec<String>, ApiError> {
        #[derive(Deserialize)]
        struct Names {
            streams: Option<Vec<String>>,
        }
        let request = serde_json::json!({ "subject": subject });
        let names: Names = self.ask("$JS.API.STREAM.NAMES".into(), &request).await?;
        Ok(names.streams.unwrap_or_default())
    }

    /// Creates a consumer that goes by itself when it is not used.
    pub async fn create_consumer(&self, stream: &str, name: &str, config: Value) -> Result<(), ApiError> {
        let request = serde_json::json!({ "stream_name": stream, "config": config });
        let _: IgnoredAny = self.ask(format!("$JS.API.CONSUMER.CREATE.{stream}.{name}"), &request).await?;
        Ok(())
    }

    /// Whether the user may ask a consumer for messages there. Who may not hears no answer to that, and of its
    /// denial only when it happens to; a request that cannot be read is answered at once and takes nothing.
    pub async fn may_pull(&self, next: &str) -> Result<(), ApiError> {
        self.raw_answer(next, self.client.request(next.to_owned(), "{".into())).await.map(drop)
    }

    /// Creates a consumer with one filter that goes by itself; gives how many messages wait for it.
    pub async fn consume(&self, stream: &str, name: &str, filter: &str, config: Value) -> Result<u64, ApiError> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(default)]
            num_pending: u64,
        }
        let request = serde_json::json!({ "stream_name": stream, "config": config, "action": "create" });
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.{name}.{filter}");
        Ok(self.ask::<Created>(subject, &request).await?.num_pending)
    }

    /// How far a consumer has come: how many messages it was sent, and how many wait for it.
    pub async fn consumer_progress(&self, stream: &str, name: &str) -> Result<(u64, u64), ApiError> {
        #[derive(Deserialize)]
        struct Progress {
            delivered: Delivered,
            #[serde(default)]
            num_pending: u64,
        }
        #[derive(Deserialize)]
        struct Delivered {
            consumer_seq: u64,
        }
        let progress: Progress = self.ask(format!("$JS.API.CONSUMER.INFO.{stream}.{name}"), &Value::Null).await?;
        Ok((progress.delivered.consumer_seq, progress.num_pending))
    }

    pub async fn delete_consumer(&self, stream: &str, name: &str) -> Result<(), ApiError> {
        let _: IgnoredAny = self.ask(format!("$JS.API.CONSUMER.DELETE.{stream}.{name}"), &Value::Null).await?;
        Ok(())
    }

    /// The connection itself, for what is not a request.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether JetStream answers at all.
    pub async fn answers(&self) -> Result<(), ApiError> {
        self.ask::<IgnoredAny>("$JS.API.INFO".into(), &Value::Null).await.map(drop)
    }

    /// Memory, storage and limits of the account.
    pub async fn account_info(&self) -> Result<Value, ApiError> {
        self.ask("$JS.API.INFO".into(), &Value::Null).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        subject: String,
        request: &impl serde::Serialize,
    ) -> Result<T, ApiError> {
        let payload = self.ask_raw(&subject, request).await?;
        read_answer(subject, &payload)
    }

    /// The answer as it came, for [`read_answer`].
    async fn ask_raw(&self, subject: &str, request: &impl serde::Serialize) -> Result<bytes::Bytes, ApiError> {
        let payload = encoded(subject, request)?;
        self.raw_answer(subject, self.client.request(subject.to_owned(), payload.into())).await
    }

    async fn answer<T: serde::de::DeserializeOwned>(
        &self,
        subject: String,
        request: impl Future<Output = Result<async_nats::Message, async_nats::RequestError>>,
    ) -> Result<T, ApiError> {
        let payload = self.raw_answer(&subject, request).await?;
        read_answer(subject, &payload)
    }

    async fn raw_answer(
        &self,
        subject: &str,
        request: impl Future<Output = Result<async_nats::Message, async_nats::RequestError>>,
    ) -> Result<bytes::Bytes, ApiError> {
        let denied = async {
            match &self.violations {
                Some(violations) => violations.watch().of(subject).await,
                None => std::future::pending().await,
            }
        };
        let answered = tokio::select! {
            // Listens before it asks.
            biased;
            violation = denied => return Err(ApiError::Denied(violation)),
            answered = timeout(self.deadline, request) => answered,
        };
        let subject = || subject.to_owned();
        match answered {
            Err(_) => Err(ApiError::Timeout { subject: subject(), deadline: self.deadline }),
            Ok(Err(error)) if error.kind() == async_nats::RequestErrorKind::NoResponders => {
                Err(ApiError::NoResponders { subject: subject() })
            }
            Ok(Err(error)) if error.kind() == async_nats::RequestErrorKind::TimedOut => {
                Err(ApiError::Timeout { subject: subject(), deadline: self.deadline })
            }
            Ok(Err(error)) => Err(ApiError::Transport { subject: subject(), reason: error.to_string() }),
            Ok(Ok(message)) => Ok(message.payload),
        }
    }
}

fn read_answer<'de, T: Deserialize<'de>>(subject: String, payload: &'de [u8]) -> Result<T, ApiError> {
    parse_answer(payload).unwrap_or_else(|reason| Err(ApiError::Unreadable { subject, reason }))
}

fn encoded(subject: &str, request: &impl serde::Serialize) -> Result<Vec<u8>, ApiError> {
    match serde_json::to_vec(request) {
        Ok(null) if null == b"null" => Ok(Vec::new()),
        Ok(payload) => Ok(payload),
        Err(error) => Err(ApiError::Unreadable { subject: subject.to_owned(), reason: error.to_string() }),
    }
}
