//! Metrics of a broker that runs.

use std::io::Write;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::bare::{BareServer, JETSTREAM};
use crate::external::serving;
use crate::support::*;

/// Metrics as text, from wherever that is.
pub fn text(url: &str) -> String {
    let (status, text) = http_get(url);
    assert_eq!(status, 200, "{url}: {text}");
    text
}

pub fn scrape(broker: &Broker) -> String {
    text(&broker.api("/metrics"))
}

/// The value of the series that begins with that.
pub fn value(text: &str, series: &str) -> Option<f64> {
    let line =
        text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with([' ', '{', ','])))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// Waits for a scrape that lacks nothing: in one of a busy machine is not what took too long to find out.
fn wait_for_scrape(broker: &Broker, lacks: impl Fn(&str) -> Option<String>) -> String {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let text = scrape(broker);
        let Some(lacking) = lacks(&text) else { return text };
        assert!(std::time::Instant::now() < deadline, "{lacking}\n{text}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Waits for a scrape in which the series has that value.
pub fn wait_for_value(broker: &Broker, series: &str, wanted: f64) -> String {
    wait_for_scrape(broker, |text| (value(text, series) != Some(wanted)).then(|| format!("{series} is not {wanted}")))
}

/// Waits for a scrape with all these parts.
fn wait_for_parts(broker: &Broker, parts: &[String]) -> String {
    wait_for_scrape(broker, |text| parts.iter().find(|part| !text.contains(*part)).map(|part| format!("no {part:?}")))
}

pub const TRADES: &str = "unified_nats_family_messages_total{data_type=\"trade\"}";
const BOOKS: &str = "unified_nats_family_messages_total{data_type=\"orderbook\"}";

/// Everything of ours that a broker with one node tells, and of what kind it is.
const OWN: &[(&str, &str)] = &[
    ("unified_nats_up", "gauge"),
    ("unified_nats_ready", "gauge"),
    ("unified_nats_state", "gauge"),
    ("unified_nats_build_info", "gauge"),
    ("unified_nats_condition", "gauge"),
    ("unified_nats_child_restarts_total", "counter"),
    ("unified_nats_child_uptime_seconds", "gauge"),
    ("unified_nats_start_phase_seconds", "gauge"),
    ("unified_nats_restart_budget_remaining", "gauge"),
    ("unified_nats_reload_total", "counter"),
    ("unified_nats_stream_drift", "gauge"),
    ("unified_nats_stream_conflicts", "gauge"),
    ("unified_nats_stream_repairs_total", "counter"),
    ("unified_nats_streams_restored_total", "counter"),
    ("unified_nats_stream_usage_ratio", "gauge"),
    ("unified_nats_js_advisories_total", "counter"),
    ("unified_nats_consumer_lag_seconds", "gauge"),
    ("unified_nats_consumer_unread_dropped_total", "counter"),
    ("unified_nats_subject_last_message_age_seconds", "gauge"),
    ("unified_nats_series_omitted", "gauge"),
    ("unified_nats_family_messages_total", "counter"),
    ("unified_nats_family_last_message_age_seconds", "gauge"),
    ("unified_nats_alerts_total", "counter"),
    ("unified_nats_store_disk_free_bytes", "gauge"),
    ("unified_nats_store_write_errors", "gauge"),
    ("unified_nats_insecure", "gauge"),
    ("unified_nats_api_connect_failures_total", "counter"),
    ("unified_nats_http_requests_total", "counter"),
    ("unified_nats_http_request_duration_seconds", "histogram"),
    ("unified_nats_process_cpu_seconds_total", "counter"),
    ("unified_nats_process_resident_memory_bytes", "gauge"),
    ("unified_nats_process_open_fds", "gauge"),
    ("unified_nats_process_max_fds", "gauge"),
];

/// What dashboards for prometheus-nats-exporter ask for.
const COMPATIBLE: &[(&str, &str)] = &[
    ("gnatsd_varz_version", "gauge"),
    ("gnatsd_varz_start", "gauge"),
    ("gnatsd_varz_mem", "gauge"),
    ("gnatsd_varz_in_msgs", "gauge"),
    ("gnatsd_varz_jetstream_config_max_storage", "gauge"),
    ("gnatsd_connz_num_connections", "gauge"),
    ("gnatsd_connz_in_msgs", "counter"),
    ("gnatsd_healthz_status", "gauge"),
    ("gnatsd_healthz_status_value", "gauge"),
    ("gnatsd_healthz_js_enabled_only_status", "gauge"),
    ("gnatsd_healthz_js_server_only_status", "gauge"),
    ("gnatsd_routez_num_routes", "gauge"),
    ("gnatsd_subsz_num_subscriptions", "gauge"),
    ("jetstream_server_total_streams", "gauge"),
    ("jetstream_account_storage_used", "gauge"),
    ("jetstream_stream_total_messages", "gauge"),
    ("jetstream_stream_limit_bytes", "gauge"),
    ("jetstream_consumer_num_pending", "gauge"),
];

/// Declares a durable consumer whose description needs escaping.
async fn consume(broker: &Broker) {
    let config = json!({ "durable_name": "reader", "description": "say \"hi\"\nto C:\\", "ack_policy": "explicit" });
    let request = json!({ "stream_name": "MARKET_DATA", "config": config });
    let jetstream = JetStream(broker.client().await);
    let made = jetstream.ask("$JS.API.CONSUMER.DURABLE.CREATE.MARKET_DATA.reader", request).await;
    assert!(made["error"].is_null(), "{made}");
}

#[test]
fn names_kinds_and_labels_are_as_documented() {
    for version in [CURRENT, "2.10.26"] {
        let mut broker = Broker::with_server(version);
        broker.set("ALERT_WEBHOOK_URL", "http://127.0.0.1:9/nobody").start();
        block_on(async {
            JetStream(broker.client().await).publish(SUBJECTS[1], "x").await;
            consume(&broker).await;
        });
        let url = format!("server_id=\"http://127.0.0.1:{}\"", broker.ports.http);
        let kinds = OWN.iter().chain(COMPATIBLE).map(|(name, kind)| format!("\n# TYPE {name} {kind}\n"));
        let lines = [
            format!("{TRADES} 1"),
            format!("gnatsd_varz_version{{{url},value=\"{version}\"}} 1"),
            format!("gnatsd_healthz_status{{{url}}} 0"),
            format!("gnatsd_healthz_status_value{{{url},value=\"ok\"}} 1"),
            "unified_nats_up 1".to_owned(),
            "unified_nats_state{state=\"ready\"} 1".to_owned(),
            "unified_nats_state{state=\"degraded\"} 0".to_owned(),
        ];
        let lines = lines.map(|line| format!("\n{line}\n"));
        let text = wait_for_parts(&broker, &kinds.chain(lines).collect::<Vec<_>>());
        let documented = std::fs::read_to_string("docs/metrics.md").unwrap();
        let ours = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        for name in ours.filter(|name| name.starts_with("unified_nats_")) {
            assert!(OWN.iter().any(|(known, _)| *known == name), "{name} stands in no list");
            assert!(documented.contains(&format!("`{name}")), "{name} is not documented");
        }
        let escaped = "consumer_name=\"reader\",consumer_leader=\"\",is_consumer_leader=\"true\",\
            consumer_desc=\"say \\\"hi\\\"\\nto C:\\\\\"} 1\n";
        let pending =
            text.lines().find(|line| line.starts_with("jetstream_consumer_num_pending") && line.contains("reader"));
        let pending = format!("{}\n", pending.unwrap_or_else(|| panic!("{text}")));
        assert!(pending.ends_with(&escaped.replace("consumer_leader=\"\"", &leader_of(&pending))), "{pending}");
        assert_eq!(broker.stop(), Some(0));
    }
}

/// Who leads the consumer: alone nobody does on some versions.
fn leader_of(line: &str) -> String {
    let rest = line.split("consumer_leader=\"").nth(1).unwrap();
    format!("consumer_leader=\"{}\"", rest.split('"').next().unwrap())
}

#[test]
fn counters_count_what_was_published() {
    let mut broker = Broker::new();
    broker.start();
    let publish = |subject: &'static str, count: usize| {
        block_on(async {
            let jetstream = JetStream(broker.client().await);
            for _ in 0..count {
                jetstream.publish(subject, "x").await;
            }
        });
    };
    wait_for_value(&broker, TRADES, 0.0);
    publish(SUBJECTS[1], 7);
    publish(SUBJECTS[0], 5);
    let text = wait_for_value(&broker, TRADES, 7.0);
    assert_eq!(value(&text, BOOKS), Some(5.0));
    assert!(text.contains("unified_nats_family_last_message_age_seconds{data_type=\"trade\"}"), "{text}");
    assert!(!text.contains("unified_nats_family_last_message_age_seconds{data_type=\"liquidation\"}"), "none has come");
    // What is purged has come all the same, and more comes on top.
    block_on(async { JetStream(broker.client().await).ask("$JS.API.STREAM.PURGE.MARKET_DATA", json!({})).await });
    publish(SUBJECTS[7], 3);
    let text = wait_for_value(&broker, "unified_nats_family_messages_total{data_type=\"liquidation\"}", 3.0);
    assert_eq!((value(&text, TRADES), value(&text, BOOKS)), (Some(7.0), Some(5.0)));
    assert_eq!((value_of_stream(&text, "total_messages"), value_of_stream(&text, "last_seq")), (Some(3.0), Some(15.0)));
    let scraped = "unified_nats_http_requests_total{route=\"/metrics\",method=\"GET\",status=\"2xx\"}";
    let before = value(&text, scraped).unwrap();
    assert_eq!(value(&scrape(&broker), scraped), Some(before + 1.0));
    assert_eq!(http_get(&broker.api("/nowhere/at/all")).0, 404);
    let unknown = "unified_nats_http_requests_total{route=\"-\",method=\"GET\",status=\"4xx\"}";
    assert_eq!(value(&scrape(&broker), unknown), Some(1.0));
}

/// A stream that runs for long is always full.
#[test]
fn families_are_counted_in_a_stream_that_drops_as_many_as_come() {
    let mut broker = Broker::new();
    broker.set("STREAM_MAX_MSGS", "5").start();
    let publish = |subject: &'static str, count: usize| {
        block_on(async {
            let jetstream = JetStream(broker.client().await);
            for _ in 0..count {
                jetstream.publish(subject, "x").await;
            }
        });
    };
    publish(SUBJECTS[1], 2);
    publish(SUBJECTS[0], 3);
    let text = wait_for_value(&broker, TRADES, 2.0);
    assert_eq!(value(&text, BOOKS), Some(3.0));
    publish(SUBJECTS[1], 2);
    let text = wait_for_value(&broker, TRADES, 4.0);
    assert_eq!(value(&text, BOOKS), Some(3.0));
    publish(SUBJECTS[0], 3);
    publish(SUBJECTS[1], 1);
    let text = wait_for_value(&broker, BOOKS, 6.0);
    assert_eq!(value(&text, TRADES), Some(5.0));
    assert!(text.contains("unified_nats_family_last_message_age_seconds{data_type=\"trade\"}"), "{text}");
    let consumers = block_on(async { JetStream(broker.client().await).info("MARKET_DATA").await });
    assert_eq!(consumers["state"]["consumer_count"], 0, "who counts leaves nothing behind");
}

