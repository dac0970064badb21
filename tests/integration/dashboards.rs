//! The dashboards for Grafana and the rules for Prometheus ask for what the broker tells.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::metrics::{Prometheus, is_installed};
use crate::support::*;

/// What has no data on a healthy broker that runs alone: a part of the query, and why.
const EMPTY: &[(&str, &str)] = &[
    ("ALERTS{", "no rule fires"),
    ("status=\"5xx\"", "no request failed"),
    ("unified_nats_tls_cert_expiry_seconds", "it has no certificate"),
    ("unified_nats_store_full_in_seconds", "five minutes must be known"),
    ("unified_nats_stream_full_in_seconds", "five minutes must be known"),
    ("unified_nats_stream_replica_lag", "a broker alone has no other copies"),
    ("unified_nats_stream_replica_current", "a broker alone has no other copies"),
];

/// What rules ask for that no broker tells yet.
const TO_COME: &[&str] = &["unified_nats_backup_last_success_timestamp_seconds"];

fn repository() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(repository().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The dashboards, by the names of their files.
fn dashboards() -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(repository().join("deploy/grafana")).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let named = files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        (name, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    });
    named.collect()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    array(&dashboard["panels"]).filter(|panel| panel["type"] != "row")
}

/// Each query of a dashboard, with what asks it; what variables ask for as well.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let of_panels = panels(dashboard).flat_map(|panel| {
        array(&panel["targets"]).map(move |target| (panel["title"].to_string(), target["expr"].as_str().unwrap()))
    });
    let variables = array(&dashboard["templating"]["list"]).filter(|variable| variable["type"] == "query");
    let of_variables = variables.map(|variable| {
        let query = variable["query"]["query"].as_str().unwrap();
        (variable["name"].to_string(), query)
    });
    of_panels.chain(of_variables).map(|(title, query)| (title, query.to_owned())).collect()
}

/// The query as Grafana sends it where everything is chosen.
fn substituted(query: &str) -> String {
    let query = match query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')) {
        Some(label) => {
            let (metric, label) = label.rsplit_once(", ").unwrap();
            format!("{metric}{{{label}!=\"\"}}")
        }
        None => query.to_owned(),
    };
    let query = query.replace("$__rate_interval", "10s").replace("$__range", "1m");
    ["instance", "stream", "server", "account", "consumer"]
        .iter()
        .fold(query, |query, name| query.replace(&format!("\"${name}\""), "\".*\""))
}

fn is_empty_when_healthy(query: &str) -> bool {
    EMPTY.iter().any(|(part, _)| query.contains(part))
}

/// A broker that tells all that one alone can tell, and what reads and publishes meanwhile.
struct Traffic {
    broker: Broker,
    client: JetStream,
    inbox: String,
    answers: async_nats::Subscriber,
    runtime: tokio::runtime::Runtime,
}

impl Traffic {
    fn start() -> Self {
        let mut broker = Broker::new();
        broker.set("INGEST_TIMESTAMP_FIELDS", "ts").set("ALERT_WEBHOOK_URL", "http://127.0.0.1:9/nobody");
        broker.set("STREAM_MAX_BYTES", "100MB").start();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (client, inbox, answers) = runtime.block_on(async {
            let client = JetStream(broker.client().await);
            let config = json!({ "durable_name": "reader", "ack_policy": "explicit" });
            let request = json!({ "stream_name": "MARKET_DATA", "config": config });
            let made = client.ask("$JS.API.CONSUMER.DURABLE.CREATE.MARKET_DATA.reader", request).await;
            assert!(made["error"].is_null(), "{made}");
            let inbox = client.0.new_inbox();
            let answers = client.0.subscribe(inbox.clone()).await.unwrap();
            (client, inbox, answers)
        });
        Self { broker, client, inbox, answers, runtime }
    }

    /// A message of every family, of which the consumer takes one.
    fn turn(&mut self) {
        let Self { client, inbox, answers, runtime, .. } = self;
        runtime.block_on(async {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            for subject in SUBJECTS {
                client.publish(subject, &json!({ "ts": now.as_millis() as u64 }).to_string()).await;
            }
            let next = "$JS.API.CONSUMER.MSG.NEXT.MARKET_DATA.reader";
            client.0.publish_with_reply(next, inbox.clone(), "1".into()).await.unwrap();
            let message = tokio::time::timeout(PATIENCE, answers.next()).await.unwrap().unwrap();
            client.0.publish(message.reply.unwrap(), "+ACK".into()).await.unwrap();
            client.0.flush().await.unwrap();
        });
    }

