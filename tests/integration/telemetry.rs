//! Traces and metrics over OTLP, as a collector gets them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use base64::Engine;
use nix::sys::signal::{Signal, kill};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;

use super::collectors::{Answer, Collector, attribute};
use super::rest_calls::Api;
use super::support::*;

const PUBLISH: &str = "/api/v1/broker/publish";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";

/// One that sends there as fast as may be, metrics seldom.
fn sending_to(endpoint: &str) -> Broker {
    let mut broker = Broker::new();
    broker.set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).set("OTEL_BSP_SCHEDULE_DELAY", "50");
    broker.set("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20tell-nobody,x-scope=a");
    broker
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == 2)
}

fn text(span: &Span, key: &str) -> String {
    attribute(&span.attributes, key).unwrap_or_else(|| panic!("{} has no {key}: {:?}", span.name, span.attributes))
}

/// The spans right below that one.
fn below(collector: &Collector, above: &Span) -> Vec<Span> {
    let mut spans = collector.spans();
    spans.retain(|span| span.parent_span_id == above.span_id);
    spans
}

fn publish(broker: &Broker, headers: &[(&str, &str)], body: serde_json::Value) -> serde_json::Value {
    let headers: Vec<_> = headers.iter().copied().chain([("content-type", "application/json")]).collect();
    Api::of(broker).post_with(PUBLISH, &headers, body.to_string()).answer().1
}

/// The headers of a message as they are stored.
fn stored_headers(broker: &Broker, sequence: u64) -> String {
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        let answer = jetstream.ask("$JS.API.STREAM.MSG.GET.MARKET_DATA", json!({ "seq": sequence })).await;
        let headers = answer["message"]["hdrs"].as_str().unwrap_or_default();
        String::from_utf8(base64::prelude::BASE64_STANDARD.decode(headers).unwrap()).unwrap()
    })
}

/// Threads of the broker that send to collectors.
fn senders(broker: &Broker) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", broker.pid())).unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    names.filter(|name| name.trim() == "api-otlp").count()
}

#[test]
fn a_start_is_one_trace_with_its_phases() {
    let collector = Collector::start();
    let mut broker = sending_to(&collector.endpoint());
    broker.set("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=a%20b").start();
    let start = collector.wait_for_span("the start", |span| span.name == "start");
    assert!(start.parent_span_id.is_empty() && !is_failed(&start), "{start:?}");
    let provision = collector.wait_for_span("provisioning", |span| span.name == "provision");
    let names = wait_for("all phases", || {
        let names: BTreeSet<_> = below(&collector, &start).into_iter().map(|span| span.name).collect();
        (names.len() >= 7).then_some(names)
    });
    let expected = ["launch", "preparation", "provision", "render", "server", "settings", "streams"];
    assert_eq!(names, expected.map(str::to_owned).into());
    let slack = 5_000_000;
    for span in below(&collector, &start) {
        assert_eq!(span.trace_id, start.trace_id);
        let (began, ended) = (span.start_time_unix_nano, span.end_time_unix_nano);
        assert!(began + slack >= start.start_time_unix_nano && began <= ended, "{span:?} in {start:?}");
        assert!(ended <= start.end_time_unix_nano + slack, "{span:?} in {start:?}");
    }
    let created = below(&collector, &provision);
    let (name, stream) = (&created[0].name, text(&created[0], "unified_nats.stream"));
    assert_eq!((created.len(), name.as_str(), stream.as_str()), (1, "create stream", "MARKET_DATA"));

    let resource = collector.resource();
    let say = |key| attribute(&resource, key).unwrap_or_default();
    assert_eq!((say("service.name"), say("deployment.environment.name")), ("unified-nats".into(), "a b".into()));
    assert!(say("service.version").starts_with("0.") && !say("host.name").is_empty(), "{resource:?}");
    let heads = collector.heads().to_ascii_lowercase();
    assert!(heads.starts_with("post /v1/traces http/1.1\r\n"), "{heads}");
    assert!(heads.contains("authorization: bearer tell-nobody\r\n") && heads.contains("x-scope: a\r\n"), "{heads}");
    assert_eq!(broker.stop(), Some(0));
    let told = format!("{}{:?}", broker.log(), collector.spans());
    assert!(!told.contains("tell-nobody"), "{told}");
}