#[test]
fn what_consumers_have_not_read_and_have_lost_is_told() {
    let mut broker = Broker::new();
    broker.set("STREAM_MAX_MSGS", "5").start();
    let publish = |count: usize| {
        block_on(async {
            let jetstream = JetStream(broker.client().await);
            for _ in 0..count {
                jetstream.publish(SUBJECTS[1], "x").await;
            }
        });
    };
    block_on(consume(&broker));
    let of = |name: &str| format!("unified_nats_consumer_{name}{{stream=\"MARKET_DATA\",consumer=\"reader\"}}");
    wait_for_value(&broker, &of("lag_seconds"), 0.0);
    publish(4);
    let text = wait_for("it is behind", || {
        let text = scrape(&broker);
        value(&text, &of("lag_seconds")).is_some_and(|lag| lag > 0.0).then_some(text)
    });
    assert_eq!(value(&text, &of("unread_dropped_total")), Some(0.0));
    publish(8);
    wait_for_value(&broker, &of("unread_dropped_total"), 7.0);
}

#[test]
fn subjects_and_delays_are_told_where_that_is_wanted() {
    let mut broker = Broker::new();
    broker.set("INGEST_TIMESTAMP_FIELDS", "ts,E").start();
    wait_for_value(&broker, TRADES, 0.0);
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        jetstream.publish(SUBJECTS[1], &json!({ "E": now.as_millis() as u64 - 300 }).to_string()).await;
    });
    let text = wait_for_value(&broker, TRADES, 1.0);
    let labels = "data_type=\"trade\",exchange=\"okx_derivatives\",market_type=\"perpetual\",symbol=\"BTC-USDT-SWAP\"";
    assert!(value(&text, &format!("unified_nats_subject_rate{{{labels}}}")).is_some_and(|rate| rate > 0.0), "{text}");
    assert!(text.contains(&format!("unified_nats_subject_last_message_age_seconds{{{labels}}} ")), "{text}");
    assert_eq!(value(&text, "unified_nats_ingest_delay_seconds_count{data_type=\"trade\"}"), Some(1.0));
    let sum = value(&text, "unified_nats_ingest_delay_seconds_sum{data_type=\"trade\"}");
    assert!(sum.is_some_and(|sum| sum >= 0.29), "{text}");
    assert_eq!(value(&text, "unified_nats_ingest_delay_seconds_bucket{data_type=\"trade\",le=\"0.25\"}"), Some(0.0));
    let mut silent = Broker::new();
    silent.set("PROMETHEUS_TOP_SUBJECTS", "0").start();
    block_on(async { JetStream(silent.client().await).publish(SUBJECTS[1], "x").await });
    let text = wait_for_value(&silent, TRADES, 1.0);
    assert!(!text.contains("unified_nats_subject_") && !text.contains("unified_nats_ingest_"), "{text}");
}

