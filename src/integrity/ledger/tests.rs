use super::*;
use crate::integrity::baselines::tests::{HOUR, at, restarted, running, stream, with};
use serde_json::json;

fn held(messages: u64, last_seq: u64) -> Held {
    Held { messages, first_seq: last_seq + 1 - messages, last_seq, first_at: 1, ..Held::default() }
}

fn all(known: &[SeenStream]) -> SeenStreams {
    SeenStreams { known: known.to_vec(), unknown: vec![] }
}

fn ledger(infos: &[SeenStream]) -> IntegrityLedger {
    let mut ledger = IntegrityLedger::default();
    assert_eq!(ledger.compare(&all(infos), &["A"], running()), []);
    ledger
}

/// The same, with files that were touched since.
fn touched(mut ledger: IntegrityLedger) -> IntegrityLedger {
    ledger.touched.insert("A".into());
    ledger
}

#[test]
fn a_loss_is_told_once_and_stays_until_it_is_acknowledged() {
    let mut ledger = ledger(&[stream(1, 10, 0)]);
    assert_eq!(ledger.compare(&all(&[stream(1, 5, 0)]), &["A"], restarted()).len(), 1);
    assert_eq!(ledger.compare(&all(&[stream(1, 6, 0)]), &["A"], running()), [], "the baseline starts over");
    assert_eq!(ledger.losses.len(), 1);
    let seen = ledger.losses.clone();
    assert_eq!(ledger.compare(&all(&[stream(1, 4, 0)]), &["A"], restarted()).len(), 1, "another one");
    assert_eq!(ledger.acknowledge(&seen), seen, "what nobody has seen stays");
    assert_eq!(ledger.losses.len(), 1);
    ledger.acknowledge(&ledger.losses.clone());
    assert_eq!(ledger.losses, []);
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
        let mut ledger = ledger(&[stream(1, 10, 0)]);
        ledger.touched = touched.then(|| "A".to_owned()).into_iter().collect();
        let declared: &[&str] = if declared { &["A"] } else { &[] };
        let found = ledger.compare(&all(&[]), declared, Circumstances { restarted, ..running() });
        assert_eq!(found.len(), losses, "{declared:?} {restarted} {touched}");
        assert_eq!(ledger.compare(&all(&[]), declared, running()), [], "told once");
    }
}

#[test]
fn what_was_heard_before_a_look_is_forgotten_with_it() {
    let heard = |messages: &[(u64, u64)], purged| Heard { messages: messages.to_vec(), purged };
    let mut ledger = ledger(&[stream(1, 10, 0)]);
    ledger.deleted = [("A".to_owned(), heard(&[(3, 3)], false)), ("B".to_owned(), heard(&[], true))].into();
    let before = ledger.deleted.clone();
    ledger.deleted.get_mut("A").unwrap().add(&heard(&[(5, 5)], false));
    ledger.forget_heard(before);
    assert_eq!(ledger.deleted, [("A".to_owned(), heard(&[(5, 5)], false))].into());
}

#[test]
fn changed_blocks_are_a_loss_until_they_are_back() {
    use crate::integrity::inventory::{Change, Files};
    let change = Change { file: "1.blk".into(), was: 10, is: None };
    let meanwhile = || Meanwhile { changes: [("A".to_owned(), vec![change.clone()])].into(), ..Meanwhile::default() };
    let mut ledger = ledger(&[stream(1, 10, 0)]);
    let found = ledger.note_meanwhile(meanwhile(), &Inventory::default());
    assert_eq!(found.len(), 1);
    assert!(found[0].missing.to_string().contains("1.blk of 10 bytes is gone"), "{}", found[0].missing);
    assert_eq!(ledger.note_meanwhile(Meanwhile::default(), &Inventory::default()), []);
    assert_eq!(ledger.losses.len(), 1);
    let blocks = [("1.blk".to_owned(), 10)].into();
    let back = Inventory { streams: [("A".to_owned(), Files { blocks, ..Files::default() })].into() };
    ledger.note_meanwhile(Meanwhile::default(), &back);
    assert_eq!(ledger.losses, []);
}

