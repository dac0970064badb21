use proptest::prelude::*;

use super::super::Secrets;
use super::*;

fn written(text: &str) -> Result<String, FragmentError> {
    Fragment::read(text).map(|fragment| fragment.write(Secrets::Written))
}

#[test]
fn other_keys_pass_and_are_written_so_that_they_mean_one_thing() {
    for (fragment, expected) in [
        ("", ""),
        ("# port: 1\n// host: x\n", ""),
        ("leafnodes { port: 7422 }", "\"leafnodes\": {\n  \"port\": 7422\n}\n"),
        ("ws{} = 1", "\"ws{}\": 1\n"),
        (
            "mqtt\n\u{a0}{port\u{2003}=\u{b}1883;tls {a 'x'}}",
            "\"mqtt\": {\n  \"port\": 1883\n  \"tls\": {\n    \"a\": \"x\"\n  }\n}\n",
        ),
        ("server_tags: [a, 'b' \"c\\x41\", # x ]\n 1, 2k]", ""),
        (
            "server_tags: [a, 'b'\n \"c\\x41\", # x ]\n 1, 2k]",
            "\"server_tags\": [\n  \"a\"\n  \"b\"\n  \"cA\"\n  1\n  2k\n]\n",
        ),
        ("X: 5s, max_traced_msg_len: $X", "\"X\": \"5s\"\n\"max_traced_msg_len\": $X\n"),
        ("'a\"b': 1.5; c: 2026-01-02T03:04:05Z", "'a\"b': 1.5\n\"c\": 2026-01-02T03:04:05Z\n"),
        ("a: (\nport: 1 }\n)\n", "\"a\": \"\\x0aport: 1 }\\x0a\"\n"),
        ("a: $2a$11$x\nb: ON", "\"a\": \"$2a$11$x\"\n\"b\": ON\n"),
        ("a: x # y\r\nb: 10.0.0.1:4222\r\n", "\"a\": \"x\"\n\"b\": \"10.0.0.1:4222\"\n"),
    ] {
        match written(fragment) {
            Ok(text) => assert_eq!(text, expected, "{fragment}"),
            Err(error) => assert_eq!(expected, "", "{fragment}: {error}"),
        }
    }
}

#[test]
fn what_is_reserved_is_refused_however_it_is_written() {
    for (fragment, key) in [
        ("port: 1", "port"),
        ("PORT=1", "PORT"),
        ("\u{a0} port: 1", "port"),
        ("mqtt {},\u{b}\"port\": 2", "port"),
        ("# a comment\rport: 1", "port"),
        ("server_tags: [x] // y\rport 1", "port"),
        ("port\n1", "port"),
        ("lİsten: \"0.0.0.0:1\"", "lİsten"),
        ("'jetstream': enabled", "jetstream"),
        ("storedir = '/x'", "storedir"),
        ("max_conn: 5", "max_conn"),
        ("trace_verbose: off", "trace_verbose"),
    ] {
        match written(fragment) {
            Err(FragmentError::Reserved { key: found, .. }) => assert_eq!(found, key, "{fragment}"),
            other => panic!("{fragment}: {other:?}"),
        }
    }
    for (fragment, key) in [
        ("http_base_path: \"/nats\"", "http_base_path"),
        ("no_auth_user: x", "no_auth_user"),
        ("\u{a0} no_auth_user: svc", "no_auth_user"),
        ("websocket { \u{2028}No_Auth_User: x }", "No_Auth_User"),
        ("x { 'no_auth_user': y }\nmqtt: $x", "no_auth_user"),
        ("x: [[{ no_auth_user: y }]]", "no_auth_user"),
        ("system_account: A", "system_account"),
    ] {
        match written(fragment) {
            Err(FragmentError::Kept { key: found, .. }) => assert_eq!(found, key, "{fragment}"),
            other => panic!("{fragment}: {other:?}"),
        }
    }
}

