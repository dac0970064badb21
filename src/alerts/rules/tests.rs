use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::alerts::alert::{AlertKind as Kind, Severity};
use crate::domain::Generation;
use crate::health::{ConsumerNumbers, JetStreamNumbers, Observations, ServerNumbers, StreamConflict, StreamNumbers};
use crate::settings::Settings;
use crate::status::{Condition, ConditionStatus, Counters, EventKind, Events, Verdict};
use crate::supervisor::Restarts;

const OPEN: &[(&str, &str)] = &[("NATS_HOST", "127.0.0.1"), ("API_HOST", "127.0.0.1")];

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let pairs: Vec<_> = OPEN.iter().chain(pairs).copied().collect();
    Settings::load(&pairs.as_slice(), &[]).unwrap_or_else(|problems| panic!("{problems}")).settings
}

fn condition(kind: &'static str, status: ConditionStatus, reason: Option<&str>) -> Condition {
    Condition { kind, status, reason: reason.map(str::to_owned), since: SystemTime::UNIX_EPOCH }
}

/// A broker that serves, with nothing wrong.
fn ready() -> BrokerStatus {
    let kinds = ["integrity", "storage", "responsive", "in_service", "health_check", "launch", "settings", "drift"];
    BrokerStatus {
        verdict: Verdict::Healthy,
        state: "ready",
        reason: None,
        since: SystemTime::UNIX_EPOCH,
        is_ready: true,
        ever_ready: true,
        pid: Some(7),
        generation: Some(Generation(1)),
        counters: Counters::default(),
        conditions: kinds.map(|kind| condition(kind, ConditionStatus::Ok, None)).to_vec(),
        checks: BTreeMap::new(),
        checked_at: Some(SystemTime::UNIX_EPOCH),
        observed: Observations {
            server: Some(ServerNumbers::default()),
            jetstream: Some(JetStreamNumbers::default()),
            missing: Some(vec![]),
            consumers: Some(vec![]),
            ..Observations::default()
        },
        events: Arc::default(),
    }
}

fn fail(status: &mut BrokerStatus, kind: &'static str, reason: &str) {
    status.state = "degraded";
    status.conditions.retain(|condition| condition.kind != kind);
    status.conditions.push(condition(kind, ConditionStatus::Failed, Some(reason)));
}

fn facts() -> Facts {
    Facts { disk: Some(DiskSpace { free: 100, total: 100 }), backup: Some(Ok(())), ..Facts::default() }
}

/// Rules and the time that they are asked at.
struct Watch {
    rules: Rules,
    settings: Settings,
    facts: Facts,
    now: Moment,
    at: SystemTime,
}

impl Watch {
    fn new(pairs: &[(&str, &str)]) -> Self {
        let now = Duration::from_secs(1000);
        Self { rules: Rules::default(), settings: settings(pairs), facts: facts(), now, at: SystemTime::UNIX_EPOCH }
    }

    /// What the rules say so many seconds later.
    fn judge(&mut self, later: u64, status: &BrokerStatus) -> Judgement {
        self.now += Duration::from_secs(later);
        let Self { settings, facts, now, at, .. } = self;
        let seen = Seen { status, settings, facts, host: "here", now: *now, at: *at };
        self.rules.after(seen)
    }

    fn firing(&mut self, later: u64, status: &BrokerStatus) -> Vec<(Kind, String)> {
        let firing = self.judge(later, status).firing;
        firing.into_iter().map(|alert| (alert.kind, alert.object)).collect()
    }
}

fn one(kind: Kind, object: &str) -> Vec<(Kind, String)> {
    vec![(kind, object.to_owned())]
}

const NOTHING: Vec<(Kind, String)> = vec![];

#[test]
fn nothing_fires_while_all_is_well() {
    let mut watch = Watch::new(&[]);
    for later in [0, 1, 100] {
        assert_eq!(watch.firing(later, &ready()), NOTHING);
    }
    assert!(!watch.judge(0, &ready()).is_waiting, "nothing waits for time to pass");
}

