//! Asks nats-server for what it monitors. One task does, for as many scrapes as come, and never longer than
//! a scrape may wait.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use nix::sys::statvfs::statvfs;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::advisories::Advisories;
use super::asking::{ask, read};
use super::consumers::{Consumers, Question};
use super::counting::{Counting, FIRST, SECOND, TICK};
use super::exporter::{self, Naming, parse_time};
use super::exposition::{Families, Format, Kind, Labels};
use super::history::{History, Row};
use super::monitored::Named;
use super::streams;
use crate::alerts::Certificates;
use crate::broker::Broker;
use crate::domain::DataType;
use crate::nats::{Jsz, MessageRequest, Monitor, Varz};
use crate::off_thread::OffThread;
use crate::settings::Settings;
use crate::status::{BrokerStatus, Condition, ConditionStatus};

/// What was collected so lately serves every scrape that comes.
const FRESH: Duration = Duration::from_millis(500);
/// For both, and for a machine that is busy.
pub const PATIENCE: Duration = Duration::from_millis(900);
/// Between two looks at the files with certificates.
const READ: Duration = Duration::from_secs(10);

/// Files, and when what is in them ends.
type CertificateEnds = Vec<(PathBuf, SystemTime)>;

/// What was found out, once.
#[derive(Debug)]
pub struct Collected {
    /// When it was; [`None`] where nobody has asked.
    ended: Option<Instant>,
    families: Families,
    text: [OnceLock<String>; 2],
    observation: Observation,
}

/// What was found out, as values.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// nats-server answers.
    pub is_up: bool,
    /// Bytes that the disk of the store still takes.
    pub disk_free: Option<u64>,
    /// Each family with the messages that have come, and seconds since the last one; nothing before the
    /// first count.
    pub families: Vec<(DataType, u64, Option<f64>)>,
    /// What monitoring says of the server, its streams and consumers.
    pub varz: Option<Arc<Value>>,
    pub jsz: Option<Arc<Jsz>>,
    /// Stream, consumer, and the age in seconds of the oldest message that is not acknowledged.
    pub lags: Vec<(String, String, f64)>,
}

impl Collected {
    fn new(ended: Option<Instant>, families: Families, observation: Observation) -> Self {
        Self { ended, families, text: Default::default(), observation }
    }

    pub fn observation(&self) -> &Observation {
        &self.observation
    }

    /// What is known of a server that has said nothing.
    pub fn nothing() -> Self {
        let mut families = Families::default();
        add_up(false, &mut families);
        Self::new(None, families, Observation::default())
    }

    pub fn families(&self) -> &Families {
        &self.families
    }

    /// Whether it may serve who asks then.
    fn is_fresh(&self, asked: Instant) -> bool {
        self.ended.is_some_and(|ended| ended + FRESH > asked)
    }

    /// Written once, however many read it.
    pub fn text(&self, format: Format) -> &str {
        self.text[usize::from(format == Format::OpenMetrics)].get_or_init(|| self.families.write(format))
    }
}

fn add_up(is_up: bool, families: &mut Families) {
    let help = "Whether nats-server answers";
    families.metric("unified_nats_up", Kind::Gauge, help).add(&Labels::none(), f64::from(u8::from(is_up)));
}

/// What was collected last, and who asks for more.
#[derive(Clone)]
pub struct Latest {
    collected: watch::Receiver<Arc<Collected>>,
    wanted: Arc<Notify>,
    pub history: Arc<Mutex<History>>,
}

impl Latest {
    /// Something fresh, within [`PATIENCE`]; what is known without an answer otherwise.
    pub async fn get(&self) -> Arc<Collected> {
        let mut collected = self.collected.clone();
        // What is collected for this scrape serves it, however late a busy machine lets it look.
        let asked = Instant::now();
        if !collected.borrow().is_fresh(asked) {
            self.wanted.notify_one();
        }
        let fresh = timeout(PATIENCE, collected.wait_for(|collected| collected.is_fresh(asked))).await;
        fresh.ok().and_then(Result::ok).map_or_else(|| Arc::new(Collected::nothing()), |fresh| fresh.clone())
    }
}

/// The task.
pub struct Collector {
    settings: watch::Receiver<Arc<Settings>>,
    broker: Broker,
    /// Where our own server keeps its messages.
    store: Option<PathBuf>,
    /// There is a port where somebody may ask.
    is_read: bool,
    /// Made when it is first needed, because that may read the authorities of the system.
    monitor: Option<Monitor>,
    naming: Naming,
    /// How the server called itself last.
    named: Option<Named>,
    counting: Counting,
    consumers: Consumers,
    disk: OffThread<Option<u64>>,
    reading: OffThread<CertificateEnds>,
    /// When certificates in use end, as they were read last.
    certificates: Option<(Instant, CertificateEnds)>,
    advisories: Advisories,
    history: Arc<Mutex<History>>,
    published: watch::Sender<Arc<Collected>>,
    wanted: Arc<Notify>,
}

