//! Nodes that come: as learners, then with a vote, perhaps in the place of a dead namesake.

use model::MeshId;
use store_server::{JoinError, Judgement, request_join};

use crate::harness::{MESH, Mesh, get, put, until};

async fn voters(mesh: &Mesh, expected: &[u64]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    until("these voters", async || {
        let status = mesh.node(mesh.leader().await).store.status();
        let mut voters: Vec<u64> = status.voters.iter().map(|voter| voter.id.0).collect();
        voters.sort_unstable();
        (voters == expected && status.learners.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_catches_up_and_gets_a_vote() {
    let mut mesh = Mesh::form(1).await;
    for n in 0..50 {
        mesh.node(0)
            .kv()
            .put(put(&format!("k{n}"), "v"))
            .await
            .unwrap();
    }
    let place = mesh.add("newcomer").await;
    let (old, new) = (mesh.node(0), mesh.node(place));
    let seeds = ["127.0.0.1:1".to_owned(), old.peer.to_string()];
    let joined = request_join(&seeds, &new.member(), None).await.unwrap();
    assert_eq!(joined.mesh_id, MESH);
    assert!(joined.members.contains(&new.member()));
    voters(&mesh, &[old.store.id().0, new.store.id().0]).await;
    let read = new.kv().range(get("k49")).await.unwrap().into_inner();
    assert_eq!(read.count, 1);
    // Asking again changes nothing.
    request_join(&seeds, &new.member(), Some(MESH))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_points_a_joining_node_to_the_leader() {
    let mut mesh = Mesh::form(3).await;
    let place = mesh.add("newcomer").await;
    let follower = mesh.node(mesh.follower().await).peer.to_string();
    let joined = request_join(&[follower], &mesh.node(place).member(), None)
        .await
        .unwrap();
    assert_eq!(joined.members.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_replaces_its_namesake_once_that_is_dead() {
    let mut mesh = Mesh::form(3).await;
    let lost = mesh.follower().await;
    let lost_member = mesh.node(lost).member();
    mesh.kill(lost);
    let place = mesh.add(&lost_member.name).await;
    let seeds: Vec<String> = mesh.running().map(|node| node.peer.to_string()).collect();
    let me = mesh.node(place).member();

    let error = request_join(&seeds[..2], &me, None).await.unwrap_err();
    let JoinError::Refused(text) = &error else {
        panic!("{error}")
    };
    assert!(
        text.contains(&lost_member.name) && text.contains("--name"),
        "{text}"
    );

    mesh.gossip.say(lost_member.id, Judgement::Dead);
    request_join(&seeds[..2], &me, None).await.unwrap();
    let expected: Vec<u64> = mesh.running().map(|node| node.store.id().0).collect();
    voters(&mesh, &expected).await;
    mesh.node(place).kv().put(put("a", "v")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn meshes_do_not_merge_and_a_node_without_one_takes_nobody_in() {
    let mut mesh = Mesh::form(1).await;
    let place = mesh.add("stranger").await;
    let (member, stranger) = (mesh.node(0), mesh.node(place));
    let seeds = [member.peer.to_string()];
    let error = request_join(&seeds, &stranger.member(), Some(MeshId(7)))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, JoinError::Refused(text) if text.contains("never merge")),
        "{error}"
    );
    let error = request_join(&[stranger.peer.to_string()], &member.member(), None).await;
    assert!(error.unwrap_err().to_string().contains("no mesh yet"));
    let error = request_join(&["127.0.0.1:1".to_owned()], &stranger.member(), None).await;
    assert!(matches!(error, Err(JoinError::Unavailable(text)) if text.contains("127.0.0.1:1")));
}
