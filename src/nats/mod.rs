//! Speaking to a nats-server: connections, the JetStream API as JSON, HTTP monitoring.

mod client;
mod credentials;
mod jetstream;
mod monitor;
mod pinned;
mod violations;

pub use client::{ConnectError, Connection, Connector, Connectors, Login, ping};
pub use jetstream::{
    API_ADVISORIES, ApiError, COUNTED_ADVISORIES, Configuration, ConsumerInfo, Consumers, JetStream, LastOfEach,
    LostMessages, MessageRequest, Names, Purge, Put, RESTORE_BEGINS, RESTORE_ENDS, SeenStream, SeenStreams, Stored,
    StoredMessage, StreamInfo, StreamState, Streams, SubjectCounts, Terms, WrittenConfig, headers_of, major_minor,
    parse_answer, parse_headers,
};
pub use monitor::{
    AccountDetail, Connz, ConsumerDetail, Jsz, Monitor, MonitorError, RaftGroup, RaftPeer, Routez, StreamDetail, Varz,
    direct_client, get, get_as, parse_healthz, parse_json,
};
pub use violations::{Denials, PermissionViolations, Violation};