#[test]
fn what_jetstream_tells_by_itself_is_counted() {
    let mut broker = Broker::new();
    // Users are asked for, so that listening takes a right.
    broker
        .set("NATS_AUTH_ENABLED", "true")
        .set("NATS_AUTH_USERNAME", "tester")
        .set("NATS_AUTH_PASSWORD", "a-long-password-of-a-test");
    broker.set("API_READ_TOKEN", "token-for-reading-only").start();
    let scrape = || {
        block_on(async {
            let request = http_client().get(broker.api("/metrics")).bearer_auth("token-for-reading-only");
            request.timeout(PATIENCE).send().await.unwrap().text().await.unwrap()
        })
    };
    let naks = "unified_nats_js_advisories_total{kind=\"nak\"}";
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let jetstream = runtime.block_on(async {
        let options =
            async_nats::ConnectOptions::with_user_and_password("tester".into(), "a-long-password-of-a-test".into());
        let jetstream = JetStream(options.connect(broker.url()).await.unwrap());
        let config = json!({ "durable_name": "reader", "ack_policy": "explicit" });
        let request = json!({ "stream_name": "MARKET_DATA", "config": config });
        let made = jetstream.ask("$JS.API.CONSUMER.DURABLE.CREATE.MARKET_DATA.reader", request).await;
        assert!(made["error"].is_null(), "{made}");
        jetstream
    });
    // It is listened from the first scrape on, so naks are sent until one is heard.
    let text = wait_for("a nak is counted", || {
        runtime.block_on(async {
            jetstream.publish(SUBJECTS[1], "x").await;
            // What is delivered bears its own subject, so that an answer has to be subscribed to.
            let inbox = jetstream.0.new_inbox();
            let mut messages = jetstream.0.subscribe(inbox.clone()).await.unwrap();
            let next = "$JS.API.CONSUMER.MSG.NEXT.MARKET_DATA.reader";
            jetstream.0.publish_with_reply(next, inbox, "1".into()).await.unwrap();
            let message = futures_util::StreamExt::next(&mut messages).await.unwrap();
            jetstream.0.publish(message.reply.unwrap(), "-NAK".into()).await.unwrap();
            jetstream.0.flush().await.unwrap();
        });
        let text = scrape();
        value(&text, naks).is_some_and(|naks| naks > 0.0).then_some(text)
    });
    assert_eq!(value(&text, "unified_nats_js_advisories_total{kind=\"max_deliveries\"}"), Some(0.0));
}

