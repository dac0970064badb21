//! Streams that store messages under other subjects than they capture are read by those.

use serde_json::{Value, json};

use super::rest_calls::{Api, refused};
use super::sse::Sse;
use super::support::{Broker, CURRENT, JetStream, block_on, http_client, wait_for};

const STREAMS: &str = "/api/v1/broker/streams";

/// `T` stores `in.>` as `out.>`; `S` and `M` copy it under subjects of their own, `W` as it is.
fn broker(version: &str) -> Broker {
    let mut broker = Broker::with_server(version);
    broker.set("STREAMS_DEFAULTS", "none").start();
    let api = Api::of(&broker);
    for stream in [
        json!({ "name": "T", "subjects": ["in.>"], "subject_transform": { "src": "in.>", "dest": "out.>" }, "allow_direct": true }),
        json!({ "name": "S", "sources": [{ "name": "T", "subject_transforms": [{ "src": "out.*", "dest": "agg.$1" }] }] }),
        json!({ "name": "M", "mirror": { "name": "T", "subject_transforms": [{ "src": "out.>", "dest": "mir.>" }] } }),
        json!({ "name": "W", "mirror": { "name": "T" } }),
    ] {
        api.data(api.post(STREAMS, stream));
    }
    for (number, subject) in (1..).zip(["in.a", "in.b", "in.a"]) {
        let stored = api.data(api.post("/api/v1/broker/publish", json!({ "subject": subject, "message": number })));
        assert_eq!((&stored["stream"], &stored["sequence"]), (&json!("T"), &json!(number)));
    }
    for copy in ["S", "M", "W"] {
        let held = || api.data(api.get(&format!("{STREAMS}/{copy}")))["messages"] == 3;
        wait_for("it has been copied", || held().then_some(()));
    }
    broker
}

