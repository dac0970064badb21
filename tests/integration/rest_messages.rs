//! Looking inside streams over the REST API.

use serde_json::{Value, json};

use super::rest_calls::{Api, refused};
use super::support::{Broker, CURRENT, JetStream, block_on};

const STREAMS: &str = "/api/v1/broker/streams";
const LAST: &str = "/api/v1/broker/last";
const SUBJECTS: &str = "/api/v1/broker/subjects";

fn broker(version: &str) -> Broker {
    let mut broker = Broker::with_server(version);
    broker.set("STREAMS_DEFAULTS", "none").start();
    broker
}

#[test]
fn a_message_is_shown_as_it_was_stored() {
    let broker = broker(CURRENT);
    let api = Api::of(&broker);
    api.data(api.post(STREAMS, json!({"name": "S", "subjects": ["s.>"]})));
    let headers = json!({"Source": "a", "Many": ["1", "2"]});
    let message = json!({"price": 45000.00, "n": 12345678901u64});
    api.data(api.post(
        "/api/v1/broker/publish",
        json!({"subject": "s.a", "message": message, "headers": headers, "msg_id": "m1"}),
    ));
    api.publish("s.b", [json!("Hello World")]);
    let first = api.data(api.get(&format!("{STREAMS}/S/messages/1")));
    assert_eq!((&first["stream"], &first["subject"], &first["sequence"]), (&"S".into(), &"s.a".into(), &1.into()));
    assert_eq!((&first["message"], &first["encoding"]), (&message, &"json".into()));
    let expected = json!({"Source": "a", "Many": ["1", "2"], "Nats-Msg-Id": "m1"});
    assert_eq!(first["headers"], expected);
    assert!(first["time"].as_str().unwrap().ends_with('Z'));
    let second = api.data(api.get(&format!("{STREAMS}/S/messages?subject=s.b&last=true")));
    assert_eq!((&second["message"], &second["encoding"]), (&"SGVsbG8gV29ybGQ=".into(), &"base64".into()));
    api.publish("s.a", [json!(3)]);
    let of = |query: &str| api.data(api.get(&format!("{STREAMS}/S/messages{query}")))["sequence"].clone();
    assert_eq!([of(""), of("?last=true"), of("?subject=s.a&seq=2"), of("?subject=s.*")], [1, 3, 3, 1].map(Value::from));

    refused(api.get(&format!("{STREAMS}/S/messages/4")), 404, "NOT_FOUND");
    refused(api.get(&format!("{STREAMS}/S/messages?subject=s.c&last=true")), 404, "NOT_FOUND");
    refused(api.get(&format!("{STREAMS}/T/messages/1")), 404, "STREAM_NOT_FOUND");
    refused(api.get(&format!("{STREAMS}/T/messages")), 404, "STREAM_NOT_FOUND");
    for bad in [
        "/0",
        "/x",
        "/-1",
        "/18446744073709551616",
        "?subject=a%20b",
        "?subject=",
        "?seq=0",
        "?last=1&seq=1",
        "?lst=true",
    ] {
        refused(api.get(&format!("{STREAMS}/S/messages{bad}")), 400, "INVALID_PARAMETERS");
    }
}

/// Streams A, whose direct gets are allowed, and B, whose are not, with 30 subjects each.
fn with_two_streams(version: &str) -> (Broker, Api) {
    let broker = broker(version);
    let api = Api::of(&broker);
    for (name, direct) in [("A", true), ("B", false)] {
        let subjects = json!([format!("{}.>", name.to_lowercase())]);
        api.data(api.post(STREAMS, json!({"name": name, "subjects": subjects, "allow_direct": direct})));
    }
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        // Sequences and subjects do not have the same order.
        for number in (0..60).rev() {
            for stream in ["a", "b"] {
                jetstream.publish(&format!("{stream}.{:02}.x", number % 30), &number.to_string()).await;
            }
        }
    });
    (broker, api)
}

fn all_pages(api: &Api, path: &str, list: &str) -> (Vec<Value>, usize) {
    let (mut items, mut cursor, mut pages) = (vec![], String::new(), 0);
    loop {
        let page = api.data(api.get(&format!("{path}{cursor}")));
        pages += 1;
        items.extend(page[list].as_array().unwrap().iter().cloned());
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (items, pages),
        }
    }
}

