use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use super::*;
use crate::status::{Condition, ConditionStatus, Counters, Events, Verdict};

fn status(verdict: Verdict) -> BrokerStatus {
    BrokerStatus {
        verdict,
        state: "ready",
        reason: None,
        since: UNIX_EPOCH,
        is_ready: true,
        ever_ready: true,
        pid: Some(7),
        generation: None,
        counters: Counters::default(),
        conditions: vec![],
        checks: BTreeMap::new(),
        checked_at: None,
        observed: crate::health::Observations::default(),
        events: Arc::new(Events::default()),
    }
}

fn jsz() -> Jsz {
    serde_json::from_value(json!({ "storage": 600, "config": { "max_storage": 1000 }, "account_details": [{
        "name": "$G", "stream_detail": [{
            "name": "S<script>", "config": { "max_msgs": 100, "max_bytes": -1 }, "state": { "messages": 85, "bytes": 600 },
            "consumer_detail": [
                { "name": "idle", "num_pending": 0 }, { "name": "late", "num_pending": 5000, "num_ack_pending": 3 },
            ],
        }],
    }] }))
    .unwrap()
}

/// A broker that is well, with all that is known of it.
struct Fixture {
    status: BrokerStatus,
    jsz: Jsz,
    rates: Rates,
    past: Past,
    stale_after: BTreeMap<DataType, Duration>,
    families: Vec<(DataType, u64, Option<f64>)>,
    lags: Vec<(String, String, f64)>,
    alerts: Vec<OpenAlert>,
}

impl Fixture {
    fn new() -> Self {
        let mut families: Vec<_> = DataType::ALL.map(|family| (family, 5, Some(1.0))).to_vec();
        families[2].2 = Some(7200.0);
        families[7].2 = Some(100.0);
        Self {
            status: status(Verdict::Healthy),
            jsz: jsz(),
            rates: Rates::default(),
            past: Past::default(),
            stale_after: BTreeMap::from([(DataType::Liquidation, Duration::from_secs(90))]),
            families,
            alerts: vec![],
            lags: vec![("S<script>".to_owned(), "late".to_owned(), 61.0)],
        }
    }

    fn known(&self) -> Known<'_> {
        Known {
            status: &self.status,
            is_silent: false,
            families: &self.families,
            stale_after: &self.stale_after,
            varz: None,
            jsz: Some((&self.jsz, None)),
            lags: &self.lags,
            alerts: &self.alerts,
            has_receivers: true,
            store: Store::of(Some(&self.jsz), Some(300)),
            rates: &self.rates,
            past: &self.past,
            has_jetstream: true,
            environment: "test",
        }
    }

    fn view(&self) -> View {
        View::of(&self.known())
    }
}

#[test]
fn the_headline_says_how_the_broker_is_who_is_quiet_and_when_the_disk_is_full() {
    let mut broker = Fixture::new();
    let headline = broker.view().headline;
    assert_eq!((headline.tone, headline.verdict), (Tone::Good, "healthy"));
    assert_eq!(headline.quiet.text, "silent for too long: liquidation (1 min); quiet: funding_rate (for 2 h)");
    assert_eq!(headline.store.text, "300 B left on the disk; when it will be full is known after five minutes");
    broker.past.full_in = Some(7200.0);
    let headline = broker.view().headline;
    assert_eq!(headline.store.text, "full in 2 h at the growth of the last hour: 300 B left on the disk");
    assert_eq!(headline.store.tone, Tone::Warn);
    broker.past = Past { hour: vec![Row::default(); 30], ..Past::default() };
    let store = Store::of(Some(&broker.jsz), Some(5000));
    let text = View::of(&Known { store, ..broker.known() }).headline.store.text;
    assert!(text.starts_with("will not be full within a year"), "{text}");
    assert!(text.ends_with("400 B left up to its limit"), "{text}");
}

#[test]
fn families_that_are_quiet_alike_are_named_together() {
    let mut broker = Fixture::new();
    broker.families = DataType::ALL.map(|family| (family, 0, (family == DataType::Trade).then_some(1.0))).to_vec();
    let text = broker.view().headline.quiet.text;
    assert!(text.starts_with("quiet: orderbook, funding_rate"), "{text}");
    assert!(text.ends_with("liquidation (no message yet)"), "{text}");
    broker.families.clear();
    assert_eq!(broker.view().headline.quiet.text, "the families have not been counted yet");
}

#[test]
fn a_broker_that_is_not_well_says_why() {
    let mut broker = Fixture::new();
    broker.status = status(Verdict::Unhealthy);
    broker.status.reason = Some("no room".to_owned());
    let failed = |reason: &str| Condition {
        kind: "storage",
        status: ConditionStatus::Failed,
        reason: Some(reason.to_owned()),
        since: UNIX_EPOCH,
    };
    broker.status.conditions = vec![failed("no room"), failed("a stream is missing")];
    let headline = broker.view().headline;
    assert_eq!(headline.tone, Tone::Bad);
    assert_eq!(headline.reasons, ["no room", "a stream is missing"], "each once");
    let silent = View::of(&Known { is_silent: true, ..Fixture::new().known() }).headline;
    assert_eq!((silent.tone, silent.verdict), (Tone::Bad, "silent"));
}

#[test]
fn tables_put_first_what_is_behind_and_escape_what_others_have_named() {
    let view = Fixture::new().view();
    assert_eq!(view.consumers.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["late", "idle"]);
    let page = Pages::new().unwrap().page(Some(&view)).unwrap();
    assert!(page.contains("S&lt;script&gt;") && !page.contains("S<script>"));
    assert!(page.contains("85 %, nearly full"), "not by colour alone");
    for family in DataType::ALL {
        assert!(page.contains(&format!("data-family=\"{}\"", family.name())));
    }
    assert!(!page.contains("style=") && !page.contains("<style"), "the policy forbids it");
}

