use super::*;
use serde_json::{Value, json};

pub(crate) const HOUR: u64 = 3600 * 1000;

pub(crate) fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_000 * HOUR + millis)
}

pub(crate) fn config(changes: Value) -> WrittenConfig {
    let mut config = json!({ "name": "A", "storage": "file", "retention": "limits", "max_msgs": -1, "max_bytes": -1,
        "max_age": 0, "max_msgs_per_subject": -1 });
    for (name, value) in changes.as_object().unwrap() {
        config[name] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

pub(crate) fn stream(first_seq: u64, last_seq: u64, num_deleted: u64) -> SeenStream {
    let messages = last_seq + 1 - first_seq - num_deleted;
    let state = StreamState { messages, bytes: messages * 100, first_seq, last_seq, num_deleted, ..Default::default() };
    SeenStream { config: config(json!({})), state, created: "then".into(), cluster: None }
}

pub(crate) fn with(info: SeenStream, changes: Value) -> SeenStream {
    SeenStream { config: config(changes), ..info }
}

const RUNNING: Circumstances = Circumstances { restarted: false, clustered: false, forgetful: false, now: UNIX_EPOCH };

pub(crate) fn running() -> Circumstances {
    Circumstances { now: at(0), ..RUNNING }
}

pub(crate) fn restarted() -> Circumstances {
    Circumstances { restarted: true, ..running() }
}

const TOUCHED: Evidence = Evidence { touched: true, indexed: false };

/// What is missing when the files were touched while no server ran.
fn missing(before: &SeenStream, after: &SeenStream, circumstances: Circumstances) -> Option<String> {
    missing_but(before, after, circumstances, true, &[])
}

fn missing_but(
    before: &SeenStream,
    after: &SeenStream,
    circumstances: Circumstances,
    touched: bool,
    deleted: &[(u64, u64)],
) -> Option<String> {
    let deleted = Heard { messages: deleted.to_vec(), purged: false };
    StreamBaseline::of(before)
        .missing_in(after, circumstances, Evidence { touched, indexed: false }, &deleted)
        .map(|missing| missing.to_string())
}

#[test]
fn what_grows_is_whole() {
    for circumstances in [running(), restarted()] {
        assert_eq!(missing(&stream(1, 10, 2), &stream(1, 10, 2), circumstances), None);
        assert_eq!(missing(&stream(1, 10, 2), &stream(1, 12, 2), circumstances), None);
        assert_eq!(missing(&stream(1, 0, 0), &stream(1, 12, 0), circumstances), None);
    }
}

#[test]
fn a_last_sequence_that_goes_backwards_is_a_loss_at_any_time() {
    for circumstances in [running(), restarted(), Circumstances { clustered: true, ..restarted() }] {
        let what = missing(&stream(1, 3000, 0), &stream(1, 2332, 0), circumstances).unwrap();
        assert!(what.contains("668"), "{what}");
    }
}

#[test]
fn holes_and_a_shorter_beginning_are_losses_after_a_restart_only() {
    for (after, count) in [(stream(1, 3000, 545), "545"), (stream(1043, 3000, 0), "1042")] {
        assert_eq!(missing(&stream(1, 3000, 0), &after, running()), None);
        let what = missing(&stream(1, 3000, 0), &after, restarted()).unwrap();
        assert!(what.contains(count), "{what}");
    }
}

#[test]
fn streams_that_give_messages_up_by_design_may_have_holes() {
    for changes in [
        json!({ "max_msgs_per_subject": 1 }),
        json!({ "retention": "workqueue" }),
        json!({ "retention": "interest" }),
        json!({ "allow_msg_ttl": true }),
        json!({ "allow_rollup_hdrs": true }),
    ] {
        assert_eq!(missing(&stream(1, 10, 0), &with(stream(1, 10, 3), changes), restarted()), None);
    }
}

#[test]
fn a_full_stream_gives_way_at_its_beginning() {
    let before = stream(1, 1000, 0);
    let after = stream(501, 1500, 0);
    assert!(missing(&before, &after, restarted()).is_some());
    for limit in [json!({ "max_msgs": 1000 }), json!({ "max_bytes": 101_000 })] {
        assert_eq!(missing(&before, &with(after.clone(), limit), restarted()), None);
    }
}

#[test]
fn what_expired_is_not_missing_and_what_is_too_young_is() {
    let limits = || json!({ "max_age": HOUR * 1_000_000 });
    // One message every minute since an hour before.
    let mut baseline = StreamBaseline::of(&with(stream(1, 0, 0), limits()));
    for minute in 0..60 {
        baseline = baseline.advanced(&with(stream(1, minute, 0), limits()), at(minute * 60_000));
    }
    let look = |first, at_minute: u64| {
        let circumstances = Circumstances { now: at(at_minute * 60_000), ..restarted() };
        baseline.missing_in(&with(stream(first, 59, 0), limits()), circumstances, TOUCHED, &Heard::default())
    };
    assert_eq!(look(1, 60), None);
    assert_eq!(look(10, 70), None, "ten minutes later ten messages have expired");
    assert!(look(20, 70).is_some(), "twenty have not");
    assert_eq!(look(60, 300), None, "after hours all have");
    assert!(look(59, 60).is_some());
}

#[test]
fn fewer_messages_prove_nothing_where_nobody_touched_the_files() {
    let before = stream(1, 3000, 0);
    for after in [stream(1, 3000, 545), stream(1043, 3000, 0), stream(3001, 3000, 0)] {
        assert_eq!(missing_but(&before, &after, restarted(), false, &[]), None);
        assert!(missing_but(&before, &after, restarted(), true, &[]).is_some());
    }
    let what = missing_but(&before, &stream(1, 2999, 0), restarted(), false, &[]);
    assert!(what.is_some(), "an end never goes back");
}

#[test]
fn after_a_kill_a_server_may_have_forgotten_an_end_that_was_deleted() {
    let (before, after) = (stream(228, 231, 0), stream(175, 174, 0));
    let queue = |info: &SeenStream| with(info.clone(), json!({ "retention": "workqueue" }));
    let deleted_from = StreamBaseline { is_deleted_from: true, ..StreamBaseline::of(&before) };
    let killed = Evidence::default();
    let forgetful = Circumstances { forgetful: true, ..restarted() };
    for (baseline, circumstances, evidence, told) in [
        (&deleted_from, forgetful, killed, false),
        (&StreamBaseline::of(&queue(&before)), forgetful, killed, false),
        (&deleted_from, restarted(), killed, true),
        (&StreamBaseline::of(&before), forgetful, killed, true),
        (&deleted_from, Circumstances { restarted: false, ..forgetful }, killed, true),
        (&deleted_from, forgetful, TOUCHED, true),
        (&deleted_from, forgetful, Evidence { touched: false, indexed: true }, true),
    ] {
        let missing = baseline.missing_in(&after, circumstances, evidence, &Heard::default());
        assert_eq!(missing.is_some(), told, "{circumstances:?} {evidence:?} {}", baseline.is_deleted_from);
    }
    assert!(deleted_from.advanced(&before, at(0)).is_deleted_from);
}

#[test]
fn what_clients_were_heard_to_delete_is_not_missing() {
    let before = stream(1, 100, 0);
    let holes = |deleted| missing_but(&before, &stream(1, 100, 3), restarted(), true, deleted);
    assert_eq!(holes(&[(5, 7)]), None);
    assert!(holes(&[(5, 6)]).unwrap().contains("1 messages are missing"));
    let beginning = |deleted| missing_but(&before, &stream(5, 100, 0), restarted(), true, deleted);
    assert_eq!(beginning(&[(1, 4)]), None);
    assert!(beginning(&[(1, 2), (4, 4)]).unwrap().contains("begin at sequence 3"));
    let purged = Heard { purged: true, ..Heard::default() };
    assert_eq!(StreamBaseline::of(&before).missing_in(&stream(90, 100, 0), restarted(), TOUCHED, &purged), None);
}

#[test]
fn what_either_of_two_limits_drops_is_not_missing() {
    for (old, new) in [
        (json!({ "max_msgs": 500 }), json!({ "max_msgs": 5000 })),
        (json!({ "max_msgs": 5000 }), json!({ "max_msgs": 500 })),
        (json!({ "max_age": 5_000_000_000_u64 }), json!({ "max_age": HOUR * 1_000_000 })),
        (json!({ "max_age": HOUR * 1_000_000 }), json!({ "max_age": 5_000_000_000_u64 })),
        (json!({ "max_msgs_per_subject": 5 }), json!({ "max_msgs_per_subject": 50 })),
        (json!({ "retention": "interest" }), json!({ "retention": "limits" })),
    ] {
        let before = with(stream(1, 500, 0), old.clone());
        let baseline = StreamBaseline::of(&before).advanced(&before, at(0));
        // A quarter of an hour later there are others.
        let look = |config: &Value| {
            let circumstances = Circumstances { now: at(HOUR / 4), ..restarted() };
            baseline.missing_in(&with(stream(165, 664, 0), config.clone()), circumstances, TOUCHED, &Heard::default())
        };
        assert_eq!(look(&new), None, "{old} {new}");
    }
    let unlimited = stream(1, 500, 0);
    assert!(missing(&unlimited, &stream(165, 664, 0), restarted()).is_some());
}

#[test]
fn of_streams_that_replace_messages_their_number_counts_where_files_were_touched() {
    let bucket = |info| with(info, json!({ "max_msgs_per_subject": 1, "allow_rollup_hdrs": true }));
    let (before, after) = (bucket(stream(241, 300, 0)), bucket(stream(241, 300, 30)));
    assert_eq!(missing_but(&before, &after, restarted(), false, &[]), None);
    assert!(missing(&before, &after, restarted()).unwrap().contains("of 60 messages 30 are missing"));
    assert_eq!(missing_but(&before, &after, restarted(), true, &[(241, 270)]), None);
    let expiring = |info| with(info, json!({ "max_msgs_per_subject": 1, "max_age": 1_000 }));
    assert_eq!(missing(&expiring(before), &expiring(after), restarted()), None);
}

#[test]
fn a_stream_that_was_empty_begins_with_its_first_message() {
    let empty = SeenStream { state: StreamState::default(), ..stream(1, 0, 0) };
    assert_eq!(missing(&empty, &stream(1, 5, 0), restarted()), None);
    assert!(missing(&empty, &stream(3, 5, 0), restarted()).is_some());
}

fn losing(info: SeenStream, msgs: &[u64]) -> SeenStream {
    let lost = Some(crate::nats::LostMessages { msgs: Some(msgs.to_vec()) });
    SeenStream { state: StreamState { lost, ..info.state }, ..info }
}

#[test]
fn what_a_running_server_says_to_have_lost_is_missing() {
    let before = stream(1, 10, 1);
    assert_eq!(missing(&before, &stream(1, 10, 4), running()), None, "somebody deleted them");
    let what = missing(&before, &losing(stream(1, 10, 4), &[7, 5, 6]), running()).unwrap();
    assert!(what.contains("lost 3 messages") && what.contains("sequence 5"), "{what}");
    let beginning = missing(&before, &losing(stream(3, 10, 0), &[1, 2]), running()).unwrap();
    assert!(beginning.contains("lost 2 messages"), "{beginning}");
    let holes = missing(&before, &losing(stream(1, 10, 4), &[5, 6, 7]), restarted()).unwrap();
    assert!(holes.contains("between its first and its last"), "told once: {holes}");
}
