//! What the API says of the broker: true figures, and answers in time whatever nats-server does.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::receivers::Webhook;
use super::rest_calls::{Api, kill_until_it_pauses, refused};
use super::support::{Broker, CURRENT, SUBJECTS, http_get, wait_for};

const STREAM: &str = "/api/v1/broker/streams/MARKET_DATA";

fn acknowledge(api: &Api, batch: usize) {
    let pull = api.data(api.post(&format!("{STREAM}/consumers/c/pull?batch={batch}&wait=5&ack=auto"), ""));
    assert_eq!(pull["messages"].as_array().map(Vec::len), Some(batch), "{pull}");
}

#[test]
fn figures_are_those_of_jetstream() {
    for version in [CURRENT, "2.10.26"] {
        let mut broker = Broker::with_server(version);
        broker.start();
        let api = Api::of(&broker);
        let consumer = json!({ "name": "c", "durable_name": "c", "ack_policy": "explicit" });
        api.data(api.post(&format!("{STREAM}/consumers"), consumer));
        api.publish(SUBJECTS[1], (0..17).map(Value::from));
        acknowledge(&api, 5);
        // What it passes over it does not consume.
        let filtered = json!({ "name": "f", "durable_name": "f", "filter_subject": SUBJECTS[2] });
        api.data(api.post(&format!("{STREAM}/consumers"), filtered));
        api.publish(SUBJECTS[2], [Value::from(17)]);
        let pull = api.data(api.post(&format!("{STREAM}/consumers/f/pull?wait=5&ack=auto"), ""));
        assert_eq!(pull["messages"][0]["sequence"], 18, "{pull}");
        let expected = json!({ "published": 18, "consumed": 6, "errors": 0 });
        let status = wait_for("the figures are those", || {
            let (status, answer) = api.get("/api/v1/status");
            assert_eq!(status, 200);
            (answer["message_stats"] == expected).then_some(answer)
        });
        let statistics = &status["data"]["statistics"];
        assert_eq!((&statistics["messages_published"], &statistics["messages_consumed"]), (&json!(18), &json!(6)));
        assert_eq!((&statistics["connection_errors"], &statistics["active_streams"]), (&json!(0), &json!(1)));
        let data = &status["data"];
        assert_eq!((&data["status"], &data["port"]), (&json!("running"), &json!(broker.ports.api)));
        assert_eq!(data["nats_info"]["server_version"], version);
        let stream = &status["jetstream_streams"][0];
        assert_eq!(
            (&stream["name"], &stream["messages"], &stream["consumer_count"]),
            (&json!("MARKET_DATA"), &json!(18), &json!(2))
        );
        let server = &status["nats_server"]["server_info"];
        assert_eq!((&server["version"], &server["port"]), (&json!(version), &json!(broker.ports.nats)));

        let details = api.data(api.get("/api/v1/broker/status"));
        assert_eq!(
            (&details["messages"], &details["streams"], &details["consumers"]),
            (&json!(18), &json!(1), &json!(2))
        );
        let (_, info) = api.get("/api/v1/nats/info");
        assert_eq!(info["pid"], broker.server_pid().as_raw());
        assert_eq!(
            (&info["ports"]["nats"], &info["ports"]["http"]),
            (&json!(broker.ports.nats), &json!(broker.ports.http))
        );

        // Of a deleted message the stream still counts that it was published.
        api.data(api.post(&format!("{STREAM}/purge"), "{}"));
        wait_for("the figures are those after a purge", || {
            let answer = api.get("/api/v1/status").1;
            (answer["jetstream_streams"][0]["messages"] == 0)
                .then(|| assert_eq!(answer["message_stats"]["published"], 18))
        });
    }
}

