//! Speaking to a nats-server: connections, the JetStream API as JSON, HTTP monitoring.

mod client;
mod credentials;
mod jetstream;
mod monitor;
mod pinned;

pub use client::{ConnectError, Connection, Connector, Connectors, Login, PermissionViolations, ping};
pub use jetstream::{
    API_ADVISORIES, ApiError, ConsumerInfo, Consumers, JetStream, LostMessages, Put, RESTORE_BEGINS, RESTORE_ENDS,
    Stored, StreamInfo, StreamState, Streams, major_minor, parse_answer,
};
pub use monitor::{
    Connz, Jsz, Monitor, MonitorError, RaftGroup, RaftPeer, Routez, Varz, direct_client, get, parse_healthz, parse_json,
};
