//! Batches over HTTP: arrays, lines, and what is stored as a whole.

use serde_json::{Value, json};

use super::rest_calls::{Api, Whole, refused};
use super::rest_publish::{held, state};
use super::support::{Broker, CURRENT, SUBJECTS};

const BATCH: &str = "/api/v1/broker/publish/batch";
const ATOMIC: &str = "/api/v1/broker/publish/batch?atomic=true";
const STREAMS: &str = "/api/v1/broker/streams";
const JSON: (&str, &str) = ("content-type", "application/json");
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

fn array(api: &Api, headers: &[(&str, &str)], entries: &[Value]) -> Whole {
    api.post_with(BATCH, &[&[JSON], headers].concat(), json!(entries).to_string())
}

fn text_of(entries: &[Value]) -> String {
    entries.iter().map(|entry| format!("{entry}\n")).collect()
}

fn lines(api: &Api, headers: &[(&str, &str)], entries: &[Value]) -> Whole {
    api.post_with(BATCH, &[&[LINES], headers].concat(), text_of(entries))
}

fn entry(subject: &str, message: impl Into<Value>) -> Value {
    json!({ "subject": subject, "message": message.into() })
}

/// Good, bad, good, captured by nobody, good.
fn mixed() -> [Value; 5] {
    let bad = json!({ "subjet": SUBJECTS[1], "message": 1 });
    [entry(SUBJECTS[1], 0), bad, entry(SUBJECTS[2], 2), entry("nobody.at.all", 3), entry(SUBJECTS[1], 4)]
}

#[test]
fn each_entry_has_its_own_outcome_in_order() {
    for version in [CURRENT, "2.10.26"] {
        let mut broker = Broker::with_server(version);
        broker.start();
        let api = Api::of(&broker);
        let all = array(&api, &[], &[entry(SUBJECTS[1], "a"), entry(SUBJECTS[2], "b")]);
        let data = api.data(all.answer());
        assert_eq!((&data["published"], &data["failed"]), (&json!(2), &json!(0)));
        let second = json!({
            "index": 1, "status": "success", "stream": "MARKET_DATA", "sequence": 2, "duplicate": false,
            "subject": SUBJECTS[2],
        });
        assert_eq!(data["results"][1], second);

        let some = array(&api, &[], &mixed());
        assert_eq!(some.status, 207, "{}", some.text);
        let results = some.answer().1["data"]["results"].clone();
        judge_mixed(results.as_array().unwrap(), 3);
        let some = lines(&api, &[], &mixed());
        assert_eq!((some.status, some.headers["content-type"].to_str().unwrap()), (207, LINES.1));
        let mut results = some.lines();
        assert_eq!(results.pop(), Some(json!({ "end": true, "status": "error", "published": 3, "failed": 2 })));
        judge_mixed(&results, 6);
        assert_eq!(held(&broker, "MARKET_DATA", 7).payload, b"2");

        let failed = api.post_with(&format!("{BATCH}?results=failed"), &[LINES], text_of(&mixed()));
        let indices: Vec<_> = failed.lines().iter().map(|line| line["index"].clone()).collect();
        assert_eq!(indices, [json!(1), json!(3), Value::Null]);
        let failed = api.post_with(&format!("{BATCH}?results=failed"), &[JSON], json!(mixed()).to_string());
        assert_eq!(failed.answer().1["data"]["results"].as_array().unwrap().len(), 2);
    }
}

fn judge_mixed(results: &[Value], first: u64) {
    let sequences: Vec<_> = results.iter().map(|result| result["sequence"].as_u64()).collect();
    assert_eq!(sequences, [Some(first), None, Some(first + 1), None, Some(first + 2)]);
    let of = |index: usize| (&results[index]["index"], &results[index]["error_code"], &results[index]["http_status"]);
    assert_eq!(of(1), (&json!(1), &json!("INVALID_MESSAGE_DATA"), &json!(400)));
    assert_eq!(results[1]["details"]["nearest"], "subject");
    assert_eq!(of(3), (&json!(3), &json!("STREAM_NOT_FOUND"), &json!(404)));
}

