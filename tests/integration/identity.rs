//! Our service users: what nats-server lets each of them do, and as whom they get in.

mod members;
mod offered;

use std::collections::BTreeSet;

use futures_util::{FutureExt, StreamExt};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use unified_nats::domain::Role;

use crate::security::{is_healthy, with_tls};
use crate::support::*;
use members::*;

const VERSIONS: [&str; 5] = ["2.10.26", "2.11.11", "2.12.8", "2.14.6", CURRENT];

#[test]
fn data_publishes_and_consumes_and_changes_no_stream() {
    for version in VERSIONS {
        let broker = with_user(version);
        block_on(async {
            let data = Member::connect(&broker, Role::Data).await;
            publishes_and_consumes(&data).await;
            data.ask("$JS.API.STREAM.NAMES", Value::Null).await;
            data.ask("$JS.API.STREAM.LIST", Value::Null).await;
            data.ask("$JS.API.CONSUMER.NAMES.MARKET_DATA", Value::Null).await;
            data.ask("$JS.API.CONSUMER.LIST.MARKET_DATA", Value::Null).await;
            data.ask("$JS.API.STREAM.MSG.GET.MARKET_DATA", json!({ "seq": 1 })).await;
            let control = Member::connect(&broker, Role::Control).await;
            let direct = json!({ "name": "D", "subjects": ["d"], "allow_direct": true });
            control.ask("$JS.API.STREAM.CREATE.D", direct).await;
            JetStream(data.connection.client.clone()).publish("d", "y").await;
            let last = data.connection.client.request("$JS.API.DIRECT.GET.D.d", "".into()).await.unwrap();
            assert_eq!(&last.payload[..], b"y", "{version}");
            let ephemeral = json!({ "name": "e", "ack_policy": "none", "inactive_threshold": 5_000_000_000_u64 });
            let request = json!({ "stream_name": MARKET_DATA, "config": ephemeral });
            data.ask("$JS.API.CONSUMER.CREATE.MARKET_DATA.e", request).await;
            data.ask("$JS.API.CONSUMER.DELETE.MARKET_DATA.e", Value::Null).await;
            data.connection.client.publish("$JS.FC.MARKET_DATA.c.x", "".into()).await.unwrap();
            data.ask("$JS.API.CONSUMER.DELETE.MARKET_DATA.c", Value::Null).await;

            data.may_not_publish(&[
                "$JS.API.INFO",
                "$JS.API.STREAM.CREATE.S",
                "$JS.API.STREAM.UPDATE.MARKET_DATA",
                "$JS.API.STREAM.DELETE.MARKET_DATA",
                "$JS.API.STREAM.PURGE.MARKET_DATA",
                "$JS.API.STREAM.MSG.DELETE.MARKET_DATA",
                "$JS.API.STREAM.SNAPSHOT.MARKET_DATA",
                "$JS.API.STREAM.RESTORE.S",
                "$JS.API.STREAM.LEADER.STEPDOWN.MARKET_DATA",
                "$JS.API.CONSUMER.PAUSE.MARKET_DATA.c",
                "$JS.API.SERVER.REMOVE",
                "$JS.API.ACCOUNT.PURGE.x",
                "$JS.API.META.LEADER.STEPDOWN",
                "$JS.hub.API.STREAM.PURGE.MARKET_DATA",
                "$JS.SNAPSHOT.RESTORE.S.x",
                "$JS.EVENT.ADVISORY.API",
                "$SYS.REQ.SERVER.PING",
                "_INBOX.somebody.1",
                "_INBOX._unified_nats.x.1",
                "_unified_nats_data.x.1",
                "_unified_nats_backup.x.1",
            ])
            .await;
            data.may_not_subscribe(&["trade-data.>", "_INBOX.>", "_INBOX._unified_nats.>", ">", "$JS.API.>"]).await;
            assert_eq!(messages(&data, MARKET_DATA).await, 1, "{version}");
        });
    }
}

