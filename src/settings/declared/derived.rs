//! What a server fills in, or derives from other fields, where nothing is declared: that is as it should
//! be, and nothing to repair. Measured on 2.10.26 to 2.15.1.

use serde_json::{Map, Value, json};

/// What nats-server takes for a window that is not given, where messages get as old.
const WINDOW: i64 = 120_000_000_000;
/// Acknowledgements that a consumer waits for.
const ACK_PENDING: i64 = 1_000;
/// How long a pinned client stays so.
const PINNED: i64 = 120_000_000_000;

/// What decides about a field besides its value.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// The object as it will be.
    pub config: &'a Map<String, Value>,
    /// Limits of the server or the account may have lowered what it fills in. A server of our own has
    /// none.
    pub limited: bool,
    /// Of a mirror: whether its origin allows direct gets, where that is known.
    pub origin_direct: Option<bool>,
}

/// Fields that are not simply off, or without a limit, when nobody declares them.
pub fn is_filled_in(field: &str) -> bool {
    matches!(field, "duplicate_window" | "mirror_direct" | "max_waiting" | "max_ack_pending" | "priority_timeout")
}

/// Whether a server shows a value like that for a field which nobody declares.
pub fn may_be_filled_in(field: &str, value: &Value, around: Around<'_>) -> bool {
    let Around { config, limited, .. } = around;
    let number = |field: &str| config.get(field).and_then(Value::as_i64).unwrap_or_default();
    let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default();
    let is = |field: &str| config.get(field) == Some(&Value::Bool(true));
    let up_to = |most: i64| value.as_i64().is_some_and(|value| if limited { value <= most } else { value == most });
    match field {
        // With mirrors and sources it depends on the version.
        "duplicate_window" => {
            let age = number("max_age");
            up_to(if age > 0 { WINDOW.min(age) } else { WINDOW })
        }
        // It follows allow_direct of the origin.
        "mirror_direct" => true,
        "allow_rollup_hdrs" => number("subject_delete_marker_ttl") > 0 || is("allow_msg_schedules"),
        "allow_msg_ttl" => number("subject_delete_marker_ttl") > 0,
        "max_waiting" => text("deliver_subject").is_empty(),
        "max_ack_pending" => text("ack_policy") != "none" && up_to(ACK_PENDING),
        "ack_wait" => text("ack_policy") == "none" || text("ack_policy") == "flow_control",
        "max_batch" => limited,
        "priority_timeout" => text("priority_policy") == "pinned_client" && value == PINNED,
        "flow_control" => text("ack_policy") == "flow_control",
        "idle_heartbeat" => text("ack_policy") == "flow_control" && value == 1_000_000_000,
        _ => false,
    }
}

/// Whether a server shows `is` for what was declared as `wanted`.
pub fn is_the_same(field: &str, is: &Value, wanted: &Value, around: Around<'_>) -> bool {
    if field == "mirror_direct" {
        return around.origin_direct.is_some_and(|direct| direct != (wanted == true));
    }
    // Everything that is published on is, under the subjects that the transform gives.
    let everything = wanted.get("dest").is_some_and(|dest| dest == ">") && wanted.get("src").is_none();
    if field != "republish" || !everything {
        return false;
    }
    let transformed = around.config.get("subject_transform").and_then(|transform| transform.get("dest"));
    transformed.is_some_and(|dest| is.get("src") == Some(dest) && is.get("dest") == Some(dest))
        || *is == json!({ "dest": ">" })
}
