//! What an operator can do about a refusal whose words say only that a limit is reached.

/// With what leads to it; empty where the server's own words say it all. The numbers are those of
/// nats-server's server/errors.json; 10052 is many refusals, which only their words tell apart.
pub fn way_out(err_code: u64, description: &str) -> &'static str {
    match err_code {
        10052 if description.starts_with("duplicates window") && description.contains("server limit") => {
            "; shorten duplicate_window (STREAM_DUPLICATE_WINDOW), leave it out, or have the server's limit raised: \
             duplicate_window in `limits` of `jetstream` in its configuration"
        }
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
        10121 => {
            "; lower max_ack_pending, of the consumer or in consumer_limits of its stream, or have the limit raised: \
             `nats account info` shows that of the account, and the other is in `limits` of `jetstream` in the server's \
             configuration"
        }
        10122 => "; lower max_bytes (STREAM_MAX_BYTES), or have the account's limit raised",
        10125 => {
            "; lower max_batch, or have the server's limit raised: max_request_batch in `limits` of `jetstream` in its \
             configuration"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_code_of_many_refusals_is_told_apart_by_its_words() {
        let of_window = way_out(10052, "duplicates window can not be larger then server limit of 1m0s");
        assert!(of_window.contains("STREAM_DUPLICATE_WINDOW"), "{of_window}");
        assert_eq!(way_out(10052, "duplicates window can not be larger then max age"), "");
        assert_eq!(way_out(10052, "stream name is required"), "");
    }
}
