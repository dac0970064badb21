//! Answers of nats-server: HTTP monitoring and the JetStream API, and the plan that is made from a
//! stream's configuration. The first byte chooses whose answer the rest is.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use unified_nats::health::cluster::Cluster;
use unified_nats::nats::{Connz, Jsz, Routez, StreamInfo, Varz, major_minor, parse_answer, parse_healthz, parse_json};
use unified_nats::settings::Settings;
use unified_nats::settings::declared::subjects_of;
use unified_nats::streams::{Action, Desired, Existing, plan};

static DESIRED: LazyLock<Desired> = LazyLock::new(|| {
    let store = std::env::temp_dir();
    let pairs = [("JETSTREAM_STORE_DIR", store.to_str().expect("a temporary directory with a UTF-8 name"))];
    Desired::of(&Settings::load(&pairs, &[]).expect("the defaults are valid").settings)
});

fuzz_target!(|input: &[u8]| {
    let Some((whose, body)) = input.split_first() else { return };
    let url = || "http://127.0.0.1:8222".to_owned();
    match whose {
        b'h' => {
            assert!(parse_healthz(url(), 200, body).is_ok());
            let unhealthy = parse_healthz(url(), 503, body).expect_err("503 is unhealthy");
            assert!(unhealthy.to_string().contains("503"));
        }
        b'm' => {
            read_as::<Value>(body);
            read_as::<Varz>(body);
            read_as::<Routez>(body);
            read_as::<Connz>(body);
            if let Some(jsz) = read_as::<Jsz>(body) {
                let cluster = Cluster::read(jsz, Routez::default());
                assert!(!cluster.leads_nothing(), "it is not known who we are");
                cluster.warnings();
                let _ = cluster.quorum();
            }
        }
        b'v' => {
            major_minor(&String::from_utf8_lossy(body));
        }
        b'a' => {
            if let Ok(Err(refused)) = parse_answer::<Value>(body) {
                refused.to_string();
                refused.is_transient();
            }
        }
        _ => {
            if let Ok(Ok(info)) = parse_answer::<StreamInfo>(body) {
                judge(info);
            }
        }
    }
});

fn judge(mut info: StreamInfo) {
    subjects_of(&info.config);
    info.config.insert("name".into(), "MARKET_DATA".into());
    for version in [(2, 10), (2, 15)] {
        let existing = Existing { streams: vec![info.clone()], version, ..Existing::default() };
        let plan = plan(&DESIRED, &existing);
        assert_eq!(plan.streams.len(), 1);
        for stream in plan.streams {
            stream.remarks();
            match stream.action {
                Action::Update { changes, .. } => assert!(!changes.is_empty()),
                Action::Nothing => {}
                action => panic!("the stream exists: {action:?}"),
            }
        }
    }
}

fn read_as<T: serde::de::DeserializeOwned>(body: &[u8]) -> Option<T> {
    let url = || "http://127.0.0.1:8222".to_owned();
    assert!(parse_json::<T>(url(), 500, body).is_err());
    parse_json(url(), 200, body).map_err(|error| error.to_string()).ok()
}