#[test]
fn a_publish_goes_on_from_its_request_and_into_the_message() {
    let collector = Collector::start();
    let mut broker = sending_to(&collector.endpoint());
    broker.start();
    let parent = format!("00-{TRACE}-{CLIENT}-01");
    let body = json!({ "subject": SUBJECTS[1], "message": "x", "msg_id": "one" });
    publish(&broker, &[("traceparent", &parent), ("tracestate", "a=1")], body);
    let sent = collector.wait_for_span("the publish", |span| span.name == "publish");
    let server = collector.wait_for_span("its request", |span| span.span_id == sent.parent_span_id);
    assert_eq!((hex(&sent.trace_id), hex(&server.trace_id)), (TRACE.into(), TRACE.into()));
    assert_eq!((hex(&server.parent_span_id), server.name.as_str()), (CLIENT.into(), "POST /api/v1/broker/publish"));
    assert_eq!((server.kind, sent.kind), (2, 4), "server and producer");
    for (key, expected) in [
        ("messaging.system", "nats"),
        ("messaging.operation.type", "send"),
        ("messaging.operation.name", "publish"),
        ("messaging.destination.name", SUBJECTS[1]),
        ("messaging.message.id", "one"),
        ("messaging.message.body.size", "1"),
        ("unified_nats.stream", "MARKET_DATA"),
        ("unified_nats.sequence", "1"),
    ] {
        assert_eq!(text(&sent, key), expected, "{key}");
    }
    let of_request = ["http.request.method", "http.route", "url.path", "http.response.status_code"];
    assert_eq!(of_request.map(|key| text(&server, key)), ["POST", PUBLISH, PUBLISH, "200"]);
    let headers = stored_headers(&broker, 1);
    let carried = format!("traceparent: 00-{TRACE}-{}-01\r\n", hex(&sent.span_id));
    assert!(headers.contains(&carried) && headers.contains("tracestate: a=1"), "{headers}");

    // Who wants no trace gets none, and what is said of it stays.
    let unsampled = format!("00-{TRACE}-{CLIENT}-00");
    publish(&broker, &[("traceparent", &unsampled)], json!({ "subject": SUBJECTS[1], "message": "unsampled" }));
    assert!(stored_headers(&broker, 2).contains(&format!("traceparent: {unsampled}\r\n")));
    // A message may belong to another trace than its request.
    let own = format!("00-{}-{CLIENT}-01", "1".repeat(32));
    let body = json!({ "subject": SUBJECTS[1], "message": "own", "headers": { "traceparent": own } });
    publish(&broker, &[("traceparent", &parent)], body);
    let of_own = collector.wait_for_span("of its own", |span| hex(&span.trace_id) == "1".repeat(32));
    assert_eq!((of_own.name.as_str(), hex(&of_own.parent_span_id).as_str()), ("publish", CLIENT));
    // Without one a trace begins here.
    publish(&broker, &[], json!({ "subject": SUBJECTS[1], "message": "no trace" }));
    let begun = collector
        .wait_for_span("its own trace", |span| span.name.starts_with("POST ") && span.parent_span_id.is_empty());
    assert!(stored_headers(&broker, 4).contains(&format!("traceparent: 00-{}-", hex(&begun.trace_id))));
    // What fails says why.
    publish(&broker, &[], json!({ "subject": "nobody.takes.it", "message": "x" }));
    let failed = collector.wait_for_span("a failure", |span| span.name == "publish" && is_failed(span));
    assert_eq!(text(&failed, "error.type"), "not_captured");
    let why = failed.status.unwrap().message;
    assert!(why.contains("no stream captures the subject nobody.takes.it"), "{why}");
    assert_eq!(collector.spans().iter().filter(|span| span.name == "publish").count(), 4);
}

#[test]
fn a_batch_is_one_span_that_all_its_messages_carry() {
    let collector = Collector::start();
    let mut broker = sending_to(&collector.endpoint());
    broker.start();
    let parent = format!("00-{TRACE}-{CLIENT}-01");
    let own = format!("00-{}-{CLIENT}-01", "1".repeat(32));
    let one = |headers| json!({ "subject": SUBJECTS[1], "message": "x", "headers": headers });
    let lines = format!("{}\n{}\n{{}}\n", one(json!({})), one(json!({ "traceparent": own })));
    let headers = [("traceparent", parent.as_str()), ("content-type", "application/x-ndjson")];
    let answer = Api::of(&broker).post_with(&format!("{PUBLISH}/batch"), &headers, lines);
    assert_eq!(answer.status, 207, "{}", answer.text);
    let sent = collector.wait_for_span("the batch", |span| span.name == "publish");
    let server = collector.wait_for_span("its request", |span| span.span_id == sent.parent_span_id);
    assert_eq!((hex(&sent.trace_id), hex(&server.parent_span_id)), (TRACE.into(), CLIENT.into()));
    assert_eq!(text(&sent, "messaging.batch.message_count"), "3");
    assert_eq!((text(&sent, "unified_nats.failed_messages"), is_failed(&sent)), ("1".into(), true));
    let carried = format!("traceparent: 00-{TRACE}-{}-01\r\n", hex(&sent.span_id));
    assert!(stored_headers(&broker, 1).contains(&carried));
    assert!(stored_headers(&broker, 2).contains(&format!("traceparent: {own}\r\n")), "it belongs to another trace");
}

