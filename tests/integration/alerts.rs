//! Alerts, from what happens to a server to what receivers are sent.

use nix::sys::signal::{Signal, kill};
use unified_nats::alerts::AlertKind;

use super::receivers::{Answer, MailServer, Webhook};
use super::reload::logged;
use super::support::http_get;
use super::support::{Broker, JetStream, block_on, wait_for};

const TOKEN: &str = "tell-nobody-token";
const PASSWORD: &str = "tell-nobody-password";

/// A broker with a webhook; nothing is wrong with it.
fn broker(webhook: &Webhook) -> Broker {
    let mut broker = Broker::new();
    broker.set("ALERT_WEBHOOK_URL", webhook.url(TOKEN)).set("ALERT_MIN_INTERVAL", "0");
    broker
}

fn pair(kind: &str, of: &str) -> (String, String) {
    (kind.to_owned(), of.to_owned())
}

#[test]
fn a_killed_server_is_told_and_so_is_its_recovery() {
    let (webhook, slack, mail) = (Webhook::start(), Webhook::start(), MailServer::start());
    let mut broker = broker(&webhook);
    broker
        .set("ALERT_SLACK_WEBHOOK", slack.url(TOKEN))
        .set("ALERT_EMAIL", "ops@example.org")
        .set("ALERT_EMAIL_FROM", "nats@example.org")
        .set("ALERT_SMTP_URL", mail.url(&format!("user:{PASSWORD}@")))
        .set("NATS_SERVER_NAME", "here")
        .start();
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    let told = webhook.wait_for_kind("restart", "restart");
    assert_eq!(
        (&told["status"], &told["severity"], &told["server"]),
        (&"firing".into(), &"warning".into(), &"here".into())
    );
    assert!(told["summary"].as_str().unwrap().contains("SIGKILL"), "{told}");
    assert!(told["link"].as_str().unwrap().ends_with("docs/observability.md#restart"), "{told}");
    let over = webhook.wait_for_kind("recovered", "restart");
    assert_eq!((&over["status"], &over["fingerprint"]), (&"resolved".into(), &told["fingerprint"]));
    assert_eq!(webhook.kinds(), [pair("restart", "restart"), pair("recovered", "restart")]);

    let counted = r#"unified_nats_alerts_total{kind="restart",sink="webhook",result="sent"} 1"#;
    wait_for("metrics count it", || http_get(&broker.api("/metrics")).1.contains(counted).then_some(()));

    let slack_bodies = wait_for("Slack has both", || Some(slack.bodies()).filter(|bodies| bodies.len() == 2));
    assert_eq!(slack_bodies[0]["text"], "[warning] restart on here");
    assert_eq!(slack_bodies[1]["text"], "[recovered] restart on here");
    let mails = wait_for("both mails came", || Some(mail.mails()).filter(|mails| mails.len() == 2));
    assert!(mails[0].contains("Subject: [warning] restart on here"), "{}", mails[0]);
    assert!(mails[0].contains("To: ops@example.org") && mails[0].contains("Auto-Submitted: auto-generated"));
    assert!(mails[1].contains("Subject: [recovered] restart on here"), "{}", mails[1]);

    assert_eq!(broker.stop(), Some(0));
    let record = std::fs::read_to_string(broker.store().join(".unified-nats-alerts.json")).unwrap();
    let everything = [broker.log(), record, webhook.raw(), slack.raw(), mails.concat()].concat();
    for secret in [TOKEN, PASSWORD] {
        assert!(!everything.contains(secret), "{everything}");
    }
}

#[test]
fn a_server_that_ends_again_and_again_is_a_loop() {
    let webhook = Webhook::start();
    let mut broker = broker(&webhook);
    broker.set("RESTART_MAX", "6").start();
    for restarts in 1..=3 {
        kill(broker.server_pid(), Signal::SIGKILL).unwrap();
        wait_for("it was started again", || broker.restarts().filter(|counted| *counted >= restarts));
        broker.wait_until_ready();
    }
    let told = webhook.wait_for_kind("crash_loop", "crash_loop");
    assert_eq!(told["severity"], "critical");
    let restarts = webhook.kinds().iter().filter(|kinds| **kinds == pair("restart", "restart")).count();
    assert_eq!(restarts, 1, "one that is not over is not told again: {:?}", webhook.kinds());
}