#[test]
fn what_nats_server_would_move_elsewhere_is_refused() {
    for fragment in [
        "x { store_dir: \"/tmp\", jetstream: }",
        "x { jetstream }",
        "x { store_dir: 1, jetstream: 1kbb }",
        "{ port: 1 }",
        "a: 1 }",
        "} port: 1",
        "{ /port: 1 }",
        "x { /port: 1 }",
        "a: 1,, port: 1",
        "a {",
        "a: \"x",
        "a: [1",
        "b: (\nx",
        "b: (\nx\n) y",
        "a { b: [ } ]",
        "a: 'x' port: 1",
        "a: 1\0\nport: 1",
        "\u{feff}port: 1",
        "a: \\xg1",
        "a: 99999999999999999999",
        "a",
        "a:\n1",
        "\"a\"'b\"'\": 1",
        "a: 1kb b: 2",
    ] {
        assert!(
            matches!(written(fragment), Err(FragmentError::Malformed { .. })),
            "{fragment}: {:?}",
            written(fragment)
        );
    }
    for fragment in ["include 'x'", "mqtt {\n INCLUDE \"x\"\n}", "İnclude\u{a0}x"] {
        assert!(matches!(written(fragment), Err(FragmentError::Include { .. })), "{fragment}");
    }
    for fragment in ["a: $HOME", "a { b: 1 }, c: $b", "a: [$port]"] {
        assert!(matches!(written(fragment), Err(FragmentError::Variable { .. })), "{fragment}");
    }
    for fragment in ["leaf {}\nleafnodes {}", "mqtt {}\nMQTT {}"] {
        assert!(matches!(written(fragment), Err(FragmentError::Twice { .. })), "{fragment}");
    }
}

#[test]
fn subjects_that_the_program_lives_on_are_not_mapped_away() {
    for subject in [
        "$JS.API.>",
        "$JS.>",
        ">",
        "*.>",
        "$SYS.REQ.>",
        "_INBOX.>",
        "_INBOX._unified_nats.x",
        "_unified_nats_data.>",
        "_unified_nats_backup.x",
        "$JS.ACK.*.*",
    ] {
        for text in [format!("mappings {{ \"{subject}\": \"zz.>\" }}"), format!("maps = {{ '{subject}' : x }}")] {
            let refused = Fragment::read(&text).unwrap_err().to_string();
            assert!(refused.contains("JetStream and this program live on"), "{text}: {refused}");
        }
    }
    let variable = Fragment::read("m { a: b }\nmappings: $m").unwrap_err().to_string();
    assert!(variable.contains("must be written out"), "{variable}");
    for text in
        ["mappings { foo: bar }", "mappings { \"old.trade.>\": \"trade-data.>\" }", "mappings { \"_INBOX.a\": b }"]
    {
        Fragment::read(text).unwrap();
    }
}

#[test]
fn lines_are_told() {
    for (fragment, line) in [("\n\na: \"x\n", 3), ("a: 1\n}", 2), ("a {\n\n", 1)] {
        match written(fragment) {
            Err(FragmentError::Malformed { line: found, .. }) => assert_eq!(found, line, "{fragment:?}"),
            other => panic!("{fragment}: {other:?}"),
        }
    }
    let nested = "# x\nmqtt {\n\n  tls {}\n  no_auth_user: x\n}";
    assert!(matches!(written(nested), Err(FragmentError::Kept { line: 5, .. })));
}

#[test]
fn secrets_are_not_shown() {
    let fragment = "mqtt { authorization { user: u, PassWord: tell, token = tell } }\n\
                    leafnodes { remotes [ { url: \"nats-leaf://u:tell@hub:7422\" } ] }";
    let shown = Fragment::read(fragment).unwrap().write(Secrets::Redacted);
    assert!(!shown.contains("tell") && shown.contains("hub:7422"), "{shown}");
    assert_eq!(written(fragment).unwrap().matches("tell").count(), 3);
}

#[test]
fn listeners_are_seen() {
    for (fragment, opens) in [
        ("ws { port: 1 }", true),
        ("mqtt { Listen: 1 }", true),
        ("x { port: 1 }, leaf: $x", true),
        ("leafnodes { remotes: [] }", false),
        ("x { port: 1 }", false),
    ] {
        assert_eq!(Fragment::read(fragment).unwrap().opens_a_listener(), opens, "{fragment}");
    }
}