#[test]
fn a_restart_is_a_trace_with_its_reason() {
    let collector = Collector::start();
    let mut broker = sending_to(&collector.endpoint());
    broker.start();
    let start = collector.wait_for_span("the start", |span| span.name == "start");
    kill(broker.server_pid(), Signal::SIGKILL).unwrap();
    let restart = collector.wait_for_span("the restart", |span| span.name == "restart");
    assert!(restart.parent_span_id.is_empty() && restart.trace_id != start.trace_id && !is_failed(&restart));
    let reason = text(&restart, "unified_nats.restart.reason");
    assert!(reason.contains("SIGKILL"), "{reason}");
    assert_eq!(text(&restart, "unified_nats.generation"), "2");
    let names = wait_for("its phases", || {
        let names: BTreeSet<_> = below(&collector, &restart).into_iter().map(|span| span.name).collect();
        (names.len() >= 4).then_some(names)
    });
    let has = |name: &str| names.contains(name);
    assert!(has("launch") && has("server") && has("streams") && has("provision"), "{names:?}");
    assert!(collector.spans().iter().all(|span| span.name != "create stream" || span.trace_id == start.trace_id));
}

/// Names of the metrics with their kinds, as the exposition says them.
fn kinds(exposition: &str) -> BTreeMap<String, String> {
    let types = exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// Samples by name and labels, as the exposition writes them.
fn samples(collector: &Collector) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for metric in collector.last_metrics() {
        let points = match metric.data.unwrap() {
            Data::Gauge(gauge) => gauge.data_points,
            Data::Sum(sum) => sum.data_points,
            _ => continue,
        };
        for point in points {
            let labels = point.attributes.iter().map(|label| {
                let value = attribute(std::slice::from_ref(label), &label.key).unwrap();
                format!("{}=\"{value}\"", label.key)
            });
            let labels = labels.collect::<Vec<_>>().join(",");
            let key = if labels.is_empty() { metric.name.clone() } else { format!("{}{{{labels}}}", metric.name) };
            let Some(Number::AsDouble(value)) = point.value else { panic!("{key}: {:?}", point.value) };
            assert!(samples.insert(key.clone(), value).is_none(), "{key} comes twice");
        }
    }
    samples
}

#[test]
fn metrics_are_those_of_a_scrape() {
    let collector = Collector::start();
    let mut broker = sending_to(&collector.endpoint());
    broker.set("OTEL_METRIC_EXPORT_INTERVAL", "300").set("OTEL_TRACES_EXPORTER", "none").start();
    Api::of(&broker).publish(SUBJECTS[1], (0..3).map(|n| json!(n)));
    // What stands still is the same in both, and all names are.
    let is_still = |key: &str| {
        let still = ["jetstream_stream_", "unified_nats_build_info", "unified_nats_state", "unified_nats_ready"];
        still.iter().any(|name| key.starts_with(name))
    };
    wait_for("an export that says what a scrape says", || {
        let before = collector.metric_exports();
        let exposition = http_get(&broker.api("/metrics")).1;
        wait_for("an export", || (collector.metric_exports() > before).then_some(()));
        let sent = samples(&collector);
        let scraped = exposition.lines().filter(|line| is_still(line)).map(|line| line.rsplit_once(' ').unwrap());
        let scraped: BTreeMap<_, f64> = scraped.map(|(key, n)| (key.to_owned(), n.parse().unwrap())).collect();
        let still: BTreeMap<_, _> = sent.into_iter().filter(|(key, _)| is_still(key)).collect();
        (scraped.len() > 10 && scraped["unified_nats_ready"] == 1.0 && still == scraped).then_some(())
    });
    let kind = |data: &Data| match data {
        Data::Gauge(_) => "gauge",
        Data::Sum(sum) => {
            assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
            "counter"
        }
        Data::Histogram(histogram) => {
            assert_eq!(histogram.aggregation_temporality, 2);
            "histogram"
        }
        other => panic!("{other:?}"),
    };
    let metrics = wait_for("the same names and kinds", || {
        let metrics = collector.last_metrics();
        let one = |metric: &Metric| (metric.name.clone(), kind(metric.data.as_ref().unwrap()).to_owned());
        let sent: BTreeMap<_, _> = metrics.iter().map(one).collect();
        (sent == kinds(&http_get(&broker.api("/metrics")).1)).then_some(metrics)
    });
    let duration = metrics.iter().find(|metric| metric.name == "unified_nats_http_request_duration_seconds").unwrap();
    let Some(Data::Histogram(histogram)) = &duration.data else { panic!("{duration:?}") };
    assert_eq!(duration.unit, "s");
    let of_publish =
        histogram.data_points.iter().find(|point| attribute(&point.attributes, "route").as_deref() == Some(PUBLISH));
    let point = of_publish.unwrap();
    assert_eq!((point.count, point.bucket_counts.iter().sum::<u64>()), (3, 3));
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert!(point.start_time_unix_nano > 0 && point.start_time_unix_nano < point.time_unix_nano);
    assert!(collector.spans().is_empty(), "no traces were asked for");
}

