//! The commands that clients of two generations type, as they stand in their documents, and the answers as
//! they stand there: the same keys with values of the same types.

use std::process::Command;

use serde_json::Value;

use super::rest_calls::Api;
use super::support::{Broker, SUBJECTS, block_on, http_client};

/// What there is in `expected` and not in `actual`, by path.
fn differences(expected: &Value, actual: &Value, path: &str) -> Vec<String> {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => expected
            .iter()
            .flat_map(|(key, value)| match actual.get(key) {
                Some(actual) => differences(value, actual, &format!("{path}.{key}")),
                None => vec![format!("{path}.{key} is missing")],
            })
            .collect(),
        (Value::Array(expected), Value::Array(actual)) => {
            let first = expected.first().filter(|_| !actual.is_empty());
            let each = |first| actual.iter().flat_map(move |one| differences(first, one, &format!("{path}[]")));
            first.map(each).into_iter().flatten().collect()
        }
        (Value::Number(expected), Value::Number(actual)) => match expected.is_f64() || !actual.is_f64() {
            true => vec![],
            false => vec![format!("{path} is {actual}, and was a whole number")],
        },
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) | (Value::Null, Value::Null) => vec![],
        _ => vec![format!("{path} is {actual}, and was {expected}")],
    }
}

fn check(expected: &str, actual: &Value) {
    let expected: Value = serde_json::from_str(expected).unwrap();
    let differences = differences(&expected, actual, "");
    assert!(differences.is_empty(), "{differences:?} in {actual}");
}

#[test]
fn a_shape_is_its_keys_and_types() {
    let of = |expected: &str, actual: &str| {
        differences(&serde_json::from_str(expected).unwrap(), &serde_json::from_str(actual).unwrap(), "").len()
    };
    for same in [r#"{"a":2,"b":[{"c":"y"},{"c":"z","d":1}],"e":3}"#, r#"{"a":2,"b":[]}"#] {
        assert_eq!(of(r#"{"a":1,"b":[{"c":"x"}]}"#, same), 0, "{same}");
    }
    for other in
        [r#"{"b":[]}"#, r#"{"a":"1","b":[]}"#, r#"{"a":1.5,"b":[]}"#, r#"{"a":1,"b":[{}]}"#, r#"{"a":null,"b":[]}"#]
    {
        assert_eq!(of(r#"{"a":1,"b":[{"c":"x"}]}"#, other), 1, "{other}");
    }
}

/// Runs a command as a shell does, on this broker's ports; gives what it prints.
fn run(broker: &Broker, command: &str) -> String {
    let ports = [
        ("localhost:8086", broker.ports.api),
        ("localhost:8085", broker.ports.api),
        ("localhost:8222", broker.ports.http),
    ];
    let command = ports
        .iter()
        .fold(command.to_owned(), |command, (name, port)| command.replace(name, &format!("localhost:{port}")));
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn answer(broker: &Broker, command: &str) -> Value {
    let text = run(broker, command);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command}: {text:?}: {error}"))
}

fn broker() -> Broker {
    let mut broker = Broker::new();
    broker.set("NATS_HOST", "127.0.0.1").start();
    broker
}

/// A stream with some messages and a consumer, so that lists hold something.
fn fill(broker: &Broker, api: &Api) {
    api.publish(SUBJECTS[1], (0..3).map(Value::from));
    let jetstream = block_on(async { broker.client().await });
    drop(jetstream);
}

const SUCCESS: &str = r#"{"status": "success", "message": "x", "data": {}, "timestamp": "2025-06-29T05:32:44.123Z"}"#;

const STATUS: &str = r#"{
  "status": "success",
  "message": "Service status retrieved successfully",
  "data": {
    "service": "message-broker",
    "status": "running",
    "uptime_seconds": 3600.45,
    "version": "1.0.0",
    "environment": "production",
    "port": 8086,
    "features": {
      "nats_server": true,
      "jetstream": true,
      "message_routing": true,
      "stream_management": true,
      "message_persistence": true
    },
    "nats_info": {
      "server_status": "running",
      "client_connected": true,
      "streams_count": 3,
      "server_version": "2.9.0"
    },
    "statistics": {
      "messages_published": 15420,
      "messages_consumed": 15380,
      "active_streams": 3,
      "connection_errors": 0
    }
  },
  "timestamp": "2025-06-29T05:32:44.123Z"
}"#;

/// Of the first generation.
const PLAIN_STATUS: &str = r#"{
  "service": "message-broker-service",
  "timestamp": "2024-01-01T12:00:00Z",
  "uptime_seconds": 3600,
  "nats_server": {
    "status": "running",
    "server_info": {
      "server_id": "NACSS7QVHJQQ7XPXMG6FTX2O3AAOTDZ3XWPE5NVBCZJH7K2X6DJGJ2NJ",
      "server_name": "marketprism-nats",
      "version": "2.10.7",
      "go": "go1.21.5",
      "host": "0.0.0.0",
      "port": 4222,
      "max_connections": 1000,
      "connections": 1,
      "total_connections": 5,
      "routes": 0,
      "remotes": 0
    }
  },
  "jetstream_streams": [
    {
      "name": "MARKET_DATA",
      "subjects": ["market.>"],
      "messages": 10000,
      "bytes": 5242880,
      "consumer_count": 2
    }
  ],
  "message_stats": {
    "published": 10000,
    "consumed": 9500,
    "errors": 5
  }
}"#;

const PLAIN_STREAMS: &str = r#"{
  "streams": [
    {
      "name": "MARKET_DATA",
      "subjects": ["market.>"],
      "messages": 10000,
      "bytes": 5242880,
      "first_seq": 1,
      "last_seq": 10000,
      "consumer_count": 2
    }
  ]
}"#;

const PLAIN_INFO: &str = r#"{
  "status": "running",
  "pid": 12345,
  "ports": {
    "nats": 4222,
    "cluster": 6222,
    "http": 8222
  },
  "server_info": {
    "server_id": "NACSS7QVHJQQ7XPXMG6FTX2O3AAOTDZ3XWPE5NVBCZJH7K2X6DJGJ2NJ",
    "connections": 5,
    "in_msgs": 10000,
    "out_msgs": 9500,
    "in_bytes": 5242880,
    "out_bytes": 4980736
  }
}"#;

const ERROR: &str = r#"{
  "status": "error",
  "error_code": "NATS_CONNECTION_ERROR",
  "message": "x",
  "data": null,
  "timestamp": "2025-06-29T05:32:44.123Z"
}"#;

