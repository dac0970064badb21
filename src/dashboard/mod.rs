//! The built-in dashboard: one page at `/` that is whole without a script, and comes alive with one.
//!
//! The program makes all of its HTML ([`page`]), for the first answer and for what changes afterwards: the
//! script puts parts in place and draws charts, and knows nothing of the broker. One task
//! ([`Sampler`]) finds out what is so, for all dashboards that are open, and rests while none is. What it
//! asks for is what metrics collect anyway, so that an open dashboard costs what a scrape every two seconds does.

mod assets;
mod families;
mod headline;
mod known;
mod page;
mod past;
mod tables;
mod view;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::domain::DataType;
use crate::errors::in_one_line;
use crate::http::envelope::{Code, Problem};
use crate::nats::Jsz;
use crate::settings::Settings;
use crate::status::BrokerStatus;
use known::{Known, Store, Tone};
pub use known::{Moment, OpenAlert};
use page::{Pages, Section};
use past::{LastCounts, Rates};
pub use past::{Past, Row};
use view::View;

/// Between two samples while somebody watches.
const PERIOD: Duration = Duration::from_secs(2);
/// The same where the status changes: at once, and not more often than that.
const SHORTEST: Duration = Duration::from_millis(250);
/// A page that was made so lately serves whoever comes.
const FRESH: Duration = Duration::from_millis(500);
/// Between two signs of life of a stream of events.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Answers of nats-server that fail before it is called silent: one may be late.
const SILENT: u32 = 2;

/// What nats-server shows at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// It answers.
    pub is_up: bool,
    /// Bytes that the disk of the store still takes.
    pub disk_free: Option<u64>,
    /// Each family with the messages that have come, and seconds since the last one.
    pub families: Vec<(DataType, u64, Option<f64>)>,
    pub varz: Option<Arc<Value>>,
    pub jsz: Option<Arc<Jsz>>,
    /// Stream, consumer, and the age in seconds of the oldest message that is not acknowledged.
    pub lags: Vec<(String, String, f64)>,
}

/// Whom the dashboard learns from.
#[derive(Clone)]
pub struct Sources {
    pub status: watch::Receiver<Arc<BrokerStatus>>,
    /// Others after a reload.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Within a second.
    pub observe: Arc<dyn Fn() -> BoxFuture<'static, Observed> + Send + Sync>,
    /// The last day, and when the store holds that many bytes.
    pub past: Arc<dyn Fn(Option<f64>) -> Past + Send + Sync>,
    pub alerts: Arc<dyn Fn() -> Vec<OpenAlert> + Send + Sync>,
    /// The port closes: streams of events end.
    pub shutdown: CancellationToken,
}

/// Answers for the dashboard.
#[derive(Clone)]
pub struct Dashboard(Arc<Shared>);

struct Shared {
    sources: Sources,
    pages: Pages,
    memory: Mutex<Memory>,
    /// The last page that was made.
    last_page: tokio::sync::Mutex<Option<(Instant, Bytes)>>,
    samples: watch::Sender<Option<Arc<Sample>>>,
    /// Somebody has begun to watch.
    wanted: Notify,
}

/// What is kept from one look to the next.
#[derive(Default)]
struct Memory {
    counts: LastCounts,
    /// Looks in a row that nats-server did not answer.
    silent: u32,
    jsz: Option<(SystemTime, Arc<Jsz>)>,
}

/// What all open dashboards are sent.
struct Sample {
    /// One more than that of the sample before.
    number: u64,
    /// The events for those who have the sample before, or have none where there is none. Made once for all.
    news: Bytes,
    title: String,
    tone: Tone,
    sections: Vec<Section>,
    charts: Arc<str>,
}

/// The task that makes samples.
pub struct Sampler(Arc<Shared>);

