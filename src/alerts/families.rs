//! Which families of market data have fallen silent. Each round looks at what has come since the last one
//! and no further back: nats-server would read block after block to find the last message of a family
//! that is quiet.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::Client;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::rules::Moment;
use crate::domain::{DataType, Generation};
use crate::nats::{ApiError, JetStream, MessageRequest};
use crate::settings::Settings;

/// For one question.
const DEADLINE: Duration = Duration::from_secs(2);
/// Between two rounds at most, and at least.
const SELDOM: Duration = Duration::from_secs(10);
const OFTEN: Duration = Duration::from_millis(500);

/// What is known of the families.
#[derive(Debug, Default)]
pub struct Families {
    server: Option<Generation>,
    /// The first sequence that has not been looked at.
    next: Option<u64>,
    /// When the stream was made that it is one of.
    created: Option<String>,
    /// Another node of the cluster leads the stream, and says what is so.
    is_led_elsewhere: bool,
    heard: BTreeMap<DataType, Heard>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Moment,
    /// A message was seen, and not only nothing else.
    is_certain: bool,
}

/// What has come since the last round.
#[derive(Default)]
struct Round {
    last_seq: u64,
    created: Option<String>,
    is_led_elsewhere: bool,
    heard: Vec<DataType>,
}

/// How often to look, where somebody wants to know.
pub fn period(settings: &Settings) -> Option<Duration> {
    let shortest = settings.alerts.stale_after.values().min()?;
    settings.streams.market_data.then(|| (*shortest / 4).clamp(OFTEN, SELDOM))
}

impl Families {
    /// Looks at what has come since; a server that does not answer changes nothing.
    pub async fn look(mut self, settings: &Settings, server: Generation, client: Client, now: Moment) -> Self {
        // The server of an own supervisor; of one that others run any node may be the one that we reach.
        let own = settings.external.is_none().then(|| client.server_info().server_name);
        let asked = self.ask(settings, own.as_deref(), &JetStream::new(client, DEADLINE)).await;
        // Nobody could publish while no server ran.
        if self.server.replace(server) != Some(server) {
            self.heard.clear();
        }
        if let Ok(round) = asked {
            self.take_in(&round, settings.alerts.stale_after.keys().copied(), now);
        }
        self
    }

    async fn ask(&self, settings: &Settings, own: Option<&str>, jetstream: &JetStream) -> Result<Round, ApiError> {
        let stream = settings.market_data.name.as_str();
        let Some(info) = jetstream.stream_info(stream).await? else { return Ok(Round::default()) };
        let last_seq = info.state.last_seq;
        let leader = info.cluster.map(|cluster| cluster.leader).filter(|leader| !leader.is_empty());
        let is_led_elsewhere = own.zip(leader.as_deref()).is_some_and(|(own, leader)| own != leader);
        let mut heard = vec![];
        let is_same = self.created.as_ref() == Some(&info.created);
        // What a restored stream holds has come before, whenever it was.
        if let Some(next) = self.next.filter(|next| !is_same || *next <= last_seq) {
            for family in settings.alerts.stale_after.keys() {
                for subject in family.subjects(settings.market_data.style) {
                    let has_come = if is_same {
                        jetstream.get_message(stream, &MessageRequest::Next { seq: next, subject }).await?.is_some()
                    } else {
                        // All that a new stream holds has come since, but for what was restored into it.
                        let last = jetstream.get_message(stream, &MessageRequest::Last { subject }).await;
                        last.ok().flatten().is_some_and(|message| is_since(&message.time, &info.created))
                    };
                    if has_come {
                        heard.push(*family);
                        break;
                    }
                }
            }
        }
        Ok(Round { last_seq, created: Some(info.created), is_led_elsewhere, heard })
    }

    fn take_in(&mut self, round: &Round, wanted: impl Iterator<Item = DataType>, now: Moment) {
        self.next = Some(round.last_seq + 1);
        self.created.clone_from(&round.created);
        self.is_led_elsewhere = round.is_led_elsewhere;
        for family in wanted {
            self.heard.entry(family).or_insert(Heard { at: now, is_certain: false });
        }
        for family in &round.heard {
            self.heard.insert(*family, Heard { at: now, is_certain: true });
        }
    }

    /// Whether another node of the cluster says what is so.
    pub fn are_told_elsewhere(&self) -> bool {
        self.is_led_elsewhere
    }

    /// How long each has been silent, as far as that is known: one that was not heard yet has been for as
    /// long as somebody listens at least.
    pub fn silent(&self, allowed: &BTreeMap<DataType, Duration>, now: Moment) -> BTreeMap<DataType, Duration> {
        let silence = |(family, heard): (&DataType, &Heard)| {
            let span = now.saturating_sub(heard.at);
            let is_known = heard.is_certain || allowed.get(family).is_some_and(|allowed| span >= *allowed);
            is_known.then_some((*family, span))
        };
        self.heard.iter().filter_map(silence).collect()
    }
}

/// Whether the first of two times as nats-server writes them is not before the second.
fn is_since(time: &str, start: &str) -> bool {
    let [time, start] = [time, start].map(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    time.zip(start).is_some_and(|(time, start)| time >= start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_silent_since_its_last_message_or_since_somebody_listens() {
        let seconds = Duration::from_secs;
        let allowed = BTreeMap::from([(DataType::Trade, seconds(30)), (DataType::Orderbook, seconds(30))]);
        let mut families = Families::default();
        let take = |families: &mut Families, heard: &[DataType], now| {
            families.take_in(
                &Round { last_seq: 7, heard: heard.to_vec(), ..Round::default() },
                allowed.keys().copied(),
                seconds(now),
            );
            families.silent(&allowed, seconds(now + 1))
        };
        assert_eq!(take(&mut families, &[], 100), BTreeMap::new(), "nobody knows yet");
        assert_eq!(take(&mut families, &[DataType::Trade], 110), BTreeMap::from([(DataType::Trade, seconds(1))]));
        assert_eq!(
            take(&mut families, &[], 129),
            BTreeMap::from([(DataType::Trade, seconds(20)), (DataType::Orderbook, seconds(30))])
        );
        assert_eq!(families.next, Some(8));
    }
}