#[test]
fn a_supervisor_that_gives_up_says_so_before_it_ends() {
    let webhook = Webhook::start();
    let mut broker = broker(&webhook);
    broker.set("RESTART_MAX", "0").start();
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    assert_eq!(broker.wait(), Some(75));
    let loops: Vec<_> = webhook.bodies().into_iter().filter(|body| body["kind"] == "crash_loop").collect();
    assert_eq!(loops.len(), 1, "{:?}", webhook.kinds());
    assert!(loops[0]["summary"].as_str().unwrap().contains("given up"), "{:?}", loops[0]);
}

#[test]
fn a_receiver_that_hangs_keeps_up_nobody_but_itself() {
    let (webhook, slack) = (Webhook::start(), Webhook::start());
    webhook.will(vec![Answer::Silence; 100]);
    let mut broker = broker(&webhook);
    broker.set("ALERT_SLACK_WEBHOOK", slack.url(TOKEN)).start();
    let began = std::time::Instant::now();
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    wait_for("Slack has the alert and its end", || Some(slack.bodies()).filter(|bodies| bodies.len() == 2));
    broker.wait_until_ready();
    let sent = webhook.kinds();
    // Each attempt is given up after ten seconds.
    let most = 1 + began.elapsed().as_secs() as usize / 10;
    assert!((1..=most).contains(&sent.len()), "one at a time: {sent:?}");
    assert!(sent.iter().all(|kinds| *kinds == pair("restart", "restart")), "nothing overtakes: {sent:?}");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn what_failed_is_sent_again_and_nothing_overtakes() {
    let webhook = Webhook::start();
    webhook.will([Answer::Status(500), Answer::Status(503)]);
    let mut broker = broker(&webhook);
    broker.start();
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    webhook.wait_for_kind("recovered", "restart");
    let (alert, end) = (pair("restart", "restart"), pair("recovered", "restart"));
    assert_eq!(webhook.kinds(), [alert.clone(), alert.clone(), alert, end]);
    logged(&broker, "webhook takes alerts again");
    assert_eq!(broker.log().matches("cannot send an alert by webhook").count(), 1, "{}", broker.log());
}

#[test]
fn redirects_are_not_followed() {
    let (webhook, elsewhere) = (Webhook::start(), Webhook::start());
    webhook.will(vec![Answer::Redirect(elsewhere.url(TOKEN)); 100]);
    let mut broker = broker(&webhook);
    broker.start();
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    webhook.wait_for_kind("recovered", "restart");
    wait_for("it is told", || broker.log().contains("a redirect, which is not followed").then_some(()));
    assert_eq!(elsewhere.bodies().len(), 0);
    assert!(!broker.log().contains(TOKEN), "{}", broker.log());
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (webhook, certificate) = Webhook::with_tls();
    let mut broker = broker(&webhook);
    let refused = broker.output(&["alerts", "test"]);
    let text = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("FAIL  webhook") && text.contains("certificate"), "{text}");
    assert!(!text.contains(TOKEN), "{text}");
    assert_eq!(webhook.bodies().len(), 0, "nothing was said to it");
    let file = broker.path("authority.pem");
    std::fs::write(&file, certificate).unwrap();
    broker.set("SSL_CERT_FILE", file.display());
    let taken = broker.output(&["alerts", "test"]);
    assert_eq!(taken.status.code(), Some(0), "{}", String::from_utf8_lossy(&taken.stdout));
    assert_eq!(webhook.kinds(), [pair("test", "test")]);
}

#[test]
fn a_mail_that_is_refused_is_not_sent_again_and_its_end_is() {
    let mail = MailServer::start();
    let mut broker = Broker::new();
    broker.set("ALERT_EMAIL", "ops@example.org").set("ALERT_MIN_INTERVAL", "0");
    broker.set("ALERT_SMTP_URL", mail.url(&format!("user:{PASSWORD}@"))).start();
    mail.refuse(true);
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    wait_for("it is told", || broker.log().contains("the mail server answers 550: ").then_some(()));
    mail.refuse(false);
    let mails = wait_for("a mail came", || Some(mail.mails()).filter(|mails| !mails.is_empty()));
    assert!(mails[0].contains("[recovered] restart"), "{}", mails[0]);
    assert!(!broker.log().contains(PASSWORD), "{}", broker.log());
}