impl Dashboard {
    /// The dashboard, and the task that somebody has to run for it.
    ///
    /// # Errors
    ///
    /// Where a template cannot be read, which tests rule out.
    pub fn new(sources: Sources) -> Result<(Self, Sampler), tera::Error> {
        let shared = Arc::new(Shared {
            sources,
            pages: Pages::new()?,
            memory: Mutex::default(),
            last_page: tokio::sync::Mutex::default(),
            samples: watch::Sender::new(None),
            wanted: Notify::new(),
        });
        Ok((Self(shared.clone()), Sampler(shared)))
    }

    /// `GET /`: the page, without data for who may not read any.
    pub async fn page(&self, may_read: bool) -> Response {
        let made = if may_read { self.0.page().await } else { self.0.pages.page(None).map(Bytes::from) };
        match made {
            Ok(page) => (PAGE_HEADERS, page).into_response(),
            Err(error) => {
                tracing::error!("cannot lay out the dashboard: {}", in_one_line(&error));
                let message = "the dashboard could not be laid out; the log of the broker says why";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Code::InternalError, message).into_response()
            }
        }
    }

    /// What changes, as server-sent events, until the port closes.
    pub fn live(&self) -> Response {
        let samples = self.0.samples.subscribe();
        self.0.wanted.notify_one();
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            // Proxies shall not collect it.
            (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        ];
        let events = events(samples, self.0.sources.shutdown.clone());
        (headers, Body::from_stream(events.map(Ok::<_, Infallible>))).into_response()
    }

    /// The files that the page loads.
    pub fn assets() -> Router {
        assets::routes()
    }
}

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                   base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP)),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

impl Shared {
    async fn page(&self) -> Result<Bytes, tera::Error> {
        // Whoever comes while one is being made waits for that one.
        let mut last = self.last_page.lock().await;
        if let Some((at, page)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(page.clone());
        }
        let (view, _) = self.view().await;
        let page = Bytes::from(self.pages.page(Some(&view))?);
        *last = Some((Instant::now(), page.clone()));
        Ok(page)
    }

    /// What is so now.
    async fn view(&self) -> (View, Past) {
        let observed = (self.sources.observe)().await;
        let (status, settings) = (self.sources.status.borrow().clone(), self.sources.settings.borrow().clone());
        let now = SystemTime::now();
        // While nats-server shows nothing the store is what it was.
        let jsz = self.last_jsz(&observed, now);
        let store = Store::of(jsz.as_ref().map(|(_, jsz)| &**jsz), observed.disk_free);
        let past = (self.sources.past)(store.most());
        let (rates, is_silent) = self.remember(&observed, &past, status.generation.is_some(), now);
        let alerts = (self.sources.alerts)();
        let view = View::of(&Known {
            status: &status,
            is_silent,
            families: &observed.families,
            stale_after: &settings.alerts.stale_after,
            varz: observed.varz.as_deref(),
            jsz: jsz.as_ref().map(|(at, jsz)| (&**jsz, observed.jsz.is_none().then_some(*at))),
            lags: &observed.lags,
            alerts: &alerts,
            has_receivers: settings.alerts.has_sinks(),
            store,
            rates: &rates,
            past: &past,
            has_jetstream: settings.jetstream.enabled,
            environment: settings.api.environment,
        });
        (view, past)
    }

    /// What JetStream was last seen to hold, and when.
    fn last_jsz(&self, observed: &Observed, now: SystemTime) -> Option<(SystemTime, Arc<Jsz>)> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(jsz) = &observed.jsz {
            memory.jsz = Some((now, jsz.clone()));
        }
        memory.jsz.clone()
    }

    fn remember(&self, observed: &Observed, past: &Past, is_running: bool, now: SystemTime) -> (Rates, bool) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.silent = if observed.is_up || !is_running { 0 } else { memory.silent.saturating_add(1) };
        let rates = memory.counts.rates(view::counts(&observed.families, observed.varz.as_deref(), now), past);
        (rates, memory.silent >= SILENT)
    }

    /// What follows on that sample.
    async fn sample(&self, before: Option<&Sample>) -> Result<Sample, tera::Error> {
        let (view, past) = self.view().await;
        let charts = serde_json::to_string(&past.charts()).unwrap_or_default();
        let mut sample = Sample {
            title: page::title(&view),
            tone: view.headline.tone,
            sections: self.pages.sections(&view)?,
            charts: charts.into(),
            number: before.map_or(0, |before| before.number + 1),
            news: Bytes::new(),
        };
        sample.news = difference(before, &sample).into();
        Ok(sample)
    }
}

