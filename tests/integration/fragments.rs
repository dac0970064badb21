//! NATS_EXTRA_CONFIG: nats-server and we read one language in one way.
//!
//! The first test lets nats-server be the judge of our parser: of random fragments, what we write
//! must come to the same as what the operator wrote. The second tries spellings of reserved keys, the
//! third asks the server which keys there are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use unified_nats::nats_conf::Secrets;
use unified_nats::nats_conf::fragment::{Fragment, decision_of};

use crate::reload::logged;
use crate::support::*;

const VERSIONS: [&str; 5] = ["2.10.26", "2.11.11", "2.12.8", "2.14.6", CURRENT];

/// What a nats-server makes of a configuration: its digest, or its complaints without where they are.
fn verdict(version: &str, file: &Path, conf: &str) -> Result<String, BTreeSet<String>> {
    std::fs::write(file, conf).unwrap();
    let output = Command::new(nats_server(version)).env_clear().arg("-t").arg("-c").arg(file).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).replace(file.to_str().unwrap(), "");
    if output.status.success() {
        return Ok(text);
    }
    let without_place = |line: &str| {
        let line = line.trim_start_matches("nats-server: ");
        line.trim_start_matches(|c: char| !c.is_alphabetic()).to_owned()
    };
    Err(text.lines().map(without_place).filter(|line| !line.is_empty()).collect())
}

fn one_of(choices: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(choices).prop_map(str::to_owned)
}

/// Mostly what is usual, so that not every fragment is refused.
fn mostly(usual: &'static str, choices: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![2 => Just(usual.to_owned()), 1 => one_of(choices)]
}

/// White space of every kind, comments, and nothing.
fn gap() -> impl Strategy<Value = String> {
    mostly(
        " ",
        &[
            "", " ", "\t", "\n", "\r\n", "\r", "\u{b}", "\u{c}", "\u{85}", "\u{a0}", "\u{1680}", "\u{2003}",
            "\u{2028}", "\u{2029}", "\u{202f}", "\u{205f}", "\u{3000}", "# c\n", "// c\r", " #x\r\n", "\u{200b}",
        ],
    )
}

fn key() -> impl Strategy<Value = String> {
    one_of(&[
        "a",
        "'b'",
        "\"c d\"",
        "debug_x",
        "max_traced_msg_len",
        "\"max_traced_msg_len\"",
        "MAX_TRACED_MSG_LEN",
        "server_tags",
        "'server_tags'",
        "client_advertise",
        "x{",
        "p\u{a0}q",
        "include",
        "\"include\"",
        "a'b",
        "/a",
        "max_closed_clients",
        "connect_error_reports",
        "İ",
        "no_sublist_cache",
    ])
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        text(),
        one_of(&[
            "1",
            "-5",
            "1k",
            "1kbb",
            "1.5",
            "2026-01-02T03:04:05Z",
            "2026-1",
            "true",
            "OFF",
            "\"\\q\"",
            "$a",
            "$b",
            "$HOME",
            "\u{a0}",
            "99999999999999999999",
            ".5",
            "",
            "1]",
            "\"",
            "'",
        ])
    ]
}

fn value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(3, 12, 4, |inner| {
        let element = (gap(), inner.clone(), gap(), mostly(",", &[",", "\n", "", ";", ",\r"]));
        let list = prop::collection::vec(element, 0..4)
            .prop_map(|parts| parts.into_iter().map(|(a, v, b, s)| format!("{a}{v}{b}{s}")).collect::<String>());
        prop_oneof![
            list.prop_map(|inside| format!("[{inside}]")),
            entries(inner).prop_map(|inside| format!("{{{inside}}}")),
        ]
    })
}

/// A key with its value, in one of the ways of putting them down.
fn entry(key: impl Strategy<Value = String>, value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let separator = mostly(": ", &[":", "=", " ", "", ": "]);
    let end = mostly("\n", &["\n", ",", ";", "\r", "", " ", " # c\n", "//\r"]);
    (gap(), key, gap(), separator, gap(), value, end).prop_map(|(a, k, b, s, c, v, e)| format!("{a}{k}{b}{s}{c}{v}{e}"))
}

