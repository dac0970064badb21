//! Metrics for Prometheus.

mod exposition;
