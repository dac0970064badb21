//! What producers send: every message tells who sent it, and its bytes follow from that, so that a
//! reader can tell a whole one from a damaged one.

use fastrand::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub producer: u16,
    /// Counts the producer's messages from 0.
    pub n: u64,
}

impl Identity {
    /// What goes into `Nats-Msg-Id`.
    pub fn message_id(self) -> String {
        format!("{}-{}", self.producer, self.n)
    }

    pub fn parse(message_id: &str) -> Option<Self> {
        let (producer, n) = message_id.split_once('-')?;
        Some(Self { producer: producer.parse().ok()?, n: n.parse().ok()? })
    }

    /// The message's bytes; `length` is met unless the head alone is longer.
    pub fn payload(self, length: usize) -> Vec<u8> {
        let Self { producer, n } = self;
        let mut bytes = format!(r#"{{"producer":{producer},"n":{n},"length":{length},"fill":""#).into_bytes();
        let mut fill = Rng::with_seed(u64::from(producer) << 48 ^ n);
        while bytes.len() + 2 < length {
            bytes.push(fill.alphanumeric() as u8);
        }
        bytes.extend_from_slice(b"\"}");
        bytes
    }

    /// Whether these are the bytes that the producer sent.
    pub fn sent(self, payload: &[u8]) -> bool {
        let told: Option<serde_json::Value> = serde_json::from_slice(payload).ok();
        let length = told.and_then(|told| told["length"].as_u64());
        length.is_some_and(|length| self.payload(length as usize) == payload)
    }
}

#[test]
fn a_message_tells_who_sent_it_and_whether_it_is_whole() {
    let message = Identity { producer: 3, n: 17 };
    assert_eq!(Identity::parse(&message.message_id()), Some(message));
    let mut payload = message.payload(200);
    assert_eq!(payload.len(), 200);
    assert!(message.sent(&payload));
    assert!(!message.sent(&payload[..199]));
    payload[150] ^= 1;
    assert!(!message.sent(&payload));
    assert!(!Identity { producer: 3, n: 18 }.sent(&message.payload(200)));
}
