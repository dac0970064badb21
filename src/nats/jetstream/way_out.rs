//! What an operator can do about a refusal whose words say only that a limit is reached.

/// With what leads to it; empty where the server's own words say it all. The numbers are those of
/// nats-server's server/errors.json.
pub fn way_out(err_code: u64) -> &'static str {
    match err_code {
        10002 | 10023 | 10028 | 10047 => {
            "; lower max_bytes (STREAM_MAX_BYTES), or give more: JETSTREAM_MAX_FILE and JETSTREAM_MAX_MEMORY of our own \
             server, the limits of the server or the account elsewhere"
        }
        10005 => "; ask for fewer copies or another placement, or add nodes",
        10026 => {
            "; lower max_consumers (STREAM_MAX_CONSUMERS), declare fewer consumers, or have the account's limit raised: \
             `nats account info` shows it"
        }
        10027 => "; delete streams, or have the account's limit raised: `nats account info` shows it",
        10113 => "; set max_bytes (STREAM_MAX_BYTES)",
        10120 => {
            "; have the account given limits for streams with so many copies, or change num_replicas (STREAM_REPLICAS)"
        }
        10121 => "; lower max_ack_pending, or have the limit raised",
        10122 => "; lower max_bytes (STREAM_MAX_BYTES), or have the account's limit raised",
        _ => "",
    }
}
