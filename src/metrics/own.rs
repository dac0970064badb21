//! What the broker knows of itself. Pure, but for [`Process::now`].

use std::fs;
use std::time::Duration;

use super::exposition::{Distribution, Families, Kind, Labels};
use crate::alerts::{AlertKind, SendResult, SinkKind, Totals};
use crate::http::traffic::{Answered, BOUNDS, RequestKind};
use crate::settings::{AlertSettings, Settings, UnauthenticatedListener};
use crate::spans::Counts;
use crate::status::{BrokerStatus, ConditionStatus};
use crate::streams::Drift;

/// What the state may be called.
const STATES: [&str; 8] =
    ["starting", "provisioning", "ready", "degraded", "restarting", "draining", "stopped", "failed"];

/// What our own metrics are made of.
pub struct Facts<'a> {
    pub status: &'a BrokerStatus,
    pub settings: &'a Settings,
    pub drift: Option<&'a Drift>,
    /// How long ago servers were started again that count against those that are allowed.
    pub restarts_ago: &'a [Duration],
    /// How long each part of the last start took, in seconds.
    pub start_phases: &'a [(&'static str, f64)],
    pub traffic: &'a [(RequestKind, Answered)],
    pub process: &'a Process,
    /// What became of alerts.
    pub alerts: &'a Totals,
    /// Connections of the API to nats-server that could not be made.
    pub failed_connects: u64,
    /// What became of traces and metrics that were to be sent, and how many spans had to make room; [`None`]
    /// where nothing is sent.
    pub exports: Option<(&'a Counts, u64)>,
}

