//! Names that are no variables of ours and still mean something to us.

/// Old names that still work, with the variable they stand for.
pub const ALIASES: [(&str, &str); 5] = [
    ("MB_SERVER_PORT", "GRPC_PORT"),
    ("MB_SERVER_HOST", "GRPC_HOST"),
    ("MB_MAX_MESSAGE_SIZE_BYTES", "GRPC_MAX_MESSAGE_SIZE"),
    ("MB_METRICS_PORT", "PROMETHEUS_PORT"),
    ("APP_ENV", "ENVIRONMENT"),
];

/// Prefixes of our names: an unknown name that begins with one is likely a typing error.
pub const PREFIXES: [&str; 15] = [
    "NATS_",
    "JETSTREAM_",
    "STREAM_",
    "STREAMS_",
    "API_",
    "GRPC_",
    "PROMETHEUS_",
    "HEALTH_",
    "ALERT_",
    "BACKUP_",
    "SHUTDOWN_",
    "RESTART_",
    "LOG_",
    "MB_",
    "OTEL_",
];

/// Names that only docker-compose.unified.yml reads, with their defaults there.
pub const COMPOSE_ONLY: [(&str, &str); 11] = [
    ("PUBLISH_ADDRESS", "127.0.0.1"),
    ("MEMORY_LIMIT", "2G"),
    ("MEMORY_RESERVATION", "256M"),
    ("CPU_LIMIT", "0"),
    ("CPU_RESERVATION", "0.25"),
    ("NETWORK_SUBNET", "172.31.77.0/24"),
    ("LOG_MAX_SIZE", "50m"),
    ("LOG_MAX_FILE", "5"),
    ("VERSION", "latest"),
    ("VCS_REF", ""),
    ("BUILD_DATE", ""),
];

/// Standard names of gRPC libraries that share our prefix.
pub const GRPC_STANDARD: [&str; 3] = ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "GRPC_TRACE", "GRPC_VERBOSITY"];

/// Names of earlier `.env` files that are accepted and mean nothing (any more).
pub const RETIRED: [&str; 6] =
    ["DATA_DIR", "LOG_DIR", "NATS_CLIENT_NAME", "PERFORMANCE_MONITORING", "DEBUG_MODE", "VERBOSE_LOGGING"];
