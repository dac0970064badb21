//! How many messages of each family have come, and when the last one did. Pure.
//!
//! nats-server tells how many messages a stream holds of each subject, and not how many have come. From one
//! count to the next the growth of each subject is added up. Where that is less than the stream's last
//! sequence has grown, messages have gone, as they always do once a stream is at its limit: then the families
//! are counted from where the count before ended ([`Recount`]). So a number misses only what has come and
//! gone between two counts. The first count is what the stream holds.

use std::collections::{BTreeMap, HashMap};

use time::OffsetDateTime;

use crate::domain::DataType;

const COUNT: usize = DataType::ALL.len();

/// A family with fewer subjects than this has its last message found at the start, by asking for the last
/// one of each. Asking for a whole family at once makes nats-server read the store backwards until it finds one.
const ASKED_AT_START: usize = 32;
/// So many subjects of a family that have grown are asked for one by one. One question for all of them is
/// cheap then, too: the last message is near the end.
const ASKED_EACH: usize = 4;

#[derive(Clone, Debug, Default)]
pub struct FamilyCounts {
    /// The stream that was counted: which one, and where it stood.
    counted: Option<Place>,
    held: HashMap<String, u64>,
    totals: [u64; COUNT],
    last: [Option<OffsetDateTime>; COUNT],
    is_counted: bool,
    /// How many messages more each family had at the last count; since [`Self::owed`] where there is such.
    grown: [u64; COUNT],
    /// From that sequence on growth is not all that came, and that has not been counted yet.
    owed: Option<u64>,
}

/// Where a stream stood when it was counted. The same place needs no count again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// When the stream was made: another one counts anew.
    pub created: String,
    pub last_seq: u64,
    pub messages: u64,
}

/// What has come from one count to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// For each family that has grown the filters whose last messages say when it did.
    pub asked: Vec<(DataType, Vec<String>)>,
    /// Subjects of the families, and how many messages more each has.
    pub gained: Vec<(String, u64)>,
    pub recount: Option<Recount>,
}

/// Some messages have gone since the count before, so that growth does not say how many have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recount {
    /// The first sequence that was not there then.
    pub from: u64,
    /// The families that the stream holds, and their filters.
    pub filters: Vec<(DataType, Vec<String>)>,
}

impl FamilyCounts {
    /// Whether there is nothing to count at that place.
    pub fn is_known(&self, place: &Place) -> bool {
        self.counted.as_ref() == Some(place) && self.owed.is_none()
    }

    /// Takes a count, and gives what has come since the one before.
    pub fn count(&mut self, place: Place, held: BTreeMap<String, u64>) -> Growth {
        let is_first = self.counted.as_ref().is_none_or(|before| before.created != place.created);
        if is_first {
            self.held.clear();
            self.owed = None;
            // What a stream of that name held before has come all the same.
        }
        let mut grown: [Vec<String>; COUNT] = Default::default();
        let (mut gained, mut gained_by_all) = (vec![], 0);
        if self.owed.is_none() {
            self.grown = Default::default();
        }
        for (subject, messages) in &held {
            let growth = messages.saturating_sub(self.held.get(subject).copied().unwrap_or(0));
            gained_by_all += growth;
            let Some(at) = DataType::of_subject(subject).and_then(position) else { continue };
            if growth > 0 {
                self.totals[at] += growth;
                self.grown[at] += growth;
                grown[at].push(subject.clone());
                gained.push((subject.clone(), growth));
            }
        }
        let before = self.counted.as_ref().filter(|_| !is_first).map_or(place.last_seq, |before| before.last_seq);
        let is_short = place.last_seq.saturating_sub(before) > gained_by_all;
        self.owed = self.owed.or(is_short.then_some(before + 1));
        let recount = self.owed.map(|from| Recount { from, filters: filters(held.keys()) });
        let was_known = self.is_counted;
        self.held = held.into_iter().collect();
        (self.counted, self.is_counted) = (Some(place), true);
        let asked = DataType::ALL.into_iter().zip(grown).filter_map(|(family, subjects)| {
            let filters = match subjects.len() {
                0 => return None,
                few if few <= if was_known { ASKED_EACH } else { ASKED_AT_START } => subjects,
                _ if was_known => tokens(&subjects),
                _ => return None,
            };
            Some((family, filters))
        });
        Growth { asked: asked.collect(), gained, recount }
    }

