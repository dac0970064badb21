//! Lists that come in pages, from a server that names what it does not know just now.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use unified_nats::nats::JetStream as Ours;

use crate::support::*;

/// How a server tells of one entry; measured with nodes that were killed and nodes that were stopped.
#[derive(Clone, Copy, PartialEq)]
enum Entry {
    Known,
    /// Its node did not answer in time.
    Silent,
    /// Its node has taken leave: it is listed with a state of zeros, too.
    Away,
    /// It needs a newer server.
    Unsupported,
}

/// Entries on one page; nats-server has 256.
const PAGE: usize = 4;

fn page(entries: &[(String, Entry)], kind: &str, offset: usize) -> Value {
    let on_page = &entries[offset.min(entries.len())..(offset + PAGE).min(entries.len())];
    let names = |which: &[Entry]| {
        let named = on_page.iter().filter(|(_, entry)| which.contains(entry));
        named.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let listed = names(&[Entry::Known, Entry::Away]).into_iter().map(|name| match kind {
        "streams" => json!({ "config": { "name": name }, "state": { "messages": 1 } }),
        _ => json!({ "name": name, "config": {} }),
    });
    let mut page = json!({ "total": entries.len(), "offset": offset, "limit": PAGE });
    page[kind] = listed.collect();
    let missing = names(&[Entry::Silent, Entry::Away]);
    if !missing.is_empty() {
        page["missing"] = missing.into();
    }
    let offline: Map<_, _> =
        names(&[Entry::Unsupported]).into_iter().map(|name| (name, "unsupported".into())).collect();
    if !offline.is_empty() {
        page["offline"] = offline.into();
    }
    page
}

/// Answers requests for pages until it is dropped, and gives the offsets that were asked for.
async fn answering(
    client: async_nats::Client,
    subject: &str,
    kind: &'static str,
    entries: Vec<(String, Entry)>,
) -> (tokio::task::JoinHandle<()>, tokio::sync::mpsc::UnboundedReceiver<usize>) {
    let mut requests = client.subscribe(subject.to_owned()).await.unwrap();
    let (asked, offsets) = tokio::sync::mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let question: Value = serde_json::from_slice(&request.payload).unwrap();
            let offset = question["offset"].as_u64().unwrap() as usize;
            asked.send(offset).unwrap();
            let answer = page(&entries, kind, offset).to_string();
            client.publish(request.reply.unwrap(), answer.into()).await.unwrap();
        }
    });
    (task, offsets)
}

#[test]
fn every_page_is_read_whatever_is_missing_on_it() {
    use Entry::{Away, Known, Silent, Unsupported};
    let mut broker = Broker::new();
    broker.set("JETSTREAM_ENABLED", "false").start();
    let cases: [&[Entry]; 6] = [
        &[Known; 11],
        &[Silent; 9],
        &[Away; 9],
        &[Away, Away, Known, Known, Known, Known, Known, Known, Known, Known],
        &[Silent, Known, Known, Silent, Silent, Silent, Silent, Silent, Known],
        &[Unsupported, Away, Silent, Known, Unsupported, Unsupported, Unsupported, Unsupported, Known],
    ];
    block_on(async {
        // Over one connection, so that the subscription is there before the request.
        let client = broker.client().await;
        let jetstream = Ours::new(client.clone(), Duration::from_secs(10));
        for case in cases {
            let entries: Vec<_> = case.iter().enumerate().map(|(i, entry)| (format!("N{i:02}"), *entry)).collect();
            let names = |known: bool| {
                let wanted = entries.iter().filter(|(_, entry)| (*entry == Known) == known);
                wanted.map(|(name, _)| name.clone()).collect::<Vec<_>>()
            };
            for (subject, kind) in [("$JS.API.STREAM.LIST", "streams"), ("$JS.API.CONSUMER.LIST.S", "consumers")] {
                let (task, mut offsets) = answering(client.clone(), subject, kind, entries.clone()).await;
                let (known, unknown) = if kind == "streams" {
                    let streams = jetstream.streams().await.unwrap();
                    (streams.known.iter().map(|info| info.name().to_owned()).collect(), streams.unknown)
                } else {
                    let consumers = jetstream.consumers("S").await.unwrap();
                    (consumers.known.into_iter().map(|info| info.name).collect::<Vec<_>>(), consumers.unknown)
                };
                assert_eq!((known, unknown), (names(true), names(false)), "{kind}");
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
                let mut asked = vec![];
                offsets.recv_many(&mut asked, usize::MAX).await;
                assert_eq!(asked, (0..entries.len()).step_by(PAGE).collect::<Vec<_>>(), "{kind}");
            }
        }
    });
    assert_eq!(broker.stop(), Some(0));
}
