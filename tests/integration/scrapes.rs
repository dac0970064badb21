//! Scrapes that are many, that nobody makes, of names that are odd, and while the server hangs.

use std::io::Write;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::metrics::{TRADES, is_installed, scrape, value, wait_for_value};
use crate::support::*;

/// As two Prometheus that each scrape both ports, far too often.
#[test]
fn four_scrapers_on_both_ports_share_what_is_asked() {
    const EACH: u64 = 40;
    let mut broker = Broker::new();
    let port = broker.ports.cluster;
    broker.set("PROMETHEUS_ENABLED", "true").set("PROMETHEUS_HOST", "127.0.0.1").set("PROMETHEUS_PORT", port).start();
    let urls = [broker.api("/metrics"), format!("http://127.0.0.1:{port}/metrics")];
    let asked = || value(&scrape(&broker), "gnatsd_varz_http_req_stats_subsz").unwrap_or_default();
    let before = asked();
    let started = std::time::Instant::now();
    block_on(async {
        let client = http_client();
        let scrapes = async |scraper: usize| {
            // 80 ms apart each, so that it is fifty in a second.
            let mut due = tokio::time::interval(std::time::Duration::from_millis(80));
            for _ in 0..EACH {
                due.tick().await;
                let answer = client.get(&urls[scraper % 2]).timeout(PATIENCE).send().await.unwrap();
                assert_eq!(answer.status().as_u16(), 200);
                assert!(answer.text().await.unwrap().contains("\nunified_nats_up 1\n"));
            }
        };
        futures_util::future::join_all((0..4).map(scrapes)).await;
    });
    let most = started.elapsed().as_secs_f64() * 2.0 + 3.0;
    let now = asked();
    assert!(now - before <= most, "{before} {now} {most}");
}

/// Messages that nobody scraped for are counted all the same, also where the stream drops as many as come.
#[test]
fn families_are_counted_without_a_scrape() {
    let mut broker = Broker::new();
    broker.set("STREAM_MAX_MSGS", "5").start();
    // Each count is followed by a look at the streams, which nobody else takes there.
    let looks = || {
        let (_, varz) = http_get(&format!("http://127.0.0.1:{}/varz", broker.ports.http));
        let varz: serde_json::Value = serde_json::from_str(&varz).unwrap_or_default();
        varz["http_req_stats"]["/jsz"].as_u64().unwrap_or_default()
    };
    for _ in 0..2 {
        block_on(async {
            let jetstream = JetStream(broker.client().await);
            for _ in 0..5 {
                jetstream.publish(SUBJECTS[1], "x").await;
            }
        });
        let before = looks();
        // Ten seconds apart, and one that comes to nothing on a busy machine is followed by the next one.
        let deadline = std::time::Instant::now() + 2 * PATIENCE;
        // The one that is under way may have counted before the last of them came.
        while looks() < before + 2 {
            assert!(std::time::Instant::now() < deadline, "two looks: not in time");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    assert_eq!(value(&wait_for_value(&broker, "unified_nats_up", 1.0), TRADES), Some(10.0));
}

/// Names and descriptions of every character that nats-server takes.
#[test]
fn no_name_breaks_the_text() {
    const ODD: &str = "!\"#$%&'()+,-:;<=?@[]^_`{|}~é名🦀";
    let names = [ODD.to_owned(), "n".repeat(255)];
    let description = "say \"hi\"\nline two\\ {x=\"y\"} 1\r\t\u{0}\u{7f}";
    let mut broker = Broker::new();
    broker.start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        for (at, name) in names.iter().enumerate() {
            let subjects = [format!("odd{at}.>")];
            let config = json!({ "name": name, "subjects": subjects, "storage": "memory", "description": description });
            let made = jetstream.ask(&format!("$JS.API.STREAM.CREATE.{name}"), config).await;
            assert!(made["error"].is_null(), "{made}");
            let config = json!({
                "durable_name": ODD, "ack_policy": "explicit", "description": description,
                "metadata": { "$serde_json::private::RawValue": "{" },
            });
            let request = json!({ "stream_name": name, "config": config });
            let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{name}.{ODD}");
            let made = jetstream.0.request(subject, request.to_string().into()).await.unwrap();
            // No answer that repeats that key can be read here as a value.
            let made = String::from_utf8(made.payload.to_vec()).unwrap();
            assert!(made.contains("consumer_create_response") && !made.contains("\"error\""), "{made}");
        }
    });
    let escaped =
        |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\0', "\u{fffd}");
    let text = wait_for("all are there", || {
        let text = scrape(&broker);
        text.contains(&format!("stream_name=\"{}\"", names[1])).then_some(text)
    });
    for name in &names {
        let of_stream = format!("stream_name=\"{}\",", escaped(name));
        let of_consumer = format!("consumer_name=\"{}\",", escaped(ODD));
        let described = format!("consumer_desc=\"{}\"}} 0", escaped(description));
        let is_told = |line: &str| {
            line.starts_with("jetstream_consumer_num_pending{")
                && line.contains(&of_stream)
                && line.contains(&of_consumer)
                && line.ends_with(&described)
        };
        assert!(text.split('\n').any(is_told), "{name}\n{text}");
        let own = format!("unified_nats_stream_usage_ratio{{account=\"$G\",stream=\"{}\"", escaped(name));
        assert!(!text.contains(&own), "it has no limits");
    }
    for line in text.split('\n').filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (_, number) = line.rsplit_once(' ').unwrap();
        assert!(number.parse::<f64>().is_ok(), "{line:?}");
    }
    if is_installed("no_name_breaks_the_text", "promtool") {
        let mut child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!words.contains("error"), "{words}");
    }
}

