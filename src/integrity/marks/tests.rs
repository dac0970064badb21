use super::*;
use serde_json::json;

const HOUR: u64 = 3600 * 1000;

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_000 * HOUR + millis)
}

fn config(changes: Value) -> Map<String, Value> {
    let mut config = json!({ "name": "A", "storage": "file", "retention": "limits", "max_msgs": -1, "max_bytes": -1,
        "max_age": 0, "max_msgs_per_subject": -1 });
    for (name, value) in changes.as_object().unwrap() {
        config[name] = value.clone();
    }
    config.as_object().unwrap().clone()
}

fn stream(first_seq: u64, last_seq: u64, num_deleted: u64) -> StreamInfo {
    let messages = last_seq + 1 - first_seq - num_deleted;
    let state = StreamState { messages, bytes: messages * 100, first_seq, last_seq, num_deleted, ..Default::default() };
    StreamInfo { config: config(json!({})), state, created: "then".into() }
}

fn with(info: StreamInfo, changes: Value) -> StreamInfo {
    StreamInfo { config: config(changes), ..info }
}

const RUNNING: Circumstances = Circumstances { restarted: false, clustered: false, forgetful: false, now: UNIX_EPOCH };

fn running() -> Circumstances {
    Circumstances { now: at(0), ..RUNNING }
}

fn restarted() -> Circumstances {
    Circumstances { restarted: true, ..running() }
}

const TOUCHED: Evidence = Evidence { touched: true, indexed: false };

/// What is missing when the files were touched while no server ran.
fn missing(before: &StreamInfo, after: &StreamInfo, circumstances: Circumstances) -> Option<String> {
    missing_but(before, after, circumstances, true, &[])
}

fn missing_but(
    before: &StreamInfo,
    after: &StreamInfo,
    circumstances: Circumstances,
    touched: bool,
    deleted: &[(u64, u64)],
) -> Option<String> {
    let deleted = Heard { messages: deleted.to_vec(), purged: false };
    Mark::of(before)
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
    let mut mark = Mark::of(&with(stream(1, 0, 0), limits()));
    for minute in 0..60 {
        mark = mark.advanced(&with(stream(1, minute, 0), limits()), at(minute * 60_000));
    }
    let look = |first, at_minute: u64| {
        let circumstances = Circumstances { now: at(at_minute * 60_000), ..restarted() };
        mark.missing_in(&with(stream(first, 59, 0), limits()), circumstances, TOUCHED, &Heard::default())
    };
    assert_eq!(look(1, 60), None);
    assert_eq!(look(10, 70), None, "ten minutes later ten messages have expired");
    assert!(look(20, 70).is_some(), "twenty have not");
    assert_eq!(look(60, 300), None, "after hours all have");
    assert!(look(59, 60).is_some());
}

fn all(known: &[StreamInfo]) -> Streams {
    Streams { known: known.to_vec(), unknown: vec![] }
}

fn book(infos: &[StreamInfo]) -> Book {
    let mut book = Book::default();
    assert_eq!(book.compare(&all(infos), &["A"], running()), []);
    book
}

/// The same, with files that were touched since.
fn touched(mut book: Book) -> Book {
    book.touched.insert("A".into());
    book
}

#[test]
fn a_loss_is_told_once_and_stays_until_it_is_acknowledged() {
    let mut book = book(&[stream(1, 10, 0)]);
    assert_eq!(book.compare(&all(&[stream(1, 5, 0)]), &["A"], restarted()).len(), 1);
    assert_eq!(book.compare(&all(&[stream(1, 6, 0)]), &["A"], running()), [], "the mark starts over");
    assert_eq!(book.losses.len(), 1);
    let seen = book.losses.clone();
    assert_eq!(book.compare(&all(&[stream(1, 4, 0)]), &["A"], restarted()).len(), 1, "another one");
    assert_eq!(book.acknowledge(&seen), seen, "what nobody has seen stays");
    assert_eq!(book.losses.len(), 1);
    book.acknowledge(&book.losses.clone());
    assert_eq!(book.losses, []);
}