#[test]
fn a_restart_is_told_until_the_next_server_has_served_for_a_while() {
    let mut watch = Watch::new(&[]);
    assert_eq!(watch.firing(0, &ready()), NOTHING);
    let mut down = ready();
    (down.state, down.generation) = ("restarting", None);
    down.counters.restarts_by = Restarts { exited: 1, ..Restarts::default() };
    let mut events = Events::default();
    events.push(SystemTime::UNIX_EPOCH, EventKind::State, "restarting", Some("it was killed".into()));
    down.events = Arc::new(events);
    let judgement = watch.judge(1, &down);
    assert_eq!((judgement.firing.len(), judgement.is_waiting), (1, true));
    let restart = &judgement.firing[0];
    assert_eq!((restart.kind, restart.severity), (Kind::Restart, Severity::Warning));
    assert_eq!(restart.summary, "nats-server ended and was started again: it was killed");
    let mut back = ready();
    (back.generation, back.counters) = (Some(Generation(2)), down.counters.clone());
    assert_eq!(watch.firing(1, &back), one(Kind::Restart, ""));
    assert_eq!(watch.firing(4, &back), one(Kind::Restart, ""));
    assert_eq!(watch.firing(1, &back), NOTHING);
}

#[test]
fn a_server_that_hung_is_no_restart_of_another_kind() {
    let mut watch = Watch::new(&[]);
    watch.firing(0, &ready());
    let mut status = ready();
    status.counters.restarts_by.hung = 1;
    let firing = watch.judge(1, &status).firing;
    assert_eq!((firing.len(), firing[0].kind, firing[0].severity), (1, Kind::Hung, Severity::Critical));
}

#[test]
fn no_server_is_an_alert_when_it_lasts_and_stays_one_while_others_are_tried() {
    let mut watch = Watch::new(&[]);
    watch.firing(0, &ready());
    let mut down = ready();
    (down.state, down.generation, down.reason) = ("restarting", None, Some("it died".into()));
    let judgement = watch.judge(0, &down);
    let alert = Alert { kind: Kind::ServerDown, ..any_alert() };
    assert!(judgement.firing.is_empty() && judgement.is_waiting && judgement.is_undecided(&alert));
    assert_eq!(watch.firing(6, &down), NOTHING, "one that hangs is killed after five seconds");
    assert_eq!(watch.firing(4, &down), one(Kind::ServerDown, ""));
    down.state = "starting";
    assert_eq!(watch.firing(1, &down), one(Kind::ServerDown, ""));
    assert_eq!(watch.firing(1, &ready()), NOTHING);
    assert_eq!(watch.firing(1, &down), NOTHING, "a start has INIT_TIMEOUT");
    assert_eq!(watch.firing(60, &down), one(Kind::ServerDown, ""));
}

fn any_alert() -> Alert {
    let fingerprint = Fingerprint::of("n", Kind::Restart, "");
    let text = String::new;
    let (kind, severity) = (Kind::Restart, Severity::Warning);
    Alert {
        kind,
        severity,
        object: text(),
        since: text(),
        server: text(),
        host: text(),
        summary: text(),
        action: text(),
        fingerprint,
    }
}

#[test]
fn a_launch_that_is_hindered_is_no_server() {
    let mut watch = Watch::new(&[]);
    let mut status = ready();
    status.generation = None;
    fail(&mut status, "launch", "the disk is full");
    watch.firing(0, &status);
    let firing = watch.judge(5, &status).firing;
    assert_eq!(firing.len(), 1);
    assert_eq!(firing[0].summary, "no nats-server answers: the disk is full");
}

#[test]
fn many_ends_within_the_window_are_a_loop_and_so_is_giving_up() {
    let mut watch = Watch::new(&[("RESTART_MAX", "8"), ("RESTART_WINDOW", "100")]);
    let mut status = ready();
    let of_kind = |firing: Vec<(Kind, String)>| firing.iter().any(|(kind, _)| *kind == Kind::CrashLoop);
    for end in 1..=3 {
        status.counters.restarts_by.exited = end;
        assert!(!of_kind(watch.firing(10, &status)), "{end}");
    }
    status.counters.restarts_by.launch_failed = 1;
    assert!(of_kind(watch.firing(10, &status)));
    assert!(of_kind(watch.firing(60, &status)));
    assert!(!of_kind(watch.firing(15, &status)), "the first end is out of the window");
    watch.facts.gave_up = Some("it ended 8 times".into());
    assert!(of_kind(watch.firing(0, &status)));
}