#[test]
fn the_commands_of_the_second_generation_run() {
    let broker = broker();
    fill(&broker, &Api::of(&broker));
    let commands = [
        r#"curl -X GET http://localhost:8086/api/v1/status"#,
        r#"curl -X POST http://localhost:8086/api/v1/broker/streams \
  -H "Content-Type: application/json" \
  -d '{"name":"test_stream","subjects":["test.>"]}'"#,
        r#"curl -X POST http://localhost:8086/api/v1/broker/publish \
  -H "Content-Type: application/json" \
  -d '{"subject":"test.message","message":"Hello World"}'"#,
        r#"curl -X GET http://localhost:8086/api/v1/broker/streams"#,
        "curl http://localhost:8086/api/v1/status",
        "curl http://localhost:8086/api/v1/broker/health",
    ];
    for command in commands {
        check(SUCCESS, &answer(&broker, command));
    }
    check(STATUS, &answer(&broker, commands[4]));
    assert_eq!(answer(&broker, "curl http://localhost:8086/health")["status"], "healthy");

    let api = Api::of(&broker);
    let requests = [
        (
            "/api/v1/broker/streams",
            r#"{
  "name": "market_data",
  "subjects": ["market.>", "trades.>"],
  "retention": "limits",
  "max_msgs": 1000000,
  "max_bytes": 1073741824,
  "max_age": 86400
}"#,
        ),
        (
            "/api/v1/broker/publish",
            r#"{
  "subject": "market.btc.price",
  "message": {
    "symbol": "BTC",
    "price": 45000.00,
    "timestamp": "2025-06-29T05:32:44.123Z"
  }
}"#,
        ),
    ];
    for (path, body) in requests {
        let (status, answer) = api.post(path, body);
        assert_eq!(status, 200, "{answer}");
        check(SUCCESS, &answer);
    }
    for path in ["/api/v1/broker/status", "/api/v1/broker/health", "/api/v1/broker/streams"] {
        let (status, answer) = api.get(path);
        assert_eq!(status, 200, "{answer}");
        check(SUCCESS, &answer);
    }
    assert_eq!(api.delete("/api/v1/broker/streams/market_data").0, 200);
    let (status, error) = api.delete("/api/v1/broker/streams/market_data");
    assert_eq!(status, 404);
    check(ERROR, &error);
}

#[test]
fn the_commands_of_the_first_generation_run() {
    let broker = broker();
    let api = Api::of(&broker);
    fill(&broker, &api);
    let test_stream = r#"{"name":"test_stream","subjects":["test.>"]}"#;
    assert_eq!(api.post("/api/v1/broker/streams", test_stream).0, 200);
    assert_eq!(answer(&broker, "curl http://localhost:8085/health")["status"], "healthy");
    check(PLAIN_STATUS, &answer(&broker, "curl http://localhost:8085/api/v1/status"));
    check(PLAIN_STREAMS, &answer(&broker, "curl http://localhost:8085/api/v1/streams"));
    let published = answer(
        &broker,
        r#"curl -X POST http://localhost:8085/api/v1/publish \
  -H "Content-Type: application/json" \
  -d '{"subject":"test.message","message":"Hello World"}'"#,
    );
    assert_eq!(published, serde_json::json!({ "success": true }));
    for path in ["varz", "connz", "routez", "subsz", "jsz"] {
        assert!(answer(&broker, &format!("curl http://localhost:8222/{path}")).is_object(), "{path}");
    }
    let (status, info) = api.get("/api/v1/nats/info");
    assert_eq!(status, 200);
    check(PLAIN_INFO, &info);
    // Piped as they are there, where the machine has that program.
    if Command::new("jq").arg("--version").output().is_ok() {
        for path in ["api/v1/status", "api/v1/streams", "health"] {
            answer(&broker, &format!("curl http://localhost:8085/{path} | jq"));
        }
    }
    let request = r#"{
  "subject": "test.binance.BTCUSDT.trade",
  "message": {
    "symbol": "BTCUSDT",
    "price": "50000.00",
    "quantity": "0.1",
    "timestamp": "2024-01-01T12:00:00Z"
  }
}"#;
    assert_eq!(api.post("/api/v1/publish", request), (200, serde_json::json!({ "success": true })));
    // One that asks for no content type gets JSON all the same.
    let kind = block_on(async {
        let answer = http_client().get(broker.api("/api/v1/streams")).send().await.unwrap();
        answer.headers()["content-type"].to_str().unwrap().to_owned()
    });
    assert_eq!(kind, "application/json");
}
