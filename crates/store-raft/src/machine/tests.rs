//! Apply publishes before it answers, and stops at what it does not know.

use bytes::Bytes;
use futures_util::stream;
use openraft::storage::{IOFlushed, RaftLogStorage};
use store_disk::{DataDir, Wal, WalOptions};
use store_mvcc::{PutOp, TickOp};
use tempfile::TempDir;

use super::*;
use crate::types::{Entry, LeaderId};

fn machine() -> (TempDir, StateMachine) {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let snapshots = SnapshotStore::open(&data).unwrap();
    let wal = Wal::open(&data, WalOptions::default()).unwrap().0;
    let log = LogStore::new(wal, snapshots.clone());
    let state = State::empty();
    let published = Published::new(&state);
    let version = Version::FIRST;
    let machine = StateMachine::new(version, state, published, snapshots, log);
    (dir, machine)
}

fn entry(index: u64, batch: &pb::Batch) -> Entry {
    let leader = LeaderId {
        term: 1,
        node_id: model::NodeId(1),
    };
    let batch = EncodedBatch(Bytes::from(batch.encode_to_vec()));
    Entry {
        log_id: LogId::new(leader, index),
        payload: EntryPayload::Normal(batch),
    }
}

fn put(key: &'static str) -> pb::Proposal {
    convert::proposal_to_pb(&Proposal::new(Command::Put(PutOp::new(key, "v"))))
}

async fn apply(machine: &mut StateMachine, entries: Vec<Entry>) -> io::Result<()> {
    machine
        .apply(stream::iter(
            entries.into_iter().map(|entry| Ok((entry, None))),
        ))
        .await
}

#[tokio::test]
async fn proposals_of_one_entry_are_revisions_of_their_own() {
    let (_dir, mut machine) = machine();
    let batch = pb::Batch {
        proposals: vec![put("a"), put("b")],
        ..pb::Batch::default()
    };
    apply(&mut machine, vec![entry(1, &batch), entry(2, &batch)])
        .await
        .unwrap();
    let image = machine.published.images.borrow().clone();
    assert_eq!((image.revision(), image.len()), (5, 2));
    assert_eq!(*machine.published.applied.borrow(), 2);
}

#[tokio::test]
async fn lease_time_of_another_term_counts_nothing() {
    let (_dir, mut machine) = machine();
    let tick = |from_ms, term| {
        let op = TickOp {
            from_ms,
            advance_ms: 500,
            term,
        };
        convert::proposal_to_pb(&Proposal::new(Command::Tick(op)))
    };
    let batch = pb::Batch {
        proposals: vec![tick(0, 1), tick(500, 2), tick(500, 0)],
        ..pb::Batch::default()
    };
    apply(&mut machine, vec![entry(1, &batch)]).await.unwrap();
    let image = machine.published.images.borrow().clone();
    assert_eq!(image.meta().lease_clock_ms, 500);
}

#[tokio::test]
async fn an_unknown_command_stops_apply_and_changes_nothing() {
    let (_dir, mut machine) = machine();
    // Field 14 of a proposal does not exist yet.
    let newer = pb::Proposal::decode(&b"\x72\x03abc"[..]).unwrap();
    let batch = pb::Batch {
        proposals: vec![put("a"), newer],
        ..pb::Batch::default()
    };
    let error = apply(&mut machine, vec![entry(1, &batch)])
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("log entry 1") && text.contains("version"),
        "{text}"
    );
    assert_eq!(machine.state().applied_index(), 0);
    assert!(machine.state().image.is_empty());
}

#[tokio::test]
async fn an_entry_for_newer_nodes_stops_apply_though_it_can_be_read() {
    let (_dir, mut machine) = machine();
    let mut batch = pb::Batch {
        proposals: vec![put("a")],
        needs: Some(pb::Version { major: 0, minor: 1 }),
        ..pb::Batch::default()
    };
    apply(&mut machine, vec![entry(1, &batch)]).await.unwrap();
    batch.needs = Some(pb::Version { major: 0, minor: 2 });
    let error = apply(&mut machine, vec![entry(2, &batch)])
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "log entry 2 cannot be applied (it needs version 0.2 or newer); this node runs version \
         0.1: run version 0.2, it goes on from here"
    );
    assert_eq!(machine.state().applied_index(), 1);
}

#[tokio::test]
async fn a_snapshot_carries_members_and_place() {
    let (_dir, mut machine) = machine();
    let batch = pb::Batch {
        proposals: vec![put("a")],
        ..pb::Batch::default()
    };
    apply(&mut machine, vec![entry(1, &batch)]).await.unwrap();
    let built = machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    assert_eq!(built.meta.last_log_id.unwrap().index, 1);

    let (_other_dir, mut other) = self::machine();
    let writer = match built.snapshot {
        SnapshotFile::Whole(snapshot) => {
            let mut writer = other.snapshots.begin(1, snapshot.meta()).unwrap();
            for block in snapshot.blocks() {
                io::Write::write_all(&mut writer, &block.unwrap()).unwrap();
            }
            writer
        }
        SnapshotFile::Received(_) => unreachable!("a built snapshot is whole"),
    };
    assert!(other.snapshots.newest().is_none());
    other
        .install_snapshot(&built.meta, SnapshotFile::Received(writer.seal().unwrap()))
        .await
        .unwrap();
    assert_eq!(other.snapshots.newest().unwrap().index(), 1);
    assert!(other.published.images.borrow().get(b"a").is_some());
    assert_eq!(*other.published.applied.borrow(), 1);
}

#[tokio::test]
async fn another_state_replaces_this_one_and_the_log_does_the_rest() {
    let (_dir, mut sound) = machine();
    let batch = |key| pb::Batch {
        proposals: vec![put(key)],
        ..pb::Batch::default()
    };
    let first = vec![entry(1, &batch("a")), entry(2, &batch("b"))];
    apply(&mut sound, first.clone()).await.unwrap();
    let (old, newest) = (sound.state(), 4);
    let checkpoint = pb::Batch {
        checkpoint: true,
        ..batch("d")
    };
    let rest = vec![entry(3, &batch("c")), entry(newest, &checkpoint)];
    apply(&mut sound, rest.clone()).await.unwrap();
    let marked = sound.published.checkpoints.borrow().clone().unwrap();
    assert_eq!((marked.applied_index(), marked.image.len()), (newest, 4));

    // The other one applied something else, and has the same log.
    let (_dir, mut damaged) = machine();
    let wrong = vec![entry(1, &batch("x")), entry(2, &batch("b"))];
    apply(&mut damaged, wrong).await.unwrap();
    apply(&mut damaged, rest.clone()).await.unwrap();
    let before = damaged.state();
    let gap = damaged.replace(old.clone()).unwrap_err();
    assert!(gap.contains("entry 3"), "{gap}");
    assert!(damaged.state().image == before.image, "nothing has changed");
    let log = &mut damaged.log;
    let entries = first.into_iter().chain(rest);
    log.append(entries, IOFlushed::noop()).await.unwrap();
    log.barrier().await.unwrap();
    let ahead = State {
        applied: entry(5, &batch("e")).log_id.into(),
        ..old.clone()
    };
    let ahead = damaged.replace(ahead).unwrap_err();
    assert!(ahead.contains("entry 5"), "{ahead}");
    damaged.replace(old).unwrap();
    assert!(damaged.state().image == sound.state().image);
    assert_eq!(damaged.state().applied, sound.state().applied);
    assert_eq!(damaged.state().installs, before.installs + 1);
    let published = damaged.published.images.borrow().clone();
    assert!(published == sound.state().image);
}
