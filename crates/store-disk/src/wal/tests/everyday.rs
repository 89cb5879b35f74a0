//! The log without accidents.

use super::*;

#[test]
fn entries_are_readable_at_once_and_after_a_restart() {
    let log = Log::new();
    log.wal.append(entries(0..3, "a"), ignored());
    assert_eq!(log.read_all(), entries(0..3, "a"));
    log.append(3..40, "b");
    let log = log.reopen();
    assert_eq!(log.recovered.torn, None);
    assert_eq!(log.indices(), (0..40).collect::<Vec<_>>());
    assert_eq!(
        log.wal.read(2..4).unwrap(),
        [(2, bytes("a-2")), (3, bytes("b-3"))]
    );
    assert_eq!(log.wal.read(38..99).unwrap().len(), 2);
    assert_eq!(log.wal.read(50..60).unwrap(), []);
    assert_eq!(log.wal.read(4..4).unwrap(), []);
}

#[test]
fn an_empty_log_is_empty_after_a_restart() {
    let log = Log::new().reopen();
    let state = log.wal.state();
    assert_eq!((state.first, state.last, state.purged), (None, None, None));
    assert_eq!((state.vote, state.committed), (None, None));
}

#[test]
fn vote_and_committed_survive_the_removal_of_the_segments_they_were_written_to() {
    let log = Log::new();
    log.vote("v");
    log.wal.save_committed(bytes("c"));
    log.append(0..200, "entry");
    assert!(log.segments().len() > 2);
    log.purge_to(198);
    assert_eq!(log.segments().len(), 1);
    let log = log.reopen();
    let state = log.wal.state();
    assert_eq!(
        (state.vote, state.committed),
        (Some(bytes("v")), Some(bytes("c")))
    );
    assert_eq!(
        state.purged,
        Some(Purged {
            index: 198,
            id: bytes("p198")
        })
    );
    assert_eq!(log.indices(), [199]);
}

