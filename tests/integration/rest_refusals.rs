//! Each way in which publishing over HTTP can fail.

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::rest_calls::{Api, Whole, kill_until_it_pauses, refused};
use super::rest_publish::state;
use super::support::{Broker, SUBJECTS, freeze, wait_for};

const PUBLISH: &str = "/api/v1/broker/publish";
const BATCH: &str = "/api/v1/broker/publish/batch";
const STREAMS: &str = "/api/v1/broker/streams";
const JSON: (&str, &str) = ("content-type", "application/json");

fn raw(api: &Api, subject: &str, body: impl Into<Vec<u8>>) -> Whole {
    api.post_with(&format!("/api/v1/broker/subjects/{subject}"), &[], body)
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let mut broker = Broker::new();
    broker.start();
    let api = Api::of(&broker);
    let subject = SUBJECTS[1];
    let bodies = [
        "".to_owned(),
        "{".into(),
        "[]".into(),
        "null".into(),
        "\"a\"".into(),
        "{}".into(),
        format!(r#"{{"subject":"{subject}"}}"#),
        r#"{"message":1}"#.into(),
        format!(r#"{{"subject":"{subject}","message":1}} x"#),
        format!(r#"{{"subject":"{subject}","message":1,}}"#),
        format!(r#"{{"subject":"{subject}","message":NaN}}"#),
        format!(r#"{{"subject":"{subject}","message":"\ud800"}}"#),
        format!(r#"{{"subject":"{subject}","message":01}}"#),
        format!(r#"{{"subject":"{subject}","subject":"{subject}","message":1}}"#),
        format!(r#"{{"subject":["{subject}"],"message":1}}"#),
        r#"{"subject":1,"message":1}"#.into(),
        format!(r#"{{"subject":"{subject}","message":1,"msg_id":1}}"#),
        format!(r#"{{"subject":"{subject}","message":1,"msg_id":""}}"#),
        format!(r#"{{"subject":"{subject}","message":1,"msg_id":"a\nb"}}"#),
        format!(r#"{{"subject":"{subject}","message":1,"expected_last_sequence":-1}}"#),
        format!(r#"{{"subject":"{subject}","message":1,"expected_last_sequence":1.5}}"#),
        format!(r#"{{"subject":"{subject}","message":1,"expected_last_sequence":18446744073709551616}}"#),
        format!(r#"{{"subject":"{subject}","message":1,"encoding":"xml"}}"#),
        format!(r#"{{"subject":"{subject}","message":1,"encoding":"text"}}"#),
        format!(r#"{{"subject":"{subject}","message":1,"encoding":"base64"}}"#),
        format!(r#"{{"subject":"{subject}","message":"a","encoding":"base64"}}"#),
        format!(r#"{{"subject":"{subject}","message":"_-==","encoding":"base64"}}"#),
    ];
    for body in &bodies {
        for path in [PUBLISH, "/api/v1/publish"] {
            refused(api.post_with(path, &[JSON], body.clone()).answer(), 400, "INVALID_MESSAGE_DATA");
        }
    }
    let answer = api.post(PUBLISH, format!(r#"{{"subjct":"{subject}","message":1}}"#));
    assert_eq!((&answer.1["details"]["field"], &answer.1["details"]["nearest"]), (&json!("subjct"), &json!("subject")));
    let mut not_text = format!(r#"{{"subject":"{subject}","message":"x"}}"#).into_bytes();
    let at = not_text.len() - 3;
    not_text[at] = 0xff;
    refused(api.post_with(PUBLISH, &[JSON], not_text).answer(), 400, "INVALID_MESSAGE_DATA");

    let thousand = vec!["a"; 1000].join(".");
    let subjects = [
        "",
        " ",
        "a b",
        "a.b ",
        "a\tb",
        "a\nb",
        ".a",
        "a.",
        "a..b",
        "*",
        "a.*",
        ">",
        "a.>",
        "a\u{0}",
        "$JS.API.INFO",
        "$SYS.x",
        "_INBOX.a",
        "_R_.a",
        "_unified_nats_data.x",
        "$JS.ACK.a",
        &thousand,
    ];
    for subject in subjects {
        let body = json!({ "subject": subject, "message": 1 });
        let (status, code) = (400, "INVALID_MESSAGE_DATA");
        refused(api.post(PUBLISH, &body), status, code);
        let batch = api.post(BATCH, json!([body]));
        refused(batch, status, code);
        if !subject.is_empty() {
            refused(raw(&api, &percent(subject), "x").answer(), status, code);
        }
    }
    for odd in ["trade-data.ä", "trade-data.日本", "trade-data.a*b", "trade-data.%", "trade-data.\u{85}"] {
        let (status, answer) = api.post(PUBLISH, json!({ "subject": odd, "message": 1 }));
        assert!(
            status == 200 || (status, &answer["error_code"]) == (400, &json!("INVALID_MESSAGE_DATA")),
            "{odd}: {answer}"
        );
        let raw = raw(&api, &percent(odd), "x").answer();
        assert_eq!(raw.0, status, "{odd}: {}", raw.1);
    }
    for path in ["%ff", "a%", "a%2", "a%zz"] {
        let (status, answer) = raw(&api, path, "x").answer();
        assert!([400, 404].contains(&status), "{path}: {status} {answer}");
    }
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn what_is_too_large_is_refused_wherever_that_is_found() {
    let mut broker = Broker::new();
    broker.set("NATS_MAX_PAYLOAD", "8KB").set("API_MAX_BODY", "64KB").start();
    let api = Api::of(&broker);
    let message = |bytes: usize| json!({ "subject": SUBJECTS[1], "message": "x".repeat(bytes) });
    api.data(api.post(PUBLISH, message(8192)));
    api.data(raw(&api, SUBJECTS[1], vec![0; 8192]).answer());
    // The body, the payload, the payload with its headers.
    refused(api.post(PUBLISH, message(65_000)), 413, "PAYLOAD_TOO_LARGE");
    let mut heavy = message(8000);
    heavy["headers"] = json!({ "x": "y".repeat(300) });
    for body in [&message(8193), &heavy] {
        let words = refused(api.post(PUBLISH, body), 413, "PAYLOAD_TOO_LARGE");
        assert!(words.contains("NATS_MAX_PAYLOAD"), "{words}");
        let (status, answer) = api.post(BATCH, json!([body, message(1)]));
        let first = &answer["data"]["results"][0];
        assert_eq!((status, &first["http_status"]), (207, &json!(413)), "{answer}");
        assert_eq!(first["error_code"], "PAYLOAD_TOO_LARGE", "{answer}");
    }
    refused(raw(&api, SUBJECTS[1], vec![0; 8193]).answer(), 413, "PAYLOAD_TOO_LARGE");
    let line = format!("{}\n", message(70_000));
    let answer = api.post_with(BATCH, &[("content-type", "application/x-ndjson")], line);
    assert_eq!((answer.status, &answer.lines()[0]["error_code"]), (413, &json!("PAYLOAD_TOO_LARGE")));

    api.data(api.post(STREAMS, json!({ "name": "SMALL", "subjects": ["small.>"], "max_msg_size": 10 })));
    api.data(raw(&api, "small.a", "0123456789").answer());
    refused(raw(&api, "small.a", "0123456789a").answer(), 413, "PAYLOAD_TOO_LARGE");
    api.data(api.post(
        STREAMS,
        json!({
            "name": "FULL", "subjects": ["full.>"], "max_msgs": 1, "discard": "new", "max_bytes": 10_000,
        }),
    ));
    api.data(raw(&api, "full.a", "x").answer());
    refused(raw(&api, "full.a", "x").answer(), 507, "INSUFFICIENT_STORAGE");
    api.data(api.post(STREAMS, json!({
        "name": "EACH", "subjects": ["each.>"], "max_msgs_per_subject": 1, "discard": "new", "discard_new_per_subject": true,
    })));
    api.data(raw(&api, "each.a", "x").answer());
    refused(raw(&api, "each.a", "x").answer(), 507, "INSUFFICIENT_STORAGE");
    api.data(api.post(STREAMS, json!({ "name": "SEALED", "subjects": ["sealed.>"] })));
    assert_eq!(state(&broker, "FULL")["messages"], 1);
    let text = api.post_with(PUBLISH, &[("content-type", "text/plain")], message(1).to_string());
    refused(text.answer(), 415, "UNSUPPORTED_MEDIA_TYPE");
    refused(api.post(PUBLISH, json!({ "subject": "nobody.a", "message": 1 })), 404, "STREAM_NOT_FOUND");
    refused(raw(&api, "nobody.a", "x").answer(), 404, "STREAM_NOT_FOUND");
}

#[test]
fn while_no_server_is_there_a_message_is_known_not_to_be_stored() {
    let mut broker = Broker::new();
    broker.set("RESTART_BACKOFF_MIN", "20s").set("RESTART_BACKOFF_MAX", "20s").set("API_REQUEST_TIMEOUT", "3s");
    broker.start();
    let api = Api::of(&broker);
    api.publish(SUBJECTS[1], [json!(1)]);
    kill_until_it_pauses(&broker);
    let body = json!({ "subject": SUBJECTS[1], "message": 1 });
    let raw_path = format!("/api/v1/broker/subjects/{}", SUBJECTS[1]);
    let many = json!(vec![&body; 5_000]).to_string();
    let lines = format!("{body}\n{body}\n");
    // Each waits for a server as long as a request may take, and so at once.
    let asked = [
        (PUBLISH, vec![JSON], body.to_string()),
        (PUBLISH, vec![JSON, ("idempotency-key", "a")], body.to_string()),
        ("/api/v1/publish", vec![JSON], body.to_string()),
        (&raw_path, vec![], "x".into()),
        (BATCH, vec![JSON], json!([body, body]).to_string()),
        (BATCH, vec![JSON], many),
        (BATCH, vec![("content-type", "application/x-ndjson")], lines),
    ];
    let answers = std::thread::scope(|scope| {
        let api = &api;
        asked
            .map(|(path, headers, body)| scope.spawn(move || api.post_with(path, &headers, body)))
            .map(|asked| asked.join())
    });
    let [answers @ .., lines] = answers.map(Result::unwrap);
    for answer in &answers {
        let seconds = answer.headers.get("retry-after").and_then(|after| after.to_str().ok()?.parse::<u64>().ok());
        assert!(seconds.is_some_and(|seconds| seconds > 0), "{:?}", answer.headers);
        refused(answer.answer(), 503, "NATS_CONNECTION_ERROR");
    }
    let [.., many] = answers;
    assert_eq!(many.answer().1["details"]["results"][4_999]["http_status"], 503, "none of them was sent");
    assert_eq!((lines.status, &lines.lines()[1]["http_status"]), (503, &json!(503)), "{}", lines.text);
    assert!(lines.headers.contains_key("retry-after"), "{:?}", lines.headers);
}

/// Its stream may be one that is not there yet.
#[test]
fn a_server_that_is_not_ready_is_not_believed_that_nobody_captures_a_subject() {
    let mut broker = Broker::new();
    broker.set("STREAMS_DEFAULTS", "none").set("API_REQUEST_TIMEOUT", "1s").start();
    let api = Api::of(&broker);
    api.data(api.post(STREAMS, json!({ "name": "S", "subjects": ["s.>"] })));
    assert_eq!(broker.stop(), Some(0));
    let file = broker.path("streams.yml");
    // Its subjects are another's.
    std::fs::write(&file, "streams: {T: {subjects: [s.>]}}").unwrap();
    broker.set("STREAMS_FILE", file.display()).launch();
    wait_for("it is degraded", || (broker.state() == "degraded").then_some(()));
    api.publish("s.a", [json!(1)]);
    let nobody = json!({ "subject": "nobody.a", "message": 1 });
    for answer in [api.post(PUBLISH, &nobody), api.post(BATCH, json!([nobody]))] {
        refused(answer, 503, "SERVICE_UNAVAILABLE");
    }
}

#[test]
fn a_message_of_which_nothing_is_heard_may_have_been_stored() {
    let mut broker = Broker::new();
    broker.set("API_REQUEST_TIMEOUT", "500ms").set("STREAMS_DEFAULTS", "none").start();
    let api = Api::of(&broker);
    api.data(api.post(STREAMS, json!({ "name": "S", "subjects": ["s.>"], "allow_atomic": true })));
    api.publish("s.a", [json!(0)]);
    let server = broker.server_pid();
    freeze(server);
    let body = json!({ "subject": "s.a", "message": 1 });
    let unknown = |answer: (u16, Value), id: Value| {
        let details = &answer.1["details"];
        assert_eq!((&details["may_have_been_stored"], &details["msg_id"]), (&json!(true), &id), "{}", answer.1);
        let words = refused(answer, 504, "TIMEOUT");
        assert!(words.contains("may have been stored"), "{words}");
        assert_eq!(words.contains("\"the-key\""), !id.is_null(), "{words}");
    };
    let key = ("idempotency-key", "the-key");
    unknown(api.post(PUBLISH, &body), Value::Null);
    unknown(api.post_with(PUBLISH, &[JSON, key], body.to_string()).answer(), json!("the-key"));
    unknown(api.post_with("/api/v1/broker/subjects/s.a", &[key], "1").answer(), json!("the-key"));
    let batch =
        api.post_with(BATCH, &[JSON, key], json!([body, { "subject": "a b", "message": 1 }]).to_string()).answer();
    assert_eq!(batch.1["details"]["results"][0]["details"]["msg_id"], "the-key:0", "{}", batch.1);
    refused(batch, 504, "TIMEOUT");
    // What is not known is what the whole answers, whichever came first.
    let batch = api.post(BATCH, json!([{ "subject": "a b", "message": 1 }, body]));
    refused(batch, 504, "TIMEOUT");
    let lines = api.post_with(BATCH, &[("content-type", "application/x-ndjson")], format!("{{}}\n{body}\n"));
    assert_eq!((lines.status, &lines.lines()[1]["http_status"]), (504, &json!(504)), "{}", lines.text);
    kill(server, Signal::SIGCONT).unwrap();
    broker.wait_until_ready();
    // The same message again, with its id: once. The raw one is it, too, and so is what was sent while it stood.
    let again = wait_for("it is answered again", || {
        let answer = api.post_with(PUBLISH, &[JSON, key], body.to_string());
        (answer.status == 200).then(|| api.data(answer.answer()))
    });
    assert_eq!(again["duplicate"], true, "{again}");
}
