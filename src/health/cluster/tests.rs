use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(jsz: &Value, routez: &Value) -> Cluster {
    let (jsz, routez) = (Jsz::deserialize(jsz), Routez::deserialize(routez));
    Cluster::read(jsz.unwrap_or_default(), routez.unwrap_or_default())
}

fn peer(name: &str) -> Value {
    json!({ "name": name, "current": true, "active": 300_000_000 })
}

fn routes(names: &[(&str, &str)]) -> Value {
    let routes: Vec<_> = names.iter().map(|(name, id)| json!({ "remote_name": name, "remote_id": id })).collect();
    json!({ "server_name": "n0", "routes": routes })
}

fn both() -> Value {
    routes(&[("n1", "B"), ("n1", "B"), ("n2", "C")])
}

/// What n0 is told of three nodes, with `leader` for everything.
fn jsz(leader: &str, n1: &Value, n2: &Value) -> Value {
    let group = json!({ "leader": leader, "replicas": [n1, n2] });
    let consumer = json!({ "name": "storage", "cluster": group });
    json!({
        "meta_cluster": { "leader": leader, "peer": "x", "cluster_size": 3, "replicas": [n1, n2] },
        "account_details": [{ "stream_detail": [
            { "name": "MARKET_DATA", "cluster": group, "consumer_detail": [consumer] },
            { "name": "SINGLE", "cluster": { "leader": "n0" } },
        ] }],
    })
}

fn warnings(cluster: &Cluster) -> Vec<String> {
    cluster.warnings().into_iter().map(|(name, detail)| format!("{name}: {detail}")).collect()
}

#[test]
fn three_nodes_that_are_here() {
    for leader in ["n0", "n1"] {
        let cluster = read(&jsz(leader, &peer("n1"), &peer("n2")), &both());
        assert_eq!(cluster.quorum(), Ok(format!("3 of 3 nodes are here, {leader} leads")));
        assert_eq!(warnings(&cluster), [""; 0]);
    }
}

#[test]
fn a_node_without_a_route_is_away_and_the_cluster_goes_on() {
    let cluster = read(&jsz("n1", &peer("n1"), &peer("n2")), &routes(&[("n1", "B")]));
    assert_eq!(cluster.quorum().unwrap(), "2 of 3 nodes are here, n1 leads");
    let copies = "its copies are not kept up: stream MARKET_DATA, consumer storage of MARKET_DATA";
    assert_eq!(warnings(&cluster), [format!("replicas: node n2 is away; {copies}")]);
}

#[test]
fn who_is_silent_or_offline_is_away_though_its_route_stands() {
    let silent = json!({ "name": "n2", "current": true, "active": 5_000_000_000u64 });
    let cluster = read(&jsz("n0", &peer("n1"), &silent), &both());
    assert_eq!(cluster.away(), ["n2"]);
    let offline = json!({ "name": "n2", "offline": true });
    assert_eq!(read(&jsz("n1", &peer("n1"), &offline), &both()).away(), ["n2"]);
    let cluster = read(&jsz("n1", &peer("n1"), &silent), &both());
    assert_eq!(cluster.away(), [""; 0], "followers do not hear from each other");
}

#[test]
fn a_leader_that_is_alone_has_lost_its_quorum() {
    let cluster = read(&jsz("n0", &peer("n1"), &peer("n2")), &routes(&[]));
    let lost = cluster.quorum().unwrap_err();
    assert!(lost.starts_with("quorum is lost: 1 of 3 nodes are here and 2 are needed"), "{lost}");
    assert!(lost.contains("start n1, n2"), "{lost}");
}

#[test]
fn a_follower_that_is_told_of_nobody_counts_routes() {
    let mut jsz = jsz("n1", &peer("n1"), &peer("n2"));
    jsz["meta_cluster"]["replicas"] = Value::Null;
    assert!(read(&jsz, &both()).quorum().unwrap().starts_with("3 of 3"));
    assert!(read(&jsz, &routes(&[("n1", "B")])).quorum().unwrap().starts_with("2 of 3"));
    let lost = read(&jsz, &routes(&[])).quorum().unwrap_err();
    assert!(lost.contains("start the others"), "{lost}");
}

#[test]
fn nobody_leads_and_nobody_is_known() {
    let cluster = read(&jsz("", &peer("n1"), &peer("n2")), &both());
    assert_eq!(cluster.quorum().unwrap_err(), "3 of 3 nodes are here, and none of them leads yet");
    assert!(read(&json!({}), &json!({})).quorum().unwrap_err().contains("NATS_CLUSTER_ROUTES"));
}

