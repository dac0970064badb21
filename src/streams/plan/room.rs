//! What a server or an account would refuse because there is no room for it: bytes that streams
//! reserve, and numbers of streams and consumers.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Action, Conflict, ConsumerAction, Existing, StreamPlan};
use crate::settings::variables::{
    JETSTREAM_MAX_CONSUMERS, JETSTREAM_MAX_FILE, JETSTREAM_MAX_MEMORY, JETSTREAM_MAX_STREAMS,
};
use crate::streams::account::Account;
use crate::streams::spec::{Desired, DesiredStream, SpecOrigin};

/// Whose limit it is, where no variable of ours sets it.
pub(super) const THE_ACCOUNT: &str = "the account";

/// Holds back what there is no room for.
pub(super) fn hold_back(streams: &mut [StreamPlan], desired: &Desired, existing: &Existing) {
    for (plan, wanted) in streams.iter_mut().zip(&desired.streams) {
        of_account(plan, wanted, existing);
        of_consumers(plan, wanted, existing);
    }
    number_of_streams(streams, desired, existing);
    reservations(streams, desired, existing);
    number_of_consumers(streams, desired, existing);
}

/// What would be sent of a stream.
fn sent(plan: &StreamPlan) -> Option<&Map<String, Value>> {
    match &plan.action {
        Action::Create(config) | Action::Update { config, .. } => Some(config),
        _ => None,
    }
}

fn number(config: &Map<String, Value>, field: &str) -> i64 {
    config.get(field).and_then(Value::as_i64).unwrap_or_default()
}

fn in_memory(config: &Map<String, Value>) -> bool {
    config.get("storage").is_some_and(|storage| storage == "memory")
}

fn origin(wanted: &DesiredStream, field: &str) -> SpecOrigin {
    wanted
        .fields
        .iter()
        .find(|wanted| wanted.field.name == field)
        .map_or(SpecOrigin::Nobody, |wanted| wanted.by.clone())
}

/// What the account allows to one stream.
fn of_account(plan: &mut StreamPlan, wanted: &DesiredStream, existing: &Existing) {
    let Some(config) = sent(plan) else { return };
    let replicas = number(config, "num_replicas").max(1);
    let Some(limits) = existing.account.as_ref().and_then(|account| account.limits(replicas)) else { return };
    let of_stream = if in_memory(config) { limits.memory_max_stream_bytes } else { limits.storage_max_stream_bytes };
    let mut found = vec![];
    for (field, most) in [("max_consumers", limits.max_consumers), ("max_bytes", of_stream)] {
        let value = number(config, field);
        if most > 0 && value > most {
            found.push(Conflict::AboveAccount { field, value, most, by: origin(wanted, field) });
        }
    }
    if limits.max_bytes_required && number(config, "max_bytes") <= 0 {
        found.push(Conflict::Required { field: "max_bytes", by: origin(wanted, "max_bytes") });
    }
    for conflict in found {
        plan.hold(conflict);
    }
}

/// What the account allows to one consumer. A limit of the server itself nobody tells.
fn of_consumers(plan: &mut StreamPlan, wanted: &DesiredStream, existing: &Existing) {
    let there = existing.streams.iter().find(|info| info.name() == plan.name).map(|info| &info.config);
    let Some(config) = sent(plan).or(there) else { return };
    let replicas = number(config, "num_replicas").max(1);
    let limits = existing.account.as_ref().and_then(|account| account.limits(replicas));
    let Some(most) = limits.map(|limits| limits.max_ack_pending).filter(|most| *most > 0) else { return };
    let field = "max_ack_pending";
    for consumer in &mut plan.consumers {
        let (ConsumerAction::Create(config) | ConsumerAction::Update { config, .. }) = &consumer.action else {
            continue;
        };
        let value = number(config, field);
        if value > most {
            let desired = wanted.consumers.iter().find(|desired| desired.name == consumer.name);
            let wanted = desired.and_then(|desired| desired.fields.iter().find(|wanted| wanted.field.name == field));
            let by = wanted.map_or(SpecOrigin::Nobody, |wanted| wanted.by.clone());
            consumer.conflicts.push(Conflict::AboveAccount { field, value, most, by });
            consumer.action = ConsumerAction::Blocked;
        }
    }
}

fn number_of_streams(streams: &mut [StreamPlan], desired: &Desired, existing: &Existing) {
    let ours = desired.max_streams.map(|most| (most, JETSTREAM_MAX_STREAMS.name));
    let limits = existing.account.as_ref().filter(|account| !account.has_tiers()).and_then(|account| account.limits(1));
    let theirs = limits.and_then(|limits| u64::try_from(limits.max_streams).ok()).filter(|most| *most > 0);
    let Some((most, variable)) = ours.into_iter().chain(theirs.map(|most| (most, THE_ACCOUNT))).min() else { return };
    let mut room = most.saturating_sub((existing.streams.len() + existing.unknown.len()) as u64);
    for plan in streams.iter_mut().filter(|plan| matches!(plan.action, Action::Create(_))) {
        if room == 0 {
            plan.hold(Conflict::TooMany { what: "streams", most, variable });
        }
        room = room.saturating_sub(1);
    }
}

/// Bytes that streams of one kind reserve, and may.
struct Room {
    used: i64,
    most: i64,
    by: &'static str,
}