fn entries(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec(entry(key(), value), 1..4).prop_map(|entries| entries.concat())
}

fn text() -> impl Strategy<Value = String> {
    one_of(TEXTS)
}

const TEXTS: &[&str] = &[
    "x",
    "x'",
    "'y z'",
    "\"w\\x41\\n\"",
    "a\\tb",
    "$2a$11$x",
    "(\nraw }\n)\n",
    "(\nraw ) }\r\n)\n",
    "(x)",
    "#",
    "//",
    "u\u{a0}v",
    "5x",
    "10s",
    "''",
    "\"\"",
    "\"a\nb\"",
    "1kbx",
    "a#b",
    "a//b",
    "a:b=c",
    "'\u{2028}'",
    "127.0.0.1:4222",
    "2k'",
    "x\u{b}y",
    "\"\\\"\"",
    "'\\'",
    "{",
    "x{",
    "\u{200b}",
    "\"é\"",
    "é",
];

/// Valid fragments, for the most part: keys with values of their own types.
fn sensible() -> impl Strategy<Value = String> {
    let tag =
        (gap(), text(), gap(), mostly(",", &["\n", "\r", " # c\n"])).prop_map(|(a, t, b, e)| format!("{a}{t}{b}{e}"));
    let tags = prop::collection::vec(tag, 0..4).prop_map(|tags| format!("[{}]", tags.concat()));
    let headers =
        prop::collection::vec(entry(key(), text()), 0..4).prop_map(|inside| format!("{{{}}}", inside.concat()));
    let headers = entry(one_of(&["headers", "'Headers'"]), headers)
        .prop_map(|inside| format!("{{ port: -1, no_tls: true,\n{inside}}}"));
    let number = || one_of(&["1", "1k", "2KiB", "3kb", "1kbb", "4mib", "0x", "5 ", "1kbi"]);
    let maybe = |strategy: BoxedStrategy<String>| prop_oneof![Just(String::new()), strategy];
    (
        maybe(entry(one_of(&["max_traced_msg_len", "MAX_TRACED_MSG_LEN", "'max_traced_msg_len'"]), number()).boxed()),
        maybe(entry(one_of(&["server_tags", "\"server_tags\"", "SERVER_TAGS"]), tags).boxed()),
        maybe(entry(one_of(&["client_advertise", "Client_Advertise"]), text()).boxed()),
        maybe(entry(one_of(&["websocket", "ws", "'WebSocket'"]), headers).boxed()),
        maybe(entry(one_of(&["a", "'b'"]), number()).boxed()),
        maybe(entry(one_of(&["max_closed_clients"]), one_of(&["$a", "$b", "$a\u{a0}", "7"])).boxed()),
        maybe(entry(one_of(&["no_sublist_cache"]), one_of(&["on", "OFF", "Yes", "no", "true'", "False"])).boxed()),
    )
        .prop_map(|(a, b, c, d, e, f, g)| [a, b, c, d, e, f, g].concat())
}

fn runs(some: u32) -> Config {
    let full = std::env::var_os("UNIFIED_NATS_FULL").is_some();
    Config {
        cases: if full { some * 10 } else { some },
        failure_persistence: None,
        max_global_rejects: 1 << 20,
        ..Config::default()
    }
}

/// Every fragment that we take is taken by nats-server as it stands, too, and both forms come to the
/// same: one digest of everything that is in force, or the same complaints about the same keys.
#[test]
fn what_we_write_means_what_the_operator_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nats.conf");
    let taken = std::cell::Cell::new(0_u32);
    TestRunner::new(runs(300))
        .run(&(prop_oneof![3 => sensible(), 1 => entries(value())], 0..VERSIONS.len()), |(text, version)| {
            let Ok(fragment) = Fragment::read(&text) else { return Err(TestCaseError::reject("refused by us")) };
            let version = VERSIONS[version];
            let written = verdict(version, &file, &format!("port: -1\n{}", fragment.write(Secrets::Written)));
            let original = verdict(version, &file, &format!("port: -1\n{text}\n"));
            taken.set(taken.get() + u32::from(original.is_ok()));
            prop_assert_eq!(written, original, "{} {:?}", version, text);
            Ok(())
        })
        .unwrap();
    assert!(taken.get() > 60, "only {} fragments were valid", taken.get());
}