#[test]
fn a_stream_made_again_by_its_owner_starts_over() {
    let again = SeenStream { created: "now".into(), ..stream(1, 3, 0) };
    let mut other = ledger(&[stream(1, 10, 0)]);
    assert_eq!(other.compare(&all(std::slice::from_ref(&again)), &[], running()), []);
    assert_eq!(
        ledger(&[stream(1, 10, 0)]).compare(&all(&[again]), &["A"], running()).len(),
        1,
        "a declared one is not theirs"
    );
}

#[test]
fn memory_streams_end_with_their_server() {
    let in_memory = |info| with(info, json!({ "storage": "memory" }));
    let mut ledger = ledger(&[in_memory(stream(1, 10, 0))]);
    assert_eq!(ledger.compare(&all(&[in_memory(stream(1, 0, 0))]), &["A"], restarted()), []);
    assert_eq!(ledger.compare(&all(&[]), &[], restarted()), []);
}

#[test]
fn what_cannot_be_read_is_one_loss_and_known_once_acknowledged() {
    let unreadable = |found_at: &str, ranges: &[(u64, u64)]| Loss {
        stream: "A".into(),
        missing: LossKind::Unreadable { ranges: ranges.to_vec() },
        found_at: found_at.into(),
    };
    let mut ledger = IntegrityLedger::default();
    assert!(ledger.note(unreadable("four", &[(3, 4), (8, 9)])));
    assert!(!ledger.note(unreadable("two", &[(8, 9)])), "the rest has expired");
    assert_eq!(ledger.losses, [unreadable("four", &[(8, 9)])]);
    ledger.acknowledge(&ledger.losses.clone());
    ledger.note(unreadable("one", &[(10, 10)]));
    ledger.acknowledge(&ledger.losses.clone());
    assert_eq!(ledger.accepted["A"], [(8, 10)]);
}

#[test]
fn what_is_there_again_is_not_missing_any_more() {
    let whole = stream(1, 3000, 2);
    for less in [stream(1, 3000, 545), stream(1043, 3000, 2)] {
        let mut ledger = touched(ledger(std::slice::from_ref(&whole)));
        assert_eq!(ledger.compare(&all(std::slice::from_ref(&less)), &["A"], restarted()).len(), 1);
        assert_eq!(ledger.compare(&all(std::slice::from_ref(&whole)), &["A"], restarted()), []);
        assert_eq!(ledger.losses, []);
    }
    let mut shorter = ledger(&[whole]);
    shorter.compare(&all(&[stream(1, 2000, 2)]), &["A"], restarted());
    shorter.compare(&all(&[stream(1, 3000, 2)]), &["A"], restarted());
    assert_eq!(shorter.losses.len(), 1, "other messages have taken their place");
}

#[test]
fn what_can_be_read_again_is_not_missing_any_more() {
    let mut ledger = IntegrityLedger::default();
    let missing = LossKind::Unreadable { ranges: vec![(3, 4)] };
    ledger.note(Loss { stream: "A".into(), missing, found_at: String::new() });
    assert!(!ledger.is_readable("B"));
    assert!(ledger.is_readable("A"));
    assert_eq!(ledger.losses, []);
}

#[test]
fn what_the_server_does_not_know_just_now_is_neither_there_nor_gone() {
    let mut ledger = ledger(&[stream(1, 10, 0)]);
    let away = SeenStreams { known: vec![], unknown: vec!["A".into()] };
    for circumstances in [running(), restarted(), Circumstances { clustered: true, ..restarted() }] {
        assert_eq!(ledger.compare(&away, &["A"], circumstances), []);
    }
    assert_eq!(ledger.compare(&all(&[stream(1, 9, 0)]), &["A"], running()).len(), 1, "the baseline was kept");
}

#[test]
fn in_a_cluster_others_delete_streams_while_this_node_is_away() {
    let mut ledger = ledger(&[stream(1, 10, 0)]);
    assert_eq!(ledger.compare(&all(&[]), &[], Circumstances { clustered: true, ..restarted() }), []);
}

