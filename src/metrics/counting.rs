//! Counts the messages of the families, the subjects and the delays: asks nats-server, and hands what it says
//! to what is pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::exporter::parse_time;
use super::exposition::{Families, Kind, Labels};
use super::families::{FamilyCounts, Place, Recount};
use super::history::STEP;
use super::ingest::IngestDelays;
use super::subjects::Subjects;
use crate::broker::Broker;
use crate::domain::DataType;
use crate::nats::{JetStream, MessageRequest, StreamInfo};
use crate::settings::Settings;

/// Between two looks that no scrape has asked for: rows of the history, and counts, so that little comes and
/// goes unseen between scrapes.
pub const TICK: Duration = STEP;
/// For everything that is asked for first, and for what follows from the answers.
pub const FIRST: Duration = Duration::from_millis(500);
pub const SECOND: Duration = Duration::from_millis(150);
/// A consumer that only counted is gone after so long where it could not be deleted.
const LEFT_BEHIND: Duration = Duration::from_secs(10);
/// Between two counts of the messages of each subject.
const COUNTED: Duration = Duration::from_secs(2);
/// A stream with more subjects is not counted by family: the answer names each of them.
const MOST_SUBJECTS: u64 = 10_000;

/// What is known of the messages of the families, and kept from one count to the next.
pub struct Counting {
    broker: Broker,
    /// Others after a reload.
    settings: watch::Receiver<Arc<Settings>>,
    /// What times of [`Subjects`] are counted from.
    started: Instant,
    counted_at: Option<Instant>,
    /// The stream has more subjects than are counted.
    is_too_much: bool,
    families: FamilyCounts,
    subjects: Subjects,
    delays: IngestDelays,
}

/// How many messages each subject has.
enum Counted {
    Anew(Place, BTreeMap<String, u64>),
    /// The stream stands where it stood.
    AsBefore,
    TooMuch,
}

impl Counting {
    pub fn new(broker: Broker, settings: watch::Receiver<Arc<Settings>>) -> Self {
        Self {
            broker,
            settings,
            started: Instant::now(),
            counted_at: None,
            is_too_much: false,
            families: FamilyCounts::default(),
            subjects: Subjects::default(),
            delays: IngestDelays::default(),
        }
    }

    /// Whether what was counted is of now. What was counted long ago would look like silence.
    fn is_recent(&self) -> bool {
        !self.is_too_much && self.counted_at.is_some_and(|at| at.elapsed() < TICK * 2)
    }

    /// Messages of each family that have come, where that is known now.
    pub fn totals(&self) -> Option<[u64; DataType::ALL.len()]> {
        self.families.totals().filter(|_| self.is_recent())
    }

    /// The same with the seconds since the last one, where those are known now; nothing before the first count
    /// and where there is too much to count.
    pub fn so_far(&self) -> Vec<(DataType, u64, Option<f64>)> {
        let all = self.families.so_far(OffsetDateTime::now_utc()).into_iter().filter(|_| !self.is_too_much);
        all.map(|(family, messages, age)| (family, messages, age.filter(|_| self.is_recent()))).collect()
    }

    /// Counts anew, where that is due. Where it is given up on the way the next time makes up for it.
    pub async fn count(&mut self) {
        let settings = self.settings.borrow().clone();
        let is_due = self.counted_at.is_none_or(|at| at.elapsed() >= COUNTED);
        if !is_due || !settings.jetstream.enabled || self.broker.status().generation.is_none() {
            return;
        }
        let stream = settings.market_data.name.to_string();
        let Ok(Some((jetstream, counted))) = timeout(FIRST, self.held(&stream)).await else { return };
        self.counted_at = Some(Instant::now());
        let now = self.started.elapsed().as_secs_f64();
        self.is_too_much = matches!(counted, Counted::TooMuch);
        let (place, held) = match counted {
            // Rates and rhythms are learned anew once they can be.
            Counted::TooMuch => return self.subjects = Subjects::default(),
            Counted::AsBefore => return self.subjects.count(&[], now),
            Counted::Anew(place, held) => (place, held),
        };
        let growth = self.families.count(place, held);
        self.subjects.count(&growth.gained, now);
        self.subjects.keep(self.families.held());
        let fields = &settings.metrics.timestamp_fields;
        let recounted = match &growth.recount {
            Some(recount) => self.recount(&jetstream, &stream, recount).await,
            None => vec![],
        };
        let asked = growth.asked.into_iter().chain(recounted);
        let asked = asked.flat_map(|(family, filters)| {
            filters.into_iter().map(move |subject| (family, MessageRequest::Last { subject }))
        });
        let (jetstream, stream) = (&jetstream, &stream);
        let asked = asked.map(async |(family, request)| (family, jetstream.get_message(stream, &request).await));
        let Ok(answers) = timeout(SECOND, join_all(asked)).await else { return };
        for (family, message) in answers {
            let Some(message) = message.ok().flatten() else { continue };
            let Some(at) = parse_time(&message.time) else { continue };
            self.families.saw(family, at);
            if !fields.is_empty() {
                self.delays.sample(family, &message.payload, fields, at);
            }
        }
    }