fn one(families: &mut Families, name: &'static str, kind: Kind, help: &'static str, value: f64) {
    families.metric(name, kind, help).add(&Labels::none(), value);
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

pub fn add(facts: &Facts<'_>, families: &mut Families) {
    add_state(facts, families);
    add_streams(facts, families);
    add_security(facts, families);
    add_alerts(&facts.settings.alerts, facts.alerts, families);
    add_traffic(facts, families);
    if let Some((counts, dropped)) = facts.exports {
        add_exports(counts, dropped, families);
    }
    add_process(facts.process, families);
}

fn add_state(facts: &Facts<'_>, families: &mut Families) {
    let Facts { status, .. } = facts;
    let help = "Whether traffic may come";
    one(families, "unified_nats_ready", Kind::Gauge, help, flag(status.is_ready));
    let mut metric =
        families.metric("unified_nats_state", Kind::Gauge, "What the supervisor does: 1 for the state that it is in");
    for state in STATES {
        metric.add(&Labels::none().with("state", state), flag(status.state == state));
    }
    let build = [("version", env!("CARGO_PKG_VERSION")), ("revision", env!("UNIFIED_NATS_REVISION"))];
    let mut metric = families.metric("unified_nats_build_info", Kind::Gauge, "Which unified-nats this is; always 1");
    metric.add(&Labels::none().and(build), 1.0);
    let mut metric = families.metric(
        "unified_nats_condition",
        Kind::Gauge,
        "Whether what was promised holds; absent while nobody knows",
    );
    for condition in &status.conditions {
        if condition.status != ConditionStatus::Unknown {
            let labels = Labels::none().with("condition", condition.kind);
            metric.add(&labels, flag(condition.status == ConditionStatus::Ok));
        }
    }
    let failed = |kind: &str| {
        let condition = status.conditions.iter().find(|condition| condition.kind == kind);
        flag(condition.is_some_and(|condition| condition.status == ConditionStatus::Failed))
    };
    let help = "Whether nats-server cannot write its store";
    one(families, "unified_nats_store_write_errors", Kind::Gauge, help, failed("storage"));
    let by = &status.counters.restarts_by;
    let mut metric = families.metric(
        "unified_nats_child_restarts_total",
        Kind::Counter,
        "Servers that had to be followed by another, by what became of them",
    );
    for (reason, count) in
        [("exited", by.exited), ("hung", by.hung), ("recovery", by.recovery), ("launch_failed", by.launch_failed)]
    {
        metric.add(&Labels::none().with("reason", reason), count as f64);
    }
    if let Some(seconds) = facts.process.child_uptime {
        one(families, "unified_nats_child_uptime_seconds", Kind::Gauge, "Time since nats-server was launched", seconds);
    }
    let mut metric =
        families.metric("unified_nats_start_phase_seconds", Kind::Gauge, "How long each part of the last start took");
    for (phase, seconds) in facts.start_phases {
        metric.add(&Labels::none().with("phase", phase), *seconds);
    }
    if facts.settings.external.is_none() {
        let supervision = &facts.settings.supervision;
        let counting = facts.restarts_ago.iter().filter(|ago| **ago <= supervision.restart_window).count();
        let left = supervision.restart_max.saturating_sub(counting);
        let help = "Restarts that are left before the broker gives up (RESTART_MAX in RESTART_WINDOW)";
        one(families, "unified_nats_restart_budget_remaining", Kind::Gauge, help, left as f64);
    }
    let mut metric =
        families.metric("unified_nats_reload_total", Kind::Counter, "Reloads of settings, by what became of them");
    metric.add(&Labels::none().with("result", "taken"), status.counters.reloads as f64);
    metric.add(&Labels::none().with("result", "refused"), status.counters.reloads_refused as f64);
}

fn add_streams(facts: &Facts<'_>, families: &mut Families) {
    let counters = &facts.status.counters;
    let help = "Changes to streams and consumers that somebody had changed, made by the broker";
    one(families, "unified_nats_stream_repairs_total", Kind::Counter, help, counters.repairs as f64);
    let help = "Streams that were restored from snapshots";
    one(families, "unified_nats_streams_restored_total", Kind::Counter, help, counters.streams_restored as f64);
    if let Some(drift) = facts.drift {
        let stands = !drift.remaining.is_empty() || drift.suspended.is_some();
        let help = "Whether streams are not as declared, or nobody looks after that";
        one(families, "unified_nats_stream_drift", Kind::Gauge, help, flag(stands));
        let help = "What differs from what is declared and cannot be repaired";
        one(families, "unified_nats_stream_conflicts", Kind::Gauge, help, drift.remaining.len() as f64);
    }
}

fn add_security(facts: &Facts<'_>, families: &mut Families) {
    let Facts { settings, .. } = facts;
    let open = &settings.unauthenticated_listeners;
    let mut metric = families.metric(
        "unified_nats_insecure",
        Kind::Gauge,
        "Whether anybody is served there on an address that is not loopback",
    );
    for (what, is_open) in [
        ("nats", open.contains(&UnauthenticatedListener::Nats)),
        ("monitoring", open.contains(&UnauthenticatedListener::Monitoring)),
        ("api", open.contains(&UnauthenticatedListener::Api)),
        ("metrics", open.contains(&UnauthenticatedListener::Metrics)),
    ] {
        metric.add(&Labels::none().with("what", what), flag(is_open));
    }
}

/// What has not happened yet is 0: what begins with 1 has not increased, so that no rule would see the first.
fn add_alerts(settings: &AlertSettings, totals: &Totals, families: &mut Families) {
    let mut all = Totals::new();
    for (sink, is_set) in [
        (SinkKind::Webhook, settings.webhook.is_some()),
        (SinkKind::Slack, settings.slack.is_some()),
        (SinkKind::Email, settings.mail.is_some()),
    ] {
        for kind in AlertKind::ALL.into_iter().filter(|_| is_set) {
            all.extend(SendResult::ALL.map(|result| ((kind, sink, result), 0)));
        }
    }
    // Receivers that a reload has taken away are told all the same.
    all.extend(totals);
    for ((kind, sink, result), count) in all {
        let labels = Labels::none().and([("kind", kind.name()), ("sink", sink.name()), ("result", result.name())]);
        let help = "Notifications of alerts, and attempts to send them that failed, by what became of them";
        families.metric("unified_nats_alerts_total", Kind::Counter, help).add(&labels, count as f64);
    }
}

fn add_exports(counts: &Counts, dropped: u64, families: &mut Families) {
    let help = "Spans that the OpenTelemetry collector took";
    one(families, "unified_nats_otlp_spans_sent_total", Kind::Counter, help, counts.spans_sent.get() as f64);
    let help = "Spans that never reach the OpenTelemetry collector, by why";
    let mut metric = families.metric("unified_nats_otlp_spans_dropped_total", Kind::Counter, help);
    for (reason, count) in [("queue_full", dropped), ("refused", counts.spans_refused.get())] {
        metric.add(&Labels::none().with("reason", reason), count as f64);
    }
    let help = "Requests to the OpenTelemetry collector, by what became of them";
    let mut metric = families.metric("unified_nats_otlp_exports_total", Kind::Counter, help);
    for (signal, counts) in [("traces", &counts.traces), ("metrics", &counts.metrics)] {
        for (result, count) in [("taken", &counts.taken), ("failed", &counts.failed), ("refused", &counts.refused)] {
            metric.add(&Labels::none().and([("signal", signal), ("result", result)]), count.get() as f64);
        }
    }
}

fn add_traffic(facts: &Facts<'_>, families: &mut Families) {
    let help = "Connections of the API to nats-server that could not be made";
    one(families, "unified_nats_api_connect_failures_total", Kind::Counter, help, facts.failed_connects as f64);
    for (kind, answered) in facts.traffic {
        let labels = Labels::none().and([("route", &*kind.route), ("method", kind.method), ("status", kind.status)]);
        let help = "Requests over HTTP, probes included";
        families.metric("unified_nats_http_requests_total", Kind::Counter, help).add(&labels, answered.count as f64);
        let mut sum = 0;
        let cumulative = BOUNDS.iter().zip(answered.within).map(|(bound, count)| {
            sum += count;
            (*bound, sum)
        });
        let distribution =
            Distribution { cumulative: cumulative.collect(), count: answered.count, sum: answered.seconds };
        let help = "Time until an answer over HTTP begins";
        let mut metric = families.metric("unified_nats_http_request_duration_seconds", Kind::Histogram, help);
        metric.add_distribution(&labels, distribution);
    }
}

/// What the kernel says of this process and of its child.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Process {
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<f64>,
    pub open_fds: Option<f64>,
    pub max_fds: Option<f64>,
    /// Since the child was launched, in seconds.
    pub child_uptime: Option<f64>,
}