fn value_of_stream(text: &str, name: &str) -> Option<f64> {
    let begins = format!("jetstream_stream_{name}{{");
    let line = text.lines().find(|line| line.starts_with(&begins) && line.contains("stream_name=\"MARKET_DATA\""))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn a_hung_server_is_told_as_down_and_delays_no_scrape() {
    let mut broker = Broker::new();
    broker.set("HEALTH_PROBE_INTERVAL", "50ms").set("HEALTH_HANG_TIMEOUT", "60s").start();
    wait_for_value(&broker, "unified_nats_up", 1.0);
    let server = broker.server_pid();
    kill(server, Signal::SIGSTOP).unwrap();
    // The client waits five seconds at most.
    let text = wait_for_value(&broker, "unified_nats_up", 0.0);
    for known in ["unified_nats_build_info{", "unified_nats_process_open_fds ", "unified_nats_child_uptime_seconds "] {
        assert!(text.contains(&format!("\n{known}")), "{known}\n{text}");
    }
    let unreachable = format!(
        "gnatsd_healthz_status_value{{server_id=\"http://127.0.0.1:{}\",value=\"unreachable\"}} 0\n",
        broker.ports.http
    );
    assert!(text.contains(&unreachable) && !text.contains("gnatsd_healthz_status{"), "{text}");
    // Many at once are one question to the server.
    let texts = block_on(async {
        let client = http_client();
        let ask = |_| async {
            let answer = client.get(broker.api("/metrics")).timeout(PATIENCE).send().await.unwrap();
            answer.text().await.unwrap()
        };
        futures_util::future::join_all((0..50).map(ask)).await
    });
    assert!(texts.iter().all(|text| value(text, "unified_nats_up") == Some(0.0)));
    kill(server, Signal::SIGCONT).unwrap();
    wait_for_value(&broker, "unified_nats_up", 1.0);
}

#[test]
fn the_server_is_asked_once_for_many_scrapes() {
    const SCRAPES: usize = 100;
    let mut broker = Broker::new();
    broker.start();
    let asked = || value(&scrape(&broker), "gnatsd_varz_http_req_stats_connz").unwrap_or_default();
    let before = asked();
    let started = std::time::Instant::now();
    block_on(async {
        let client = http_client();
        for _ in 0..SCRAPES {
            let answer = client.get(broker.api("/metrics")).timeout(PATIENCE).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 200);
        }
    });
    // Twice a second at most, however long that took.
    let most = started.elapsed().as_secs_f64() * 2.0 + 3.0;
    let now = asked();
    assert!(now - before <= most, "{before} {now} {most}");
}

