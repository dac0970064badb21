//! What is rendered is read by a real nats-server as exactly what was meant, whatever the values.

use std::process::Command;

use async_nats::ConnectOptions;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::*;

/// Pieces that would do harm if one of them ended up outside a string.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        Just("\"".to_owned()),
        Just("'".to_owned()),
        Just("\\".to_owned()),
        Just("$HOME".to_owned()),
        Just("}".to_owned()),
        Just("{".to_owned()),
        Just("\n".to_owned()),
        Just("\r\nport: 1\n".to_owned()),
        Just("include 'x'".to_owned()),
        Just("# ".to_owned()),
        Just("// ".to_owned()),
        Just("🦀".to_owned()),
        Just("$2a$10$".to_owned()),
        Just("4G".to_owned()),
        Just("yes".to_owned()),
        Just("\\x22".to_owned()),
        Just("\t".to_owned()),
        "[ -~]{1,20}",
        "\\PC{1,10}",
        "[a-z]{200,300}",
    ];
    prop::collection::vec(pieces, 1..5).prop_map(|parts| parts.concat())
}

/// A secret within its rule: up to 1 KiB; one that begins like a hash, up to 72 bytes.
fn secret() -> impl Strategy<Value = String> {
    hostile().prop_filter("within the rule", |text| text.len() <= 1024 && (!text.starts_with("$2") || text.len() <= 72))
}

fn printable() -> impl Strategy<Value = String> {
    hostile()
        .prop_map(|text| text.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned())
        .prop_filter("within the rule", |text| !text.is_empty() && text.len() <= 1024)
}

fn server_name() -> impl Strategy<Value = String> {
    hostile()
        .prop_map(|text| text.chars().filter(|c| !c.is_whitespace() && !c.is_control()).take(128).collect::<String>())
        .prop_filter("within the rule", |text| !text.is_empty())
}

/// How many random cases; more with UNIFIED_NATS_FULL.
fn cases(some: u32) -> Config {
    let full = std::env::var_os("UNIFIED_NATS_FULL").is_some();
    Config { cases: if full { some * 20 } else { some }, failure_persistence: None, ..Config::default() }
}

#[test]
fn every_free_text_is_accepted_by_the_server() {
    let fields = (server_name(), printable(), secret(), secret(), printable(), any::<bool>());
    TestRunner::new(cases(60))
        .run(&fields, |(name, user, password, cluster_password, directory, from_file)| {
            let mut broker = Broker::new();
            prop_assume!(!cluster_password.starts_with("$2"));
            // A path component is at most 255 bytes, and a slash or a dot alone is another path.
            let directory: String = directory.replace('/', "_").chars().take(60).collect();
            prop_assume!(directory.trim() == directory && directory != "." && directory != "..");
            broker.set("NATS_SERVER_NAME", &name).set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_USERNAME", &user);
            let store = broker.path(&directory);
            broker.set("JETSTREAM_STORE_DIR", store.display());
            broker.set("NATS_CLUSTER_ENABLED", "true").set("NATS_CLUSTER_ROUTES", "nats-route://127.0.0.1:1");
            broker.set("NATS_CLUSTER_USERNAME", &user).set("NATS_CLUSTER_PORT", 1);
            for (variable, value) in [("NATS_AUTH_PASSWORD", &password), ("NATS_CLUSTER_PASSWORD", &cluster_password)] {
                if from_file {
                    let file = broker.path(variable);
                    std::fs::write(&file, format!("{value}\n")).unwrap();
                    broker.set(&format!("{variable}_FILE"), file.display());
                } else {
                    broker.set(variable, value);
                }
            }
            let conf = broker.path("nats.conf");
            let rendered = broker.output(&["config", "render", "--output", conf.to_str().unwrap()]);
            prop_assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
            let checked = Command::new(nats_server(CURRENT)).arg("-t").arg("-c").arg(&conf).output().unwrap();
            prop_assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_server_answers_to_the_meant_name_and_admits_the_meant_password_and_no_other() {
    TestRunner::new(cases(8))
        .run(&(server_name(), printable(), secret()), |(name, user, password)| {
            let mut broker = Broker::new();
            let file = broker.path("password");
            std::fs::write(&file, format!("{password}\n")).unwrap();
            broker.set("NATS_SERVER_NAME", &name).set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_USERNAME", &user);
            broker.set("NATS_AUTH_PASSWORD_FILE", file.display()).set("NATS_MAX_CONTROL_LINE", "64KB").start();
            let connect = |user: &str, password: &str| {
                let options = ConnectOptions::with_user_and_password(user.into(), password.into());
                block_on(async { options.connect(broker.url()).await.ok().map(|c| c.server_info().server_name) })
            };
            prop_assert_eq!(connect(&user, &password), Some(name));
            for other in [format!("{password}x"), password[..password.floor_char_boundary(password.len() - 1)].into()] {
                prop_assert_eq!(connect(&user, &other), None, "{:?}", other);
            }
            prop_assert_eq!(connect("somebody", &password), None);
            Ok(())
        })
        .unwrap();
}