#[test]
fn a_purge_beyond_the_end_empties_the_log_for_good() {
    let log = Log::new();
    log.append(0..100, "old");
    log.purge_to(500);
    for _ in 0..2 {
        assert_eq!(log.indices(), []);
    }
    let log = log.reopen();
    let state = log.wal.state();
    assert_eq!((state.first, state.last), (None, None));
    assert_eq!(state.purged.unwrap().index, 500);
    let error = wait(|done| log.wal.append(entries(100..101, "x"), done)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    log.append(501..503, "new");
    assert_eq!(log.reopen().read_all(), entries(501..503, "new"));
}

#[test]
fn a_truncation_followed_by_less_is_not_undone_by_a_restart() {
    let log = Log::new();
    log.append(0..50, "old");
    log.truncate_after(Some(9));
    log.append(10..12, "new");
    let log = log.reopen();
    let mut expected = entries(0..10, "old");
    expected.extend(entries(10..12, "new"));
    assert_eq!(log.read_all(), expected);
    log.truncate_after(None);
    assert_eq!(log.reopen().indices(), []);
}

#[test]
fn a_gap_is_refused_and_changes_nothing() {
    let log = Log::new();
    log.append(5..7, "a");
    for bad in [
        entries(8..9, "x"),
        entries(6..7, "x"),
        vec![(7, bytes("x")), (9, bytes("x"))],
    ] {
        let error = wait(|done| log.wal.append(bad, done)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    log.append(7..8, "a");
    assert_eq!(log.reopen().read_all(), entries(5..8, "a"));
}

#[test]
fn an_entry_larger_than_a_segment_gets_one_of_its_own_size() {
    let log = Log::new();
    let large = Bytes::from(vec![7; 20_000]);
    let (first, last) = (vec![(0, large.clone())], vec![(2, large.clone())]);
    wait(|done| log.wal.append(first, done)).unwrap();
    log.append(1..2, "small");
    wait(|done| log.wal.append(last, done)).unwrap();
    let log = log.reopen();
    assert_eq!(
        log.read_all(),
        [(0, large.clone()), (1, bytes("small-1")), (2, large)]
    );
}

#[test]
fn an_entry_beyond_the_limit_is_refused() {
    let log = Log::new();
    let too_large = vec![(0, Bytes::from(vec![0; ENTRY_BYTES_MAX + 1]))];
    let error = wait(|done| log.wal.append(too_large, done)).unwrap_err();
    assert!(error.to_string().contains("split"), "{error}");
    log.append(0..1, "fits");
}

#[test]
fn one_large_append_spans_segments() {
    let log = Log::new();
    log.append(0..500, "entry");
    assert!(log.segments().len() > 4);
    assert_eq!(log.reopen().read_all(), entries(0..500, "entry"));
}

#[test]
fn the_cache_keeps_to_its_limit_and_reads_go_on_from_the_files() {
    let log = Log::new();
    log.append(0..300, "entry");
    assert!(log.wal.shared.lock().ledger.cache_bytes() <= small().cache_bytes);
    assert_eq!(log.read_all(), entries(0..300, "entry"));
}

#[test]
fn a_bounded_read_returns_at_least_one_entry() {
    let log = Log::new();
    let payloads = (0..10)
        .map(|index| (index, Bytes::from(vec![1; 100])))
        .collect();
    wait(|done| log.wal.append(payloads, done)).unwrap();
    assert_eq!(log.wal.read_up_to(0..10, 0).unwrap().len(), 1);
    assert_eq!(log.wal.read_up_to(0..10, 350).unwrap().len(), 3);
    assert_eq!(log.wal.read_up_to(0..10, 1000).unwrap().len(), 10);
}

#[test]
fn purging_less_than_before_does_nothing() {
    let log = Log::new();
    log.append(0..10, "a");
    log.purge_to(5);
    log.purge_to(3);
    assert_eq!(
        log.wal.state().purged,
        Some(Purged {
            index: 5,
            id: bytes("p5")
        })
    );
    assert_eq!(log.reopen().indices(), [6, 7, 8, 9]);
}

#[test]
fn committed_is_written_without_another_operation() {
    let log = Log::new();
    log.wal.save_committed(bytes("first"));
    log.wal.save_committed(bytes("last"));
    assert_eq!(log.wal.state().committed, Some(bytes("last")));
    assert_eq!(log.reopen().wal.state().committed, Some(bytes("last")));
}

#[test]
fn the_directory_stays_locked_until_the_log_is_closed() {
    let log = Log::new();
    let error = DataDir::open(log.temp.path()).unwrap_err();
    assert!(matches!(error, crate::OpenError::InUse { .. }), "{error}");
    let temp = log.close();
    DataDir::open(temp.path()).unwrap();
}

#[test]
fn segment_lengths_out_of_bounds_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(temp.path()).unwrap();
    for segment_bytes in [0, 4095, (1 << 30) + 1] {
        let error = Wal::open(
            &data_dir,
            WalOptions {
                segment_bytes,
                ..small()
            },
        )
        .unwrap_err();
        assert!(matches!(error, WalError::SegmentBytes(_)), "{error}");
    }
}

#[test]
fn the_last_handle_may_be_dropped_by_an_answer() {
    let Log { wal, temp, .. } = Log::new();
    let (sender, receiver) = mpsc::channel();
    let (kept, handle) = (wal.clone(), wal.clone());
    let (go, gone) = mpsc::channel();
    handle.append(
        entries(0..1, "a"),
        Box::new(move |_| {
            gone.recv_timeout(PATIENCE).unwrap();
            drop(kept);
            sender.send(()).unwrap();
        }),
    );
    drop((wal, handle));
    go.send(()).unwrap();
    receiver.recv_timeout(PATIENCE).unwrap();
    drop(temp);
}

#[test]
fn a_log_can_be_shared_among_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Wal>();
    shared::<crate::Rows>();
    shared::<crate::SnapshotStore>();
    shared::<DataDir>();
}
