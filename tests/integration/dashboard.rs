//! The built-in dashboard: its page, its files and its events, against a real broker.

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::sse::Sse;
use super::support::*;

const FAMILIES: [&str; 8] = [
    "orderbook",
    "trade",
    "funding_rate",
    "open_interest",
    "lsr_top_position",
    "lsr_all_account",
    "volatility_index",
    "liquidation",
];

/// The events up to the first of that kind that `is_wanted`.
async fn event(events: &mut Sse, kind: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let event = events.next_within(deadline - tokio::time::Instant::now()).await;
        let event = event.unwrap_or_else(|| panic!("no {kind} came"));
        if event.kind == kind && is_wanted(&event.data) {
            return event.data;
        }
    }
}

fn live(broker: &Broker) -> String {
    broker.api("/api/v1/broker/live")
}

#[test]
fn the_page_is_whole_without_a_script_and_loads_nothing_from_elsewhere() {
    let mut broker = Broker::new();
    broker.start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        jetstream.publish("trade-data.binance.spot.BTCUSDT", "{}").await;
        let consumer = json!({ "stream_name": "MARKET_DATA", "config": { "durable_name": "archive<b", "ack_policy": "explicit" } });
        jetstream.ask("$JS.API.CONSUMER.DURABLE.CREATE.MARKET_DATA.archive<b", consumer).await;
        let answer = http_client().get(broker.api("/")).send().await.unwrap();
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let page = answer.text().await.unwrap();
        assert!(page.contains("The broker is well"), "{page}");
        for wanted in ["MARKET_DATA", "archive&lt;b", "B left ", "in_service"] {
            assert!(page.contains(wanted), "{wanted} is missing\n{page}");
        }
        let row =
            |family| page.split(&format!("data-family=\"{family}\"")).nth(1).unwrap().split("</tr>").next().unwrap();
        assert!(FAMILIES.into_iter().all(|family| !row(family).is_empty()));
        assert!(row("trade").contains("moving") && !row("liquidation").contains("moving"), "{}", row("trade"));
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script>"), "{page}");

        let names = page.split('"').filter(|text| text.starts_with("assets/"));
        for name in names {
            let ask = || http_client().get(broker.api(&format!("/{name}")));
            let answer = ask().send().await.unwrap();
            assert_eq!(answer.status(), 200, "{name}");
            let tag = answer.headers()["etag"].clone();
            let again = ask().header("if-none-match", &tag).send().await.unwrap();
            assert_eq!((again.status().as_u16(), &again.headers()["etag"]), (304, &tag), "{name}");
        }
        let compressed = http_client().get(broker.api("/assets/uPlot.js")).header("accept-encoding", "gzip");
        assert_eq!(compressed.send().await.unwrap().headers()["content-encoding"], "gzip");
        assert_eq!(http_client().get(broker.api("/assets/nothing.js")).send().await.unwrap().status(), 404);
    });
}

#[test]
fn events_follow_the_broker_and_end_with_it() {
    let mut broker = Broker::new();
    broker.start();
    block_on(async {
        let mut events = Sse::open(&live(&broker), None).await.unwrap();
        let begin = event(&mut events, "begin", |_| true).await;
        assert_eq!(begin["version"], env!("CARGO_PKG_VERSION"));
        let all = event(&mut events, "sections", |_| true).await;
        for section in ["headline", "alerts", "facts", "families", "streams", "consumers", "conditions", "events"] {
            assert!(all["sections"][section].is_string(), "{section}: {all}");
        }
        event(&mut events, "charts", |charts| charts["hour"]["at"].is_array()).await;

        let families = |data: &Value| data["sections"]["families"].as_str().unwrap_or_default().to_owned();
        JetStream(broker.client().await).publish("liquidation-data.okx.swap.BTCUSDT", "{}").await;
        let moved = event(&mut events, "sections", |data| {
            let rows = families(data);
            let row = rows.split("data-family=\"liquidation\"").nth(1).unwrap_or_default().to_owned();
            row.contains("moving")
        })
        .await;
        assert!(moved["sections"]["conditions"].is_null(), "what has not changed is not sent: {moved}");

        let server = broker.server_pid();
        kill(server, Signal::SIGSTOP).unwrap();
        let red = event(&mut events, "sections", |data| data["tone"] == "bad").await;
        kill(server, Signal::SIGCONT).unwrap();
        assert!(red["title"].as_str().unwrap().starts_with('✕'), "{red}");
        event(&mut events, "sections", |data| data["tone"] == "good").await;

        broker.signal(Signal::SIGTERM);
        let end = event(&mut events, "end", |_| true).await;
        assert_eq!(end["reason"], "shutting_down");
        assert!(events.next_within(PATIENCE).await.is_none());
    });
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn alerts_that_are_open_are_shown_until_they_are_over() {
    let mut broker = Broker::new();
    // Nobody takes connections there.
    broker.set("ALERT_WEBHOOK_URL", "http://127.0.0.1:1/").set("FAMILY_STALE_AFTER", "trade=4s").start();
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        jetstream.publish("trade-data.binance.spot.BTCUSDT", "{}").await;
        let mut events = Sse::open(&live(&broker), None).await.unwrap();
        // Others may be open as well.
        let has = |data: &Value| data["sections"]["alerts"].as_str().map(|html| html.contains("family_stale"));
        event(&mut events, "sections", |data| has(data) == Some(true)).await;
        jetstream.publish("trade-data.binance.spot.BTCUSDT", "{}").await;
        event(&mut events, "sections", |data| has(data) == Some(false)).await;
    });
}

#[test]
fn data_is_for_those_who_may_read() {
    let mut broker = Broker::new();
    broker.set("API_TOKEN", "full").set("API_READ_TOKEN", "read").start();
    block_on(async {
        for (token, has_data) in [(None, false), (Some("wrong"), false), (Some("read"), true), (Some("full"), true)] {
            let mut request = http_client().get(broker.api("/"));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let page = answer.text().await.unwrap();
            assert_eq!(page.contains("MARKET_DATA"), has_data, "{token:?}\n{page}");
            assert!(FAMILIES.iter().all(|family| page.contains(family)));
        }
        assert_eq!(Sse::open(&live(&broker), None).await.err().map(|(status, _)| status), Some(401));
        assert_eq!(Sse::open_as(&live(&broker), "wrong").await.err().map(|(status, _)| status), Some(401));
        let mut events = Sse::open_as(&live(&broker), "read").await.unwrap();
        event(&mut events, "sections", |data| data["sections"]["streams"].is_string()).await;
        let file = http_client().get(broker.api("/assets/dashboard.js")).send().await.unwrap();
        assert_eq!(file.status(), 200, "files hold no data");
    });
}