fn lines(broker: &Broker, query: &str) -> Vec<Value> {
    let text = block_on(async {
        let answer = http_client().get(broker.api(&format!("/api/v1/broker/replay?{query}"))).send().await.unwrap();
        answer.text().await.unwrap()
    });
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn subjects(messages: &[Value]) -> Vec<&str> {
    messages.iter().filter_map(|message| message["subject"].as_str()).collect()
}

#[test]
fn what_is_stored_under_another_subject_is_read_by_that() {
    for version in [CURRENT, "2.12.8", "2.10.26"] {
        let broker = broker(version);
        let api = Api::of(&broker);
        for (stream, subject, found) in [
            ("T", "out.a", ["out.a", "out.a"].as_slice()),
            ("T", "out.%3E", &["out.a", "out.b", "out.a"]),
            ("S", "agg.b", &["agg.b"]),
            ("M", "mir.*", &["mir.a", "mir.b", "mir.a"]),
        ] {
            for named in ["", &format!("&stream={stream}")] {
                let messages = lines(&broker, &format!("subject={subject}{named}"));
                assert_eq!(subjects(&messages), found, "{version} {subject}{named}: {messages:?}");
                assert_eq!(messages.last().unwrap()["end"]["complete"], true);
                let tailed = block_on(async {
                    let url = broker.api(&format!("/api/v1/broker/tail?subject={subject}{named}&from=1"));
                    Sse::open(&url, None).await.unwrap().messages(found.len()).await
                });
                assert_eq!(subjects(&tailed), found, "{version} {subject}{named}");
                assert_eq!(tailed[0]["stream"], stream);
            }
            let last = api.data(api.get(&format!("{STREAMS}/{stream}/messages?subject={subject}&last=true")));
            assert_eq!(last["subject"], *found.last().unwrap());
            let lasts = api.data(api.get(&format!("/api/v1/broker/last?subject={subject}")));
            let of_stream = |list: &Value| list.as_array().unwrap().iter().all(|one| one["stream"] == stream);
            let distinct: std::collections::BTreeSet<_> = found.iter().collect();
            assert_eq!(lasts["messages"].as_array().unwrap().len(), distinct.len(), "{version} {subject}: {lasts}");
            assert!(of_stream(&lasts["messages"]), "{lasts}");
            let paged = api.data(api.get(&format!("/api/v1/broker/last?subject={subject}&limit=10")));
            assert_eq!(paged["messages"], lasts["messages"]);
            let listed = api.data(api.get(&format!("/api/v1/broker/subjects?filter={subject}")));
            assert_eq!(listed["subjects"].as_array().unwrap().len(), distinct.len(), "{version} {subject}: {listed}");
            assert!(of_stream(&listed["subjects"]), "{listed}");
        }
        // Whoever answers for a stream: its mirrors do as well.
        for _ in 0..20 {
            let lasts = api.data(api.get("/api/v1/broker/last?subject=out.*"));
            let pairs: Vec<_> =
                lasts["messages"].as_array().unwrap().iter().map(|one| (&one["stream"], &one["subject"])).collect();
            let (t, a, b) = (json!("T"), json!("out.a"), json!("out.b"));
            assert_eq!(pairs, [(&t, &a), (&t, &b)], "{version}");
        }
        // A copy that changes no subject is found by its name alone.
        assert_eq!(subjects(&lines(&broker, "subject=out.b&stream=W")), ["out.b"]);
    }
}

#[test]
fn what_nobody_stores_is_told_with_what_is_stored_instead() {
    let broker = broker(CURRENT);
    let api = Api::of(&broker);
    for path in ["replay?subject=in.a", "tail?subject=in.a", "tail?subject=in.a&stream=T"] {
        let words = refused(api.get(&format!("/api/v1/broker/{path}")), 404, "STREAM_NOT_FOUND");
        assert!(words.contains("stream T stores messages under out.>"), "{path}: {words}");
        assert!(!words.contains("nothing was stored"), "{path}: {words}");
    }
    for path in ["replay?subject=nowhere", "tail?subject=nowhere"] {
        let words = refused(api.get(&format!("/api/v1/broker/{path}")), 404, "STREAM_NOT_FOUND");
        assert_eq!(words, "no stream captures nowhere or stores messages under it");
    }
    let none = api.data(api.get("/api/v1/broker/last?subject=in.a"));
    assert_eq!(none["messages"], json!([]));
    // Several may store what nobody captures.
    api.data(api.post(
        STREAMS,
        json!({ "name": "T2", "subjects": ["in2.>"], "subject_transform": { "src": "in2.>", "dest": "out.>" } }),
    ));
    let words = refused(api.get("/api/v1/broker/replay?subject=out.a"), 400, "INVALID_PARAMETERS");
    assert!(words.contains("(T, T2)") && words.contains("stream="), "{words}");
    // One that captures it goes before them.
    api.data(api.post(STREAMS, json!({ "name": "O", "subjects": ["out.>"] })));
    api.publish("out.a", [json!("own")]);
    let messages = lines(&broker, "subject=out.a");
    assert_eq!((messages[0]["stream"].as_str(), subjects(&messages)), (Some("O"), vec!["out.a"]));
}

#[test]
fn a_transform_that_is_new_is_known_at_once() {
    let broker = broker(CURRENT);
    let api = Api::of(&broker);
    assert_eq!(api.data(api.get("/api/v1/broker/last?subject=new.>"))["messages"], json!([]));
    let stream = json!({ "name": "N", "subjects": ["n.>"], "subject_transform": { "src": "n.>", "dest": "new.>" } });
    api.data(api.post(STREAMS, stream));
    api.publish("n.a", [json!(1)]);
    let lasts = api.data(api.get("/api/v1/broker/last?subject=new.>"));
    assert_eq!(lasts["messages"][0]["subject"], "new.a", "{lasts}");
    // Somebody else's as well, a little later.
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let stream =
            json!({ "name": "X", "subjects": ["x.>"], "subject_transform": { "src": "x.>", "dest": "else.>" } });
        jetstream.ask("$JS.API.STREAM.CREATE.X", stream).await;
        jetstream.publish("x.a", "1").await;
    });
    wait_for("it is known", || {
        let lasts = api.data(api.get("/api/v1/broker/last?subject=else.>"));
        (lasts["messages"][0]["subject"] == "else.a").then_some(())
    });
}
