//! Streams over the REST API.

use serde_json::{Value, json};

use super::rest_calls::{Api, refused};
use super::support::{Broker, JetStream, block_on};

const STREAMS: &str = "/api/v1/broker/streams";

fn broker(version: &str) -> Broker {
    let mut broker = Broker::with_server(version);
    broker.set("STREAMS_DEFAULTS", "none").start();
    broker
}

/// A key that serde_json takes for a mark of its own hides neither its stream nor the others.
#[test]
fn clients_call_their_metadata_what_they_like() {
    let broker = broker(super::support::CURRENT);
    let api = Api::of(&broker);
    let metadata = json!({ "$serde_json::private::RawValue": "not JSON" });
    block_on(async {
        let client = broker.client().await;
        let stream = json!({ "name": "foreign", "subjects": ["foreign.>"], "metadata": metadata });
        client.request("$JS.API.STREAM.CREATE.foreign", stream.to_string().into()).await.unwrap();
        let consumer = json!({ "stream_name": "foreign",
            "config": { "durable_name": "reader", "ack_policy": "explicit", "metadata": metadata } });
        let subject = "$JS.API.CONSUMER.DURABLE.CREATE.foreign.reader";
        client.request(subject, consumer.to_string().into()).await.unwrap();
    });
    api.data(api.post(STREAMS, json!({ "name": "own", "subjects": ["own.>"], "metadata": metadata }).to_string()));

    let listed = api.data(api.get(STREAMS));
    let names: Vec<_> = listed["streams"].as_array().unwrap().iter().map(|stream| &stream["name"]).collect();
    assert_eq!(names, ["foreign", "own"]);
    for name in ["foreign", "own"] {
        let config = api.data(api.get(&format!("{STREAMS}/{name}")))["config"].clone();
        assert_eq!(config["metadata"]["$serde_json::private::RawValue"], "not JSON", "{config}");
    }
    let consumers = api.data(api.get(&format!("{STREAMS}/foreign/consumers")));
    assert_eq!(consumers["consumers"][0]["name"], "reader", "{consumers}");
}

