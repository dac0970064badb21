use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::alerts::alert::{AlertKind, Severity};

fn alert(object: u8) -> Alert {
    let (kind, severity, object) = (AlertKind::StreamMissing, Severity::Warning, object.to_string());
    let text = String::new;
    Alert {
        fingerprint: Fingerprint::of("n", kind, &object),
        kind,
        object,
        severity,
        since: text(),
        server: text(),
        host: text(),
        summary: text(),
        action: text(),
    }
}

fn judgement(firing: impl IntoIterator<Item = u8>, undecided: impl IntoIterator<Item = u8>) -> Judgement {
    let undecided = undecided.into_iter().map(|object| (AlertKind::StreamMissing, Some(object.to_string())));
    Judgement::of(firing.into_iter().map(alert).collect(), undecided)
}

fn told(notifications: &[Notification]) -> Vec<(String, bool)> {
    notifications.iter().map(|told| (told.alert.object.clone(), told.is_over)).collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn an_alert_is_sent_once_and_so_is_its_end() {
    let mut ledger = Ledger::default();
    let mut after =
        |at, firing: &[u8]| told(&ledger.after(&judgement(firing.iter().copied(), []), seconds(at), seconds(300), ""));
    assert_eq!(after(1000, &[1]), [("1".into(), false)]);
    assert_eq!(after(2000, &[1]), []);
    assert_eq!(after(2001, &[]), [("1".into(), true)]);
    assert_eq!(after(2002, &[]), []);
    assert_eq!(after(2003, &[1]), [("1".into(), false)], "the interval counts from the last time it was sent");
    assert_eq!(after(2004, &[]), [("1".into(), true)]);
    assert_eq!(after(2005, &[1]), [], "too soon");
    assert_eq!(after(2006, &[]), [], "nobody heard of it");
    assert_eq!(after(2007, &[1]), []);
    assert_eq!(after(2303, &[1]), [("1".into(), false)], "it still fires when it may be sent");
}

#[test]
fn what_nobody_can_judge_stays_open() {
    let mut ledger = Ledger::default();
    ledger.after(&judgement([1, 2], []), seconds(1), seconds(300), "");
    assert_eq!(told(&ledger.after(&judgement([], [1]), seconds(2), seconds(300), "")), [("2".into(), true)]);
    assert_eq!(told(&ledger.after(&judgement([], []), seconds(3), seconds(300), "")), [("1".into(), true)]);
}

#[test]
fn after_a_start_of_the_machine_everything_was_sent_just_now() {
    let mut ledger = Ledger::default();
    ledger.after(&judgement([1], []), seconds(5000), seconds(300), "");
    ledger.after(&judgement([], []), seconds(5001), seconds(300), "");
    let written = ledger.write("one");
    let mut same = Ledger::read(written.clone(), "one", seconds(5300));
    assert_eq!(told(&same.after(&judgement([1], []), seconds(5300), seconds(300), "")), [("1".into(), false)]);
    let mut other = Ledger::read(written, "two", seconds(7));
    assert_eq!(told(&other.after(&judgement([1], []), seconds(306), seconds(300), "")), []);
    assert_eq!(told(&other.after(&judgement([1], []), seconds(307), seconds(300), "")), [("1".into(), false)]);
}

#[test]
fn there_are_no_more_open_than_can_be_held() {
    let mut ledger = Ledger::default();
    let all: Vec<_> = (0..=u8::MAX).collect();
    assert_eq!(ledger.after(&judgement(all.clone(), []), seconds(1), seconds(0), "").len(), MOST_OPEN);
    assert!(ledger.holds_back(&judgement(all, [])));
    assert_eq!(ledger.after(&judgement([], []), seconds(1), seconds(0), "").len(), MOST_OPEN);
}

/// One step: so many seconds later these fire, of those nobody knows, and before it the program, or the
/// machine, may have been started again.
#[derive(Clone, Debug)]
struct Step {
    later: u64,
    firing: BTreeSet<u8>,
    undecided: BTreeSet<u8>,
    restarted: bool,
    rebooted: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || proptest::collection::btree_set(0..4_u8, 0..4);
    let step = (0..200_u64, some(), some(), proptest::bool::weighted(0.3), proptest::bool::weighted(0.1));
    let step = step.prop_map(|(later, firing, undecided, restarted, rebooted)| Step {
        later,
        undecided: undecided.difference(&firing).copied().collect(),
        firing,
        restarted,
        rebooted,
    });
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// Whatever fires and however often the program starts again.
    #[test]
    fn each_alert_has_one_end_and_none_comes_too_soon(steps in steps(), interval in 0..400_u64) {
        let (mut ledger, mut boot, mut now) = (Ledger::default(), 0, seconds(10));
        // Real time never goes backwards; the machine's does when it starts again.
        let mut real = 0;
        let mut open: BTreeSet<String> = BTreeSet::new();
        let mut sent: BTreeMap<String, u64> = BTreeMap::new();
        for Step { later, firing, undecided, restarted, rebooted } in steps {
            real += later;
            now += seconds(later);
            if rebooted {
                (boot, now) = (boot + 1, seconds(3));
            }
            if restarted || rebooted {
                let text = serde_json::to_vec(&ledger.write(&(boot - i32::from(rebooted)).to_string())).unwrap();
                ledger = Ledger::read(serde_json::from_slice(&text).unwrap(), &boot.to_string(), now);
            }
            let notifications = ledger.after(&judgement(firing.clone(), undecided.clone()), now, seconds(interval), "");
            for Notification { alert, is_over, .. } in notifications {
                let object: u8 = alert.object.parse().unwrap();
                if is_over {
                    prop_assert!(open.remove(&alert.object), "an end of what was never sent");
                    prop_assert!(!firing.contains(&object) && !undecided.contains(&object));
                } else {
                    prop_assert!(open.insert(alert.object.clone()), "sent while it is open");
                    prop_assert!(firing.contains(&object));
                    if let Some(before) = sent.insert(alert.object, real) {
                        prop_assert!(real - before >= interval, "{} s after the one before", real - before);
                    }
                }
            }
            let known: BTreeSet<_> = ledger.open().map(|alert| alert.object.clone()).collect();
            prop_assert_eq!(&known, &open);
            for object in &open {
                let object = object.parse().unwrap();
                prop_assert!(firing.contains(&object) || undecided.contains(&object), "its end was forgotten");
            }
        }
        // What goes on firing is told in the end.
        let all = 0..4_u8;
        let mut last = ledger.after(&judgement(all.clone(), []), now + seconds(interval), seconds(interval), "");
        last.retain(|notification| notification.is_over);
        prop_assert!(last.is_empty());
        prop_assert_eq!(ledger.open().count(), all.len());
    }
}
