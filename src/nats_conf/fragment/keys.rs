//! What each top-level key of nats-server is to a fragment.

/// What is to be done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be set; the first of the names that nats-server has for it.
    Free(&'static str),
    /// It is set by these variables.
    SetBy(&'static str),
    /// It keeps nats-server's own value, for this reason.
    Kept(&'static str),
    /// No nats-server that we know has it: a name for a variable, or a mistake that the server tells.
    Unknown,
}

pub const NO_AUTH_USER: &str = "it lets in clients that show no credentials; give them a user";

const ACCOUNTS: &str = "streams are kept in the global account, and who gets in is set by the NATS_AUTH_ variables";
const PROFILES: &str = "its port hands the memory of nats-server, passwords included, to anybody who asks";
const FILES: &str = "nats-server is run by this program, which alone writes and removes files for it";
const HEADERS: &str = "JetStream's answers and this program's own messages need headers";

use Decision::{Free, Kept, SetBy};

/// Every key of nats-server 2.10 to 2.15 (server/opts.go), lower-cased; the names in one row are
/// taken for the same.
const KEYS: &[(&[&str], Decision)] = &[
    // What nats.conf says already.
    (&["server_name"], SetBy("NATS_SERVER_NAME")),
    (&["host", "net", "listen"], SetBy("NATS_HOST and NATS_PORT")),
    (&["port"], SetBy("NATS_PORT")),
    (&["http", "http_port", "monitor_port", "https", "https_port"], SetBy("NATS_HTTP_HOST and NATS_HTTP_PORT")),
    (&["logtime", "logtime_utc"], SetBy("NATS_LOG_TIME")),
    (&["debug"], SetBy("NATS_DEBUG")),
    // trace_verbose sets trace as well, and which of the two counts is up to chance.
    (&["trace", "trace_verbose"], SetBy("NATS_TRACE")),
    (&["log_file", "logfile", "syslog", "remote_syslog"], SetBy("NATS_LOG_FILE")),
    (&["max_connections", "max_conn"], SetBy("NATS_MAX_CONNECTIONS")),
    (&["max_subscriptions", "max_subs"], SetBy("NATS_MAX_SUBSCRIPTIONS")),
    (&["max_control_line"], SetBy("NATS_MAX_CONTROL_LINE")),
    (&["max_payload"], SetBy("NATS_MAX_PAYLOAD")),
    (&["max_pending"], SetBy("NATS_MAX_PENDING")),
    (&["write_deadline"], SetBy("NATS_WRITE_DEADLINE")),
    (&["ping_interval"], SetBy("NATS_PING_INTERVAL")),
    (&["ping_max"], SetBy("NATS_PING_MAX")),
    (&["lame_duck_duration"], SetBy("NATS_LAME_DUCK_DURATION")),
    (&["lame_duck_grace_period"], SetBy("NATS_LAME_DUCK_GRACE")),
    (&["jetstream", "store_dir", "storedir"], SetBy("the JETSTREAM_ variables")),
    (&["cluster"], SetBy("the NATS_CLUSTER_ variables")),
    (&["tls", "allow_non_tls"], SetBy("the NATS_TLS_ variables")),
    (&["authorization"], SetBy("the NATS_AUTH_ variables")),
    // What this program lives on, or what opens a door.
    (&["no_auth_user"], Kept(NO_AUTH_USER)),
    (&["accounts", "system_account", "system", "no_system_account", "no_system", "no_sys_acc"], Kept(ACCOUNTS)),
    (&["operator", "operators", "roots", "root", "root_operators", "root_operator"], Kept(ACCOUNTS)),
    (&["resolver", "account_resolver", "accounts_resolver", "resolver_tls"], Kept(ACCOUNTS)),
    (&["resolver_preload", "resolver_pinned_accounts"], Kept(ACCOUNTS)),
    (&["trusted", "trusted_keys", "default_sentinel"], Kept(ACCOUNTS)),
    (
        &["default_js_domain"],
        Kept("the program's own requests would go to another JetStream; JETSTREAM_DOMAIN names this one"),
    ),
    (&["gateway"], Kept("a gateway makes the store a clustered one; NATS_CLUSTER_ENABLED makes a cluster")),
    (&["http_base_path"], Kept("the health checks ask /healthz, /varz and /jsz at the root")),
    (&["no_header_support"], Kept(HEADERS)),
    (
        &["max_sub_tokens", "max_subscription_tokens"],
        Kept("the program's own subscriptions have more parts than it may allow"),
    ),
    (&["proxy_protocol"], Kept("the program's own connection does not come through a proxy and would be cut off")),
    (&["pid_file", "pidfile", "ports_file_dir"], Kept(FILES)),
    (&["prof_port"], Kept(PROFILES)),
    // What an operator may want and nothing here depends on.
    (&["client_advertise"], Free("client_advertise")),
    (&["connect_error_reports"], Free("connect_error_reports")),
    (&["reconnect_error_reports"], Free("reconnect_error_reports")),
    (&["disable_sublist_cache", "no_sublist_cache"], Free("disable_sublist_cache")),
    (&["feature_flags"], Free("feature_flags")),
    (&["leafnodes", "leaf"], Free("leafnodes")),
    (&["log_size_limit", "logfile_size_limit"], Free("log_size_limit")),
    (&["log_max_num", "logfile_max_num"], Free("log_max_num")),
    (&["mappings", "maps"], Free("mappings")),
    (&["max_closed_clients"], Free("max_closed_clients")),
    (&["max_traced_msg_len"], Free("max_traced_msg_len")),
    (&["mqtt"], Free("mqtt")),
    (&["no_fast_producer_stall"], Free("no_fast_producer_stall")),
    (&["ocsp"], Free("ocsp")),
    (&["ocsp_cache"], Free("ocsp_cache")),
    (&["prof_block_rate"], Free("prof_block_rate")),
    (&["proxies"], Free("proxies")),
    (&["server_metadata"], Free("server_metadata")),
    (&["server_tags"], Free("server_tags")),
    (&["trace_headers"], Free("trace_headers")),
    (&["websocket", "ws"], Free("websocket")),
    (&["write_timeout"], Free("write_timeout")),
];

/// All names of all keys.
pub fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().flat_map(|(names, _)| names.iter().copied())
}

pub fn decide(key: &str) -> Decision {
    let key = fold(key);
    let row = KEYS.iter().find(|(names, _)| names.contains(&key.as_str()));
    row.map_or(Decision::Unknown, |(_, decision)| *decision)
}

/// As Go's strings.ToLower: one character for one. Only İ differs from Rust's, which gives an `i`
/// with a dot above it.
pub fn fold(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            'İ' => 'i',
            c => c.to_lowercase().next().unwrap_or(c),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_in_one_row() {
        let names: Vec<_> = names().collect();
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name}");
            assert_eq!(fold(name), *name);
        }
    }

    #[test]
    fn names_are_folded_as_go_folds_them() {
        for (written, meant) in [("PORT", "port"), ("lİsten", "listen"), ("websoc\u{212a}et", "websocket")] {
            assert_eq!(fold(written), meant);
        }
    }
}