    /// Counts what has come of each family, and gives those of which something has, where growth did not show
    /// it, with their filters.
    async fn recount(
        &mut self,
        jetstream: &JetStream,
        stream: &str,
        recount: &Recount,
    ) -> Vec<(DataType, Vec<String>)> {
        let counts = recount.filters.iter().map(async |(family, filters)| {
            let each = filters.iter().map(|filter| count_from(jetstream, stream, filter, recount.from));
            let came = join_all(each).await.into_iter().collect::<Option<Vec<_>>>()?.into_iter().sum();
            Some((*family, filters.clone(), came))
        });
        let Ok(counts) = timeout(FIRST, join_all(counts)).await else { return vec![] };
        let mut came_unseen = vec![];
        let are_all = counts.iter().all(Option::is_some);
        for (family, filters, came) in counts.into_iter().flatten() {
            if self.families.recounted(family, came) {
                came_unseen.push((family, filters));
            }
        }
        if are_all {
            self.families.settled();
        }
        came_unseen
    }

    /// [`None`] where it cannot be known.
    async fn held(&self, stream: &str) -> Option<(JetStream, Counted)> {
        let session = self.broker.data(Instant::now() + FIRST).await.ok()?;
        let jetstream = session.jetstream(FIRST);
        let info: StreamInfo = jetstream.stream_info(stream).await.ok()??;
        let state = &info.state;
        let place = Place { created: info.created.clone(), last_seq: state.last_seq, messages: state.messages };
        if self.families.is_known(&place) {
            return Some((jetstream, Counted::AsBefore));
        }
        if state.num_subjects > MOST_SUBJECTS {
            return Some((jetstream, Counted::TooMuch));
        }
        let held = jetstream.messages_by_subject(stream).await.ok()?;
        Some((jetstream, Counted::Anew(place, held)))
    }

    pub fn add(&self, families: &mut Families) {
        let settings = self.settings.borrow().clone();
        for (family, messages, age) in self.so_far() {
            let labels = Labels::none().with("data_type", family.name());
            let help = "Messages of a family that have come; exact while none has been dropped";
            families.metric("unified_nats_family_messages_total", Kind::Counter, help).add(&labels, messages as f64);
            if let Some(age) = age {
                let help = "Time since the last message of a family came";
                let mut metric = families.metric("unified_nats_family_last_message_age_seconds", Kind::Gauge, help);
                metric.add(&labels, age);
            }
        }
        if let Some(most) = settings.metrics.top_subjects.filter(|_| self.is_recent()) {
            self.subjects.add(most.get(), self.started.elapsed().as_secs_f64(), families);
        }
        if !settings.metrics.timestamp_fields.is_empty() {
            self.delays.add(families);
        }
    }
}

/// How many messages of that filter the stream holds from that sequence on: a consumer that is made says it.
async fn count_from(jetstream: &JetStream, stream: &str, filter: &str, from: u64) -> Option<u64> {
    let name = format!("unified-nats-count-{:012x}", fastrand::u64(..) >> 16);
    let config = serde_json::json!({
        "name": name,
        "ack_policy": "none",
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": from,
        "filter_subject": filter,
        "mem_storage": true,
        "num_replicas": 1,
        "inactive_threshold": LEFT_BEHIND.as_nanos() as u64,
    });
    let came = jetstream.consume(stream, &name, filter, config).await.ok()?;
    // It goes by itself where this fails.
    let _ = jetstream.delete_consumer(stream, &name).await;
    Some(came)
}
