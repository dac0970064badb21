//! Several users with their rights, and the one that we are.

use async_nats::ConnectOptions;
use futures_util::{FutureExt, StreamExt};
use nix::sys::signal::{Signal, kill};

use crate::bare::{BareServer, JETSTREAM};
use crate::security::{admits, is_healthy, with_tls};
use crate::support::*;

fn with_users(version: &str, users: &str) -> (Broker, std::path::PathBuf) {
    let mut broker = Broker::with_server(version);
    let file = broker.path("users.yml");
    std::fs::write(&file, users).unwrap();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_USERS_FILE", file.display());
    (broker, file)
}

fn user(name: &str, password: &str) -> ConnectOptions {
    ConnectOptions::with_user_and_password(name.into(), password.into())
}

fn file() -> String {
    let hash = bcrypt::hash("secret", 4).unwrap();
    format!(
        "
users:
  - user: producer
    password: producer_pass
    permissions: {{publish: [\"trade-data.>\"], subscribe: [\"_INBOX.>\"]}}
  - user: consumer
    password: \"{hash}\"
    permissions:
      publish: [\"$JS.API.>\", \"$JS.ACK.>\"]
      subscribe: [\"_INBOX.>\"]
  - {{user: nobody, password: nothing, permissions: {{publish: [], subscribe: []}}}}
"
    )
}

/// Whether JetStream acknowledges what that user publishes there.
async fn publishes(broker: &Broker, options: ConnectOptions, subject: &str) -> bool {
    let client = options.connect(broker.url()).await.unwrap();
    JetStream(client).try_publish(subject, b"x".to_vec()).await.is_ok()
}

#[test]
fn each_user_may_do_what_the_file_says_with_every_version() {
    for version in ["2.10.26", "2.11.11", "2.12.8", "2.14.6", CURRENT] {
        let (mut broker, _) = with_users(version, &file());
        broker.start();
        is_healthy(&broker);
        assert!(!admits(&broker, ConnectOptions::new()), "{version}");
        assert!(!admits(&broker, user("producer", "x")), "{version}");
        let conf = std::fs::read_to_string(broker.path("run/nats.conf")).unwrap();
        let hash = conf.split('"').find(|text| text.starts_with("$2")).unwrap().to_owned();
        assert!(!admits(&broker, user("consumer", &hash)), "{version}: a hash is no password");
        block_on(async {
            let producer = || user("producer", "producer_pass");
            assert!(publishes(&broker, producer(), SUBJECTS[1]).await, "{version}");
            assert!(!publishes(&broker, producer(), SUBJECTS[0]).await, "{version}");
            assert!(!publishes(&broker, user("nobody", "nothing"), SUBJECTS[1]).await, "{version}");
            let consumer = user("consumer", "secret").connect(broker.url()).await.unwrap();
            assert_eq!(JetStream(consumer).info("MARKET_DATA").await["state"]["messages"], 1, "{version}");
        });
        let output = broker.output(&["selftest"]);
        assert_eq!(output.status.code(), Some(0), "{version}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

fn own_file(broker: &Broker) -> std::path::PathBuf {
    broker.path(&format!("run/own-user-{}.json", broker.ports.nats))
}

/// Name and password that the broker connects with.
fn own_password(broker: &Broker) -> String {
    let text = std::fs::read_to_string(own_file(broker)).unwrap();
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["user"], "_unified_nats");
    read["password"].as_str().unwrap().to_owned()
}

#[test]
fn our_own_password_is_another_one_at_each_start_and_opens_little() {
    use std::os::unix::fs::PermissionsExt;
    let (mut broker, _) = with_users(CURRENT, &file());
    broker.set("NATS_DEBUG", "true").start();
    let first = own_password(&broker);
    let mode = std::fs::metadata(own_file(&broker)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ours = |password: &str| user("_unified_nats", password).custom_inbox_prefix("_INBOX._unified_nats");
    block_on(async {
        assert!(!publishes(&broker, ours(&first), SUBJECTS[1]).await, "nobody's data can be published as us");
        assert!(publishes(&broker, ours(&first), "trade-data._selftest.x").await);
        let client = ours(&first).connect(broker.url()).await.unwrap();
        let publisher = user("producer", "producer_pass").connect(broker.url()).await.unwrap();
        for subject in ["trade-data.>", "_INBOX.*.*", ">"] {
            let mut eavesdropper = client.subscribe(subject).await.unwrap();
            client.flush().await.unwrap();
            JetStream(publisher.clone()).publish(SUBJECTS[1], "x").await;
            client.flush().await.unwrap();
            let heard = eavesdropper.next().now_or_never().flatten();
            assert!(heard.is_none(), "nobody's data can be read as us: {subject}");
        }
    });
    // A server that dies comes back with the same one; another start makes another.
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    wait_for("another server", || (broker.restarts() == Some(1) && broker.state() == "ready").then_some(()));
    assert_eq!(own_password(&broker), first);
    assert_eq!(broker.stop(), Some(0));
    broker.start();
    let second = own_password(&broker);
    assert_ne!(first, second);
    assert!(!admits(&broker, ours(&first)) && admits(&broker, ours(&second)));
    is_healthy(&broker);
    assert_eq!(broker.stop(), Some(0));
    for secret in [first.as_str(), &second, "producer_pass", "$2"] {
        assert!(!broker.log().contains(secret), "{secret}");
    }
}

#[test]
fn nothing_is_refused_to_us_while_we_read_the_messages_through() {
    let (mut broker, _) = with_users(CURRENT, &file());
    broker.start();
    let producer = user("producer", "producer_pass");
    assert!(block_on(publishes(&broker, producer, SUBJECTS[1])));
    assert_eq!(broker.stop(), Some(0));
    broker.start();
    wait_for("the message is read through", || {
        let detail = broker.health()["checks"]["integrity"]["detail"].as_str().unwrap_or_default().to_owned();
        detail.contains("1 messages were read through").then_some(())
    });
    for words in ["NATS refuses", "Permissions Violation"] {
        assert!(!broker.log().contains(words), "{}", broker.log());
    }
}

#[test]
fn two_brokers_with_one_directory_have_a_password_each() {
    let [(mut one, _), (mut other, _)] = [(); 2].map(|()| with_users(CURRENT, &file()));
    one.start();
    other.set("NATS_CONFIG_FILE", one.path("run/nats.conf").display()).start();
    is_healthy(&one);
    is_healthy(&other);
}

#[test]
fn a_file_with_our_own_password_that_was_removed_comes_back_with_a_reload() {
    let (mut broker, _) = with_users(CURRENT, &file());
    broker.start();
    let path = broker.path(&format!("run/own-user-{}.json", broker.ports.nats));
    std::fs::remove_file(&path).unwrap();
    broker.signal(Signal::SIGHUP);
    wait_for("the file is there", || path.exists().then_some(()));
    wait_for("reloaded", || broker.log().contains("reloaded; no variable").then_some(()));
    is_healthy(&broker);
}

#[test]
fn another_file_is_taken_over_by_a_reload_and_a_bad_one_changes_nothing() {
    let (mut broker, path) = with_users(CURRENT, &file());
    broker.start();
    let before = own_password(&broker);
    std::fs::write(&path, "users: [{user: producer, password: another}]").unwrap();
    broker.signal(Signal::SIGHUP);
    wait_for("reloaded", || broker.log().contains("reloaded").then_some(()));
    wait_for("the new password", || admits(&broker, user("producer", "another")).then_some(()));
    assert!(!admits(&broker, user("producer", "producer_pass")));
    assert_eq!(own_password(&broker), before);
    wait_for("ready", || (broker.state() == "ready").then_some(()));
    is_healthy(&broker);
    std::fs::write(&path, "users: [{user: producer, password: tell-nobody, premissions: {}}]").unwrap();
    broker.signal(Signal::SIGHUP);
    wait_for("refused", || broker.log().contains("did you mean permissions?").then_some(()));
    assert!(admits(&broker, user("producer", "another")));
    assert!(!broker.log().contains("tell-nobody"), "{}", broker.log());
}

#[test]
fn our_own_connection_works_with_every_kind_of_credentials_and_certificates() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    let users = format!("users: [{{user: a, password: \"{hash}\", permissions: {{publish: [], subscribe: []}}}}]");
    let kinds: [&[(&str, &str)]; 4] = [
        &[],
        &[("NATS_AUTH_USERNAME", "u"), ("NATS_AUTH_PASSWORD", "p")],
        &[("NATS_AUTH_TOKEN", "t")],
        &[("NATS_USERS_FILE", "users.yml")],
    ];
    for credentials in kinds {
        for (tls, verify) in [(false, false), (true, false), (true, true)] {
            let (mut broker, authority) = with_tls("nats.example.org", 29);
            std::fs::write(broker.path("users.yml"), &users).unwrap();
            let ca = authority.write(broker.directory.path(), "ca.pem");
            broker.set("NATS_TLS_ENABLED", tls).set("NATS_TLS_VERIFY", verify).set("NATS_TLS_CA", ca.display());
            broker.set("NATS_AUTH_ENABLED", !credentials.is_empty());
            for (name, value) in credentials {
                broker.set(name, value);
            }
            broker.start();
            is_healthy(&broker);
            broker.signal(Signal::SIGHUP);
            wait_for("reloaded", || broker.log().contains("reloaded; no variable").then_some(()));
            wait_for("ready", || (broker.state() == "ready").then_some(()));
            is_healthy(&broker);
            assert_eq!((broker.restarts(), broker.stop()), (Some(0), Some(0)), "{credentials:?} {tls} {verify}");
        }
    }
}

#[test]
fn a_node_joins_by_the_credentials_of_the_cluster() {
    let mut broker = Broker::new();
    broker.set("NATS_CLUSTER_ENABLED", "true").set("NATS_CLUSTER_NAME", "C").set("NATS_SERVER_NAME", "a");
    broker.set("NATS_CLUSTER_PORT", broker.ports.cluster).set("NATS_CLUSTER_ROUTES", "nats-route://127.0.0.1:1");
    broker.set("NATS_CLUSTER_USERNAME", "route").set("NATS_CLUSTER_PASSWORD", "p:w").launch();
    let node = |password: &str, port: u16| {
        let mut bare = BareServer::new(CURRENT, "");
        let cluster = bare.ports.cluster;
        let conf = format!(
            "server_name: b\n{JETSTREAM}cluster: {{ name: C, listen: \"127.0.0.1:{cluster}\",
            routes: [\"nats-route://route:{password}@127.0.0.1:{port}\"] }}\n"
        );
        bare.configure(&conf).start();
        bare
    };
    let routes = || {
        let (_, routez) = http_get(&format!("http://127.0.0.1:{}/routez", broker.ports.http));
        let routez: serde_json::Value = serde_json::from_str(&routez).unwrap_or_default();
        routez["num_routes"].as_u64()
    };
    wait_for("the server answers", routes);
    let stranger = node("wrong", broker.ports.cluster);
    wait_for("the stranger is refused", || broker.log().contains("uthentication").then_some(()));
    assert_eq!(routes(), Some(0));
    drop(stranger);
    let _friend = node("p%3Aw", broker.ports.cluster);
    wait_for("the friend is in", || (routes() > Some(0)).then_some(()));
}

#[test]
fn users_of_a_settings_file_are_asked_for_and_a_variable_adds_one() {
    let mut broker = Broker::new();
    let settings = broker.path("settings.yml");
    std::fs::write(&settings, "nats: {users: [{user: a, password: b}]}").unwrap();
    broker.set("CONFIG_FILE", settings.display());
    broker.set("NATS_AUTH_USERNAME", "admin").set("NATS_AUTH_PASSWORD", "p").start();
    assert!(admits(&broker, user("a", "b")) && admits(&broker, user("admin", "p")));
    assert!(!admits(&broker, ConnectOptions::new()));
    is_healthy(&broker);
}

/// Publishes until `subscriber`, whose subscription may be on its way still, hears it.
async fn heard(
    subscriber: &mut async_nats::Subscriber,
    publisher: &async_nats::Client,
    subject: &str,
) -> async_nats::Message {
    let deadline = std::time::Instant::now() + PATIENCE;
    for number in 0.. {
        assert!(std::time::Instant::now() < deadline, "nothing is heard on {subject}");
        let reply = format!("_INBOX.asker.{number}");
        publisher.publish_with_reply(subject.to_owned(), reply, "x".into()).await.unwrap();
        publisher.flush().await.unwrap();
        let next = tokio::time::timeout(std::time::Duration::from_millis(50), subscriber.next()).await;
        if let Ok(message) = next {
            return message.expect("the subscription holds");
        }
    }
    unreachable!()
}

#[test]
fn nkeys_queue_groups_and_bounded_answers_hold_with_every_version() {
    let pair = nkeys::KeyPair::new_user();
    let seed = pair.seed().unwrap();
    let users = format!(
        "
users:
  - nkey: {}
    permissions:
      publish: []
      subscribe: [\"orders.new\", \"jobs.> workers\"]
      allow_responses: {{max: 2, expires: 1h}}
  - {{user: asker, password: asks}}
",
        pair.public_key()
    );
    for version in ["2.10.26", "2.11.11", "2.12.8", "2.14.6", CURRENT] {
        let (mut broker, _) = with_users(version, &users);
        broker.start();
        is_healthy_soon(&broker);
        let stranger = nkeys::KeyPair::new_user().seed().unwrap();
        assert!(!admits(&broker, ConnectOptions::with_nkey(stranger)), "{version}");
        block_on(async {
            let service = ConnectOptions::with_nkey(seed.clone()).connect(broker.url()).await.unwrap();
            let asker = user("asker", "asks").connect(broker.url()).await.unwrap();
            let mut requests = service.subscribe("orders.new").await.unwrap();
            let request = heard(&mut requests, &asker, "orders.new").await;
            let reply = request.reply.unwrap();
            let mut inbox = asker.subscribe(reply.clone()).await.unwrap();
            // What comes back to the asker itself shows that it has subscribed.
            heard(&mut inbox, &asker, &reply).await;
            for _ in 0..5 {
                service.publish(reply.clone(), "answer".into()).await.unwrap();
            }
            service.flush().await.unwrap();
            wait_for("an answer too many", || broker.log().contains("Publish Violation").then_some(()));
            asker.publish(reply.clone(), "last".into()).await.unwrap();
            let mut count = 0;
            loop {
                let message = tokio::time::timeout(PATIENCE, inbox.next()).await.unwrap().unwrap();
                match &message.payload[..] {
                    b"answer" => count += 1,
                    b"last" => break,
                    _ => {}
                }
            }
            assert_eq!(count, 2, "{version}");

            let mut alone = service.subscribe("jobs.a").await.unwrap();
            let mut strangers = service.queue_subscribe("jobs.a", "others".into()).await.unwrap();
            let mut workers = service.queue_subscribe("jobs.a", "workers".into()).await.unwrap();
            heard(&mut workers, &asker, "jobs.a").await;
            assert!(alone.next().now_or_never().flatten().is_none(), "{version}");
            assert!(strangers.next().now_or_never().flatten().is_none(), "{version}");
        });
        assert!(!broker.log().contains(&seed[..]), "{version}");
    }
}

fn is_healthy_soon(broker: &Broker) {
    wait_for("healthy", || broker.output(&["health-check", "full"]).status.success().then_some(()));
}