#[test]
fn a_stream_that_nobody_can_recover_is_told_until_somebody_knows() {
    let unknown = Loss {
        stream: "A".into(),
        missing: LossKind::Unknown { directory: "/store/A".into() },
        found_at: String::new(),
    };
    let mut ledger = IntegrityLedger::default();
    assert!(ledger.note(unknown.clone()));
    ledger.acknowledge(std::slice::from_ref(&unknown));
    assert!(!ledger.note(unknown.clone()), "somebody knows");
    assert_eq!(ledger.losses, []);
    let mut other = IntegrityLedger::default();
    other.note(unknown);
    other.compare(&all(&[stream(1, 5, 0)]), &[], restarted());
    assert_eq!(other.losses, [], "it is known again");
}

#[test]
fn what_was_lost_is_one_loss_that_grows_and_is_known_once_acknowledged() {
    let mut ledger = IntegrityLedger::default();
    let lost = |ranges: &[(u64, u64)]| Loss::found_now("A", LossKind::Lost { ranges: ranges.to_vec() });
    assert!(ledger.note(lost(&[(5, 7)])));
    assert!(!ledger.note(lost(&[(5, 6)])), "known");
    assert!(ledger.note(lost(&[(9, 9)])));
    assert_eq!(ledger.losses.len(), 1);
    assert_eq!(ledger.losses[0].missing, LossKind::Lost { ranges: vec![(5, 7), (9, 9)] });
    let seen = ledger.losses.clone();
    assert_eq!(ledger.acknowledge(&seen).len(), 1);
    assert!(!ledger.note(lost(&[(5, 7), (9, 9)])), "somebody knows");
    assert!(ledger.note(lost(&[(5, 7), (9, 10)])));
    assert_eq!(ledger.losses[0].missing, LossKind::Lost { ranges: vec![(10, 10)] });
}

/// A ledger after a stop in order, with the files of the stream touched since.
fn left(before: &[SeenStream], held: Held) -> IntegrityLedger {
    let mut ledger = ledger(before);
    let of_a = || ["A".to_owned()].into();
    let held = [("A".to_owned(), held)].into();
    ledger.note_meanwhile(
        Meanwhile { touched: of_a(), indexed: of_a(), held, ..Meanwhile::default() },
        &Inventory::default(),
    );
    ledger
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
        let mut ledger = whole();
        let loss = ledger.note_restored("A", 55, at(0)).expect("a loss");
        assert!(loss.missing.to_string().contains("of 60 messages 5 are missing"), "{kind}: {}", loss.missing);
        assert_eq!(ledger.compare(&all(&[with(stream(241, 300, 5), kind.clone())]), &["A"], restarted()), [], "{kind}");
        assert_eq!(ledger.losses, std::slice::from_ref(&loss), "{kind}: one cause is one loss");
        // Others come, and the stream holds as many as it did.
        let more = SeenStream { state: stream(241, 305, 5).state, ..before.clone() };
        assert_eq!(ledger.compare(&all(&[more]), &["A"], restarted()), []);
        assert_eq!(ledger.losses, [loss], "{kind}: others do not make up for it");

        let mut ledger = whole();
        assert_eq!(ledger.note_restored("A", 60, at(0)), None);
        // A client was faster than our first look.
        let busy = with(stream(261, 300, 20), kind.clone());
        assert_eq!(ledger.compare(&all(&[busy]), &["A"], restarted()), [], "{kind}");
        assert_eq!(ledger.losses, [], "{kind}");
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
    let mut ledger = left(&[stream(1, 250, 0)], held(300, 300));
    let found = ledger.compare(&all(&[stream(1, 260, 0)]), &["A"], restarted());
    assert!(found[0].missing.to_string().contains("was 300 and is 260"), "{found:?}");
    let mut other = left(&[stream(1, 250, 0)], held(10, 10));
    assert_eq!(other.baselines["A"].last_seq, 250, "that is another stream");
    assert_eq!(other.compare(&all(&[stream(1, 250, 0)]), &["A"], restarted()), []);
}

