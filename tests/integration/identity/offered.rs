//! What nats-server offers beside what data may ask for.

use std::collections::BTreeSet;

use unified_nats::domain::{Role, Subject};

use super::VERSIONS;
use super::members::{conf, with_user};
use crate::support::*;

/// What nats-server offers in JetStream's API, as far as its executable says.
fn offered(version: &str) -> BTreeSet<String> {
    const API: &[u8] = b"$JS.API.";
    let bytes = std::fs::read(nats_server(version)).unwrap();
    let starts = bytes.windows(API.len()).enumerate().filter(|(_, window)| *window == API);
    let word = |start: usize| {
        let rest = bytes[start + API.len()..].iter();
        let word: Vec<_> = rest.take_while(|byte| matches!(byte, b'A'..=b'Z' | b'.' | b'_')).copied().collect();
        String::from_utf8(word).unwrap()
    };
    let words = starts.map(|(start, _)| word(start));
    // One part alone is a family of requests, or the beginning of a text that stands next to it.
    words.filter(|word| word == "INFO" || word.split('.').filter(|part| part.len() > 1).count() > 1).collect()
}

#[test]
fn data_may_make_no_request_of_any_version_but_those_that_it_needs() {
    /// Texts stand next to each other in an executable, so that a request may end in what is not its own.
    const NEEDED: [&str; 12] = [
        "STREAM.NAMES",
        "STREAM.LIST",
        "STREAM.INFO",
        "STREAM.MSG.GET",
        "DIRECT.GET",
        "CONSUMER.CREATE",
        "CONSUMER.DURABLE.CREATE",
        "CONSUMER.DELETE",
        "CONSUMER.INFO",
        "CONSUMER.NAMES",
        "CONSUMER.LIST",
        "CONSUMER.MSG.NEXT",
    ];
    let broker = with_user(CURRENT);
    let conf = conf(&broker);
    let (_, data) = conf.split_once(&format!("user: \"{}\"", Role::Data.user())).unwrap();
    let denied = data.lines().find_map(|line| line.trim().strip_prefix("deny: ")).unwrap();
    let denied: Vec<Subject> =
        serde_json::from_str::<Vec<String>>(denied).unwrap().iter().map(|s| s.parse().unwrap()).collect();
    for version in VERSIONS {
        let offered = offered(version);
        for known in ["STREAM.PURGE", "STREAM.MSG.DELETE", "CONSUMER.MSG.NEXT", "META.LEADER.STEPDOWN", "INFO"] {
            assert!(offered.iter().any(|request| request.starts_with(known)), "{version}: {known} is not found");
        }
        for request in offered {
            let is_needed = NEEDED.iter().any(|needed| request.starts_with(needed));
            let request = request.trim_end_matches('.');
            let subjects = [format!("$JS.API.{request}"), format!("$JS.API.{request}.x")];
            let subjects = subjects.map(|subject| subject.parse::<Subject>().unwrap());
            let is_denied = denied.iter().any(|denied| subjects.iter().any(|subject| denied.covers(subject)));
            assert!(is_needed != is_denied, "{version}: {request}: needed {is_needed}, denied {is_denied}");
        }
    }
}