#[test]
fn a_declared_stream_must_not_vanish_and_others_only_while_no_server_runs() {
    for (declared, restarted, touched, losses) in [
        (true, false, false, 1),
        (true, true, false, 1),
        (false, false, false, 0),
        (false, true, false, 0),
        (false, true, true, 1),
        (false, false, true, 0),
    ] {
        let mut book = book(&[stream(1, 10, 0)]);
        book.touched = touched.then(|| "A".to_owned()).into_iter().collect();
        let declared: &[&str] = if declared { &["A"] } else { &[] };
        let found = book.compare(&all(&[]), declared, Circumstances { restarted, ..running() });
        assert_eq!(found.len(), losses, "{declared:?} {restarted} {touched}");
        assert_eq!(book.compare(&all(&[]), declared, running()), [], "told once");
    }
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
    let queue = |info: &StreamInfo| with(info.clone(), json!({ "retention": "workqueue" }));
    let deleted_from = Mark { is_deleted_from: true, ..Mark::of(&before) };
    let killed = Evidence::default();
    let forgetful = Circumstances { forgetful: true, ..restarted() };
    for (mark, circumstances, evidence, told) in [
        (&deleted_from, forgetful, killed, false),
        (&Mark::of(&queue(&before)), forgetful, killed, false),
        (&deleted_from, restarted(), killed, true),
        (&Mark::of(&before), forgetful, killed, true),
        (&deleted_from, Circumstances { restarted: false, ..forgetful }, killed, true),
        (&deleted_from, forgetful, TOUCHED, true),
        (&deleted_from, forgetful, Evidence { touched: false, indexed: true }, true),
    ] {
        let missing = mark.missing_in(&after, circumstances, evidence, &Heard::default());
        assert_eq!(missing.is_some(), told, "{circumstances:?} {evidence:?} {}", mark.is_deleted_from);
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
    assert_eq!(Mark::of(&before).missing_in(&stream(90, 100, 0), restarted(), TOUCHED, &purged), None);
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
        let mark = Mark::of(&before).advanced(&before, at(0));
        // A quarter of an hour later there are others.
        let look = |config: &Value| {
            let circumstances = Circumstances { now: at(HOUR / 4), ..restarted() };
            mark.missing_in(&with(stream(165, 664, 0), config.clone()), circumstances, TOUCHED, &Heard::default())
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
fn what_was_heard_before_a_look_is_forgotten_with_it() {
    let heard = |messages: &[(u64, u64)], purged| Heard { messages: messages.to_vec(), purged };
    let mut book = book(&[stream(1, 10, 0)]);
    book.deleted = [("A".to_owned(), heard(&[(3, 3)], false)), ("B".to_owned(), heard(&[], true))].into();
    let before = book.deleted.clone();
    book.deleted.get_mut("A").unwrap().add(&heard(&[(5, 5)], false));
    book.forget_heard(before);
    assert_eq!(book.deleted, [("A".to_owned(), heard(&[(5, 5)], false))].into());
}

#[test]
fn changed_blocks_are_a_loss_until_they_are_back() {
    use crate::integrity::inventory::{Change, Files};
    let change = Change { file: "1.blk".into(), was: 10, is: None };
    let meanwhile = || Meanwhile { changes: [("A".to_owned(), vec![change.clone()])].into(), ..Meanwhile::default() };
    let mut book = book(&[stream(1, 10, 0)]);
    let found = book.note_meanwhile(meanwhile(), &Inventory::default());
    assert_eq!(found.len(), 1);
    assert!(found[0].missing.to_string().contains("1.blk of 10 bytes is gone"), "{}", found[0].missing);
    assert_eq!(book.note_meanwhile(Meanwhile::default(), &Inventory::default()), []);
    assert_eq!(book.losses.len(), 1);
    let blocks = [("1.blk".to_owned(), 10)].into();
    let back = Inventory { streams: [("A".to_owned(), Files { blocks, ..Files::default() })].into() };
    book.note_meanwhile(Meanwhile::default(), &back);
    assert_eq!(book.losses, []);
}

#[test]
fn a_stream_made_again_by_its_owner_starts_over() {
    let again = StreamInfo { created: "now".into(), ..stream(1, 3, 0) };
    let mut other = book(&[stream(1, 10, 0)]);
    assert_eq!(other.compare(&all(std::slice::from_ref(&again)), &[], running()), []);
    assert_eq!(
        book(&[stream(1, 10, 0)]).compare(&all(&[again]), &["A"], running()).len(),
        1,
        "a declared one is not theirs"
    );
}

#[test]
fn memory_streams_end_with_their_server() {
    let in_memory = |info| with(info, json!({ "storage": "memory" }));
    let mut book = book(&[in_memory(stream(1, 10, 0))]);
    assert_eq!(book.compare(&all(&[in_memory(stream(1, 0, 0))]), &["A"], restarted()), []);
    assert_eq!(book.compare(&all(&[]), &[], restarted()), []);
}

#[test]
fn what_cannot_be_read_is_one_loss_and_known_once_acknowledged() {
    let unreadable = |found_at: &str, ranges: &[(u64, u64)]| Loss {
        stream: "A".into(),
        missing: Missing::Unreadable { ranges: ranges.to_vec() },
        found_at: found_at.into(),
    };
    let mut book = Book::default();
    assert!(book.note(unreadable("four", &[(3, 4), (8, 9)])));
    assert!(!book.note(unreadable("two", &[(8, 9)])), "the rest has expired");
    assert_eq!(book.losses, [unreadable("four", &[(8, 9)])]);
    book.acknowledge(&book.losses.clone());
    book.note(unreadable("one", &[(10, 10)]));
    book.acknowledge(&book.losses.clone());
    assert_eq!(book.accepted["A"], [(8, 10)]);
}

#[test]
fn a_stream_that_was_empty_begins_with_its_first_message() {
    let empty = StreamInfo { state: StreamState::default(), ..stream(1, 0, 0) };
    assert_eq!(missing(&empty, &stream(1, 5, 0), restarted()), None);
    assert!(missing(&empty, &stream(3, 5, 0), restarted()).is_some());
}

#[test]
fn what_is_there_again_is_not_missing_any_more() {
    let whole = stream(1, 3000, 2);
    for less in [stream(1, 3000, 545), stream(1043, 3000, 2)] {
        let mut book = touched(book(std::slice::from_ref(&whole)));
        assert_eq!(book.compare(&all(std::slice::from_ref(&less)), &["A"], restarted()).len(), 1);
        assert_eq!(book.compare(&all(std::slice::from_ref(&whole)), &["A"], restarted()), []);
        assert_eq!(book.losses, []);
    }
    let mut shorter = book(&[whole]);
    shorter.compare(&all(&[stream(1, 2000, 2)]), &["A"], restarted());
    shorter.compare(&all(&[stream(1, 3000, 2)]), &["A"], restarted());
    assert_eq!(shorter.losses.len(), 1, "other messages have taken their place");
}

#[test]
fn what_can_be_read_again_is_not_missing_any_more() {
    let mut book = Book::default();
    let missing = Missing::Unreadable { ranges: vec![(3, 4)] };
    book.note(Loss { stream: "A".into(), missing, found_at: String::new() });
    assert!(!book.is_readable("B"));
    assert!(book.is_readable("A"));
    assert_eq!(book.losses, []);
}

#[test]
fn what_the_server_does_not_know_just_now_is_neither_there_nor_gone() {
    let mut book = book(&[stream(1, 10, 0)]);
    let away = Streams { known: vec![], unknown: vec!["A".into()] };
    for circumstances in [running(), restarted(), Circumstances { clustered: true, ..restarted() }] {
        assert_eq!(book.compare(&away, &["A"], circumstances), []);
    }
    assert_eq!(book.compare(&all(&[stream(1, 9, 0)]), &["A"], running()).len(), 1, "the mark was kept");
}

#[test]
fn in_a_cluster_others_delete_streams_while_this_node_is_away() {
    let mut book = book(&[stream(1, 10, 0)]);
    assert_eq!(book.compare(&all(&[]), &[], Circumstances { clustered: true, ..restarted() }), []);
}

#[test]
fn a_stream_that_nobody_can_recover_is_told_until_somebody_knows() {
    let unknown = Loss {
        stream: "A".into(),
        missing: Missing::Unknown { directory: "/store/A".into() },
        found_at: String::new(),
    };
    let mut book = Book::default();
    assert!(book.note(unknown.clone()));
    book.acknowledge(std::slice::from_ref(&unknown));
    assert!(!book.note(unknown.clone()), "somebody knows");
    assert_eq!(book.losses, []);
    let mut other = Book::default();
    other.note(unknown);
    other.compare(&all(&[stream(1, 5, 0)]), &[], restarted());
    assert_eq!(other.losses, [], "it is known again");
}

fn losing(info: StreamInfo, msgs: &[u64]) -> StreamInfo {
    let lost = Some(crate::nats::LostMessages { msgs: Some(msgs.to_vec()) });
    StreamInfo { state: StreamState { lost, ..info.state }, ..info }
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

#[test]
fn what_was_lost_is_one_loss_that_grows_and_is_known_once_acknowledged() {
    let mut book = Book::default();
    let lost = |ranges: &[(u64, u64)]| Loss::found_now("A", Missing::Lost { ranges: ranges.to_vec() });
    assert!(book.note(lost(&[(5, 7)])));
    assert!(!book.note(lost(&[(5, 6)])), "known");
    assert!(book.note(lost(&[(9, 9)])));
    assert_eq!(book.losses.len(), 1);
    assert_eq!(book.losses[0].missing, Missing::Lost { ranges: vec![(5, 7), (9, 9)] });
    let seen = book.losses.clone();
    assert_eq!(book.acknowledge(&seen).len(), 1);
    assert!(!book.note(lost(&[(5, 7), (9, 9)])), "somebody knows");
    assert!(book.note(lost(&[(5, 7), (9, 10)])));
    assert_eq!(book.losses[0].missing, Missing::Lost { ranges: vec![(10, 10)] });
}

fn held(messages: u64, last_seq: u64) -> Held {
    Held { messages, first_seq: last_seq + 1 - messages, last_seq, first_at: 1, ..Held::default() }
}

/// A book after a stop in order, with the files of the stream touched since.
fn left(before: &[StreamInfo], held: Held) -> Book {
    let mut book = book(before);
    let of_a = || ["A".to_owned()].into();
    let held = [("A".to_owned(), held)].into();
    book.note_meanwhile(
        Meanwhile { touched: of_a(), indexed: of_a(), held, ..Meanwhile::default() },
        &Inventory::default(),
    );
    book
}

#[test]
fn what_a_server_left_in_order_the_next_one_has_in_streams_of_every_kind() {
    for kind in [
        json!({}),
        json!({ "retention": "workqueue" }),
        json!({ "retention": "interest" }),
        json!({ "allow_msg_ttl": true }),
        json!({ "max_msgs_per_subject": 5, "max_age": HOUR * 1_000_000 }),
    ] {
        let before = with(stream(241, 300, 0), kind.clone());
        let whole = || left(std::slice::from_ref(&before), held(60, 300));
        let mut book = whole();
        let loss = book.note_restored("A", 55, at(0)).expect("a loss");
        assert!(loss.missing.to_string().contains("of 60 messages 5 are missing"), "{kind}: {}", loss.missing);
        assert_eq!(book.compare(&all(&[with(stream(241, 300, 5), kind.clone())]), &["A"], restarted()), [], "{kind}");
        assert_eq!(book.losses, [loss.clone()], "{kind}: one cause is one loss");
        // Others come, and the stream holds as many as it did.
        let more = StreamInfo { state: stream(241, 305, 5).state, ..before.clone() };
        assert_eq!(book.compare(&all(&[more]), &["A"], restarted()), []);
        assert_eq!(book.losses, [loss], "{kind}: others do not make up for it");

        let mut book = whole();
        assert_eq!(book.note_restored("A", 60, at(0)), None);
        // A client was faster than our first look.
        let busy = with(stream(261, 300, 20), kind.clone());
        assert_eq!(book.compare(&all(&[busy]), &["A"], restarted()), [], "{kind}");
        assert_eq!(book.losses, [], "{kind}");
    }
}

#[test]
fn what_expired_while_nothing_ran_is_allowed_for() {
    let aged = || Held {
        max_age: HOUR * 1_000_000,
        first_at: at(0).duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
        ..held(60, 300)
    };
    let found = |millis: u64, restored: u64| {
        left(&[stream(241, 300, 0)], aged()).note_restored("A", restored, at(millis)).is_some()
    };
    assert!(found(HOUR - 1, 59));
    assert!(!found(HOUR, 0), "nobody knows when the others came");
    assert!(!found(HOUR - 1, 60));
}

#[test]
fn an_end_that_was_left_counts_though_nobody_had_seen_it() {
    let mut book = left(&[stream(1, 250, 0)], held(300, 300));
    let found = book.compare(&all(&[stream(1, 260, 0)]), &["A"], restarted());
    assert!(found[0].missing.to_string().contains("was 300 and is 260"), "{found:?}");
    let mut other = left(&[stream(1, 250, 0)], held(10, 10));
    assert_eq!(other.marks["A"].last_seq, 250, "that is another stream");
    assert_eq!(other.compare(&all(&[stream(1, 250, 0)]), &["A"], restarted()), []);
}

#[test]
fn changed_blocks_and_what_they_cost_are_one_loss() {
    use crate::integrity::inventory::Change;
    let mut book = book(&[stream(1, 300, 0)]);
    let of_a = || ["A".to_owned()].into();
    let changes = [("A".to_owned(), vec![Change { file: "2.blk".into(), was: 10, is: Some(5) }])].into();
    let held = [("A".to_owned(), held(300, 300))].into();
    let meanwhile = Meanwhile { changes, touched: of_a(), indexed: of_a(), held };
    assert_eq!(book.note_meanwhile(meanwhile, &Inventory::default()).len(), 1);
    assert_eq!(book.note_restored("A", 250, at(0)), None, "that is told already");
    assert_eq!(book.compare(&all(&[stream(1, 250, 0)]), &["A"], restarted()), []);
    let told: Vec<_> = book.losses.iter().map(|loss| loss.missing.to_string()).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("2.blk had 10 bytes") && told[0].contains("at least 50 messages"), "{told:?}");
    let another = book.compare(&all(&[stream(1, 240, 0)]), &["A"], running());
    assert_eq!(another.len(), 1, "another cause is another loss");
}