/// With names that nobody knows nothing is judged by its meaning: what a fragment brings into force is
/// what nats-server complains about.
#[test]
fn we_take_what_people_write() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nats.conf");
    for text in [
        "mappings = {\n  foo: bar\n  \"a.*\": [ {destination: \"b.{{wildcard(1)}}\", weight: 50%} ]\n}\n",
        "server_tags: [\"az:1\", 'disk:ssd']\r\n# end",
        "leafnodes {\n  port: -1\n  authorization { user: u, password: \"p\" }\n}",
        "websocket { port: -1; no_tls: true }",
        "TAG: \"x\"\nserver_tags: [$TAG]",
        "leafnodes: { remotes: [ { url: \"nats-leaf://hub.example.org:7422\" } ] }",
        "max_traced_msg_len 1kb, client_advertise = 10.0.0.1:4222",
    ] {
        let fragment = Fragment::read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        for version in VERSIONS {
            let written = verdict(version, &file, &format!("port: -1\n{}", fragment.write(Secrets::Written)));
            let original = verdict(version, &file, &format!("port: -1\n{text}\n"));
            assert!(written.is_ok(), "{version} {text}: {written:?}");
            assert_eq!(written, original, "{version} {text}");
        }
    }
}

/// A key in many spellings, all of which nats-server takes for it or refuses.
fn spellings(key: &str, value: &str) -> Vec<String> {
    let mut texts = vec![];
    for space in ["", "\u{a0}", "\u{b}", "\u{c}", "\u{85}", "\u{1680}", "\u{2000}", "\u{2028}", "\u{3000}", "\r"] {
        texts.push(format!("{space}{key}: {value}"));
        texts.push(format!("{key}{space} = {value}"));
        texts.push(format!("server_tags: [x]\r{space}{key} {value}"));
        texts.push(format!("# comment\r{space}'{key}'{value}"));
    }
    for form in [
        format!("\"{key}\": {value}"),
        format!("'{key}'\n{value}"),
        format!("{key}\n\n{value}"),
        format!("{}: {value}", key.to_uppercase()),
        format!("{}: {value}", key.replacen('i', "İ", 1)),
        format!("{}: {value}", key.replacen('k', "\u{212a}", 1)),
        format!("{{ {key}: {value} }}"),
        format!("{{}} {key}: {value}"),
        format!("server_tags: [x] }} {key}: {value}"),
        format!("server_tags: [x], {key}: {value}"),
        format!("server_tags: [x]; {key}: {value}"),
        format!("server_tags: (\n)\n{key}: {value}"),
        format!("x {{ a: 1, {key}: }}"),
        format!("x {{ a: 1kbb, {key}: 1kbb }}"),
        format!("x {{ a: 1, /{key}: {value} }}"),
        format!("x: {value}\n{key}: $x"),
        "include other.conf".to_owned(),
        "INCLUDE \"other.conf\"".to_owned(),
        "x { include other.conf }".to_owned(),
        "İnclude 'other.conf'".to_owned(),
        format!("server_tags: \"a\\\"\n{key}: {value} # \""),
        format!("server_tags: 'a\\'\n{key}: {value} # '"),
        format!("server_tags: a'\n{key}: {value} # '"),
        format!("# comment \u{2028}{key}: {value}"),
    ] {
        texts.push(form);
    }
    texts
}

fn lets_anybody_in(broker: &Broker) -> bool {
    block_on(async { async_nats::ConnectOptions::new().connect(broker.url()).await.is_ok() })
}

