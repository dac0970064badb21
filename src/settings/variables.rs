//! Every variable once: name, default, what is allowed, what it is for. `.env.unified`, the tables of
//! docs/settings.md and `config reference` come from here.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;

pub use super::names::{ALIASES, COMPOSE_ONLY, GRPC_STANDARD, PREFIXES, RETIRED};
use super::range::{MAX_COUNT, MAX_SIZE, MIB, Range, SOME_TIME};

/// A setting that the environment can hold.
pub struct Variable {
    pub name: &'static str,
    pub section: &'static str,
    pub default: DefaultValue,
    /// The rule, as a phrase that follows "must be"; `{range}` in it stands for the range.
    rule: &'static str,
    /// The values that its reader takes.
    pub range: Option<Range>,
    pub doc: &'static str,
    /// A credential: never shown, and also readable from a file named by `NAME_FILE`.
    pub secret: bool,
    /// The path of a file with nothing but a secret.
    pub names_secret: bool,
    /// The part of the product that will act on it, while this version does not have that part.
    pub not_yet_implemented: Option<&'static str>,
    /// Whether a broker that runs takes its change over.
    pub reloads: Reloads,
    /// Its value among the variables read.
    pub value: fn(&Environment) -> Option<&str>,
}

/// When a broker that runs takes the change of a variable over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloads {
    Never,
    /// Where the server is our own: what clients of it need to know.
    Embedded,
    /// Where others run the server: how we get there.
    External,
    Always,
}

impl Reloads {
    /// For the reference; nothing where only a restart does.
    pub const fn describe(self) -> Option<&'static str> {
        match self {
            Self::Never => None,
            Self::Embedded => Some("SIGHUP takes it over in embedded mode"),
            Self::External => Some("SIGHUP takes it over in external mode"),
            Self::Always => Some("SIGHUP takes it over"),
        }
    }

    pub fn take_over(self, is_external: bool) -> bool {
        match self {
            Self::Never => false,
            Self::Embedded => !is_external,
            Self::External => is_external,
            Self::Always => true,
        }
    }
}

/// What holds when a variable is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// This text, read by the same rule as a value that is set.
    Fixed(&'static str),
    /// Depends on other things; described in words.
    Derived(&'static str),
    Unset,
}

impl DefaultValue {
    pub const fn fixed(self) -> Option<&'static str> {
        match self {
            Self::Fixed(text) => Some(text),
            _ => None,
        }
    }
}

impl Variable {
    const fn new(
        name: &'static str,
        section: &'static str,
        default: DefaultValue,
        rule: &'static str,
        doc: &'static str,
        value: fn(&Environment) -> Option<&str>,
    ) -> Self {
        Self {
            name,
            section,
            default,
            rule,
            range: None,
            doc,
            secret: false,
            names_secret: false,
            not_yet_implemented: None,
            reloads: Reloads::Never,
            value,
        }
    }

    const fn range(mut self, range: Range) -> Self {
        self.range = Some(range);
        self
    }

    const fn numbers(self, least: i64, most: i64) -> Self {
        self.range(Range::Numbers(least, most))
    }

    const fn sizes(self, least: u64, most: u64) -> Self {
        self.range(Range::Sizes(least, most))
    }

    const fn spans(self, least: Duration) -> Self {
        self.range(Range::Spans(least))
    }

    const fn ratio(self) -> Self {
        self.range(Range::Ratio)
    }

    const fn port(self) -> Self {
        self.range(Range::Port)
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn names_secret(mut self) -> Self {
        self.names_secret = true;
        self
    }

    const fn not_yet_implemented(mut self, part: &'static str) -> Self {
        self.not_yet_implemented = Some(part);
        self
    }

    const fn reloads(mut self, when: Reloads) -> Self {
        self.reloads = when;
        self
    }

    /// The rule with its range, as a phrase that follows "must be".
    pub fn allowed(&self) -> Cow<'static, str> {
        match self.range {
            Some(range) => self.rule.replace("{range}", &range.to_string()).into(),
            None => self.rule.into(),
        }
    }

    /// The range of a variable whose reader asks for it.
    pub fn own_range(&self) -> Range {
        match self.range {
            Some(range) => range,
            None => unreachable!("{} has a range", self.name),
        }
    }

    pub fn named(name: &str) -> Option<&'static Variable> {
        ALL.iter().copied().find(|v| v.name == name)
    }
}

macro_rules! variables {
    ($($section:literal {
        $($name:ident ($field:ident) = $default:expr, $rule:literal, $doc:literal $(; $flag:ident $(($($argument:expr),*))?)*)*
    })*) => {
        $($(
            #[doc = $doc]
            pub static $name: Variable = Variable::new(
                stringify!($name), $section, $default, $rule, $doc, |e| e.$field.as_deref(),
            )$(.$flag($($($argument),*)?))*;
        )*)*

        /// All variables in the order of the reference.
        pub static ALL: &[&Variable] = &[$($(&$name),*),*];

        /// The values of the variables that are set, filled by envy, which looks for lower-cased names.
        #[derive(Default, Deserialize)]
        pub struct Environment {
            $($($field: Option<String>),*),*
        }
    };
}

