//! Changes of members whose caller goes away after the first of the two steps.

use futures_util::FutureExt;
use model::NodeId;
use store_raft::Store;

use crate::harness::{Mesh, Options, id_of, until};

/// Three voters and as many learners as `learners`; who leads comes first.
async fn mesh(learners: usize) -> (Mesh, Vec<NodeId>) {
    let mut mesh = Mesh::form(3, Options::default()).await;
    mesh.put("a", "1").await;
    let leader = mesh.leader().await;
    for _ in 0..learners {
        let place = mesh.add().await;
        let member = mesh.node(place).member();
        mesh.node(leader).store.add_learner(member).await.unwrap();
        mesh.node(place).has("a", "1").await;
    }
    let mut ids: Vec<NodeId> = mesh.running().map(id_of).collect();
    ids.swap(0, leader);
    (mesh, ids)
}

/// Begins to give `old`'s vote to `new`, and goes away before the second step can be taken.
async fn interrupted(store: &Store, old: NodeId, new: NodeId) {
    // One poll hands the first step to Raft; only another one would go on to the second.
    assert!(store.replace_voter(old, new).now_or_never().is_none());
    let status = async || {
        let status = store.status();
        let done = status.joint && status.committed == status.last_log;
        done.then_some(())
    };
    until("the first step to be committed", status).await;
}

fn voters(store: &Store) -> Vec<NodeId> {
    let status = store.status();
    status.voters.iter().map(|voter| voter.id).collect()
}

fn sorted<const N: usize>(mut ids: [NodeId; N]) -> Vec<NodeId> {
    ids.sort();
    ids.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_change_can_be_finished() {
    let (mesh, ids) = mesh(1).await;
    let store = &mesh.leading().await.store;
    interrupted(store, ids[2], ids[3]).await;
    assert_eq!(voters(store).len(), 4);
    store.finish_change().await.unwrap();
    until("the change to show", async || {
        (!store.status().joint).then_some(())
    })
    .await;
    assert_eq!(voters(store), sorted([ids[0], ids[1], ids[3]]));
    // Again, when there is nothing to finish.
    store.finish_change().await.unwrap();
    assert_eq!(voters(store), sorted([ids[0], ids[1], ids[3]]));
    mesh.put("b", "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_change_keeps_what_an_interrupted_one_began() {
    let (mesh, ids) = mesh(2).await;
    let store = &mesh.leading().await.store;
    interrupted(store, ids[2], ids[3]).await;
    store.replace_voter(ids[1], ids[4]).await.unwrap();
    until("the change to show", async || {
        (!store.status().joint).then_some(())
    })
    .await;
    // Neither did the one who had gone come back, nor did the one who had come go.
    assert_eq!(voters(store), sorted([ids[0], ids[3], ids[4]]));
}
