//! What a nats-server that has stopped in order says about a stream in the files that it leaves: how many
//! messages it holds, and when they expire (read on 2.10 to 2.15). The next server counts them again before
//! any client is there, so that a difference is nobody's doing but that of who touched the files.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json;
use crate::store_layout::{DESCRIPTION, EXPIRIES, INDEX, MESSAGES};

/// What an index begins with, and the versions of it that begin alike: 1 of 2.10 to 4 of 2.15.
const MAGIC: u8 = 11;
const VERSIONS: std::ops::RangeInclusive<u8> = 1..=4;
/// The longest beginning of an index: magic, version and six numbers.
const BEGINNING: u64 = 2 + 6 * 10;
/// The longest list of expiries that is read.
const MOST_EXPIRIES: u64 = 16 << 20;
/// So many steps of the expiries are kept at most.
const STEPS: usize = 64;

/// What a stream held when its server stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub messages: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    /// When the first message came, in nanoseconds since 1970.
    pub first_at: u64,
    /// How old messages get, in nanoseconds; 0 where they stay.
    pub max_age: u64,
    /// From then on, in nanoseconds since 1970, so many messages may have expired by their own time to live.
    pub expiries: Vec<(u64, u64)>,
}

impl Held {
    /// What the files in the directory of a stream say; [`None`] where that is not known for sure.
    pub fn of(stream: &Path) -> Option<Self> {
        let messages = stream.join(MESSAGES);
        let config = json::object_of(&fs::read(stream.join(DESCRIPTION[0])).ok()?).ok()?;
        let allows = |what: &str| config.get(what) == Some(&Value::Bool(true));
        if allows("allow_msg_schedules") {
            // What is due goes and comes while the server starts.
            return None;
        }
        let held = Self::in_index(&beginning(&messages.join(INDEX))?)?;
        let max_age = config.get("max_age").and_then(Value::as_u64).unwrap_or_default();
        let expiries = if allows("allow_msg_ttl") { expiries_in(&messages)? } else { vec![] };
        Some(Self { max_age, expiries, ..held })
    }

    fn in_index(index: &[u8]) -> Option<Self> {
        let [magic, version, rest @ ..] = index else { return None };
        if *magic != MAGIC || !VERSIONS.contains(version) {
            return None;
        }
        let mut rest = rest;
        let messages = unsigned(&mut rest)?;
        let _bytes = unsigned(&mut rest)?;
        let first_seq = unsigned(&mut rest)?;
        let first_at = signed(&mut rest)?;
        let last_seq = unsigned(&mut rest)?;
        let has_room = messages <= last_seq.checked_add(1)?.saturating_sub(first_seq);
        has_room.then_some(Self {
            messages,
            first_seq,
            last_seq,
            first_at: first_at.try_into().unwrap_or_default(),
            ..Self::default()
        })
    }

    /// How many of them may have expired by `now`, in nanoseconds since 1970. `first_young` gives the first
    /// sequence that is known to be younger than a time, in milliseconds.
    pub fn may_have_expired(&self, now: u64, first_young: impl Fn(u64) -> Option<u64>) -> u64 {
        let by_themselves = self.expiries.iter().rev().find(|(at, _)| *at <= now).map_or(0, |(_, count)| *count);
        let by_age = match now.checked_sub(self.max_age) {
            Some(cutoff) if self.max_age > 0 && self.first_at <= cutoff => {
                let young = first_young(cutoff.div_ceil(1_000_000));
                young.map_or(self.messages, |young| young.saturating_sub(self.first_seq))
            }
            _ => 0,
        };
        by_themselves.saturating_add(by_age).min(self.messages)
    }
}

fn beginning(path: &Path) -> Option<Vec<u8>> {
    let mut text = vec![];
    std::io::Read::read_to_end(&mut std::io::Read::take(fs::File::open(path).ok()?, BEGINNING), &mut text).ok()?;
    Some(text)
}

/// Nothing where no message has a time to live.
fn expiries_in(messages: &Path) -> Option<Vec<(u64, u64)>> {
    let path = messages.join(EXPIRIES);
    match fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(vec![]),
        Ok(metadata) if metadata.len() <= MOST_EXPIRIES => steps(&fs::read(path).ok()?),
        _ => None,
    }
}

