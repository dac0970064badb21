//! Publishing over HTTP: what a client writes is what the stream holds.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::rest_calls::{Api, Whole, refused};
use super::support::{Broker, CURRENT, JetStream, PATIENCE, SUBJECTS, block_on};

const PUBLISH: &str = "/api/v1/broker/publish";
const JSON: (&str, &str) = ("content-type", "application/json");

/// A message as its stream holds it.
pub struct Held {
    pub subject: String,
    pub payload: Vec<u8>,
    /// As they stand before the payload.
    pub headers: String,
}

pub fn held(broker: &Broker, stream: &str, sequence: u64) -> Held {
    let ask = async {
        let jetstream = JetStream(broker.client().await);
        jetstream.ask(&format!("$JS.API.STREAM.MSG.GET.{stream}"), json!({ "seq": sequence })).await
    };
    let answer = block_on(ask);
    let message = &answer["message"];
    let bytes = |key: &str| BASE64_STANDARD.decode(message[key].as_str().unwrap_or_default()).unwrap();
    let subject = message["subject"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    Held { subject, payload: bytes("data"), headers: String::from_utf8(bytes("hdrs")).unwrap() }
}

pub fn state(broker: &Broker, stream: &str) -> Value {
    block_on(async { JetStream(broker.client().await).info(stream).await["state"].clone() })
}

/// Publishes a body with headers of the request.
fn publish(api: &Api, headers: &[(&str, &str)], body: impl ToString) -> Whole {
    api.post_with(PUBLISH, &[&[JSON], headers].concat(), body.to_string())
}

#[test]
fn a_message_is_stored_as_it_was_written() {
    for version in [CURRENT, "2.10.26"] {
        let mut broker = Broker::with_server(version);
        broker.start();
        let api = Api::of(&broker);
        let big = r#"{"b":1.0,"a": 12345678901234567890123456789,"exact":0.1000,"far":1e400, "a":"\u00e9\/"}"#;
        let cases: [(&str, &str, &[u8]); 12] = [
            (r#""Hello World""#, "", b"Hello World"),
            (r#""\u00e4\n\"{""#, "", "ä\n\"{".as_bytes()),
            (r#""""#, "", b""),
            (big, "", big.as_bytes()),
            ("[ 1,2 ]", "", b"[ 1,2 ]"),
            ("null", "", b"null"),
            ("true", "json", b"true"),
            ("-0.0", "json", b"-0.0"),
            (r#""{\"a\":1}""#, "text", br#"{"a":1}"#),
            (r#""AAH/""#, "base64", b"\0\x01\xff"),
            (r#""AAH/""#, "json", b"AAH/"),
            (r#""""#, "base64", b""),
        ];
        for (number, (message, encoding, expected)) in (1..).zip(cases) {
            let encoding = if encoding.is_empty() { String::new() } else { format!(r#","encoding":"{encoding}""#) };
            let body = format!(r#"{{"subject":"{}","message":{message}{encoding}}}"#, SUBJECTS[1]);
            let data = api.data(publish(&api, &[], &body).answer());
            let answer = json!({
                "stream": "MARKET_DATA", "sequence": number, "duplicate": false, "subject": SUBJECTS[1],
            });
            assert_eq!(data, answer, "{body}");
            let held = held(&broker, "MARKET_DATA", number);
            assert_eq!((held.subject.as_str(), held.payload.as_slice()), (SUBJECTS[1], expected), "{body}");
            assert_eq!(held.headers, "", "nothing is added");
        }
        let plain = api.post("/api/v1/publish", format!(r#"{{"subject":"{}","message":{big}}}"#, SUBJECTS[2]));
        assert_eq!(plain, (200, json!({ "success": true })));
        assert_eq!(held(&broker, "MARKET_DATA", 13).payload, big.as_bytes());

        // Bytes, with what HTTP says of them.
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let path = format!("/api/v1/broker/subjects/{}", SUBJECTS[0]);
        let headers = [("content-type", "application/x-protobuf"), ("x-other", "stays here")];
        assert_eq!(api.data(api.post_with(&path, &headers, bytes.clone()).answer())["sequence"], 14);
        let raw = held(&broker, "MARKET_DATA", 14);
        assert_eq!((raw.subject.as_str(), raw.payload), (SUBJECTS[0], bytes));
        assert_eq!(raw.headers, "NATS/1.0\r\nContent-Type: application/x-protobuf\r\n\r\n");
        assert_eq!(api.data(api.post_with(&path, &[], "").answer())["sequence"], 15);
        let escaped = format!("/api/v1/broker/subjects/{}", SUBJECTS[0].replace('.', "%2E"));
        assert_eq!(api.data(api.post_with(&escaped, &[], "x").answer())["subject"], SUBJECTS[0]);
    }
}

#[test]
fn a_message_is_stored_once_for_each_id() {
    let mut broker = Broker::new();
    broker.start();
    let api = Api::of(&broker);
    let body = json!({ "subject": SUBJECTS[1], "message": 1 });
    let with_id = json!({ "subject": SUBJECTS[1], "message": 2, "msg_id": "k-1" });
    let raw = format!("/api/v1/broker/subjects/{}", SUBJECTS[1]);
    let first = api.data(publish(&api, &[("idempotency-key", "k-1")], &body).answer());
    assert_eq!((&first["sequence"], &first["duplicate"]), (&json!(1), &json!(false)));
    let again = [
        publish(&api, &[("idempotency-key", "k-1")], &body),
        publish(&api, &[("idempotency-key", "\"k-1\"")], &body),
        publish(&api, &[], &with_id),
        publish(&api, &[("idempotency-key", "k-1")], &with_id),
        publish(&api, &[], json!({ "subject": SUBJECTS[1], "message": 3, "headers": { "Nats-Msg-Id": "k-1" } })),
        api.post_with(&raw, &[("idempotency-key", "k-1")], "x"),
        api.post_with(&raw, &[("nats-msg-id", "k-1"), ("idempotency-key", "\"k-1\"")], "x"),
    ];
    for answer in again {
        let data = api.data(answer.answer());
        assert_eq!((&data["sequence"], &data["duplicate"]), (&json!(1), &json!(true)));
    }
    assert_eq!(held(&broker, "MARKET_DATA", 1).headers, "NATS/1.0\r\nNats-Msg-Id: k-1\r\n\r\n");
    let long = "k".repeat(513);
    for keys in [
        vec![("idempotency-key", "a"), ("idempotency-key", "a")],
        vec![("idempotency-key", "other")],
        vec![("idempotency-key", "")],
        vec![("idempotency-key", "\"\"")],
        vec![("idempotency-key", "ä")],
        vec![("idempotency-key", "a\tb")],
        vec![("idempotency-key", &long)],
    ] {
        refused(publish(&api, &keys, &with_id).answer(), 400, "INVALID_MESSAGE_DATA");
        let batch =
            api.post_with("/api/v1/broker/publish/batch", &[&[JSON], &keys[..]].concat(), json!([body]).to_string());
        if keys != [("idempotency-key", "other")] {
            refused(batch.answer(), 400, "INVALID_MESSAGE_DATA");
        }
    }
    assert_eq!(state(&broker, "MARKET_DATA")["messages"], 2, "the other key's batch");
}

#[test]
fn what_a_message_expects_of_its_stream_is_held() {
    let mut broker = Broker::new();
    broker.start();
    let api = Api::of(&broker);
    let raw = format!("/api/v1/broker/subjects/{}", SUBJECTS[1]);
    let expecting = |last: u64| json!({ "subject": SUBJECTS[1], "message": 1, "expected_last_sequence": last });
    api.data(publish(&api, &[("idempotency-key", "first")], expecting(0)).answer());
    for wrong in [0, 2, u64::MAX] {
        refused(publish(&api, &[], expecting(wrong)).answer(), 412, "PRECONDITION_FAILED");
    }
    api.data(publish(&api, &[("idempotency-key", "second")], expecting(1)).answer());
    let headers = [
        ("Nats-Expected-Stream", "MARKET_DATA", "OTHER"),
        ("Nats-Expected-Last-Sequence", "2", "1"),
        ("Nats-Expected-Last-Subject-Sequence", "2", "1"),
        ("Nats-Expected-Last-Msg-Id", "second", "first"),
    ];
    for (name, _, wrong) in headers {
        refused(api.post_with(&raw, &[(name, wrong)], "x").answer(), 412, "PRECONDITION_FAILED");
        let body = json!({ "subject": SUBJECTS[1], "message": 1, "headers": { name: wrong } });
        refused(publish(&api, &[], body).answer(), 412, "PRECONDITION_FAILED");
    }
    assert_eq!(state(&broker, "MARKET_DATA")["messages"], 2, "nothing of that was stored");
    let all: Vec<_> = headers.iter().map(|(name, right, _)| (*name, *right)).collect();
    api.data(api.post_with(&raw, &all, "x").answer());
    let twice = [("nats-expected-last-sequence", "3"), ("nats-expected-last-sequence", "2")];
    let words = refused(api.post_with(&raw, &twice, "x").answer(), 400, "INVALID_MESSAGE_DATA");
    assert!(words.contains("two different"), "{words}");
    let mut body = expecting(3);
    body["headers"] = json!({ "Nats-Expected-Last-Sequence": "2" });
    refused(publish(&api, &[], body).answer(), 400, "INVALID_MESSAGE_DATA");
}

#[test]
fn another_subject_is_expected_where_the_server_understands_it() {
    const SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
    const SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
    for (version, understands) in [(CURRENT, true), ("2.11.11", true), ("2.10.26", false)] {
        let mut broker = Broker::with_server(version);
        broker.start();
        let api = Api::of(&broker);
        api.publish(SUBJECTS[2], [json!(1)]);
        api.publish(SUBJECTS[1], [json!(2)]);
        let raw = format!("/api/v1/broker/subjects/{}", SUBJECTS[1]);
        let body = |subject: &str, sequence: &str| json!({ "subject": SUBJECTS[1], "message": 1, "headers": { SUBJECT: subject, SEQUENCE: sequence } });
        let batch = |body: Value| api.post_with("/api/v1/broker/publish/batch", &[JSON], json!([body]).to_string());
        if understands {
            refused(publish(&api, &[], body(SUBJECTS[2], "2")).answer(), 412, "PRECONDITION_FAILED");
            refused(batch(body(SUBJECTS[2], "2")).answer(), 412, "PRECONDITION_FAILED");
            assert_eq!(api.data(publish(&api, &[], body(SUBJECTS[2], "1")).answer())["sequence"], 3);
            let wide = SUBJECTS[2].replace("ETHUSDT", "*");
            assert_eq!(api.data(batch(body(&wide, "1")).answer())["published"], 1);
            let headers = [(SEQUENCE, "1"), (SUBJECT, SUBJECTS[2])];
            assert_eq!(api.data(api.post_with(&raw, &headers, "x").answer())["sequence"], 5);
        } else {
            // It would store each of them, whatever was expected.
            for answer in [
                publish(&api, &[], body(SUBJECTS[2], "1")),
                batch(body(SUBJECTS[2], "1")),
                api.post_with(&raw, &[(SUBJECT, SUBJECTS[2]), (SEQUENCE, "1")], "x"),
            ] {
                let words = refused(answer.answer(), 400, "INVALID_MESSAGE_DATA");
                assert!(words.contains("nats-server 2.11 or later, and this one is 2.10.26"), "{words}");
            }
            assert_eq!(state(&broker, "MARKET_DATA")["last_seq"], 2);
        }
        // Versions differ about what that means.
        for alone in [json!({ SUBJECT: SUBJECTS[2] }), json!({ SUBJECT: "a..b", SEQUENCE: "0" })] {
            let body = json!({ "subject": SUBJECTS[1], "message": 1, "headers": alone });
            refused(publish(&api, &[], body).answer(), 400, "INVALID_MESSAGE_DATA");
        }
    }
}

/// Those that nats-server knows, up to 2.15, and one that it does not.
const REFUSED: [&str; 33] = [
    "Nats-Rollup",
    "Nats-Incr",
    "Nats-Counter-Sources",
    "Nats-Schedule",
    "Nats-Schedule-TTL",
    "Nats-Schedule-Target",
    "Nats-Schedule-Source",
    "Nats-Schedule-Time-Zone",
    "Nats-Schedule-Rollup",
    "Nats-Schedule-Next",
    "Nats-Scheduler",
    "Nats-Batch-Id",
    "Nats-Batch-Sequence",
    "Nats-Batch-Commit",
    "Nats-Marker-Reason",
    "Nats-Stream",
    "Nats-Stream-Source",
    "Nats-Sequence",
    "Nats-Time-Stamp",
    "Nats-Subject",
    "Nats-Last-Sequence",
    "Nats-Last-Consumer",
    "Nats-Last-Stream",
    "Nats-Num-Pending",
    "Nats-Pending-Messages",
    "Nats-Msg-Size",
    "Nats-Response-Type",
    "Nats-Trace-Dest",
    "Nats-Trace-Only",
    "Nats-Request-Info",
    "Nats-Required-Api-Level",
    "Nats-Consumer-Stalled",
    "Nats-Made-Up",
];

#[test]
fn headers_that_tell_nats_what_to_do_are_few() {
    let mut broker = Broker::new();
    broker.start();
    let api = Api::of(&broker);
    let raw = format!("/api/v1/broker/subjects/{}", SUBJECTS[1]);
    let with = |headers: Value| json!({ "subject": SUBJECTS[1], "message": 1, "headers": headers });
    for name in REFUSED {
        for spelled in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
            let words =
                refused(publish(&api, &[], with(json!({ spelled: "sub" }))).answer(), 400, "INVALID_MESSAGE_DATA");
            assert!(words.contains("Nats-Msg-Id, Nats-Expected-* and Nats-TTL"), "{words}");
        }
        refused(api.post_with(&raw, &[(name, "sub")], "x").answer(), 400, "INVALID_MESSAGE_DATA");
    }
    for bad in [
        json!({ "": "x" }),
        json!({ "a b": "x" }),
        json!({ "a:b": "x" }),
        json!({ "ä": "x" }),
        json!({ "a\r\nb": "x" }),
        json!({ " Nats-Rollup": "all" }),
        json!({ "a": "x\r\nNats-Rollup: all" }),
        json!({ "a": "x\ny" }),
        json!({ "a": 1 }),
        json!({ "a": null }),
        json!({ "a": {} }),
        json!({ "a": ["x", 1] }),
        json!(["a"]),
        json!("a"),
        json!({ "Nats-Msg-Id": "" }),
        json!({ "Nats-Msg-Id": ["a", "b"] }),
        json!({ "Nats-Expected-Last-Sequence": "x" }),
        json!({ "Nats-Expected-Last-Sequence": "-1" }),
        json!({ "Nats-Expected-Made-Up": "1" }),
    ] {
        refused(publish(&api, &[], with(bad)).answer(), 400, "INVALID_MESSAGE_DATA");
    }
    assert_eq!(state(&broker, "MARKET_DATA")["messages"], 0, "nothing of that was stored");

    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = json!({ "X-One": "1", "x-many": ["a", "b"], "X-Text": "ä: b", "Content-Type": "application/json" });
    let sequence = api.data(publish(&api, &[("traceparent", trace), ("x-http", "no")], with(headers)).answer());
    let stored = held(&broker, "MARKET_DATA", sequence["sequence"].as_u64().unwrap()).headers;
    for line in
        ["X-One: 1", "x-many: a", "x-many: b", "Content-Type: application/json", &format!("traceparent: {trace}")]
    {
        assert!(stored.contains(&format!("\r\n{line}\r\n")), "{line}: {stored}");
    }
    assert!(stored.contains("X-Text: ä: b\r\n") && !stored.contains("x-http"), "{stored}");
}

#[test]
fn a_time_to_live_goes_with_its_message() {
    let mut broker = Broker::new();
    broker.set("STREAMS_DEFAULTS", "none").start();
    let api = Api::of(&broker);
    api.data(
        api.post("/api/v1/broker/streams", json!({ "name": "TTL", "subjects": ["ttl.>"], "allow_msg_ttl": true })),
    );
    api.data(api.post("/api/v1/broker/streams", json!({ "name": "NO", "subjects": ["no.>"] })));
    let body = |subject: &str, ttl: Value| json!({ "subject": subject, "message": 1, "headers": { "nats-ttl": ttl } });
    api.data(publish(&api, &[], body("ttl.a", json!("1h"))).answer());
    assert!(held(&broker, "TTL", 1).headers.contains("\r\nNats-TTL: 1h\r\n"));
    api.data(api.post_with("/api/v1/broker/subjects/ttl.a", &[("nats-ttl", "never")], "x").answer());
    for bad in [json!("soon"), json!("-5s"), json!("1ms"), json!(["1h", "2h"])] {
        refused(publish(&api, &[], body("ttl.a", bad)).answer(), 400, "INVALID_MESSAGE_DATA");
    }
    refused(publish(&api, &[], body("no.a", json!("1h"))).answer(), 400, "INVALID_MESSAGE_DATA");
}

#[test]
fn somebody_else_who_answers_is_not_the_stream() {
    let mut broker = Broker::new();
    // So that the stream takes longer than the service.
    broker.set("API_REQUEST_TIMEOUT", "2s").set("JETSTREAM_SYNC_INTERVAL", "always").start();
    let api = Api::of(&broker);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let url = broker.url();
    // A service that replies to everything on two subjects, one of them a stream's.
    let service = std::thread::spawn(move || {
        block_on(async {
            let client = async_nats::connect(url).await.unwrap();
            let mut asked = client.subscribe("trade-data.>").await.unwrap();
            let mut other = client.subscribe("service.echo").await.unwrap();
            client.flush().await.unwrap();
            ready.send(()).unwrap();
            let answering = async {
                loop {
                    let message = tokio::select! { Some(message) = asked.next() => message, Some(message) = other.next() => message };
                    if let Some(reply) = message.reply {
                        client.publish(reply, "mine".into()).await.unwrap();
                    }
                }
            };
            tokio::select! { () = answering => {}, _ = stopped => {} }
        });
    });
    is_ready.recv_timeout(PATIENCE).unwrap();
    let known = |answer: Whole| -> u64 {
        match answer.status {
            200 => 1,
            504 => {
                assert_eq!(answer.answer().1["details"]["may_have_been_stored"], true, "{}", answer.text);
                1
            }
            _ => panic!("{}: {}", answer.status, answer.text),
        }
    };
    let mut expected = 0;
    for number in 0..3 {
        expected += known(publish(&api, &[], json!({ "subject": SUBJECTS[1], "message": number })));
    }
    let batch: Vec<_> = (0..10).map(|number| json!({ "subject": SUBJECTS[1], "message": number })).collect();
    let answer = api.post_with("/api/v1/broker/publish/batch", &[JSON], json!(batch).to_string());
    assert!([200, 207, 504].contains(&answer.status), "{}", answer.text);
    assert_eq!(state(&broker, "MARKET_DATA")["messages"], expected + 10, "each of them once");
    // Nobody captures that one, whoever answers there.
    let unknown = publish(&api, &[], json!({ "subject": "service.echo", "message": 1 }));
    refused(unknown.answer(), 404, "STREAM_NOT_FOUND");
    let batch = json!([1, 2].map(|number| json!({ "subject": "service.echo", "message": number })));
    let unknown = api.post_with("/api/v1/broker/publish/batch", &[JSON], batch.to_string()).answer();
    for index in [0, 1] {
        assert_eq!(unknown.1["details"]["results"][index]["http_status"], 404, "{}", unknown.1);
    }
    refused(unknown, 404, "STREAM_NOT_FOUND");
    let _ = stop.send(());
    service.join().unwrap();
}