#[test]
fn data_changes_no_stream_by_the_name_of_its_domain() {
    let mut broker = Broker::new();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_USERNAME", "u").set("NATS_AUTH_PASSWORD", "p");
    broker.set("JETSTREAM_DOMAIN", "hub").start();
    block_on(async {
        let data = Member::connect(&broker, Role::Data).await;
        let control = Member::connect(&broker, Role::Control).await;
        publishes_and_consumes(&data).await;
        // The server looks at what it makes of the subject of its own domain, and at others as they are.
        data.connection.client.publish("$JS.hub.API.STREAM.PURGE.MARKET_DATA", "".into()).await.unwrap();
        data.is_refused("$JS.API.STREAM.PURGE.MARKET_DATA").await;
        data.may_not_publish(&["$JS.leaf.API.STREAM.PURGE.MARKET_DATA", "$JS.leaf.API.INFO"]).await;
        assert_eq!(messages(&control, MARKET_DATA).await, 1);
    });
}

#[test]
fn backup_takes_a_snapshot_and_restores_it_and_reads_and_writes_nothing_else() {
    for version in VERSIONS {
        let broker = with_user(version);
        block_on(async {
            let backup = Member::connect(&broker, Role::Backup).await;
            let control = Member::connect(&broker, Role::Control).await;
            let data = Member::connect(&broker, Role::Data).await;
            let config = json!({ "name": "S", "subjects": ["s.>"], "storage": "file" });
            control.ask("$JS.API.STREAM.CREATE.S", config).await;
            // More than a window of chunks, so that nothing arrives without acknowledgements.
            let payload = "x".repeat(100_000);
            for number in 0..3 {
                JetStream(data.connection.client.clone()).publish(&format!("s.{number}"), &payload).await;
            }
            let consumer = json!({ "stream_name": "S", "config": { "durable_name": "c", "ack_policy": "explicit" } });
            data.ask("$JS.API.CONSUMER.DURABLE.CREATE.S.c", consumer).await;

            backup.ask("$JS.API.STREAM.NAMES", Value::Null).await;
            backup.ask("$JS.API.STREAM.LIST", Value::Null).await;
            backup.ask("$JS.API.CONSUMER.NAMES.S", Value::Null).await;
            backup.ask("$JS.API.CONSUMER.LIST.S", Value::Null).await;
            backup.ask("$JS.API.CONSUMER.INFO.S.c", Value::Null).await;
            let taken = snapshot(&backup, "S").await;
            control.ask("$JS.API.STREAM.DELETE.S", Value::Null).await;
            let restored = restore(&backup, "S", &taken).await;
            assert_eq!(restored["state"]["messages"], 3, "{version}: {restored}");
            assert_eq!(messages(&backup, "S").await, 3, "{version}");
            backup.ask("$JS.API.CONSUMER.INFO.S.c", Value::Null).await;

            backup
                .may_not_publish(&[
                    SUBJECTS[1],
                    "trade-data._selftest.x",
                    "s.1",
                    "$JS.API.INFO",
                    "$JS.API.STREAM.CREATE.T",
                    "$JS.API.STREAM.UPDATE.S",
                    "$JS.API.STREAM.DELETE.S",
                    "$JS.API.STREAM.PURGE.S",
                    "$JS.API.STREAM.MSG.GET.S",
                    "$JS.API.STREAM.MSG.DELETE.S",
                    "$JS.API.DIRECT.GET.S",
                    "$JS.API.CONSUMER.CREATE.S",
                    "$JS.API.CONSUMER.MSG.NEXT.S.c",
                    "$JS.API.CONSUMER.DELETE.S.c",
                    "$JS.ACK.S.c.1.1.1.1.0",
                    "$SYS.REQ.SERVER.PING",
                    "_INBOX.somebody.1",
                ])
                .await;
            backup.may_not_subscribe(&["trade-data.>", "s.>", "_INBOX.>", "_INBOX._unified_nats.>", ">"]).await;
            assert_eq!(messages(&backup, MARKET_DATA).await, 0, "{version}");
        });
    }
}