#[test]
fn of_many_streams_the_fullest_are_shown() {
    let mut broker = Fixture::new();
    let stream =
        |at: u32| json!({ "name": format!("S{at:03}"), "config": { "max_msgs": 1000 }, "state": { "messages": at } });
    let streams: Vec<_> = (0..500).map(stream).collect();
    broker.jsz =
        serde_json::from_value(json!({ "account_details": [{ "name": "$G", "stream_detail": streams }] })).unwrap();
    let streams = broker.view().streams;
    assert_eq!((streams.rows.len(), streams.omitted), (50, 450));
    let names: Vec<_> = streams.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!((names[0], names[49]), ("S450", "S499"));
    assert!(names.is_sorted());
}

#[test]
fn open_alerts_stand_below_the_headline() {
    let mut broker = Fixture::new();
    let page = |broker: &Fixture| Pages::new().unwrap().page(Some(&broker.view())).unwrap();
    assert!(page(&broker).contains("No alert is open."));
    let unheard = View::of(&Known { has_receivers: false, ..broker.known() }).no_alerts;
    assert!(unheard.contains("ALERT_WEBHOOK_URL"), "{unheard}");
    broker.alerts = vec![OpenAlert {
        kind: "disk_low".to_owned(),
        object: String::new(),
        severity: "warning",
        since: Moment::of_text("2026-11-27T03:00:00.000Z"),
        summary: "the <disk> is nearly full".to_owned(),
        action: "Make room".to_owned(),
    }];
    let page = page(&broker);
    for text in ["disk_low", "warning", "the &lt;disk&gt; is nearly full", "Make room", "2026-11-27 03:00:00 UTC"] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn the_shell_holds_no_data_and_names_the_families() {
    let shell = Pages::new().unwrap().page(None).unwrap();
    assert!(DataType::ALL.iter().all(|family| shell.contains(family.name())));
    assert!(!shell.contains("<table") && shell.contains("<noscript>"));
}

#[test]
fn only_what_has_changed_is_sent() {
    let sample = |families: &str, charts: &str| Sample {
        title: "t".to_owned(),
        tone: Tone::Good,
        sections: vec![("headline", "same".into()), ("families", families.into())],
        charts: charts.into(),
        number: 0,
        news: Bytes::new(),
    };
    let (first, second) = (sample("1", "{}"), sample("2", "{}"));
    assert!(difference(None, &first).contains("headline") && difference(None, &first).contains("event: charts"));
    let text = difference(Some(&first), &second);
    assert_eq!(
        text,
        "event: sections\ndata: {\"title\":\"t\",\"tone\":\"good\",\"sections\":{\"families\":\"2\"}}\n\n"
    );
}

/// A dashboard that learns that, with the senders that it listens to.
fn dashboard(
    observe: impl Fn() -> Observed + Send + Sync + 'static,
) -> (Dashboard, Sampler, watch::Sender<Arc<BrokerStatus>>, watch::Sender<Arc<Settings>>) {
    let (sends_status, seen) = watch::channel(Arc::new(status(Verdict::Healthy)));
    let (sends_settings, in_force) = watch::channel(Arc::new(Settings::load(&[], &[]).unwrap().settings));
    let sources = Sources {
        status: seen,
        settings: in_force,
        observe: Arc::new(move || {
            let observed = observe();
            Box::pin(async { observed })
        }),
        past: Arc::new(|_| Past::default()),
        alerts: Arc::new(Vec::new),
        shutdown: CancellationToken::new(),
    };
    let (dashboard, sampler) = Dashboard::new(sources).unwrap();
    (dashboard, sampler, sends_status, sends_settings)
}

#[tokio::test]
async fn a_server_that_shows_nothing_leaves_the_store_as_it_was() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let observe = move || {
        let is_first = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        Observed { disk_free: Some(300), jsz: is_first.then(|| Arc::new(jsz())), ..Observed::default() }
    };
    let (dashboard, ..) = dashboard(observe);
    for _ in 0..2 {
        let text = dashboard.0.view().await.0.headline.store.text;
        assert!(text.starts_with("300 B left on the disk"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_nats_server_for_a_dashboard_that_is_not_open() {
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counting = asked.clone();
    let (dashboard, sampler, _status, _settings) = dashboard(move || {
        counting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Observed::default()
    });
    tokio::spawn(sampler.run());
    let so_far = || asked.load(std::sync::atomic::Ordering::Relaxed);
    sleep(PERIOD * 10).await;
    assert_eq!(so_far(), 0);
    let open = [dashboard.live(), dashboard.live(), dashboard.live()];
    sleep(PERIOD * 10).await;
    assert!((9..=11).contains(&so_far()), "{} for all of them", so_far());
    drop(open);
    sleep(PERIOD * 2).await;
    let before = so_far();
    sleep(PERIOD * 10).await;
    assert_eq!(so_far(), before);
}

#[tokio::test(start_paused = true)]
async fn what_is_new_is_made_once_for_all_who_watch() {
    let (dashboard, sampler, _status, _settings) = dashboard(Observed::default);
    tokio::spawn(sampler.run());
    let open = || dashboard.live().into_body().into_data_stream();
    let (mut one, mut other) = (open(), open());
    for round in 0..4 {
        let (one, other) = (one.next().await.unwrap().unwrap(), other.next().await.unwrap().unwrap());
        assert_eq!(one, other);
        assert!(round == 0 || one.as_ptr() == other.as_ptr(), "made twice in round {round}");
    }
}
