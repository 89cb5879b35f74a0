//! Group commit, the order of answers, and failures that stay.

use std::sync::Mutex;
use std::thread;

use super::disks::{FailingDisk, Fails, GatedDisk};
use super::*;

#[test]
fn what_queues_during_a_sync_shares_the_next_one() {
    const CALLERS: usize = 64;
    let disk = Arc::new(GatedDisk::default());
    let log = Log::with(on(&disk));
    let before = disk.syncs();
    disk.set_closed(true);
    let (sender, receiver) = mpsc::channel();
    let answer = |name: usize| -> Done {
        let sender = sender.clone();
        Box::new(move |outcome| sender.send((name, outcome.is_ok())).unwrap())
    };
    log.wal.append(entries(0..1, "first"), answer(0));
    disk.await_sync();
    thread::scope(|scope| {
        for name in 1..=CALLERS {
            let (wal, done) = (log.wal.clone(), answer(name));
            scope.spawn(move || wal.save_vote(bytes("v"), done));
        }
    });
    assert!(
        receiver.try_recv().is_err(),
        "nobody is answered ahead of the sync"
    );
    disk.set_closed(false);
    let mut answers: Vec<_> = (0..=CALLERS)
        .map(|_| receiver.recv_timeout(PATIENCE).unwrap())
        .collect();
    assert_eq!(answers[0], (0, true));
    answers.sort();
    assert_eq!(
        answers,
        (0..=CALLERS).map(|name| (name, true)).collect::<Vec<_>>()
    );
    assert_eq!(disk.syncs() - before, 2);
    assert_eq!(log.wal.counters().syncs, 2);
    let temp = log.close();
    assert!(receiver.try_recv().is_err(), "each is answered once");
    drop(temp);
}

#[test]
fn answers_come_in_the_order_of_the_calls() {
    let log = Log::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    let (wal, mut expected) = (&log.wal, Vec::new());
    for round in 0..100_u64 {
        let note = |name: u64| -> Done {
            let order = Arc::clone(&order);
            Box::new(move |_| order.lock().unwrap().push(name))
        };
        wal.append(entries(round..round + 1, "e"), note(round * 4));
        wal.save_vote(bytes("v"), note(round * 4 + 1));
        wal.truncate_after(Some(round), note(round * 4 + 2));
        wal.purge_to(round / 2, bytes("p"), note(round * 4 + 3));
        expected.extend(round * 4..round * 4 + 4);
    }
    wait(|done| wal.append(Vec::new(), done)).unwrap();
    assert_eq!(*order.lock().unwrap(), expected);
}

#[test]
fn a_full_queue_holds_callers_up_and_loses_nothing() {
    let disk = Arc::new(GatedDisk::default());
    let log = Log::with(on(&disk));
    disk.set_closed(true);
    log.wal.append(entries(0..1, "first"), ignored());
    disk.await_sync();
    for _ in 0..QUEUE_JOBS_MAX {
        log.wal.append(Vec::new(), ignored());
    }
    let (sender, receiver) = mpsc::channel();
    let wal = log.wal.clone();
    let caller = thread::spawn(move || {
        let answered = sender.clone();
        wal.append(
            entries(1..2, "held"),
            Box::new(move |_| answered.send("answered").unwrap()),
        );
        sender.send("returned").unwrap();
    });
    assert!(
        receiver.recv_timeout(Duration::from_millis(50)).is_err(),
        "it must be held up"
    );
    disk.set_closed(false);
    caller.join().unwrap();
    let mut heard = [(); 2].map(|()| receiver.recv_timeout(PATIENCE).unwrap());
    heard.sort_unstable();
    assert_eq!(heard, ["answered", "returned"]);
    assert_eq!(log.reopen().indices(), [0, 1]);
}

#[test]
fn a_failed_call_fails_everything_after_it() {
    for fails in [Fails::Write, Fails::Sync] {
        // The first of each made the first segment, the second is the vote.
        let disk = Arc::new(FailingDisk::new(fails, 2));
        let log = Log::with(on(&disk));
        log.vote("kept");
        let error = wait(|done| log.wal.append(entries(0..1, "lost"), done)).unwrap_err();
        assert!(error.to_string().contains("the cable fell out"), "{error}");
        assert!(error.to_string().contains("restart"), "{error}");
        for _ in 0..3 {
            // The disk works again, and still nothing counts as done.
            assert!(wait(|done| log.wal.append(entries(0..1, "x"), done)).is_err());
            assert!(wait(|done| log.wal.save_vote(bytes("x"), done)).is_err());
            assert!(wait(|done| log.wal.truncate_after(None, done)).is_err());
            assert!(wait(|done| log.wal.purge_to(0, bytes("x"), done)).is_err());
        }
        assert!(log.wal.read(0..1).is_err());
        assert!(log.wal.failure().is_some());
        let log = log.reopen();
        assert_eq!(log.wal.state().vote, Some(bytes("kept")));
        assert_eq!(log.wal.failure(), None);
    }
}

#[test]
fn a_failure_answers_everything_that_was_queued() {
    let disk = Arc::new(FailingDisk::new(Fails::Sync, 40));
    let log = Log::with(on(&disk));
    let (sender, receiver) = mpsc::channel();
    for index in 0..500 {
        let sender = sender.clone();
        let payload = vec![(index, Bytes::from(vec![1; 500]))];
        log.wal.append(
            payload,
            Box::new(move |o| sender.send((index, o.is_ok())).unwrap()),
        );
    }
    let answers: Vec<_> = (0..500)
        .map(|_| receiver.recv_timeout(PATIENCE).unwrap())
        .collect();
    assert!(answers.iter().map(|answer| answer.0).eq(0..500));
    let kept = answers.iter().take_while(|answer| answer.1).count();
    assert!(kept < 500);
    assert!(
        answers[kept..].iter().all(|answer| !answer.1),
        "no success after a failure"
    );
    let found = log.reopen().indices().len();
    assert!(found >= kept, "{found} found, {kept} acknowledged");
}

#[test]
fn a_caller_that_panics_does_not_stop_the_log() {
    let log = Log::new();
    log.wal.append(
        entries(0..1, "a"),
        Box::new(|_| panic!("a careless caller")),
    );
    log.append(1..2, "a");
    assert_eq!(log.reopen().indices(), [0, 1]);
}
