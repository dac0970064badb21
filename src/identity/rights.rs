//! What each role may do, and no more.

use crate::domain::{DataType, Role, Subject, SubjectError, SubjectStyle};
use crate::nats::{API_ADVISORIES, COUNTED_ADVISORIES, RESTORE_BEGINS, RESTORE_ENDS};
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
            let counted = COUNTED_ADVISORIES.iter().map(|(_, subject)| *subject);
            let advisories =
                [API_ADVISORIES, RESTORE_BEGINS, RESTORE_ENDS].into_iter().chain(counted).map(str::to_owned);
            (publish, only([inbox].into_iter().chain(advisories))?)
        }
        Role::Data => {
            let inboxes = Role::ALL.map(|role| format!("{}.>", role.inbox()));
            let closed = CLOSED_TO_DATA.into_iter().chain(inboxes.iter().map(String::as_str));
            (Rule { allow: None, deny: grants(closed)? }, only([inbox])?)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(grants: &[Grant], subject: &str) -> bool {
        let subject: Subject = subject.parse().unwrap();
        grants.iter().any(|grant| grant.subject.covers(&subject))
    }

    fn allows(rule: &Rule, subject: &str) -> bool {
        rule.allow.as_ref().is_none_or(|allow| covers(allow, subject)) && !covers(&rule.deny, subject)
    }

    fn may_publish(role: Role, subject: &str) -> bool {
        allows(&of(role).unwrap().publish, subject)
    }

    /// Subjects of each kind, and who may publish to them.
    #[test]
    fn each_role_may_publish_to_what_its_work_takes_and_to_nothing_else() {
        use Role::{Backup, Control, Data};
        let cases: [(&[&str], &[Role]); 8] = [
            (&["trade-data.binance.BTC", "orders.new", "$KV.bucket.key", "trade._x"], &[Data]),
            (&["trade-data._selftest.x", "trade._selftest.x"], &[Control, Data]),
            (
                &[
                    "$JS.API.STREAM.NAMES",
                    "$JS.API.STREAM.LIST",
                    "$JS.API.STREAM.INFO.S",
                    "$JS.API.CONSUMER.NAMES.S",
                    "$JS.API.CONSUMER.LIST.S",
                    "$JS.API.CONSUMER.INFO.S.C",
                ],
                &[Control, Data, Backup],
            ),
            (
                &[
                    "$JS.API.STREAM.MSG.GET.S",
                    "$JS.API.DIRECT.GET.S",
                    "$JS.API.DIRECT.GET.S.trade.x",
                    "$JS.API.CONSUMER.CREATE.S",
                    "$JS.API.CONSUMER.CREATE.S.C.trade.>",
                    "$JS.API.CONSUMER.DURABLE.CREATE.S.C",
                    "$JS.API.CONSUMER.MSG.NEXT.S.C",
                    "$JS.API.CONSUMER.DELETE.S.C",
                ],
                &[Control, Data],
            ),
            (&["$JS.ACK.S.C.1.2.3.4.5", "$JS.ACK.API.C.1.2.3.4.5", "$JS.FC.S.C.x"], &[Data]),
            (&["$JS.API.STREAM.SNAPSHOT.S", "$JS.API.STREAM.RESTORE.S"], &[Control, Backup]),
            (&["$JS.SNAPSHOT.ACK.S.x", "$JS.SNAPSHOT.RESTORE.S.x"], &[Backup]),
            (
                &[
                    "$SYS.REQ.SERVER.PING",
                    "_INBOX._unified_nats.x.y",
                    "_unified_nats_data.x",
                    "_unified_nats_backup.x",
                    "_INBOX.x",
                    "$JS.EVENT.ADVISORY.API",
                    "$JS.hub.API.STREAM.DELETE.S",
                    "$JS.hub.API.STREAM.SNAPSHOT.S",
                    "$JS.hub.API.INFO",
                    "$JS.hub.API.CONSUMER.DELETE.S.C",
                ],
                &[],
            ),
        ];
        for (subjects, roles) in cases {
            for subject in subjects {
                let may: Vec<_> = Role::ALL.into_iter().filter(|role| may_publish(*role, subject)).collect();
                assert_eq!(may, roles, "{subject}");
            }
        }
        for request in CLOSED_TO_DATA.iter().filter(|request| request.starts_with("$JS.API.")) {
            let request = request.replace('>', "S");
            assert!(may_publish(Control, &request) && !may_publish(Data, &request), "{request}");
        }
    }

    #[test]
    fn control_may_publish_to_the_api_and_as_a_probe_alone() {
        let publish = of(Role::Control).unwrap().publish;
        let allowed: Vec<_> = publish.allow.unwrap().iter().map(Grant::to_string).collect();
        assert!(
            ["$JS.API.>", "trade-data._selftest.>", "trade._selftest.>"]
                .iter()
                .all(|it| allowed.contains(&(*it).into()))
        );
        assert!(
            allowed.iter().all(|subject| subject == "$JS.API.>" || subject.ends_with("._selftest.>")),
            "{allowed:?}"
        );
    }

    #[test]
    fn each_role_hears_its_own_answers_alone() {
        for role in Role::ALL {
            let subscribe = of(role).unwrap().subscribe;
            for other in Role::ALL {
                let answer = format!("{}.x.y", other.inbox());
                assert_eq!(allows(&subscribe, &answer), other == role, "{role:?}: {answer}");
            }
            for subject in [
                "trade-data.>",
                "_INBOX.x",
                "$JS.EVENT.ADVISORY.CONSUMER.CREATED.S.C",
                "$JS.EVENT.ADVISORY.STREAM.>",
                ">",
                "$SYS.x",
            ] {
                assert!(!allows(&subscribe, subject), "{role:?}: {subject}");
            }
            let counted = COUNTED_ADVISORIES.iter().map(|(_, subject)| *subject);
            for subject in [API_ADVISORIES, RESTORE_BEGINS, RESTORE_ENDS].into_iter().chain(counted) {
                assert_eq!(allows(&subscribe, subject), role == Role::Control, "{subject}");
            }
        }
    }
}
