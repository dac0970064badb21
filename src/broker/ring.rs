//! The last events of a subject, encoded once and shared by everybody who follows it.
//!
//! It is bounded in bytes. A reader that falls out of it is *overtaken*: what it has not taken is gone
//! from here, though not from the stream.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::feed::{Gap, GapReason};
use super::position::Position;

/// One event, as each kind of client takes it.
#[derive(Clone, Debug)]
pub struct Event {
    /// When its stream was made.
    pub created: i64,
    /// Whoever has seen the event has seen the stream up to there.
    pub sequence: u64,
    pub gap: Option<Gap>,
    /// `data: {…}`, `id: …` and an empty line.
    sse: Bytes,
    /// Where in there the JSON object and the id stand.
    json: (usize, usize),
    id: (usize, usize),
}

impl Event {
    pub fn message(stream: &str, created: i64, record: &super::Record) -> Self {
        let sse = Vec::with_capacity(record.size() * 4 / 3 + 256);
        Self::of(sse, (stream, created, record.sequence), None, |out| record.write(out, stream))
    }

    /// `created` is that of the stream that is read on. The id of a gap lies behind it.
    pub fn gap(stream: &str, created: i64, gap: Gap, behind: u64) -> Self {
        let sse = b"event: gap\n".to_vec();
        Self::of(sse, (stream, created, behind), Some(gap), |out| {
            let json = serde_json::json!({
                "stream": stream, "from": gap.from, "to": gap.to, "reason": gap.reason.as_str(),
            });
            out.extend_from_slice(json.to_string().as_bytes());
        })
    }

    fn of(
        mut out: Vec<u8>,
        (stream, created, sequence): (&str, i64, u64),
        gap: Option<Gap>,
        json: impl FnOnce(&mut Vec<u8>),
    ) -> Self {
        out.extend_from_slice(b"data: ");
        let from = out.len();
        json(&mut out);
        let to = out.len();
        out.extend_from_slice(b"\nid: ");
        let id = out.len();
        Position::write(&mut out, stream, created, sequence);
        let id = (id, out.len());
        out.extend_from_slice(b"\n\n");
        out.shrink_to_fit();
        Self { created, sequence, gap, sse: out.into(), json: (from, to), id }
    }

    pub fn sse(&self) -> Bytes {
        self.sse.clone()
    }

    /// The object alone.
    pub fn json(&self) -> &[u8] {
        &self.sse[self.json.0..self.json.1]
    }

    /// With it a reader resumes behind the event.
    pub fn id(&self) -> &[u8] {
        &self.sse[self.id.0..self.id.1]
    }

    /// Whether it is news to somebody who has seen so much of the stream made then, and has seen it after that.
    /// Whoever has caught up may be ahead of the ring.
    pub fn is_behind(&self, seen: &mut (i64, u64)) -> bool {
        let steps_back = self.gap.is_some_and(|gap| gap.reason == GapReason::EndLost);
        let is_news = self.created != seen.0 || self.sequence > seen.1 || steps_back;
        if is_news {
            *seen = (self.created, self.sequence);
        }
        is_news
    }

    fn size(&self) -> usize {
        self.sse.len() + 128
    }
}

/// What a reader finds at its place.
#[derive(Debug)]
pub enum Found {
    Events(Vec<Arc<Event>>),
    Nothing,
    /// The events from its place on are gone, up to that sequence.
    Overtaken {
        to: u64,
    },
}

/// Readers have places, which count all events that ever were.
#[derive(Debug)]
pub struct Ring {
    events: VecDeque<Arc<Event>>,
    /// The place of the first of them.
    first: u64,
    bytes: usize,
    /// The stream that is followed.
    created: i64,
    /// All that there was of the stream behind this sequence has its event here.
    floor: u64,
    /// The place from which on sequences only rise, in that stream.
    risen: u64,
    /// Where those are that the ring waits for.
    readers: HashMap<u64, u64>,
}

