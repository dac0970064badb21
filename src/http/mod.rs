//! Serving HTTP away from the threads that the broker depends on.
//!
//! The *data side* ([`DataSide`]) has threads of its own: a door that takes connections in
//! ([`reception`]), answers probes itself and hands every other connection on, and a runtime for those
//! and their requests. Nothing there can delay the control side, and whoever floods the port with
//! connections delays neither the probes nor the broker.
//!
//! What every request has beside its handler is here as well: who asks ([`auth`]), a deadline and an id
//! ([`exchange`]), bodies as typed values ([`body`]), answers in one envelope ([`envelope`]).

pub mod auth;
pub mod body;
mod data_side;
mod decompression;
pub mod envelope;
mod exchange;
mod framing;
mod half_closed;
mod head;
mod prefixed;
pub mod rate_limit;
mod reception;
mod refusal;
mod serving;
pub mod traffic;
mod turn;
mod workers;

pub use data_side::{DataSide, is_here};
pub use decompression::decompress;
pub use exchange::{Deadline, RequestId, exchange};
pub use reception::{Bounds, Routes};
pub use serving::{Peer, Place};
pub use workers::{THREADS, step_back};
