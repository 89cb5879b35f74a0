//! Images survive their snapshot, and damage is told.

use store_disk::DataDir;
use store_mvcc::{AuthOp, Command, DeleteOp, GrantOp, KeyRange, Machine, Proposal, PutOp, TickOp};

use super::*;

fn apply(machine: &mut Machine, command: Command) {
    machine.apply(&Proposal::new(command)).result.unwrap();
}

/// History, tombstones, a compaction, and values longer than a block.
fn image() -> Image {
    let mut machine = Machine::new();
    for n in 0..50 {
        let value = vec![b'v'; if n % 10 == 0 { 400_000 } else { n }];
        apply(
            &mut machine,
            Command::Put(PutOp::new(format!("k{}", n % 20), value)),
        );
    }
    apply(
        &mut machine,
        Command::Delete(DeleteOp::new(KeyRange::key("k3"))),
    );
    apply(&mut machine, Command::Compact { revision: 30 });
    // More leases than fit into one page, and keys that hang on some.
    for id in 1..=5_000 {
        let (ttl, age_ms) = (60, 0);
        apply(&mut machine, Command::Grant(GrantOp { id, ttl, age_ms }));
    }
    for id in [1, 4_999] {
        let put = PutOp {
            lease: id,
            ..PutOp::new(format!("leased/{id}"), "v")
        };
        apply(&mut machine, Command::Put(put));
    }
    let tick = TickOp {
        advance_ms: 900,
        ..TickOp::default()
    };
    apply(&mut machine, Command::Tick(tick));
    for name in ["a", "b"].map(str::to_owned) {
        let hash = None;
        apply(&mut machine, Command::Auth(AuthOp::AddUser { name, hash }));
    }
    machine.image()
}

#[test]
fn an_image_survives_its_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(&DataDir::open(dir.path()).unwrap()).unwrap();
    for image in [image(), Image::default()] {
        let snapshot = write(&store, &SnapshotMeta::default(), &image).unwrap();
        let back = read(&snapshot).unwrap();
        assert_eq!(back, image);
        assert_eq!(meta(&snapshot).unwrap(), SnapshotMeta::default());
    }
}

#[test]
fn records_that_are_cut_off_or_unknown_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(&DataDir::open(dir.path()).unwrap()).unwrap();
    let head = pb::SnapshotRecord {
        kind: Some(pb::snapshot_record::Kind::Image(image_meta_to_pb(
            Image::default().meta(),
        ))),
    };
    let head = head.encode_length_delimited_to_vec();
    let row_cut_off = [&head[..], &[9, 1, 2]].concat();
    let length_cut_off = [&head[..], &[0x80]].concat();
    let unknown_kind = [&head[..], &[2, 0x78, 1]].concat();
    let leases = |page: pb::LeasePage| {
        let kind = Some(pb::snapshot_record::Kind::Leases(page));
        let record = pb::SnapshotRecord { kind }.encode_length_delimited_to_vec();
        [&head[..], &record].concat()
    };
    let lease = Lease {
        expires_at_ms: 1,
        id: 1,
        ttl: 1,
    };
    let same_lease_twice = leases(leases_to_pb(&[lease, lease], &[]));
    let half_a_lease = leases(pb::LeasePage {
        ids: vec![1],
        ..Default::default()
    });
    let all = [
        vec![],
        row_cut_off,
        length_cut_off,
        unknown_kind,
        same_lease_twice,
        half_a_lease,
    ];
    for bytes in all {
        let mut writer = begin(&store, &SnapshotMeta::default()).unwrap();
        writer.write_all(&bytes).unwrap();
        let snapshot = writer.finish().unwrap();
        assert_eq!(
            read(&snapshot).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}

/// The messages of a snapshot of `image`, as a leader sends them.
async fn sent(store: &SnapshotStore, image: &Image) -> Vec<Result<pb::SnapshotChunk, Status>> {
    let meta = SnapshotMeta::default();
    let snapshot = write(store, &meta, image).unwrap();
    let vote = VoteId::new(1, model::NodeId(1));
    let chunks = chunks(vote, &meta, SnapshotFile::Whole(snapshot));
    chunks.map(Ok).collect().await
}

/// The files in the folder of the snapshots, by length.
fn files(dir: &tempfile::TempDir) -> Vec<u64> {
    let entries = std::fs::read_dir(dir.path().join("snapshots")).unwrap();
    let lengths = entries.map(|entry| entry.unwrap().metadata().unwrap().len());
    lengths.collect()
}

#[tokio::test]
async fn a_received_snapshot_is_all_on_disk_before_raft_hears_of_it() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let open = |at: usize| SnapshotStore::open(&DataDir::open(dirs[at].path()).unwrap()).unwrap();
    let (leader, follower) = (open(0), open(1));
    let chunks = sent(&leader, &image()).await;
    let (_, received) = receive(futures_util::stream::iter(chunks), &follower, |_| {})
        .await
        .unwrap();
    assert!(follower.newest().is_none(), "it does not count yet");
    let whole = leader.newest().unwrap().path().metadata().unwrap().len();
    assert_eq!(files(&dirs[1]), [whole]);
    let kept = keep(&follower, received.snapshot).unwrap();
    assert!(read(&kept).unwrap().rows().eq(image().rows()));
    assert_eq!(files(&dirs[1]), [whole]);
}

#[tokio::test]
async fn a_snapshot_for_which_there_is_no_room_is_answered_and_leaves_nothing() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let open = |at: usize| SnapshotStore::open(&DataDir::open(dirs[at].path()).unwrap()).unwrap();
    let (leader, follower) = (open(0), open(1));
    let mut cut = sent(&leader, &image()).await;
    // The disk that is always full stands where the first file will be written.
    let first = dirs[1].path().join("snapshots/0000000000000000.0.tmp");
    std::os::unix::fs::symlink("/dev/full", &first).unwrap();
    let mut refused = Box::pin(receive(
        futures_util::stream::iter(cut.clone()),
        &follower,
        |_| {},
    ));
    // The answer is held back; whoever waited for it no longer leaves nothing behind.
    let early = tokio::time::timeout(std::time::Duration::ZERO, &mut refused).await;
    assert!(early.is_err(), "answered at once, and sent again at once");
    drop(refused);
    assert_eq!(files(&dirs[1]), [0_u64; 0]);
    // So does one that ends early.
    cut.pop();
    let error = receive(futures_util::stream::iter(cut), &follower, |_| {}).await;
    assert_eq!(error.err().unwrap().code(), tonic::Code::DataLoss);
    assert_eq!(files(&dirs[1]), [0_u64; 0]);
}