/// With a password asked for and SECURITY_STRICT on: either the fragment is refused with exit 78, or the
/// file that it goes into lets nobody in without one.
#[test]
fn no_spelling_of_no_auth_user_gets_through() {
    let mut broker = Broker::new();
    let path = broker.path("extra.conf");
    std::fs::write(broker.path("other.conf"), "no_auth_user: svc\n").unwrap();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_USERNAME", "svc").set("NATS_AUTH_PASSWORD", "secret");
    broker.set("SECURITY_STRICT", "true").set("NATS_EXTRA_CONFIG", path.display()).set("NATS_HTTP_HOST", "127.0.0.1");
    let mut refused = 0;
    for text in spellings("no_auth_user", "svc") {
        std::fs::write(&path, &text).unwrap();
        match broker.output(&["config", "render"]).status.code() {
            Some(78) => refused += 1,
            Some(0) => {
                broker.launch();
                let is_ready = |broker: &Broker| http_get(&broker.api("/readyz")).0 == 200;
                wait_for("ready or refused", || (broker.has_ended() || is_ready(&broker)).then_some(()));
                assert!(!lets_anybody_in(&broker), "{text:?}");
                if !broker.has_ended() {
                    broker.signal(nix::sys::signal::Signal::SIGTERM);
                }
                broker.wait();
            }
            other => panic!("{other:?}: {text:?}"),
        }
    }
    assert!(refused > 50, "{refused} were refused");
}

/// None of the reserved keys, in no spelling, reaches nats-server: with a value of the wrong type each
/// would be complained about.
#[test]
fn no_spelling_of_a_reserved_key_reaches_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nats.conf");
    std::fs::write(directory.path().join("other.conf"), "http_base_path: 5\n").unwrap();
    for key in ["port", "http_base_path", "listen", "accounts", "jetstream", "pid_file", "default_js_domain"] {
        for text in spellings(key, "5") {
            let Ok(fragment) = Fragment::read(&text) else { continue };
            let written = verdict(CURRENT, &file, &format!("server_tags: [y]\n{}", fragment.write(Secrets::Written)));
            let complaints = written.err().unwrap_or_default();
            let harmless = |line: &String| line.contains("unknown field") || line.contains("server_tags");
            assert!(complaints.iter().all(harmless), "{text:?}: {complaints:?}");
            // Not even under a name that only looks like it.
            assert!(!complaints.iter().any(|line| line.contains(&format!("\"{key}\""))), "{text:?}: {complaints:?}");
        }
    }
}

/// Names that a nats-server knows at the top level, of those asked for.
fn known(version: &str, file: &Path, names: &[String]) -> Vec<String> {
    let conf: String = names.iter().map(|name| format!("\"{name}\": {{}}\n")).collect();
    let complaints = verdict(version, file, &conf).expect_err("none of the values is valid");
    names.iter().filter(|name| !complaints.contains(&format!("unknown field \"{name}\""))).cloned().collect()
}

/// Every name that the program of nats-server holds anywhere is asked for: none that it knows as a key
/// may be undecided. A new version brings its new keys to light here.
#[test]
fn every_key_of_every_server_is_decided() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nats.conf");
    let full = std::env::var_os("UNIFIED_NATS_FULL").is_some();
    for version in VERSIONS {
        let mut names = if full && version == CURRENT { names_in(&nats_server(version)) } else { vec![] };
        names.extend(unified_nats::nats_conf::fragment::names().map(str::to_owned));
        names.sort_unstable();
        names.dedup();
        let mut found = vec![];
        for part in names.chunks(20_000) {
            found.extend(known(version, &file, part));
        }
        // That the question works: all but a few newer ones are known to all.
        assert!(found.len() > 85, "{version}: {found:?}");
        let undecided: Vec<_> = found.iter().filter(|name| decision_of(name).is_none()).collect();
        assert!(undecided.is_empty(), "{version}: {undecided:?}");
        if version == CURRENT {
            let gone: Vec<_> =
                unified_nats::nats_conf::fragment::names().filter(|name| !found.iter().any(|f| f == name)).collect();
            assert!(gone.is_empty(), "{version} does not know {gone:?}");
        }
    }
}

/// Whatever stands in the program and could be a key: Go keeps texts side by side without ends, so every
/// part of every run of such letters counts.
fn names_in(program: &PathBuf) -> Vec<String> {
    let bytes = std::fs::read(program).unwrap();
    let is_letter = |b: &u8| b.is_ascii_lowercase() || *b == b'_';
    let mut names = std::collections::HashSet::new();
    for run in bytes.split(|b| !is_letter(b)).filter(|run| run.len() > 1) {
        for start in 0..run.len() {
            for end in start + 2..=run.len().min(start + 28) {
                names.insert(String::from_utf8_lossy(&run[start..end]).into_owned());
            }
        }
    }
    names.into_iter().collect()
}