#[test]
fn a_new_supervisor_neither_repeats_nor_forgets_what_is_open() {
    let webhook = Webhook::start();
    let mut broker = broker(&webhook);
    broker.set("API_HOST", "0.0.0.0").start();
    let told = webhook.wait_for_kind("insecure", "insecure");
    assert_eq!(told["object"], "api");
    let record = broker.store().join(".unified-nats-alerts.json");
    let holds = |part: &str| std::fs::read_to_string(&record).is_ok_and(|text| text.contains(part));
    // Who is killed before it has noted that one was taken sends it once more.
    let is_noted = || holds("insecure") && holds(r#""waiting":{"webhook":[]}"#);
    wait_for("it is written down", || is_noted().then_some(()));
    broker.signal(Signal::SIGKILL);
    broker.wait();
    broker.start();
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    webhook.wait_for_kind("recovered", "restart");
    assert_eq!(broker.stop(), Some(0));
    broker.set("API_HOST", "127.0.0.1").start();
    let over = webhook.wait_for_kind("recovered", "insecure");
    assert_eq!(over["fingerprint"], told["fingerprint"]);
    let of_insecure: Vec<_> = webhook.kinds().into_iter().filter(|(_, of)| of == "insecure").collect();
    assert_eq!(of_insecure, [pair("insecure", "insecure"), pair("recovered", "insecure")]);
}

#[test]
fn what_was_not_taken_is_sent_by_the_next_supervisor() {
    let webhook = Webhook::start();
    webhook.will(vec![Answer::Status(503); 100]);
    let mut broker = broker(&webhook);
    broker.set("API_HOST", "0.0.0.0").start();
    webhook.wait_for_kind("insecure", "insecure");
    assert_eq!(broker.stop(), Some(0));
    let other = Webhook::start();
    // It is over by then, so that only what was written down can say that it was.
    broker.set("ALERT_WEBHOOK_URL", other.url(TOKEN)).set("API_HOST", "127.0.0.1").start();
    other.wait_for_kind("recovered", "insecure");
    assert_eq!(other.kinds(), [pair("insecure", "insecure"), pair("recovered", "insecure")]);
}

#[test]
fn what_the_health_check_sees_is_told() {
    let webhook = Webhook::start();
    let mut broker = broker(&webhook);
    let streams = "streams: {GONE: {subjects: [gone]}, NARROW: {subjects: [narrow], max_msgs: 10}}";
    std::fs::write(broker.path("streams.yml"), streams).unwrap();
    let file = broker.path("streams.yml");
    broker.set("STREAMS_FILE", file.display()).set("STREAMS_RECONCILE_INTERVAL", "0");
    broker.set("HEALTH_CHECK_INTERVAL", "200ms").set("ALERT_CONSUMER_LAG", "5").start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let consumer = serde_json::json!({
            "stream_name": "NARROW", "config": { "durable_name": "slow", "ack_policy": "explicit" },
        });
        let made = jetstream.ask("$JS.API.CONSUMER.DURABLE.CREATE.NARROW.slow", consumer).await;
        assert!(made["error"].is_null(), "{made}");
        for _ in 0..9 {
            jetstream.publish("narrow", "x").await;
        }
        jetstream.ask("$JS.API.STREAM.DELETE.GONE", serde_json::Value::Null).await;
    });
    let missing = webhook.wait_for_kind("stream_missing", "stream_missing");
    assert_eq!((&missing["object"], &missing["severity"]), (&"GONE".into(), &"critical".into()));
    assert_eq!(webhook.wait_for_kind("stream_near_limit", "stream_near_limit")["object"], "NARROW messages");
    let lag = webhook.wait_for_kind("consumer_lag", "consumer_lag");
    assert_eq!(lag["summary"], "consumer slow of stream NARROW is 9 messages behind");
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        jetstream.ask("$JS.API.STREAM.PURGE.NARROW", serde_json::Value::Null).await;
        let gone = serde_json::json!({ "name": "GONE", "subjects": ["gone"] });
        jetstream.ask("$JS.API.STREAM.CREATE.GONE", gone).await;
    });
    for kind in ["stream_missing", "stream_near_limit", "consumer_lag"] {
        webhook.wait_for_kind("recovered", kind);
    }
}

#[test]
fn a_family_that_falls_silent_is_told_until_a_message_comes() {
    let webhook = Webhook::start();
    let mut broker = broker(&webhook);
    broker.set("FAMILY_STALE_AFTER", "trade=1s,funding_rate=9h").start();
    let told = webhook.wait_for_kind("family_stale", "family_stale");
    assert_eq!(told["object"], "trade");
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        jetstream.publish("trade-data.a.b.c", "x").await;
    });
    webhook.wait_for_kind("recovered", "family_stale");
    let of_trade = webhook.bodies().into_iter().filter(|body| body["object"] == "trade").count();
    assert!(of_trade >= 2 && of_trade == webhook.bodies().len(), "{:?}", webhook.bodies());
}