    /// Every family was recounted; what is not comes with the next count.
    pub fn settled(&mut self) {
        self.owed = None;
    }

    /// So many messages of the family have really come since the recount begins. Gives whether that is
    /// more than growth showed.
    pub fn recounted(&mut self, family: DataType, came: u64) -> bool {
        let Some(at) = position(family) else { return false };
        let unseen = came.saturating_sub(self.grown[at]);
        self.totals[at] += unseen;
        self.grown[at] += unseen;
        unseen > 0
    }

    /// Subjects of which the stream held messages when it was counted last.
    pub fn held(&self) -> impl Iterator<Item = &str> {
        self.held.keys().map(String::as_str)
    }

    /// A message of the family came at that time.
    pub fn saw(&mut self, family: DataType, at: OffsetDateTime) {
        if let Some(position) = position(family) {
            self.last[position] = self.last[position].max(Some(at));
        }
    }

    /// Messages of each family that have come, in the order of [`DataType::ALL`]; nothing before the first count.
    pub fn totals(&self) -> Option<[u64; COUNT]> {
        self.is_counted.then_some(self.totals)
    }

    /// Each family with the messages that have come, and seconds since the last one where that is known;
    /// nothing before the first count.
    pub fn so_far(&self, now: OffsetDateTime) -> Vec<(DataType, u64, Option<f64>)> {
        if !self.is_counted {
            return vec![];
        }
        let age = |at: OffsetDateTime| (now - at).as_seconds_f64().max(0.0);
        let of = |(at, family): (usize, DataType)| (family, self.totals[at], self.last[at].map(age));
        DataType::ALL.into_iter().enumerate().map(of).collect()
    }
}

fn position(family: DataType) -> Option<usize> {
    DataType::ALL.into_iter().position(|other| other == family)
}

/// Each family that one of the subjects belongs to, with filters for it.
fn filters<'a>(subjects: impl Iterator<Item = &'a String>) -> Vec<(DataType, Vec<String>)> {
    let mut of: [Vec<String>; COUNT] = Default::default();
    for subject in subjects {
        if let Some(at) = DataType::of_subject(subject).and_then(position) {
            of[at].push(subject.clone());
        }
    }
    let each = DataType::ALL.into_iter().zip(of).map(|(family, subjects)| (family, tokens(&subjects)));
    each.filter(|(_, filters)| !filters.is_empty()).collect()
}