#[test]
fn a_prefix_renames_and_the_label_is_chosen() {
    let mut broker = Broker::new();
    broker.set("PROMETHEUS_PREFIX", "nats").set("PROMETHEUS_SERVER_ID", "name").set("NATS_SERVER_NAME", "tick").start();
    let mem = "\nnats_varz_mem{server_id=\"tick\"} ".to_owned();
    let streams = "\nnats_server_total_streams{server_id=\"tick\",server_name=\"tick\",".to_owned();
    let text = wait_for_parts(&broker, &[mem, streams]);
    assert!(!text.contains("gnatsd_") && !text.contains("\njetstream_"), "{text}");
    assert!(!broker.log().contains("does not have what they control"), "{}", broker.log());
}

#[test]
fn the_api_asks_who_scrapes_and_the_port_for_metrics_does_not() {
    let mut broker = Broker::new();
    broker.set("API_TOKEN", "full-token-of-the-api").set("API_READ_TOKEN", "token-for-reading-only");
    let port = broker.ports.cluster;
    broker.set("PROMETHEUS_ENABLED", "true").set("PROMETHEUS_HOST", "127.0.0.1").set("PROMETHEUS_PORT", port);
    broker.start();
    let status = |token: Option<&str>| {
        block_on(async {
            let mut request = http_client().get(broker.api("/metrics")).timeout(PATIENCE);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            request.send().await.unwrap().status().as_u16()
        })
    };
    assert_eq!([None, Some("other"), Some("token-for-reading-only")].map(status), [401, 401, 200]);
    let own = format!("http://127.0.0.1:{}", broker.ports.cluster);
    assert!(text(&format!("{own}/metrics")).contains("\nunified_nats_ready 1\n"));
    assert_eq!(http_get(&format!("{own}/api/v1/status")).0, 404);
    assert!(!text(&format!("{own}/metrics")).contains("full-token-of-the-api"));
}

