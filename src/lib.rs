//! From an environment to a market-data broker that runs, and stays that way.
//!
//! [`cli`] turns arguments into a command and its outcome into an exit code. [`settings`] reads the
//! environment once, refuses everything that is wrong in one answer, and hands typed values on.
//! [`nats_conf`] writes nats.conf from them. [`app`] puts the running program together:
//! [`supervisor`] owns the nats-server child, [`streams`] knows what the stream should be and what
//! has to change, [`nats`] speaks to the server, [`identity`] knows as whom, [`health`]
//! looks at it, [`integrity`] knows what the store must hold, [`rest`] answers clients over HTTP, [`metrics`]
//! answers Prometheus, [`telemetry`] sends what [`spans`] and metrics say to a collector, [`dashboard`] shows people how it is, [`alerts`] says to people what is wrong.
//! [`domain`] holds the values everybody speaks of; [`logging`], [`line_queue`], [`off_thread`] and [`files`] write; [`ticks`] says when.
//!
//! Who may know whom, and why, is in ARCHITECTURE.md.

pub mod alerts;
pub mod app;
pub mod broker;
pub mod cli;
pub mod dashboard;
pub mod domain;
pub mod errors;
pub mod figures;
pub mod files;
pub mod health;
pub mod http;
pub mod identity;
pub mod integrity;
pub mod json;
pub mod lifecycle;
pub mod line_queue;
pub mod logging;
pub mod metrics;
pub mod nats;
pub mod nats_conf;
pub mod off_thread;
pub mod preflight;
pub mod rest;
pub mod settings;
pub mod signatures;
pub mod spans;
pub mod status;
pub mod store_layout;
pub mod streams;
pub mod supervisor;
pub mod telemetry;
pub mod ticks;
pub mod yaml;
