//! What a client says in headers reaches nats-server as it was meant, or nothing is stored.

use serde_json::{Value, json};

use super::rest_calls::{Api, refused};
use super::rest_publish::{held, state};
use super::support::{Broker, CURRENT, SUBJECTS};

const PUBLISH: &str = "/api/v1/broker/publish";
const BATCH: &str = "/api/v1/broker/publish/batch";

/// The body of a publish, with the text of its headers.
fn with(headers: &str) -> String {
    format!(r#"{{"subject":"{}","message":1,"headers":{headers}}}"#, SUBJECTS[1])
}

#[test]
fn what_would_get_lost_is_refused_and_nothing_is_stored() {
    for version in [CURRENT, "2.10.26"] {
        let mut broker = Broker::with_server(version);
        broker.start();
        let api = Api::of(&broker);
        for (headers, word) in [
            (r#"{"A":"1","A":"2"}"#, "twice"),
            (r#"{"Nats-Expected-Last-Sequence":"9","Nats-Expected-Last-Sequence":"0"}"#, "twice"),
            (r#"{"Nats-Expected-Last-Sequence":[]}"#, "empty list"),
            (r#"{"A":[]}"#, "empty list"),
            (r#"{"A":" x"}"#, "blank"),
            (r#"{"A":"x "}"#, "blank"),
            (r#"{"A":"x\u00a0"}"#, "blank"),
            (r#"{"A":["x","\tx"]}"#, "blank"),
            (r#"{"Nats-Msg-Id":"a "}"#, "blank"),
            (r#"{"Nats-Expected-Stream":" MARKET_DATA"}"#, "blank"),
            (r#"{"Nats-Expected-Stream":""}"#, "is empty"),
            (r#"{"nats-expected-last-msg-id":""}"#, "is empty"),
            (r#"{"Nats-Expected-Last-Sequence":""}"#, "is empty"),
            (r#"{"Nats-TTL":""}"#, "is empty"),
        ] {
            let words = refused(api.post(PUBLISH, with(headers)), 400, "INVALID_MESSAGE_DATA");
            assert!(words.contains(word), "{headers}: {words}");
            refused(api.post(BATCH, format!("[{}]", with(headers))), 400, "INVALID_MESSAGE_DATA");
        }
        let raw = format!("/api/v1/broker/subjects/{}", SUBJECTS[1]);
        for empty in ["nats-expected-stream", "nats-expected-last-msg-id", "nats-ttl"] {
            let answer = api.post_with(&raw, &[(empty, "")], "x").answer();
            assert!(refused(answer, 400, "INVALID_MESSAGE_DATA").contains("is empty"));
        }
        for id in [" a", "a "] {
            let body = json!({ "subject": SUBJECTS[1], "message": 1, "msg_id": id });
            assert!(refused(api.post(PUBLISH, body), 400, "INVALID_MESSAGE_DATA").contains("blank"));
        }
        assert_eq!(state(&broker, "MARKET_DATA")["last_seq"], 0, "{version}");
        api.data(api.post(PUBLISH, with(r#"{"A":"","a":"x  y","B":["1","1"]}"#)));
        let stored = held(&broker, "MARKET_DATA", 1).headers;
        for line in ["A: ", "a: x  y", "B: 1\r\nB: 1"] {
            assert!(stored.contains(&format!("\r\n{line}\r\n")), "{line}: {stored}");
        }
    }
}

#[test]
fn a_time_to_live_is_refused_where_the_server_would_keep_the_message_for_ever() {
    for (version, heeds) in [("2.10.26", false), ("2.11.11", true), (CURRENT, true)] {
        let mut broker = Broker::with_server(version);
        broker.set("STREAMS_DEFAULTS", "none").start();
        let api = Api::of(&broker);
        let mut stream = json!({ "name": "TTL", "subjects": ["ttl.>"] });
        if heeds {
            stream["allow_msg_ttl"] = json!(true);
        }
        api.data(api.post("/api/v1/broker/streams", stream));
        let body = json!({ "subject": "ttl.a", "message": 1, "headers": { "Nats-TTL": "1h" } });
        let answers: [(u16, Value); 3] = [
            api.post(PUBLISH, &body),
            api.post(BATCH, json!([body])),
            api.post_with("/api/v1/broker/subjects/ttl.a", &[("nats-ttl", "1h")], "x").answer(),
        ];
        for answer in answers {
            if heeds {
                api.data(answer);
            } else {
                let words = refused(answer, 400, "INVALID_MESSAGE_DATA");
                assert!(words.contains("Nats-TTL needs nats-server 2.11 or later, and this one is 2.10.26"), "{words}");
            }
        }
        assert_eq!(state(&broker, "TTL")["last_seq"], if heeds { 3 } else { 0 }, "{version}");
    }
}

#[test]
fn half_of_a_surrogate_pair_is_told_for_what_it_is() {
    let mut broker = Broker::new();
    broker.start();
    let api = Api::of(&broker);
    for encoding in ["", r#","encoding":"text""#, r#","encoding":"base64""#] {
        for half in [r"\ud800", r"\udc00", r"\ud800x", r"\ud800\ud800"] {
            let body = format!(r#"{{"subject":"{}","message":"{half}"{encoding}}}"#, SUBJECTS[1]);
            let words = refused(api.post(PUBLISH, body), 400, "INVALID_MESSAGE_DATA");
            assert!(words.contains("surrogate pair"), "{half}{encoding}: {words}");
        }
    }
    let body = format!(r#"{{"subject":"{}","message":"\ud83d\ude00"}}"#, SUBJECTS[1]);
    api.data(api.post(PUBLISH, body));
    assert_eq!(held(&broker, "MARKET_DATA", 1).payload, "😀".as_bytes());
}

#[test]
fn a_purge_of_nothing_said_is_not_one_of_everything() {
    let mut broker = Broker::new();
    broker.start();
    let api = Api::of(&broker);
    api.publish(SUBJECTS[1], [json!(1), json!(2)]);
    let path = "/api/v1/broker/streams/MARKET_DATA/purge";
    for body in
        [r#"{"filter":null}"#, r#"{"seq":null}"#, r#"{"keep":null}"#, r#"{"filter":null,"keep":1}"#, "null", "[]"]
    {
        refused(api.post(path, body), 400, "INVALID_PARAMETERS");
    }
    let words = refused(api.post(path, r#"{"keep":null}"#), 400, "INVALID_PARAMETERS");
    assert!(words.contains("null says nothing"), "{words}");
    // What stands in the query would not be done either.
    let words = refused(api.post(&format!("{path}?filter=trade-data.x"), ""), 400, "INVALID_PARAMETERS");
    assert!(words.contains("filter"), "{words}");
    assert_eq!(state(&broker, "MARKET_DATA")["messages"], 2);
    assert_eq!(api.data(api.post(path, r#"{"keep":1}"#))["purged"], 1);
    assert_eq!(api.data(api.post(path, "{}"))["purged"], 1);
}
