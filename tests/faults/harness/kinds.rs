//! Streams of every kind that clients make, with messages in several blocks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_nats::Client;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{Broker, JetStream, block_on, wait_for};

pub struct Kind {
    pub stream: &'static str,
    /// Under which its messages are.
    pub prefix: &'static str,
    /// Different subjects.
    pub subjects: usize,
    config: fn() -> Value,
    /// Whether it holds fewer messages by and by without anybody's request.
    pub dwindles: bool,
}

/// Of each kind.
pub const MESSAGES: usize = 300;
const LENGTH: usize = 2_000;
/// In nanoseconds.
const HOUR: u64 = 3_600_000_000_000;

pub const KINDS: [Kind; 10] = [
    Kind { stream: "LIMITS", prefix: "limits", subjects: 3, config: || json!({}), dwindles: false },
    Kind {
        stream: "KV_ONE",
        prefix: "$KV.ONE",
        subjects: MESSAGES,
        config: || json!({ "max_msgs_per_subject": 1, "allow_rollup_hdrs": true, "deny_delete": true, "discard": "new" }),
        dwindles: false,
    },
    Kind {
        stream: "KV_FIVE",
        prefix: "$KV.FIVE",
        subjects: MESSAGES / 5,
        config: || json!({ "max_msgs_per_subject": 5, "allow_rollup_hdrs": true, "deny_delete": true, "discard": "new" }),
        dwindles: false,
    },
    Kind {
        stream: "OBJ_STORE",
        prefix: "$O.STORE.C",
        subjects: 10,
        config: || json!({ "allow_rollup_hdrs": true, "discard": "new" }),
        dwindles: false,
    },
    Kind {
        stream: "ROLLUP",
        prefix: "rollup",
        subjects: 10,
        config: || json!({ "allow_rollup_hdrs": true, "max_msgs_per_subject": 100 }),
        dwindles: false,
    },
    Kind {
        stream: "WORK",
        prefix: "work",
        subjects: 3,
        config: || json!({ "retention": "workqueue" }),
        dwindles: true,
    },
    Kind {
        stream: "INTEREST",
        prefix: "interest",
        subjects: 3,
        config: || json!({ "retention": "interest" }),
        dwindles: true,
    },
    Kind { stream: "TTL", prefix: "ttl", subjects: 3, config: || json!({ "allow_msg_ttl": true }), dwindles: true },
    Kind {
        stream: "KV_AGED",
        prefix: "$KV.AGED",
        subjects: MESSAGES / 5,
        config: || json!({ "max_msgs_per_subject": 5, "allow_rollup_hdrs": true, "max_age": HOUR, "discard": "new" }),
        dwindles: true,
    },
    Kind {
        stream: "WORK_AGED",
        prefix: "aged",
        subjects: 3,
        config: || json!({ "retention": "workqueue", "max_age": HOUR }),
        dwindles: true,
    },
];

impl Kind {
    pub fn subject(&self, number: usize) -> String {
        format!("{}.{}", self.prefix, number % self.subjects)
    }

    pub async fn create(&self, jetstream: &JetStream) {
        // A quarter of the limit is the length of a block.
        let mut config = json!({
            "name": self.stream, "subjects": [format!("{}.>", self.prefix)], "storage": "file", "max_bytes": 1 << 20,
        });
        let own = (self.config)();
        config.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        let made = jetstream.ask(&format!("$JS.API.STREAM.CREATE.{}", self.stream), config).await;
        assert!(made["error"].is_null(), "{made}");
        if made["config"]["retention"] != "limits" {
            let consumer = json!({ "durable_name": "d", "ack_policy": "explicit" });
            let request = json!({ "stream_name": self.stream, "config": consumer });
            let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{}.d", self.stream);
            let made = jetstream.ask(&subject, request).await;
            assert!(made["error"].is_null(), "{made}");
        }
    }

    /// Publishes messages with these numbers.
    pub async fn publish(&self, jetstream: &JetStream, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let payload = vec![b'a' + (number % 26) as u8; LENGTH];
            jetstream.try_publish(&self.subject(number), payload).await.unwrap();
        }
    }

    /// Takes some of its messages and acknowledges them.
    pub async fn acknowledge(&self, client: &Client, some: usize) -> Option<()> {
        let inbox = client.new_inbox();
        let mut messages = client.subscribe(inbox.clone()).await.ok()?;
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{}.d", self.stream);
        let request = json!({ "batch": some, "no_wait": true }).to_string();
        client.publish_with_reply(next, inbox, request.into()).await.ok()?;
        for _ in 0..some {
            let Some(reply) = messages.next().await?.reply else { break };
            client.publish(reply, "+ACK".into()).await.ok()?;
        }
        client.flush().await.ok()
    }

    pub fn has_consumer(&self) -> bool {
        (self.config)()["retention"].is_string()
    }

    pub fn directory(&self, broker: &Broker) -> PathBuf {
        broker.store().join("jetstream/$G/streams").join(self.stream)
    }
}

/// Creates or fills all of them.
pub fn fill(broker: &Broker, numbers: std::ops::Range<usize>) {
    block_on(async {
        let jetstream = JetStream(broker.client().await);
        for kind in &KINDS {
            if numbers.start == 0 {
                kind.create(&jetstream).await;
            }
            kind.publish(&jetstream, numbers.clone()).await;
        }
    });
}

/// Waits until the supervisor has written down what it sees the streams hold.
pub fn wait_until_seen(broker: &Broker) {
    let held: BTreeMap<_, _> = block_on(async {
        let jetstream = JetStream(broker.client().await);
        let mut held = BTreeMap::new();
        for kind in &KINDS {
            held.insert(kind.stream, jetstream.info(kind.stream).await["state"]["messages"].clone());
        }
        held
    });
    wait_for("the streams are seen", || {
        let book = std::fs::read(broker.store().join(".unified-nats-integrity.json")).ok()?;
        let book: Value = serde_json::from_slice(&book).ok()?;
        held.iter().all(|(stream, messages)| book["marks"][stream]["messages"] == *messages).then_some(())
    });
}
