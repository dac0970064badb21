//! What the health check counts, as `/health` shows it.

use serde_json::Value;

use crate::support::*;

/// More subjects than are counted by family.
const MANY: usize = 10_001;

/// Messages of each family, in the order of the families.
fn families(broker: &Broker) -> Vec<Option<u64>> {
    let health = broker.health();
    let families = health["observed"]["families"].as_array().cloned().unwrap_or_default();
    families.iter().map(|family| family.get("messages").and_then(Value::as_u64)).collect()
}

#[test]
fn the_messages_of_each_family_are_counted_unless_their_subjects_are_too_many() {
    for version in ["2.10.26", "2.12.8", CURRENT] {
        let mut broker = Broker::with_server(version);
        broker.set("HEALTH_CHECK_INTERVAL", "200ms").start();
        let counted: Vec<_> = (1..=SUBJECTS.len() as u64).map(Some).collect();
        block_on(async {
            let jetstream = JetStream(broker.client().await);
            for (family, subject) in SUBJECTS.iter().enumerate() {
                for number in 0..=family {
                    jetstream.publish(&format!("{subject}.{number}"), "x").await;
                }
            }
        });
        wait_for("all are counted", || (families(&broker) == counted).then_some(()));
        let consumers = &broker.health()["observed"]["streams"][0]["consumers"];
        assert_eq!(consumers, 0, "{version}: counting leaves nothing behind");
        if version == CURRENT {
            block_on(async {
                let client = broker.client().await;
                for number in 0..MANY {
                    client.publish(format!("{}.many.{number}", SUBJECTS[0]), "x".into()).await.unwrap();
                }
                JetStream(client).publish(SUBJECTS[1], "last").await;
            });
            wait_for("they are not counted", || (families(&broker) == [None; 8]).then_some(()));
        }
        assert_eq!(broker.stop(), Some(0));
    }
}
