//! What each role may do, and no more.

use crate::domain::{DataType, Role, Subject, SubjectError, SubjectStyle};
use crate::nats::API_ADVISORIES;
use crate::settings::{Grant, Permissions, Rule};

/// What backup may ask of JetStream.
const BACKUP: [&str; 10] = [
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.STREAM.SNAPSHOT.*",
    "$JS.API.STREAM.RESTORE.*",
    "$JS.API.CONSUMER.NAMES.*",
    "$JS.API.CONSUMER.LIST.*",
    "$JS.API.CONSUMER.INFO.*.*",
    "$JS.SNAPSHOT.ACK.>",
    "$JS.SNAPSHOT.RESTORE.>",
];

/// What is closed to data. Streams may capture any subject, also those that clients of ours create, and
/// what nats-server denies no allowance opens again. So data may publish to everything but this, which
/// leaves of the API what publishing and consuming take: streams are named, listed, described and read,
/// consumers are named, listed, described, created, deleted and asked for messages.
const CLOSED_TO_DATA: [&str; 36] = [
    "$JS.API.INFO",
    "$JS.API.ACCOUNT.>",
    "$JS.API.META.>",
    "$JS.API.SERVER.>",
    "$JS.API.STREAM.CREATE.>",
    "$JS.API.STREAM.UPDATE.>",
    "$JS.API.STREAM.DELETE.>",
    "$JS.API.STREAM.PURGE.>",
    "$JS.API.STREAM.SNAPSHOT.>",
    "$JS.API.STREAM.RESTORE.>",
    "$JS.API.STREAM.MSG.DELETE.>",
    "$JS.API.STREAM.PEER.>",
    "$JS.API.STREAM.LEADER.>",
    "$JS.API.STREAM.CANCEL_MOVE.>",
    "$JS.API.STREAM.TEMPLATE.>",
    "$JS.API.CONSUMER.PAUSE.>",
    "$JS.API.CONSUMER.UNPIN.>",
    "$JS.API.CONSUMER.RESET.>",
    "$JS.API.CONSUMER.PEER.>",
    "$JS.API.CONSUMER.LEADER.>",
    // The whole API by the name of a domain. Not all of `$JS.*.API.>`, which is also how acknowledgements
    // of a stream named API begin.
    "$JS.*.API.INFO",
    "$JS.*.API.ACCOUNT.>",
    "$JS.*.API.META.>",
    "$JS.*.API.SERVER.>",
    "$JS.*.API.STREAM.>",
    "$JS.*.API.CONSUMER.>",
    "$JS.*.API.DIRECT.>",
    "$JS.EVENT.>",
    "$JS.SNAPSHOT.>",
    "$SYS.>",
    "$SRV.>",
    "$MQTT.>",
    // Answers to others, and how nats-server carries them.
    "_INBOX.>",
    "_R_.>",
    "_GR_.>",
    "$LDS.>",
];

/// In terms of nats-server, which bounds what a user may publish to and subscribe to.
pub fn of(role: Role) -> Result<Permissions, SubjectError> {
    let inbox = format!("{}.>", role.inbox());
    let (publish, subscribe) = match role {
        Role::Control => {
            // Nobody's data can be published as this user.
            let families = DataType::ALL.iter().flat_map(|family| family.subjects(SubjectStyle::Both));
            let probes = families.map(|filter| format!("{}._selftest.>", filter.trim_end_matches(".>")));
            let publish = only(["$JS.API.>".to_owned()].into_iter().chain(probes))?;
            let others = Role::ALL.into_iter().filter(|other| *other != role);
            // Theirs lie below its own.
            let deny = grants(others.map(|other| format!("{}.>", other.inbox())))?;
            (publish, Rule { deny, ..only([inbox, API_ADVISORIES.to_owned()])? })
        }
        Role::Data => (Rule { allow: None, deny: grants(CLOSED_TO_DATA)? }, only([inbox])?),
        Role::Backup => (only(BACKUP)?, only([inbox])?),
    };
    Ok(Permissions { publish, subscribe, allow_responses: None })
}

fn only<T: AsRef<str>>(subjects: impl IntoIterator<Item = T>) -> Result<Rule, SubjectError> {
    Ok(Rule { allow: Some(grants(subjects)?), deny: vec![] })
}

fn grants<T: AsRef<str>>(subjects: impl IntoIterator<Item = T>) -> Result<Vec<Grant>, SubjectError> {
    let grant = |subject: T| Ok(Grant { subject: subject.as_ref().parse::<Subject>()?, queue: None });
    subjects.into_iter().map(grant).collect()
}