#[test]
fn a_family_is_heard_in_a_stream_that_was_made_anew_between_two_looks() {
    let webhook = Webhook::start();
    let mut broker = broker(&webhook);
    broker.set("FAMILY_STALE_AFTER", "trade=2s").start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        for _ in 0..5 {
            jetstream.publish("orderbook-data.a.b.c", "x").await;
        }
        webhook.wait_for_kind("family_stale", "family_stale");
        // The new stream holds less than was looked at in the one before.
        let config = jetstream.info("MARKET_DATA").await["config"].clone();
        jetstream.ask("$JS.API.STREAM.DELETE.MARKET_DATA", serde_json::json!({})).await;
        jetstream.ask("$JS.API.STREAM.CREATE.MARKET_DATA", config).await;
        jetstream.publish("trade-data.a.b.c", "x").await;
    });
    webhook.wait_for_kind("recovered", "family_stale");
}

#[test]
fn receivers_are_tried_by_hand() {
    let (webhook, slack, mail) = (Webhook::start(), Webhook::start(), MailServer::start());
    let mut broker = Broker::new();
    let none = broker.output(&["alerts", "test"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("set ALERT_WEBHOOK_URL"), "{none:?}");
    broker
        .set("ALERT_WEBHOOK_URL", webhook.url(TOKEN))
        .set("ALERT_SLACK_WEBHOOK", slack.url(TOKEN))
        .set("ALERT_EMAIL", "ops@example.org")
        .set("ALERT_SMTP_URL", mail.url(&format!("user:{PASSWORD}@")));
    let all = broker.output(&["alerts", "test"]);
    assert_eq!(all.status.code(), Some(0), "{all:?}");
    let text = String::from_utf8_lossy(&all.stdout).into_owned();
    assert_eq!(text.lines().filter(|line| line.starts_with("ok ")).count(), 3, "{text}");
    assert_eq!((webhook.bodies().len(), slack.bodies().len(), mail.mails().len()), (1, 1, 1));
    assert_eq!(webhook.kinds(), [pair("test", "test")]);
    slack.will([Answer::Status(404)]);
    let some = broker.output(&["alerts", "test", "--json"]);
    assert_eq!(some.status.code(), Some(1));
    let result: serde_json::Value = serde_json::from_slice(&some.stdout).unwrap();
    let taken: Vec<_> =
        result["sinks"].as_array().unwrap().iter().map(|sink| sink["taken"].as_bool().unwrap()).collect();
    assert_eq!(taken, [true, false, true], "{result}");
    assert_eq!(result["sinks"][1]["error"], "it answers 404");
    for output in [&all, &some] {
        let printed = format!("{output:?}");
        assert!(!printed.contains(TOKEN) && !printed.contains(PASSWORD), "{printed}");
    }
}

#[test]
fn a_reload_takes_receivers_over() {
    let (first, second) = (Webhook::start(), Webhook::start());
    let mut broker = Broker::new();
    let file = broker.path("hook");
    std::fs::write(&file, first.url(TOKEN)).unwrap();
    broker.set("ALERT_WEBHOOK_URL_FILE", file.display()).set("ALERT_MIN_INTERVAL", "0").start();
    std::fs::write(&file, second.url(TOKEN)).unwrap();
    broker.signal(Signal::SIGHUP);
    wait_for("the reload took", || broker.log().contains("reloaded; changed: ALERT_WEBHOOK_URL").then_some(()));
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    second.wait_for_kind("recovered", "restart");
    assert_eq!(first.bodies().len(), 0);
}

#[test]
fn each_alert_leads_to_its_paragraph() {
    let read =
        |name: &str| std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let rules = read("deploy/prometheus/alerts.yml");
    let of_rules = rules.lines().filter_map(|line| line.split_once("runbook_url: ")).map(|(_, url)| url.to_owned());
    let all = AlertKind::ALL.map(AlertKind::link).into_iter().chain(of_rules).collect::<Vec<_>>();
    assert!(all.len() > 40, "{all:?}");
    for document in ["docs/observability.md", "docs/zh/observability.md"] {
        let text = read(document);
        for link in &all {
            let (page, anchor) = link.split_once('#').unwrap();
            assert!(page.ends_with("/blob/main/docs/observability.md"), "{page}");
            let is_there = text.contains(&format!("### {anchor}\n")) || anchor == "alerts";
            assert!(is_there, "{document} has no paragraph {anchor}");
        }
    }
}
