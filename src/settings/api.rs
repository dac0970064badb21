//! The API port: probes, the REST API, and who may use it.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;
use std::time::Duration;

use super::host::Host;
use super::reader::Reader;
use super::url::parse_url;
use super::values::listed;
use super::variables::*;
use crate::domain::{ByteSize, Secret};

#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// The REST API; the probes are there either way.
    pub enabled: bool,
    pub host: Host,
    pub port: NonZeroU16,
    /// Opens everything.
    pub token: Option<Secret>,
    /// Opens what only reads.
    pub read_token: Option<Secret>,
    pub max_body: ByteSize,
    pub max_connections: usize,
    pub threads: usize,
    pub request_timeout: Duration,
    /// Requests per second and client at most; [`None`] = no limit.
    pub rate_limit: Option<NonZeroU32>,
    pub cors: CorsOrigins,
    pub environment: &'static str,
    /// Refuse to start with something open that should not be.
    pub strict: bool,
}

/// Pages of which origins a browser lets read our answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    Any,
    /// None by default.
    Listed(Vec<WebOrigin>),
}

impl CorsOrigins {
    /// Whether a page of the origin that a request names may read the answer.
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(origins) => origin.parse().is_ok_and(|origin| origins.contains(&origin)),
        }
    }
}

/// `scheme://host[:port]` as browsers write it in the header Origin: in lower case, and without the port
/// that the scheme means anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOrigin(String);

impl WebOrigin {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WebOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let origin = parse_url(&lower, &["http", "https"])?;
        let (scheme, address) = origin.split_once("://").ok_or("it has no scheme")?;
        if address.contains(['/', '?', '#', '@']) {
            return Err("an origin is scheme://host[:port] and nothing else".into());
        }
        let usual_port = if scheme == "https" { ":443" } else { ":80" };
        Ok(Self(format!("{scheme}://{}", address.strip_suffix(usual_port).unwrap_or(address))))
    }
}

impl ApiSettings {
    pub fn read(reader: &mut Reader) -> Self {
        let stages = ["development", "testing", "staging", "production"].map(|stage| (stage, stage));
        let settings = Self {
            enabled: reader.bool(&API_ENABLED),
            host: reader.host(&API_HOST, None),
            port: reader.port(&API_PORT),
            token: reader.optional(&API_TOKEN, parse_bearer),
            read_token: reader.optional(&API_READ_TOKEN, parse_bearer),
            max_body: reader.size(&API_MAX_BODY),
            max_connections: reader.number(&API_MAX_CONNECTIONS) as usize,
            threads: reader
                .optional(&API_THREADS, |text| API_THREADS.own_range().number(text))
                .map_or_else(usual_threads, |n| n as usize),
            request_timeout: reader.span(&API_REQUEST_TIMEOUT),
            rate_limit: NonZeroU32::new(reader.number(&API_RATE_LIMIT) as u32),
            cors: reader.optional(&API_CORS_ORIGINS, parse_origins).unwrap_or(CorsOrigins::Listed(vec![])),
            environment: reader.choice(&ENVIRONMENT, &stages),
            strict: reader.bool(&SECURITY_STRICT),
        };
        settings.check_tokens(reader);
        settings
    }

    fn check_tokens(&self, reader: &mut Reader) {
        if let (Some(token), Some(read_token)) = (&self.token, &self.read_token)
            && token.expose() == read_token.expose()
        {
            reader.problems.add(
                "API_TOKEN, API_READ_TOKEN",
                "the same token twice",
                "who has the one for reading could do everything",
                "set API_READ_TOKEN to another, or unset it",
            );
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

fn parse_origins(text: &str) -> Result<CorsOrigins, String> {
    match text {
        "*" => Ok(CorsOrigins::Any),
        _ => listed(text, str::parse).map(CorsOrigins::Listed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::load;

    fn api(pairs: &[(&str, &str)]) -> ApiSettings {
        load(pairs).unwrap_or_else(|problems| panic!("{problems}")).settings.api
    }

    #[test]
    fn defaults_let_nobody_in_from_a_browser_and_limit_nothing_but_size_and_time() {
        let api = api(&[]);
        assert!(api.enabled && api.token.is_none() && api.read_token.is_none());
        assert_eq!((api.max_body.bytes(), api.request_timeout.as_secs(), api.rate_limit), (2 << 20, 10, None));
        assert_eq!(api.cors, CorsOrigins::Listed(vec![]));
        assert!(!api.cors.allows("http://localhost"));
    }

    #[test]
    fn what_is_set_is_there_and_tokens_are_not_printed() {
        let api = api(&[
            ("API_ENABLED", "false"),
            ("API_TOKEN", "tell-all"),
            ("API_READ_TOKEN", "tell-some"),
            ("API_MAX_BODY", "64KB"),
            ("API_REQUEST_TIMEOUT", "1500ms"),
            ("API_RATE_LIMIT", "20"),
        ]);
        assert!(!api.enabled);
        assert_eq!(api.token.as_ref().map(Secret::expose), Some("tell-all"));
        assert_eq!(api.read_token.as_ref().map(Secret::expose), Some("tell-some"));
        assert_eq!(api.max_body.bytes(), 64 << 10);
        assert_eq!(api.request_timeout.as_millis(), 1500);
        assert_eq!(api.rate_limit.map(NonZeroU32::get), Some(20));
        assert!(!format!("{api:?}").contains("tell-"), "{api:?}");
    }

    #[test]
    fn the_token_for_reading_is_another_one() {
        let problems = load(&[("API_TOKEN", "tell-all"), ("API_READ_TOKEN", "tell-all")]).unwrap_err();
        assert_eq!(problems.list.len(), 1, "{problems}");
        assert!(problems.list[0].variable == "API_TOKEN, API_READ_TOKEN", "{problems}");
        assert!(!problems.to_string().contains("tell-all"), "{problems}");
    }

    #[test]
    fn origins_are_compared_as_browsers_write_them() {
        let cors = |text: &str| api(&[("API_CORS_ORIGINS", text)]).cors;
        assert!(cors("*").allows("https://anywhere.example"));
        let listed = cors("https://Trade.Example:443, http://[::1]:3000,http://localhost:80");
        for origin in ["https://trade.example", "http://[::1]:3000", "http://localhost"] {
            assert!(listed.allows(origin), "{origin} of {listed:?}");
        }
        for origin in ["http://trade.example", "https://trade.example:8443", "https://trade.example.org", "null", "*"] {
            assert!(!listed.allows(origin), "{origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "https://a.example/",
            "https://a.example/path",
            "https://u:tell-nobody@a.example",
            "https://a.example?x",
            "https://a.example#x",
            "*,https://a.example",
            "https://*.example",
            "null",
            "ftp://a.example",
            "https://a.example,",
            "a.example",
        ] {
            let problems = load(&[("API_CORS_ORIGINS", text)]).unwrap_err();
            assert_eq!(problems.list.len(), 1, "{text}: {problems}");
            assert!(!problems.to_string().contains("tell-nobody"), "{problems}");
        }
    }
}