use DefaultValue::{Derived, Fixed, Unset};

/// JetStream refuses shorter ages and duplicate windows (server/stream.go, checkStreamCfg).
const SHORTEST_OF_STREAMS: Duration = Duration::from_millis(100);

const BUS: &str = "the gRPC message bus";
const BACKUP: &str = "backup";

variables! {
    "Server" {
        NATS_MODE(nats_mode) = Fixed("embedded"), "embedded or external", "embedded: supervise a nats-server of our own; external: serve one that runs elsewhere"
        NATS_URL(nats_url) = Fixed("nats://localhost:4222"), "a comma-separated list of nats://, tls://, ws:// or wss:// URLs", "External mode: the servers to connect to. In embedded mode only clients read it" ; reloads(Reloads::External)
        MARKETPRISM_NATS_URL(marketprism_nats_url) = Unset, "a comma-separated list of nats://, tls://, ws:// or wss:// URLs", "Same as NATS_URL, and wins over it" ; reloads(Reloads::External)
        NATS_MONITOR_URL(nats_monitor_url) = Unset, "an http:// or https:// URL", "External mode: the server's monitoring address"
        NATS_CREDS_FILE(nats_creds_file) = Unset, "the path of a readable file", "External mode: credentials file" ; reloads(Reloads::External)
        NATS_TLS_CLIENT_CERT(nats_tls_client_cert) = Unset, "the path of a PEM file", "External mode: client certificate" ; reloads(Reloads::External)
        NATS_TLS_CLIENT_KEY(nats_tls_client_key) = Unset, "the path of a PEM file", "External mode: key of the client certificate" ; reloads(Reloads::External)
        NATS_SERVER_BIN(nats_server_bin) = Fixed("nats-server"), "a path, or a name that is found in PATH", "The nats-server executable, 2.10 or newer"
        NATS_SERVER_ALLOW_DOWNGRADE(nats_server_allow_downgrade) = Fixed("false"), "true or false", "Whether an older nats-server may open a store that a newer one has written"
        NATS_SERVER_NAME(nats_server_name) = Fixed("marketprism-nats-unified"), "at most 128 characters without white space", "Name of the server; in a cluster the host name is appended to the default"
        NATS_HOST(nats_host) = Fixed("0.0.0.0"), "an IP address or a host name", "Address that clients connect to"
        NATS_PORT(nats_port) = Fixed("4222"), "{range}", "Port for NATS clients" ; port
        NATS_HTTP_HOST(nats_http_host) = Derived("NATS_HOST"), "an IP address or a host name", "Address of the monitoring port, which has no authentication"
        NATS_HTTP_PORT(nats_http_port) = Fixed("8222"), "{range}", "Port for HTTP monitoring" ; port
        NATS_CONFIG_FILE(nats_config_file) = Derived("/run/unified-nats/nats.conf, else in /dev/shm or the temporary directory"), "a path", "Where nats.conf is written, mode 0600"
        NATS_MAX_CONNECTIONS(nats_max_connections) = Fixed("1000"), "{range}", "Client connections at most" ; numbers(1, MAX_COUNT)
        NATS_MAX_SUBSCRIPTIONS(nats_max_subscriptions) = Fixed("0"), "{range}; 0 = no limit", "Subscriptions per connection at most" ; numbers(0, MAX_COUNT)
        NATS_MAX_CONTROL_LINE(nats_max_control_line) = Fixed("4096"), "{range}", "Longest protocol line" ; sizes(512, MIB)
        NATS_MAX_PAYLOAD(nats_max_payload) = Fixed("1MB"), "{range}, not above NATS_MAX_PENDING", "Largest message; above 8MB is unwise" ; sizes(1, 64 * MIB)
        NATS_MAX_PENDING(nats_max_pending) = Fixed("64MB"), "{range}, such as 64MB", "Bytes buffered for a slow client before it is cut off" ; sizes(1, MAX_SIZE)
        NATS_WRITE_DEADLINE(nats_write_deadline) = Fixed("10s"), "{range}, such as 10s", "A client that takes longer to accept data is cut off" ; spans(SOME_TIME)
        NATS_PING_INTERVAL(nats_ping_interval) = Fixed("2m"), "{range}, such as 2m", "Time between pings to a client" ; spans(SOME_TIME)
        NATS_PING_MAX(nats_ping_max) = Fixed("2"), "{range}", "Unanswered pings before a client is cut off" ; numbers(1, MAX_COUNT)
        NATS_EXTRA_CONFIG(nats_extra_config) = Unset, "the path of a nats.conf fragment without includes and without keys that are set here", "Fragment added to nats.conf" ; reloads(Reloads::Embedded)
    }
    "JetStream" {
        JETSTREAM_ENABLED(jetstream_enabled) = Fixed("true"), "true or false", "JetStream on or off; off means no streams at all"
        JETSTREAM_STORE_DIR(jetstream_store_dir) = Fixed("/data/jetstream"), "a writable directory, or a path where one can be made", "Where streams are stored"
        JETSTREAM_REQUIRE_MARKER(jetstream_require_marker) = Fixed("false"), "true or false", "Whether a start refuses a store that no start has used before, such as an empty directory whose volume is not mounted"
        JETSTREAM_MAX_MEMORY(jetstream_max_memory) = Fixed("1GB"), "{range}, such as 1GB", "Memory for memory streams" ; sizes(1, MAX_SIZE)
        JETSTREAM_MAX_FILE(jetstream_max_file) = Fixed("10GB"), "{range}, such as 10GB", "Disk for file streams" ; sizes(1, MAX_SIZE)
        JETSTREAM_DOMAIN(jetstream_domain) = Unset, "letters, digits, - and _, at most 255", "JetStream domain"
        JETSTREAM_SYNC_INTERVAL(jetstream_sync_interval) = Fixed("2m"), "{range}, or always", "Time between fsyncs; always = acknowledged means on disk" ; spans(SOME_TIME)
        JETSTREAM_MAX_STREAMS(jetstream_max_streams) = Unset, "{range}", "Streams at most, kept by our own plan and APIs" ; numbers(1, i64::MAX)
        JETSTREAM_MAX_CONSUMERS(jetstream_max_consumers) = Unset, "{range}", "Consumers at most, kept by our own plan and APIs" ; numbers(1, i64::MAX)
    }
    "MARKET_DATA stream" {
        STREAM_NAME(stream_name) = Fixed("MARKET_DATA"), "letters, digits, - and _, at most 255", "Name of the stream that holds the eight families"
        STREAM_SUBJECT_STYLE(stream_subject_style) = Fixed("suffixed"), "suffixed, plain or both", "trade-data.>, trade.>, or both during a migration"
        STREAM_MAX_CONSUMERS(stream_max_consumers) = Fixed("50"), "{range}, but not 0; -1 = no limit", "Consumers of the stream at most" ; numbers(-1, MAX_COUNT)
        STREAM_MAX_MSGS(stream_max_msgs) = Fixed("1000000"), "{range}; -1 or 0 = no limit", "Messages kept at most" ; numbers(-1, i64::MAX)
        STREAM_MAX_BYTES(stream_max_bytes) = Fixed("1073741824"), "{range}; -1 or 0 = no limit; not above JETSTREAM_MAX_FILE (MAX_MEMORY for a memory stream)", "Bytes kept at most" ; sizes(0, MAX_SIZE)
        STREAM_MAX_AGE(stream_max_age) = Fixed("7200"), "{range}; -1 or 0 = no limit", "Age of a message at most" ; spans(SHORTEST_OF_STREAMS)
        STREAM_MAX_MSGS_PER_SUBJECT(stream_max_msgs_per_subject) = Fixed("-1"), "{range}; -1 or 0 = no limit", "Messages kept per subject at most" ; numbers(-1, i64::MAX)
        STREAM_MAX_MSG_SIZE(stream_max_msg_size) = Fixed("-1"), "{range}; -1 or 0 = no limit", "Largest message that the stream takes" ; sizes(0, MAX_COUNT as u64)
        STREAM_REPLICAS(stream_replicas) = Fixed("1"), "1, 3 or 5; more than 1 needs NATS_CLUSTER_ENABLED", "Copies of the stream in a cluster"
        STREAM_DUPLICATE_WINDOW(stream_duplicate_window) = Fixed("300"), "{range}, not above STREAM_MAX_AGE", "Time in which a message id is stored once" ; spans(SHORTEST_OF_STREAMS)
        RETENTION_POLICY(retention_policy) = Fixed("limits"), "limits, interest or workqueue", "When a message may go"
        DISCARD_POLICY(discard_policy) = Fixed("old"), "old or new", "What gives way when the stream is full"
        STORAGE_TYPE(storage_type) = Fixed("file"), "file or memory", "Where the stream is kept"
        STREAM_COMPRESSION(stream_compression) = Fixed("none"), "none or s2", "Compression of file storage"
        STREAMS_FILE(streams_file) = Unset, "the path of a YAML file", "More streams, consumers and buckets" ; reloads(Reloads::Always)
        STREAMS_DEFAULTS(streams_defaults) = Fixed("market-data"), "market-data, broker, none, or a comma-separated list", "Built-in sets of streams"
        STREAMS_RECONCILE_INTERVAL(streams_reconcile_interval) = Fixed("60"), "{range}; 0 = only at start and on SIGHUP", "Time between drift checks" ; spans(Duration::ZERO)
        STREAMS_PRUNE(streams_prune) = Fixed("false"), "true or false", "Delete streams that carry our mark and are no longer declared" ; reloads(Reloads::Always)
    }
    "Authentication and TLS" {
        NATS_AUTH_ENABLED(nats_auth_enabled) = Fixed("false"), "true or false; true needs user and password, a token, or a users file", "Ask clients for credentials. External mode shows what is set" ; reloads(Reloads::Always)
        NATS_AUTH_USERNAME(nats_auth_username) = Unset, "at most 1 KiB of text", "User name for clients" ; reloads(Reloads::Always)
        NATS_AUTH_PASSWORD(nats_auth_password) = Unset, "at most 1 KiB of text without NUL", "Password for clients" ; secret ; reloads(Reloads::Always)
        NATS_AUTH_TOKEN(nats_auth_token) = Unset, "at most 1 KiB of text without NUL; not together with users", "Token for clients" ; secret ; reloads(Reloads::Always)
        NATS_USERS_FILE(nats_users_file) = Unset, "the path of a YAML file", "Users with their permissions, as `users:` in YAML; passwords plain or bcrypt" ; reloads(Reloads::Embedded)
        NATS_TLS_ENABLED(nats_tls_enabled) = Fixed("false"), "true or false; true needs NATS_TLS_CERT and NATS_TLS_KEY", "TLS for clients" ; reloads(Reloads::External)
        NATS_TLS_CERT(nats_tls_cert) = Unset, "the path of a PEM file with the certificate and its chain", "Server certificate" ; reloads(Reloads::Embedded)
        NATS_TLS_KEY(nats_tls_key) = Unset, "the path of a PEM file with the certificate's private key", "Server key" ; reloads(Reloads::Embedded)
        NATS_TLS_CA(nats_tls_ca) = Unset, "the path of a PEM file with certificate authorities", "Authorities for client certificates; external mode: for the certificate of the server, instead of those of the system" ; reloads(Reloads::Always)
        NATS_TLS_VERIFY(nats_tls_verify) = Fixed("false"), "true or false; true needs NATS_TLS_CA", "Ask clients for a certificate" ; reloads(Reloads::Embedded)
    }
    "Cluster" {
        NATS_CLUSTER_ENABLED(nats_cluster_enabled) = Fixed("false"), "true or false; true needs NATS_CLUSTER_ROUTES", "Join a cluster. Never over a store that was written standalone"
        NATS_CLUSTER_NAME(nats_cluster_name) = Fixed("marketprism-cluster"), "text without white space, at most 128 characters", "Name of the cluster, the same on every node"
        NATS_CLUSTER_ROUTES(nats_cluster_routes) = Unset, "a comma-separated list of nats:// or nats-route:// URLs", "The other nodes"
        NATS_CLUSTER_PORT(nats_cluster_port) = Fixed("6222"), "{range}", "Port for cluster routes" ; port
        NATS_CLUSTER_HOST(nats_cluster_host) = Derived("NATS_HOST"), "an IP address or a host name", "Address for cluster routes"
        NATS_CLUSTER_ADVERTISE(nats_cluster_advertise) = Unset, "host or host:port", "Address that other nodes are told"
        NATS_CLUSTER_USERNAME(nats_cluster_username) = Unset, "at most 1 KiB of text", "User name between nodes"
        NATS_CLUSTER_PASSWORD(nats_cluster_password) = Unset, "at most 1 KiB of text without NUL", "Password between nodes" ; secret
    }
    "Supervision" {
        INIT_TIMEOUT(init_timeout) = Fixed("60"), "{range}", "Time until ready, recovery of the store included; past it: degraded, and trying on" ; spans(SOME_TIME)
        NATS_CONNECT_TIMEOUT(nats_connect_timeout) = Fixed("10"), "{range}", "Time for one connection attempt of our own client" ; spans(SOME_TIME)
        NATS_MAX_RECONNECT(nats_max_reconnect) = Fixed("10"), "{range}; -1 = for ever", "Reconnection attempts of our own client before it starts afresh" ; numbers(-1, MAX_COUNT)
        SHUTDOWN_TIMEOUT(shutdown_timeout) = Fixed("25"), "{range}", "Time for a graceful stop" ; spans(Duration::from_secs(1))
        SHUTDOWN_DRAIN_DELAY(shutdown_drain_delay) = Fixed("0"), "{range}, below SHUTDOWN_TIMEOUT", "Time between not ready and stopping, for load balancers to notice" ; spans(Duration::ZERO)
        NATS_LAME_DUCK_DURATION(nats_lame_duck_duration) = Fixed("30s"), "{range}", "Time over which lame duck mode closes client connections" ; spans(Duration::from_secs(30))
        NATS_LAME_DUCK_GRACE(nats_lame_duck_grace) = Fixed("10s"), "{range} and below NATS_LAME_DUCK_DURATION", "Time before lame duck mode closes the first connection" ; spans(SOME_TIME)
        RESTART_BACKOFF_MIN(restart_backoff_min) = Fixed("50ms"), "{range}, not above RESTART_BACKOFF_MAX", "Wait before restarting a server that keeps dying; doubles each time" ; spans(Duration::ZERO)
        RESTART_BACKOFF_MAX(restart_backoff_max) = Fixed("30s"), "{range}", "Longest wait before a restart" ; spans(Duration::ZERO)
        RESTART_MAX(restart_max) = Fixed("10"), "{range}", "Restarts within RESTART_WINDOW before giving up with exit code 75" ; numbers(0, 1_000_000)
        RESTART_WINDOW(restart_window) = Fixed("300"), "{range}", "Window for RESTART_MAX" ; spans(SOME_TIME)
        HEALTH_CHECK_ENABLED(health_check_enabled) = Fixed("true"), "true or false", "Periodic full health check"
        HEALTH_CHECK_INTERVAL(health_check_interval) = Fixed("60"), "{range}", "Time between health checks" ; spans(SOME_TIME)
        HEALTH_CHECK_TIMEOUT(health_check_timeout) = Fixed("10"), "{range}", "Time for one health check" ; spans(SOME_TIME)
        HEALTH_PROBE_INTERVAL(health_probe_interval) = Fixed("500ms"), "{range}", "Time between the cheap probes that detect hangs" ; spans(SOME_TIME)
        HEALTH_FAILURE_THRESHOLD(health_failure_threshold) = Fixed("3"), "{range}", "Consecutive failed probes that mean hung" ; numbers(1, MAX_COUNT)
        HEALTH_HANG_TIMEOUT(health_hang_timeout) = Fixed("10s"), "{range}", "Least time of failed probes that means hung" ; spans(SOME_TIME)
        MONITORING_ENABLED(monitoring_enabled) = Fixed("true"), "true or false", "HTTP monitoring of nats-server; without it health uses NATS itself"
        FAMILY_STALE_AFTER(family_stale_after) = Unset, "a comma-separated list such as trade=30s,funding_rate=9h, each family once", "Alert when a family falls silent" ; reloads(Reloads::Always)
        GOMEMLIMIT(gomemlimit) = Derived("80 % of the container's memory limit"), "a size as the Go runtime reads it, such as 800MiB, or off", "Soft memory limit, passed to nats-server"
    }
    "Logs" {
        LOG_LEVEL(log_level) = Fixed("INFO"), "ERROR, WARN, INFO, DEBUG or TRACE", "Lowest level of log lines"
        LOG_FORMAT(log_format) = Derived("text on a terminal, else json"), "json or text", "Form of log lines"
        NATS_DEBUG(nats_debug) = Fixed("false"), "true or false", "Debug lines of nats-server"
        NATS_TRACE(nats_trace) = Fixed("false"), "true or false", "Protocol trace of nats-server; shows message contents"
        NATS_LOG_TIME(nats_log_time) = Fixed("true"), "true or false", "Time stamps in NATS_LOG_FILE"
        NATS_LOG_FILE(nats_log_file) = Unset, "a path in a writable directory", "File for nats-server's own lines beside the log stream"
        NATS_LOG_MAX_SIZE(nats_log_max_size) = Fixed("50MB"), "{range}", "Size at which NATS_LOG_FILE is rotated" ; sizes(64 * 1024, MAX_SIZE)
        NATS_LOG_MAX_FILES(nats_log_max_files) = Fixed("5"), "{range}", "Rotated files kept, the current one included" ; numbers(1, 1000)
    }
    "REST API and probes" {
        API_ENABLED(api_enabled) = Fixed("true"), "true or false", "REST API; the probes /livez /readyz /startupz /health stay either way"
        API_HOST(api_host) = Fixed("0.0.0.0"), "an IP address or a host name", "Address of the API port"
        API_PORT(api_port) = Fixed("8086"), "{range}", "Port for probes and the REST API" ; port
        API_TOKEN(api_token) = Unset, "printable ASCII without spaces, 1 to 1024 characters", "Bearer token for everything" ; secret
        API_READ_TOKEN(api_read_token) = Unset, "printable ASCII without spaces, 1 to 1024 characters", "Bearer token for reading only" ; secret
        API_MAX_BODY(api_max_body) = Fixed("2MB"), "{range}", "Largest request body" ; sizes(1, MAX_SIZE)
        API_MAX_CONNECTIONS(api_max_connections) = Fixed("2048"), "{range}", "Connections at most; fewer where the limit of open descriptors is low" ; numbers(1, MAX_COUNT)
        API_THREADS(api_threads) = Derived("one per core but one, 1 to 4"), "{range}", "Threads that serve the API; nothing that the broker itself does waits for them" ; numbers(1, 64)
        API_REQUEST_TIMEOUT(api_request_timeout) = Fixed("10s"), "{range}", "Time for one request" ; spans(SOME_TIME)
        API_RATE_LIMIT(api_rate_limit) = Fixed("0"), "{range}; 0 = off", "Requests per second and client at most" ; numbers(0, MAX_COUNT)
        API_CORS_ORIGINS(api_cors_origins) = Unset, "* or a comma-separated list of origins, each http:// or https:// with a host and perhaps a port", "Origins that browsers may call from"
        ENVIRONMENT(environment) = Fixed("development"), "development, testing, staging or production", "Name of the deployment's stage"
        SECURITY_STRICT(security_strict) = Fixed("false"), "true or false", "Refuse to start with NATS, monitoring, the REST API or the port for metrics open on an address that is not loopback"
    }
    "gRPC message bus" {
        GRPC_ENABLED(grpc_enabled) = Fixed("false"), "true or false", "gRPC message bus" ; not_yet_implemented(BUS)
        GRPC_HOST(grpc_host) = Fixed("0.0.0.0"), "an IP address or a host name", "Address of the gRPC port" ; not_yet_implemented(BUS)
        GRPC_PORT(grpc_port) = Fixed("50051"), "{range}", "Port for gRPC" ; port ; not_yet_implemented(BUS)
        GRPC_MAX_MESSAGE_SIZE(grpc_max_message_size) = Fixed("4MB"), "{range}", "Largest gRPC message" ; sizes(1, MAX_COUNT as u64) ; not_yet_implemented(BUS)
        GRPC_TLS_CERT(grpc_tls_cert) = Unset, "the path of a PEM file", "Certificate of the gRPC port" ; not_yet_implemented(BUS)
        GRPC_TLS_KEY(grpc_tls_key) = Unset, "the path of a PEM file", "Key of the gRPC port" ; not_yet_implemented(BUS)
        GRPC_TLS_CLIENT_CA(grpc_tls_client_ca) = Unset, "the path of a PEM file", "Authorities for gRPC client certificates" ; not_yet_implemented(BUS)
        GRPC_JWT_PUBLIC_KEY_FILE(grpc_jwt_public_key_file) = Unset, "the path of a PEM file with a PUBLIC KEY: RSA, ECDSA on P-256 or Ed25519", "Key that signs callers' tokens; set = authentication on" ; not_yet_implemented(BUS)
        GRPC_JWT_SECRET_FILE(grpc_jwt_secret_file) = Unset, "the path of a file with one secret, not together with GRPC_JWT_PUBLIC_KEY_FILE", "Secret that signs callers' tokens with HS256, where no public key does; set = authentication on" ; names_secret ; not_yet_implemented(BUS)
        GRPC_JWT_ISSUER(grpc_jwt_issuer) = Unset, "at most 1 KiB of text", "Issuer that tokens must name" ; not_yet_implemented(BUS)
        GRPC_JWT_AUDIENCE(grpc_jwt_audience) = Unset, "at most 1 KiB of text", "Audience that tokens must name" ; not_yet_implemented(BUS)
        GRPC_SUBSCRIPTION_IDLE(grpc_subscription_idle) = Fixed("10m"), "{range}; 0 = never", "Time without a caller after which subscriptions go that nobody has named" ; spans(Duration::ZERO) ; not_yet_implemented(BUS)
        MB_ENABLE_AUTH(mb_enable_auth) = Unset, "true or false; true needs a key for tokens", "Old name; authentication is on when GRPC_JWT_PUBLIC_KEY_FILE or GRPC_JWT_SECRET_FILE is set" ; not_yet_implemented(BUS)
    }
    "Metrics and alerts" {
        PROMETHEUS_ENABLED(prometheus_enabled) = Fixed("false"), "true or false", "Metrics on a port of their own"
        PROMETHEUS_HOST(prometheus_host) = Fixed("0.0.0.0"), "an IP address or a host name", "Address of the metrics port"
        PROMETHEUS_PORT(prometheus_port) = Fixed("7777"), "{range}", "Port for metrics" ; port
        PROMETHEUS_PREFIX(prometheus_prefix) = Unset, "letters, digits and _, not starting with a digit", "Prefix instead of gnatsd_ and jetstream_"
        PROMETHEUS_SERVER_ID(prometheus_server_id) = Fixed("url"), "url, id or name", "What the label server_id holds: the monitoring address, or the server's id, which changes at every start, or its name"
        PROMETHEUS_TOP_SUBJECTS(prometheus_top_subjects) = Fixed("20"), "{range}; 0 = off", "Series of each metric that names the busiest or quietest subjects" ; numbers(0, 1000)
        INGEST_TIMESTAMP_FIELDS(ingest_timestamp_fields) = Unset, "a comma-separated list of at most 16 names, such as timestamp,ts,E", "Fields of payloads that say when an exchange sent them; they are sampled for the ingest delay"
        ALERT_WEBHOOK_URL(alert_webhook_url) = Unset, "an http:// or https:// URL", "Webhook for alerts" ; secret ; reloads(Reloads::Always)
        ALERT_SLACK_WEBHOOK(alert_slack_webhook) = Unset, "an http:// or https:// URL", "Slack webhook for alerts" ; secret ; reloads(Reloads::Always)
        ALERT_EMAIL(alert_email) = Unset, "an e-mail address", "Receiver of alerts" ; reloads(Reloads::Always)
        ALERT_SMTP_URL(alert_smtp_url) = Unset, "smtp://user:password@host:port or smtps://…", "Mail server for alerts" ; secret ; reloads(Reloads::Always)
        ALERT_EMAIL_FROM(alert_email_from) = Derived("ALERT_EMAIL"), "an e-mail address", "Sender of alerts" ; reloads(Reloads::Always)
        ALERT_MEMORY_RATIO(alert_memory_ratio) = Fixed("0.8"), "{range}; 0 = off", "JetStream memory in use" ; ratio ; reloads(Reloads::Always)
        ALERT_DISK_RATIO(alert_disk_ratio) = Fixed("0.9"), "{range}; 0 = off", "JetStream storage in use" ; ratio ; reloads(Reloads::Always)
        ALERT_CONNECTIONS_RATIO(alert_connections_ratio) = Fixed("0.9"), "{range}; 0 = off", "Connections in use" ; ratio ; reloads(Reloads::Always)
        ALERT_STREAM_RATIO(alert_stream_ratio) = Fixed("0.9"), "{range}; 0 = off", "Stream limits in use" ; ratio ; reloads(Reloads::Always)
        ALERT_CONSUMER_LAG(alert_consumer_lag) = Fixed("100000"), "{range}; 0 = off", "Messages a consumer is behind" ; numbers(0, i64::MAX) ; reloads(Reloads::Always)
        ALERT_MIN_INTERVAL(alert_min_interval) = Fixed("300"), "{range}", "Least time between two alerts of the same kind" ; spans(Duration::ZERO) ; reloads(Reloads::Always)
        OTEL_EXPORTER_OTLP_ENDPOINT(otel_exporter_otlp_endpoint) = Unset, "an http:// or https:// URL without a query", "OpenTelemetry collector, to whose address /v1/traces and /v1/metrics are added; unset = nothing is sent"
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT(otel_exporter_otlp_traces_endpoint) = Unset, "an http:// or https:// URL", "Where traces go, as it stands; wins over OTEL_EXPORTER_OTLP_ENDPOINT"
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT(otel_exporter_otlp_metrics_endpoint) = Unset, "an http:// or https:// URL", "Where metrics go, as it stands; wins over OTEL_EXPORTER_OTLP_ENDPOINT"
        OTEL_EXPORTER_OTLP_PROTOCOL(otel_exporter_otlp_protocol) = Fixed("http/protobuf"), "http/protobuf or http/json", "How to speak to the collector; this version speaks no gRPC"
        OTEL_EXPORTER_OTLP_HEADERS(otel_exporter_otlp_headers) = Unset, "a comma-separated list of key=value, the values percent-encoded", "Headers for the collector, such as its credentials" ; secret
        OTEL_EXPORTER_OTLP_TIMEOUT(otel_exporter_otlp_timeout) = Fixed("10000"), "{range}, in milliseconds", "Time for one export" ; numbers(1, MAX_COUNT)
        OTEL_EXPORTER_OTLP_COMPRESSION(otel_exporter_otlp_compression) = Fixed("none"), "none or gzip", "How exports are compressed"
        OTEL_EXPORTER_OTLP_CERTIFICATE(otel_exporter_otlp_certificate) = Unset, "the path of a PEM file with certificates", "Authorities that vouch for the collector, instead of those of browsers and of the system"
        OTEL_TRACES_EXPORTER(otel_traces_exporter) = Fixed("otlp"), "otlp or none", "none: send no traces"
        OTEL_METRICS_EXPORTER(otel_metrics_exporter) = Fixed("otlp"), "otlp or none", "none: send no metrics"
        OTEL_METRIC_EXPORT_INTERVAL(otel_metric_export_interval) = Fixed("60000"), "{range}, in milliseconds", "Time between two exports of metrics" ; numbers(100, MAX_COUNT)
        OTEL_BSP_SCHEDULE_DELAY(otel_bsp_schedule_delay) = Fixed("5000"), "{range}, in milliseconds", "How long a span waits for others at most before it is sent" ; numbers(1, MAX_COUNT)
        OTEL_BSP_MAX_QUEUE_SIZE(otel_bsp_max_queue_size) = Fixed("2048"), "{range}", "Spans that wait at most; beyond that the oldest are dropped" ; numbers(1, 65_536)
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE(otel_bsp_max_export_batch_size) = Fixed("512"), "{range}, not above OTEL_BSP_MAX_QUEUE_SIZE", "Spans of one export at most" ; numbers(1, 65_536)
        OTEL_TRACES_SAMPLER(otel_traces_sampler) = Fixed("parentbased_always_on"), "always_on, always_off, traceidratio, or one of them with parentbased_ before it", "Which traces are sent"
        OTEL_TRACES_SAMPLER_ARG(otel_traces_sampler_arg) = Fixed("1"), "{range}", "Part of the traces that traceidratio sends" ; ratio
        OTEL_SERVICE_NAME(otel_service_name) = Fixed("unified-nats"), "at most 1 KiB of text", "Name of this service in traces and metrics; wins over service.name of OTEL_RESOURCE_ATTRIBUTES"
        OTEL_RESOURCE_ATTRIBUTES(otel_resource_attributes) = Unset, "a comma-separated list of key=value, the values percent-encoded", "What else traces and metrics say about this service"
        OTEL_SDK_DISABLED(otel_sdk_disabled) = Fixed("false"), "true or false", "Send nothing, whatever else is set"
    }
    "Backup" {
        BACKUP_ENABLED(backup_enabled) = Fixed("false"), "true or false", "Scheduled backups" ; not_yet_implemented(BACKUP)
        BACKUP_INTERVAL(backup_interval) = Fixed("3600"), "{range}", "Time between backups" ; spans(SOME_TIME) ; not_yet_implemented(BACKUP)
        BACKUP_RETENTION_DAYS(backup_retention_days) = Fixed("7"), "{range}", "Days a backup is kept" ; numbers(1, 36_500) ; not_yet_implemented(BACKUP)
        BACKUP_DIR(backup_dir) = Fixed("/data/backup"), "a path", "Directory for backups" ; not_yet_implemented(BACKUP)
        BACKUP_VERIFY_INTERVAL(backup_verify_interval) = Fixed("86400"), "{range}; 0 = off", "Time between deep verifications: a restore into a server that is thrown away" ; spans(Duration::ZERO) ; not_yet_implemented(BACKUP)
        BACKUP_ENCRYPTION_RECIPIENTS(backup_encryption_recipients) = Unset, "a comma-separated list of age recipients, age1…", "Whom backups are encrypted for; they alone can restore them" ; not_yet_implemented(BACKUP)
        BACKUP_S3_BUCKET(backup_s3_bucket) = Unset, "3 to 63 lower-case letters, digits, - and .", "S3 bucket for backups" ; not_yet_implemented(BACKUP)
        BACKUP_S3_REGION(backup_s3_region) = Unset, "at most 1 KiB of text", "S3 region" ; not_yet_implemented(BACKUP)
        BACKUP_S3_ENDPOINT(backup_s3_endpoint) = Unset, "an http:// or https:// URL", "S3 endpoint" ; not_yet_implemented(BACKUP)
        BACKUP_S3_PREFIX(backup_s3_prefix) = Unset, "at most 1 KiB of text", "Prefix of S3 keys" ; not_yet_implemented(BACKUP)
        AWS_ACCESS_KEY_ID(aws_access_key_id) = Unset, "at most 1 KiB of text without NUL", "S3 credentials" ; secret ; not_yet_implemented(BACKUP)
        AWS_SECRET_ACCESS_KEY(aws_secret_access_key) = Unset, "at most 1 KiB of text without NUL", "S3 credentials" ; secret ; not_yet_implemented(BACKUP)
    }
    "Settings file" {
        CONFIG_FILE(config_file) = Unset, "the path of a YAML file", "Settings file; what is set here wins over it"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_aliases_point_somewhere() {
        let names: std::collections::HashSet<_> = ALL.iter().map(|v| v.name).collect();
        assert_eq!(names.len(), ALL.len());
        for (old, new) in ALIASES {
            assert!(names.contains(new) && !names.contains(old), "{old} → {new}");
        }
    }

    #[test]
    fn the_rule_names_the_range_and_no_other() {
        for variable in ALL {
            assert_eq!(variable.range.is_some(), variable.rule.contains("{range}"), "{}", variable.name);
            let by_hand = ["whole number", "duration", "a size of", "a size from", "number from"];
            assert!(!by_hand.iter().any(|words| variable.rule.contains(words)), "{}", variable.name);
        }
    }

    #[test]
    fn envy_fills_the_field_of_the_same_name() {
        for variable in ALL {
            let pair = (variable.name.to_owned(), "x".to_owned());
            let environment: Environment = envy::from_iter([pair]).unwrap();
            assert_eq!((variable.value)(&environment), Some("x"), "{}", variable.name);
        }
    }
}
