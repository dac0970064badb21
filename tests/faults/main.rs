//! Faults, injected again and again into the real program with a real nats-server under load.
//!
//! UNIFIED_NATS_SEED replays the choices of a run, UNIFIED_NATS_FULL=1 gives the full dose,
//! UNIFIED_NATS_FAULTS_SERVER names another version of nats-server (one that scripts/test.sh has
//! installed), UNIFIED_NATS_FAULTS_REPORT a file to which each test appends a line. See scripts/faults.sh.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the answer")]

mod clock;
mod cluster;
mod conf;
mod control;
mod corruption;
mod cpu_load;
mod damages;
mod deletions;
mod disk_full;
mod fd_limit;
mod harness;
mod kill_server;
mod kill_supervisor;
mod orphans;
mod out_of_memory;
mod ports;
mod readers;
mod replaced;
mod rest_publishes;
#[path = "../integration/sse.rs"]
mod sse;
mod stalled_logs;
mod stop_server;
mod subject_limits;
#[path = "../integration/support.rs"]
#[allow(dead_code, reason = "the integration tests need more of it")]
mod support;
mod terminate;
#[path = "../integration/ws_client.rs"]
#[allow(dead_code, reason = "the integration tests need more of it")]
mod ws_client;