#[test]
fn a_batch_of_which_nothing_is_stored_says_so_entry_by_entry() {
    let mut broker = Broker::new();
    broker.start();
    let api = Api::of(&broker);
    let nobody = [entry("nobody.a", 1), json!({ "subject": "a b", "message": 1 })];
    let answer = array(&api, &[], &nobody).answer();
    assert_eq!(answer.1["details"]["results"][1]["http_status"], 400);
    refused(answer, 404, "STREAM_NOT_FOUND");
    let answer = lines(&api, &[], &nobody);
    assert_eq!((answer.status, answer.headers["content-type"].to_str().unwrap()), (404, LINES.1), "{}", answer.text);
    let statuses: Vec<_> = answer.lines().iter().map(|line| line["http_status"].clone()).collect();
    assert_eq!(statuses, [json!(404), json!(400), Value::Null]);
    for broken in ["{", "[]", "1", "\"a\"", "{}", "\u{feff}{}"] {
        let answer = api.post_with(BATCH, &[LINES], broken);
        assert_eq!(
            (answer.status, &answer.lines()[0]["error_code"]),
            (400, &json!("INVALID_MESSAGE_DATA")),
            "{broken}"
        );
        refused(api.post_with(BATCH, &[JSON], broken).answer(), 400, "INVALID_MESSAGE_DATA");
    }
    let answer = api.post_with(BATCH, &[LINES], b"\xff\n".to_vec());
    assert_eq!((answer.status, answer.lines()[1]["failed"].clone()), (400, json!(1)));
    for query in ["atomic=yes", "atomic", "results=some", "atomik=true", "x=1"] {
        refused(api.post_with(&format!("{BATCH}?{query}"), &[JSON], "[]").answer(), 400, "INVALID_PARAMETERS");
    }
    refused(api.post_with(BATCH, &[("content-type", "text/csv")], "a").answer(), 415, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(state(&broker, "MARKET_DATA")["messages"], 0);
}

#[test]
fn lines_are_stored_in_their_order() {
    const LINES_OF_IT: usize = 50_000;
    let mut broker = Broker::new();
    broker.set("API_REQUEST_TIMEOUT", "60s").start();
    let api = Api::of(&broker);
    let body: String = (0..LINES_OF_IT)
        .map(|number| format!("{{\"subject\":\"{}\",\"message\":{number}}}\r\n\n", SUBJECTS[number % 8]))
        .collect();
    let answer = api.post_with(BATCH, &[LINES], body);
    assert_eq!(answer.status, 207, "it began before the end");
    let mut outcomes = answer.lines();
    let end = outcomes.pop().unwrap();
    assert_eq!(end, json!({ "end": true, "status": "success", "published": LINES_OF_IT, "failed": 0 }));
    assert_eq!(outcomes.len(), LINES_OF_IT);
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!((&outcome["index"], &outcome["sequence"]), (&json!(index), &json!(index + 1)));
    }
    let replayed = http(&broker, "/api/v1/broker/replay?subject=*.>");
    let payloads: Vec<_> = replayed.iter().filter_map(|line| line["message"].as_u64()).collect();
    assert_eq!(payloads.len(), LINES_OF_IT, "{:?}", &replayed[..2]);
    assert!(payloads.iter().enumerate().all(|(index, payload)| index as u64 == *payload), "in their order");
}

