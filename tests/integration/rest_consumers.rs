//! Consumers over the REST API: making them, pulling messages, acknowledging.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rest_calls::{Api, refused};
use super::support::{Broker, CURRENT, JetStream, block_on, wait_for};

const STREAMS: &str = "/api/v1/broker/streams";
const CONSUMERS: &str = "/api/v1/broker/streams/S/consumers";

/// With stream S, for `s.>`.
fn broker(version: &str) -> (Broker, Api) {
    let mut broker = Broker::with_server(version);
    broker.set("STREAMS_DEFAULTS", "none").start();
    let api = Api::of(&broker);
    api.data(api.post(STREAMS, json!({"name": "S", "subjects": ["s.>"]})));
    (broker, api)
}

fn consumer(api: &Api, options: Value) -> String {
    let made = api.data(api.post(CONSUMERS, &options));
    format!("{CONSUMERS}/{}", made["name"].as_str().unwrap())
}

fn pull(api: &Api, consumer: &str, query: &str) -> Vec<Value> {
    let data = api.data(api.post(&format!("{consumer}/pull{query}"), ""));
    data["messages"].as_array().unwrap().clone()
}

fn tokens(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["ack"].as_str().unwrap()).collect()
}

fn state(api: &Api, consumer: &str) -> (u64, u64) {
    let data = api.data(api.get(consumer));
    (data["num_ack_pending"].as_u64().unwrap(), data["ack_floor"]["stream_seq"].as_u64().unwrap())
}