#[test]
fn changed_blocks_and_what_they_cost_are_one_loss() {
    use crate::integrity::inventory::Change;
    let mut ledger = ledger(&[stream(1, 300, 0)]);
    let of_a = || ["A".to_owned()].into();
    let changes = [("A".to_owned(), vec![Change { file: "2.blk".into(), was: 10, is: Some(5) }])].into();
    let held = [("A".to_owned(), held(300, 300))].into();
    let meanwhile = Meanwhile { changes, touched: of_a(), indexed: of_a(), held };
    assert_eq!(ledger.note_meanwhile(meanwhile, &Inventory::default()).len(), 1);
    assert_eq!(ledger.note_restored("A", 250, at(0)), None, "that is told already");
    assert_eq!(ledger.compare(&all(&[stream(1, 250, 0)]), &["A"], restarted()), []);
    let told: Vec<_> = ledger.losses.iter().map(|loss| loss.missing.to_string()).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("2.blk had 10 bytes") && told[0].contains("at least 50 messages"), "{told:?}");
    let another = ledger.compare(&all(&[stream(1, 240, 0)]), &["A"], running());
    assert_eq!(another.len(), 1, "another cause is another loss");
}

#[test]
fn a_stream_that_could_not_be_asked_for_at_the_start_is_missed_later() {
    let mut ledger = ledger(&[stream(1, 10, 0)]);
    ledger.touched.insert("A".into());
    let away = SeenStreams { known: vec![], unknown: vec!["A".into()] };
    assert_eq!(ledger.compare(&away, &[], restarted()), [], "it may come");
    let found = ledger.compare(&all(&[]), &[], running());
    assert_eq!(found.len(), 1, "nobody but damage has taken it");
    assert_eq!(ledger.compare(&all(&[]), &[], running()), []);
}

fn restore(has_ended: bool) -> Known {
    Known { began: "2026-11-26T11:40:46Z".into(), has_ended }
}

/// A stream as it came out of a snapshot, or was created after the restore had begun.
fn created(mut info: SeenStream, from_snapshot: bool) -> SeenStream {
    let second = if from_snapshot { 1 } else { 59 };
    info.created = format!("2026-11-26T11:40:{second:02}Z");
    info
}

#[test]
fn what_a_snapshot_does_not_hold_is_no_loss_and_what_is_lost_after_it_is() {
    let full = created(stream(1, 100, 0), true);
    let mut ledger = ledger(std::slice::from_ref(&full));
    ledger.restores.insert("A".into(), restore(false));
    let mut gone = all(&[]);
    assert_eq!(ledger.settle_restores(&mut gone), Vec::<String>::new());
    assert_eq!(ledger.compare(&gone, &["A"], running()), [], "it is on its way");
    assert_eq!(ledger.baselines["A"].last_seq, 100);
    ledger.restores.insert("A".into(), restore(true));
    let older = created(stream(1, 60, 0), true);
    let mut streams = all(std::slice::from_ref(&older));
    assert_eq!(ledger.settle_restores(&mut streams), ["A"]);
    assert_eq!(ledger.compare(&streams, &["A"], running()), []);
    assert_eq!((ledger.baselines["A"].last_seq, &ledger.losses, ledger.restores.len()), (60, &vec![], 0));
    let cut = created(stream(1, 50, 0), true);
    assert_eq!(ledger.compare(&all(&[cut]), &["A"], restarted()).len(), 1);
}

#[test]
fn a_restore_makes_up_for_what_was_told_to_be_missing_unless_it_fails() {
    for (from_snapshot, losses) in [(true, 0), (false, 1)] {
        let mut ledger = ledger(&[created(stream(1, 100, 0), true)]);
        assert_eq!(ledger.compare(&all(&[]), &["A"], running()).len(), 1, "it is gone");
        ledger.restores.insert("A".into(), restore(true));
        let mut streams = all(&[created(stream(1, 60, 0), from_snapshot)]);
        ledger.settle_restores(&mut streams);
        ledger.compare(&streams, &["A"], running());
        assert_eq!(ledger.losses.len(), losses, "from a snapshot: {from_snapshot}");
    }
    let mut ledger = ledger(&[stream(1, 100, 0)]);
    ledger.restores.insert("A".into(), restore(true));
    let mut unknown = SeenStreams { known: vec![], unknown: vec!["A".into()] };
    assert_eq!(ledger.settle_restores(&mut unknown), Vec::<String>::new());
    assert!(ledger.restores.contains_key("A"), "it is asked for later");
    let mut gone = all(&[]);
    ledger.settle_restores(&mut gone);
    assert_eq!(ledger.compare(&gone, &["A"], running()).len(), 1, "it has failed, and the stream is gone");
}