/// Streams share a room that have the same storage and, in an account with tiers, as many copies.
type Key = (bool, i64);

fn reservations(streams: &mut [StreamPlan], desired: &Desired, existing: &Existing) {
    // What a node of a cluster has to hold depends on where its streams are put.
    let own = desired.capacity.filter(|capacity| !capacity.clustered);
    let tiers = existing.account.as_ref().is_some_and(Account::has_tiers);
    let key = |config: &Map<String, Value>| -> Key {
        (in_memory(config), if tiers { number(config, "num_replicas").max(1) } else { 0 })
    };
    let most = |(memory, replicas): Key| match (own, &existing.account) {
        (Some(own), _) => {
            let (size, variable) =
                if memory { (own.max_memory, &JETSTREAM_MAX_MEMORY) } else { (own.max_file, &JETSTREAM_MAX_FILE) };
            Some((size.bytes() as i64, variable.name))
        }
        (None, Some(account)) => {
            let limits = account.limits(replicas.max(1))?;
            let most = if memory { limits.max_memory } else { limits.max_storage };
            (most >= 0).then_some((most, THE_ACCOUNT))
        }
        (None, None) => None,
    };
    let bytes = |config: &Map<String, Value>| number(config, "max_bytes").max(0);
    let reserved = |config: &Map<String, Value>| {
        bytes(config).saturating_mul(if tiers { 1 } else { number(config, "num_replicas").max(1) })
    };
    let mut rooms: BTreeMap<Key, Option<Room>> = BTreeMap::new();
    for info in &existing.streams {
        let plan = streams.iter().find(|plan| plan.name == info.name());
        let held = match plan.map(|plan| &plan.action) {
            Some(Action::Prune { .. }) => continue,
            Some(Action::Update { config, .. }) => reserved(config).min(reserved(&info.config)),
            _ => reserved(&info.config),
        };
        let room = rooms
            .entry(key(&info.config))
            .or_insert_with_key(|key| most(*key).map(|(most, by)| Room { used: 0, most, by }));
        room.iter_mut().for_each(|room| room.used = room.used.saturating_add(held));
    }
    for (plan, wanted) in streams.iter_mut().zip(&desired.streams) {
        let before = existing.streams.iter().find(|info| info.name() == plan.name);
        let before = before.map_or(0, |info| bytes(&info.config));
        let Some(config) = sent(plan) else { continue };
        let more = bytes(config) - before;
        let room =
            rooms.entry(key(config)).or_insert_with_key(|key| most(*key).map(|(most, by)| Room { used: 0, most, by }));
        let Some(room) = room.as_mut().filter(|_| more > 0) else { continue };
        if room.used.saturating_add(more) > room.most {
            let by = origin(wanted, "max_bytes");
            let conflict = Conflict::NoRoom { bytes: bytes(config), used: room.used, most: room.most, of: room.by, by };
            plan.hold(conflict);
        } else {
            room.used = room.used.saturating_add(reserved(config).max(more) - before);
        }
    }
    // A stream that reserves nothing is refused, too, where not a byte is left.
    for (plan, wanted) in streams.iter_mut().zip(&desired.streams) {
        let Action::Create(config) = &plan.action else { continue };
        let room = rooms.get(&key(config)).and_then(Option::as_ref).filter(|_| bytes(config) == 0);
        if let Some(room) = room.filter(|room| room.used >= room.most) {
            let by = origin(wanted, "max_bytes");
            plan.hold(Conflict::NoRoom { bytes: 0, used: room.used, most: room.most, of: room.by, by });
        }
    }
}

fn number_of_consumers(streams: &mut [StreamPlan], desired: &Desired, existing: &Existing) {
    let there = |name: &str| existing.streams.iter().find(|info| info.name() == name);
    for plan in streams.iter_mut() {
        let config = sent(plan).or_else(|| there(&plan.name).map(|info| &info.config));
        let Some(config) = config else { continue };
        let account =
            existing.account.as_ref().and_then(|account| account.limits(number(config, "num_replicas").max(1)));
        let limits = [
            (number(config, "max_consumers"), "max_consumers of the stream"),
            (account.map_or(-1, |limits| limits.max_consumers), THE_ACCOUNT),
        ];
        let Some((most, variable)) = limits.into_iter().filter(|(most, _)| *most > 0).min() else { continue };
        let count = there(&plan.name).map_or(0, |info| info.state.consumer_count);
        let room = most.unsigned_abs().saturating_sub(count);
        hold_consumers_back(std::slice::from_mut(plan), room, most.unsigned_abs(), variable);
    }
    if let Some(most) = desired.max_consumers {
        let room = most.saturating_sub(existing.streams.iter().map(|info| info.state.consumer_count).sum());
        hold_consumers_back(streams, room, most, JETSTREAM_MAX_CONSUMERS.name);
    }
}

fn hold_consumers_back(streams: &mut [StreamPlan], mut room: u64, most: u64, variable: &'static str) {
    for consumer in streams.iter_mut().flat_map(|plan| &mut plan.consumers) {
        if !matches!(consumer.action, ConsumerAction::Create(_)) {
            continue;
        }
        if room == 0 {
            consumer.conflicts.push(Conflict::TooMany { what: "consumers", most, variable });
            consumer.action = ConsumerAction::Blocked;
        }
        room = room.saturating_sub(1);
    }
}