/// A filter for each first token.
fn tokens(subjects: &[String]) -> Vec<String> {
    let mut tokens: Vec<_> =
        subjects.iter().filter_map(|subject| Some(format!("{}.>", subject.split_once('.')?.0))).collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(created: &str, last_seq: u64) -> Place {
        Place { created: created.into(), last_seq, messages: last_seq }
    }

    fn held(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(subject, count)| ((*subject).to_owned(), *count)).collect()
    }

    fn counted(counts: &mut FamilyCounts, place: Place, held: BTreeMap<String, u64>) -> Vec<(DataType, Vec<String>)> {
        counts.count(place, held).asked
    }

    fn trades(counts: &FamilyCounts) -> u64 {
        let all = counts.so_far(OffsetDateTime::UNIX_EPOCH);
        all.into_iter().find(|(family, ..)| *family == DataType::Trade).unwrap().1
    }

    #[test]
    fn growth_is_added_up_and_what_goes_is_not_taken_away() {
        let mut counts = FamilyCounts::default();
        assert!(counts.so_far(OffsetDateTime::UNIX_EPOCH).is_empty());
        let asked = counted(&mut counts, place("1", 5), held(&[("trade-data.a", 3), ("trade.b", 1), ("other.x", 1)]));
        assert_eq!(asked, [(DataType::Trade, vec!["trade-data.a".to_owned(), "trade.b".to_owned()])]);
        assert_eq!(trades(&counts), 4);
        assert!(counts.is_known(&place("1", 5)) && !counts.is_known(&place("1", 6)));
        assert!(counted(&mut counts, place("1", 5), held(&[("trade-data.a", 1), ("trade.b", 1)])).is_empty());
        assert_eq!(trades(&counts), 4, "a purge is no message");
        counts.count(place("1", 8), held(&[("trade-data.a", 3), ("trade.b", 2)]));
        assert_eq!(trades(&counts), 7);
        counts.count(place("2", 2), held(&[("trade-data.a", 2)]));
        assert_eq!(trades(&counts), 9, "another stream of that name begins anew");
    }

    #[test]
    fn what_came_while_others_went_is_counted_from_where_the_count_before_ended() {
        let mut counts = FamilyCounts::default();
        let first = held(&[("trade-data.a", 3), ("trade.b", 1), ("other.x", 1)]);
        assert_eq!(counts.count(place("1", 5), first).recount, None, "nobody knows what was before");
        let grown = held(&[("trade-data.a", 4), ("trade.b", 1), ("other.x", 2)]);
        assert_eq!(counts.count(place("1", 7), grown).recount, None, "growth says it all");
        // Four came, and as many went.
        let full = held(&[("trade-data.a", 5), ("other.x", 2)]);
        let recount = counts.count(place("1", 11), full).recount.unwrap();
        let filters = vec![(DataType::Trade, vec!["trade-data.>".to_owned()])];
        assert_eq!(recount, Recount { from: 8, filters });
        assert_eq!(trades(&counts), 6);
        counts.recounted(DataType::Trade, 4);
        assert_eq!(trades(&counts), 9);
        counts.recounted(DataType::Trade, 4);
        assert_eq!(trades(&counts), 9, "once");
        counts.settled();
        assert!(counts.is_known(&place("1", 11)));
        // Nobody answers in time, so that the next count begins where this one did.
        let recount = counts.count(place("1", 21), held(&[("trade-data.a", 6)])).recount.unwrap();
        assert!(recount.from == 12 && !counts.is_known(&place("1", 21)));
        let recount = counts.count(place("1", 22), held(&[("trade-data.a", 7)])).recount.unwrap();
        assert_eq!((recount.from, trades(&counts)), (12, 11));
        counts.recounted(DataType::Trade, 11);
        counts.settled();
        assert_eq!(trades(&counts), 20);
        assert_eq!(counts.count(place("1", 23), held(&[("trade-data.a", 8)])).recount, None);
        assert_eq!(trades(&counts), 21);
        let again = counts.count(place("2", 50), held(&[("trade-data.a", 50)]));
        assert_eq!(again.recount, None, "another stream begins anew");
    }

    #[test]
    fn few_subjects_are_asked_for_each_and_many_at_once() {
        let many: Vec<_> = (0..ASKED_AT_START + 1).map(|at| format!("trade-data.{at}")).collect();
        let with = |count: u64| many.iter().map(|subject| (subject.clone(), count)).collect::<BTreeMap<_, _>>();
        let mut counts = FamilyCounts::default();
        assert!(counted(&mut counts, place("1", 1), with(1)).is_empty(), "the store would be read backwards");
        let asked = counted(&mut counts, place("1", 2), with(2));
        assert_eq!(asked, [(DataType::Trade, vec!["trade-data.>".to_owned()])]);
    }

    #[test]
    fn the_last_message_is_the_latest_that_was_seen() {
        let mut counts = FamilyCounts::default();
        counts.count(place("1", 1), held(&[("trade-data.a", 1)]));
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        counts.saw(DataType::Trade, at(100));
        counts.saw(DataType::Trade, at(90));
        let ages: Vec<_> =
            counts.so_far(at(103)).into_iter().filter_map(|(family, _, age)| Some((family, age?))).collect();
        assert_eq!(ages, [(DataType::Trade, 3.0)]);
        let ages = counts.so_far(at(50)).into_iter().filter_map(|(.., age)| age).collect::<Vec<_>>();
        assert_eq!(ages, [0.0], "a clock that was set back makes no age below nothing");
    }
}