fn http(broker: &Broker, path: &str) -> Vec<Value> {
    let url = broker.api(path);
    let text = super::support::block_on(async {
        let answer = super::support::http_client().get(url).send().await.unwrap();
        answer.text().await.unwrap()
    });
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn lines_may_come_for_longer_than_a_request_may_take() {
    let mut broker = Broker::new();
    broker.set("API_REQUEST_TIMEOUT", "1s").start();
    let started = std::time::Instant::now();
    let url = broker.api(&format!("{BATCH}?results=failed"));
    let (status, text) = super::support::block_on(async {
        use http_body_util::StreamBody;
        use hyper::body::Frame;
        let pieces = futures_util::stream::unfold(0, |number| async move {
            if number == 15 {
                return None;
            }
            // The client is slow: that is the case.
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            let line = format!("{}\n", entry(SUBJECTS[1], number));
            Some((Ok::<_, std::io::Error>(Frame::data(bytes::Bytes::from(line))), number + 1))
        });
        let body = reqwest::Body::wrap(StreamBody::new(pieces));
        let request = super::support::http_client().post(url).header(LINES.0, LINES.1).body(body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    });
    assert!(started.elapsed() > std::time::Duration::from_secs(3));
    assert_eq!((status, text.trim()), (207, r#"{"end":true,"status":"success","published":15,"failed":0}"#));
}

#[test]
fn a_key_makes_a_whole_batch_repeatable() {
    let mut broker = Broker::new();
    broker.start();
    let api = Api::of(&broker);
    let mut own = entry(SUBJECTS[1], 2);
    own["msg_id"] = json!("own");
    let entries = [entry(SUBJECTS[1], 0), entry(SUBJECTS[1], 1), own];
    let first = api.data(array(&api, &[("idempotency-key", "\"b\"")], &entries).answer());
    let ids = |sequence| held(&broker, "MARKET_DATA", sequence).headers;
    assert_eq!(
        [ids(1), ids(2), ids(3)],
        ["b:0", "b:1", "own"].map(|id| format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n"))
    );
    let again = api.data(array(&api, &[("idempotency-key", "b")], &entries).answer());
    let outcomes = lines(&api, &[("idempotency-key", "b")], &entries).lines();
    for index in 0..3 {
        let sequence = &first["results"][index]["sequence"];
        for outcome in [&again["results"][index], &outcomes[index]] {
            assert_eq!((&outcome["sequence"], &outcome["duplicate"]), (sequence, &json!(true)));
        }
    }
    assert_eq!(state(&broker, "MARKET_DATA")["messages"], 3);
}

#[test]
fn an_array_has_a_bound_and_costs_no_memory_beyond_it() {
    let mut broker = Broker::new();
    broker.set("API_MAX_BODY", "64MB").start();
    let api = Api::of(&broker);
    let entry = entry(SUBJECTS[1], 1).to_string();
    let whole = format!("[{}{entry}]", format!("{entry},").repeat(9_999));
    assert_eq!(api.data(api.post_with(BATCH, &[JSON], whole).answer())["published"], 10_000);
    let more = format!("[{}{entry}]", format!("{entry},").repeat(10_000));
    let words = refused(api.post_with(BATCH, &[JSON], more).answer(), 413, "PAYLOAD_TOO_LARGE");
    assert!(words.contains("application/x-ndjson"), "{words}");
    let before = peak(&broker);
    refused(
        api.post_with(BATCH, &[JSON], format!("[{}1]", "1,".repeat(10_000_000))).answer(),
        413,
        "PAYLOAD_TOO_LARGE",
    );
    let grown = peak(&broker) - before;
    assert!(grown < 80 << 20, "ten million entries took {} MiB beside the body of 20", grown >> 20);
    refused(api.post_with(BATCH, &[JSON], "[]").answer(), 400, "INVALID_MESSAGE_DATA");
}

/// The most memory that the broker has held so far, in bytes.
fn peak(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn an_atomic_batch_is_stored_as_a_whole_or_not_at_all() {
    let mut broker = Broker::new();
    broker.set("STREAMS_DEFAULTS", "none").start();
    let api = Api::of(&broker);
    api.data(api.post(STREAMS, json!({ "name": "WHOLE", "subjects": ["whole.>"], "allow_atomic": true })));
    api.data(api.post(STREAMS, json!({ "name": "PLAIN", "subjects": ["plain.>"] })));
    let atomic = |headers: &[(&str, &str)], entries: &[Value]| {
        api.post_with(ATOMIC, &[&[JSON], headers].concat(), json!(entries).to_string()).answer()
    };
    let two = [entry("whole.a", "x"), entry("whole.b", json!({ "n": 1 }))];
    let data = api.data(atomic(&[], &two));
    let answer = json!({ "published": 2, "failed": 0, "stream": "WHOLE", "first_sequence": 1, "sequence": 2 });
    assert_eq!(data, answer);
    assert_eq!(held(&broker, "WHOLE", 2).payload, br#"{"n":1}"#);
    assert_eq!(api.data(atomic(&[], &two[..1]))["sequence"], 3);
    let thousand: Vec<_> = (0..1000).map(|number| entry("whole.a", number)).collect();
    assert_eq!(api.data(atomic(&[], &thousand))["first_sequence"], 4);
    assert_eq!(api.data(atomic(&[("idempotency-key", "k")], &two))["sequence"], 1005);

    let with = |mut entry: Value, key: &str, value: Value| {
        entry[key] = value;
        entry
    };
    let id = |entry, id: &str| with(entry, "msg_id", json!(id));
    let plain = |subject| entry(subject, 1);
    let expecting = |name: &str, value: &str| with(plain("whole.a"), "headers", json!({ name: value }));
    type Case<'a> = (&'a [(&'a str, &'a str)], Vec<Value>, u16, &'a str, &'a str);
    let cases: [Case<'_>; 12] = [
        (&[], vec![], 400, "INVALID_MESSAGE_DATA", "empty"),
        (&[], vec![plain("whole.a"); 1001], 400, "INVALID_MESSAGE_DATA", "1000"),
        (&[], vec![plain("plain.a")], 400, "INVALID_MESSAGE_DATA", "allow_atomic"),
        (&[], vec![plain("plain.a"), plain("whole.a")], 400, "INVALID_MESSAGE_DATA", "one stream"),
        (&[], vec![plain("whole.a"), plain("nobody.a")], 404, "STREAM_NOT_FOUND", "nobody.a"),
        (&[], vec![id(plain("whole.a"), "t"), id(plain("whole.b"), "t")], 400, "INVALID_MESSAGE_DATA", "\"t\""),
        (&[("idempotency-key", "k")], two.to_vec(), 400, "INVALID_MESSAGE_DATA", "duplicate"),
        (&[], vec![expecting("Nats-Expected-Last-Msg-Id", "x")], 400, "INVALID_MESSAGE_DATA", "Last-Msg-Id"),
        (&[], vec![plain("whole.a"), json!({ "subject": "whole.a" })], 400, "INVALID_MESSAGE_DATA", "message 1"),
        (
            &[],
            vec![with(plain("whole.a"), "expected_last_sequence", json!(7)), plain("whole.a")],
            412,
            "PRECONDITION_FAILED",
            "sequence",
        ),
        (&[], vec![expecting("Nats-Expected-Stream", "OTHER"), plain("whole.a")], 412, "PRECONDITION_FAILED", "stream"),
        (
            &[],
            vec![plain("whole.a"), entry("whole.a", "x".repeat(1 << 20) + "x")],
            413,
            "PAYLOAD_TOO_LARGE",
            "NATS_MAX_PAYLOAD",
        ),
    ];
    for (headers, entries, status, code, words) in cases {
        let said = refused(atomic(headers, &entries), status, code);
        assert!(said.contains(words), "{said}");
    }
    refused(api.post_with(ATOMIC, &[LINES], text_of(&two)).answer(), 400, "INVALID_MESSAGE_DATA");
    assert_eq!(state(&broker, "WHOLE")["messages"], 1005, "nothing of those was stored");
    let wanted = with(plain("whole.a"), "expected_last_sequence", json!(1005));
    assert_eq!(api.data(atomic(&[], &[wanted, plain("whole.b")]))["sequence"], 1007);

    let mut old = Broker::with_server("2.10.26");
    old.start();
    let api = Api::of(&old);
    let answer = api.post_with(ATOMIC, &[JSON], json!([entry(SUBJECTS[1], 1)]).to_string()).answer();
    let words = refused(answer, 400, "INVALID_MESSAGE_DATA");
    assert!(words.contains("2.12"), "{words}");
}