#[test]
fn without_the_api_the_port_for_metrics_is_there() {
    let mut broker = Broker::new();
    broker.set("API_ENABLED", "false").set("MONITORING_ENABLED", "false");
    let port = broker.ports.cluster;
    broker.set("PROMETHEUS_ENABLED", "true").set("PROMETHEUS_HOST", "127.0.0.1").set("PROMETHEUS_PORT", port);
    broker.start();
    let url = format!("http://127.0.0.1:{}/metrics", broker.ports.cluster);
    // Without monitoring the probes say whether it answers.
    wait_for("up", || (value(&text(&url), "unified_nats_up") == Some(1.0)).then_some(()));
    assert!(!text(&url).contains("gnatsd_"));
    assert_eq!(http_get(&broker.api("/metrics")).0, 404);
    assert_eq!(broker.stop(), Some(0));
}

#[test]
fn a_port_that_is_taken_refuses_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut broker = Broker::new();
    broker.set("PROMETHEUS_ENABLED", "true").set("PROMETHEUS_HOST", "127.0.0.1").set("PROMETHEUS_PORT", port);
    let output = broker.output(&["run"]);
    assert_ne!(output.status.code(), Some(0));
    let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("PROMETHEUS_PORT") && words.contains(&port.to_string()), "{words}");
}

#[test]
fn of_a_server_that_others_run_the_same_is_told_and_no_password() {
    let mut server = BareServer::new(CURRENT, JETSTREAM);
    server.start();
    let mut broker = serving(&server);
    let address = format!("127.0.0.1:{}", server.ports.http);
    broker.set("NATS_MONITOR_URL", format!("http://u:tell-nobody@{address}")).start();
    let text = wait_for_scrape(&broker, |text| {
        let told = [value(text, TRADES), value(text, "unified_nats_up"), value_of_stream(text, "total_messages")];
        (told != [Some(0.0), Some(1.0), Some(0.0)]).then(|| format!("{told:?}"))
    });
    assert!(!text.contains("tell-nobody"), "{text}");
    assert!(text.contains(&format!("{address}\"")) && !text.contains("unified_nats_child_uptime_seconds"), "{text}");
    server.kill();
    let text = wait_for_value(&broker, "unified_nats_up", 0.0);
    assert!(!text.contains("tell-nobody") && text.contains("unreachable"), "{text}");
}