#[test]
fn ports_are_seen_however_they_are_written() {
    let ports = |text: &str| {
        let listeners = Fragment::read(text).unwrap().listeners();
        listeners.into_iter().map(|listener| (listener.kind, listener.port, listener.line)).collect::<Vec<_>>()
    };
    for (text, expected) in [
        ("ws {\n  PORT 8085\n}", &[("websocket", 8085, 2)][..]),
        ("mqtt { listen: \"127.0.0.1:1883\" }\nleaf { listen: 7422 }", &[("mqtt", 1883, 1), ("leafnodes", 7422, 2)]),
        ("mqtt { listen: \"[::1]:1883\" }, ws { port: 8k }", &[("mqtt", 1883, 1), ("websocket", 8000, 1)]),
        ("p: 8085\nws { port: $p }", &[("websocket", 8085, 2)]),
        ("w { port: 8085 }\nws: $w", &[("websocket", 8085, 1)]),
        ("ws { q: 1, port: $q }", &[("websocket", 1, 1)]),
        ("ws { port: -1 }, mqtt { port: 0 }, leaf { remotes: [ { port: 5 } ] }", &[]),
        ("x { port: 8085 }", &[]),
    ] {
        assert_eq!(ports(text), expected, "{text}");
    }
}

#[test]
fn messages_of_streams_that_are_mapped_away_are_seen() {
    let captured: Vec<(String, Subject)> =
        ["trade-data.>", "trade.>", "x.*"].map(|subject| ("S".to_owned(), subject.parse().unwrap())).into();
    for (mapping, to) in [
        ("\"trade-data.>\": \"elsewhere.>\"", Some("elsewhere.>")),
        ("\"trade-data.binance.BTC\": other", Some("other")),
        ("\"trade-data.*.*\": \"y.{{wildcard(1)}}.$2\"", Some("y.{{wildcard(1)}}.$2")),
        ("\"x.*\": b", Some("b")),
        ("\"x.*\": [ {destination: \"x.{{wildcard(1)}}\", weight: 90%}, {dest: canary, weight: 10%} ]", Some("canary")),
        ("\"x.1\": {destination: y}", Some("y")),
        ("\"x.1\": \"x.1.2\"", Some("x.1.2")),
        // Still captured, or never was.
        ("\"trade-data.>\": \"trade.>\"", None),
        ("\"trade-data.*\": \"trade-data.{{partition(3,1)}}.{{wildcard(1)}}\"", None),
        ("\"old.>\": \"trade-data.>\"", None),
        ("foo: bar", None),
    ] {
        let fragment = Fragment::read(&format!("mappings {{\n  {mapping}\n}}")).unwrap();
        let found = fragment.diversions(&captured);
        assert_eq!(found.first().map(|diversion| diversion.destination.as_str()), to, "{mapping}");
        assert!(found.iter().all(|diversion| diversion.line == 2 && diversion.stream == "S"), "{found:?}");
    }
    let by_variable = Fragment::read("to: other\nmaps { \"x.1\": $to }").unwrap();
    assert_eq!(by_variable.diversions(&captured)[0].destination, "other");
}

#[test]
fn every_written_line_knows_where_it_comes_from() {
    let text = "# a\nmqtt {\n\n  port: 1\n  tls { a: [1,\n 2] }\n}\nx: \"a\\nb\", y: 1\n";
    let fragment = Fragment::read(text).unwrap();
    let written = fragment.write(Secrets::Written);
    let lines = fragment.lines();
    assert_eq!(written.lines().count(), lines.len(), "{written}");
    let of = |part: &str| lines[written.lines().position(|line| line.contains(part)).unwrap()];
    assert_eq!((of("mqtt"), of("port"), of("tls"), of("2"), of("\"x\""), of("\"y\"")), (2, 4, 5, 5, 8, 8));
}

#[test]
fn the_largest_fragment_is_read_at_once() {
    let fragment = "a 1\nb: $a\n".repeat(1 << 17) + "c {";
    let started = std::time::Instant::now();
    assert!(written(&fragment).is_err());
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(written(&"a [".repeat(1 << 18)).is_err());
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(text in "[ab1k$.{}\\[\\]()\"'\\\\#/ ,;:=\n\r\u{a0}-]{0,60}") {
        if let Ok(once) = written(&text) {
            prop_assert_eq!(written(&once), Ok(once));
        }
    }
}
