use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Client;
use futures_util::FutureExt;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::alert::{Alert, Notification};
use super::counts::AlertCounts;
use super::courier::{Courier, LAST_SEND};
use super::families::{self, Families};
use super::ledger::Ledger;
use super::observe::{Clock, Places, host_name};
use super::record::{Record, RecordFile};
use super::rules::{CertificateEnd, DiskSpace, Facts, Rules, Seen};
use super::sinks::{DEADLINE, SendError, Sink, SinkKind, authorities, sinks};
use crate::domain::Generation;
use crate::files::HeldDirectory;
use crate::logging::timestamp;
use crate::off_thread::OffThread;
use crate::settings::Settings;
use crate::status::BrokerStatus;
use crate::ticks;

/// Between two looks where time alone may change something.
const SOON: Duration = Duration::from_secs(1);
/// Between two looks at the disk and the certificates.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// For such a look, and for reading the authorities.
const LOOK_DEADLINE: Duration = Duration::from_secs(1);

/// The connection to the server that runs now.
type Connected = watch::Receiver<Option<(Generation, Client)>>;

/// The one task that decides what is an alert, and sends it.
pub struct Alerts {
    status: watch::Receiver<Arc<BrokerStatus>>,
    settings: watch::Receiver<Arc<Settings>>,
    client: Connected,
    shared: Arc<Shared>,
    rules: Rules,
    ledger: Ledger,
    facts: Facts,
    couriers: BTreeMap<SinkKind, Courier>,
    /// Attempts under way.
    sending: JoinSet<(SinkKind, Result<(), SendError>)>,
    /// What is known of the families; [`None`] while a server is being asked.
    families: Option<Families>,
    asking: JoinSet<Families>,
    next_round: Option<Instant>,
    file: RecordFile,
    /// The file does not hold what it should.
    is_dirty: bool,
    /// Time alone may change what the rules say.
    is_waiting: bool,
    looking: OffThread<(Option<DiskSpace>, Vec<CertificateEnd>)>,
    reading: OffThread<Vec<CertificateDer<'static>>>,
    clock: Clock,
    host: String,
}

struct Shared {
    counts: AlertCounts,
    shutdown: CancellationToken,
    done: CancellationToken,
    gave_up: Mutex<Option<String>>,
    open: watch::Sender<Arc<[Alert]>>,
}

/// Reaches the task from outside.
#[derive(Clone)]
pub struct AlertsHandle(Arc<Shared>);

impl AlertsHandle {
    /// What was sent, by kind, sink and result: the metric `alerts_total`.
    pub fn counts(&self) -> AlertCounts {
        self.0.counts.clone()
    }

    /// Alerts that were raised and are not over.
    pub fn open(&self) -> watch::Receiver<Arc<[Alert]>> {
        self.0.open.subscribe()
    }

    /// Has what waits sent, once and within a short time. `gave_up` is why the supervisor has.
    pub async fn finish(&self, gave_up: Option<String>) {
        *self.0.gave_up.lock().unwrap_or_else(PoisonError::into_inner) = gave_up;
        self.0.shutdown.cancel();
        // A little more than the task gives itself: it writes down what is left.
        let _ = timeout(LAST_SEND + SOON, self.0.done.cancelled()).await;
    }
}

impl Alerts {
    /// `directory` is that of the store, where what is open is kept.
    pub fn new(
        status: watch::Receiver<Arc<BrokerStatus>>,
        settings: watch::Receiver<Arc<Settings>>,
        client: Connected,
        directory: Arc<HeldDirectory>,
        shutdown: CancellationToken,
    ) -> (Self, AlertsHandle) {
        let (counts, done) = (AlertCounts::default(), CancellationToken::new());
        let open = watch::Sender::new(Arc::default());
        let shared = Arc::new(Shared { counts, shutdown, done, gave_up: Mutex::default(), open });
        let alerts = Self {
            status,
            settings,
            client,
            shared: shared.clone(),
            rules: Rules::default(),
            ledger: Ledger::default(),
            facts: Facts::default(),
            couriers: BTreeMap::new(),
            sending: JoinSet::new(),
            families: Some(Families::default()),
            asking: JoinSet::new(),
            next_round: None,
            file: RecordFile::new(directory),
            is_dirty: false,
            is_waiting: false,
            looking: OffThread::default(),
            reading: OffThread::default(),
            clock: Clock::start(),
            host: host_name(),
        };
        (alerts, AlertsHandle(shared))
    }

