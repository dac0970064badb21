//! Speaking to a nats-server: connections, the JetStream API as JSON, HTTP monitoring.

mod client;
mod jetstream;
mod monitor;
mod own_certificate;

pub use client::{ConnectError, Connection, Link, greeting};
pub use jetstream::{
    ApiError, ConsumerInfo, Consumers, JetStream, LostMessages, Put, Stored, StreamInfo, StreamState, Streams,
    major_minor, parse_answer,
};
pub use monitor::{Monitor, MonitorError, direct_client, get, parse_healthz, parse_json};
pub use own_certificate::OwnCertificate;