#[test]
fn a_new_program_does_not_know_whether_an_old_loop_is_over() {
    let mut watch = Watch::new(&[]);
    let alert = Alert { kind: Kind::CrashLoop, ..any_alert() };
    assert!(watch.judge(0, &ready()).is_undecided(&alert));
    assert!(watch.judge(59, &ready()).is_undecided(&alert));
    assert!(!watch.judge(1, &ready()).is_undecided(&alert));
}

#[test]
fn each_condition_that_fails_is_an_alert_of_its_kind() {
    for (kind, alert, object, at_once) in [
        ("integrity", Kind::Unhealthy, "integrity", true),
        ("storage", Kind::StoreFull, "disk", true),
        ("responsive", Kind::Unhealthy, "responsive", false),
        ("in_service", Kind::Unhealthy, "in_service", false),
        ("health_check", Kind::Unhealthy, "health_check", false),
        ("settings", Kind::ReloadFailed, "", true),
        ("drift", Kind::StreamDrift, "", false),
    ] {
        let mut watch = Watch::new(&[]);
        let mut status = ready();
        fail(&mut status, kind, "tell-me");
        let first = watch.firing(0, &status);
        assert_eq!(!first.is_empty(), at_once, "{kind}: {first:?}");
        let firing = watch.judge(5, &status).firing;
        assert_eq!(firing.len(), 1, "{kind}");
        assert_eq!((firing[0].kind, firing[0].object.as_str()), (alert, object));
        assert!(firing[0].summary.contains("tell-me"), "{:?}", firing[0]);
        status.conditions.retain(|condition| condition.kind != kind);
        status.conditions.push(condition(kind, ConditionStatus::Unknown, None));
        assert!(watch.judge(1, &status).is_undecided(&firing[0]), "{kind}");
    }
}

#[test]
fn a_server_has_its_time_to_come_into_service() {
    let mut watch = Watch::new(&[("INIT_TIMEOUT", "30")]);
    let mut status = ready();
    fail(&mut status, "in_service", "not in service yet");
    status.state = "provisioning";
    assert_eq!(watch.firing(0, &status), NOTHING);
    assert_eq!(watch.firing(29, &status), NOTHING);
    assert_eq!(watch.firing(1, &status), one(Kind::Unhealthy, "in_service"));
}

#[test]
fn a_repair_is_told_for_a_minute() {
    let mut watch = Watch::new(&[]);
    watch.firing(0, &ready());
    let mut status = ready();
    status.counters.repairs = 1;
    assert_eq!(watch.firing(1, &status), one(Kind::StreamDrift, ""));
    assert_eq!(watch.firing(59, &status), one(Kind::StreamDrift, ""));
    assert_eq!(watch.firing(1, &status), NOTHING);
}

#[test]
fn streams_that_are_missing_or_in_conflict_are_told_by_name_and_once() {
    let mut watch = Watch::new(&[]);
    let mut status = ready();
    fail(&mut status, "health_check", "stream A does not exist");
    fail(&mut status, "drift", "not as declared");
    status.observed.missing = Some(vec!["A".into()]);
    let conflict = |what: &str| StreamConflict { stream: "B".into(), what: what.into() };
    status.observed.conflicts = vec![conflict("one"), conflict("two")];
    watch.firing(0, &status);
    let firing = watch.firing(10, &status);
    assert_eq!(firing, [(Kind::StreamMissing, "A".into()), (Kind::StreamConflict, "B".into())]);
    status.generation = None;
    let judgement = watch.judge(0, &status);
    let open = Alert { kind: Kind::StreamMissing, object: "A".into(), ..any_alert() };
    assert!(judgement.is_undecided(&open), "nobody can look at them without a server");
}