/// Where Debian's prometheus puts it.
pub fn is_installed(test: &str, program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !is_there {
        cannot_run(test, &format!("{program} is not installed"));
    }
    is_there
}

#[test]
fn promtool_finds_nothing_wrong_with_our_own() {
    if !is_installed("promtool_finds_nothing_wrong_with_our_own", "promtool") {
        return;
    }
    let mut broker = Broker::new();
    broker.start();
    block_on(async { JetStream(broker.client().await).publish(SUBJECTS[1], "x").await });
    let text = wait_for_value(&broker, TRADES, 1.0);
    let (mut own, mut is_own) = (String::new(), false);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            is_own = rest.starts_with("unified_nats_");
        }
        if is_own {
            own.push_str(line);
            own.push('\n');
        }
    }
    for (what, text) in [("our own", &own), ("everything", &text)] {
        let mut promtool = Command::new("promtool");
        let mut child =
            promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let ours = words.lines().filter(|line| line.starts_with("unified_nats_") || line.contains("error")).count();
        assert_eq!(ours, 0, "{what}: {words}");
        assert!(what != "our own" || output.status.success(), "{words}");
    }
}

/// A Prometheus for one test, gone with it.
pub struct Prometheus {
    child: std::process::Child,
    url: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    pub fn scrapes(broker: &Broker, port: u16, job: &str) -> Self {
        let config = broker.path("prometheus.yml");
        std::fs::write(&config, format!("scrape_configs:\n{job}")).unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", broker.path("tsdb").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let log = std::fs::File::create(broker.path("prometheus.log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, url }
    }

    /// The value that a query has, once it has one.
    fn query(&self, query: &str) -> Option<String> {
        let answer = self.answer(query)?;
        answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    }

    /// How many series a query has, or what is wrong with it; nothing while it does not answer.
    pub fn results(&self, query: &str) -> Option<Result<usize, String>> {
        let answer = self.answer(query)?;
        Some(match answer["data"]["result"].as_array() {
            Some(results) => Ok(results.len()),
            None => Err(answer.to_string()),
        })
    }

    fn answer(&self, query: &str) -> Option<serde_json::Value> {
        let body = block_on(async {
            let query = percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
            let request = http_client().get(format!("{}/api/v1/query?query={query}", self.url));
            match request.timeout(PATIENCE).send().await {
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            }
        });
        // While it starts it answers in words.
        serde_json::from_str(&body).ok()
    }
}

#[test]
fn a_real_prometheus_reads_all_of_it() {
    if !is_installed("a_real_prometheus_reads_all_of_it", "prometheus") {
        return;
    }
    let mut broker = Broker::new();
    broker.set("API_READ_TOKEN", "token-for-reading-only").start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        for _ in 0..4 {
            jetstream.publish(SUBJECTS[1], "x").await;
        }
        consume(&broker).await;
    });
    let job = format!(
        "- job_name: nats\n  scrape_interval: 1s\n  authorization: {{ credentials: token-for-reading-only }}\n  \
         static_configs: [{{ targets: [\"127.0.0.1:{}\"] }}]\n",
        broker.ports.api
    );
    let prometheus = Prometheus::scrapes(&broker, broker.ports.cluster, &job);
    for (query, wanted) in [
        ("up{job=\"nats\"}", "1"),
        ("unified_nats_up", "1"),
        ("unified_nats_family_messages_total{data_type=\"trade\"}", "4"),
        ("jetstream_stream_total_messages{stream_name=\"MARKET_DATA\"}", "4"),
        ("jetstream_consumer_num_pending{consumer_desc=\"say \\\"hi\\\"\\nto C:\\\\\"}", "4"),
        ("sum(rate(unified_nats_http_request_duration_seconds_count[1m])) > bool 0", "1"),
    ] {
        wait_for(query, || (prometheus.query(query).as_deref() == Some(wanted)).then_some(()));
    }
}
