//! Nodes that come: as learners, then with a vote, perhaps in the place of a dead namesake.

use model::{MeshId, Version};
use store_raft::Member;
use store_server::{JoinError, Judgement, request_join, request_record};

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
    let joined = request_join(None, &seeds, &new.member(), Version::THIS, None)
        .await
        .unwrap();
    assert_eq!(joined.mesh_id, MESH);
    assert!(joined.members.contains(&new.member()));
    voters(&mesh, &[old.store.id().0, new.store.id().0]).await;
    let read = new.kv().range(get("k49")).await.unwrap().into_inner();
    assert_eq!(read.count, 1);
    // Asking again changes nothing.
    request_join(None, &seeds, &new.member(), Version::THIS, Some(MESH))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_points_a_joining_node_to_the_leader() {
    let mut mesh = Mesh::form(3).await;
    let place = mesh.add("newcomer").await;
    let follower = mesh.node(mesh.follower().await).peer.to_string();
    let joined = request_join(
        None,
        &[follower],
        &mesh.node(place).member(),
        Version::THIS,
        None,
    )
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

    let error = request_join(None, &seeds[..2], &me, Version::THIS, None)
        .await
        .unwrap_err();
    let JoinError::Refused(text) = &error else {
        panic!("{error}")
    };
    assert!(
        text.contains(&lost_member.name) && text.contains("--name"),
        "{text}"
    );

    mesh.gossip.say(lost_member.id, Judgement::Dead);
    request_join(None, &seeds[..2], &me, Version::THIS, None)
        .await
        .unwrap();
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
    let error = request_join(
        None,
        &seeds,
        &stranger.member(),
        Version::THIS,
        Some(MeshId(7)),
    )
    .await
    .unwrap_err();
    assert!(
        matches!(&error, JoinError::Refused(text) if text.contains("never merge")),
        "{error}"
    );
    let error = request_join(
        None,
        &[stranger.peer.to_string()],
        &member.member(),
        Version::THIS,
        None,
    )
    .await;
    assert!(error.unwrap_err().to_string().contains("no mesh yet"));
    let error = request_join(
        None,
        &["127.0.0.1:1".to_owned()],
        &stranger.member(),
        Version::THIS,
        None,
    )
    .await;
    assert!(matches!(error, Err(JoinError::Unavailable(text)) if text.contains("127.0.0.1:1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_has_its_new_address_recorded_and_keeps_its_vote() {
    let mesh = Mesh::form(3).await;
    let moved = mesh.follower().await;
    let seeds: Vec<String> = mesh.running().map(|node| node.peer.to_string()).collect();
    let me = Member {
        client_addr: "127.0.0.1:9".to_owned(),
        ..mesh.node(moved).member()
    };
    let joined = request_record(None, &seeds, &me, MESH).await.unwrap();
    assert!(joined.members.contains(&me));
    let status = mesh.node(mesh.leader().await).store.status();
    assert!(status.voters.contains(&me) && status.voters.len() == 3);
    // Asking again changes nothing.
    let log = status.last_log;
    request_record(None, &seeds, &me, MESH).await.unwrap();
    assert_eq!(mesh.node(mesh.leader().await).store.status().last_log, log);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_one_members_until_that_is_dead() {
    let mut mesh = Mesh::form(3).await;
    let (claimed, claimant) = (mesh.node(mesh.leader().await), mesh.follower().await);
    let (claimed, claimant) = (claimed.member(), mesh.node(claimant).member());
    let seeds: Vec<String> = mesh.running().map(|node| node.peer.to_string()).collect();
    for (flag, twice) in [
        (
            "--peer-addr",
            Member {
                peer_addr: claimed.peer_addr.clone(),
                ..claimant.clone()
            },
        ),
        (
            "--client-addr",
            Member {
                client_addr: claimed.client_addr.clone(),
                ..claimant.clone()
            },
        ),
    ] {
        let error = request_record(None, &seeds, &twice, MESH)
            .await
            .unwrap_err();
        let JoinError::Refused(text) = &error else {
            panic!("{error}")
        };
        assert!(
            text.contains(flag) && text.contains(&claimed.name),
            "{text}"
        );
    }
    // A new node is told the same, and gets the place of a dead one.
    let place = mesh.add("newcomer").await;
    let new = Member {
        peer_addr: claimed.peer_addr.clone(),
        ..mesh.node(place).member()
    };
    let error = request_join(None, &seeds, &new, Version::THIS, None)
        .await
        .unwrap_err();
    assert!(matches!(error, JoinError::Refused(_)), "{error}");
    mesh.gossip.say(claimed.id, Judgement::Dead);
    request_join(None, &seeds, &new, Version::THIS, None)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_removed_is_told_and_not_taken_back() {
    let mesh = Mesh::form(3).await;
    let leader = mesh.node(mesh.leader().await);
    let gone = mesh.node(mesh.follower().await).member();
    leader.store.remove(gone.id).await.unwrap();
    let seeds: Vec<String> = mesh.running().map(|node| node.peer.to_string()).collect();
    let error = request_record(None, &seeds, &gone, MESH).await.unwrap_err();
    let JoinError::Removed(text) = &error else {
        panic!("{error}")
    };
    let remedy = "empty its data directory";
    assert!(
        text.contains("was removed") && text.contains(remedy),
        "{text}"
    );
    assert!(leader.store.status().member(gone.id).is_none());
}
