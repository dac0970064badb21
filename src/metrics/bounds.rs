//! Which streams and consumers have series of their own. Pure.
//!
//! A server may have any number of them, and each costs a dozen series in every scrape and in the store of
//! whoever scrapes. Consumers without a durable name come and go with readers, under names that nobody
//! knows: those of a stream are told as one.

use serde_json::Value;

use crate::nats::{AccountDetail, ConsumerDetail, Jsz, StreamDetail};

/// Streams with series of their own, at most; the first of the answer.
pub const MOST_STREAMS: usize = 1000;
/// The same of consumers, over all streams.
pub const MOST_CONSUMERS: usize = 2000;
/// The name under which the consumers of a stream without a durable name are told; no consumer can have it.
pub const EPHEMERAL: &str = "*";

/// A stream, and which of its consumers are told.
pub struct Bounded<'a> {
    pub account: &'a AccountDetail,
    pub stream: &'a StreamDetail,
    pub consumers: Vec<&'a ConsumerDetail>,
    /// Told as one.
    pub ephemeral: Vec<&'a ConsumerDetail>,
}

/// What has no series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omitted {
    pub streams: u64,
    pub consumers: u64,
}

/// What is told of an answer with streams and consumers, and what is not.
pub fn bounded(jsz: &Jsz) -> (Vec<Bounded<'_>>, Omitted) {
    let (mut told, mut omitted, mut left) = (vec![], Omitted::default(), MOST_CONSUMERS);
    let streams = jsz
        .account_details
        .iter()
        .flat_map(|account| account.stream_detail.iter().map(move |stream| (account, stream)));
    for (account, stream) in streams {
        if told.len() == MOST_STREAMS {
            omitted.streams += 1;
            omitted.consumers += stream.consumer_detail.len() as u64;
            continue;
        }
        let (mut consumers, ephemeral): (Vec<_>, Vec<_>) =
            stream.consumer_detail.iter().partition(|one| is_durable(one));
        omitted.consumers += consumers.len().saturating_sub(left) as u64;
        consumers.truncate(left);
        left -= consumers.len();
        told.push(Bounded { account, stream, consumers, ephemeral });
    }
    // What an answer was too short to name.
    let streams = told.len() as u64 + omitted.streams;
    let named = |account: &AccountDetail| {
        account.stream_detail.iter().map(|stream| stream.consumer_detail.len() as u64).sum::<u64>()
    };
    let consumers: u64 = jsz.account_details.iter().map(named).sum();
    omitted.streams += jsz.streams.saturating_sub(streams);
    omitted.consumers += jsz.consumers.saturating_sub(consumers);
    (told, omitted)
}

fn is_durable(consumer: &ConsumerDetail) -> bool {
    let name = consumer.rest.get("config").and_then(|config| config.get("durable_name")).and_then(Value::as_str);
    name.is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_beyond_the_bounds_is_counted() {
        let consumer = |at: usize| json!({ "name": format!("C{at}"), "config": { "durable_name": format!("C{at}") } });
        let of_one: Vec<_> = (0..MOST_CONSUMERS + 5).map(consumer).collect();
        let mut streams = vec![json!({ "name": "FIRST", "consumer_detail": of_one })];
        streams.extend((1..=MOST_STREAMS + 1).map(
            |at| json!({ "name": format!("S{at}"), "consumer_detail": [consumer(0), { "name": "e", "config": {} }] }),
        ));
        let jsz: Jsz = serde_json::from_value(json!({ "account_details": [{ "stream_detail": streams }] })).unwrap();
        let (told, omitted) = bounded(&jsz);
        assert_eq!((told.len(), told[0].consumers.len()), (MOST_STREAMS, MOST_CONSUMERS));
        assert_eq!((told[1].consumers.len(), told[1].ephemeral.len()), (0, 1), "what is folded costs no more");
        let beyond = MOST_STREAMS as u64 - 1 + 2 * 2;
        assert_eq!(omitted, Omitted { streams: 2, consumers: 5 + beyond });
        let unnamed: Jsz = serde_json::from_value(json!({ "streams": 7, "consumers": 9, "account_details": [
            { "stream_detail": [{ "name": "S", "consumer_detail": [consumer(0)] }] },
        ] }))
        .unwrap();
        assert_eq!(bounded(&unnamed).1, Omitted { streams: 6, consumers: 8 });
    }
}