/// A request for more than the consumer may have unacknowledged would get the same messages again.
#[test]
fn a_pull_takes_no_more_than_may_be_unacknowledged() {
    let (_broker, api) = broker(CURRENT);
    api.publish("s.a", (0..8).map(Value::from));
    let few = consumer(&api, json!({ "name": "few", "max_ack_pending": 3, "ack_wait": 1 }));
    let places = |messages: &[Value]| {
        messages
            .iter()
            .map(|one| (one["sequence"].as_u64().unwrap(), one["delivered"].as_u64().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(places(&pull(&api, &few, "?wait=1")), [(1, 1), (2, 1), (3, 1)]);
    // Those that nobody has acknowledged in time are had again, though no others may be.
    let again = wait_for("they come again", || Some(pull(&api, &few, "?batch=5")).filter(|found| !found.is_empty()));
    assert!(places(&again).iter().all(|(sequence, delivered)| *sequence <= 3 && *delivered == 2), "{again:?}");
    let held = consumer(&api, json!({ "name": "held", "max_ack_pending": 3, "ack_wait": 60 }));
    assert_eq!(pull(&api, &held, "?batch=2").len(), 2);
    assert_eq!(places(&pull(&api, &held, "?batch=5")), [(3, 1)]);
    assert!(pull(&api, &held, "?batch=5").is_empty());
}

#[test]
fn consumers_are_made_listed_and_deleted() {
    let (_broker, api) = broker(CURRENT);
    let body = json!({"name": "c", "ack_wait": 5, "filter_subject": "s.a", "max_deliver": 3, "backoff": [1, 2]});
    let made = api.data(api.post(CONSUMERS, &body));
    assert_eq!((&made["is_new"], &made["stream"]), (&true.into(), &"S".into()), "{made}");
    assert_eq!((&made["config"]["backoff"], &made["config"]["ack_policy"]), (&json!([1, 2]), &"explicit".into()));
    assert_eq!(api.data(api.post(CONSUMERS, &body))["is_new"], false);
    let mut other = body.clone();
    other["max_deliver"] = 5.into();
    other["deliver_policy"] = "new".into();
    let differs = api.post(CONSUMERS, &other);
    let fields: Vec<_> =
        differs.1["details"]["differences"].as_array().unwrap().iter().map(|one| one["field"].clone()).collect();
    assert_eq!(fields, ["max_deliver", "deliver_policy"], "{}", differs.1);
    refused(differs, 409, "STREAM_CREATION_ERROR");
    for name in ["a", "b", "d"] {
        api.data(api.post(CONSUMERS, json!({"durable_name": name})));
    }
    let page = api.data(api.get(&format!("{CONSUMERS}?limit=2")));
    let names: Vec<_> = page["consumers"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!((names, &page["total"]), (vec!["a".into(), "b".into()], &4.into()));
    let cursor = page["cursor"].as_str().unwrap();
    let page = api.data(api.get(&format!("{CONSUMERS}?limit=2&cursor={cursor}")));
    assert_eq!((&page["consumers"][1]["name"], &page["cursor"]), (&"d".into(), &Value::Null));
    api.data(api.delete(&format!("{CONSUMERS}/a")));
    refused(api.get(&format!("{CONSUMERS}/a")), 404, "NOT_FOUND");
    refused(api.delete(&format!("{CONSUMERS}/a")), 404, "NOT_FOUND");
    refused(api.post(&format!("{CONSUMERS}/a/pull"), ""), 404, "NOT_FOUND");
    refused(api.post("/api/v1/broker/streams/T/consumers", json!({"name": "c"})), 404, "STREAM_NOT_FOUND");
    refused(api.get("/api/v1/broker/streams/T/consumers"), 404, "STREAM_NOT_FOUND");
    refused(api.get("/api/v1/broker/streams/T/consumers/c"), 404, "STREAM_NOT_FOUND");
}

#[test]
fn a_consumer_that_settings_declare_stays_theirs() {
    let mut broker = Broker::new();
    let file = broker.path("streams.yml");
    std::fs::write(&file, "streams: {S: {subjects: [s.>], consumers: {c: {}}}}").unwrap();
    broker.set("STREAMS_FILE", file.display()).set("STREAMS_RECONCILE_INTERVAL", "0").start();
    let api = Api::of(&broker);
    let path = format!("{CONSUMERS}/c");
    let words = refused(api.delete(&path), 409, "STREAM_CREATION_ERROR");
    assert!(words.contains("declared in the settings") && words.contains("force=true"), "{words}");
    api.data(api.get(&path));
    api.data(api.delete(&format!("{path}?force=true")));
    refused(api.get(&path), 404, "NOT_FOUND");
}

#[test]
fn bad_consumers_pulls_and_acks_are_told() {
    let (_broker, api) = broker(CURRENT);
    for body in [
        json!({}),
        json!({"name": "a.b"}),
        json!({"name": "a", "durable_name": "b"}),
        json!({"name": "c", "ack_wait": "soon"}),
        json!({"name": "c", "deliver_subject": "x"}),
        json!({"name": "c", "ack_polcy": "all"}),
        json!({"name": "c", "filter_subjects": ["s.a", "s.*"]}),
        json!({"name": "c", "max_deliver": 1, "backoff": [1, 2]}),
        json!([]),
    ] {
        refused(api.post(CONSUMERS, &body), 400, "INVALID_PARAMETERS");
    }
    let words = refused(api.post(CONSUMERS, json!({"name": "c", "ack_polcy": "all"})), 400, "INVALID_PARAMETERS");
    assert!(words.contains("did you mean \"ack_policy\"?"), "{words}");
    let c = consumer(&api, json!({"name": "c"}));
    for query in ["batch=0", "batch=1001", "batch=x", "wait=-1", "wait=NaN", "wait=inf", "ack=yes", "btch=1"] {
        refused(api.post(&format!("{c}/pull?{query}"), ""), 400, "INVALID_PARAMETERS");
    }
    for body in [json!({}), json!({"token": "x"}), json!({"token": ""}), json!({"tokens": []}), json!({"tokens": "x"})]
    {
        refused(api.post(&format!("{c}/ack"), &body), 400, "INVALID_PARAMETERS");
    }
    refused(api.post(&format!("{CONSUMERS}/a%2Fb/pull"), ""), 400, "INVALID_PARAMETERS");
    refused(api.get(&format!("{c}/pull")), 405, "METHOD_NOT_ALLOWED");
}

fn a_message_is_pulled_and_acknowledged_once(version: &str) {
    let (broker, api) = broker(version);
    let c = consumer(&api, json!({"name": "c", "ack_wait": 60}));
    let started = Instant::now();
    assert_eq!(pull(&api, &c, ""), Vec::<Value>::new());
    assert_eq!(pull(&api, &c, "?batch=5&wait=0.3"), Vec::<Value>::new());
    let took = started.elapsed();
    assert!(took > Duration::from_millis(290) && took < Duration::from_secs(5), "{took:?}");
    api.publish("s.a", (1..=6).map(|number| json!({ "number": number })));
    let messages = pull(&api, &c, "?batch=4");
    let first = &messages[0];
    assert_eq!((&first["message"], &first["encoding"]), (&json!({"number": 1}), &"json".into()));
    assert_eq!((&first["sequence"], &first["delivered"], &first["pending"]), (&1.into(), &1.into(), &5.into()));
    assert_eq!((&first["ack_wait_seconds"], &first["acknowledged"]), (&60.0.into(), &false.into()));
    let stored = api.data(api.get("/api/v1/broker/streams/S/messages/1"))["time"].clone();
    assert_eq!(first["time"], stored, "in both the same");
    let tokens = tokens(&messages);

    let acked = api.data(api.post(&format!("{c}/ack"), json!({"token": tokens[0]})));
    assert_eq!((&acked["acknowledged"], &acked["failed"]), (&1.into(), &0.into()));
    assert_eq!(state(&api, &c), (3, 1), "when it is answered the server has heard it");
    let mixed = json!({"acks": [
        {"token": tokens[1]},
        {"token": tokens[2], "kind": "nak"},
        {"token": "forged"},
        {"token": tokens[3], "kind": "term", "reason": "bad price"},
    ]});
    let (status, answer) = api.post(&format!("{c}/ack"), mixed);
    let results = answer["data"]["results"].as_array().unwrap();
    assert_eq!((status, results.len(), &results[2]["error_code"]), (207, 4, &"INVALID_PARAMETERS".into()), "{answer}");
    assert_eq!([0, 1, 3].map(|at| results[at]["status"].clone()), ["success"; 3].map(Value::from));
    let again = wait_for("it is delivered again", || {
        pull(&api, &c, "?batch=10&wait=1").into_iter().find(|m| m["sequence"] == 3)
    });
    assert_eq!(again["delivered"], 2);
    let later = api.post(&format!("{c}/ack"), json!({"token": again["ack"], "kind": "nak", "delay": 3600}));
    api.data(later);
    assert_eq!(pull(&api, &c, "?wait=0.2").len(), 0, "it waits for an hour, and the rest was pulled");

    // The first that comes ends the wait.
    let started = Instant::now();
    let waits = std::thread::scope(|scope| {
        let waits = scope.spawn(|| pull(&api, &c, "?batch=3&wait=20"));
        wait_for("it waits", || (api.data(api.get(&c))["num_waiting"].as_u64()? > 0).then_some(()));
        block_on(async { JetStream(broker.client().await).publish("s.b", "late").await });
        waits.join().unwrap()
    });
    assert_eq!((waits.len(), &waits[0]["sequence"]), (1, &7.into()));
    assert!(started.elapsed() < Duration::from_secs(15));

    let auto = consumer(&api, json!({"name": "auto"}));
    let messages = pull(&api, &auto, "?batch=100&ack=auto");
    assert!(messages.len() == 7 && messages.iter().all(|m| m["acknowledged"] == true && m["ack"].is_null()));
    assert_eq!(state(&api, &auto), (0, 7));
    let none = consumer(&api, json!({"name": "none", "ack_policy": "none"}));
    assert!(pull(&api, &none, "?batch=100").iter().all(|message| message["ack"].is_null()));
}

#[test]
fn messages_are_pulled_and_acknowledged() {
    a_message_is_pulled_and_acknowledged_once(CURRENT);
}

#[test]
fn an_old_server_gives_and_takes_them_as_well() {
    a_message_is_pulled_and_acknowledged_once("2.10.26");
}

#[test]
fn a_token_is_good_for_its_consumer_alone() {
    let (mut broker, api) = broker(CURRENT);
    api.publish("s.a", (0..4).map(Value::from));
    let (c, d) = (consumer(&api, json!({"name": "c"})), consumer(&api, json!({"name": "d"})));
    let messages = pull(&api, &c, "");
    let token = tokens(&messages)[0];
    pull(&api, &d, "");
    let ack = |path: &str, token: &str| api.post(&format!("{path}/ack"), json!({ "token": token }));
    let words = refused(ack(&d, token), 400, "INVALID_PARAMETERS");
    assert!(words.contains("another consumer"), "{words}");
    assert_eq!(state(&api, &d).0, 4, "nothing was acknowledged");
    // What goes to nats-server is never the client's own subject.
    let mut other = token.to_owned();
    other.replace_range(..1, if token.starts_with('A') { "B" } else { "A" });
    for forged in ["$JS.ACK.S.d.1.1.1.1.0", "s.a", &token[..token.len() - 2], &format!("{token}AA"), &other] {
        refused(ack(&c, forged), 400, "INVALID_PARAMETERS");
    }
    assert_eq!(state(&api, &c).0, 4);
    // Another consumer of the same name is another one.
    api.data(api.delete(&c));
    let c = consumer(&api, json!({"name": "c"}));
    pull(&api, &c, "");
    refused(ack(&c, token), 400, "INVALID_PARAMETERS");
    assert_eq!(state(&api, &c).0, 4);
    let messages = pull(&api, &d, "");
    assert_eq!(messages.len(), 0);

    // A program that was started again has another key, and says so.
    api.data(api.delete(&c));
    let c = consumer(&api, json!({"name": "c"}));
    let messages = pull(&api, &c, "");
    assert_eq!(broker.stop(), Some(0));
    broker.start();
    refused(ack(&c, tokens(&messages)[0]), 400, "INVALID_PARAMETERS");
}

#[test]
fn a_token_is_good_as_long_as_the_delivery_is_waited_for() {
    let (_broker, api) = broker(CURRENT);
    api.publish("s.a", [json!(1)]);
    let c = consumer(&api, json!({"name": "c", "ack_wait": 1}));
    let messages = pull(&api, &c, "");
    let old = tokens(&messages)[0];
    let progress = api.data(api.post(&format!("{c}/ack"), json!({"token": old, "kind": "in_progress"})));
    let fresh = progress["results"][0]["ack"].as_str().unwrap();
    assert_ne!(fresh, old);
    let words = wait_for("the old one expires", || {
        let answer = api.post(&format!("{c}/ack"), json!({"token": old, "kind": "in_progress"}));
        (answer.0 != 200).then(|| refused(answer, 404, "NOT_FOUND"))
    });
    assert!(words.contains("expired"), "{words}");
    let again = wait_for("it is delivered again", || pull(&api, &c, "?wait=1").into_iter().next());
    assert!(again["delivered"].as_u64() > Some(1));
    api.data(api.post(&format!("{c}/ack"), json!({"token": again["ack"]})));
    assert_eq!(state(&api, &c), (0, 1));
}

#[test]
fn a_pull_and_its_tokens_outlive_the_server() {
    let (mut broker, api) = broker(CURRENT);
    let c = consumer(&api, json!({"name": "c"}));
    let messages = std::thread::scope(|scope| {
        let waits = scope.spawn(|| pull(&api, &c, "?wait=20"));
        wait_for("it waits", || (api.data(api.get(&c))["num_waiting"].as_u64()? > 0).then_some(()));
        let old = broker.server_pid();
        nix::sys::signal::kill(old, nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_for("another server runs", || (broker.server_pid() != old).then_some(()));
        broker.wait_until_ready();
        api.publish("s.a", [json!(1)]);
        waits.join().unwrap()
    });
    assert_eq!((messages.len(), &messages[0]["message"]), (1, &1.into()));
    let old = broker.server_pid();
    nix::sys::signal::kill(old, nix::sys::signal::Signal::SIGKILL).unwrap();
    api.data(api.post(&format!("{c}/ack"), json!({"token": tokens(&messages)[0]})));
    assert_eq!(state(&api, &c), (0, 1));
}