/// Reads version, number and highest sequence, then the time and sequence of each message.
fn steps(wheel: &[u8]) -> Option<Vec<(u64, u64)>> {
    let (1, rest) = (*wheel.first()?, wheel.get(1..)?) else { return None };
    let count = u64::from_le_bytes(*rest.first_chunk()?);
    let mut rest = rest.get(16..)?;
    let mut times = vec![];
    for _ in 0..count {
        times.push(u64::try_from(signed(&mut rest)?).unwrap_or_default());
        unsigned(&mut rest)?;
    }
    times.sort_unstable();
    let step = times.len().div_ceil(STEPS).max(1);
    // Each counts all that expire before the next one.
    Some(
        times
            .chunks(step)
            .scan(0, |sum, some| {
                *sum += some.len() as u64;
                Some((some[0], *sum))
            })
            .collect(),
    )
}

/// A number as Go's encoding/binary writes it.
fn unsigned(text: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for place in 0..10 {
        let (byte, rest) = text.split_first()?;
        *text = rest;
        value |= u64::from(byte & 0x7f).checked_shl(7 * place)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn signed(text: &mut &[u8]) -> Option<i64> {
    let value = unsigned(text)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(mut value: u64) -> Vec<u8> {
        let mut text = vec![];
        while value >= 0x80 {
            text.push(value as u8 | 0x80);
            value >>= 7;
        }
        text.push(value as u8);
        text
    }

    fn index(messages: u64, first_seq: u64, first_at: u64, last_seq: u64) -> Vec<u8> {
        let numbers = [messages, 123_456, first_seq, first_at * 2, last_seq, first_at * 2];
        [vec![MAGIC, 2], numbers.map(number).concat()].concat()
    }

    fn wheel(times: &[u64]) -> Vec<u8> {
        let count = (times.len() as u64).to_le_bytes();
        let entries = times.iter().flat_map(|at| [number(at * 2), number(7)].concat());
        [vec![1], count.to_vec(), vec![0; 8]].concat().into_iter().chain(entries).collect()
    }

    #[test]
    fn what_the_server_wrote_is_read() {
        let stream = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(stream.path().join(name), text).unwrap();
        fs::create_dir(stream.path().join("msgs")).unwrap();
        write("meta.inf", br#"{"name":"A","max_age":5,"allow_msg_ttl":true}"#);
        write("msgs/index.db", &index(290, 3, 1_800_000_000_000_000_000, 300));
        write("msgs/thw.db", &wheel(&[9, 4]));
        let held = Held {
            messages: 290,
            first_seq: 3,
            last_seq: 300,
            first_at: 1_800_000_000_000_000_000,
            max_age: 5,
            expiries: vec![(4, 1), (9, 2)],
        };
        assert_eq!(Held::of(stream.path()), Some(held));
        write("msgs/thw.db", &wheel(&[9, 4])[..18]);
        assert_eq!(Held::of(stream.path()), None, "it is not known what expires");
        write("meta.inf", br#"{"name":"A","allow_msg_schedules":true}"#);
        assert_eq!(Held::of(stream.path()), None);
    }

    #[test]
    fn nonsense_is_no_index() {
        let whole = index(290, 3, 5, 300);
        assert!(Held::in_index(&whole).is_some());
        for length in 0..6 {
            assert_eq!(Held::in_index(&whole[..length]), None);
        }
        for (at, byte) in [(0, 12), (1, 0), (1, 5)] {
            let mut other = whole.clone();
            other[at] = byte;
            assert_eq!(Held::in_index(&other), None);
        }
        assert_eq!(Held::in_index(&index(301, 1, 5, 300)), None, "more messages than sequences");
        assert_eq!(Held::in_index(&[[MAGIC, 2].as_slice(), &[0xff; 60]].concat()), None);
    }

    #[test]
    fn what_may_have_expired_is_counted_with_its_time() {
        let held = Held { messages: 50, first_seq: 100, last_seq: 200, first_at: 1_000_000_000, ..Held::default() };
        let unknown = |_| None;
        assert_eq!(held.may_have_expired(u64::MAX, unknown), 0, "they stay");
        let aged = Held { max_age: 1_000_000_000, ..held.clone() };
        assert_eq!(aged.may_have_expired(1_999_999_999, unknown), 0);
        assert_eq!(aged.may_have_expired(2_000_000_000, unknown), 50);
        assert_eq!(aged.may_have_expired(2_500_000_000, |at| (at == 1_500).then_some(110)), 10);
        let themselves = Held { expiries: vec![(10, 3), (20, 6)], ..held };
        for (now, count) in [(9, 0), (10, 3), (19, 3), (20, 6)] {
            assert_eq!(themselves.may_have_expired(now, unknown), count);
        }
        let many: Vec<_> = (1..=1_000).collect();
        let steps = steps(&wheel(&many)).unwrap();
        assert!(steps.len() <= STEPS);
        assert_eq!((steps[0], steps.last().map(|(_, count)| *count)), ((1, 16), Some(1_000)));
    }
}