#[test]
fn control_makes_streams_and_publishes_and_hears_nobodys_data() {
    for version in VERSIONS {
        let broker = with_user(version);
        block_on(async {
            let control = Member::connect(&broker, Role::Control).await;
            control.ask("$JS.API.INFO", Value::Null).await;
            control.ask("$JS.API.STREAM.CREATE.S", json!({ "name": "S", "subjects": ["s.>"] })).await;
            control.ask("$JS.API.STREAM.DELETE.S", Value::Null).await;
            JetStream(control.connection.client.clone()).publish("trade-data._selftest.x", "x").await;
            control.ask("$JS.API.STREAM.PURGE.MARKET_DATA", Value::Null).await;
            control.may_not_publish(&[SUBJECTS[1], "$JS.ACK.S.c.1.1.1.1.0", "_INBOX.x", "$SYS.REQ.SERVER.PING"]).await;
            let answers = ["_unified_nats_data.>", "_unified_nats_data.x.*", "_unified_nats_backup.>"];
            control.may_not_subscribe(&answers).await;
            control.may_not_subscribe(&["trade-data.>", "_INBOX.*.*", ">"]).await;
        });
    }
}

#[test]
fn what_data_and_backup_are_sent_reaches_no_user_who_may_hear_all_answers() {
    for version in VERSIONS {
        let mut broker = Broker::with_server(version);
        let users = broker.path("users.yml");
        let inboxes = "publish: [], subscribe: {allow: [\"_INBOX.>\"], deny: [\"_INBOX._unified_nats.>\"]}";
        std::fs::write(&users, format!("users: [{{user: r, password: p, permissions: {{{inboxes}}}}}]")).unwrap();
        broker.set("NATS_AUTH_ENABLED", "true").set("NATS_USERS_FILE", users.display()).start();
        block_on(async {
            let reader = async_nats::ConnectOptions::with_user_and_password("r".into(), "p".into());
            let reader = reader.connect(broker.url()).await.unwrap();
            let control = Member::connect(&broker, Role::Control).await;
            let own = format!("{}.>", Role::Control.inbox());
            let mut listeners = vec![];
            for (client, subject) in [(&reader, "_INBOX.>".to_owned()), (&control.connection.client, own)] {
                listeners.push(client.subscribe(subject).await.unwrap());
                client.flush().await.unwrap();
            }
            publishes_and_consumes(&Member::connect(&broker, Role::Data).await).await;
            snapshot(&Member::connect(&broker, Role::Backup).await, MARKET_DATA).await;
            for client in [&reader, &control.connection.client] {
                client.flush().await.unwrap();
            }
            for mut listener in listeners {
                while let Some(heard) = listener.next().now_or_never().flatten() {
                    // The broker itself asks as control all the time.
                    assert!(heard.subject.starts_with(Role::Control.inbox()), "{version}: {heard:?}");
                }
            }
        });
    }
}

/// Each way to ask for credentials, and whether nats.conf holds users then.
const MODES: [(&[(&str, &str)], bool); 4] = [
    (&[], false),
    (&[("NATS_AUTH_TOKEN", "t")], false),
    (&[("NATS_AUTH_USERNAME", "u"), ("NATS_AUTH_PASSWORD", "p")], true),
    (&[("NATS_USERS_FILE", "users.yml")], true),
];

#[test]
fn each_role_gets_in_in_every_mode_and_is_bounded_where_there_are_users() {
    let users = format!(
        "users: [{{user: a, password: \"{}\", permissions: {{publish: [], subscribe: []}}}}]",
        bcrypt::hash("secret", 4).unwrap()
    );
    for (variables, has_users) in MODES {
        for (tls, verify) in [(false, false), (true, false), (true, true)] {
            let mode = format!("{variables:?}, TLS {tls}, client certificates {verify}");
            let (mut broker, authority) = with_tls("nats.example.org", 29);
            std::fs::write(broker.path("users.yml"), &users).unwrap();
            let users_file = broker.path("users.yml").display().to_string();
            let ca = authority.write(broker.directory.path(), "ca.pem");
            broker.set("NATS_TLS_ENABLED", tls).set("NATS_TLS_VERIFY", verify).set("NATS_TLS_CA", ca.display());
            broker.set("NATS_AUTH_ENABLED", !variables.is_empty());
            for (name, value) in variables {
                broker.set(name, if *value == "users.yml" { users_file.as_str() } else { value });
            }
            broker.start();
            is_healthy(&broker);
            assert!(Role::ALL.into_iter().all(|role| password(&broker, role).is_some() == has_users), "{mode}");
            block_on(async {
                let backup = Member::connect(&broker, Role::Backup).await;
                let data = Member::connect(&broker, Role::Data).await;
                let control = Member::connect(&broker, Role::Control).await;
                publishes_and_consumes(&data).await;
                control.ask("$JS.API.STREAM.CREATE.S", json!({ "name": "S", "subjects": ["s.>"] })).await;
                let taken = snapshot(&backup, "S").await;
                control.ask("$JS.API.STREAM.DELETE.S", Value::Null).await;
                restore(&backup, "S", &taken).await;
                if has_users {
                    data.may_not_publish(&["$JS.API.STREAM.PURGE.MARKET_DATA"]).await;
                    backup.may_not_publish(&[SUBJECTS[1]]).await;
                    control.may_not_publish(&[SUBJECTS[1]]).await;
                } else {
                    // As the documentation says: nothing bounds them.
                    data.ask("$JS.API.INFO", Value::Null).await;
                }
            });
        }
    }
}

