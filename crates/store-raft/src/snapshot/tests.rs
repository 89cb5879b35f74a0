//! Images survive their snapshot, and damage is told.

use store_disk::DataDir;
use store_mvcc::{Command, DeleteOp, KeyRange, Machine, Proposal, PutOp};

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
    machine.image()
}

#[test]
fn an_image_survives_its_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(&DataDir::open(dir.path()).unwrap()).unwrap();
    for image in [image(), Image::default()] {
        let snapshot = write(&store, &SnapshotMeta::default(), &image).unwrap();
        let back = read(&snapshot).unwrap();
        assert_eq!(back.meta(), image.meta());
        assert!(back.rows().eq(image.rows()));
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
    for bytes in [vec![], row_cut_off, length_cut_off, unknown_kind] {
        let mut writer = begin(&store, &SnapshotMeta::default()).unwrap();
        writer.write_all(&bytes).unwrap();
        let snapshot = writer.finish().unwrap();
        assert_eq!(
            read(&snapshot).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
