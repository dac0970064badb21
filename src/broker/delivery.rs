//! What a consumer of JetStream sends besides messages, and the place of each message, which stands in
//! the subject for its acknowledgement.

use async_nats::{Message, StatusCode};

use super::point::Nanos;

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// In the stream.
    pub sequence: u64,
    /// Among what the consumer was sent, from 1 on without a hole.
    pub delivered: u64,
    pub time: Nanos,
    /// How many more the consumer had to send then.
    pub pending: u64,
}

impl Place {
    /// `$JS.ACK.<stream>.<consumer>.<attempts>.<sequence>.<delivered>.<time>.<pending>`, or the same with
    /// domain and account behind `ACK`, and maybe more at its end.
    pub fn of(reply: &str) -> Option<Self> {
        let rest = reply.strip_prefix("$JS.ACK.")?;
        let skipped = match rest.bytes().filter(|byte| *byte == b'.').count() {
            6 => 3,
            8.. => 5,
            _ => return None,
        };
        // Byte by byte: every message that is read has one.
        let mut bytes = rest.bytes();
        for _ in 0..skipped {
            bytes.find(|byte| *byte == b'.')?;
        }
        let mut number = || {
            let mut digits = bytes.by_ref().take_while(|byte| *byte != b'.');
            let (number, count) = digits.try_fold((0u64, 0), |(number, count), byte| {
                let digit = char::from(byte).to_digit(10)?;
                Some((number.checked_mul(10)?.checked_add(digit.into())?, count + 1))
            })?;
            (count > 0).then_some(number)
        };
        let (sequence, delivered, time, pending) = (number()?, number()?, number()?, number()?);
        Some(Self { sequence, delivered, time: Nanos(i64::try_from(time).ok()?), pending })
    }
}

/// What came on the subject that a consumer sends to.
#[derive(Debug)]
pub enum Delivery {
    Message(Place, Message),
    Heartbeat,
    /// A request for messages is over; so much of it was not used.
    Over {
        messages: u64,
        bytes: u64,
    },
    /// Nobody sends any more.
    Ended(String),
}

impl Delivery {
    pub fn of(message: Message) -> Self {
        let Some(status) = message.status else {
            return match message.reply.as_deref().and_then(Place::of) {
                Some(place) => Self::Message(place, message),
                None => Self::Ended("a message without a place came".into()),
            };
        };
        let words = message.description.clone().unwrap_or_default();
        let unused = |name: &str| message.headers.as_ref()?.get(name)?.as_str().parse::<u64>().ok();
        let over = || Self::Over {
            messages: unused("Nats-Pending-Messages").unwrap_or(u64::MAX),
            bytes: unused("Nats-Pending-Bytes").unwrap_or(u64::MAX),
        };
        match status {
            StatusCode::IDLE_HEARTBEAT => Self::Heartbeat,
            StatusCode::TIMEOUT | StatusCode::NOT_FOUND => over(),
            StatusCode::REQUEST_TERMINATED => {
                let words = words.to_ascii_lowercase();
                let is_limit = words.contains("maxbytes") || words.contains("max bytes") || words.contains("batch");
                if is_limit { over() } else { Self::Ended(words) }
            }
            _ => Self::Ended(format!("{status} {words}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_every_server_are_read() {
        let place = Place { sequence: 12, delivered: 3, time: Nanos(1_700_000_000_000_000_001), pending: 4 };
        for reply in [
            "$JS.ACK.S.C.1.12.3.1700000000000000001.4",
            "$JS.ACK.hub.ACC.S.C.1.12.3.1700000000000000001.4",
            "$JS.ACK.hub.ACC.S.C.1.12.3.1700000000000000001.4.random",
            "$JS.ACK._.ACC.S.C.1.12.3.1700000000000000001.4.x.y",
        ] {
            assert_eq!(Place::of(reply), Some(place), "{reply}");
        }
        for other in [
            "$JS.ACK.S.C.1..3.4.5",
            "$JS.ACK.S.C.1.2.3.4.99999999999999999999",
            "",
            "$JS.ACK.",
            "$JS.ACK.S.C.1.2.3.4",
            "$JS.ACK.S.C.1.x.3.4.5",
            "_INBOX.1.2.3.4.5.6.7.8.9",
        ] {
            assert_eq!(Place::of(other), None, "{other}");
        }
    }
}