impl Ring {
    pub fn new(created: i64, floor: u64) -> Self {
        Self { events: VecDeque::new(), first: 0, bytes: 0, created, floor, risen: 0, readers: HashMap::new() }
    }

    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The place of the next event.
    pub fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Takes the event in, if there is room for it once those are gone that every reader has taken.
    pub fn push(&mut self, event: &Arc<Event>, most: usize) -> bool {
        let needed = self.readers.values().min().copied().unwrap_or(u64::MAX);
        while self.bytes + event.size() > most && !self.events.is_empty() {
            if self.first >= needed {
                return false;
            }
            self.drop_first();
        }
        self.put(event);
        true
    }

    /// Takes the event in whoever is overtaken by that.
    pub fn force(&mut self, event: &Arc<Event>, most: usize) {
        while self.bytes + event.size() > most && !self.events.is_empty() {
            self.drop_first();
        }
        self.put(event);
        let first = self.first;
        self.readers.retain(|_, place| *place >= first);
    }

    fn put(&mut self, event: &Arc<Event>) {
        let steps_back = event.gap.is_some_and(|gap| gap.reason == GapReason::EndLost);
        if event.created != self.created || steps_back {
            // What is followed from here on begins with this event.
            (self.created, self.floor, self.risen) = (event.created, event.sequence, self.end());
        }
        self.bytes += event.size();
        self.events.push_back(event.clone());
    }

    fn drop_first(&mut self) {
        let Some(event) = self.events.pop_front() else { return };
        self.first += 1;
        self.bytes -= event.size();
        if self.first > self.risen {
            self.floor = self.floor.max(event.sequence);
        }
    }

    /// The place of somebody who has everything up to that sequence, if the rest is here.
    pub fn place_behind(&self, created: i64, sequence: u64) -> Option<u64> {
        if created != self.created || sequence < self.floor {
            return None;
        }
        let older = self.risen.saturating_sub(self.first) as usize;
        let is_seen = |event: &&Arc<Event>| event.sequence <= sequence;
        // Most are near the end.
        let unseen = self.events.range(older..).rev().take_while(|event| !is_seen(event)).count();
        Some(self.end() - unseen as u64)
    }

    /// The ring waits for that reader, for a while, when it is full.
    pub fn wait_for(&mut self, reader: u64, place: u64) {
        self.readers.insert(reader, place);
    }

    pub fn forget(&mut self, reader: u64) {
        self.readers.remove(&reader);
    }