fn subjects_and_last_messages(version: &str) {
    let (_broker, api) = with_two_streams(version);
    let expected: Vec<_> =
        ["A", "B"].iter().flat_map(|s| (0..30).map(move |n| format!("{}.{n:02}.x", s.to_lowercase()))).collect();
    let named = |items: &[Value]| items.iter().map(|i| i["subject"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    for limit in [1, 7, 30, 100] {
        let (subjects, pages) = all_pages(&api, &format!("{SUBJECTS}?limit={limit}"), "subjects");
        assert_eq!(named(&subjects), expected, "{limit}");
        assert!(pages <= 60 / limit + 1, "{pages} pages of {limit}");
        assert!(subjects.iter().all(|subject| subject["messages"] == 2));
    }
    let (of_b, _) = all_pages(&api, &format!("{SUBJECTS}?stream=B&filter=b.0*.x&limit=3"), "subjects");
    assert_eq!(of_b, Vec::<Value>::new(), "a wildcard is a whole token");
    let (of_b, _) = all_pages(&api, &format!("{SUBJECTS}?stream=B&filter=b.*.x&limit=8"), "subjects");
    assert_eq!(named(&of_b), expected[30..]);

    let whole = api.data(api.get(&format!("{LAST}?subject=%3E")));
    let whole = whole["messages"].as_array().unwrap().clone();
    assert_eq!(named(&whole), expected);
    assert_eq!(whole[5]["message"], 5);
    assert_eq!(whole[5]["headers"], json!({}), "what says where a message stands is no header of it");
    assert_eq!((&whole[35]["stream"], &whole[35]["message"]), (&"B".into(), &5.into()));
    assert!(whole.iter().all(|message| message["time"].as_str().unwrap().starts_with("20")));
    for limit in [7, 1_000] {
        let (paged, _) = all_pages(&api, &format!("{LAST}?subject=%3E&limit={limit}"), "messages");
        assert_eq!(paged, whole, "{limit}");
    }
    let one = api.data(api.get(&format!("{LAST}?subject=a.07.x")));
    assert_eq!((one["messages"].as_array().unwrap().len(), &one["messages"][0]["message"]), (1, &7.into()));
    let none = api.data(api.get(&format!("{LAST}?subject=nobody.x")));
    assert_eq!(none, json!({"messages": [], "cursor": null}));
}

#[test]
fn subjects_and_their_last_messages_come_in_pages() {
    subjects_and_last_messages(CURRENT);
}

#[test]
fn an_old_server_has_them_as_well() {
    subjects_and_last_messages("2.10.26");
}

#[test]
fn a_page_goes_on_though_subjects_have_gone_and_come() {
    let (broker, api) = with_two_streams(CURRENT);
    let path = format!("{SUBJECTS}?stream=A&limit=10");
    let first = api.data(api.get(&path));
    let cursor = first["cursor"].as_str().unwrap().to_owned();
    for gone in ["a.02.x", "a.05.x", "a.09.x"] {
        api.data(api.post(&format!("{STREAMS}/A/purge"), json!({ "filter": gone })));
    }
    block_on(async { JetStream(broker.client().await).publish("a.00.a", "1").await });
    let second = api.data(api.get(&format!("{path}&cursor={cursor}")));
    let named: Vec<_> = second["subjects"].as_array().unwrap().iter().map(|s| s["subject"].clone()).collect();
    assert_eq!(named, (10..20).map(|n| json!(format!("a.{n:02}.x"))).collect::<Vec<_>>());
}

#[test]
fn more_than_the_server_gives_at_a_time_is_for_pages() {
    let broker = broker(CURRENT);
    let api = Api::of(&broker);
    for (name, direct) in [("A", true), ("B", false)] {
        let subjects = json!([format!("{name}.>")]);
        api.data(api.post(STREAMS, json!({"name": name, "subjects": subjects, "allow_direct": direct})));
    }
    block_on(async {
        let client = broker.client().await;
        for name in ["A", "B"] {
            for number in 0..1_100 {
                client.publish(format!("{name}.{number:04}"), number.to_string().into()).await.unwrap();
            }
        }
        client.flush().await.unwrap();
        JetStream(client.clone()).publish("A.0000", "last").await;
        JetStream(client).publish("B.0000", "last").await;
    });
    for subject in ["A.%3E", "B.%3E", "*.*"] {
        let words = refused(api.get(&format!("{LAST}?subject={subject}")), 413, "PAYLOAD_TOO_LARGE");
        assert!(words.contains("ask for pages with limit"), "{words}");
        let (all, _) = all_pages(&api, &format!("{LAST}?subject={subject}&limit=1024"), "messages");
        assert_eq!(all.len(), if subject == "*.*" { 2_200 } else { 1_100 });
    }
    for bad in ["", "?subject=", "?subject=a..b", "?subject=a&limit=0", "?subject=a&limit=1025", "?subject=a&cursor=x"]
    {
        refused(api.get(&format!("{LAST}{bad}")), 400, "INVALID_PARAMETERS");
    }
    for bad in ["?filter=", "?stream=a.b", "?limit=0", "?cursor=AAAA", "?subject=a"] {
        refused(api.get(&format!("{SUBJECTS}{bad}")), 400, "INVALID_PARAMETERS");
    }
    refused(api.get(&format!("{SUBJECTS}?stream=C")), 404, "STREAM_NOT_FOUND");
}

#[test]
fn large_messages_make_pages_short() {
    let mut broker = Broker::new();
    broker.set("STREAMS_DEFAULTS", "none").set("NATS_MAX_PAYLOAD", "4MB").start();
    let api = Api::of(&broker);
    for (name, direct) in [("A", true), ("B", false)] {
        let subjects = json!([format!("{name}.>")]);
        api.data(api.post(STREAMS, json!({"name": name, "subjects": subjects, "allow_direct": direct})));
        block_on(async {
            let jetstream = JetStream(broker.client().await);
            let payload = "x".repeat(3 << 20);
            for number in 0..10 {
                jetstream.publish(&format!("{name}.{number}"), &payload).await;
            }
        });
        refused(api.get(&format!("{LAST}?subject={name}.*")), 413, "PAYLOAD_TOO_LARGE");
        let (all, pages) = all_pages(&api, &format!("{LAST}?subject={name}.*&limit=100"), "messages");
        assert_eq!(
            all.iter().map(|m| m["subject"].clone()).collect::<Vec<_>>(),
            (0..10).map(|n| json!(format!("{name}.{n}"))).collect::<Vec<_>>()
        );
        assert_eq!(pages, 2, "six are more than 16 MiB");
    }
}
