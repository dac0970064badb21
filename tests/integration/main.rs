//! The real program with a real nats-server, on free ports, in directories of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the answer")]

mod applying;
mod bare;
mod certificates;
mod cluster;
mod commands;
mod conf;
mod declared;
mod documents;
mod executable;
mod external;
mod flood;
mod fragments;
mod hangs;
mod hung_disks;
mod identity;
mod integrity;
mod left;
mod lifecycle;
mod limits;
mod lists;
mod logs;
mod map;
mod options;
mod plans;
mod refusals;
mod reload;
mod resources;
mod rest_auth;
mod rest_limits;
mod security;
mod selftest;
mod signals;
mod storage;
mod store;
mod streams;
mod support;
mod users;
mod versions;
