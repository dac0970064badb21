//! A file of streams. Must answer, never panic; what it declares and a server has taken as it is must
//! leave nothing to do.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unified_nats::nats::{ConsumerInfo, Consumers, StreamInfo, StreamState};
use unified_nats::settings::{Problems, read_streams};
use unified_nats::streams::plan::{Action, ConsumerAction};
use unified_nats::streams::{Desired, DesiredStream, Existing, plan};

fuzz_target!(|input: &str| {
    let mut problems = Problems::default();
    let declared = read_streams("streams.yml", input, &mut problems);
    if !problems.is_empty() {
        return assert!(!problems.to_string().is_empty());
    }
    let streams = declared.iter().map(DesiredStream::declared).collect();
    let desired = Desired { streams, prune: true, ..Desired::default() };
    let mut existing = Existing { version: (2, 15), ..Existing::default() };
    for stream in plan(&desired, &existing).streams {
        let Action::Create(config) = stream.action else { continue };
        existing.streams.push(StreamInfo {
            config,
            state: StreamState::default(),
            created: String::new(),
            cluster: None,
        });
        let consumers = stream.consumers.into_iter().filter_map(|consumer| match consumer.action {
            ConsumerAction::Create(config) => {
                Some(ConsumerInfo { name: consumer.name, config, state: serde_json::Map::new() })
            }
            _ => None,
        });
        existing.consumers.insert(stream.name, Consumers { known: consumers.collect(), unknown: vec![] });
    }
    let left = plan(&desired, &existing);
    assert!(left.is_nothing(), "{left:?}");
});
