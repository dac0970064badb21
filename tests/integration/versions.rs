//! The versions of nats-server that are supported: start, provision, publish, stop.

use crate::support::*;

fn start_provision_publish_stop(version: &str) {
    let mut broker = Broker::with_server(version);
    broker.set("STREAM_MAX_AGE", "1h").set("STREAM_DUPLICATE_WINDOW", "60").start();
    block_on(async {
        let client = broker.client().await;
        assert_eq!(client.server_info().version, version);
        let jetstream = JetStream(client);
        for subject in SUBJECTS {
            jetstream.publish(subject, "x").await;
        }
    });
    let health = broker.output(&["health-check", "full"]);
    assert_eq!(health.status.code(), Some(0), "{}", String::from_utf8_lossy(&health.stdout));
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());

    // Again over what is there, with another limit.
    broker.set("STREAM_MAX_MSGS", "500000").start();
    block_on(async {
        let info = JetStream(broker.client().await).info("MARKET_DATA").await;
        assert_eq!((&info["state"]["messages"], &info["config"]["max_msgs"]), (&8.into(), &500_000.into()));
    });
    assert_eq!(broker.stop(), Some(0), "{}", broker.log());
}

macro_rules! versions {
    ($($name:ident = $version:literal)*) => {$(
        #[test]
        fn $name() {
            start_provision_publish_stop($version);
        }
    )*};
}

versions! {
    nats_server_2_10_26 = "2.10.26"
    nats_server_2_11_11 = "2.11.11"
    nats_server_2_12_8 = "2.12.8"
    nats_server_2_14_6 = "2.14.6"
    nats_server_2_15_1 = "2.15.1"
}
