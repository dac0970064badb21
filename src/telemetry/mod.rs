//! What an OpenTelemetry collector is told, in the words of OTLP.

pub mod launches;
pub mod metrics;
pub mod spans;
pub mod wire;