#[test]
fn what_is_near_its_limit_is_told_until_it_is_clearly_below() {
    let mut watch = Watch::new(&[
        ("ALERT_STREAM_RATIO", "0.5"),
        ("ALERT_DISK_RATIO", "0.5"),
        ("ALERT_MEMORY_RATIO", "0.5"),
        ("ALERT_CONNECTIONS_RATIO", "0.5"),
        ("ALERT_CONSUMER_LAG", "100"),
        ("NATS_MAX_CONNECTIONS", "1000"),
        ("JETSTREAM_MAX_FILE", "2000000000"),
        ("JETSTREAM_MAX_MEMORY", "1000"),
        ("STREAM_MAX_BYTES", "0"),
    ]);
    let all = [
        (Kind::StoreFull, "storage"),
        (Kind::StoreFull, "memory"),
        (Kind::DiskLow, ""),
        (Kind::Unhealthy, "connections"),
        (Kind::StreamNearLimit, "S messages"),
        (Kind::StreamNearLimit, "S bytes"),
        (Kind::ConsumerLag, "S c"),
    ]
    .map(|(kind, object)| (kind, object.to_owned()));
    for (percent, expected) in [(49, &[][..]), (51, &all), (49, &all), (48, &all), (46, &[]), (49, &[])] {
        let mut status = ready();
        status.observed.jetstream = Some(JetStreamNumbers {
            // Of all nodes together.
            storage: 2_000_000_000,
            memory: 10 * percent,
            server_storage: Some(20_000_000 * percent),
            ..JetStreamNumbers::default()
        });
        watch.facts.disk = Some(DiskSpace { free: 100 - percent, total: 100 });
        status.observed.server = Some(ServerNumbers { connections: 10 * percent, ..ServerNumbers::default() });
        status.observed.streams = vec![StreamNumbers {
            name: "S".into(),
            messages: percent,
            bytes: percent,
            max_messages: Some(100),
            max_bytes: Some(100),
            ..StreamNumbers::default()
        }];
        let (stream, name) = ("S".to_owned(), "c".to_owned());
        status.observed.consumers = Some(vec![ConsumerNumbers { stream, name, pending: 2 * percent }]);
        assert_eq!(watch.firing(1, &status), expected, "{percent}");
    }
}

#[test]
fn a_threshold_of_zero_raises_nothing() {
    let off = [
        ("ALERT_STREAM_RATIO", "0"),
        ("ALERT_DISK_RATIO", "0"),
        ("ALERT_MEMORY_RATIO", "0"),
        ("ALERT_CONNECTIONS_RATIO", "0"),
        ("ALERT_CONSUMER_LAG", "0"),
    ];
    let mut watch = Watch::new(&off);
    watch.facts.disk = Some(DiskSpace { free: 0, total: 100 });
    let mut status = ready();
    status.observed.jetstream =
        Some(JetStreamNumbers { storage: u64::MAX, memory: u64::MAX, ..JetStreamNumbers::default() });
    status.observed.server = Some(ServerNumbers { connections: u64::MAX, ..ServerNumbers::default() });
    status.observed.streams =
        vec![StreamNumbers { name: "S".into(), messages: 1, max_messages: Some(1), ..StreamNumbers::default() }];
    let (stream, name) = ("S".to_owned(), "c".to_owned());
    status.observed.consumers = Some(vec![ConsumerNumbers { stream, name, pending: u64::MAX }]);
    assert_eq!(watch.firing(1, &status), NOTHING);
}

#[test]
fn bytes_are_said_in_units_that_people_read() {
    let mut watch = Watch::new(&[("ALERT_DISK_RATIO", "0.5"), ("JETSTREAM_MAX_FILE", "10GB")]);
    let mut status = ready();
    watch.facts.disk = Some(DiskSpace { free: 5_000_003_584, total: 102_626_231_296 });
    status.observed.jetstream = Some(JetStreamNumbers { storage: 9_000_000_001, ..JetStreamNumbers::default() });
    status.observed.streams = vec![StreamNumbers {
        name: "S".into(),
        bytes: 1_048_001,
        max_bytes: Some(1 << 20),
        ..StreamNumbers::default()
    }];
    let all = watch.judge(0, &status).firing.into_iter().map(|alert| alert.summary).collect::<Vec<_>>().join("\n");
    for words in ["4.66 GiB left of 95.6 GiB", "8.38 GiB of the 10.0 GiB", "holds 1023 KiB of 1.00 MiB; then"] {
        assert!(all.contains(words), "{words}: {all}");
    }
}