impl Collector {
    pub fn new(mut settings: watch::Receiver<Arc<Settings>>, broker: Broker) -> (Self, Latest) {
        settings.mark_changed();
        let (published, collected) = watch::channel(Arc::new(Collected::nothing()));
        let wanted = Arc::new(Notify::new());
        let now = settings.borrow().clone();
        let own = now.jetstream.enabled && now.external.is_none();
        let counting = Counting::new(broker.clone(), settings.clone());
        let is_read = now.api.enabled || now.metrics.enabled;
        let collector = Self {
            is_read,
            store: own.then(|| now.jetstream.store_dir.clone()),
            monitor: None,
            named: None,
            naming: Naming { prefix: now.metrics.prefix.clone(), server_id: now.metrics.server_id },
            counting,
            consumers: Consumers::default(),
            disk: OffThread::default(),
            reading: OffThread::default(),
            certificates: None,
            advisories: Advisories::default(),
            history: Arc::default(),
            settings,
            broker,
            published,
            wanted: wanted.clone(),
        };
        let history = collector.history.clone();
        (collector, Latest { collected, wanted, history })
    }

    /// Collects when somebody asks, and now and then for itself.
    pub async fn run(self) {
        let (advisories, broker) = (self.advisories.clone(), self.broker.clone());
        if !self.is_read {
            // Nothing is found out for nobody.
            return std::future::pending().await;
        }
        tokio::join!(self.collect_for_ever(), advisories.run(broker));
    }

    async fn collect_for_ever(mut self) {
        let mut ticks = interval_at(Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.wanted.notified() => {
                    // Many may have asked for the same.
                    if !self.published.borrow().is_fresh(Instant::now()) {
                        self.collect().await;
                    }
                }
                _ = ticks.tick() => {
                    let wanted = self.wanted.clone();
                    tokio::select! {
                        () = self.observe() => {}
                        // A scrape does not wait for it; what was not counted is counted then.
                        () = wanted.notified() => wanted.notify_one(),
                    }
                }
            }
        }
    }

    /// Where to ask now: elsewhere after a reload.
    fn monitor(&mut self) -> Option<Monitor> {
        if self.settings.has_changed().unwrap_or(false) {
            let settings = self.settings.borrow_and_update().clone();
            self.monitor = Monitor::new(&settings);
        }
        self.monitor.clone()
    }

    async fn collect(&mut self) {
        // What is not fresh is given to nobody, and what takes its place may be as large.
        self.published.send_replace(Arc::new(Collected::nothing()));
        let monitor = self.monitor();
        let (mut monitored, disk, (), _) = tokio::join!(
            async {
                match &monitor {
                    Some(monitor) => Some(ask(monitor).await),
                    None => None,
                }
            },
            free_space(&mut self.disk, self.store.clone()),
            read_certificates(&mut self.reading, &self.settings, &mut self.certificates),
            timeout(FIRST + SECOND, self.counting.count()),
        );
        if let Some(monitored) = &mut monitored {
            self.named = monitored.name_as(self.named.take());
        }
        // What was told in the meantime belongs to consumers that were known before.
        self.consumers.removed(self.advisories.take_removed());
        if let Some(monitored) = &monitored
            && let Some(jsz) = monitored.jsz.as_ref().filter(|_| monitored.names_consumers)
        {
            let questions = self.consumers.see(jsz, monitored.server_name());
            ask_about(questions, &self.broker, &mut self.consumers).await;
        }
        let mut families = Families::default();
        let is_up = match &monitored {
            Some(monitored) => monitored.is_answered(),
            None => answers(&self.broker.status()),
        };
        add_up(is_up, &mut families);
        if let Some(free) = disk {
            let help = "Room on the disk of the store for nats-server";
            families.metric("unified_nats_store_disk_free_bytes", Kind::Gauge, help).add(&Labels::none(), free as f64);
        }
        add_certificates(self.certificates.as_ref(), &mut families);
        self.counting.add(&mut families);
        if self.settings.borrow().jetstream.enabled {
            self.advisories.add(&mut families);
        }
        if let Some(monitored) = &monitored {
            if let Some(jsz) = &monitored.jsz {
                streams::add(jsz, monitored.server_name(), &mut families);
                let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
                streams::add_forecasts(jsz, &history, &mut families);
                self.consumers.add(OffsetDateTime::now_utc(), &mut families);
            }
            exporter::add(monitored, &self.naming, &mut families);
        }
        let now = OffsetDateTime::now_utc();
        let varz = monitored.as_mut().and_then(|monitored| monitored.varz.take());
        let observation = Observation {
            is_up,
            disk_free: disk,
            families: self.counting.so_far(),
            varz: varz.map(Arc::new),
            jsz: monitored.as_mut().and_then(|monitored| monitored.jsz.take()).map(Arc::new),
            lags: self.consumers.lags(now).into_iter().map(|(of, lag)| (of.stream, of.consumer, lag)).collect(),
        };
        self.published.send_replace(Arc::new(Collected::new(Some(Instant::now()), families, observation)));
    }

    /// Takes a row of the history.
    async fn observe(&mut self) {
        self.counting.count().await;
        let Some(monitor) = self.monitor() else { return };
        // One after the other: nobody waits for them, and so one connection is enough.
        let Some(varz) = read(&monitor, "/varz").await else { return };
        let Some(jsz) = read(&monitor, "/jsz?streams=true").await else { return };
        self.remember(&varz, &jsz);
    }

    fn remember(&self, varz: &Varz, jsz: &Jsz) {
        let row = Row {
            at: OffsetDateTime::now_utc().unix_timestamp() as f64,
            in_msgs: varz.in_msgs as f64,
            out_msgs: varz.out_msgs as f64,
            in_bytes: varz.in_bytes as f64,
            out_bytes: varz.out_bytes as f64,
            connections: varz.connections as f64,
            store_bytes: jsz.storage as f64,
            families: self.counting.totals(),
        };
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.add(row, streams::held(jsz));
    }
}