impl Sampler {
    /// Makes samples while somebody watches, and rests otherwise.
    pub async fn run(self) {
        let Self(shared) = self;
        let mut status = shared.sources.status.clone();
        loop {
            if shared.samples.receiver_count() == 0 {
                // Whoever comes next must not begin with what was so long ago.
                shared.samples.send_replace(None);
                shared.wanted.notified().await;
            }
            status.mark_unchanged();
            let before = shared.samples.borrow().clone();
            match shared.sample(before.as_deref()).await {
                Ok(sample) => _ = shared.samples.send_replace(Some(Arc::new(sample))),
                Err(error) => tracing::error!("cannot lay out the dashboard: {}", in_one_line(&error)),
            }
            sleep(SHORTEST).await;
            tokio::select! {
                () = sleep(PERIOD - SHORTEST) => {}
                // It does not change any more where its task is gone.
                Ok(()) = status.changed() => {}
            }
        }
    }
}

/// The text of the answer: first everything, then the parts that have changed.
fn events(samples: watch::Receiver<Option<Arc<Sample>>>, shutdown: CancellationToken) -> impl Stream<Item = Bytes> {
    let state = (samples, None::<Arc<Sample>>, shutdown, true, false);
    stream::unfold(state, |(mut samples, sent, shutdown, is_first, is_over)| async move {
        if is_over {
            return None;
        }
        if is_first {
            let begin =
                format!("retry: 1000\nevent: begin\ndata: {}\n\n", json!({ "version": env!("CARGO_PKG_VERSION") }));
            // What is there already is news to this one.
            samples.mark_changed();
            return Some((Bytes::from(begin), (samples, sent, shutdown, false, false)));
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                let end = Bytes::from_static(b"event: end\ndata: {\"reason\":\"shutting_down\"}\n\n");
                Some((end, (samples, sent, shutdown, false, true)))
            }
            sample = next(&mut samples) => {
                let sample = sample?;
                let text = match sent.as_deref().map_or(Some(0), |sent| sent.number.checked_add(1)) {
                    Some(next) if next == sample.number => sample.news.clone(),
                    _ => Bytes::from(difference(sent.as_deref(), &sample)),
                };
                Some((text, (samples, Some(sample), shutdown, false, false)))
            }
            () = sleep(KEEP_ALIVE) => {
                Some((Bytes::from_static(b": keep-alive\n\n"), (samples, sent, shutdown, false, false)))
            }
        }
    })
}

async fn next(samples: &mut watch::Receiver<Option<Arc<Sample>>>) -> Option<Arc<Sample>> {
    loop {
        samples.changed().await.ok()?;
        let sample = samples.borrow_and_update().clone();
        if sample.is_some() {
            return sample;
        }
    }
}

/// The events that make one sample of the other.
fn difference(before: Option<&Sample>, sample: &Sample) -> String {
    let is_new = |(name, html): &&Section| {
        before.is_none_or(|before| !before.sections.iter().any(|(other, was)| other == name && was == html))
    };
    let sections: serde_json::Map<_, _> =
        sample.sections.iter().filter(is_new).map(|(name, html)| ((*name).to_owned(), Value::from(&**html))).collect();
    let data = json!({ "title": sample.title, "tone": sample.tone, "sections": sections });
    let mut text = format!("event: sections\ndata: {data}\n\n");
    if before.is_none_or(|before| before.charts != sample.charts) {
        text.push_str("event: charts\ndata: ");
        text.push_str(&sample.charts);
        text.push_str("\n\n");
    }
    text
}

#[cfg(test)]
mod tests;