    /// What has no data although it should, once all of it has been asked for long enough.
    fn without_data(&mut self, prometheus: &Prometheus, queries: &[(String, String)]) -> BTreeMap<String, String> {
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut left: Vec<_> = queries.to_vec();
        loop {
            self.turn();
            let answers = |query: &str| match prometheus.results(&substituted(query)) {
                Some(Ok(results)) => results > 0 || is_empty_when_healthy(query),
                Some(Err(error)) => panic!("{query}: {error}"),
                // It starts.
                None => false,
            };
            left.retain(|(_, query)| !answers(query));
            if left.is_empty() || std::time::Instant::now() > deadline {
                return left.into_iter().collect();
            }
        }
    }
}

fn scraped_by_prometheus(traffic: &Traffic) -> Prometheus {
    let job = format!(
        "- job_name: unified-nats\n  scrape_interval: 1s\n  static_configs: [{{ targets: [\"127.0.0.1:{}\"] }}]\n",
        traffic.broker.ports.api
    );
    Prometheus::scrapes(&traffic.broker, traffic.broker.ports.cluster, &job)
}

#[test]
fn every_panel_of_every_dashboard_has_data() {
    if !is_installed("every_panel_of_every_dashboard_has_data", "prometheus") {
        return;
    }
    let queries: Vec<_> = dashboards()
        .iter()
        .flat_map(|(file, dashboard)| {
            queries(dashboard).into_iter().map(move |(title, query)| (format!("{file} {title}"), query))
        })
        .collect();
    assert!(queries.len() > 60, "{queries:#?}");
    for (part, why) in EMPTY {
        assert!(queries.iter().any(|(_, query)| query.contains(part)), "nothing asks for {part} ({why})");
    }
    let mut traffic = Traffic::start();
    let prometheus = scraped_by_prometheus(&traffic);
    let empty = traffic.without_data(&prometheus, &queries);
    assert!(empty.is_empty(), "{empty:#?}");
}

#[test]
fn dashboards_for_the_exporter_go_on() {
    if !is_installed("dashboards_for_the_exporter_go_on", "prometheus") {
        return;
    }
    let text = read("tests/integration/exporter_queries.txt");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let queries: Vec<_> = lines.map(|line| (line.to_owned(), line.to_owned())).collect();
    let mut traffic = Traffic::start();
    let prometheus = scraped_by_prometheus(&traffic);
    let empty = traffic.without_data(&prometheus, &queries);
    assert!(empty.is_empty(), "{empty:#?}");
}

#[test]
fn dashboards_are_well_formed() {
    let dashboards = dashboards();
    let mut uids = BTreeSet::new();
    for (file, dashboard) in &dashboards {
        assert!(uids.insert(dashboard["uid"].to_string()), "{file}");
        let variables = &dashboard["templating"]["list"];
        assert_eq!(variables[0]["name"], "datasource", "{file}");
        assert_eq!(variables[0]["type"], "datasource", "{file}");
        let known: BTreeSet<_> = array(variables).map(|variable| variable["name"].as_str().unwrap()).collect();
        let mut ids = BTreeSet::new();
        for panel in panels(dashboard) {
            let title = &panel["title"];
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file} {title}");
            assert!(panel["description"].as_str().is_some_and(|text| text.len() > 10), "{file} {title}: says nothing");
            assert!(array(&panel["targets"]).next().is_some(), "{file} {title}");
            for target in array(&panel["targets"]).chain([panel]) {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{file} {title}");
            }
        }
        for (title, query) in queries(dashboard) {
            let used = query.split("\"$").skip(1).map(|rest| rest.split('"').next().unwrap());
            let unknown: Vec<_> = used.filter(|name| !known.contains(name)).collect();
            assert!(unknown.is_empty(), "{file} {title}: {unknown:?}");
        }
    }
    assert_eq!(dashboards.len(), 3);
}

#[test]
fn the_documents_name_every_panel() {
    let text = read("docs/observability.md");
    for (file, dashboard) in dashboards() {
        assert!(text.contains(&file), "{file}");
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(text.contains(&format!("| {title} |")), "{file}: {title}");
        }
    }
}

