//! openraft's own suite for log and state machine, and what it does not look at.

use model::Version;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use store_disk::{DataDir, SnapshotStore, WalOptions};
use tempfile::TempDir;

use super::*;
use crate::machine::{Published, State, StateMachine};
use crate::types::LeaderId;

struct Fresh;

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let log = open(&data);
        let snapshots = log.snapshots.clone();
        let state = State::empty();
        let published = Published::new(&state);
        Ok((
            dir,
            log.clone(),
            StateMachine::new(Version::FIRST, state, published, snapshots, log),
        ))
    }
}

fn open(data: &DataDir) -> LogStore {
    let options = WalOptions {
        segment_bytes: 64 * 1024,
        ..WalOptions::default()
    };
    let snapshots = SnapshotStore::open(data).unwrap();
    LogStore::new(Wal::open(data, options).unwrap().0, snapshots)
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_storage_suite() {
    Suite::test_all(Fresh).await.unwrap();
}

fn blank(term: u64, index: u64) -> Entry {
    let leader = LeaderId {
        term,
        node_id: model::NodeId(1),
    };
    Entry {
        log_id: LogId::new(leader, index),
        payload: openraft::EntryPayload::Blank,
    }
}

async fn append(log: &mut LogStore, entries: Vec<Entry>) {
    log.append(entries, IOFlushed::noop()).await.unwrap();
    log.barrier().await.unwrap();
}

#[tokio::test]
async fn what_follows_the_older_snapshot_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let mut log = open(&data);
    append(&mut log, (1..=20).map(|index| blank(1, index)).collect()).await;
    let purged = async |log: &mut LogStore, upto| {
        log.purge(blank(1, upto).log_id).await.unwrap();
        log.barrier().await.unwrap();
        let state = log.get_log_state().await.unwrap();
        state.last_purged_log_id.unwrap().index
    };
    for index in [5, 10] {
        let mut meta = State::empty().meta();
        meta.last_log_id = Some(blank(1, index).log_id);
        snapshot::write(&log.snapshots, &meta, &store_mvcc::Image::default()).unwrap();
        if index == 5 {
            assert_eq!(purged(&mut log, 3).await, 3, "there is but one");
        }
    }
    assert_eq!(purged(&mut log, 4).await, 4);
    assert_eq!(purged(&mut log, 8).await, 5);
    assert_eq!(purged(&mut log, 10).await, 5);
    assert_eq!(log.read(6..21, usize::MAX).unwrap().len(), 15);
    // A snapshot of the leader's, far ahead: the log goes on after it.
    assert_eq!(purged(&mut log, 30).await, 30);
    append(&mut log, vec![blank(2, 31)]).await;
}

#[tokio::test]
async fn what_is_durable_is_known_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let mut log = open(&data);
    assert_eq!(log.durable.index(), 0);
    append(&mut log, (1..=10).map(|index| blank(1, index)).collect()).await;
    assert_eq!(log.durable.index(), 10);
    let vote = VoteId::new(3, model::NodeId(7));
    log.save_vote(&vote).await.unwrap();
    log.truncate_after(Some(blank(1, 6).log_id)).await.unwrap();
    assert_eq!(log.durable.index(), 6);
    append(&mut log, vec![blank(2, 7)]).await;
    assert_eq!(log.durable.index(), 7);
    drop(log);

    let mut log = open(&data);
    assert_eq!(log.durable.index(), 7);
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    let entries = log.try_get_log_entries(..).await.unwrap();
    let ids: Vec<_> = entries.iter().map(|entry| entry.log_id).collect();
    let expected: Vec<_> = (1..=6).map(|index| (1, index)).chain([(2, 7)]).collect();
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(term, index)| blank(term, index).log_id)
        .collect();
    assert_eq!(ids, expected);
}

#[test]
fn an_append_from_before_a_truncation_does_not_count_for_what_follows() {
    let durable = Durable::default();
    let before = durable.era();
    durable.truncated(3);
    durable.appended(9, before);
    assert_eq!(durable.index(), 0);
    durable.appended(4, durable.era());
    assert_eq!(durable.index(), 4);
}

#[tokio::test]
async fn an_entry_of_an_unknown_kind_is_an_error_not_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let mut log = open(&data);
    append(&mut log, vec![blank(1, 1)]).await;
    let log_id = Some(wire::log_id_to_pb(&blank(1, 2).log_id));
    let strange = pb::Entry {
        log_id,
        payload: None,
    };
    completed(|done| log.wal.append(vec![(2, encode(&strange))], done))
        .await
        .unwrap();
    let error = log.try_get_log_entries(..).await.unwrap_err();
    assert!(error.to_string().contains("unknown kind"), "{error}");
}