/// nats-server counts the lines of nats.conf, which nobody has written; the operator has a file of their own.
#[test]
fn complaints_name_the_line_of_the_fragment() {
    for version in VERSIONS {
        let mut broker = Broker::with_server(version);
        let path = broker.path("extra.conf");
        broker.set("NATS_EXTRA_CONFIG", path.display());
        for (text, line, complaint) in [
            ("# a comment\n\nmqtt {\n  port: 1883\n\n  foo: 1\n}\n", 6, "unknown field \"foo\""),
            ("server_tags: [a,\n b]\nzork: 1", 3, "unknown field \"zork\""),
            ("x: 1, mappings {\n foo: bar\n\n \"a.>\": b }", 4, "invalid subject"),
        ] {
            std::fs::write(&path, text).unwrap();
            let output = broker.output(&["config", "validate"]);
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.code(), Some(78), "{version} {text}: {told}");
            let found = told.lines().find(|told| told.contains(complaint)).unwrap_or_default();
            assert!(found.contains(&format!("{}:{line}: ", path.display())), "{version} {text}: {told}");
        }
        // And so do the last words of a broker that nobody has asked before.
        std::fs::write(&path, "\n\nzork: 1\n").unwrap();
        broker.launch();
        assert_eq!(broker.wait(), Some(78), "{version}: {}", broker.log());
        let told = format!("{}:3: unknown field", path.display());
        assert!(broker.log().contains(&told), "{version}: {}", broker.log());
    }
}

#[test]
fn a_port_of_the_fragment_is_taken_by_nothing_else() {
    let mut broker = Broker::new();
    let path = broker.path("extra.conf");
    broker.set("NATS_EXTRA_CONFIG", path.display());
    let Ports { api, nats, http, .. } = broker.ports;
    for (text, told) in [
        (
            format!("websocket {{\n  port: {api}\n  no_tls: true\n}}"),
            format!("port {api} of websocket in line 2 of the fragment, which is that of API_PORT"),
        ),
        (
            format!("mqtt {{ listen: \"127.0.0.1:{nats}\" }}"),
            format!("port {nats} of mqtt in line 1 of the fragment, which is that of NATS_PORT"),
        ),
        (format!("leafnodes {{ port: {http} }}"), "that of NATS_HTTP_PORT".to_owned()),
        ("leafnodes { port: 7422 }\nmqtt { port: 7422 }".to_owned(), "that of leafnodes in line 1".to_owned()),
    ] {
        std::fs::write(&path, &text).unwrap();
        let output = broker.output(&["config", "validate"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(78), "{text}: {said}");
        assert!(said.contains(&told) && said.contains("give one of them another port"), "{text}: {said}");
    }
}

/// The server itself shows that a message is diverted, and we say so before.
#[test]
fn mappings_that_divert_market_data_are_told() {
    let mut broker = Broker::new();
    let path = broker.path("extra.conf");
    std::fs::write(&path, "mappings {\n  \"trade-data.>\": \"elsewhere.>\"\n  \"old.>\": \"trade-data.>\"\n}\n")
        .unwrap();
    broker.set("NATS_EXTRA_CONFIG", path.display());
    let output = broker.output(&["config", "validate"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = "maps \"trade-data.>\" to \"elsewhere.>\" in line 2: what is published there does not get to stream MARKET_DATA";
    assert!(output.status.success() && said.contains(told), "{said}");
    assert_eq!(said.matches("NATS_EXTRA_CONFIG maps").count(), 1, "{said}");
    broker.start();
    logged(&broker, "does not get to stream MARKET_DATA");
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let lost = jetstream.try_publish("trade-data.x.spot", b"1".to_vec()).await;
        assert!(lost.is_err(), "no stream has it: {lost:?}");
        assert_eq!(jetstream.publish("orderbook-data.x.spot", "1").await, 1);
    });
    assert_eq!(broker.stop(), Some(0));
}
