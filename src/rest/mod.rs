//! The REST API: what the API port answers, and how our own commands ask for it.
//!
//! One file per resource. Handlers are thin: they read a request into typed values, have [`Broker`] do
//! it, and answer in the envelope. Everything about the broker itself is read from its status.

mod admission;
mod client;
mod cors;
mod errors;
mod health;
mod home;
mod probes;
mod publish;
mod router;
mod state;
mod status;

pub use client::ApiClient;
pub use health::{Health, State};
pub use probes::Views;
pub use router::{openapi, routes};
pub use state::Api;