#[test]
fn a_stream_that_refuses_when_it_is_full_is_critical() {
    let mut watch = Watch::new(&[]);
    let mut status = ready();
    status.observed.streams = vec![StreamNumbers {
        name: "S".into(),
        messages: 1,
        max_messages: Some(1),
        refuses_when_full: true,
        ..StreamNumbers::default()
    }];
    assert_eq!(watch.judge(0, &status).firing[0].severity, Severity::Critical);
}

#[test]
fn families_that_fall_silent_are_told_once_that_is_known() {
    let mut watch = Watch::new(&[("FAMILY_STALE_AFTER", "trade=30s,orderbook=60s")]);
    let alert = Alert { kind: Kind::FamilyStale, object: "trade".into(), ..any_alert() };
    assert!(watch.judge(0, &ready()).is_undecided(&alert));
    let silent = |family, seconds| (family, Duration::from_secs(seconds));
    watch.facts.silent = BTreeMap::from([silent(DataType::Trade, 30), silent(DataType::Orderbook, 59)]);
    assert_eq!(watch.firing(1, &ready()), one(Kind::FamilyStale, "trade"));
    // Another node leads the stream now: it raises what is so, and what is open here stays until it is over.
    watch.facts.told_elsewhere = true;
    let judged = watch.judge(2, &ready());
    assert!(judged.firing.is_empty() && judged.is_undecided(&alert));
    watch.facts.silent = BTreeMap::from([silent(DataType::Trade, 1), silent(DataType::Orderbook, 1)]);
    let judged = watch.judge(3, &ready());
    assert!(judged.firing.is_empty() && !judged.is_undecided(&alert));
}

#[test]
fn certificates_backups_and_open_doors() {
    let mut watch = Watch::new(&[("NATS_HOST", "0.0.0.0"), ("NATS_HTTP_HOST", "127.0.0.1")]);
    assert_eq!(watch.firing(0, &ready()), one(Kind::Insecure, "nats"));
    let days = |days: u64| Some(Duration::from_secs(days * 24 * 3600));
    for (left, severity) in [
        (None, Some(Severity::Critical)),
        (days(2), Some(Severity::Critical)),
        (days(13), Some(Severity::Warning)),
        (days(15), None),
    ] {
        watch.facts.certificates = vec![CertificateEnd { file: "/c.pem".into(), left }];
        let firing = watch.judge(0, &ready()).firing;
        let of_kind = firing.iter().find(|alert| alert.kind == Kind::CertExpiring);
        assert_eq!(of_kind.map(|alert| alert.severity), severity, "{left:?}");
    }
    watch.facts.backup = Some(Err("no room".into()));
    let firing = watch.judge(0, &ready()).firing;
    assert!(firing.iter().any(|alert| alert.kind == Kind::BackupFailed && alert.summary.contains("no room")));
    watch.facts.backup = None;
    let open = Alert { kind: Kind::BackupFailed, ..any_alert() };
    assert!(watch.judge(0, &ready()).is_undecided(&open));
}

#[test]
fn a_clock_that_steps_fires_nothing() {
    let mut watch = Watch::new(&[]);
    let mut status = ready();
    fail(&mut status, "responsive", "silent");
    for step in [-1_000_000_i64, 1_000_000, 5, -7] {
        let seconds = Duration::from_secs(step.unsigned_abs());
        watch.at = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000);
        watch.at = if step < 0 { watch.at - seconds } else { watch.at + seconds };
        assert_eq!(watch.firing(0, &status), NOTHING, "{step}");
    }
}
