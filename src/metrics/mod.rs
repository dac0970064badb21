//! Metrics for Prometheus.

mod bounds;
mod exporter;
mod exposition;
mod families;
mod history;
mod own;
mod streams;
