//! unified-nats: from the environment to eight live families of market data.
pub mod domain;
pub mod nats_conf;
pub mod settings;
