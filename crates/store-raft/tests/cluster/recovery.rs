//! Nodes that come back from their disk.

use std::fs;

use store_raft::{SnapshotLimits, Source};

use crate::harness::{Mesh, Options, until};

fn often() -> Options {
    let snapshots = SnapshotLimits {
        every_entries: 50,
        keep_entries: 10,
        ..Default::default()
    };
    Options {
        snapshots,
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_bounded_in_bytes_too() {
    let snapshots = SnapshotLimits {
        every_bytes: 500_000,
        keep_bytes: 100_000,
        ..SnapshotLimits::default()
    };
    let mesh = Mesh::form(
        1,
        Options {
            snapshots,
            ..Options::default()
        },
    )
    .await;
    let value = "v".repeat(50_000);
    until("the log to be purged", async || {
        mesh.put("k", &value).await;
        (mesh.node(0).store.status().purged > 5).then_some(())
    })
    .await;
    assert!(mesh.node(0).store.status().last_log < 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_restarts() {
    let mut mesh = Mesh::form(1, Options::default()).await;
    for n in 0..100 {
        mesh.put(&format!("k{n}"), "v").await;
    }
    for round in 0..3 {
        let revision = mesh.node(0).store.image().revision();
        mesh.kill(0);
        mesh.restart(0).await;
        mesh.leader().await;
        let store = &mesh.node(0).store;
        store.read_barrier().await.unwrap();
        assert_eq!(store.image().revision(), revision);
        mesh.put("again", &round.to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_restart_at_once() {
    let mut mesh = Mesh::form(3, often()).await;
    for n in 0..130 {
        mesh.put(&format!("k{n}"), "v").await;
    }
    let revision = mesh.leading().await.store.image().revision();
    for place in 0..3 {
        mesh.kill(place);
    }
    for place in 0..3 {
        mesh.restart(place).await;
    }
    let leader = mesh.leading().await;
    leader.store.read_barrier().await.unwrap();
    assert_eq!(leader.store.image().revision(), revision);
    mesh.put("on", "we go").await;
    mesh.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_far_behind_gets_a_snapshot() {
    let mut mesh = Mesh::form(3, often()).await;
    mesh.put("a", "1").await;
    mesh.settle().await;
    let behind = (mesh.leader().await + 1) % 3;
    let had = mesh.node(behind).store.status().last_log;
    mesh.kill(behind);
    for n in 0..200 {
        mesh.put(&format!("k{n}"), &"v".repeat(n * 10)).await;
    }
    let leader = mesh.leading().await;
    until("the log to be purged", async || {
        (leader.store.status().purged > had).then_some(())
    })
    .await;
    mesh.restart(behind).await;
    mesh.settle().await;
    let (theirs, ours) = (
        mesh.leading().await.store.image(),
        mesh.node(behind).store.image(),
    );
    assert!(ours.rows().eq(theirs.rows()));
    // It keeps the snapshot: started again it needs nobody.
    assert!(mesh.node(behind).store.status().snapshot > had);
    mesh.kill(behind);
    mesh.restart(behind).await;
    assert!(mesh.node(behind).store.image().revision() > 100);
    mesh.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_gone_or_damaged_are_rebuilt_from_snapshot_and_log() {
    let mut mesh = Mesh::form(1, often()).await;
    for n in 0..120 {
        mesh.put(&format!("k{n}"), "v").await;
    }
    let image = mesh.node(0).store.image();
    until("a snapshot", async || {
        (mesh.node(0).store.status().snapshot >= 50).then_some(())
    })
    .await;
    // Nothing lost: the rows are the newest.
    let last = mesh.node(0).store.status().applied;
    restart_in_order(&mut mesh, last).await;
    assert!(mesh.node(0).store.status().recovery.damage.is_empty());

    mesh.kill(0);
    remove_rows(&mesh).await;
    mesh.restart(0).await;
    mesh.leader().await;
    mesh.node(0).store.read_barrier().await.unwrap();
    let recovery = mesh.node(0).store.status().recovery;
    assert_eq!(recovery.source, Source::Snapshot, "{recovery:?}");
    assert!(mesh.node(0).store.image().rows().eq(image.rows()));
    restart_in_order(&mut mesh, last).await;

    mesh.kill(0);
    damage_rows(&mesh).await;
    mesh.restart(0).await;
    mesh.leader().await;
    mesh.node(0).store.read_barrier().await.unwrap();
    let recovery = mesh.node(0).store.status().recovery;
    assert_eq!(
        (recovery.source, recovery.damage.len()),
        (Source::Snapshot, 1),
        "{recovery:?}"
    );
    assert!(mesh.node(0).store.image().rows().eq(image.rows()));
}

/// Stops the node in order, which brings its rows to where the log is, and starts it again: there is
/// nothing to replay.
pub(crate) async fn restart_in_order(mesh: &mut Mesh, index: u64) {
    mesh.node(0).store.shutdown().await;
    mesh.kill(0);
    mesh.restart(0).await;
    let recovery = mesh.node(0).store.status().recovery;
    assert_eq!(recovery.source, Source::Rows, "{recovery:?}");
    assert!(recovery.index >= index, "{recovery:?}, not {index}");
}

async fn remove_rows(mesh: &Mesh) {
    until("the rows to be free", async || {
        store_disk::DataDir::open(mesh.dir(0)).ok()
    })
    .await;
    fs::remove_dir_all(mesh.dir(0).join("rows")).unwrap();
}

async fn damage_rows(mesh: &Mesh) {
    until("the rows to be free", async || {
        store_disk::DataDir::open(mesh.dir(0)).ok()
    })
    .await;
    for entry in fs::read_dir(mesh.dir(0).join("rows")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let mut bytes = fs::read(&path).unwrap();
            bytes
                .iter_mut()
                .for_each(|byte| *byte = byte.wrapping_add(1));
            fs::write(&path, bytes).unwrap();
        }
    }
}