#[test]
fn each_role_has_a_password_of_its_own_at_each_start_and_it_stands_in_nats_conf_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mut broker = with_user(CURRENT);
    assert_eq!(broker.stop(), Some(0));
    broker.set("NATS_DEBUG", "true").set("LOG_LEVEL", "DEBUG");
    let mut seen = BTreeSet::new();
    for start in 1..=2 {
        broker.start();
        let mode = std::fs::metadata(broker.path("run/nats.conf")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let passwords = Role::ALL.map(|role| password(&broker, role).unwrap());
        seen.extend(passwords.clone());
        assert_eq!(seen.len(), 3 * start);
        for entry in std::fs::read_dir(broker.path("run")).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let held = passwords.each_ref().map(|password| text.contains(password));
            let expected = match path.file_name().unwrap().to_str().unwrap() {
                "nats.conf" => [true; 3],
                name if name.starts_with("own-user-") => [true, false, false],
                _ => [false; 3],
            };
            assert_eq!(held, expected, "{}", path.display());
        }
        let mut told = String::new();
        for pid in [broker.pid(), broker.server_pid()] {
            for name in ["cmdline", "environ"] {
                let text = std::fs::read(format!("/proc/{pid}/{name}")).unwrap();
                told.push_str(&String::from_utf8_lossy(&text));
            }
        }
        for arguments in [&["config", "show"][..], &["config", "render"], &["health-check", "full", "--json"]] {
            let output = broker.output(arguments);
            told.push_str(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
        }
        block_on(async {
            let data = Member::connect(&broker, Role::Data).await;
            data.may_not_publish(&["$JS.API.INFO"]).await;
        });
        told.push_str(&broker.health().to_string());
        assert_eq!(broker.stop(), Some(0));
        told.push_str(&broker.log());
        assert!(passwords.iter().all(|password| !told.contains(password)));
    }
}

#[test]
fn a_reload_leaves_roles_connected_as_they_are() {
    let mut broker = Broker::new();
    let users = broker.path("users.yml");
    std::fs::write(&users, "users: [{user: a, password: first}]").unwrap();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_USERS_FILE", users.display()).start();
    let before = Role::ALL.map(|role| password(&broker, role).unwrap());
    block_on(async {
        let data = Member::connect(&broker, Role::Data).await;
        let backup = Member::connect(&broker, Role::Backup).await;
        std::fs::write(&users, "users: [{user: a, password: second}]").unwrap();
        broker.signal(Signal::SIGHUP);
        wait_for("reloaded", || broker.log().contains("reloaded").then_some(()));
        assert!(conf(&broker).contains("second"));
        assert_eq!(Role::ALL.map(|role| password(&broker, role).unwrap()), before);
        publishes_and_consumes(&data).await;
        data.may_not_publish(&["$JS.API.STREAM.DELETE.MARKET_DATA"]).await;
        assert_eq!(messages(&backup, MARKET_DATA).await, 1);
        // Also who comes anew.
        for role in Role::ALL {
            let member = Member::connect(&broker, role).await;
            assert_eq!(messages(&member, MARKET_DATA).await, 1, "{role:?}");
        }
    });
    is_healthy(&broker);
}