#[test]
fn everything_has_moved_when_every_group_has_another_leader() {
    let leads_nothing = |jsz: &Value| read(jsz, &both()).leads_nothing();
    let moved = jsz("n1", &peer("n1"), &peer("n2"));
    assert!(leads_nothing(&moved), "what has one copy stays");
    for leader in ["n0", ""] {
        for path in ["/meta_cluster", "/account_details/0/stream_detail/0/cluster"] {
            let mut jsz = moved.clone();
            jsz.pointer_mut(path).unwrap()["leader"] = leader.into();
            assert!(!leads_nothing(&jsz), "{path} {leader:?}");
        }
        let mut jsz = moved.clone();
        jsz["account_details"][0]["stream_detail"][0]["consumer_detail"][0]["cluster"]["leader"] = leader.into();
        assert!(!leads_nothing(&jsz), "consumer {leader:?}");
    }
    assert!(!read(&moved, &json!({})).leads_nothing(), "it is not known who we are");
}

#[test]
fn a_copy_that_is_behind_is_named_by_its_leader() {
    let behind = json!({ "name": "n2", "current": false, "active": 1, "lag": 70_000 });
    let cluster = read(&jsz("n0", &peer("n1"), &behind), &both());
    let sentence = "replicas: node n2 is 70000 log entries behind in";
    let expected = [format!("{sentence} stream MARKET_DATA"), format!("{sentence} consumer storage of MARKET_DATA")];
    assert_eq!(warnings(&cluster), expected);
    let elsewhere = read(&jsz("n1", &peer("n1"), &behind), &both());
    assert_eq!(warnings(&elsewhere), [""; 0], "a follower does not know");
    let under_way = json!({ "name": "n2", "current": false, "active": 1, "lag": 12 });
    assert_eq!(warnings(&read(&jsz("n0", &peer("n1"), &under_way), &both())), [""; 0]);
}

#[test]
fn names_that_are_borne_twice_are_found() {
    let sentence =
        |name| format!("names: more than one node is called {name}: give each one a NATS_SERVER_NAME of its own");
    let jsz = jsz("n1", &peer("n1"), &peer("n2"));
    let cluster = read(&jsz, &routes(&[("n1", "B"), ("n2", "C"), ("n2", "D")]));
    assert_eq!(warnings(&cluster), [sentence("n2")]);
    let cluster = read(&jsz, &routes(&[("n0", "B"), ("n1", "C"), ("n2", "D")]));
    assert_eq!(warnings(&cluster), [sentence("n0")]);
}

#[test]
fn many_copies_are_counted() {
    let streams: Vec<_> = (0..9)
        .map(|n| json!({ "name": format!("S{n}"), "cluster": { "leader": "n1", "replicas": [peer("n2")] } }))
        .collect();
    let mut jsz = jsz("n1", &peer("n1"), &peer("n2"));
    jsz["account_details"] = json!([{ "stream_detail": streams }]);
    let cluster = read(&jsz, &routes(&[("n1", "B")]));
    let copies = "stream S0, stream S1, stream S2 and 6 more";
    assert_eq!(warnings(&cluster), [format!("replicas: node n2 is away; its copies are not kept up: {copies}")]);
}

#[test]
fn the_leader_says_whether_a_copy_is_up_to_date() {
    let told = |own: Value| {
        let cluster = json!({ "leader": "n1", "replicas": [peer("n2"), own] });
        not_up_to_date("n0", &[("A".into(), cluster)])
    };
    assert_eq!(told(peer("n0")), None);
    let behind = |lag| Some(format!("stream A: its copy here is {lag} log entries behind"));
    assert_eq!(told(json!({ "name": "n0", "current": false, "active": 9, "lag": 3 })), behind(3));
    assert_eq!(told(json!({ "name": "n0", "current": false, "active": 0 })), behind(0), "not heard of yet");
    assert_eq!(told(json!({ "name": "n0", "current": true, "offline": true })), behind(0));
    let without_leader = json!({ "replicas": [peer("n0"), peer("n1")] });
    assert!(not_up_to_date("n0", &[("A".into(), without_leader)]).is_some());
    let own = json!({ "leader": "n0", "replicas": [peer("n1")] });
    assert_eq!(not_up_to_date("n0", &[("A".into(), own), ("B".into(), json!({ "leader": "n1" }))]), None);
}

/// Documents of nats-server's shape with other things in it.
fn odd() -> impl Strategy<Value = Value> {
    const NAMES: [&str; 17] = [
        "meta_cluster",
        "leader",
        "cluster_size",
        "replicas",
        "name",
        "current",
        "offline",
        "active",
        "lag",
        "routes",
        "remote_name",
        "remote_id",
        "server_name",
        "account_details",
        "stream_detail",
        "consumer_detail",
        "cluster",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(0), Just(3), any::<u64>()].prop_map(Value::from),
        prop_oneof![Just(""), Just("n0"), Just("n1")].prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(&NAMES[..]), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_answer_panics(jsz in odd(), routez in odd()) {
        let cluster = read(&jsz, &routez);
        let _ = (cluster.quorum(), cluster.warnings(), cluster.leads_nothing());
        not_up_to_date("n0", &[("A".into(), jsz)]);
    }
}