/// Reads certificates anew where that is due; a disk that hangs leaves what is known.
async fn read_certificates(
    reading: &mut OffThread<CertificateEnds>,
    settings: &watch::Receiver<Arc<Settings>>,
    known: &mut Option<(Instant, CertificateEnds)>,
) {
    let certificates = Certificates::of(&settings.borrow());
    if certificates.is_empty() {
        *known = None;
    } else if known.as_ref().is_none_or(|(read, _)| read.elapsed() >= READ) {
        let ends = reading.run(FIRST, move || certificates.ends(SystemTime::now())).await;
        *known = ends.map(|ends| (Instant::now(), ends)).or_else(|| known.take());
    }
}

fn add_certificates(certificates: Option<&(Instant, CertificateEnds)>, families: &mut Families) {
    let now = SystemTime::now();
    for (file, end) in certificates.into_iter().flat_map(|(_, ends)| ends) {
        let left =
            end.duration_since(now).map_or_else(|error| -error.duration().as_secs_f64(), |left| left.as_secs_f64());
        let labels = Labels::none().with("file", &file.to_string_lossy());
        let help = "Time until a certificate expires; negative once it has";
        families.metric("unified_nats_tls_cert_expiry_seconds", Kind::Gauge, help).add(&labels, left);
    }
}

/// Whether the probes of the control side find that it does.
fn answers(status: &BrokerStatus) -> bool {
    let is_silent =
        |condition: &Condition| condition.kind == "responsive" && condition.status == ConditionStatus::Failed;
    status.generation.is_some() && !status.conditions.iter().any(is_silent)
}

/// Bytes that the user may still write; [`None`] where the disk does not answer.
async fn free_space(disk: &mut OffThread<Option<u64>>, store: Option<PathBuf>) -> Option<u64> {
    let store = store?;
    let free = move || statvfs(&store).ok().map(|stat| stat.blocks_available() * stat.fragment_size());
    disk.run(FIRST, free).await.flatten()
}

/// Asks when the messages came that consumers want next.
async fn ask_about(questions: Vec<Question>, broker: &Broker, consumers: &mut Consumers) {
    if questions.is_empty() {
        return;
    }
    let Ok(session) = broker.data(Instant::now() + SECOND).await else { return };
    let jetstream = &session.jetstream(SECOND);
    let asked = questions.into_iter().map(async |Question { name, seq, filters }| {
        let filters = if filters.is_empty() { vec![">".to_owned()] } else { filters };
        let first = filters.into_iter().map(async |subject| {
            jetstream.get_message(&name.stream, &MessageRequest::Next { seq, subject }).await.ok().flatten()
        });
        let oldest = join_all(first).await.into_iter().flatten().min_by_key(|message| message.sequence)?;
        Some((name, oldest.sequence, parse_time(&oldest.time)?))
    });
    let Ok(answers) = timeout(SECOND, join_all(asked)).await else { return };
    for (name, seq, at) in answers.into_iter().flatten() {
        consumers.answer(&name, seq, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_collected_for_a_scrape_serves_it_however_late_it_looks() {
        let (published, collected) = watch::channel(Arc::new(Collected::nothing()));
        let latest = Latest { collected, wanted: Arc::default(), history: Arc::default() };
        let scrape = tokio::spawn({
            let latest = latest.clone();
            async move { latest.get().await.observation().is_up }
        });
        latest.wanted.notified().await;
        let is_up = Observation { is_up: true, ..Observation::default() };
        published.send_replace(Arc::new(Collected::new(Some(Instant::now()), Families::default(), is_up)));
        // The machine lets it look only now.
        tokio::time::advance(FRESH * 2).await;
        assert!(scrape.await.unwrap());
        assert!(!latest.get().await.observation().is_up, "that is too old for another one");
    }
}
