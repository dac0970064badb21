//! Metrics for Prometheus.

mod bounds;
mod exporter;
mod exposition;
