//! What clients of the REST API send and what streams hold: bodies of streams and consumers, tokens of
//! acknowledgements, blocks of headers, subjects of acknowledgements, messages and lines of them. The first byte chooses which.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use unified_nats::broker::{AckTokens, ConsumerId, DeliveryPlace};
use unified_nats::nats::parse_headers;
use unified_nats::rest::{lines_of, read_message};
use unified_nats::settings::declared::options::{CONSUMER, STREAM};
use unified_nats::settings::declared::{DeclaredStream, bodies};
use unified_nats::streams::{Action, Desired, DesiredStream, Existing, plan};

static TOKENS: LazyLock<AckTokens> = LazyLock::new(|| AckTokens::new().expect("random numbers"));

fuzz_target!(|input: &[u8]| {
    let Some((which, body)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(body);
    match which {
        b't' => {
            let of = ConsumerId { stream: "S".into(), consumer: "C".into(), created: "now".into() };
            assert!(TOKENS.read(&text, &of).is_err(), "a token that nobody gave");
            let given = TOKENS.give(&of, &text, Duration::from_secs(60));
            if given.len() <= 4_096 {
                assert_eq!(TOKENS.read(&given, &of).as_deref(), Ok(&*text));
            }
        }
        b'h' => {
            assert!(parse_headers(body).iter().all(|(name, value)| !name.is_empty() && !value.contains("\r\n")));
        }
        b'a' => {
            DeliveryPlace::of(&text);
        }
        b'm' => publish(body),
        b'l' => {
            let pieces = |size: usize| body.chunks(size).map(<[u8]>::to_vec).collect();
            let whole = lines_of(pieces(usize::MAX), 64);
            assert_eq!(lines_of(pieces(1), 64), whole, "pieces make no difference");
            assert!(whole.iter().flatten().all(|line| !line.is_empty() && line.len() <= 64 && !line.contains('\n')));
        }
        b'c' => {
            let Ok(options) = serde_json::from_slice::<Map<String, Value>>(body) else { return };
            if let Ok(consumer) = bodies::consumer("c", &options, ("S", &Map::new())) {
                bodies::described(CONSUMER, &consumer.config);
            }
        }
        _ => {
            let Ok(options) = serde_json::from_slice::<Map<String, Value>>(body) else { return };
            match bodies::stream("S", &options) {
                Ok(stream) => judge(&stream),
                Err(faults) => assert!(!faults.unknown.is_empty() || !faults.problems.is_empty(), "nothing is said"),
            }
        }
    }
});

/// The first line is a key, unless it is empty. What is read asks nothing of nats-server that it may not.
fn publish(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (key, body) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let Ok(message) = read_message(body, Some(key).filter(|key| !key.is_empty())) else { return };
    let subject = message.subject.as_str();
    assert!(
        !subject.split('.').any(|token| matches!(token, "" | "*" | ">")) && !subject.contains([' ', '\r', '\n', '\t'])
    );
    assert!(!subject.starts_with("$JS.") && !subject.starts_with("$SYS.") && !subject.starts_with("_INBOX."));
    let fits = |text: &str| !text.contains(['\r', '\n']);
    for (name, values) in message.headers.iter() {
        let name: &str = name.as_ref();
        assert!(name == "Nats-TTL" || !name.to_ascii_lowercase().starts_with("nats-"), "{name}");
        assert!(fits(name) && !name.contains(':') && values.iter().all(|value| fits(value.as_str())));
    }
    assert!(
        message.msg_id.iter().chain(&message.expects.stream).chain(&message.expects.last_msg_id).all(|text| fits(text))
    );
}

/// What is read can be planned, and what is made of it is as good as before.
fn judge(stream: &DeclaredStream) {
    bodies::described(STREAM, &stream.config);
    let desired = Desired { streams: vec![DesiredStream::of_client(stream)], ..Desired::default() };
    let existing = Existing { version: (2, 15), ..Existing::default() };
    for stream in plan(&desired, &existing).streams {
        match stream.action {
            Action::Create(config) => {
                assert!(config.get("metadata").is_none_or(|labels| { labels.get("managed-by").is_none() }))
            }
            Action::Blocked => assert!(stream.conflicts().next().is_some()),
            action => panic!("nothing is there: {action:?}"),
        }
    }
}
