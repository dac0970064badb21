use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_millis(50);

fn opened(store: &tempfile::TempDir) -> (IntegrityMonitor, IntegrityHandle) {
    let environment = [("JETSTREAM_STORE_DIR", store.path().to_str().unwrap())];
    let settings = Settings::load(&environment.as_slice(), &[]).unwrap().settings;
    IntegrityMonitor::open(&settings, Arc::new(HeldDirectory::hold(store.path().to_owned())))
}

async fn begin(handle: &IntegrityHandle) -> u64 {
    let (asker, answer) = oneshot::channel();
    handle.commands.send(Command::Begin(asker)).await.unwrap();
    answer.await.unwrap().looks
}

/// A look at one stream that ends there, and its answer.
async fn compare(handle: &IntegrityHandle, basis: u64, generation: u64, end: u64) -> oneshot::Receiver<Compared> {
    let state = json!({ "messages": end, "first_seq": 1, "last_seq": end });
    let info = json!({ "config": { "name": "A", "storage": "file" }, "state": state });
    let streams = SeenStreams { known: vec![serde_json::from_value(info).unwrap()], unknown: vec![] };
    let look = Look {
        generation: Generation(generation),
        version: REMEMBERS_ITS_END,
        basis,
        streams,
        resolved: vec![],
        heard: Default::default(),
        is_detailed: true,
    };
    let (asker, answer) = oneshot::channel();
    handle.commands.send(Command::Compare(Box::new(look), asker)).await.unwrap();
    answer
}

#[tokio::test]
async fn a_look_is_answered_when_the_supervisor_has_heard_of_it() {
    let store = tempfile::tempdir().unwrap();
    let (monitor, handle) = opened(&store);
    let (reports, mut reported) = mpsc::channel(1);
    tokio::spawn(monitor.run(move |generation, missing| {
        let reports = reports.clone();
        async move { reports.send((generation, missing)).await.unwrap() }
    }));
    assert!(matches!(compare(&handle, 0, 1, 100).await.await, Ok(Compared::Done(None))));
    // The first report waits to be heard, so that there is no room for the second one.
    let mut answer = compare(&handle, 1, 2, 60).await;
    assert!(timeout(SOON, &mut answer).await.is_err());
    assert_eq!(reported.recv().await, Some((Generation(1), None)));
    let Ok(Compared::Done(Some(missing))) = answer.await else { panic!("nothing is missing") };
    assert_eq!(reported.recv().await, Some((Generation(2), Some(missing))));
    assert!(matches!(compare(&handle, 2, 2, 60).await.await, Ok(Compared::Done(Some(_)))));
    assert!(reported.try_recv().is_err(), "that is no news");
    assert!(handle.watch().borrow().losses[0].missing.to_string().contains("its last sequence was 100 and is 60"));
}

#[tokio::test]
async fn what_was_asked_before_something_else_happened_is_asked_again() {
    let store = tempfile::tempdir().unwrap();
    let (monitor, handle) = opened(&store);
    tokio::spawn(monitor.run(async |_, _| {}));
    compare(&handle, begin(&handle).await, 1, 100).await.await.unwrap();
    let basis = begin(&handle).await;
    let (end, ends) = oneshot::channel();
    let (heard, is_heard) = oneshot::channel();
    handle.commands.send(Command::Deleting { ends, heard }).await.unwrap();
    is_heard.await.unwrap();
    let mut answer = compare(&handle, basis, 1, 100).await;
    assert!(timeout(SOON, &mut answer).await.is_err(), "a message is being deleted");
    end.send("A".to_owned()).unwrap();
    assert!(matches!(answer.await, Ok(Compared::Again)));
    let basis = begin(&handle).await;
    let ended = json!({ "type": "io.nats.jetstream.advisory.v1.restore_complete", "stream": "A", "timestamp": "x" });
    handle.hear_restore(ended.to_string().as_bytes()).await;
    assert!(matches!(compare(&handle, basis, 1, 60).await.await, Ok(Compared::Again)));
    timeout(SOON, handle.wants_a_look()).await.expect("a look before its time");
    let compared = compare(&handle, begin(&handle).await, 1, 60).await.await;
    assert!(matches!(compared, Ok(Compared::Done(None))), "{compared:?}");
    assert_eq!(handle.watch().borrow().restored.count, 1);
}

#[tokio::test]
async fn nobody_waits_for_a_task_that_has_ended() {
    let store = tempfile::tempdir().unwrap();
    let (monitor, handle) = opened(&store);
    drop(monitor);
    let asked = async {
        handle.declare(["A".to_owned()].into_iter()).await;
        handle.note_counted("A".into(), 1).await;
        handle.show_reading(Reading::NotYet).await;
        handle.flush(Duration::from_secs(60)).await;
        handle.about("A").await
    };
    let known = timeout(SOON, asked).await.expect("an answer");
    assert!(known.config.is_none() && !known.is_rescued);
}

#[tokio::test]
async fn what_is_known_is_on_disk_once_it_is_flushed() {
    let store = tempfile::tempdir().unwrap();
    let (monitor, handle) = opened(&store);
    tokio::spawn(monitor.run(async |_, _| {}));
    for end in [100, 200] {
        compare(&handle, begin(&handle).await, 1, end).await.await.unwrap();
        handle.flush(Duration::from_secs(20)).await;
        let ledger = acknowledgement::read_ledger(store.path()).unwrap();
        assert_eq!(ledger.baselines["A"].last_seq, end);
    }
    std::fs::remove_dir_all(store.path()).unwrap();
    compare(&handle, begin(&handle).await, 1, 300).await.await.unwrap();
    let flushed = timeout(Duration::from_secs(20), handle.flush(Duration::from_secs(60))).await;
    assert!(flushed.is_ok(), "a disk that refuses is not waited for");
}

#[tokio::test]
async fn what_is_acknowledged_twice_in_a_row_is_taken_up_twice() {
    let store = tempfile::tempdir().unwrap();
    let loss = Loss::found_now("A", LossKind::End { was: 3, is: 1, held: None });
    let mut ledger = IntegrityLedger::default();
    ledger.note(loss.clone());
    std::fs::write(acknowledgement::ledger_file(store.path()), serde_json::to_vec(&ledger).unwrap()).unwrap();
    let (monitor, handle) = opened(&store);
    tokio::spawn(monitor.run(async |_, _| {}));
    // The second one has read the ledger before it was written anew.
    for _ in 0..2 {
        acknowledgement::request(store.path(), std::slice::from_ref(&loss)).unwrap();
        let taken_up = async {
            while acknowledgement::is_pending(store.path()) {
                begin(&handle).await;
            }
            handle.watch().wait_for(|view| view.losses.is_empty()).await.unwrap();
        };
        timeout(Duration::from_secs(20), taken_up).await.expect("it is taken up");
    }
}