/// Clock ticks in a second, and bytes in a page: what the kernel tells user space on every machine that we
/// are built for.
const TICKS: f64 = 100.0;
const PAGE: f64 = 4096.0;

impl Process {
    /// Reads /proc, which no disk delays.
    pub fn now(child: Option<i32>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let count = fs::read_dir("/proc/self/fd").map(|fds| fds.count().saturating_sub(1));
        let child = child.map(|pid| read(&format!("/proc/{pid}/stat")));
        Self {
            cpu_seconds: cpu_seconds(&read("/proc/self/stat")),
            resident_bytes: field(&read("/proc/self/statm"), 1).map(|pages| pages * PAGE),
            open_fds: count.ok().map(|count| count as f64),
            max_fds: max_fds(&read("/proc/self/limits")),
            child_uptime: child.and_then(|stat| uptime(&stat, &read("/proc/uptime"))),
        }
    }
}

fn field(text: &str, at: usize) -> Option<f64> {
    text.split_whitespace().nth(at)?.parse().ok()
}

/// The fields behind the name, which may hold anything; the first is the state.
fn behind_name(stat: &str) -> &str {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest)
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    let rest = behind_name(stat);
    Some((field(rest, 11)? + field(rest, 12)?) / TICKS)
}

fn uptime(stat: &str, uptime: &str) -> Option<f64> {
    Some((field(uptime, 0)? - field(behind_name(stat), 19)? / TICKS).max(0.0))
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    field(line, 0)
}

fn add_process(process: &Process, families: &mut Families) {
    let Process { cpu_seconds, resident_bytes, open_fds, max_fds, .. } = process;
    for (name, kind, help, value) in [
        (
            "unified_nats_process_cpu_seconds_total",
            Kind::Counter,
            "Processor time of the supervisor itself",
            cpu_seconds,
        ),
        ("unified_nats_process_resident_memory_bytes", Kind::Gauge, "Memory of the supervisor itself", resident_bytes),
        ("unified_nats_process_open_fds", Kind::Gauge, "Open file descriptors of the supervisor itself", open_fds),
        ("unified_nats_process_max_fds", Kind::Gauge, "The most file descriptors that it may open", max_fds),
    ] {
        if let Some(value) = value {
            one(families, name, kind, help, *value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_words_are_understood() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 12000 1 2";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(uptime(stat, "150.25 300.00\n"), Some(30.25));
        assert_eq!(
            max_fds("Limit  Soft Limit\nMax open files            1024                 4096    files\n"),
            Some(1024.0)
        );
        assert_eq!((cpu_seconds(""), uptime("x", ""), max_fds("")), (None, None, None));
    }

    #[test]
    fn alerts_that_nobody_has_got_yet_are_told() {
        let settings = Settings::load(&[("ALERT_WEBHOOK_URL", "https://hooks.example/x")].as_slice(), &[]).unwrap();
        let mut families = Families::default();
        let sent = Totals::from([((AlertKind::Restart, SinkKind::Email, SendResult::Sent), 3)]);
        add_alerts(&settings.settings.alerts, &sent, &mut families);
        let text = families.write(crate::metrics::exposition::Format::Text);
        for line in [
            "unified_nats_alerts_total{kind=\"restart\",sink=\"webhook\",result=\"refused\"} 0\n",
            "unified_nats_alerts_total{kind=\"restart\",sink=\"email\",result=\"sent\"} 3\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("slack"), "{text}");
    }

    #[test]
    fn this_process_is_seen() {
        let process = Process::now(Some(std::process::id() as i32));
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 1e6), "{process:?}");
        assert!(process.open_fds.is_some_and(|fds| fds >= 3.0) && process.max_fds.is_some(), "{process:?}");
        assert!(process.cpu_seconds.is_some() && process.child_uptime.is_some(), "{process:?}");
    }
}