    /// Runs for ever; after the shutdown it does nothing any more.
    pub async fn run(mut self) {
        self.wait_for_sinks().await;
        let record = self.file.read().await;
        self.ledger = Ledger::read(record.ledger, &self.clock.boot, self.clock.now());
        self.make_couriers(record.waiting).await;
        let mut looks = ticks::every(LOOK_INTERVAL);
        self.observe().await;
        while !self.shared.shutdown.is_cancelled() {
            self.judge().await;
            // What a round has found was judged: a slow server has the next one due by now.
            self.ask_for_families();
            self.wait(&mut looks).await;
        }
        self.finish().await;
        self.shared.done.cancel();
        std::future::pending().await
    }

    /// Where nobody is to hear of alerts there is nothing to do.
    async fn wait_for_sinks(&mut self) {
        let has_sinks = |settings: &Arc<Settings>| settings.alerts.has_sinks();
        tokio::select! {
            found = self.settings.wait_for(has_sinks) => if found.is_ok() { return },
            () = self.shared.shutdown.cancelled() => {}
        }
        self.shared.shutdown.cancelled().await;
        self.shared.done.cancel();
        std::future::pending().await
    }

    /// Until something has happened, or should.
    async fn wait(&mut self, looks: &mut tokio::time::Interval) {
        let due = self.couriers.values().filter_map(Courier::due).min();
        let soon = (self.is_waiting || self.is_dirty).then(|| ticks::by(Instant::now() + SOON, SOON));
        let round = self.next_round.filter(|_| self.families.is_some());
        let wake = due.into_iter().chain(soon).chain(round).min();
        let woken = async {
            match wake {
                Some(wake) => sleep_until(wake).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.shared.shutdown.cancelled() => {}
            changed = self.status.changed() => if changed.is_err() { self.shared.shutdown.cancelled().await },
            Ok(()) = self.settings.changed() => {
                self.make_couriers(BTreeMap::new()).await;
                self.observe().await;
            }
            Some(ended) = self.sending.join_next() => self.take_in(ended),
            // One that panicked begins anew.
            Some(ended) = self.asking.join_next() => self.families = Some(ended.unwrap_or_default()),
            _ = looks.tick() => self.observe().await,
            () = woken => {}
        }
    }

    fn take_in(&mut self, ended: Result<(SinkKind, Result<(), SendError>), tokio::task::JoinError>) {
        let Ok((kind, outcome)) = ended else { return };
        if let Some(courier) = self.couriers.get_mut(&kind) {
            courier.sent(outcome, Instant::now());
        }
    }

    /// The receivers of the settings, with what waits for each.
    async fn make_couriers(&mut self, mut waiting: BTreeMap<SinkKind, Vec<Notification>>) {
        let settings = self.settings.borrow_and_update().clone();
        // Those of browsers do where a disk hangs.
        let authorities = self.reading.run(LOOK_DEADLINE, authorities).await.unwrap_or_default();
        let mut before = std::mem::take(&mut self.couriers);
        for sink in sinks(&settings.alerts, &authorities) {
            let kind = sink.kind;
            let courier = match before.remove(&kind) {
                Some(mut courier) => {
                    courier.readdress(sink);
                    courier
                }
                None => Courier::new(sink, waiting.remove(&kind).unwrap_or_default(), self.shared.counts.clone()),
            };
            self.couriers.insert(kind, courier);
        }
    }

    /// Looks at the disk and the certificates; what does not answer in time is not known.
    async fn observe(&mut self) {
        if self.looking.is_waiting() {
            return;
        }
        let (places, at) = (Places::of(&self.settings.borrow()), self.clock.at());
        match self.looking.run(LOOK_DEADLINE, move || places.look(at)).await {
            Some((disk, certificates)) => (self.facts.disk, self.facts.certificates) = (disk, certificates),
            None => self.facts.disk = None,
        }
    }

    /// Starts the next round where it is due; nothing waits for it.
    fn ask_for_families(&mut self) {
        let settings = self.settings.borrow().clone();
        let Some(period) = families::period(&settings) else {
            self.next_round = None;
            return;
        };
        let now = Instant::now();
        if self.next_round.is_some_and(|due| due > now) {
            return;
        }
        if let Some((generation, client)) = self.client.borrow().clone()
            && let Some(families) = self.families.take()
        {
            let moment = self.clock.now();
            self.asking.spawn(async move { families.look(&settings, generation, client, moment).await });
        }
        self.next_round = Some(ticks::by(now + period, period).max(now + period / 2));
    }

    /// Decides what is news, writes it down, and sends it on its way.
    async fn judge(&mut self) {
        let status = self.status.borrow_and_update().clone();
        // A broker that stops is not down, and nobody looks at the rest any more.
        let stops = matches!(status.state, "draining" | "stopped") && self.facts.gave_up.is_none();
        if !stops {
            let settings = self.settings.borrow().clone();
            let (now, at) = (self.clock.now(), self.clock.at());
            if let Some(families) = &self.families {
                self.facts.silent = families.silent(&settings.alerts.stale_after, now);
                self.facts.told_elsewhere = families.are_told_elsewhere();
            }
            let seen = Seen { status: &status, settings: &settings, facts: &self.facts, host: &self.host, now, at };
            let judgement = self.rules.after(seen);
            let news = self.ledger.after(&judgement, now, settings.alerts.min_interval, &timestamp(at).to_string());
            self.is_waiting = judgement.is_waiting || self.ledger.holds_back(&judgement);
            let open = || self.ledger.open().cloned().collect::<Vec<_>>();
            self.shared.open.send_if_modified(|known| {
                let is_other = !known.iter().eq(self.ledger.open());
                if is_other {
                    *known = open().into();
                }
                is_other
            });
            for notification in news {
                tracing::debug!("alert: {}: {}", notification.headline(), notification.alert.summary);
                self.couriers.values_mut().for_each(|courier| courier.push(notification.clone()));
            }
        }
        self.send(Courier::take);
        self.write_down().await;
    }

    fn send(&mut self, take: impl Fn(&mut Courier, Instant) -> Option<(Sink, Notification)>) {
        let now = Instant::now();
        for courier in self.couriers.values_mut() {
            if let Some((sink, notification)) = take(courier, now) {
                self.sending.spawn(async move {
                    let sending = AssertUnwindSafe(sink.send(&notification, DEADLINE)).catch_unwind();
                    let failure = |_| Err(SendError::Failed("internal error: it panicked".into()));
                    (sink.kind, sending.await.unwrap_or_else(failure))
                });
            }
        }
    }

    async fn write_down(&mut self) {
        let waiting = self.couriers.iter().map(|(kind, courier)| (*kind, courier.waiting()));
        let record = Record { ledger: self.ledger.write(&self.clock.boot), waiting: waiting.collect() };
        self.is_dirty = !self.file.write(&record).await;
    }

    /// Gives what waits a last chance.
    async fn finish(&mut self) {
        let gave_up = self.shared.gave_up.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.facts.gave_up = gave_up;
        self.couriers.values_mut().for_each(Courier::hurry);
        let sending = async {
            self.judge().await;
            while self.couriers.values().any(Courier::is_sending) {
                if let Some(ended) = self.sending.join_next().await {
                    self.take_in(ended);
                }
                self.send(Courier::take_last);
            }
        };
        let _ = timeout(LAST_SEND, sending).await;
        self.write_down().await;
    }
}