/// A metric that a query names, and the values of labels that it names.
struct Selector {
    metric: String,
    matchers: Vec<(String, Vec<String>)>,
}

/// The selectors of our own and compatible metrics in a query. None of our label values holds a brace.
fn selectors(query: &str) -> Vec<Selector> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = vec![];
    let mut rest = query;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let word = &rest[start..];
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        let (word, behind) = word.split_at(end);
        rest = behind;
        if !["unified_nats_", "gnatsd_", "jetstream_"].iter().any(|prefix| word.starts_with(prefix)) {
            continue;
        }
        let inside =
            behind.strip_prefix('{').and_then(|inside| inside.split_once('}')).map_or("", |(inside, _)| inside);
        // Parts between quotes are values; what stands before each is a label and an operator.
        let parts: Vec<_> = inside.split('"').collect();
        let matchers = parts.chunks_exact(2).map(|pair| {
            let label = pair[0].trim_start_matches([',', ' ']).trim_end_matches(['=', '~', '!']).to_owned();
            (label, pair[1].split('|').map(str::to_owned).collect())
        });
        found.push(Selector { metric: word.to_owned(), matchers: matchers.collect() });
    }
    found
}

#[test]
fn selectors_are_understood() {
    let found = selectors("sum(rate(gnatsd_a{x=~\"b|c\",y!=\"d\"}[1m])) / unified_nats_b");
    let seen: Vec<_> = found.iter().map(|one| (one.metric.as_str(), one.matchers.clone())).collect();
    let first = vec![("x".into(), vec!["b".into(), "c".into()]), ("y".into(), vec!["d".into()])];
    assert_eq!(seen, [("gnatsd_a", first), ("unified_nats_b", vec![])]);
}

/// What needs more than a healthy broker alone: where it is told instead.
fn is_told_elsewhere(metric: &str) -> bool {
    let mut sources = std::fs::read_dir(repository().join("src/metrics")).unwrap();
    let is_listed = EMPTY.iter().any(|(part, _)| *part == metric);
    is_listed
        && sources.any(|entry| {
            let path = entry.unwrap().path();
            path.is_file() && std::fs::read_to_string(path).unwrap().contains(&format!("\"{metric}\""))
        })
}

#[test]
fn rules_and_dashboards_ask_for_what_is_told() {
    let rules = read("deploy/prometheus/alerts.yml");
    let of_rules = rules.lines().filter_map(|line| {
        let query = line.trim().strip_prefix("expr: '")?.strip_suffix('\'')?;
        Some(("alerts.yml".to_owned(), query.to_owned()))
    });
    let mut all: Vec<_> = of_rules.collect();
    assert_eq!(all.len(), rules.matches("- alert: ").count());
    for (file, dashboard) in dashboards() {
        all.extend(queries(&dashboard).into_iter().map(|(title, query)| (format!("{file} {title}"), query)));
    }
    let mut traffic = Traffic::start();
    let told = |text: &str, metric: &str| {
        text.lines().any(|line| line.starts_with(metric) && line[metric.len()..].starts_with([' ', '{']))
    };
    // Silence has a measure once enough has come.
    let text = wait_for("everything is told", || {
        traffic.turn();
        let (_, text) = http_get(&traffic.broker.api("/metrics"));
        let late = ["unified_nats_subject_silence_ratio", "unified_nats_ingest_delay_seconds_bucket"];
        late.iter().all(|metric| told(&text, metric)).then_some(text)
    });
    for metric in TO_COME {
        assert!(!told(&text, metric), "{metric} is told: it stands in the list of those that are not");
    }
    for (place, query) in &all {
        for Selector { metric, matchers } in selectors(query) {
            if TO_COME.contains(&metric.as_str()) || is_told_elsewhere(&metric) {
                continue;
            }
            assert!(told(&text, &metric), "{place}: {metric} is not told");
            for (label, values) in matchers {
                let values = values.iter().filter(|value| !value.starts_with('$') && *value != "5xx");
                for value in values {
                    let wanted = format!("{label}=\"{value}\"");
                    let is_there =
                        text.lines().any(|line| line.starts_with(&format!("{metric}{{")) && line.contains(&wanted));
                    assert!(is_there, "{place}: no {metric} has {wanted}");
                }
            }
        }
    }
}