/// The API asks nats-server about its users, which a server that hangs does not answer.
#[test]
fn users_of_nats_are_answered_while_the_server_hangs() {
    const PASSWORD: &str = "a-long-password-of-a-test";
    let mut broker = Broker::new();
    broker.set("NATS_AUTH_ENABLED", "true").set("NATS_AUTH_USERNAME", "tester").set("NATS_AUTH_PASSWORD", PASSWORD);
    let port = broker.ports.cluster;
    broker.set("PROMETHEUS_ENABLED", "true").set("PROMETHEUS_HOST", "127.0.0.1").set("PROMETHEUS_PORT", port);
    broker.set("HEALTH_PROBE_INTERVAL", "50ms").set("HEALTH_HANG_TIMEOUT", "60s").start();
    let scrape = |user: Option<(&str, &str)>| {
        block_on(async {
            let url = broker.api("/metrics");
            let mut request = http_client().get(url).timeout(PATIENCE);
            if let Some((name, password)) = user {
                request = request.basic_auth(name, Some(password));
            }
            let started = std::time::Instant::now();
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            (status, answer.text().await.unwrap(), started.elapsed())
        })
    };
    let tester = Some(("tester", PASSWORD));
    wait_for("it is up", || scrape(tester).1.contains("\nunified_nats_up 1\n").then_some(()));
    let server = broker.server_pid();
    kill(server, Signal::SIGSTOP).unwrap();
    wait_for("it is found to be silent", || (broker.state() == "degraded").then_some(()));
    let mut slowest = std::time::Duration::ZERO;
    for _ in 0..5 {
        // Who was let in before is known.
        let (status, text, took) = scrape(tester);
        assert!(status == 200 && text.contains("\nunified_nats_up 0\n"), "{status} after {took:?}: {text}");
        slowest = slowest.max(took);
    }
    assert!(slowest < std::time::Duration::from_secs(2), "{slowest:?}");
    // Nobody can say of others, and says that in time.
    let (status, text, took) = scrape(Some(("tester", "guess")));
    assert!(status == 401 || status == 503, "{status} after {took:?}: {text}");
    assert!(took < std::time::Duration::from_secs(11), "{took:?}");
    let (status, own) = http_get(&format!("http://127.0.0.1:{port}/metrics"));
    assert!(status == 200 && own.contains("\nunified_nats_up 0\n"), "{own}");
    kill(server, Signal::SIGCONT).unwrap();
    wait_for("it is up again", || scrape(tester).1.contains("\nunified_nats_up 1\n").then_some(()));
}

#[test]
fn families_that_can_be_counted_no_more_are_not_told_and_do_not_look_silent() {
    const BOOKS: &str = "orderbook-data.x.spot";
    let mut broker = Broker::new();
    broker.start();
    let publish = || block_on(async { JetStream(broker.client().await).publish(SUBJECTS[1], "x").await });
    publish();
    wait_for_value(&broker, TRADES, 1.0);
    block_on(async {
        let client = broker.client().await;
        for number in 0..10_000 {
            client.publish(format!("{BOOKS}.{number}"), "x".into()).await.unwrap();
        }
        JetStream(client).publish(&format!("{BOOKS}.last"), "x").await;
    });
    wait_for("nothing is told of them", || {
        let text = scrape(&broker);
        (!text.contains("unified_nats_family_") && !text.contains("unified_nats_subject_")).then_some(())
    });
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        jetstream.ask("$JS.API.STREAM.PURGE.MARKET_DATA", json!({ "filter": format!("{BOOKS}.>") })).await;
    });
    publish();
    let text = wait_for_value(&broker, TRADES, 2.0);
    assert!(text.contains("unified_nats_family_last_message_age_seconds{data_type=\"trade\"}"), "{text}");
}
