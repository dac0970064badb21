//! Reads the whole stream as a client does.

use std::time::{Duration, Instant};

use async_nats::{Client, Message};
use futures_util::StreamExt;
use serde_json::json;

use super::STREAM;
use super::invariants::{Contents, Stored};
use super::message::Identity;
use crate::support::{Broker, JetStream, block_on};

const BATCH: usize = 2_000;
/// For one batch: generous, because a server that recovers a damaged store may be slow.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn read_stream(broker: &Broker) -> Contents {
    try_read_stream(broker).unwrap_or_else(|error| panic!("{error}"))
}

/// An error where the server does not give what a client needs to read.
pub fn try_read_stream(broker: &Broker) -> Result<Contents, String> {
    read_from(&broker.url())
}

pub fn read_from(server: &str) -> Result<Contents, String> {
    block_on(async {
        let client = async_nats::connect(server).await.map_err(|error| error.to_string())?;
        read_all(client).await
    })
}

/// Every message with its sequence, whoever published it.
pub fn read_each(server: &str, mut each: impl FnMut(u64, &Message)) -> Result<(), String> {
    block_on(async {
        let client = async_nats::connect(server).await.map_err(|error| error.to_string())?;
        visit_all(client, &mut each).await.map(|_| ())
    })
}

async fn read_all(client: Client) -> Result<Contents, String> {
    let mut messages = vec![];
    let take = &mut |sequence, answer: &Message| {
        if let Some(message) = identity(answer) {
            messages.push(Stored { sequence, message, intact: message.sent(&answer.payload) });
        }
    };
    let last_sequence = visit_all(client, take).await?;
    Ok(Contents { last_sequence, messages })
}

/// Gives the last sequence of the stream. A node that has just taken over, or whose consumer has just
/// moved, may answer nobody for a moment; the reading goes on where it was.
async fn visit_all(client: Client, each: &mut impl FnMut(u64, &Message)) -> Result<u64, String> {
    let jetstream = JetStream(client.clone());
    let info = jetstream.info(STREAM).await;
    let last_sequence = info["state"]["last_seq"].as_u64().ok_or_else(|| format!("no stream: {info}"))?;
    let (mut from, mut since) = (1, Instant::now());
    loop {
        match visit(&client, &jetstream, from, &mut |sequence, answer| {
            (from, since) = (sequence + 1, Instant::now());
            each(sequence, answer);
        })
        .await
        {
            Ok(()) => return Ok(last_sequence),
            Err(reason) if since.elapsed() > PATIENCE => return Err(reason),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Every message from that sequence on.
async fn visit(
    client: &Client,
    jetstream: &JetStream,
    from: u64,
    each: &mut impl FnMut(u64, &Message),
) -> Result<(), String> {
    // In memory, so that a full disk does not matter.
    let idle = Duration::from_secs(60).as_nanos() as u64;
    let config = json!({
        "ack_policy": "none", "deliver_policy": "by_start_sequence", "opt_start_seq": from,
        "inactive_threshold": idle, "mem_storage": true
    });
    let create = json!({ "stream_name": STREAM, "config": config });
    let created = jetstream.ask(&format!("$JS.API.CONSUMER.CREATE.{STREAM}"), create).await;
    let (Some(consumer), Some(mut left)) = (created["name"].as_str(), created["num_pending"].as_u64()) else {
        return Err(format!("no consumer: {created}"));
    };

    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| error.to_string())?;
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{consumer}");
    while left > 0 {
        let request = json!({ "batch": BATCH, "no_wait": true }).to_string();
        let asked = client.publish_with_reply(next.clone(), inbox.clone(), request.into()).await;
        asked.map_err(|error| error.to_string())?;
        for _ in 0..BATCH {
            let answer = tokio::time::timeout(PATIENCE, answers.next()).await;
            let answer = answer.ok().flatten().ok_or_else(|| format!("the server sends no more, {left} are left"))?;
            // A status (there is nothing more, for now) bears no address to acknowledge to.
            let Some((sequence, pending)) = answer.reply.as_deref().and_then(position) else {
                if answer.status.is_none_or(|status| status.as_u16() >= 500) {
                    return Err(format!("{left} are left: {answer:?}"));
                }
                left = 0;
                break;
            };
            left = pending;
            each(sequence, &answer);
            if left == 0 {
                break;
            }
        }
    }
    jetstream.ask(&format!("$JS.API.CONSUMER.DELETE.{STREAM}.{consumer}"), serde_json::Value::Null).await;
    Ok(())
}

/// Messages of others (probes that write) are none of ours.
fn identity(message: &Message) -> Option<Identity> {
    Identity::parse(message.headers.as_ref()?.get("Nats-Msg-Id")?.as_str())
}

/// Sequence and number of pending messages in `$JS.ACK.<stream>.<consumer>.<delivered>.<stream
/// sequence>.<consumer sequence>.<time>.<pending>`.
fn position(reply: &str) -> Option<(u64, u64)> {
    let mut fields = reply.strip_prefix("$JS.ACK.")?.split('.').skip(3);
    let sequence = fields.next()?.parse().ok()?;
    Some((sequence, fields.nth(2)?.parse().ok()?))
}

#[test]
fn an_acknowledgement_address_tells_the_position() {
    assert_eq!(position("$JS.ACK.MARKET_DATA.abc.1.42.40.1700000000000000000.7"), Some((42, 7)));
    assert_eq!(position("_INBOX.x"), None);
}
