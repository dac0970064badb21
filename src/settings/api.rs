//! The API port, which carries the probes.

use std::num::NonZeroU16;
use std::time::Duration;

use super::reader::{Host, Reader};
use super::server::SOME_TIME;
use super::values::number_in;
use super::variables::*;
use crate::domain::{ByteSize, Secret};

#[derive(Clone, Debug)]
pub struct ApiSettings {
    pub enabled: bool,
    pub token: Option<Secret>,
    pub read_token: Option<Secret>,
    pub max_body: ByteSize,
    pub request_timeout: Duration,
    pub host: Host,
    pub port: NonZeroU16,
    pub max_connections: usize,
    pub threads: usize,
    pub environment: &'static str,
    /// Refuse to start with something open that should not be.
    pub strict: bool,
}

impl ApiSettings {
    pub fn read(reader: &mut Reader) -> Self {
        reader.number(&API_RATE_LIMIT, 0..=i64::from(i32::MAX));
        reader.optional(&API_CORS_ORIGINS, |text| match text {
            "*" => Ok(()),
            _ => text.split(',').try_for_each(|o| super::reader::parse_url(o, &["http", "https"]).map(drop)),
        });
        let stages = ["development", "testing", "staging", "production"].map(|stage| (stage, stage));
        Self {
            enabled: reader.bool(&API_ENABLED),
            token: reader.optional(&API_TOKEN, parse_bearer),
            read_token: reader.optional(&API_READ_TOKEN, parse_bearer),
            max_body: reader.size(&API_MAX_BODY, 1..=i64::MAX as u64),
            request_timeout: reader.span(&API_REQUEST_TIMEOUT, SOME_TIME),
            host: reader.host(&API_HOST, None),
            port: reader.port(&API_PORT),
            max_connections: reader.number(&API_MAX_CONNECTIONS, 1..=i64::from(i32::MAX)) as usize,
            threads: reader
                .optional(&API_THREADS, |text| number_in(text, &(1..=64)))
                .map_or_else(usual_threads, |n| n as usize),
            environment: reader.choice(&ENVIRONMENT, &stages),
            strict: reader.bool(&SECURITY_STRICT),
        }
    }
}

/// Leaves one core to the broker itself.
fn usual_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).clamp(1, 4))
}

/// What can stand in an Authorization header.
fn parse_bearer(text: &str) -> Result<Secret, String> {
    if text.len() > 1024 {
        return Err("it is longer than 1024 characters".into());
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("it holds a character that a header cannot carry".into());
    }
    Ok(Secret::new(text.to_owned()))
}
