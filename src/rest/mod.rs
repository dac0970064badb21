//! The REST API: what the API port answers, and how our own commands ask for it.
//!
//! One file per resource. Handlers are thin: they read a request into typed values, have [`Broker`](crate::broker::Broker) do
//! it, and answer in the envelope. Everything about the broker itself is read from its status.

mod admission;
mod batch;
mod client;
mod consumers;
mod cors;
mod deliveries;
mod docs;
mod errors;
mod figures;
mod headers;
mod health;
mod home;
mod live;
mod message;
mod messages;
mod metrics;
mod names;
mod openapi;
mod options;
mod probes;
mod publish;
mod raw;
mod replay;
mod router;
mod state;
mod status;
mod streams;
mod tail;
mod ws;

pub use batch::lines_of;
pub use client::ApiClient;
pub use health::{Event as Happened, Health, State};
pub use message::read_message;
pub use probes::Views;
pub use router::{document, routes};
pub use state::{Api, Declared, Home, Parts, Scrape};
