//! What is kept beside the store, which anybody may have edited, against what a server answers: the
//! book and one JSON answer to STREAM.INFO for each further part, with a NUL byte between the parts.

#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use unified_nats::integrity::IntegrityLedger;
use unified_nats::integrity::baselines::Circumstances;
use unified_nats::nats::{SeenStream, SeenStreams, parse_answer};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.split(|byte| *byte == 0);
    let Some(Ok(mut book)) = parts.next().map(serde_json::from_slice::<IntegrityLedger>) else { return };
    let known: Vec<_> = parts.filter_map(|part| parse_answer::<SeenStream>(part).ok()?.ok()).collect();
    let streams = SeenStreams { known, unknown: vec!["AWAY".into()] };
    for (restarted, clustered) in [(true, false), (false, false), (true, true)] {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let circumstances = Circumstances { restarted, clustered, forgetful: !clustered, now };
        for loss in book.compare(&streams, &["MARKET_DATA"], circumstances) {
            assert!(!loss.missing.to_string().is_empty());
        }
    }
    for loss in &book.losses {
        loss.missing.to_string();
    }
    let written = serde_json::to_vec(&book).expect("a book can be written");
    assert_eq!(serde_json::from_slice::<IntegrityLedger>(&written).expect("and read again"), book);
    let seen = book.losses.clone();
    book.acknowledge(&seen);
    assert!(book.losses.is_empty());
});
