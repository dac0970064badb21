pub mod domain;
pub mod files;
pub mod logging;
pub mod nats;
pub mod nats_conf;
pub mod settings;
pub mod streams;
pub mod supervisor;
