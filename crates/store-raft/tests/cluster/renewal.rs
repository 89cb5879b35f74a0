//! New meshes from what is left: restored from an archive, recovered from a disk.

use std::path::Path;

use store_disk::DataDir;
use store_mvcc::{Command, GrantOp, Proposal, PutOp};
use store_raft::{Left, ProposeError, restore};

use crate::harness::{Mesh, Node, Options, until};

/// The member that a lone node is after its start, once it leads.
async fn leads(node: &Node) {
    until("the only node leads", async || {
        (node.store.status().role == store_raft::Role::Leader).then_some(())
    })
    .await;
}

async fn lone(dir: &Path, options: &Options) -> Node {
    let node = Node::start(dir, None, options).await;
    let members = vec![node.member()];
    node.store
        .initialize(members, crate::harness::MESH)
        .await
        .unwrap();
    leads(&node).await;
    node
}

/// Keys with history, a deletion, a lease.
async fn fill(node: &Node) {
    let grant = GrantOp {
        id: 7,
        ttl: 600,
        age_ms: 0,
    };
    let grant = Proposal::new(Command::Grant(grant));
    node.store.propose(&grant).await.unwrap();
    for at in 0..40 {
        node.put(&format!("key {}", at % 7), &at.to_string())
            .await
            .unwrap();
    }
    let leased = PutOp {
        lease: 7,
        ..PutOp::new("leased".to_owned(), "1".to_owned())
    };
    let leased = Proposal::new(Command::Put(leased));
    node.store.propose(&leased).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_mesh_has_everything_and_writes_on() {
    let temp = tempfile::tempdir().unwrap();
    let options = Options::default();
    let node = lone(&temp.path().join("old"), &options).await;
    fill(&node).await;
    let (id, image) = (node.store.id(), node.store.image());
    let file = temp.path().join("a.skein");
    let archive = node.store.archive().await;
    std::fs::write(&file, archive.write(Vec::new()).unwrap()).unwrap();
    drop(node);

    let dir = temp.path().join("new");
    let (made, info, _) = restore(&file, &dir, None).unwrap();
    assert_eq!(
        (info.node_id, info.mesh_id),
        (id, Some(crate::harness::MESH))
    );
    assert_ne!(made.node_id, id);
    assert_ne!(made.mesh_id, crate::harness::MESH);
    // Not twice into one directory.
    assert!(restore(&file, &dir, None).is_err());

    let node = Node::start(&dir, None, &options).await;
    leads(&node).await;
    let restored = node.store.image();
    assert!(restored.rows().eq(image.rows()));
    assert_eq!(restored.revision(), image.revision());
    assert_eq!(restored.lease_count(), 1);
    assert_eq!(node.store.mesh_id(), Some(made.mesh_id));
    node.put("after", "1").await.unwrap();
    assert_eq!(node.store.image().revision(), image.revision() + 1);
    drop(node);
    // It is a node like any other: it comes back with all of it.
    let node = Node::start(&dir, None, &options).await;
    node.has("after", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_revision_has_the_keys_and_no_history() {
    let temp = tempfile::tempdir().unwrap();
    let options = Options::default();
    let node = lone(&temp.path().join("old"), &options).await;
    fill(&node).await;
    let image = node.store.image();
    let file = temp.path().join("a.skein");
    let archive = node.store.archive().await;
    std::fs::write(&file, archive.write(Vec::new()).unwrap()).unwrap();
    drop(node);

    let dir = temp.path().join("new");
    restore(&file, &dir, std::num::NonZeroU32::new(1_000)).unwrap();
    let node = Node::start(&dir, None, &options).await;
    leads(&node).await;
    let restored = node.store.image();
    let revision = image.revision() + 1_000;
    assert_eq!(restored.revision(), revision);
    assert_eq!(restored.compact_revision(), revision);
    assert!(restored.changes_since(image.revision()).is_err());
    // All keys, and the one that tells.
    assert_eq!(restored.len(), image.len() + 1);
    assert!(restored.get(b"/skein/restored").is_some());
    assert_eq!(restored.get(b"key 3"), image.get(b"key 3"));
    assert_eq!(restored.lease_count(), 1);
    node.put("after", "1").await.unwrap();
    assert_eq!(node.store.image().revision(), revision + 1);
    drop(node);
    let node = Node::start(&dir, None, &options).await;
    node.has("after", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_is_refused_before_the_directory_is_touched() {
    let temp = tempfile::tempdir().unwrap();
    let node = lone(&temp.path().join("old"), &Options::default()).await;
    fill(&node).await;
    let mut bytes = node.store.archive().await.write(Vec::new()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let file = temp.path().join("a.skein");
    std::fs::write(&file, bytes).unwrap();
    let dir = temp.path().join("new");
    assert!(restore(&file, &dir, None).is_err());
    assert!(!dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_holds_counts_after_a_recovery() {
    let temp = tempfile::tempdir().unwrap();
    let (options, dir) = (Options::default(), temp.path().join("old"));
    let node = lone(&dir, &options).await;
    fill(&node).await;
    let (id, image) = (node.store.id(), node.store.image());
    let running = Left::find(&dir).unwrap_err().to_string();
    assert!(running.contains("in use"), "{running}");
    drop(node);

    let left = until("the directory is free", async || Left::find(&dir).ok()).await;
    assert_eq!((left.node_id, left.mesh_id), (id, crate::harness::MESH));
    assert_eq!(left.voters.len(), 1);
    assert!(left.image().rows().eq(image.rows()));
    let renewed = left.renew("kept").unwrap();
    assert_ne!(renewed.node_id, id);

    let node = Node::start(&dir, None, &options).await;
    leads(&node).await;
    assert_eq!(node.store.id(), renewed.node_id);
    assert_eq!(node.store.mesh_id(), Some(renewed.mesh_id));
    assert!(node.store.image().rows().eq(image.rows()));
    node.put("after", "1").await.unwrap();
    drop(node);
    // What was there is there still.
    let kept = DataDir::open(dir.join("kept")).unwrap();
    assert_eq!(kept.identity().node_id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_a_member_has_nothing_to_recover() {
    let temp = tempfile::tempdir().unwrap();
    let nothing = Left::find(temp.path()).unwrap_err();
    assert!(nothing.to_string().contains("nothing to recover"));
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    drop(DataDir::open(temp.path()).unwrap());
    let unformed = Left::find(temp.path()).unwrap_err();
    assert!(unformed.to_string().contains("nothing to recover"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_nobody_confirmed_is_told_and_counts() {
    let options = Options {
        request: Some(std::time::Duration::from_secs(1)),
        ..Options::default()
    };
    let mut mesh = Mesh::form(3, options).await;
    mesh.put("a", "1").await;
    mesh.settle().await;
    let leader = mesh.leader().await;
    for other in (0..3).filter(|place| *place != leader) {
        mesh.kill(other);
    }
    // It is in the log here, and nobody is told that it happened.
    let unknown = mesh.node(leader).put("b", "2").await.unwrap_err();
    assert!(
        matches!(unknown, ProposeError::OutcomeUnknown(_)),
        "{unknown:?}"
    );
    assert_eq!(mesh.node(leader).value("b"), None);
    mesh.kill(leader);

    let dir = mesh.dir(leader).to_owned();
    let left = until("the directory is free", async || Left::find(&dir).ok()).await;
    assert_eq!(left.voters.len(), 3);
    let writes: usize = left.uncertain.iter().map(|one| one.writes).sum();
    assert!(writes >= 1, "{:?}", left.uncertain);
    let last = left.uncertain.last().expect("one");
    assert_eq!((last.index, last.term), left.last);
    left.renew("kept").unwrap();
    let node = Node::start(&dir, None, &Options::default()).await;
    leads(&node).await;
    assert_eq!(node.value("a").as_deref(), Some("1"));
    assert_eq!(node.value("b").as_deref(), Some("2"));
    assert_eq!(node.store.status().voters.len(), 1);
}