    /// Events from that place on, not many more bytes than that; the reader has taken them.
    pub fn take(&mut self, reader: u64, place: u64, (most, most_bytes): (usize, usize)) -> Found {
        if place < self.first {
            self.forget(reader);
            let to = self.events.back().map_or(self.floor, |event| event.sequence);
            return Found::Overtaken { to };
        }
        let mut bytes = 0;
        let from = (place - self.first) as usize;
        let fits = |event: &&Arc<Event>| {
            let fits = bytes < most_bytes;
            bytes += event.size();
            fits
        };
        let events: Vec<_> =
            self.events.range(from.min(self.events.len())..).take(most).take_while(fits).cloned().collect();
        if let Some(known) = self.readers.get_mut(&reader) {
            *known = place + events.len() as u64;
        }
        if events.is_empty() { Found::Nothing } else { Found::Events(events) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Nanos, Record};

    fn event(created: i64, sequence: u64) -> Arc<Event> {
        let record = Record { subject: "a.b".into(), payload: "1".into(), headers: None, sequence, time: Nanos(0) };
        Arc::new(Event::message("S", created, &record))
    }

    fn sequences(found: Found) -> Vec<u64> {
        match found {
            Found::Events(events) => events.iter().map(|event| event.sequence).collect(),
            other => panic!("{other:?}"),
        }
    }

    const ALL: (usize, usize) = (usize::MAX, usize::MAX);

    #[test]
    fn an_event_is_text_for_event_sources_with_an_id_to_resume_from() {
        let text = String::from_utf8(event(5, 7).sse().to_vec()).unwrap();
        let (data, id) = text.strip_prefix("data: ").unwrap().split_once("\nid: ").unwrap();
        assert_eq!(data.as_bytes(), event(5, 7).json());
        assert_eq!(id.trim_end().as_bytes(), event(5, 7).id());
        let position: Position = id.trim_end().parse().unwrap();
        assert_eq!((position.created, position.sequence), (5, 7));
        let gap = Gap { from: 1, to: None, reason: GapReason::StreamRecreated };
        let text = String::from_utf8(Event::gap("S", 6, gap, 0).sse().to_vec()).unwrap();
        assert!(text.starts_with("event: gap\ndata: {\"stream\":\"S\",\"from\":1,\"to\":null,\"reason\":\"stream_rec"));
    }

    #[test]
    fn readers_join_behind_what_they_have() {
        let mut ring = Ring::new(1, 10);
        for sequence in [12, 15, 16] {
            assert!(ring.push(&event(1, sequence), usize::MAX));
        }
        for (behind, rest) in [(10, &[12, 15, 16][..]), (11, &[12, 15, 16]), (12, &[15, 16]), (15, &[16])] {
            let place = ring.place_behind(1, behind).unwrap();
            assert_eq!(sequences(ring.take(1, place, ALL)), rest, "{behind}");
        }
        assert_eq!(ring.place_behind(1, 16), Some(3));
        assert_eq!(ring.place_behind(1, 9), None, "there may be more before");
        assert_eq!(ring.place_behind(2, 12), None, "another stream of that name");
        assert!(matches!(ring.take(1, 3, ALL), Found::Nothing));
    }

    #[test]
    fn who_is_ahead_of_the_ring_is_sent_nothing_again() {
        let mut ring = Ring::new(1, 10);
        let place = ring.place_behind(1, 12).unwrap();
        let lost = Arc::new(Event::gap("S", 1, Gap { from: 12, to: Some(13), reason: GapReason::EndLost }, 11));
        let anew = Arc::new(Event::gap("S", 2, Gap { from: 13, to: None, reason: GapReason::StreamRecreated }, 0));
        for event in [event(1, 11), event(1, 12), event(1, 13), lost, event(1, 12), anew, event(2, 1)] {
            assert!(ring.push(&event, usize::MAX));
        }
        let Found::Events(mut events) = ring.take(1, place, ALL) else { panic!() };
        let mut seen = (1, 12);
        events.retain(|event| event.is_behind(&mut seen));
        assert_eq!(sequences(Found::Events(events)), [13, 11, 12, 0, 1]);
    }

    #[test]
    fn a_full_ring_keeps_what_a_reader_has_not_taken_until_it_is_forced() {
        let most = 3 * event(1, 1).size();
        let mut ring = Ring::new(1, 0);
        ring.wait_for(7, 0);
        for sequence in 1..=3 {
            assert!(ring.push(&event(1, sequence), most));
        }
        assert!(!ring.push(&event(1, 4), most));
        assert_eq!(sequences(ring.take(7, 0, (1, usize::MAX))), [1]);
        assert!(ring.push(&event(1, 4), most));
        assert_eq!(ring.floor(), 1);
        ring.force(&event(1, 5), most);
        assert!(matches!(ring.take(7, 1, ALL), Found::Overtaken { to: 5 }));
        assert!(ring.push(&event(1, 6), most), "it waits for nobody any more");
        assert_eq!(ring.place_behind(1, 2), None);
        assert!(ring.place_behind(1, 3).is_some());
    }

    #[test]
    fn an_event_that_is_too_large_for_the_ring_is_alone_in_it() {
        let mut ring = Ring::new(1, 0);
        assert!(ring.push(&event(1, 1), 1) && ring.push(&event(1, 2), 1));
        assert_eq!(sequences(ring.take(1, 1, ALL)), [2]);
    }

    #[test]
    fn a_stream_that_was_made_anew_is_another_one() {
        let mut ring = Ring::new(1, 10);
        assert!(ring.push(&event(1, 12), usize::MAX));
        let gap = Gap { from: 13, to: None, reason: GapReason::StreamRecreated };
        assert!(ring.push(&Arc::new(Event::gap("S", 2, gap, 0)), usize::MAX));
        assert!(ring.push(&event(2, 1), usize::MAX));
        assert_eq!(ring.place_behind(1, 12), None);
        let place = ring.place_behind(2, 0).unwrap();
        assert_eq!(sequences(ring.take(1, place, ALL)), [1], "who has resumed behind the gap has it already");
        assert_eq!(sequences(ring.take(1, 1, ALL)), [0, 1], "who came along is sent the gap");
    }
}