#[test]
fn a_collector_that_takes_nothing_harms_nobody() {
    let elsewhere = Collector::start();
    let (strange, _) = Collector::with_tls();
    let hung = || {
        let collector = Collector::start();
        collector.always(Some(Answer::Silence));
        collector
    };
    let answering = |answer| {
        let collector = Collector::start();
        collector.always(Some(answer));
        collector
    };
    let redirect = Answer::Redirect(elsewhere.endpoint());
    let cases = [
        (Some(hung()), "no answer within 0.3 s"),
        (Some(answering(Answer::Status(500))), "it answers 500"),
        (Some(answering(redirect)), "a redirect, which is not followed"),
        (Some(answering(Answer::Later(1))), "it answers 503"),
        (Some(strange), "invalid peer certificate"),
        (None, "refused"),
    ];
    for (collector, told) in cases {
        let mut broker = Broker::new();
        let endpoint = collector
            .as_ref()
            .map_or_else(|| format!("http://127.0.0.1:{}", broker.ports.cluster), Collector::endpoint);
        broker.set("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).set("OTEL_BSP_SCHEDULE_DELAY", "20");
        broker.set("OTEL_METRIC_EXPORT_INTERVAL", "100");
        if told.starts_with("no answer") {
            // From the others an answer may be late on a busy machine, and that would be told as well.
            broker.set("OTEL_EXPORTER_OTLP_TIMEOUT", "300");
        }
        broker.set("OTEL_EXPORTER_OTLP_HEADERS", "authorization=tell-nobody").start();
        let api = Api::of(&broker);
        api.publish(SUBJECTS[1], [json!(1)]);
        wait_for(told, || broker.log().contains(told).then_some(()));
        for _ in 0..20 {
            let asked = Instant::now();
            assert_eq!(http_get(&broker.api("/livez")).0, 200);
            assert!(asked.elapsed() < Duration::from_secs(2), "{told}: {:?}", asked.elapsed());
            api.publish(SUBJECTS[1], [json!(2)]);
        }
        let restarts = broker.restarts();
        let asked = Instant::now();
        assert_eq!((broker.stop(), restarts), (Some(0), Some(0)), "{told}");
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(3), "{told}: a stop took {took:?}");
        let log = broker.log();
        assert!(!log.contains("tell-nobody"), "{told}: {log}");
        let complaints = log.lines().filter(|line| line.contains("OpenTelemetry collector")).count();
        assert!((1..=2).contains(&complaints), "{told}: once for each signal: {log}");
    }
    assert!(elsewhere.times().is_empty(), "a redirect was followed");
}