#[test]
fn the_commands_of_both_generations_make_and_list_streams() {
    let broker = broker(super::support::CURRENT);
    let api = Api::of(&broker);
    let body = r#"{"name":"test_stream","subjects":["test.>"]}"#;
    let made = api.data(api.post(STREAMS, body));
    assert_eq!((&made["name"], &made["is_new"]), (&"test_stream".into(), &true.into()));
    let again = api.data(api.post(STREAMS, body));
    assert_eq!(again["is_new"], false, "the same configuration is as good as made: {again}");
    let whole = r#"{
  "name": "market_data",
  "subjects": ["market.>", "trades.>"],
  "retention": "limits",
  "max_msgs": 1000000,
  "max_bytes": 1073741824,
  "max_age": 86400
}"#;
    let made = api.data(api.post(STREAMS, whole));
    let config = &made["config"];
    assert_eq!((&config["max_age"], &config["max_bytes"]), (&86400.into(), &1073741824.into()), "{config}");
    let info = block_on(async { JetStream(broker.client().await).info("market_data").await });
    assert_eq!(info["config"]["max_age"], 86_400_000_000_000i64);
    assert_eq!(info["config"]["metadata"]["managed-by"], Value::Null, "a stream of a client is not ours: {info}");
    api.data(api.post("/api/v1/broker/publish", r#"{"subject":"test.message","message":"Hello World"}"#));

    let listed = api.data(api.get(STREAMS));
    let names: Vec<_> = listed["streams"].as_array().unwrap().iter().map(|stream| &stream["name"]).collect();
    assert_eq!(names, ["market_data", "test_stream"]);
    assert_eq!((&listed["total"], &listed["cursor"]), (&2.into(), &Value::Null));
    let (status, plain) = api.get("/api/v1/streams");
    assert_eq!(status, 200);
    let second = &plain["streams"][1];
    let expected = json!({
        "name": "test_stream", "subjects": ["test.>"], "messages": 1, "bytes": second["bytes"], "first_seq": 1,
        "last_seq": 1, "consumer_count": 0,
    });
    assert_eq!(second, &expected);

    let differs = api.post(STREAMS, r#"{"name":"test_stream","subjects":["test.>"],"max_age":3600}"#);
    assert_eq!(differs.1["details"]["differences"], json!([{"field": "max_age", "now": 0, "wanted": 3600}]));
    let words = refused(differs, 409, "STREAM_CREATION_ERROR");
    assert!(words.contains("stream test_stream exists with another configuration: max_age: 0 → 1h"), "{words}");
    api.data(api.delete(&format!("{STREAMS}/test_stream")));
    refused(api.get(&format!("{STREAMS}/test_stream")), 404, "STREAM_NOT_FOUND");
    refused(api.delete(&format!("{STREAMS}/test_stream")), 404, "STREAM_NOT_FOUND");
}

#[test]
fn a_stream_is_changed_as_a_whole() {
    let broker = broker(super::support::CURRENT);
    let api = Api::of(&broker);
    let path = format!("{STREAMS}/S");
    refused(api.put(&path, json!({"subjects": ["s.>"]})), 404, "STREAM_NOT_FOUND");
    api.data(api.post(STREAMS, json!({"name": "S", "subjects": ["s.>"], "max_msgs": 10, "max_age": 3600})));
    let made = api.data(api.put(&path, json!({"name": "S", "subjects": ["s.>", "t"], "max_age": "2h"})));
    let changed: Vec<_> = made["changes"].as_array().unwrap().iter().map(|change| &change["field"]).collect();
    assert_eq!(changed, ["max_msgs", "max_age", "subjects"], "what is left out goes back: {made}");
    let got = api.data(api.get(&path));
    assert_eq!((&got["config"]["max_age"], &got["config"]["max_msgs"]), (&7200.into(), &(-1).into()));
    assert_eq!(got["subjects"], json!(["s.>", "t"]));
    // What is read can be written.
    let again = api.data(api.put(&path, got["config"].clone()));
    assert_eq!(again["changes"], json!([]), "{again}");

    let fixed = api.put(&path, json!({"subjects": ["s.>"], "storage": "memory"}));
    assert!(refused(fixed, 409, "STREAM_CREATION_ERROR").contains("cannot become \"memory\" (body)"));
    let renamed = api.put(&path, json!({"name": "T", "subjects": ["s.>"]}));
    assert!(refused(renamed, 400, "INVALID_STREAM_DATA").contains("a name cannot change"));

    api.publish("s.a", (0..5).map(Value::from));
    api.publish("s.b", (0..5).map(Value::from));
    let purge = format!("{path}/purge");
    assert_eq!(api.data(api.post(&purge, json!({"filter": "s.a", "keep": 2})))["purged"], 3);
    assert_eq!(api.data(api.post(&purge, json!({"seq": 6})))["purged"], 2);
    assert_eq!(api.data(api.post(&purge, ""))["purged"], 5);
    refused(api.post(&purge, json!({"seq": 6, "keep": 1})), 400, "INVALID_PARAMETERS");
    refused(api.post(&purge, json!({"filter": "a..b"})), 400, "INVALID_PARAMETERS");
    refused(api.post(&format!("{STREAMS}/T/purge"), "{}"), 404, "STREAM_NOT_FOUND");
    api.data(api.put(&path, json!({"subjects": ["s.>"], "deny_purge": true})));
    refused(api.post(&purge, ""), 409, "STREAM_CREATION_ERROR");
}

#[test]
fn what_settings_declare_stays_theirs() {
    let mut broker = Broker::new();
    broker.set("JETSTREAM_MAX_STREAMS", "2").set("STREAMS_RECONCILE_INTERVAL", "0").start();
    let api = Api::of(&broker);
    let path = format!("{STREAMS}/MARKET_DATA");
    let words = refused(api.delete(&path), 409, "STREAM_CREATION_ERROR");
    assert!(words.contains("declared in the settings") && words.contains("force=true"), "{words}");
    let config = api.data(api.get(&path))["config"].clone();
    let mut other = config.clone();
    other["max_age"] = 60.into();
    other["duplicate_window"] = 60.into();
    refused(api.put(&path, &other), 409, "STREAM_CREATION_ERROR");
    assert_eq!(api.data(api.put(&path, &config))["changes"], json!([]), "the same is no change");

    let overlap = api.post(STREAMS, json!({"name": "A", "subjects": ["trade-data.>"]}));
    assert!(refused(overlap, 409, "STREAM_CREATION_ERROR").contains("belongs to stream MARKET_DATA already"));
    assert_eq!(api.data(api.delete(&format!("{path}?force=true")))["is_declared"], true);
    // It is not there now, and will be back.
    let overlap = api.post(STREAMS, json!({"name": "A", "subjects": ["trade-data.>"]}));
    assert!(refused(overlap, 409, "STREAM_CREATION_ERROR").contains("which the settings declare"));
    api.data(api.post(STREAMS, json!({"name": "A", "subjects": ["a.>"]})));
    let overlap = api.post(STREAMS, json!({"name": "A2", "subjects": ["a.b"]}));
    assert!(refused(overlap, 409, "STREAM_CREATION_ERROR").contains("a.b (body) belongs to stream A already"));
    api.data(api.post(STREAMS, json!({"name": "B", "subjects": ["b.>"]})));
    let full = api.post(STREAMS, json!({"name": "C", "subjects": ["c.>"]}));
    assert!(refused(full, 409, "STREAM_CREATION_ERROR").contains("JETSTREAM_MAX_STREAMS allows 2 streams"));
    assert!(!broker.log().contains("\"level\":\"ERROR\""), "{}", broker.log());
}

#[test]
fn bad_bodies_names_and_queries_are_told_in_the_envelope() {
    let broker = broker(super::support::CURRENT);
    let api = Api::of(&broker);
    let unknown = api.post(STREAMS, json!({"name": "A", "subject": ["a"]}));
    assert_eq!(unknown.1["details"]["nearest"], "subjects", "{}", unknown.1);
    for body in [
        r#"{"name":"A","subjects":["a"]"#,
        r#"{"name":"A","subject":["a"]}"#,
        r#"{"name":"A","subjects":["a"],"name":"B"}"#,
        r#"{"name":"a/b","subjects":["a"]}"#,
        r#"{"name":"a.b","subjects":["a"]}"#,
        r#"{"name":"","subjects":["a"]}"#,
        r#"{"name":5,"subjects":["a"]}"#,
        r#"{"subjects":["a"]}"#,
        r#"{"name":"A"}"#,
        r#"{"name":"A","subjects":[]}"#,
        r#"{"name":"A","subjects":["a b"]}"#,
        r#"{"name":"A","subjects":["a",5]}"#,
        r#"{"name":"A","subjects":["$JS.API.>"]}"#,
        r#"{"name":"A","subjects":["a.>","a.b"]}"#,
        r#"{"name":"A","subjects":["a"],"max_msgs":"many"}"#,
        r#"{"name":"A","subjects":["a"],"num_replicas":2}"#,
        r#"{"name":"A","subjects":["a"],"num_replicas":3}"#,
        r#"{"name":"A","subjects":["a"],"duplicate_window":60,"max_age":30}"#,
        "[]",
        "",
    ] {
        refused(api.post(STREAMS, body), 400, "INVALID_STREAM_DATA");
    }
    for name in ["a%2Fb", "a.b", "a%20b", "%2A", "%3E", "a%0Ab", "a%5Cb"] {
        refused(api.get(&format!("{STREAMS}/{name}")), 400, "INVALID_PARAMETERS");
        refused(api.delete(&format!("{STREAMS}/{name}")), 400, "INVALID_PARAMETERS");
    }
    refused(api.get(&format!("{STREAMS}/%41")), 404, "STREAM_NOT_FOUND");
    refused(api.get(&format!("{STREAMS}/a/b")), 404, "NOT_FOUND");
    refused(api.get(&format!("{STREAMS}/%FF")), 400, "INVALID_PARAMETERS");
    for query in ["limit=0", "limit=1001", "limit=x", "cursor=x", "cursor=", "page=2", "limit=1&limit=2"] {
        refused(api.get(&format!("{STREAMS}?{query}")), 400, "INVALID_PARAMETERS");
    }
    refused(api.delete(&format!("{STREAMS}/A?force=yes")), 400, "INVALID_PARAMETERS");
    refused(api.post(&format!("{STREAMS}/A"), ""), 405, "METHOD_NOT_ALLOWED");
    let (status, _) = block_on(async {
        let request = super::support::http_client().post(broker.api(STREAMS)).header("content-type", "text/plain");
        let answer = request.body("{}").send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    });
    assert_eq!(status, 415);
}

#[test]
fn a_page_of_a_thousand_streams_comes_fast() {
    let broker = broker(super::support::CURRENT);
    let api = Api::of(&broker);
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let make = |number: usize| {
            let jetstream = &jetstream;
            async move {
                let (name, subject) = (format!("S{number:04}"), format!("s.{number}"));
                let config = json!({"name": name, "subjects": [subject], "storage": "memory"});
                let made = jetstream.ask(&format!("$JS.API.STREAM.CREATE.{name}"), config).await;
                assert!(made["error"].is_null(), "{made}");
            }
        };
        futures_util::future::join_all((0..1_100).map(make)).await;
    });
    let mut names = vec![];
    let mut cursor = String::new();
    let mut fastest = std::time::Duration::MAX;
    loop {
        let started = std::time::Instant::now();
        let page = api.data(api.get(&format!("{STREAMS}?limit=100{cursor}")));
        fastest = fastest.min(started.elapsed());
        assert_eq!(page["total"], 1_100);
        names.extend(page["streams"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(names, (0..1_100).map(|number| format!("S{number:04}")).collect::<Vec<_>>());
    // Without optimisation, on a machine that is busy with other tests.
    assert!(fastest.as_millis() < 250, "{fastest:?}");
    let (_, plain) = api.get("/api/v1/streams");
    assert_eq!(plain["streams"].as_array().unwrap().len(), 1_100);
}

#[test]
fn an_old_server_has_what_it_knows() {
    let broker = broker("2.10.26");
    let api = Api::of(&broker);
    api.data(api.post(STREAMS, r#"{"name":"test_stream","subjects":["test.>"],"compression":"s2","max_age":60}"#));
    let made = api.post(STREAMS, json!({"name": "T", "subjects": ["t"], "allow_msg_ttl": true}));
    let words = refused(made, 400, "INVALID_STREAM_DATA");
    assert!(words.contains("allow_msg_ttl (body) needs nats-server 2.11 and this one is 2.10"), "{words}");
    let path = format!("{STREAMS}/test_stream");
    let got = api.data(api.get(&path));
    assert_eq!(api.data(api.put(&path, got["config"].clone()))["changes"], json!([]));
    assert_eq!(api.data(api.post(&format!("{path}/purge"), ""))["purged"], 0);
    api.data(api.delete(&path));
}