#[test]
fn health_says_part_by_part_since_when() {
    let mut broker = Broker::new();
    broker.set("RESTART_BACKOFF_MIN", "4s").set("RESTART_BACKOFF_MAX", "4s").start();
    let api = Api::of(&broker);
    let well = api.data(api.get("/api/v1/broker/health"));
    assert_eq!(well["status"], "healthy", "{well}");
    let parts = |health: &Value| -> BTreeSet<String> {
        let components = health["components"].as_array().unwrap();
        for component in components {
            let since = component["since"].as_str().unwrap_or_default();
            assert!(since.ends_with('Z') && since.starts_with("20"), "{component}");
            assert!(
                ["healthy", "unhealthy", "unknown"].contains(&component["status"].as_str().unwrap()),
                "{component}"
            );
        }
        components.iter().map(|component| component["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(parts(&well).len() >= 3, "{well}");
    let since = well["since"].as_str().unwrap().to_owned();
    assert_eq!(api.data(api.get("/api/v1/broker/health"))["since"], json!(since), "nothing has changed");
    let gone = kill_until_it_pauses(&broker);
    assert_eq!(http_get(&broker.api("/readyz")).0, 503);
    assert!(gone.elapsed() < Duration::from_secs(1), "readiness follows within a second");
    let (status, answer) = api.get("/api/v1/broker/health");
    let details = answer["details"].clone();
    assert_eq!(parts(&details), parts(&well));
    assert!(details["since"].as_str().unwrap() > since.as_str(), "{details}");
    let words = refused((status, answer), 503, "SERVICE_UNAVAILABLE");
    assert!(words.contains("the broker is"), "{words}");
    broker.wait_until_ready();
    let events = api.data(api.get("/api/v1/broker/events"));
    let times: Vec<_> =
        events["events"].as_array().unwrap().iter().map(|event| event["at"].as_str().unwrap()).collect();
    assert!(times.len() > 3 && times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    assert_eq!(api.data(api.get("/api/v1/broker/events?limit=2"))["events"].as_array().unwrap().len(), 2);
    for bad in ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=", "from=1"] {
        refused(api.get(&format!("/api/v1/broker/events?{bad}")), 400, "INVALID_PARAMETERS");
    }
}

#[test]
fn whatever_the_server_does_the_answer_comes_in_time() {
    const PATHS: [&str; 7] = [
        "/api/v1/status",
        "/api/v1/broker/status",
        "/api/v1/broker/health",
        "/api/v1/broker/events",
        "/api/v1/nats/info",
        "/api/v1/streams",
        "/api/v1/broker/streams",
    ];
    let mut broker = Broker::new();
    broker.set("API_REQUEST_TIMEOUT", "1s").set("RESTART_BACKOFF_MAX", "200ms").start();
    let api = Api::of(&broker);
    let in_time = |path: &str| {
        let started = Instant::now();
        let (status, answer) = api.get(path);
        assert!([200, 503, 504].contains(&status), "{path}: {status} {answer}");
        assert!(started.elapsed() < Duration::from_millis(2_500), "{path}: {:?}", started.elapsed());
        status
    };
    for _ in 0..3 {
        kill(broker.server_pid(), Signal::SIGKILL).unwrap();
        for path in PATHS {
            in_time(path);
        }
        broker.wait_until_ready();
    }
    kill(broker.server_pid(), Signal::SIGSTOP).unwrap();
    for path in PATHS {
        in_time(path);
    }
    kill(broker.server_pid(), Signal::SIGCONT).unwrap();
    for path in PATHS {
        wait_for("it is answered again", || (in_time(path) == 200).then_some(()));
    }
}

#[test]
fn figures_of_a_server_that_does_not_answer_are_unknown_and_no_zeros() {
    let mut broker = Broker::new();
    broker.set("API_REQUEST_TIMEOUT", "500ms").set("HEALTH_PROBE_INTERVAL", "30s").start();
    let api = Api::of(&broker);
    api.publish(SUBJECTS[1], (0..3).map(Value::from));
    let known = api.get("/api/v1/status").1;
    assert_eq!((&known["message_stats"]["published"], &known["data"]["last_known"]), (&json!(3), &Value::Null));
    let server = broker.server_pid();
    kill(server, Signal::SIGSTOP).unwrap();
    let stopped = Instant::now();
    let unknown = wait_for("the figures are not given for new", || {
        let answer = api.get("/api/v1/status").1;
        answer["message_stats"]["published"].is_null().then_some(answer)
    });
    let (data, info) = (&unknown["data"], &unknown["data"]["nats_info"]);
    for figure in [
        &unknown["message_stats"]["consumed"],
        &unknown["jetstream_streams"],
        &unknown["nats_server"]["server_info"],
        &data["statistics"]["messages_published"],
        &data["statistics"]["active_streams"],
        &info["streams_count"],
        &info["server_version"],
    ] {
        assert!(figure.is_null(), "{unknown}");
    }
    assert_eq!((&info["server_status"], &info["client_connected"]), (&json!("unknown"), &json!(false)), "{unknown}");
    assert_eq!(unknown["nats_server"]["status"], "unknown");
    let last = &data["last_known"];
    assert_eq!((&last["published"], &last["messages"], &last["streams"]), (&json!(3), &json!(3), &json!(1)));
    let age = last["age_seconds"].as_f64().unwrap();
    assert!(age > 0.4 && age < stopped.elapsed().as_secs_f64() + 2.0, "{unknown}");
    let details = api.data(api.get("/api/v1/broker/status"));
    assert!(["streams", "messages", "bytes", "consumers"].iter().all(|figure| details[*figure].is_null()), "{details}");
    assert!(details["last_known"]["age_seconds"].as_f64().unwrap() > age, "{details}");
    assert_eq!(details["last_known"]["messages"], 3);
    let plain = api.get("/api/v1/nats/info").1;
    assert_eq!((&plain["status"], &plain["server_info"]), (&json!("unknown"), &Value::Null), "{plain}");
    kill(server, Signal::SIGCONT).unwrap();
    wait_for("they are known again", || (api.get("/api/v1/status").1["message_stats"]["published"] == 3).then_some(()));
}

#[test]
fn what_is_changed_over_the_api_shows_at_once() {
    const WITHIN: Duration = Duration::from_secs(1);
    let mut broker = Broker::new();
    // Nobody would look by himself for long.
    let webhook = Webhook::start();
    broker.set("HEALTH_INTERVAL", "1h").set("STREAMS_RECONCILE_INTERVAL", "1h");
    broker.set("ALERT_WEBHOOK_URL", webhook.url("token")).set("ALERT_MIN_INTERVAL", "0").start();
    let api = Api::of(&broker);
    api.publish(SUBJECTS[1], (0..3).map(Value::from));
    let config = api.data(api.get(STREAM))["config"].clone();
    let in_time = |what: &str, is_so: &dyn Fn() -> bool| {
        let began = Instant::now();
        wait_for(what, || is_so().then_some(()));
        assert!(began.elapsed() < WITHIN, "{what}: {:?}", began.elapsed());
    };
    // Figures of the status: no second passes.
    assert_eq!(api.get("/api/v1/status").1["jetstream_streams"][0]["messages"], 3);
    api.data(api.post(&format!("{STREAM}/purge"), "{}"));
    assert_eq!(api.get("/api/v1/status").1["jetstream_streams"][0]["messages"], 0);
    api.data(api.post("/api/v1/broker/streams", json!({ "name": "MORE", "subjects": ["more.>"] })));
    assert_eq!(api.get("/api/v1/status").1["data"]["nats_info"]["streams_count"], 2);
    api.data(api.post(&format!("{STREAM}/consumers"), json!({ "name": "c" })));
    assert_eq!(api.data(api.get("/api/v1/broker/status"))["consumers"], 1);
    api.data(api.delete(&format!("{STREAM}/consumers/c")));
    assert_eq!(api.data(api.get("/api/v1/broker/status"))["consumers"], 0);
    in_time("the health check has seen the purge", &|| {
        broker.health()["checks"].to_string().contains("MARKET_DATA: 0 messages")
    });

    // A declared stream that does not capture what it should.
    let mut narrow = config.clone();
    narrow["subjects"] = json!([SUBJECTS[1]]);
    api.data(api.put(&format!("{STREAM}?force=true"), &narrow));
    in_time("readiness follows a change", &|| http_get(&broker.api("/readyz")).0 == 503);
    api.data(api.put(&format!("{STREAM}?force=true"), &config));
    in_time("and its end", &|| http_get(&broker.api("/readyz")).0 == 200);
    // And one that is gone.
    assert_eq!(api.data(api.delete(&format!("{STREAM}?force=true")))["is_declared"], true);
    in_time("readiness follows the removal", &|| http_get(&broker.api("/readyz")).0 == 503);
    in_time("it is an alert", &|| webhook.kinds().iter().any(|(kind, _)| kind == "stream_missing"));
    let mut again = config.clone();
    again["name"] = json!("MARKET_DATA");
    api.data(api.post("/api/v1/broker/streams", &again));
    in_time("it is there again", &|| http_get(&broker.api("/readyz")).0 == 200);
}