#[test]
fn a_collector_that_comes_back_gets_what_waits_for_it() {
    let mut broker = Broker::new();
    let port = broker.ports.cluster;
    broker.set("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"));
    broker.set("OTEL_BSP_SCHEDULE_DELAY", "20").set("OTEL_BSP_MAX_QUEUE_SIZE", "8").start();
    let failed = "it is tried again until that works";
    wait_for(failed, || broker.log().contains(failed).then_some(()));
    Api::of(&broker).publish(SUBJECTS[1], (0..20).map(|n| json!(n)));
    let collector = Collector::at(port);
    // The newest have their room, and what had to go is counted.
    collector.wait_for_span("the last publish", |span| {
        span.name == "publish" && text(span, "unified_nats.sequence") == "20"
    });
    let again = "takes traces again";
    wait_for(again, || broker.log().contains(again).then_some(()));
    let counted = |name: &str| {
        let exposition = http_get(&broker.api("/metrics")).1;
        let line = exposition.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name}: {exposition}")).trim().parse::<usize>().unwrap()
    };
    let dropped = counted("unified_nats_otlp_spans_dropped_total{reason=\"queue_full\"}");
    assert!(dropped >= 20, "{dropped}");
    wait_for("all that was taken is counted", || {
        (counted("unified_nats_otlp_spans_sent_total") == collector.spans().len()).then_some(())
    });
    assert!(counted("unified_nats_otlp_exports_total{signal=\"traces\",result=\"failed\"}") > 0);
}

#[test]
fn a_collector_says_when_to_come_back() {
    let collector = Collector::start();
    collector.will([Answer::Later(2)]);
    let mut broker = sending_to(&collector.endpoint());
    broker.set("OTEL_METRICS_EXPORTER", "none").start();
    collector.wait_for_span("the start", |span| span.name == "start");
    let times = collector.times();
    let waited = times[1] - times[0];
    assert!(waited >= Duration::from_millis(1990), "{waited:?}");
}

#[test]
fn without_a_collector_there_is_no_thread_and_messages_stay_as_they_are() {
    let collector = Collector::start();
    let parent = format!("00-{TRACE}-{CLIENT}-01");
    for off in [None, Some(("OTEL_SDK_DISABLED", "true"))] {
        let mut broker = Broker::new();
        if let Some((name, value)) = off {
            broker.set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()).set(name, value);
        }
        broker.start();
        publish(&broker, &[("traceparent", &parent)], json!({ "subject": SUBJECTS[1], "message": "x" }));
        publish(&broker, &[], json!({ "subject": SUBJECTS[1], "message": "x" }));
        assert!(stored_headers(&broker, 1).contains(&format!("traceparent: {parent}\r\n")));
        assert_eq!((stored_headers(&broker, 2).as_str(), senders(&broker)), ("", 0));
        assert!(!http_get(&broker.api("/metrics")).1.contains("unified_nats_otlp"));
        assert_eq!(broker.stop(), Some(0));
    }
    assert!(collector.times().is_empty());
    let mut broker = sending_to(&collector.endpoint());
    broker.start();
    assert_eq!(senders(&broker), 1, "it would be seen");
}

#[test]
fn json_over_tls_and_gzip_says_the_same() {
    let (collector, authority) = Collector::with_tls();
    let mut broker = sending_to(&collector.endpoint());
    std::fs::write(broker.path("authority.pem"), authority).unwrap();
    let path = broker.path("authority.pem").to_str().unwrap().to_owned();
    broker.set("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json").set("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
    broker.set("OTEL_EXPORTER_OTLP_CERTIFICATE", path).set("OTEL_METRIC_EXPORT_INTERVAL", "300").start();
    let start = collector.wait_for_span("the start", |span| span.name == "start");
    assert_eq!((start.trace_id.len(), start.span_id.len(), start.kind), (16, 8, 1));
    assert!(start.end_time_unix_nano > start.start_time_unix_nano && start.start_time_unix_nano > 1 << 60);
    assert_eq!(text(&start, "unified_nats.generation"), "1");
    let ready = wait_for("metrics", || {
        let sent = (collector.metric_exports() > 0).then(|| samples(&collector))?;
        sent.get("unified_nats_ready").copied().filter(|ready| *ready == 1.0)
    });
    assert_eq!(ready, 1.0);
    let heads = collector.heads().to_ascii_lowercase();
    assert!(heads.contains("content-encoding: gzip") && heads.contains("content-type: application/json"), "{heads}");
}

#[test]
fn a_stop_brings_what_waits_to_the_collector() {
    let collector = Collector::start();
    let mut broker = sending_to(&collector.endpoint());
    broker.set("OTEL_BSP_SCHEDULE_DELAY", "600000").start();
    Api::of(&broker).publish(SUBJECTS[1], [json!(1)]);
    assert_eq!((broker.stop(), collector.spans().iter().any(|span| span.name == "publish")), (Some(0), true));
    assert_eq!(collector.metric_exports(), 1, "the last numbers");
}
